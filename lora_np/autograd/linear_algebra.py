"""The rules of np.linalg: systems of equations, inverses, and norms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from lora_np.autograd.methods import value
from lora_np.autograd.rules import euclidean_norm
from lora_np.autograd.tables import composition, constant, derivative


def mT(a: Any) -> Any:
    return np.swapaxes(a, -1, -2)


derivative(
    np.linalg.solve,
    lambda y, a, b: lambda g: -outer_of(solve_back(a, g, np.ndim(b)), y, np.ndim(b)),
    lambda y, a, b: lambda g: solve_back(a, g, np.ndim(b)),
)
derivative(np.linalg.inv, lambda y, a: lambda g: -mT(y) @ g @ mT(y))


def solve_back(a: Any, g: Any, ndim: int) -> Any:
    """``a^-T g``; where b was a vector, and a perhaps a stack of matrices, g holds vectors."""
    return np.linalg.solve(mT(a), np.expand_dims(g, -1))[..., 0] if ndim == 1 else np.linalg.solve(mT(a), g)


def outer_of(g: Any, y: Any, ndim: int) -> Any:
    """``g y^T`` for columns, or for vectors where b was one."""
    return np.expand_dims(g, -1) * np.expand_dims(y, -2) if ndim == 1 else g @ mT(y)


# Norms of vectors, and Frobenius's of matrices


@composition(np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    axes = tuple(range(np.ndim(x))) if axis is None else normalize_axis_tuple(axis, np.ndim(x))
    if len(axes) != 1 and (axis is not None or ord is not None):
        if len(axes) != 2 or ord not in (None, "fro"):
            raise TypeError(
                f"np.linalg.norm differentiates over one axis, or 'fro' over two, got {ord=}, {axes}"
            )
        ord = None
    return vector_norm(x, axis=axes, keepdims=keepdims, ord=2 if ord is None else ord)


@composition(np.linalg.vector_norm)
def vector_norm(x: Any, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    axes = normalize_axis_tuple(range(np.ndim(x)) if axis is None else axis, np.ndim(x))
    rows = np.moveaxis(x, axes, range(-len(axes), 0))  # several axes are one long one
    kept, length = np.shape(rows)[: np.ndim(x) - len(axes)], math.prod(np.shape(x)[i] for i in axes)
    y = vector_length(np.reshape(rows, (*kept, length)), ord)
    return np.expand_dims(y, axes) if keepdims else y


def vector_length(x: Any, p: Any) -> Any:
    """``(sum |x|^p)^(1/p)`` along the last axis, with slope 0 at zero."""
    if p == 2:
        return euclidean_norm(x, axis=-1)
    if p == 0 or np.size(x) == 0:  # NumPy says of which norms that is 0, and of which an error
        return np.linalg.norm(value(x), p, axis=-1)
    if isinstance(p, str):
        raise TypeError(f"np.linalg.norm of vectors has no ord={p!r}")
    size = np.abs(x)
    if np.isinf(p):
        return (np.max if p > 0 else np.min)(size, axis=-1)
    powers = np.where(size == 0, 0, np.where(size == 0, 1, size) ** p)
    total = np.sum(powers, axis=-1)
    zero = total == 0 if p > 0 else np.any(size == 0, axis=-1)
    return np.where(zero, 0, np.where(zero, 1, total) ** (1 / p))


constant(np.linalg.matrix_rank)
composition(np.linalg.matrix_norm)(lambda x, *, keepdims=False, ord="fro": norm(x, ord, (-2, -1), keepdims))
