"""What to set, and the figures it stands on: ``advice`` for one knob, ``advice-table`` for all."""

import re
import tomllib
from pathlib import Path
from typing import NotRequired, TypedDict

from claim_pages import interval, page_of
from docutils import nodes
from forest import shown
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from claims.lab import regularising
from lora_np import course

FILE = Path(__file__).parents[1] / "understand" / "advice.toml"


class Knob(TypedDict):
    """An entry of advice.toml; ``study`` names a knob that `claims.lab.regularising` tries."""

    advice: str
    data: list[str]
    study: NotRequired[str]
    unknown: str
    against: str
    example: str


def knobs() -> dict[str, Knob]:
    """Every knob, by its name."""
    with FILE.open("rb") as file:
        return tomllib.load(file)


def sources(knob: Knob) -> list[tuple[str, str]]:
    """The claims and figures that advice stands on."""
    found = []
    for entry in knob["data"]:
        claim, _, figures = entry.partition(": ")
        found += [(claim, figure) for figure in figures.split(", ")]
    return found


def text(name: str, knob: Knob) -> str:
    """One knob in Markdown."""
    known = course.claims()
    rows = [
        f"| {known[claim]['meaning'][figure]} "
        f"| {shown(known[claim]['meaning'][figure], known[claim]['figures'][figure]['mean'])} "
        f"| {interval(known[claim], figure)} | [{claim}]({page_of(claim, known[claim])}) |"
        for claim, figure in sources(knob)
    ]
    head = "| figure | mean | 95 % interval | claim |\n|---|---:|---:|---|\n"
    table = head + "\n".join(rows) if rows else "Nothing was measured."
    if "study" in knob:
        table = studied(knob["study"])
    return f"{knob['advice']}\n\n{table}\n\n*Unknown.* {knob['unknown']}"


def overview() -> str:
    """A row for each knob: what to set, in a sentence; a figure that it stands on; what is open."""
    rows = ["| knob | set it to | measured (95 % interval) | unknown |", "|---|---|---|---|"]
    for name, knob in knobs().items():
        anchor = re.sub(r"[^a-z -]", "", name.lower()).replace(" ", "-")
        value = re.split(r"(?<=[.]) (?=[A-Z])", knob["advice"])[0]
        measured = f"[a study](#{anchor})" if "study" in knob else "nothing"
        if found := sources(knob):
            measured = measurement(*found[0])
        rows.append(f"| [{name}](#{anchor}) | {value} | {measured} | {knob['unknown']} |")
    return "\n".join(rows)


def measurement(name: str, figure: str) -> str:
    """A figure of a claim, with its interval and a link to the claim."""
    claim = course.claims()[name]
    label = claim["meaning"][figure]
    mean = shown(label, claim["figures"][figure]["mean"])
    said = f"{label}: {mean} ({interval(claim, figure)})"
    return f"{said}, [{name}]({page_of(name, claim)})"


def studied(knob: str) -> str:
    """The table of a knob that is tried at five values."""
    ranks = " | ".join(f"rank {rank}" for rank in sorted(regularising.RANKS))
    head = f"| setup | {knob} | {ranks} |\n|---|---:|{'---|' * len(regularising.RANKS)}\n"
    rows = [f"| {' | '.join(row)} |" for row in regularising.rows(knob)]
    return (
        f"Loss over the loss with {knob} 0, each at its own best learning rate:\n\n{head}"
        + "\n".join(rows)
    )


class Advice(SphinxDirective):
    """One knob, which is the argument."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        known = knobs()
        name = self.arguments[0]
        if name not in known:
            raise self.error(f"no knob is called {name!r}")
        return self.parse_text_to_nodes(text(name, known[name]))


class AdviceTable(SphinxDirective):
    """All knobs at a glance."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("{.stacked}\n" + overview())


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("advice", Advice)
    app.add_directive("advice-table", AdviceTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
