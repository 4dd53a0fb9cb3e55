"""The rule of the study *How much rank does a reward need?*, committed before its runs.

*LoRA Without Regret* says that rank 1 is enough for policy gradients, because a reward gives few
bits. Where rank 1 falls behind the full update, three things can be at fault: the task has more bits
than the adapter holds (bits), its exact solution has a higher rank (geometry), or training is too
short (steps). A bandit separates them. In it an image of a digit has 64 whitened features h, there
are 64 actions, and one module of 64 x 64 gives their logits. An action's reward is its entry of T h,
for a matrix T that nobody sees. What is maximised is

    J = E[reward] - beta KL(policy || base),   at its best where the module's update is T / beta

so that the optimum J* is known, and the rank of T is the rank that an exact solution needs. T is
``D_u K D_v``: K is fixed, of rank 1 or 16 with equal singular values, and the diagonals D hold all the bits that a seed draws.
Both ranks have the same diagonals, hence the same bits. Rank 1 has 128 parameters, which hold some
28 to 256 bits; the tasks have 22 and 512.

Two rewards of a language model stand beside it, a text without the letter e and words that begin
with s. What they can reach without learning is drawn as lines: a plain ban of the letter, and, for
the lipogram, the optimum.

Lines of the runs carry the commit of this file (`claims.kept`), which does not change any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lora_np.checks import Array

SIZE = 64  # actions, features
GEOMETRIES, BITS, RANKS, STEPS = (1, 16), (22, 512), (1, 4, 16, 0), (150, 600)  # rank 0: full
ALPHA, BETA = 32, 0.5
CONTEXTS, SAMPLES = 32, 8  # of a step: images, and actions of each
SEEDS, MOST = 8, 32  # more by eights while the smallest visible effect is above `SMALLEST`
SMALLEST = 0.02  # of the gap between base and optimum
T_975 = {7: 2.365, 15: 2.131, 23: 2.069, 31: 2.040}  # of Student's distribution
POWER = 0.88  # standard errors that an effect needs beyond the interval, to be seen in 80 of 100

LANGUAGE = {"lipogram": 0.1, "s words": 0.3}  # tasks with their beta
LANGUAGE_RANKS, LANGUAGE_STEPS = (1, 16, 0), 150
PROMPT, WRITTEN, GROUP = 8, 24, 32  # characters, characters, samples of a step
EVALUATED = 512  # texts, the same prompts and noise for all
LOOK = 2  # seeds that search for the language model's rates
FACTOR = 2.0  # of neighbouring rates; a grid is closed when its best is at no end
START = {1: 0.02, 4: 0.02, 16: 0.02, 0: 0.005}  # where the bandit's search begins
LANGUAGE_START = {1: 0.00125, 16: 0.00125, 0: 0.0005}


def teacher(geometry: int, bits: int, seed: int) -> Array:
    """T: rewards of actions (rows) for features (columns), with mean square 1 over both."""
    K = orthonormal(0)[:, :geometry] @ orthonormal(1)[:, :geometry].T
    rng = np.random.default_rng([seed, 41, bits])
    rows, columns = diagonals(bits, rng)
    T = rows[:, None] * K * columns
    return np.asarray(T * np.sqrt(SIZE) / np.linalg.norm(T))


def diagonals(bits: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """22 bits: 11 random signs for rows, and 11 for columns, each of which serves every eleventh.
    512 bits: each of the 128 entries is one of 16 numbers.
    """
    if bits == 22:
        signs = rng.choice([-1.0, 1.0], (2, 11))
        return signs[0, np.arange(SIZE) % 11], signs[1, np.arange(SIZE) % 11]
    sizes = 0.3 + 0.2 * np.arange(8)
    levels = np.concatenate([-sizes, sizes])
    drawn = levels[rng.integers(16, size=(2, SIZE))]
    return drawn[0], drawn[1]


def orthonormal(seed: int) -> Array:
    """Dense orthonormal columns, the same for every seed of the study."""
    Q, R = np.linalg.qr(np.random.default_rng([seed, 40]).normal(size=(SIZE, SIZE)))
    return np.asarray(Q * np.sign(np.diag(R)))  # LAPACKs differ in signs


class Effect(NamedTuple):
    """A paired difference over seeds, with its 95 % interval, in shares of the gap."""

    mean: float
    low: float
    high: float
    smallest: float  # the effect that would have been seen in 80 of 100 such studies


def effect(values: Sequence[float] | Array) -> Effect:
    n = len(values)
    error = float(np.std(values, ddof=1) / np.sqrt(n))
    mean, t = float(np.mean(values)), T_975[n - 1]
    return Effect(mean, mean - t * error, mean + t * error, (t + POWER) * error)


def causes(behind: Mapping[tuple[int, int, int], Array]) -> dict[str, Effect]:
    """What explains how far rank 1 falls behind the full update, from ``behind[geometry, bits, steps]``
    of each seed, in shares of the gap: each cause is a difference, averaged over the other two.
    """

    def mean(place: int, level: int) -> Array:
        """Over the tasks that have this level."""
        return np.asarray(
            np.mean([x for task, x in behind.items() if task[place] == level], axis=0)
        )

    return {
        "geometry": effect(mean(0, 16) - mean(0, 1)),
        "bits": effect(mean(1, 512) - mean(1, 22)),
        "steps": effect(mean(2, 150) - mean(2, 600)),
    }


def judged(one: Effect) -> str:
    """A cause explains a gap if its whole interval lies above `SMALLEST`."""
    if one.low > SMALLEST:
        return "explains"
    return "does not explain" if one.high < SMALLEST else "not shown"


def verdict(behind: Mapping[tuple[int, int, int], Array]) -> tuple[str, list[str]]:
    """On the sentence *a reward needs little rank, because it gives few bits*, after 600 steps.

    It is supported if rank 1 keeps up on both tasks of 22 bits (intervals below `SMALLEST`) and bits
    explain where it falls behind. It is contradicted here if rank 1 falls behind on a task of 22 bits
    (an interval above `SMALLEST`): bits are few there, so that something else must be missing.
    """
    found = causes(behind)
    facts = [
        f"{name} {judged(one)}: {one.mean:.3f} ({one.low:.3f} to {one.high:.3f}) of the gap; "
        f"{one.smallest:.3f} would have been seen"
        for name, one in found.items()
    ]
    few = [effect(behind[geometry, 22, 600]) for geometry in GEOMETRIES]
    facts += [
        f"rank 1 behind the full update on 22 bits, solution of rank {geometry}: "
        f"{one.mean:.3f} ({one.low:.3f} to {one.high:.3f})"
        for geometry, one in zip(GEOMETRIES, few, strict=True)
    ]
    if max(one.smallest for one in [*found.values(), *few]) > SMALLEST:
        return "not shown", facts
    if any(one.low > SMALLEST for one in few):
        return "contradicted here", facts
    if all(one.high < SMALLEST for one in few) and judged(found["bits"]) == "explains":
        return "supported", facts
    return "mixed", facts


def language_verdict(first: Sequence[float], second: Sequence[float], gap: float) -> str:
    """Rank 1 beside the full update (or rank 16) on a language model: J of each seed, both at their
    best rates. *No worse* if the interval lies above -5 % of the gap, *worse* if it lies below it.
    """
    one = effect((np.asarray(first) - np.asarray(second)) / gap)
    if one.low > -0.05:
        return "no worse"
    return "worse" if one.high < -0.05 else "not shown"
