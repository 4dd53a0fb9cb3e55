"""Doctests on a page: without the blank line at their end, which would be a gap; and on the page of
questions the answer first, its code folded below it.
"""

import re

from docutils import nodes
from sphinx.application import Sphinx

FOLDED = "understand/questions"


def strip(app: Sphinx, doctree: nodes.document) -> None:
    for block in doctree.findall(nodes.literal_block):
        if len(block) == 1 and block.rawsource == block.astext():
            block.rawsource = block.astext().rstrip()
            block[0] = nodes.Text(block.rawsource)


def fold(app: Sphinx, doctree: nodes.document) -> None:
    """What a doctest prints, as text; then the doctest, behind a line that opens it."""
    if app.env.docname != FOLDED:
        return
    for block in list(doctree.findall(nodes.literal_block)):
        text = block.astext()
        if not text.startswith(">>> "):
            continue
        printed = re.sub(r"(?m)^(>>>|\.\.\.).*\n?", "", text).strip("\n")
        if not printed:
            continue
        shown = nodes.literal_block(printed, printed, language="text")
        opened = nodes.raw("", "<details><summary>The code</summary>", format="html")
        closed = nodes.raw("", "</details>", format="html")
        block.replace_self([shown, opened, block.deepcopy(), closed])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", strip)
    app.connect("doctree-read", fold)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
