"""What Sphinx leaves out for people who listen: the level of the headings in the sidebar."""

from typing import Any

from sphinx.application import Sphinx


def add_levels(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace('role="heading"', 'role="heading" aria-level="2"')


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", add_levels, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
