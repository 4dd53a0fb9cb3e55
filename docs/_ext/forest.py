"""The evidence as one forest: the rows of its table, and where each mark lies.

The axis is the figure over what the claim needs, as a ratio, with the claimed side on the right. A
difference is drawn as it is, 0.01 at +1 %: of losses in nats, that is a ratio of perplexities. The
axis is linear up to some 1 % and logarithmic further out, so that 1 % and a factor of ten fit.
"""

import math
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, select_autoescape

from claims.lab import rules

SOFT, EDGE = 0.01, math.log(12.5)  # what lies further out is drawn at the edge
TICKS = {0.1: "÷10", 0.5: "÷2", 0.9: "−10 %", 0.99: "−1 %", 1.0: "0", 1.01: "+1 %", 1.1: "+10 %",
         2.0: "×2", 10.0: "×10"}  # fmt: skip
SHORT = {  # beside the shape of each verdict; the page's end has it in full
    "supported": "the whole interval lies on the claimed side",
    "mixed": "some parts are supported, some contradicted",
    "depends on the task": "supported on one task, contradicted on another",
    "not shown": "the interval holds both",
    "contradicted here": "a counterexample was found",
    "needs scale": "no method reaches the effect, or nothing was lost",
}
SILENT = (rules.COUNTED, rules.ONCE)
LINE = 50  # where the headline lies, in per cent of a row's height
NEAR = (30, 70)  # heights at which a small mark would touch the headline's mark
HEIGHTS = (*NEAR, 10, 90, LINE)  # of small marks: on the headline's line beside its interval only
ACROSS, DOWN = 1.5, 0.416  # pixels of a per cent of the narrowest plot's width, and of its height
APART = 11  # pixels between the centres of small marks that do not touch


def slug(verdict: str) -> str:
    """A verdict as the name of a class."""
    return verdict.replace(" ", "-")


TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "pages"),
    autoescape=select_autoescape(["html"]),
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters["slug"] = slug


class Mark(NamedTuple):
    """A part of a rule in the picture; places are per cent of its width."""

    figure: str
    verdict: str
    mean: float
    low: float
    high: float
    worth: float | None  # None: at the bound itself
    further: int  # -1 or 1 if the mean lies beyond the left or right edge
    height: int = LINE  # in per cent of its row's; it means nothing


class Row(NamedTuple):
    """A claim in one setup; ``mark`` is its headline."""

    where: str
    seeds: str
    verdict: str
    words: str
    mark: Mark | None  # nothing has run
    others: list[Mark]
    mean: str
    interval: str
    needs: str
    why: str  # where the headline does not explain the verdict


def beyond(part: dict[str, Any], x: float) -> float:
    """How far a value lies on the claimed side of the bound of its part."""
    bound = part["bound"]
    far = math.log(max(x, 1e-300) / bound) if bound > 0 else x - bound
    return float(part["sign"] * far)


def across(far: float) -> float:
    """Where that lies, in per cent of the width."""
    far = max(-EDGE, min(EDGE, far))
    return round(50 + 46 * math.asinh(far / SOFT) / math.asinh(EDGE / SOFT), 3)


def mark(part: dict[str, Any]) -> Mark:
    """The mark of a part."""
    mean = beyond(part, part["mean"])
    low, high = sorted(across(beyond(part, part[end])) for end in ("low", "high"))
    worth = None if part["worth"] == part["bound"] else across(beyond(part, part["worth"]))
    further = (mean > EDGE) - (mean < -EDGE)
    return Mark(part["figure"], part["verdict"], across(mean), low, high, worth, further)


def spread(marks: list[Mark], head: Mark | None) -> list[Mark]:
    """Small marks at heights where they hide neither each other nor the headline."""
    placed: list[Mark] = []

    def room(mean: float, height: int) -> float:
        gaps = [
            math.hypot(ACROSS * (mean - other.mean), DOWN * (height - other.height))
            for other in placed
        ]
        if head and height == LINE:
            gaps.append(ACROSS * max(head.low - mean, mean - head.high))
        if head and height in NEAR:
            gaps.append(ACROSS * abs(mean - head.mean))
        return min([APART, *gaps])

    for one in sorted(marks, key=lambda one: one.mean):
        height = max(HEIGHTS, key=lambda height: room(one.mean, height))
        placed.append(one._replace(height=height))
    return placed


def shown(label: str, x: float | None) -> str:
    """A number in the unit of its label, with a true minus."""
    return "diverged" if x is None else rules.shown(label, x).replace("-", "−")


def precise(label: str, x: float) -> str:
    """A measured number; close to 1 always with three decimals, so that columns agree."""
    said = shown(label, x)
    return f"{x:.3f}" if abs(x - 1) < 0.1 and "%" not in said else said


def figures(part: dict[str, Any], label: str) -> tuple[str, str, str]:
    """The mean of a part, the interval that its verdict follows from, and what the claim needs."""
    mean, low, high = (precise(label, part[name]) for name in ("mean", "low", "high"))
    interval = f"{low} to {high}" if part["low"] != part["high"] else "alike in all runs"
    if part["verdict"] in SILENT:
        interval = part["verdict"]
    side = "above" if part["sign"] > 0 else "below"
    return mean, interval, f"{side} {shown(label, part['bound'])}"


def row(claim: dict[str, Any], where: str) -> Row:
    """The row of a claim in one of its setups."""
    n = len(claim["seeds"])
    seeds = f"{n} seed{'s' * (n != 1)}"
    heads = [part for part in claim["parts"] if part["figure"] == claim["headline"]]
    others = [mark(part) for part in claim["parts"] if part not in heads]
    known = (where, seeds, claim["verdict"], claim["words"])
    if not heads:
        return Row(*known, None, spread(others, None), "", "", "", "")
    (head,) = heads
    said = figures(head, claim["meaning"][head["figure"]])
    large = mark(head)
    return Row(*known, large, spread(others, large), *said, why(claim, head))


def why(claim: dict[str, Any], head: dict[str, Any]) -> str:
    """What decides a verdict that the headline figure does not explain."""
    if claim["verdict"] == "needs scale":
        lost = "There was nothing to lose" in claim["sentence"]
        return "nothing was lost" if lost else "no method reaches the tick"
    if claim["verdict"] == head["verdict"]:
        return ""
    counts = Counter(part["verdict"] for part in claim["parts"])
    if claim["verdict"] == "depends on the task":
        return "another task decides"
    if claim["verdict"] == "contradicted here" and not counts["contradicted here"]:
        return "a counterexample was found"
    return "parts: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())


def rows(claim: dict[str, Any]) -> list[Row]:
    """The rows of a claim: one for each setup."""
    found = [row(claim, "small")]
    return found + ([row(claim["at scale"], "135M")] if "at scale" in claim else [])


def parts(claim: dict[str, Any]) -> list[tuple[str, Mark, tuple[str, str, str]]]:
    """Every part of a claim's rule in one setup: its label, its mark and its figures."""
    labels = claim["meaning"]
    return [
        (labels[part["figure"]], mark(part), figures(part, labels[part["figure"]]))
        for part in claim["parts"]
    ]


def groups(known: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The claims of two scales, then the others by topic."""
    two = {name: claim for name, claim in known.items() if "at scale" in claim}
    found = [("Measured at two scales", two)] if two else []
    for topic in sorted({claim["topic"] for claim in known.values()}):
        inside = {name: one for name, one in known.items() if one["topic"] == topic}
        if rest := {name: one for name, one in inside.items() if name not in two}:
            found.append((f"Small setups only: {topic}", rest))
    return found


def table(known: dict[str, Any], *, to: str = "") -> str:
    """The forest as an HTML table; ``to`` leads to the claims' pages."""
    return drawn("table", groups(known), rows, ticks(), to)


def ticks() -> list[tuple[float, str]]:
    """Places and labels on the axis."""
    return [(across(math.log(ratio)), label) for ratio, label in TICKS.items()]


def drawn(macro: str, *arguments: Any) -> str:
    """What a macro of the template makes."""
    return str(getattr(TEMPLATES.get_template("evidence.html").module, macro)(*arguments))
