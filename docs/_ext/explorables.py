"""The directive ``explorable``: a small program on a page, with the scripts and styles that it needs."""

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FOLDER = Path(__file__).parent.parent / "explorer"

# Name of an explorable, which is that of its HTML, and the files that it needs, in their order.
FILES = {
    "rank": ("explorer.css", "training.css", "explorer-data.js", "svd.js", "explorer.js"),
    "factors": ("explorer.css", "factors.js"),
    "training": ("explorer.css", "training.css", "training-data.js", "lora.js", "training.js"),
    "inspector": ("explorer.css", "training.css", "inspector.css", "svd.js", "adapter.js", "inspector.js"),
    "speaker": (
        "explorer.css",
        "training.css",
        "speaker.css",
        "speaker-data.js",
        "svd.js",
        "adapter.js",
        "speak.js",
        "speaker.js",
    ),
    "calculator": (
        "explorer.css",
        "calculator.css",
        "calculator-data.js",
        "families.js",
        "memory.js",
        "calculator.js",
    ),
}
FRAGMENTS = {name: FOLDER / f"{'explorer' if name == 'rank' else name}.html" for name in FILES}


class Explorable(SphinxDirective):
    """The HTML of an explorable; the argument is its name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in FILES:
            raise self.error(f"an explorable is one of {', '.join(FILES)}, got {name}")
        self.env.note_dependency(FRAGMENTS[name])
        page = self.env.metadata[self.env.current_document.docname]
        page["explorables"] = f"{page.get('explorables', '')} {name}"
        return [nodes.raw("", FRAGMENTS[name].read_text(encoding="utf-8"), format="html")]


def add_files(app: Sphinx, pagename: str, template: str, context: dict[str, object], doctree: object) -> None:
    names = app.env.metadata.get(pagename, {}).get("explorables", "").split()
    for file in dict.fromkeys(file for name in names for file in FILES[name]):
        if file.endswith(".css"):
            app.add_css_file(file)
        else:
            app.add_js_file(file, loading_method="defer")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("explorable", Explorable)
    app.connect("html-page-context", add_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
