"""The next token from logits: which ones are left to draw from, and the draw.

Each rule does what the processor of that name does in transformers, and they follow one another as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lora_np.checks import Array, number, whole_number
from lora_np.nn import softmax


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Parameters
    ----------
    temperature : float
        Logits are divided by this; 0 takes the most likely token every time.
    top_k : int
        Draw among this many of the most likely tokens; 0 for all.
    top_p : float
        Draw among the most likely tokens that together have this probability.
    min_p : float
        Leave out tokens less likely than this share of the most likely one.
    repetition_penalty : float
        A positive logit of a token that the text already has is divided by this, a negative one multiplied.

    Raises
    ------
    ValueError
        If one of them is out of range.

    Examples
    --------
    >>> Sampling(temperature=1, top_k=2).scores(np.array([1.0, 3.0, 2.0]), said=[])
    array([-inf,   0.,  -1.])
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        number("temperature", self.temperature, minimum=0)
        whole_number("top_k", self.top_k, minimum=0)
        number("top_p", self.top_p, minimum=0, maximum=1, open_minimum=True)
        number("min_p", self.min_p, minimum=0, maximum=1)
        number("repetition_penalty", self.repetition_penalty, minimum=0, open_minimum=True)

    def draw(self, logits: Array, said: Sequence[int], rng: np.random.Generator) -> int:
        """The token that follows the tokens ``said``."""
        if not np.isfinite(logits).all():
            raise FloatingPointError("logits are not finite: weights, perhaps an adapter's, are too large")
        z = self.scores(logits, said)
        return int(z.argmax()) if self.temperature == 0 else int(rng.choice(len(z), p=softmax(z)))

    def scores(self, logits: Array, said: Sequence[int]) -> Array:
        """The logits by which the token is drawn: the largest is 0, and one that is left out is -inf."""
        z = logits.astype(np.float64)
        if (penalty := self.repetition_penalty) != 1:
            seen = np.unique(np.asarray(said, dtype=int))
            z[seen] = np.where(z[seen] < 0, z[seen] * penalty, z[seen] / penalty)
        z -= z.max()
        if self.temperature == 0:
            return z
        with np.errstate(over="ignore"):  # as temperature goes to 0, all but the most likely go to -inf
            z /= self.temperature
        if 0 < self.top_k < len(z):
            z[z < np.partition(z, -self.top_k)[-self.top_k]] = -np.inf
        if self.top_p < 1:
            order = np.argsort(-z, kind="stable")
            p = softmax(z[order])
            z[order[np.cumsum(p) - p >= self.top_p]] = -np.inf
        if self.min_p > 0:
            z[np.exp(z) < self.min_p] = -np.inf
        return z
