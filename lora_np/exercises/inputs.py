"""Draw inputs of a law, small ones first, and shrink an input that breaks it.

A law draws its inputs by name from a `Draw`, which remembers them. To shrink an input, a remembered
value is made a little smaller, and the same law runs again with another `Draw`. That `Draw`
truncates or pads values that no longer fit, so the law could have drawn every input that is tried.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from lora_np.checks import Array
from lora_np.exercises.laws import LawBroken
from lora_np.exercises.running import Exchange

T = TypeVar("T")


class Rejected(Exception):  # noqa: N818
    """Raised to skip a drawn input that the law does not cover, or does not need."""


class Size(int):
    """A whole number with a name: when it shrinks, arrays of that size lose a row or column."""

    name: str


@dataclass(frozen=True)
class Drawn:
    """One input that a law has drawn."""

    value: Any  # a whole number, or an array; a real number is an array without axes
    simplest: float  # shrinking moves `value` towards this number
    axes: tuple[str, ...] = ()  # the name of the size along each axis of an array; "" if unnamed


Inputs = Mapping[str, Drawn]


@dataclass(frozen=True)
class Counterexample:
    """An input that breaks a law, the reason, and the last call."""

    drawn: Inputs
    why: LawBroken
    asked: Exchange


@dataclass(eq=False)
class Draw:
    """A source of random inputs for one case; ``effort`` 0 allows only small inputs, 1 allows any.

    If inputs are ``remembered``, they are returned again; a missing one gets its simplest value.
    """

    rng: np.random.Generator
    effort: float = 1.0
    remembered: Inputs | None = None
    drawn: dict[str, Drawn] = field(default_factory=dict)

    def whole(self, name: str, low: int, high: int, *, effort: float | None = None) -> Size:
        """Draw a whole number from ``low`` to ``high``, close to ``low`` in early cases."""
        if self.remembered is None:
            reach = low + math.ceil((high - low) * (self.effort if effort is None else effort))
            # half of the time, draw a small number, because a wide range rarely gives one
            if reach > low + 6 and self.rng.random() < 0.5:
                reach = low + 3
            value = int(self.rng.integers(low, reach + 1))
        else:
            value = low
            if name in self.remembered:
                value = min(max(self.remembered[name].value, low), high)
        self.drawn[name] = Drawn(value, low)
        size = Size(value)
        size.name = name
        return size

    def sizes(self, names: str, low: int = 1, high: int = 5) -> list[Size]:
        """Draw a whole number for each letter or word of ``names``."""
        return [self.whole(name, low, high) for name in (names.split() if " " in names else names)]

    def pick(self, name: str, options: Sequence[T]) -> T:
        """Pick one option; the first is the simplest, and up to seven are equally likely."""
        return options[self.whole(name, 0, len(options) - 1, effort=1.0)]

    def array(self, name: str, *shape: int, low: float = -5.0, high: float = 5.0) -> Array:
        """Draw an array with entries from ``low`` to ``high``; early cases get simple entries."""
        simplest = float(min(max(0.0, low), high))
        if self.remembered is None:
            value = self.fresh(shape, low, high, simplest)
        else:
            value = np.full(shape, simplest)
            if name in self.remembered and self.remembered[name].value.ndim == len(shape):
                old = self.remembered[name].value
                common = tuple(slice(min(a, b)) for a, b in zip(old.shape, shape, strict=True))
                value[common] = np.clip(old[common], low, high)
        axes = tuple(getattr(size, "name", "") for size in shape)
        self.drawn[name] = Drawn(value, simplest, axes)
        return value + 0.0  # adding 0.0 copies the array and turns -0.0 into 0.0

    def number(self, name: str, low: float = -5.0, high: float = 5.0) -> float:
        """Draw a real number from ``low`` to ``high``; early cases get simple numbers."""
        return float(self.array(name, low=low, high=high))

    def fresh(self, shape: Sequence[int], low: float, high: float, simplest: float) -> Array:
        style = self.rng.integers(6) if self.effort > 0.2 else 5
        if style < 2 or math.ceil(low) > math.floor(high):
            return np.asarray(np.round(self.rng.uniform(low, high, shape), 2))
        near = 1 + math.ceil(4 * self.effort)
        least, most = max(math.ceil(low), math.ceil(simplest - near)), min(high, simplest + near)
        value = self.rng.integers(least, math.floor(most) + 1, shape).astype(np.float64)
        if style < 4 and value.ndim and value.size:
            axis = int(self.rng.integers(value.ndim))
            i, j = self.rng.integers(shape[axis], size=2)
            lines = np.moveaxis(value, axis, 0)
            lines[i] = lines[j] if style == 2 else simplest
        return value

    def assume(self, holds: bool | np.bool_) -> None:
        """Skip this case unless ``holds``."""
        if not holds:
            raise Rejected


def shrink(
    breaks: Callable[[Inputs], Counterexample | None], smallest: Counterexample, *, attempts: int
) -> Counterexample:
    """Shrink an input that breaks a law, in a limited number of attempts.

    ``breaks`` runs the law on inputs, and returns the counterexample, or None if the law holds.
    """
    tried, least = steps(smallest.drawn), weight(smallest.drawn)
    while attempts and (smaller := next(tried, None)) is not None:
        attempts -= 1
        again = breaks(smaller)
        if again is not None and (less := weight(again.drawn)) < least:
            smallest, tried, least = again, steps(again.drawn), less
    return smallest


def weight(drawn: Inputs) -> tuple[float, ...]:
    """Return a key that sorts inputs by their sizes, then by their entries.

    Fractional entries count first, then nonzero, large and negative entries.
    """
    sizes, arrays = 0.0, [np.empty(0)]
    for one in drawn.values():
        if isinstance(one.value, int):
            sizes += one.value - one.simplest
        else:
            arrays.append((one.value - one.simplest).ravel())
    entries = np.concatenate(arrays)
    bad = (entries != np.rint(entries), entries != 0, np.abs(entries), entries < 0)
    return sizes, *(float(np.sum(one)) for one in bad)


def steps(drawn: Inputs) -> Iterator[Inputs]:
    """Yield inputs that are one step smaller than ``drawn``; large steps come first."""
    for name, one in drawn.items():
        if isinstance(one.value, int) and one.value > one.simplest:
            low = int(one.simplest)
            smaller = (low, (low + one.value) // 2, one.value - 1)
            yield from ({**drawn, name: replace(one, value=n)} for n in smaller)
    yield from changed(drawn, simpler)
    for name, one in drawn.items():
        if any(name in other.axes for other in drawn.values()) and one.value > one.simplest:
            yield from (without(drawn, name, i) for i in range(one.value))
    sizes = {size for one in drawn.values() for size in one.axes if size and drawn[size].value > 1}
    # shrink pairs of sizes together, so that a square matrix stays square
    for first, second in itertools.combinations(sorted(sizes), 2):
        for i in range(min(drawn[first].value, drawn[second].value)):
            yield without(without(drawn, first, i), second, i)
    yield from changed(drawn, simpler_by_an_entry)


def changed(drawn: Inputs, simpler: Callable[[Array, float], Iterator[Array]]) -> Iterator[Inputs]:
    """Yield copies of the inputs in which ``simpler`` has changed one array."""
    for name, one in drawn.items():
        if not isinstance(one.value, int):
            for new in simpler(one.value, one.simplest):
                yield {**drawn, name: replace(one, value=new)}


def without(drawn: Inputs, name: str, i: int) -> Inputs:
    """Reduce the size ``name`` by one, and delete index ``i`` along every axis of that size."""
    result = {**drawn, name: replace(drawn[name], value=drawn[name].value - 1)}
    for other, one in drawn.items():
        for axis, size in enumerate(one.axes):
            if size == name and i < one.value.shape[axis]:
                smaller = np.delete(result[other].value, i, axis)
                result[other] = replace(result[other], value=smaller)
    return result


def simpler(value: Array, simplest: float) -> Iterator[Array]:
    """Yield simpler arrays of the same shape, made by one operation on all entries."""
    for whole in (np.full_like(value, simplest), np.rint(value), np.abs(value), np.sign(value)):
        if not np.array_equal(whole, value):
            yield whole


def simpler_by_an_entry(value: Array, simplest: float) -> Iterator[Array]:
    """Yield arrays of the same shape with one simpler entry."""
    for place in np.ndindex(value.shape):
        entry = float(value[place])
        less = entry - np.sign(entry - simplest)
        for new in dict.fromkeys(
            (simplest, simplest + 1, np.rint(entry), np.trunc(entry / 2), less, -entry)
        ):
            if abs(new - simplest) < abs(entry - simplest) or (new == -entry and entry < 0):
                changed = value.copy()
                changed[place] = new
                yield changed
