"""The directive ``explorable``: a small program on a page, with the scripts and styles that it needs."""

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FOLDER = Path(__file__).parent.parent / "explorer"

# Name of an explorable, which is that of its HTML, and the files that it needs, in their order.
FILES = {
    "rank": ("explorer.css", "explorer-data.js", "explorer.js"),
    "training": ("explorer.css", "training.css", "training-data.js", "lora.js", "training.js"),
    "calculator": ("explorer.css", "calculator.css", "calculator-data.js", "families.js", "calculator.js"),
}
FRAGMENTS = {"rank": "explorer.html", "training": "training.html", "calculator": "calculator.html"}


class Explorable(SphinxDirective):
    """The HTML of an explorable; the argument is its name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in FILES:
            raise self.error(f"an explorable is one of {', '.join(FILES)}, got {name}")
        fragment = FOLDER / FRAGMENTS[name]
        self.env.note_dependency(fragment)
        self.env.metadata[self.env.current_document.docname]["explorable"] = name
        return [nodes.raw("", fragment.read_text(encoding="utf-8"), format="html")]


def add_files(app: Sphinx, pagename: str, template: str, context: dict[str, object], doctree: object) -> None:
    for file in FILES.get(app.env.metadata.get(pagename, {}).get("explorable", ""), ()):
        if file.endswith(".css"):
            app.add_css_file(file)
        else:
            app.add_js_file(file, loading_method="defer")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("explorable", Explorable)
    app.connect("html-page-context", add_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
