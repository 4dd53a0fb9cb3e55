"""The directive ``rank-explorer``: the explorer, and its script, style and data on the pages that have it."""

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FRAGMENT = Path(__file__).parent.parent / "explorer" / "explorer.html"


class RankExplorer(SphinxDirective):
    """The explorer's HTML."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(FRAGMENT)
        self.env.metadata[self.env.current_document.docname]["rank-explorer"] = "yes"
        return [nodes.raw("", FRAGMENT.read_text(encoding="utf-8"), format="html")]


def add_files(app: Sphinx, pagename: str, template: str, context: dict[str, object], doctree: object) -> None:
    if "rank-explorer" in app.env.metadata.get(pagename, {}):
        app.add_css_file("explorer.css")
        app.add_js_file("explorer-data.js", loading_method="defer")
        app.add_js_file("explorer.js", loading_method="defer")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("rank-explorer", RankExplorer)
    app.connect("html-page-context", add_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
