"""Digits for two studies: with one source of chance drawn anew, and with the old task measured."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import lora_np as lnp
from claims.lab import batched
from lora_np.checks import Array

SOURCES, AGAIN = ("base", "split", "start", "order"), 3  # each is drawn again so often, alone
PER = 16  # seeds of a group: the first as drawn, then those of each source
STOPS = 15  # how often a run is measured on the old task


@dataclass(frozen=True)
class OneApart(batched.Digits):
    """Digits, where the seeds of a group differ from its first in one source of chance only."""

    def drawn(self, seed: int) -> dict[str, int]:
        group, place = divmod(seed, PER)
        own = dict.fromkeys(SOURCES, 10_000 + group)
        if place:
            source = SOURCES[(place - 1) // AGAIN]
            own[source] = 20_000 + AGAIN * group + (place - 1) % AGAIN
        return own

    def factor_seed(self, seed: int) -> int:
        return self.drawn(seed)["start"]

    def tasks(self, seeds: Sequence[int]) -> list[batched.Task]:
        draws = [self.drawn(seed) for seed in seeds]
        bases = networks(tuple((one["split"], one["base"]) for one in draws))
        return [self.task(one["split"], base, one["order"])
                for one, base in zip(draws, bases, strict=True)]  # fmt: skip


@functools.lru_cache(16)
def networks(draws: tuple[tuple[int, int], ...]) -> list[Any]:
    return batched.upright(draws)


@dataclass(frozen=True)
class Both(batched.Digits):
    """Digits, with losses on upright digits as well, many times in a run."""

    def runs(self, seeds: Sequence[int], rates: Sequence[float], **method: Any) -> dict[str, Array]:
        """New and old losses of both halves, (seeds, rates, stops)."""
        tasks = self.tasks(seeds)
        old = upright(tasks, seeds)
        schedule = lambda lr: lnp.nn.linear_schedule(lr, steps=self.steps)
        runs = batched.Runs(tasks, batched.starts(self, tasks, seeds, method), rates, schedule)
        found: dict[str, list[Any]] = {}
        with np.errstate(all="ignore"):
            for step in runs.train(self):
                if (step + 1) % (self.steps // STOPS) == 0:
                    for i, half in enumerate(batched.HALVES):
                        for name, runs.tasks in (("new", tasks), ("old", old)):
                            found.setdefault(f"{name} {half}", []).append(runs.losses(self, i))
        return {name: np.stack(losses, axis=-1) for name, losses in found.items()}


def upright(tasks: Sequence[batched.Task], seeds: Sequence[int]) -> list[batched.Task]:
    """The tasks with upright digits in their halves."""
    images, labels = batched.digits()
    x = batched.flat(images)
    halves = [batched.split(seed)[1:] for seed in seeds]
    return [task._replace(halves=tuple((x[half], labels[half]) for half in both))
            for task, both in zip(tasks, halves, strict=True)]  # fmt: skip


def untrained(seeds: Sequence[int]) -> dict[str, Array]:
    """The loss of the untrained networks of each seed on the new task and on the old one."""
    setup = batched.Digits()
    tasks = setup.tasks(seeds)
    found = {}
    for name, some in (("new", tasks), ("old", upright(tasks, seeds))):
        runs = batched.Runs(some, [task.base for task in some], [0.0], float)
        halves = [np.log(runs.losses(setup, i)[:, 0]) for i in range(len(batched.HALVES))]
        found[name] = np.exp(np.mean(halves, axis=0))
    return found


def frontier(losses: Mapping[str, Array], level: float) -> Array:
    """The log of the smallest old loss of each seed among rates and stops whose new loss is at most
    ``level``: one half chooses rate and stop, the other counts, and the other way round.
    """
    counted = []
    for choosing, counting in (batched.HALVES, batched.HALVES[::-1]):
        new, old = (losses[f"{name} {choosing}"] for name in ("new", "old"))
        reached = np.where(new <= level, old, np.inf).reshape(len(old), -1)
        best = reached.argmin(axis=1)
        there = losses[f"old {counting}"].reshape(len(old), -1)[np.arange(len(old)), best]
        counted.append(np.where(np.isfinite(reached.min(axis=1)), np.log(there), np.inf))
    return np.asarray(np.mean(counted, axis=0))
