"""The rules of np.linalg: systems of equations, inverses, and the norms of Euclid and Frobenius."""

from __future__ import annotations

from typing import Any

import numpy as np

from lora_np.autograd.engine import Operand
from lora_np.autograd.rules import Axis, euclidean_norm
from lora_np.autograd.tables import composition, constant, derivative
from lora_np.checks import Array


def mT(a: Array) -> Array:
    return np.swapaxes(a, -1, -2)


derivative(
    np.linalg.solve,
    lambda y, a, b: lambda g: -outer_of(solve_back(a, g, np.ndim(b)), y, np.ndim(b)),
    lambda y, a, b: lambda g: solve_back(a, g, np.ndim(b)),
)
derivative(np.linalg.inv, lambda y, a: lambda g: -mT(y) @ g @ mT(y))


def solve_back(a: Array, g: Array, ndim: int) -> Array:
    """Return ``a^-T g``; if b was a vector, g holds vectors, perhaps for a stack of matrices."""
    return (
        np.linalg.solve(mT(a), np.expand_dims(g, -1))[..., 0]
        if ndim == 1
        else np.linalg.solve(mT(a), g)
    )


def outer_of(g: Array, y: Array, ndim: int) -> Any:
    """Return ``g y^T`` for columns, or for vectors if b was one."""
    return np.expand_dims(g, -1) * np.expand_dims(y, -2) if ndim == 1 else g @ mT(y)


@composition(np.linalg.norm)
def norm(
    x: Array, ord: str | int | None = None, axis: Axis = None, keepdims: bool = False
) -> Operand:
    n = np.ndim(x) if axis is None else np.size(axis)
    if not ((ord is None and (axis is None or n <= 2)) or (ord, n) in ((2, 1), ("fro", 2))):
        raise TypeError(
            f"np.linalg.norm has a derivative for the root of a sum of squares, not for {ord=}"
        )
    return euclidean_norm(x, axis=axis, keepdims=keepdims)


composition(np.linalg.vector_norm)(
    lambda x, *, axis=None, keepdims=False: euclidean_norm(x, axis=axis, keepdims=keepdims)
)
composition(np.linalg.matrix_norm)(lambda x, *, keepdims=False: norm(x, "fro", (-2, -1), keepdims))
constant(np.linalg.matrix_rank)
