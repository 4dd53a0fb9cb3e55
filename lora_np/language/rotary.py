"""Rotary positions: the angle by which a pair of entries turns from token to token, and its scalings."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from lora_np.checks import Array


@dataclass(frozen=True)
class Rotary:
    """How angles grow with the position: the ``rope_parameters`` of a config, as transformers reads them.

    Parameters
    ----------
    d : int
        Entries of a head that turn, the first ones: d/2 pairs.
    theta : float
        Pair i turns by ``theta^(-2i/d)`` a token.
    kind : {"default", "linear", "dynamic", "alpha", "llama3", "yarn", "longrope", "none"}
        The scaling; with "none" nothing turns (layers without positions).
    factor : float
        The factor by which the context was stretched.
    trained : int
        The context on which the model was trained before stretching.
    low, high : float
        llama3: wavelengths longer than ``trained / low`` are stretched, those shorter than
        ``trained / high`` are not. yarn: the same in turns within ``trained`` (beta_slow and beta_fast).
    attention : float
        A factor on cos and sin (yarn, longrope).
    truncate : bool
        yarn: whether the range between low and high is rounded to whole pairs.
    short, long : tuple of float
        longrope: each pair's factor in texts within ``trained``, and in longer ones.
    width : int
        Entries of a head; by default d.
    neighbours : bool
        Whether pair i is the entries 2i and 2i + 1, rather than i and i + d/2.

    Examples
    --------
    >>> Rotary(d=4, theta=100.0).frequencies(1)
    array([1. , 0.1])
    """

    d: int
    theta: float
    kind: str = "default"
    factor: float = 1.0
    trained: int = 0
    low: float = 1.0
    high: float = 1.0
    attention: float = 1.0
    truncate: bool = True
    short: tuple[float, ...] = ()
    long: tuple[float, ...] = ()
    width: int = 0
    neighbours: bool = False

    @property
    def moved(self) -> bool:
        """Whether `halves` changes anything."""
        return self.neighbours or self.width > self.d

    def halves(self, x: Any) -> Any:
        """Heads (..., width) in the order in which entry i turns with entry ``i + width/2``.

        Scores do not change if queries and keys are reordered alike.

        Examples
        --------
        >>> Rotary(d=4, theta=100.0, width=6, neighbours=True).halves(np.arange(6))
        array([0, 2, 4, 1, 3, 5])
        """
        if self.neighbours:
            pairs = x.reshape(*x.shape[:-1], -1, 2)
            return np.concatenate([pairs[..., 0], pairs[..., 1]], axis=-1)
        cuts = (0, self.d // 2, self.d, (self.d + self.width) // 2, self.width)
        first, second, third, fourth = (x[..., a:b] for a, b in pairwise(cuts))
        return np.concatenate([first, third, second, fourth], axis=-1)

    def frequencies(self, tokens: int) -> Array:
        """Angles from one token to the next, (d/2,). Only kinds in `GROWING` look at the number of tokens."""
        theta = self.theta
        if self.kind == "alpha":
            theta *= self.factor ** (self.d / (self.d - 2))
        if self.kind == "dynamic":
            stretch = self.factor * max(tokens, self.trained) / self.trained - (self.factor - 1)
            theta *= stretch ** (self.d / (self.d - 2))
        plain: Array = theta ** -(np.arange(0, self.d, 2) / self.d)
        if self.kind == "none":
            return np.zeros_like(plain)
        if self.kind == "longrope":
            factors: Array = np.array(self.long if tokens > self.trained else self.short)
            return plain / factors
        if self.kind == "linear":
            return plain / self.factor
        if self.kind == "llama3":
            # From 0 where the wavelength is too long for the old context to 1 where it is short.
            turns = self.trained * plain / (2 * math.pi)
            kept = np.clip((turns - self.low) / (self.high - self.low), 0, 1)
        elif self.kind == "yarn":
            first, last = self.pair(self.high), self.pair(self.low)
            if self.truncate:
                first, last = math.floor(first), math.ceil(last)
            first, last = max(first, 0.0), min(last, self.d - 1.0)
            last += 0.001 * (first == last)  # no range: a step
            kept = 1 - np.clip((np.arange(self.d // 2) - first) / (last - first), 0, 1)
        else:
            return plain
        return kept * plain + (1 - kept) * plain / self.factor

    def pair(self, turns: float) -> float:
        """Which pair turns that many times within the old context."""
        return self.d * math.log(self.trained / (turns * 2 * math.pi)) / (2 * math.log(self.theta))

    def turns(self, start: int, stop: int, dtype: np.dtype[Any], longest: int = 0) -> tuple[Array, Array]:
        """Cosines and sines of the angles of tokens ``start`` to ``stop``, each (tokens, width/2).

        Angles of some kinds depend on how long the longest text is: ``stop``, if nothing else is said.
        """
        longest = longest or stop
        if self.kind in GROWING and longest > self.trained:
            cos, sin = table(self, stop, longest, dtype)
        else:
            cos, sin = table(self, 1 << (stop - 1).bit_length(), 1, dtype)
        return cos[start:stop], sin[start:stop]


GROWING = ("dynamic", "longrope")  # kinds whose angles depend on the number of tokens


@functools.lru_cache(maxsize=16)
def table(rotary: Rotary, size: int, tokens: int, dtype: np.dtype[np.floating]) -> tuple[Array, Array]:
    # In the model's precision, as in its peers.
    angles = np.arange(size, dtype=dtype)[:, np.newaxis] * rotary.frequencies(tokens).astype(dtype)
    if rotary.width > rotary.d:  # the rest does not turn
        angles = np.pad(angles, ((0, 0), (0, (rotary.width - rotary.d) // 2)))
    cos, sin = np.cos(angles), np.sin(angles)
    if rotary.attention != 1.0:
        factor = dtype.type(rotary.attention)
        cos[:, : rotary.d // 2] *= factor
        sin *= factor
    return cos, sin
