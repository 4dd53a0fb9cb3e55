"""With [tool.publication] filled in, commands install from the index, and pages link to their
sources.
"""

from typing import Any

from sphinx.application import Sphinx

from hatch_build import installable, package

MADE = ("lessons/", "practice/", "claims/")  # pages that are made, and in no repository


def install(app: Sphinx, page: str, source: list[str]) -> None:
    source[0] = installable(source[0], package())


def leave_out(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    """A page without a suffix gets no link to its source."""
    if page.startswith(MADE):
        context["page_source_suffix"] = ""


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", install)
    app.connect("html-page-context", leave_out)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
