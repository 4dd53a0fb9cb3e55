"""Learning rates that change during training: a schedule is called with the step (0, 1, ...)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from lora_np.checks import number, whole_number

LearningRate: TypeAlias = float | Callable[[int], float]


@dataclass(frozen=True)
class Schedule:
    """A linear ``warmup`` to ``peak``, then a descent to ``final`` that ends after ``steps``."""

    peak: float
    steps: int
    warmup: int
    final: float
    cosine: bool  # or a straight line

    def __post_init__(self) -> None:
        number("peak", self.peak, minimum=0, open_minimum=True)
        number("final", self.final, minimum=0)
        whole_number("steps", self.steps)
        whole_number("warmup", self.warmup, minimum=0, maximum=self.steps, top="steps")

    def __call__(self, step: int) -> float:
        """Learning rate at ``step``."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        done = min((step - self.warmup) / max(self.steps - self.warmup, 1), 1.0)
        left = (1 + math.cos(math.pi * done)) / 2 if self.cosine else 1 - done
        return self.final + (self.peak - self.final) * left


def cosine_schedule(peak: float, *, steps: int, warmup: int = 0, final: float = 0.0) -> Schedule:
    """Half a cosine from ``peak`` down to ``final`` over ``steps``, after a linear ``warmup``.

    Parameters
    ----------
    peak : float
        The largest rate.
    steps : int
        Steps of the whole run, warm-up included; later ones stay at ``final``.
    warmup : int
        Steps of the linear rise from near zero to ``peak``.
    final : float
        The last rate.

    Returns
    -------
    Schedule
        Called with the step, it returns the rate.

    See Also
    --------
    linear_schedule : A straight line.

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", arXiv 1608.03983.

    Examples
    --------
    >>> rate = cosine_schedule(0.1, steps=100)
    >>> rate(0), round(rate(50), 6), rate(100)
    (0.1, 0.05, 0.0)
    """
    return Schedule(peak, steps, warmup, final, cosine=True)


def linear_schedule(peak: float, *, steps: int, warmup: int = 0, final: float = 0.0) -> Schedule:
    """A straight line from ``peak`` down to ``final`` over ``steps``, after a linear ``warmup``.

    Parameters
    ----------
    peak : float
        The largest rate.
    steps : int
        Steps of the whole run, warm-up included; later ones stay at ``final``.
    warmup : int
        Steps of the linear rise from near zero to ``peak``.
    final : float
        The last rate.

    Returns
    -------
    Schedule
        Called with the step, it returns the rate.

    See Also
    --------
    cosine_schedule : Half a cosine.

    Examples
    --------
    >>> rate = linear_schedule(0.1, steps=110, warmup=10)
    >>> rate(4), rate(10), rate(60)
    (0.05, 0.1, 0.05)
    """
    return Schedule(peak, steps, warmup, final, cosine=False)


def scaled(lr: LearningRate, factor: float) -> LearningRate:
    return partial(scaled_rate, factor, lr) if callable(lr) else lr * factor


def scaled_rate(factor: float, schedule: Callable[[int], float], step: int) -> float:
    return factor * schedule(step)


def rate_at(lr: LearningRate, step: int) -> float:
    """The learning rate at a step.

    Parameters
    ----------
    lr : float or callable
        A rate, or a schedule.
    step : int
        From 0.

    Returns
    -------
    float
        The rate.

    Examples
    --------
    >>> rate_at(0.1, step=7), rate_at(lambda step: 0.1 / (1 + step), step=1)
    (0.1, 0.05)
    """
    return float(lr(step) if callable(lr) else lr)
