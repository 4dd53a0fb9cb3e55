"""The directive ``explorable``: a small program on a page, with the scripts and styles that it
needs.
"""

import re
import sys
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FOLDER = Path(__file__).parent.parent / "explorer"
# where stills.write has put its figures
MADE = Path(__file__).parent.parent / "_build" / "made" / "static"
sys.path.insert(0, str(FOLDER))

from stills import STILLS  # noqa: E402

from hatch_build import publication  # noqa: E402

# Name of an explorable, which is that of its HTML, and the files that it needs, in their order.
FILES = {
    "rank": ("explorer.css", "training.css", "explorer-data.js", "svd.js", "explorer.js"),
    "front": ("front.css", "front-data.js", "adam.js", "lora.js", "front.js"),
    "training": (
        "explorer.css",
        "training.css",
        "training-data.js",
        "svd.js",
        "adam.js",
        "lora.js",
        "training.js",
    ),
    "inspector": (
        "explorer.css",
        "training.css",
        "inspector.css",
        "python.css",
        "python-data.js",
        "python.js",
        "safetensors.js",
        "inspector.js",
    ),
    "speaker": (
        "explorer.css",
        "training.css",
        "speaker.css",
        "speaker-data.js",
        "safetensors.js",
        "speak.js",
        "speaker.js",
    ),
    "fit": (
        "explorer.css",
        "fit.css",
        "python.css",
        "python-data.js",
        "python.js",
        "fit-data.js",
        "memory.js",
        "names.js",
        "fit-model.js",
        "fit-views.js",
        "fit.js",
    ),
}
# on one page, so that the scripts of each come when it is seen
TOGETHER = ("rank", "training", "speaker")
SHARED = "programs.js"  # of all programs; it loads those
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
        text = FRAGMENTS[name].read_text(encoding="utf-8")
        if repository := publication()[0]:
            text = text.replace('href="#get-started"', f'href="https://github.com/{repository}"')
        if name in TOGETHER:
            scripts = " ".join(file for file in FILES[name] if file.endswith(".js"))
            text = text.replace(" id=", f' data-scripts="{scripts}" id=', 1)
        depth = self.env.current_document.docname.count("/")
        return [nodes.raw("", text.replace(STILL, still(name, text, "../" * depth)), format="html")]


STILL = "<!-- still -->"  # where a fragment has what it shows without scripts


def still(name: str, fragment: str, root: str) -> str:
    """Instead of controls that do nothing: a figure made by the package, and a sentence."""
    if STILL not in fragment:
        return ""
    found = STILLS[name]
    shown = f'<img src="{root}_static/still-{name}.png" alt="{escape(found.alt)}">'
    if found.say:
        shown = (MADE / f"still-{name}.html").read_text(encoding="utf-8")
    (identifier, *_) = re.findall(r'id="([^"]+)"', fragment)
    hidden = found.hidden or f"#{identifier} > :not(noscript)"
    hide = f"<style>{hidden} {{ display: none; }}</style>"
    figure = f"<figure>{shown}<figcaption>{found.sentence}</figcaption></figure>"
    return f"<noscript>{hide}{figure}</noscript>"


def add_files(
    app: Sphinx, pagename: str, template: str, context: dict[str, object], doctree: object
) -> None:
    names = app.env.metadata.get(pagename, {}).get("explorables", "").split()
    if names:
        app.add_js_file(SHARED, loading_method="defer")
    for file in dict.fromkeys(file for name in names for file in FILES[name]):
        if file.endswith(".css"):
            app.add_css_file(file)
        elif not {*names} & {*TOGETHER}:
            app.add_js_file(file, loading_method="defer")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("explorable", Explorable)
    app.connect("html-page-context", add_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
