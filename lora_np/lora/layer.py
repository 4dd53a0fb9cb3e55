"""The layer that the paper is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_np._checks import Array, number
from lora_np.autograd import Tensor, primitive, value
from lora_np.autograd.derivatives import affine_forward, product, sum_of_outer
from lora_np.nn import Linear, dropout


def plus_low_rank_forward(h: Array, x: Array, A: Array, B: Array, scale: float) -> tuple[Array, Array]:
    z = product(x, A.T) * scale  # the scale goes on the smallest array, (n, r)
    return affine_forward(z, B, h), z


# h + scale (x A^T) B^T in one step; composed of NumPy's functions it would be six.
plus_low_rank = primitive(
    plus_low_rank_forward,
    lambda z, h, x, A, B, scale: lambda g: g,
    lambda z, h, x, A, B, scale: lambda g: product(product(g, B) * scale, A),
    lambda z, h, x, A, B, scale: lambda g: sum_of_outer(product(g, B) * scale, x),
    lambda z, h, x, A, B, scale: lambda g: sum_of_outer(g, z),
    lambda z, h, x, A, B, scale: lambda g: np.sum(product(g, B) * product(x, A.T)),
    keeps=True,
)


@dataclass(frozen=True, eq=False)
class LoRALinear:
    """``h = W0 x + (alpha/r) B A x``, equation 3 of the LoRA paper; in rows ``x W0^T + alpha/r (x A^T) B^T``.

    Use `inject` to put one around a layer of a model.

    Parameters
    ----------
    base : Linear
        The layer that is adapted; frozen when its arrays are ndarrays.
    A : Tensor or ndarray of shape (r, k)
    B : Tensor or ndarray of shape (d, r)
    alpha : float
        The update is scaled by ``alpha / r``.
    dropout : float
        Rate at which entries of x are dropped on their way to A, where the call is given an ``rng``.

    Raises
    ------
    ValueError
        If the shapes do not fit each other, or a setting is out of range.

    References
    ----------
    Hu et al., "LoRA: low-rank adaptation of large language models", arXiv 2106.09685.

    Examples
    --------
    >>> layer = LoRALinear(Linear(np.zeros((2, 3))), A=np.ones((1, 3)), B=np.ones((2, 1)), alpha=2.0)
    >>> layer(np.array([[1.0, 2.0, 3.0]]))
    array([[12., 12.]])
    """

    base: Linear
    A: Tensor | Array  # (r, k)  random: breaks the symmetry
    B: Tensor | Array  # (d, r)  zero: training starts exactly at the base model
    alpha: float
    dropout: float = 0.0

    def __post_init__(self) -> None:
        A, B, W = np.shape(self.A), np.shape(self.B), np.shape(self.base.W)
        if len(A) != 2 or len(B) != 2 or A[0] != B[1]:
            raise ValueError(f"A (r, k) and B (d, r) must agree in r, got {A} and {B}")
        if (B[0], A[1]) != W:
            raise ValueError(f"B A of shape {(B[0], A[1])} does not fit the base weight of shape {W}")
        # Plain floats: a NumPy scalar would lift float32 to float64 in every call.
        alpha = number("alpha", self.alpha, minimum=0, open_minimum=True)
        rate = number("dropout", self.dropout, minimum=0, maximum=1, open_maximum=True)
        object.__setattr__(self, "alpha", alpha)
        object.__setattr__(self, "dropout", rate)

    @property
    def rank(self) -> int:
        return self.A.shape[0]

    @property
    def scale(self) -> float:
        """``alpha / r``."""
        return self.alpha / self.rank

    def __call__(self, x: Any, *, rng: np.random.Generator | None = None) -> Any:
        return plus_low_rank(self.base(x), dropout(x, self.dropout, rng=rng), self.A, self.B, self.scale)

    def delta(self) -> Array:
        """The update ``(alpha/r) B A`` as an array of shape (d, k)."""
        update: Array = value(self.B) @ value(self.A) * self.scale
        return update

    def merged(self) -> Linear:
        """One frozen `Linear` that computes the same: ``W = W0 + (alpha/r) B A``."""
        b = self.base.b
        return Linear(value(self.base.W) + self.delta(), None if b is None else value(b))
