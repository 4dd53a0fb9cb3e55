"""What chance does to verdicts: how far figures move with the choice of learning rates, how often a
rule says *supported* or *mixed* of a claim without any effect, and how often it sees a claim that is
true.

The choice of rates is drawn again, with replacement, among the seeds that chose them; the standard
deviation of a figure's mean over such choices adds to its standard error. Where a neighbour of the
best rate has not run with all seeds, it cannot be chosen.

Experiments are simulated with the spread that was measured: the seeds of each figure vary as they did,
and together with those of the other figures. Under the null every figure lies at the bound of its
part. Otherwise it lies where the claim should be seen, at twice the smallest effect worth having
(`claims.lab.rules.Part.aim`).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from claims.lab import redrawn
from claims.lab.rules import MIXED, SUPPORTED, Figure, Part
from claims.lab.trial import Trial

CHOICES, DRAWS = 60, 1000
ENOUGH = 0.8  # of experiments in which a true claim should be seen


def choices(
    claim: Trial,
    measure: Callable[[], Mapping[str, Iterable[float]]],
    count: int | None = None,
) -> dict[str, float]:
    """The standard error that the choice of rates adds to each figure, with the first seeds only
    if a number is given.
    """
    means: dict[str, list[float]] = {}
    for number in range(CHOICES):
        with redrawn.resampled(number), np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of what has not run
            for name, values in measure().items():
                some = tuple(float(x) for x in [*values][:count])
                if some and np.all(np.isfinite(some)):
                    means.setdefault(name, []).append(float(np.mean(claim.figure(name, some).numbers)))  # fmt: skip
    spreads = {name: float(np.std(some)) for name, some in means.items()}
    return {name: spread for name, spread in spreads.items() if spread > 1e-12}


def simulated(
    claim: Trial, figures: Mapping[str, Figure], truth: Callable[[Part, Figure], float], draws: int
) -> Counter[str]:
    """Verdicts of experiments with a known truth of each figure."""
    asked = {part.figure: part for part in claim.rule.parts}
    known = {name: figures[name] for name in asked}
    needed = {part.needs: figures[part.needs] for part in claim.rule.parts if part.needs}
    rng = np.random.default_rng(0)
    centred = {name: one.numbers - np.mean(one.numbers) for name, one in known.items()}
    counts = {len(one.values) for one in known.values()}
    found: Counter[str] = Counter()
    for _ in range(draws):
        mixing = {n: rng.normal(size=(n, n)) / max(n - 1, 1) ** 0.5 for n in counts}
        drawn = dict(needed)
        for name, one in known.items():
            at = truth(asked[name], one)
            start = float(np.log(at)) if one.ratio else at
            moved = start + one.choice * rng.normal()
            numbers = moved + mixing[len(one.values)] @ centred[name]
            values = np.exp(numbers) if one.ratio else numbers
            drawn[name] = one._replace(values=tuple(map(float, values)))
        found[claim.rule.verdict(drawn)] += 1
    return found


def odds(claim: Trial, figures: Mapping[str, Figure], draws: int = DRAWS) -> dict[str, Any]:
    """How often the rule of a claim says *supported* and *mixed* under the null, and *supported* at a
    truth that it should see; nothing where no figure has a spread.
    """
    parts = [part for part in claim.rule.parts if not figures[part.figure].silent]
    if not any(figures[part.figure].error for part in parts):
        return {}
    null = simulated(claim, figures, lambda part, one: part.bound, draws)
    share = lambda part: claim.figures[part.figure].startswith(("share", "rank correlation"))
    aim = lambda part, one: part.aim(one.ratio, share(part))
    seen = simulated(claim, figures, aim, draws)[SUPPORTED] / draws
    return {
        "null": {verdict: null[verdict] / draws for verdict in (SUPPORTED, MIXED)},
        "seen": seen,
        "power": seen >= ENOUGH,
    }
