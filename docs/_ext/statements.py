"""The directive ``statements``: what the course says in bold, and what each stands on."""

from pathlib import Path

from claim_pages import page_of
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from lora_np import course, exercises
from notebooks import about

SOURCES = Path(__file__).parents[2] / "notebooks" / "src"


class Statements(SphinxDirective):
    """A table for each lesson, made from the markers in its source."""

    def run(self) -> list[nodes.Node]:
        parts = []
        for lesson in exercises.lessons():
            source = SOURCES / f"{lesson.slug}.py"
            found = about.statements(source.read_text(encoding="utf-8")) if source.exists() else []
            if found:
                parts.append(
                    f"**[{lesson.title}](../lessons/{lesson.stem}.ipynb)**\n\n{table(found)}"
                )
        return self.parse_text_to_nodes("\n\n".join(parts))


def table(statements: list[about.Statement]) -> str:
    """Rows of Markdown."""
    rows = ["| says | stands on | |", "|---|---|---|"]
    for words, kind, what in statements:
        if kind == "claim":
            claim = course.claims()[what]
            what = f"[{claim['title']}]({page_of(what, claim)}) *{claim['verdicts']}*"
        rows.append(f"| {words} | {about.KINDS[kind]} | {what} |")
    return "\n".join(rows)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("statements", Statements)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
