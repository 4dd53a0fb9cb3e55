"""Verdicts, and the rules that give them.

A rule is a list of parts. A part is one figure that the claim says lies above (or below) a bound. Let
``worth`` be the smallest effect worth having, which is declared before the run:

- *contradicted here*: the whole interval falls short of ``worth``, although some method of the setup
  reaches it;
- *needs scale*: the whole interval falls short of ``worth``, no method of the setup reaches it, and
  the opposite is not worth having either;
- *supported*: the whole interval lies on the claimed side of the bound, and so does the mean of each
  half of the seeds, from eight seeds on;
- *not shown* otherwise, with the smallest effect that four of five such experiments would have seen.

An interval that judges holds the true mean in 98 of 100 experiments, or in more where a rule has more
than four parts, so that a claim without any effect rarely has a part that is supported by chance. A
figure that is arithmetic, or that was measured once, has no verdict.

A claim is *supported* if all its parts are, and *mixed* if some are supported and some contradicted.
If what the card says would contradict it (`claims.lab.refutations`) holds of its figures, it is
*contradicted here*, whatever else is supported: a universal sentence has a counterexample. It
*needs scale* if the setup could not have shown it, and it *depends on the task* if a part of it turns
on another task (`claims.lab.tasks`). Otherwise it is *not shown*. Better evidence for a part never gives a
weaker verdict, which a test holds for each rule.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

SUPPORTED, MIXED, NOT_SHOWN = "supported", "mixed", "not shown"
CONTRADICTED, SCALE, TASK = "contradicted here", "needs scale", "depends on the task"
NOT_RUN = "not run yet"  # of a second setup, whose runs take days
COUNTED, ONCE = "arithmetic", "one measurement"  # of a part, which then has no verdict
VERDICTS = (SUPPORTED, MIXED, TASK, NOT_SHOWN, CONTRADICTED, SCALE)
STRENGTH = {CONTRADICTED: 0, SCALE: 0, NOT_SHOWN: 1, MIXED: 1, TASK: 1, SUPPORTED: 2}

POWER = 0.88  # more standard errors, so that an effect is seen in four of five experiments
TWO = 8  # seeds from which on they are two disjoint sets, the first half and the last
CHANCE, ALL = 0.01, 0.04  # of a part on one side by chance, and of all parts of a rule together


@functools.cache
def student(n: int, below: float = 0.975) -> float:
    """The quantile of Student's t with n - 1 degrees of freedom."""
    free = n - 1
    # with t = sqrt(free) tan(angle) the density is a power of the cosine
    angles = np.linspace(0, np.pi / 2, 200_001)[:-1]
    density = np.cos(angles) ** (free - 1)
    area = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return float(free**0.5 * np.tan(np.interp(2 * below - 1, area / area[-1], angles)))


@functools.lru_cache(maxsize=1024)
def centre(figure: Figure) -> tuple[float, float]:
    """The mean of a figure's numbers and its standard error: both ends of an interval ask for them."""
    numbers, n = figure.numbers, len(figure.values)
    if n < 2:
        return float(np.mean(numbers)), 0.0
    return float(np.mean(numbers)), float(np.hypot(np.std(numbers, ddof=1) / n**0.5, figure.choice))


class Figure(NamedTuple):
    """A number for each seed; a ratio is averaged by its logarithm, and so is its interval."""

    values: tuple[float, ...]
    ratio: bool = False
    counted: bool = False  # arithmetic, so that no interval is missing
    two: int = TWO  # seeds from which on there are two sets
    choice: float = (
        0.0  # standard error that the choice of learning rates adds, see `claims.lab.chance`
    )

    @property
    def numbers(self) -> Any:
        return np.log(np.maximum(self.values, 1e-300)) if self.ratio else np.asarray(self.values)

    def back(self, x: float) -> float:
        return float(np.exp(x)) if self.ratio else float(x)

    @property
    def error(self) -> float:
        """The standard error of the mean, of logarithms for a ratio."""
        return centre(self)[1]

    def moved(self, errors: float) -> float:
        """The mean, so many standard errors away."""
        with np.errstate(all="ignore"):
            mean, error = centre(self)
            return self.back(mean + errors * error)

    @property
    def mean(self) -> float:
        return self.moved(0)

    def ends(self, outside: float = 0.025) -> tuple[float, float]:
        """The interval of the mean that leaves so much outside at each end."""
        wide = student(len(self.values), 1 - outside) if len(self.values) > 1 else 0.0
        return self.moved(-wide), self.moved(wide)

    @property
    def low(self) -> float:
        return self.ends()[0]

    @property
    def high(self) -> float:
        return self.ends()[1]

    @property
    def silent(self) -> str:
        """Why the figure gives no verdict, or nothing."""
        return COUNTED if self.counted else ONCE if len(self.values) < 2 else ""

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

    def seen(self, bound: float, sign: int, outside: float = CHANCE) -> float:
        """The value of smallest effect beyond a bound that would have been seen in four of five
        experiments.
        """
        start = float(np.log(bound)) if self.ratio else bound
        wide = student(len(self.values), 1 - outside) if len(self.values) > 1 else 0.0
        return self.back(start + sign * (wide + POWER) * self.error)


@dataclass(frozen=True)
class Part:
    """A figure that the claim says lies above a bound, or below it."""

    figure: str
    above: float | None = None
    below: float | None = None
    worth: float | None = None  # the smallest effect worth having; by default, the bound
    lower_bound: bool = False  # what is measured may lie higher, so that it contradicts nothing
    needs: str = (
        ""  # a figure without which there is nothing to judge: it must lie above none at all
    )

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

    def beyond(self, x: float, bound: float) -> bool:
        """Whether x lies on the claimed side of a bound."""
        return (x - bound) * self.sign > 0

    def out_of_reach(self, reach: float | None) -> bool:
        """Whether the best of all methods of the setup falls short of the smallest effect."""
        return reach is not None and self.beyond(self.least, reach)

    def verdict(
        self, figure: Figure, *, outside: float = CHANCE, reach: float | None = None
    ) -> str:
        """The verdict of a part, or why it has none."""
        if figure.silent:
            return figure.silent
        near, far = figure.ends(outside)[:: self.sign]
        if self.beyond(self.least, far) and not self.lower_bound:
            opposite = self.beyond(self.mirrored(figure.ratio), far)
            return SCALE if self.out_of_reach(reach) and not opposite else CONTRADICTED
        sure = self.beyond(near, self.bound)
        return (
            SUPPORTED
            if sure and all(self.beyond(mean, self.bound) for mean in figure.sets)
            else NOT_SHOWN
        )

    def mirrored(self, ratio: bool) -> float:
        """An effect worth having on the other side of the bound; beyond all, where none is declared."""
        if self.least == self.bound:
            return -np.inf * self.sign
        return self.bound**2 / self.least if ratio else 2 * self.bound - self.least

    def aim(self, ratio: bool, share: bool) -> float:
        """A truth at which the claim should be seen: twice the smallest effect. If the bound is
        itself the smallest effect: none at all where the bound allows a little of the opposite, half
        of what is missing from a whole share, otherwise twice the bound.
        """
        none = 1.0 if ratio else 0.0
        log, back = (np.log, np.exp) if ratio else (float, float)
        if self.least != self.bound:
            return float(back(2 * log(self.least) - log(self.bound)))
        if self.beyond(none, self.bound) and (ratio or abs(self.bound) < 0.1):
            return none
        if share and self.sign > 0:
            return (1 + self.bound) / 2
        return float(self.bound * 2.0**self.sign)

    def words(self, label: str) -> str:
        """What the claim says of the figure."""
        said = f"{label}: {'above' if self.sign > 0 else 'below'} {shown(label, self.bound)}"
        worth = f" (worth having from {shown(label, self.least)})" if self.worth is not None else ""
        return said + worth


@dataclass(frozen=True)
class Rule:
    """The parts of a claim, and what else its verdict depends on."""

    parts: tuple[Part, ...]
    scale: str = ""  # why a claim that is contradicted here needs another setup
    refuted: Any = None  # conditions on figures that contradict the claim: `claims.lab.refutations`
    # The best that any method of the setup achieves, by figure: `claims.lab.reach`
    reach: Mapping[str, float] = field(default_factory=dict)

    @property
    def outside(self) -> float:
        """How much an interval that judges leaves outside at each end."""
        return min(CHANCE, ALL / len(self.parts))

    def of_part(self, part: Part, figures: Mapping[str, Figure]) -> str:
        """The verdict of one part."""
        if part.needs and self.idle(figures[part.needs]):
            return SCALE
        reach = self.reach.get(part.figure)
        return part.verdict(figures[part.figure], outside=self.outside, reach=reach)

    def idle(self, figure: Figure) -> bool:
        """Whether a figure that is needed is not shown to lie above none at all."""
        return Part("", above=1.0 if figure.ratio else 0.0).verdict(figure) != SUPPORTED

    def contradicted(self, figures: Mapping[str, Figure]) -> bool | None:
        """Whether what would contradict the claim holds of the figures; None if they leave it open."""
        return None if self.refuted is None else self.refuted.holds(figures)

    def verdict(self, figures: Mapping[str, Figure]) -> str:
        found = [self.of_part(part, figures) for part in self.parts]
        counted = [one for one in found if one not in (COUNTED, ONCE)]
        against = self.contradicted(figures)
        if counted and all(one == SUPPORTED for one in counted) and not against:
            return SUPPORTED
        if self.scale and SUPPORTED not in counted:
            return SCALE
        if SCALE in counted and not {SUPPORTED, CONTRADICTED} & {*counted}:
            return SCALE
        if against:
            return CONTRADICTED
        if CONTRADICTED not in counted:
            return NOT_SHOWN
        return MIXED if SUPPORTED in counted else CONTRADICTED

    def too_wide(self, labels: Mapping[str, str], figures: Mapping[str, Figure]) -> list[str]:
        """Labels of parts of which the setup cannot tell an effect of the smallest size worth having:
        it would be seen in fewer than four of five experiments.
        """
        found = []
        for part in self.parts:
            seen = figures[part.figure].seen(part.bound, part.sign, self.outside)
            if part.worth is not None and (seen - part.least) * part.sign > 0:
                found.append(labels[part.figure])
        return found

    def words(self, labels: Mapping[str, str]) -> str:
        """The rule, in words."""
        said = [part.words(labels[part.figure]) for part in self.parts]
        text = f"Supported if {said[0]}."
        if len(said) > 1:
            text = f"Supported if all of this holds. {listed(said)}"
        if needs := dict.fromkeys(part.needs for part in self.parts if part.needs):
            text += f" Judged only where a loss is shown. {listed(labels[name] for name in needs)}"
        return text

    def sentence(self, labels: Mapping[str, str], figures: Mapping[str, Figure]) -> str:
        """The verdict with its figures."""
        verdict, groups = self.verdict(figures), dict[str, list[str]]()
        for part in self.parts:
            own = self.of_part(part, figures)
            said = self.told(part, labels[part.figure], figures[part.figure], own)
            groups.setdefault(own, []).append(said)
        order = [name for name in (*VERDICTS, ONCE, COUNTED) if name in groups]
        text = " ".join(
            f"{name.capitalize()}: {groups[name][0]}. {listed(groups[name][1:])}".rstrip()
            for name in order
        )
        reason = self.reason(labels, figures)
        if not reason and [*groups] == [verdict]:
            return text
        return f"{verdict.capitalize()}.{reason} {text}"

    def reason(self, labels: Mapping[str, str], figures: Mapping[str, Figure]) -> str:
        """Why the verdict is what it is, where the parts alone do not say so."""
        verdict = self.verdict(figures)
        if verdict == SCALE and not self.scale:
            idle = {
                part.needs for part in self.parts if part.needs and self.idle(figures[part.needs])
            }
            said = [
                f"{labels[name]}: {measured(labels[name], figures[name])}" for name in sorted(idle)
            ]
            if said:
                return f" There was nothing to lose. {listed(said)}"
            return " No method of this setup reaches what was asked, the full update included."
        if verdict == SCALE:
            return f" {self.scale}"
        if verdict == CONTRADICTED and self.contradicted(figures):
            found, *more = self.refuted.found(labels, figures)
            return f" What would contradict it was found: {found}. {listed(more)}".rstrip()
        return ""

    def told(self, part: Part, label: str, figure: Figure, verdict: str) -> str:
        """What was found of a part."""
        reach = self.reach.get(part.figure)
        found = f"{label}: {measured(label, figure)}"
        if verdict == SUPPORTED and part.bound not in (0, 1):
            found += f", {'above' if part.sign > 0 else 'below'} {shown(label, part.bound)}"
        more, most = ("more", "at least") if part.sign > 0 else ("less", "at most")
        if verdict == NOT_SHOWN:
            seen = shown(label, figure.seen(part.bound, part.sign, self.outside))
            found += f". An effect of {seen} or {more} would have been seen"
        if verdict == CONTRADICTED:
            found += f". The rule asks for {most} {shown(label, part.least)}"
        if verdict == SCALE and reach is not None and not part.needs:
            found += f". The rule asks for {most} {shown(label, part.least)}; the best of all methods reaches {shown(label, reach)}"
        return found


def listed(texts: Iterable[str]) -> str:
    """Texts as one sentence each."""
    return " ".join(
        f"{text[0].upper() if text.split()[0].isalpha() else text[0]}{text[1:]}." for text in texts
    )


def measured(label: str, figure: Figure) -> str:
    """A figure with its interval."""
    mean, low, high = (shown(label, x) for x in (figure.mean, figure.low, figure.high))
    return f"{mean} ({figure.silent or f'{low} to {high}'})"


def shown(label: str, x: float) -> str:
    """A number in the unit of its label: shares in per cent; close to 1 by three decimals, since
    an effect of 1 % counts there; and below a thousandth by two digits.
    """
    if not np.isfinite(x):
        return "infinite"
    if label.startswith(("share", "relative")):
        return f"{100 * x:.3g} %"
    if abs(x - 1) < 0.1:
        return f"{round(x, 3):g}"
    if abs(x) < 1e-3:
        return f"{x:.2g}".replace("e-0", "e-")
    return f"{x:,.3g}" if abs(x) < 1000 else f"{x:,.0f}"
