"""Derivative rules for np.linalg: linear systems, inverses, Euclidean and Frobenius norms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lora_np.autograd.engine import Operand
from lora_np.autograd.rules import Axis, euclidean_norm
from lora_np.autograd.tables import composition, constant, derivative, primitive
from lora_np.checks import Array


def mT(a: Array) -> Array:
    return np.swapaxes(a, -1, -2)


derivative(np.linalg.inv, lambda y, a: lambda g: -mT(y) @ g @ mT(y))
solve_columns: Callable[..., Operand] = primitive(
    np.linalg.solve,
    lambda y, a, b: lambda g: -solve_columns(mT(a), g) @ mT(y),
    lambda y, a, b: lambda g: solve_columns(mT(a), g),
)


@composition(np.linalg.solve)
def solve(a: Array, b: Array) -> Operand:
    if np.ndim(b) != 1:
        return solve_columns(a, b)
    return solve_columns(a, np.expand_dims(b, -1))[..., 0]


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
