"""A sentence that is tried: its figures, the rule for its verdict, and how both are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from claims.lab.rules import Figure, Part, Rule


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How a sentence is tried in a setup, and the rule for its verdict, written before the run."""

    title: str  # what is claimed in our words, a sentence
    setting: str  # what of the paper's own setting was tried
    figures: Mapping[str, str]  # what each figure is, with its unit
    rule: Rule  # from figures to a verdict
    limits: str
    headline: str  # the figure that stands for the claim
    words: str  # what that figure is, in at most twelve words
    finding: str = ""  # what was found, in one line: names of figures in braces, see `Number`
    ratios: Sequence[str] = ()  # figures that are quotients, averaged by their logarithm
    counted: Sequence[str] = ()  # figures that are arithmetic, so that no interval is missing
    # Figures with a best possible value: the method whose loss is to be beaten, see `claims.lab.reach`
    beats: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def found(self, figures: Mapping[str, Figure]) -> str:
        """The finding, with its figures."""
        return self.finding.format(**{name: Number(x.mean) for name, x in figures.items()})

    def figure(self, name: str, values: Iterable[float | None]) -> Figure:
        """A figure of this claim, from its values."""
        numbers = (np.inf if x is None else float(x) for x in values)
        return Figure(tuple(numbers), name in self.ratios, name in self.counted)


PHRASES: Mapping[str, tuple[Callable[[float], float], bool]] = {  # and whether it is a share
    "": (lambda x: x, False),
    "percent": (lambda x: x, True),
    "minus": (lambda x: -x, False),
    "minus_percent": (lambda x: -x, True),
    "inverse": (lambda x: 1 / x, False),
    "lower": (lambda x: 1 - 1 / x, True),  # how far a divisor lies below what it divides
    "less": (lambda x: 1 - x, True),  # how far what is divided lies below the divisor
    "higher": (lambda x: x - 1, True),
    "above": (lambda x: 1 / x - 1, True),
}


class Number(float):
    """A figure in a finding: ``{gain:lower}``, always as a positive number. A sentence whose direction
    the figure contradicts is an error.
    """

    def __format__(self, phrase: str) -> str:
        if phrase == "than":
            return compared(float(self))
        turn, share = PHRASES[phrase]
        number = turn(float(self))
        if not number > 0:
            raise ValueError(f"a finding must not say {phrase!r} of {float(self):.3g}")
        if share:
            return f"{100 * number:.2g} %" if number < 0.995 else f"{100 * number:.3g} %"
        return f"{number:.3g}"


CLOSE = 0.0005  # of the loss; figures are rounded to about a fifth of it


def compared(ratio: float) -> str:
    """A ratio in words, whichever side it is on: ``the loss was {gap:than} the other``."""
    if ratio == 1:
        return "the same as"
    if abs(ratio - 1) < CLOSE:
        return f"within {100 * CLOSE:g} % of"
    return f"{100 * abs(ratio - 1):.2g} % {'above' if ratio > 1 else 'below'}"


def rounded(x: float | None) -> float | None:
    return float(f"{x:.5g}") if x is not None and np.isfinite(x) else None


def figures_of(
    claim: Trial,
    found: Mapping[str, Iterable[float]],
    choices: Mapping[str, float] = {},
) -> dict[str, Any]:
    """Figures as JSON, of values as they are written down, and what the choice of rates adds."""
    figures = {name: claim.figure(name, map(rounded, values)) for name, values in found.items()}
    choice = lambda name: rounded(choices.get(name)) or 0.0
    return {name: to_json(one._replace(choice=choice(name))) for name, one in figures.items()}


def to_json(figure: Figure) -> dict[str, Any]:
    numbers = {"mean": figure.mean, "low": figure.low, "high": figure.high}
    numbers |= {"choice": figure.choice} if figure.choice else {}
    sets = {"sets": [*map(rounded, figure.sets)]} if figure.sets else {}
    return (
        {name: rounded(x) for name, x in numbers.items()}
        | sets
        | {"values": [*map(rounded, figure.values)]}
    )


def read(claim: Trial, figures: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures of a claim, from JSON."""
    return {
        name: claim.figure(name, figure["values"])._replace(choice=figure.get("choice", 0.0))
        for name, figure in figures.items()
    }


def decided(claim: Trial, figures: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict of figures in JSON, the sentence that gives it with its figures, and what they
    cannot tell.
    """
    known, rule = read(claim, figures), claim.rule
    return {
        "verdict": rule.verdict(known),
        "sentence": rule.sentence(claim.figures, known),
        "cannot tell": rule.too_wide(claim.figures, known),
        "parts": [part_of(claim, part, known) for part in rule.parts],
    }


def part_of(claim: Trial, part: Part, figures: Mapping[str, Figure]) -> dict[str, Any]:
    """A part of a rule as JSON: what a picture of it needs. ``low`` to ``high`` is the interval that
    judges, ``seen`` the smallest effect that four of five such experiments would see.
    """
    figure, rule = figures[part.figure], claim.rule
    low, high = figure.ends(rule.outside)
    numbers = {
        "bound": part.bound,
        "worth": part.least,
        "mean": figure.mean,
        "low": low,
        "high": high,
        "seen": figure.seen(part.bound, part.sign, rule.outside),
        "reach": rule.reach.get(part.figure),
    }
    return {"figure": part.figure, "sign": part.sign} | {
        name: rounded(x) for name, x in numbers.items()
    } | {"verdict": rule.of_part(part, figures)}  # fmt: skip
