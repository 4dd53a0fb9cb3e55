"""The second setup of some claims: SmolLM2 with 135 million parameters, from what is recorded.

``python -m claims.lab.longer`` runs for hours and appends lines to ``runs/smollm2.*.jsonl``. Here
nothing is trained: figures are of the runs that are there, and what has not run yet has none. New
lines change figures and verdicts by ``python -m claims reword``.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from claims.lab import redrawn
from claims.lab.batched import HALVES
from claims.lab.redrawn import FOLDER, Book, Sweep, rate
from claims.lab.text import ATTENTION, FULL, MLP, UNTRAINED, adapted
from lora_np.checks import Array

SEEDS = 12
LOOK = 2
SMOLLM2: Mapping[str, Any] = {
    "new": "devils-dictionary",
    "steps": 60,
    "batch": 1,
    "length": 128,
    "rows": 14,
}

# Each with the place of the rate at which its search begins, on the grid of `claims.lab.redrawn`
METHODS: dict[str, tuple[Mapping[str, Any], int]] = {
    **{f"LoRA, r = {r}": (adapted(r), -3) for r in (8, 64, 1)},
    "LoRA, r = 8, kappa x 16": (adapted(8, 512), -5),
    "LoRA, r = 8, kappa / 16": (adapted(8, 2), -1),
    "MLP, r = 5": (adapted(5, targets=MLP), -3),
    "attention, r = 8": (adapted(8, targets=ATTENTION), -3),
    "LoRA, r = 64, alpha 256": (adapted(64, 256), -4),
    "PiSSA, r = 8": (adapted(8, 8, kind="pissa"), -4),
    "LoRA-GA, r = 8": (adapted(8, 16, kind="lora-ga"), -4),
    "full": (FULL, -7),
}
FEW = range(LOOK)  # the seeds that look for the rate
NONE = np.empty(0)
SETUP = (
    "SmolLM2-135M-Instruct (Hugging Face, Apache 2.0) has four-bit weights, used as float32. It learns The Devil's Dictionary "
    "(A. Bierce, public domain) in 60 steps of one window of 128 tokens. A seed draws which two of ten pieces of the text are "
    "held back, the start and the order; there is one base. Two seeds try learning rates a factor of 2 apart, until the best has been "
    "compared with both its neighbours. The others run at the best. One piece chooses the learning rate and the other counts, then the "
    "other way round. 1 % of the loss is some 0.034 nats per token."
)


@dataclass
class Runs:
    """What is recorded of each method; of none, of two seeds, of all."""

    name: str = "smollm2"
    rates: Runs | None = None  # whose choice of rates is taken
    asked: dict[str, Sweep] = field(default_factory=dict)

    @functools.cached_property
    def book(self) -> Book:
        return Book(FOLDER / f"{self.name}.jsonl")

    @functools.cached_property
    def far(self) -> Runs:
        """The same runs with an old text far from the new one, at the learning rates chosen here."""
        return Runs(f"{self.name}-far", rates=self)

    def sweep(self, name: str) -> Sweep:
        method, start = METHODS[name]
        found = Sweep(self.book, name, None, method, start, width=1, look=len(FEW))
        return self.asked.setdefault(name, found)

    def places(self, name: str) -> dict[str, int]:
        """The best rate by each half, once both its neighbours have run."""
        sweep = self.sweep(name)
        if self.rates is not None:
            return self.rates.places(name)
        known = sweep.known(FEW)
        best = {half: sweep.best(half, FEW) for half in HALVES} if known else {}
        near = {place + i for place in best.values() for i in (-1, 0, 1)}
        return best if redrawn.RESAMPLE or near <= {*known} else {}

    def seeds(self, name: str, places: Collection[int]) -> Sequence[int]:
        """The first seeds that have all run at these rates."""
        sweep, count = self.sweep(name), 0
        while places and count < SEEDS and {*places} <= {*sweep.known([count])}:
            count += 1
        return range(count)

    def losses(self, name: str, at: str = "") -> Array:
        """The log loss of each seed, each half at the rate that the other half has chosen; at the
        method's own best rate, or at that of another one.
        """
        places = self.places(at or name)
        seeds = self.seeds(name, places.values())
        swapped = zip(HALVES, HALVES[::-1], strict=True) if seeds else ()
        sweep = self.sweep(name)
        found = [sweep.logs(places[choosing], counting, seeds) for choosing, counting in swapped]
        return np.asarray(np.mean(found, axis=0)) if found else NONE

    def over(self, first: str, second: str, *, at: tuple[str, str] = ("", "")) -> Array:
        """The loss of a method over that of another, for each seed that both have run."""
        ours, theirs = self.losses(first, at[0]), self.losses(second, at[1])
        count = min(len(ours), len(theirs))
        return np.exp(ours[:count] - theirs[:count]) if count >= len(FEW) else NONE

    def share(self, some: str, of: str) -> Array:
        """The share of a method's gain over the base that another one achieves."""
        base = np.mean([self.untrained(half, range(SEEDS)) for half in HALVES], axis=0)
        losses = [np.exp(one) for one in (base, self.losses(some), self.losses(of))]
        count = min(map(len, losses))
        before, ours, theirs = (one[:count] for one in losses)
        return (before - ours) / (before - theirs) if count >= len(FEW) else NONE

    def peaks_over(self, first: str, second: str) -> Array:
        """The best rate of a method over that of another, for each seed that looks for it."""
        if self.rates is not None or not (self.places(first) and self.places(second)):
            return NONE
        return np.asarray(np.exp(self.sweep(first).peaks(FEW) - self.sweep(second).peaks(FEW)))

    def spread(self, *names: str) -> Array:
        """The largest best rate over the smallest, for each seed that looks for it."""
        if self.rates is not None or not all(self.places(name) for name in names):
            return NONE
        peaks = [self.sweep(name).peaks(FEW) for name in names]
        return np.asarray(np.exp(np.max(peaks, axis=0) - np.min(peaks, axis=0)))

    def frontier(self, first: str, second: str, lower: int = 0) -> Array:
        """The old loss of a method over that of another one, where both have learned as much."""
        found = [ours - theirs for _, ours, theirs in self.matched(first, second, lower)]
        return np.exp(found) if len(found) >= len(FEW) else NONE

    def lost(self, first: str, second: str, lower: int = 0) -> Array:
        """The lower of the old losses of two methods where both have learned as much, over the untrained
        model's: above 1 if both have forgotten something.
        """
        found = [
            min(ours, theirs) - self.untrained("old", [seed])[0]
            for seed, ours, theirs in self.matched(first, second, lower)
            if self.untrained("old", [seed]).size
        ]
        return np.exp(found) if len(found) >= len(FEW) else NONE

    def untrained(self, part: str, seeds: Sequence[int]) -> Array:
        """The log loss of the base, of seeds that have it."""
        sweep = Sweep(self.book, "untrained", None, UNTRAINED, 0, width=1, look=len(FEW))
        known = [seed for seed in seeds if sweep.known([seed])]
        return np.array([sweep.logs(0, part, [seed])[0] for seed in known])

    def gained(self, name: str) -> Array:
        """The loss of the base on the new text over a method's at its best learning rate."""
        ours = self.losses(name)
        found = [self.untrained(half, range(len(ours))) for half in HALVES]
        base = np.mean(found, axis=0)
        return np.exp(base - ours[: len(base)]) if len(base) >= len(FEW) else NONE

    def matched(self, first: str, second: str, lower: int) -> list[tuple[int, float, float]]:
        """Log losses of two methods on the old text where both have the same new loss, for each seed: the
        higher of their losses at a learning rate so many places below the best. Each is interpolated
        between its rates up to the best, and below the best from the untrained model on; a seed of which
        one is not brought there is not counted.
        """
        names, found = (first, second), []
        best = [self.places(name) for name in names]
        known = [
            self.seeds(name, places.values()) for name, places in zip(names, best, strict=True)
        ]
        for seed in min(known, key=len) if all(best) else ():
            halves = []
            for choosing, counting in zip(HALVES, HALVES[::-1], strict=True):
                curves = [
                    self.curve(name, places[choosing], counting, seed)
                    for name, places in zip(names, best, strict=True)
                ]
                ends = [places[choosing] - lower for places in best]
                if all(end in curve for end, curve in zip(ends, curves, strict=True)):
                    level = max(curve[end][0] for end, curve in zip(ends, curves, strict=True))
                    start = [self.untrained_losses(counting, seed)] if lower else []
                    halves.append([between([*start, *curve.values()], level) for curve in curves])
            if len(halves) == len(HALVES) and np.all(np.isfinite(halves)):
                ours, theirs = map(float, np.mean(halves, axis=0))
                found.append((seed, ours, theirs))
        return found

    def curve(self, name: str, best: int, half: str, seed: int) -> dict[int, tuple[float, float]]:
        """Log losses on the new text and on the old one at each rate at which a seed has run, up to the
        best.
        """
        sweep, found = self.sweep(name), {}
        for place in [place for place in sweep.known([seed]) if place <= best]:
            new, old = (sweep.logs(place, part, [seed])[0] for part in (half, "old"))
            found[place] = float(new), float(old)
        return found

    def untrained_losses(self, half: str, seed: int) -> tuple[float, float]:
        """The same losses of the untrained model; NaN if it has not run."""
        new, old = ([*self.untrained(part, [seed]), np.nan][0] for part in (half, "old"))
        return float(new), float(old)

    def apart(self, other: Runs) -> list[float]:
        """How far losses lie from those of another program, in nats: the largest of each run that both
        have, of the methods asked for.
        """
        found = []
        for run in self.book.lines.keys() & other.book.lines.keys():
            if json.loads(run)["method"] in self.asked:
                pair = [
                    np.exp([np.nan if x is None else x for part in ("first", "second", "old") for x in book.lines[run][part]])
                    for book in (self.book, other.book)
                ]  # fmt: skip
                found.append(float(np.max(np.abs(pair[0] - pair[1]))))
        return sorted(found)

    def to_json(self) -> dict[str, Any]:
        """Methods asked for, with the loss of both pieces at each rate, of the seeds that look for it."""
        return {name: self.swept(name) for name in self.asked}

    def swept(self, name: str) -> dict[str, Any]:
        sweep, best = self.sweep(name), self.places(name)
        rates = {}
        for place in sweep.known(FEW):
            logs = np.mean([sweep.logs(place, half, FEW) for half in HALVES], axis=0)
            losses = [float(f"{np.exp(x):.4g}") if np.isfinite(x) else None for x in logs]
            rates[f"{rate(place):g}"] = {"seeds": [*FEW], "test": losses}
        found = rate(best[HALVES[0]]) if best else None
        return {"method": dict(METHODS[name][0]), "best": found, "rates": rates}


def between(points: Sequence[tuple[float, float]], level: float) -> float:
    """The second coordinate of a line through points where the first has a level; where two segments
    reach it, on the first.
    """
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if min(x0, x1) <= level <= max(x0, x1):
            share = (level - x0) / (x1 - x0) if x1 != x0 else 0.0
            return y0 + share * (y1 - y0)
    return float("nan")
