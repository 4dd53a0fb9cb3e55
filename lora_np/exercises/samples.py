"""Draw inputs that several laws use, such as matrices with given singular values."""

from __future__ import annotations

import numpy as np

from lora_np.checks import Array, ArrayLike
from lora_np.exercises.inputs import Draw, Size


def scale(draw: Draw) -> float:
    """Draw a factor that simulates a change of units: 1, 0.001, 1e-12 or 1e12."""
    return float(draw.pick("scale", (1.0, 1e-12, 1e12, 1e-3)))


def rank_and_sides(draw: Draw, sides: str = "d k") -> list[Size]:
    """Draw a rank r, then sides of at least r, so that r is often above 1 and below both sides."""
    r = draw.whole("r", 1, 4)
    return [r, *(draw.whole(name, r, 6) for name in sides.split())]


def terms(A: Array, B: Array) -> float:
    """Return the largest entry of ``|A| @ |B|``, the scale of rounding errors in ``A @ B``."""
    return float((np.abs(A) @ np.abs(B)).max(initial=0.0))


def mirror(v: Array) -> Array:
    """Build the Householder matrix that maps ``v`` to ``-v``; the identity if ``v`` is zero.

    Examples
    --------
    >>> mirror(np.array([1.0, -1.0]))
    array([[0., 1.],
           [1., 0.]])
    """
    return np.eye(len(v)) - 2 * np.outer(v, v) / (v @ v or 1.0)


def with_singular_values(draw: Draw, name: str, d: int, k: int, s: ArrayLike) -> Array:
    """Draw a d x k matrix with the singular values ``s``, followed by zeros."""
    s = np.asarray(s, dtype=np.float64)
    U, V = mirror(draw.array(f"left of {name}", d)), mirror(draw.array(f"right of {name}", k))
    return np.asarray((U[:, : len(s)] * s) @ V[: len(s)])


def spectrum(draw: Draw, name: str, count: int, low: float = 0.3, high: float = 2.0) -> Array:
    """Draw ``count`` singular values, largest first; the last and all gaps are at least ``low``."""
    steps = draw.array(f"gaps of {name}", count, low=low, high=high)
    return np.cumsum(steps)[::-1].copy()


def independent(draw: Draw, name: str, d: int, k: int) -> Array:
    """Draw a d x k matrix whose first min(d, k) columns are independent."""
    R = np.triu(draw.array(name, d, k, low=-2, high=2), 1)
    np.fill_diagonal(R, draw.array(f"diagonal of {name}", min(d, k), low=1))
    return np.asarray(scale(draw) * mirror(draw.array(f"left of {name}", d)) @ R)
