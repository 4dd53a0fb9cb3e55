"""Additions to the theme: for screen readers, heading levels in the sidebar and names of both
sidebars; for phones, the headings of ``stacked`` tables in their cells, where site.css shows them.
"""

import itertools
import re
from collections.abc import Callable
from typing import Any

from sphinx.application import Sphinx

STACKED = re.compile(r'<table class="[^"]*\bstacked\b.*?</table>', re.DOTALL)
NAMES = {"sidebar-drawer": "All pages", "toc-drawer": "On this page"}


def add_levels(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace(
        'role="heading"', 'role="heading" aria-level="2"'
    )


def add_headings(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    context["body"] = STACKED.sub(with_headings, context.get("body", ""))


def with_headings(table: re.Match[str]) -> str:
    """The table, each cell of which names its column; on a phone a row is a list of cells."""
    head, body = table[0].split("<tbody>")
    headings = itertools.cycle(re.sub("<.*?>", "", one) for one in re.findall("<th.*?</th>", head))
    cells = re.sub("<td", lambda _: f'<td data-heading="{next(headings)}"', body)
    return f"{head}<tbody>{cells}"


def name_sides(app: Sphinx) -> None:
    templates = getattr(app.builder, "templates", None)  # only builders of HTML have them
    if templates is not None:
        templates.render = named(templates.render)


def named(render: Callable[..., str]) -> Callable[..., str]:
    def with_names(*arguments: Any) -> str:
        text = render(*arguments)
        for side, name in NAMES.items():
            text = text.replace(
                f'<aside class="{side}', f'<aside aria-label="{name}" class="{side}'
            )
        icons = 'class="content-icon-container"'  # to the page's source: outside of all landmarks
        return text.replace(icons, f'{icons} role="navigation" aria-label="This page"')

    return with_names


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", name_sides, priority=900)
    app.connect("html-page-context", add_levels, priority=900)
    app.connect("html-page-context", add_headings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
