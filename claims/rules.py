"""Verdicts, in order of strength, and the rules that give them.

A rule is a list of parts. A part is one figure that the claim says lies above (or below) a bound:

- *supported*: its whole 95 % interval lies on the claimed side of the bound, and so does the mean of
  each half of the seeds, from eight seeds on;
- *contradicted*: its whole interval falls short of ``worth``, the smallest effect worth having,
  which is declared before the run;
- *not shown* otherwise, with the smallest effect that would have been seen in four of five such
  experiments.

A claim is *supported* if all its parts are, *in part* if some are, *contradicted* if none is and
one is contradicted, else *not shown*. It is *an artefact of the learning rate* if no part is
supported, but it is at a rate that suits one of the methods only. So better evidence for a part
never gives a weaker verdict, which a test holds for each rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

SUPPORTED, IN_PART = "supported", "in part"
NOT_SHOWN, CONTRADICTED = "not shown", "contradicted"
ARTEFACT, SCALE = "an artefact of the learning rate", "needs scale"
NOT_RUN = "not run yet"  # of a second setup, whose runs take days
VERDICTS = (SUPPORTED, IN_PART, NOT_SHOWN, CONTRADICTED, ARTEFACT, SCALE)
STRENGTH = {CONTRADICTED: 0, ARTEFACT: 0, SCALE: 0, NOT_SHOWN: 1, IN_PART: 2, SUPPORTED: 3}

# 97.5 % of Student's t with n - 1 degrees of freedom
STUDENT = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
POWER = 0.88  # more standard errors, so that an effect is seen in four of five experiments
TWO = 8  # seeds from which on they are two disjoint sets, the first half and the last


def student(n: int) -> float:
    """97.5 % of Student's t with n - 1 degrees of freedom (from 9 on, by its expansion)."""
    z, free = 1.959964, n - 1
    terms = (
        (z**3 + z) / (4 * free),
        (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2),
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * free**3),
    )
    return STUDENT.get(n) or z + sum(terms)


class Figure(NamedTuple):
    """A number for each seed; a ratio is averaged by its logarithm, and so is its interval."""

    values: tuple[float, ...]
    ratio: bool = False
    counted: bool = False  # arithmetic, so that no interval is missing
    two: int = TWO  # seeds from which on there are two sets

    @property
    def numbers(self) -> Any:
        return np.log(np.maximum(self.values, 1e-300)) if self.ratio else np.asarray(self.values)

    def back(self, x: float) -> float:
        return float(np.exp(x)) if self.ratio else float(x)

    @property
    def error(self) -> float:
        """The standard error of the mean, of logarithms for a ratio."""
        n = len(self.values)
        return float(np.std(self.numbers, ddof=1)) / n**0.5 if n > 1 else 0.0

    def moved(self, errors: float) -> float:
        """The mean, so many standard errors away."""
        with np.errstate(all="ignore"):
            return self.back(float(np.mean(self.numbers)) + errors * self.error)

    @property
    def mean(self) -> float:
        return self.moved(0)

    @property
    def half(self) -> float:
        n = len(self.values)
        return student(n) if n > 1 else 0.0

    @property
    def low(self) -> float:
        return self.moved(-self.half)

    @property
    def high(self) -> float:
        return self.moved(self.half)

    @property
    def sets(self) -> list[float]:
        """The means of two disjoint sets of seeds, where there are two."""
        return [half.mean for half in self.halves]

    @property
    def halves(self) -> list[Figure]:
        """The two sets as figures of their own, or nothing."""
        n = len(self.values)
        halves = (self.values[: n // 2], self.values[n // 2 :]) if n >= self.two else ()
        return [self._replace(values=half, two=n) for half in halves]

    def seen(self, bound: float, sign: int) -> float:
        """The value of smallest effect beyond a bound that would have been seen in four of five
        experiments.
        """
        start = float(np.log(bound)) if self.ratio else bound
        return self.back(start + sign * (self.half + POWER) * self.error)


@dataclass(frozen=True)
class Part:
    """A figure that the claim says lies above a bound, or below it."""

    figure: str
    above: float | None = None
    below: float | None = None
    worth: float | None = None  # the smallest effect worth having; by default, the bound
    lower_bound: bool = False  # what is measured may lie higher, so that it contradicts nothing

    def __post_init__(self) -> None:
        if (self.above is None) == (self.below is None):
            raise ValueError("a part needs one of above and below")
        if self.worth is not None and (self.worth - self.bound) * self.sign < 0:
            raise ValueError("worth must lie on the claimed side of the bound")

    @property
    def sign(self) -> int:
        return -1 if self.above is None else 1

    @property
    def bound(self) -> float:
        bound = self.below if self.above is None else self.above
        assert bound is not None
        return bound

    @property
    def least(self) -> float:
        return self.bound if self.worth is None else self.worth

    def verdict(self, figure: Figure) -> str:
        """Supported, not shown or contradicted."""
        near, far = (figure.low, figure.high)[:: self.sign]
        beyond = lambda x, bound: (x - bound) * self.sign > 0
        if beyond(near, self.bound) and all(beyond(mean, self.bound) for mean in figure.sets):
            return SUPPORTED
        short = beyond(self.least, far) and not self.lower_bound
        return CONTRADICTED if short else NOT_SHOWN

    def words(self, label: str) -> str:
        """What the claim says of the figure."""
        said = f"{label}: {'above' if self.sign > 0 else 'below'} {shown(label, self.bound)}"
        worth = f" (worth having from {shown(label, self.least)})" if self.worth is not None else ""
        return said + worth

    def sentence(self, label: str, figure: Figure) -> str:
        """What was found."""
        mean, low, high = (shown(label, x) for x in (figure.mean, figure.low, figure.high))
        where = f"{low} to {high}" if len(figure.values) > 1 else "one measurement"
        found = f"{label}: {mean} ({'counted' if figure.counted else where})"
        verdict = self.verdict(figure)
        if verdict == SUPPORTED and self.bound not in (0, 1):
            found += f", {'above' if self.sign > 0 else 'below'} {shown(label, self.bound)}"
        if verdict == NOT_SHOWN:
            seen = shown(label, figure.seen(self.bound, self.sign))
            found += f", where {seen} or {'more' if self.sign > 0 else 'less'} would have been seen"
        if verdict == CONTRADICTED:
            found += f", where {shown(label, self.least)} was asked"
        return found


@dataclass(frozen=True)
class Rule:
    """The parts of a claim, and what else its verdict depends on."""

    parts: tuple[Part, ...]
    one_rate: tuple[Part, ...] = ()  # the same at a rate that suits one method only
    scale: str = ""  # why a claim that is contradicted here needs another setup

    def verdict(self, figures: Mapping[str, Figure]) -> str:
        found = [part.verdict(figures[part.figure]) for part in self.parts]
        if all(one == SUPPORTED for one in found):
            return SUPPORTED
        if SUPPORTED in found:
            return IN_PART
        if self.scale:
            return SCALE
        if any(part.verdict(figures[part.figure]) == SUPPORTED for part in self.one_rate):
            return ARTEFACT
        return CONTRADICTED if CONTRADICTED in found else NOT_SHOWN

    def too_wide(self, labels: Mapping[str, str], figures: Mapping[str, Figure]) -> list[str]:
        """Labels of parts of which the setup cannot tell an effect of the smallest size worth having:
        it would be seen in fewer than four of five experiments.
        """
        found = []
        for part in self.parts:
            seen = figures[part.figure].seen(part.bound, part.sign)
            if part.worth is not None and (seen - part.least) * part.sign > 0:
                found.append(labels[part.figure])
        return found

    def words(self, labels: Mapping[str, str]) -> str:
        """The rule, in words."""
        said = [part.words(labels[part.figure]) for part in self.parts]
        text = f"Supported if {'; and '.join(said)}."
        if len(said) > 1:
            text += " In part if only some of it."
        if self.one_rate:
            aside = [part.words(labels[part.figure]) for part in self.one_rate]
            text += f" An artefact of the learning rate if none of it, but {'; or '.join(aside)}."
        return text

    def sentence(self, labels: Mapping[str, str], figures: Mapping[str, Figure]) -> str:
        """The verdict with its figures."""
        verdict = self.verdict(figures)
        groups: dict[str, list[str]] = {}
        parts: Sequence[Part] = (*self.parts, *(self.one_rate if verdict == ARTEFACT else ()))
        for part in parts:
            said = part.sentence(labels[part.figure], figures[part.figure])
            groups.setdefault(part.verdict(figures[part.figure]), []).append(said)
        order = [name for name in VERDICTS if name in groups]
        text = " ".join(f"{name.capitalize()}: {'; '.join(groups[name])}." for name in order)
        if verdict in groups and len(groups) == 1:
            return text
        reason = f" {self.scale}" if verdict == SCALE else ""
        return f"{verdict.capitalize()}.{reason} {text}"


def shown(label: str, x: float) -> str:
    """A number in the unit of its label: shares in per cent; close to 1 by three decimals, since
    an effect of 1 % counts there.
    """
    if not np.isfinite(x):
        return "infinite"
    if label.startswith(("share", "relative")):
        return f"{100 * x:.3g} %"
    if abs(x - 1) < 0.1:
        return f"{round(x, 3):g}"
    return f"{x:,.3g}" if abs(x) < 1000 else f"{x:,.0f}"
