"""A doctest needs a blank line at the end of its block, which would be a gap on the page."""

from docutils import nodes
from sphinx.application import Sphinx


def strip(app: Sphinx, doctree: nodes.document) -> None:
    for block in doctree.findall(nodes.literal_block):
        if len(block) == 1 and block.rawsource == block.astext():
            block.rawsource = block.astext().rstrip()
            block[0] = nodes.Text(block.rawsource)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", strip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
