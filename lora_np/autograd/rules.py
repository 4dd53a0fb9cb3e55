"""Derivative rules: one vector-Jacobian product for each array argument of a NumPy function.

In a rule ``lambda y, a, b: lambda g: ...``, ``y`` is the result, ``a`` and ``b`` are the arguments,
``g`` is the gradient of ``y``, and the inner function returns the gradient of one argument. It
captures only the names that it uses, so other arrays can be freed. The engine handles
broadcasting.

At kinks, the rules make the same choices as torch: abs'(0) = 0, clip passes gradients at its
bounds (but is constant between equal ones), and ties in max and min, also of NaNs, share the
gradient equally.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, Literal

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from lora_np.autograd.engine import Operand, Pull
from lora_np.autograd.kernels import sum_of_outer
from lora_np.autograd.methods import astype, value
from lora_np.autograd.tables import (
    NOT_DIFFERENTIABLE,
    Each,
    Rule,
    composition,
    constant,
    derivative,
    holds_tensor,
    is_simple,
    primitive,
    snapshot,
)
from lora_np.checks import Array, ArrayLike

Axis = int | tuple[int, ...] | None
Optimize = bool | Literal["greedy", "optimal"] | Sequence[str | tuple[int, ...]]


def symmetric(rule: Rule) -> tuple[Rule, Rule]:
    """Return the rules of both arguments of a symmetric function, given the rule of the first."""
    return rule, lambda y, a, b: rule(y, b, a)


# Arithmetic

derivative(np.add, lambda y, a, b: lambda g: g, lambda y, a, b: lambda g: g)
derivative(np.subtract, lambda y, a, b: lambda g: g, lambda y, a, b: lambda g: -g)
derivative(np.multiply, lambda y, a, b: lambda g: g * b, lambda y, a, b: lambda g: g * a)
derivative(np.divide, lambda y, a, b: lambda g: g / b, lambda y, a, b: lambda g: -g * y / b)
derivative(np.negative, lambda y, a: lambda g: -g)
derivative(np.positive, lambda y, a: lambda g: g)
derivative(np.conjugate, lambda y, a: lambda g: g)
derivative(np.reciprocal, lambda y, a: lambda g: -g * y * y)
derivative(
    np.power,
    lambda y, a, b: lambda g: g * b * a ** one_less(b, g.dtype),
    # where a = 0 and b >= 0, use log(1) instead of log(0), so that the derivative is 0
    lambda y, a, b: (
        lambda g: (
            g * y * np.log(np.where(np.equal(a, 0) & np.greater_equal(b, 0), g.dtype.type(1), a))
        )
    ),
)


derivative(
    np.remainder, lambda y, a, b: lambda g: g, lambda y, a, b: lambda g: -g * np.floor_divide(a, b)
)
derivative(
    np.fmod, lambda y, a, b: lambda g: g, lambda y, a, b: lambda g: -g * np.trunc(np.divide(a, b))
)
# The derivative 1 / (1 + exp(b - a)) is computed in a form that does not overflow. The shorter form
# exp(a - y) would be NaN if a is infinite.
derivative(np.logaddexp, *symmetric(lambda y, a, b: lambda g: g * np.exp(-np.logaddexp(0, b - a))))
derivative(
    np.logaddexp2, *symmetric(lambda y, a, b: lambda g: g * np.exp2(-np.logaddexp2(0, b - a)))
)
# hypot and arctan2 have no derivative at a = b = 0; these rules return 0 there
derivative(np.hypot, *symmetric(lambda y, a, b: lambda g: g * a / without_zero(y)))
derivative(
    np.arctan2,
    lambda y, a, b: lambda g: g * b / without_zero(np.square(np.hypot(a, b))),
    lambda y, a, b: lambda g: -g * a / without_zero(np.square(np.hypot(a, b))),
)


def without_zero(y: Array) -> Array:
    return np.where(np.equal(y, 0), 1, y)


def one_less(b: Array | float, dtype: np.dtype[Any]) -> Any:
    """Return ``b - 1``, but 0 where b is zero, so that ``b * a ** (b - 1)`` is zero there."""
    if isinstance(b, (int, float)):
        return b - 1 if b else 0
    # convert b first, because b - 1 might overflow in int8 or be rounded in float16
    b = b.astype(dtype)
    return np.where(b == 0, 0, b - 1)


# Elementwise functions of one argument

derivative(np.square, lambda y, a: lambda g: 2 * g * a)
derivative(np.sqrt, lambda y, a: lambda g: g / (2 * y))
derivative(np.exp, lambda y, a: lambda g: g * y)
derivative(np.expm1, lambda y, a: lambda g: g * (y + 1))
derivative(np.log, lambda y, a: lambda g: g / a)
derivative(np.log1p, lambda y, a: lambda g: g / (1 + a))
derivative(np.tanh, lambda y, a: lambda g: g * (1 - y * y))
derivative(np.sin, lambda y, a: lambda g: g * np.cos(a))
derivative(np.cos, lambda y, a: lambda g: -g * np.sin(a))
derivative(np.exp2, lambda y, a: lambda g: g * y * math.log(2))
derivative(np.log2, lambda y, a: lambda g: g / (a * math.log(2)))
derivative(np.log10, lambda y, a: lambda g: g / (a * math.log(10)))
derivative(np.tan, lambda y, a: lambda g: g * (1 + y * y))
derivative(np.arcsin, lambda y, a: lambda g: g / np.sqrt(1 - a * a))
derivative(np.arccos, lambda y, a: lambda g: -g / np.sqrt(1 - a * a))
derivative(np.arctan, lambda y, a: lambda g: g / (1 + a * a))
derivative(np.sinh, lambda y, a: lambda g: g * np.cosh(a))
derivative(np.cosh, lambda y, a: lambda g: g * np.sinh(a))
derivative(np.arcsinh, lambda y, a: lambda g: g / np.sqrt(a * a + 1))
derivative(np.arccosh, lambda y, a: lambda g: g / np.sqrt(a * a - 1))
derivative(np.arctanh, lambda y, a: lambda g: g / (1 - a * a))
for to_radians in (np.deg2rad, np.radians):
    derivative(to_radians, lambda y, a: lambda g: g * (math.pi / 180))
for to_degrees in (np.rad2deg, np.degrees):
    derivative(to_degrees, lambda y, a: lambda g: g * (180 / math.pi))
for magnitude in (np.absolute, np.fabs):
    derivative(magnitude, lambda y, a: lambda g: g * np.sign(a))
# this rule need not convert g, because the engine converts it to the argument's dtype
derivative(astype, lambda y, a, dtype: lambda g: g, NOT_DIFFERENTIABLE)
derivative(
    np.nan_to_num,
    lambda y, x, nan=0.0, posinf=None, neginf=None: lambda g: np.where(np.isfinite(x), g, 0),
)
derivative(np.copy, lambda y, a, order="K", subok=False: lambda g: g)


# Choices between values: maximum, minimum, where, clip

derivative(np.maximum, *symmetric(lambda y, a, b: lambda g: share(g, a, b)))
derivative(np.minimum, *symmetric(lambda y, a, b: lambda g: share(g, b, a)))


derivative(
    np.where,
    NOT_DIFFERENTIABLE,
    # copy the condition, because the caller may change it before the backward pass
    lambda y, condition, a, b: only_at(np.array(condition, bool)),
    lambda y, condition, a, b: only_at(np.logical_not(condition)),
)
clipped = primitive(
    lambda a, a_min=None, a_max=None: np.clip(a, a_min, a_max),
    lambda y, a, a_min=None, a_max=None: lambda g: np.where(within(a, a_min, a_max), g, 0),
    # if a_min > a_max, np.clip returns a_max, so a_min gets no gradient
    lambda y, a, a_min=None, a_max=None: (
        lambda g: np.where(np.less(a, a_min) & ~crossed(a_min, a_max), g, 0)
    ),
    lambda y, a, a_min=None, a_max=None: (
        lambda g: np.where(np.greater(a, a_max) | crossed(a_min, a_max), g, 0)
    ),
)


def only_at(places: Array) -> Pull:
    return lambda g: np.where(places, g, 0)


@composition(np.clip)
def clip(
    a: Array,
    a_min: ArrayLike | None = None,
    a_max: ArrayLike | None = None,
    *,
    min: ArrayLike | None = None,
    max: ArrayLike | None = None,
) -> Operand:
    if min is None is max:
        return clipped(a, a_min, a_max)
    if a_min is None is a_max:
        return clipped(a, min, max)
    raise ValueError("np.clip takes a_min and a_max, or min and max, not both")


def share(g: Array, winner: Array, loser: Array) -> Array:
    """Return ``g`` where ``winner`` is larger or a value is NaN, ``g / 2`` in a tie, else 0."""
    return np.where(np.less(winner, loser), 0, np.where(np.equal(winner, loser), g / 2, g))


def within(a: Array, low: ArrayLike | None, high: ArrayLike | None) -> Any:
    low, high = -np.inf if low is None else low, np.inf if high is None else high
    return np.greater_equal(a, low) & np.less_equal(a, high) & np.less(low, high)


def crossed(low: Array | None, high: Array | None) -> Array:
    return np.array(False) if low is None or high is None else np.greater(low, high)


# Products

derivative(np.matmul, lambda y, a, b: pull_left(a.ndim, b), lambda y, a, b: pull_right(a, b.ndim))


def pull_left(ndim: int, b: Array) -> Pull:
    """Return the function that computes ``g b^T``, the gradient of ``a`` in ``a @ b``."""
    if ndim == 2 == b.ndim:
        return lambda g: np.dot(g, b.T)
    if b.ndim == 1:
        return lambda g: g[..., None] * b
    if ndim == 1:
        return lambda g: np.matmul(b, g[..., None])[..., 0]
    return lambda g: np.matmul(g, np.swapaxes(b, -1, -2))


def pull_right(a: Array, ndim: int) -> Pull:
    """Return the function that computes ``a^T g``, the gradient of ``b`` in ``a @ b``."""
    if ndim == 2 == a.ndim:
        return lambda g: sum_of_outer(a, g)
    if a.ndim == 1:
        return (lambda g: g * a) if ndim == 1 else (lambda g: a[:, None] * g[..., None, :])
    aT = np.swapaxes(a, -1, -2)
    return (
        (lambda g: np.matmul(aT, g[..., None])[..., 0])
        if ndim == 1
        else (lambda g: np.matmul(aT, g))
    )


@composition(np.dot)
def dot(a: Array, b: Array) -> Any:
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return np.multiply(a, b)
    if np.ndim(b) <= 2:
        return np.matmul(a, b)
    return np.tensordot(a, b, axes=(-1, -2))


@composition(np.inner)
def inner(a: Array, b: Array) -> Array:
    return (
        np.multiply(a, b)
        if np.ndim(a) == 0 or np.ndim(b) == 0
        else np.tensordot(a, b, axes=(-1, -1))
    )


composition(np.vdot)(lambda a, b: np.matmul(np.ravel(a), np.ravel(b)))
composition(np.outer)(lambda a, b: np.reshape(a, (-1, 1)) * np.reshape(b, (1, -1)))


composition(np.vecdot)(
    lambda x1, x2, *, axis=-1: np.sum(
        np.moveaxis(x1, axis, -1) * np.moveaxis(x2, axis, -1), axis=-1
    )
)


@composition(np.kron)
def kron(a: Array, b: Array) -> Array:
    n = max(np.ndim(a), np.ndim(b))
    a, b = (np.reshape(x, (1,) * (n - np.ndim(x)) + np.shape(x)) for x in (a, b))
    # interleave the axes of a and b, multiply, then join each axis of a with the same axis of b
    products = np.expand_dims(a, tuple(range(1, 2 * n, 2))) * np.expand_dims(
        b, tuple(range(0, 2 * n, 2))
    )
    return np.reshape(products, np.multiply(np.shape(a), np.shape(b)).astype(int))


@composition(np.tensordot)
def tensordot(a: Array, b: Array, axes: Any = 2) -> Array:
    if isinstance(axes, int):
        axes = (range(-axes, 0), range(axes))
    of_a, of_b = (
        normalize_axis_tuple(axes[0], np.ndim(a)),
        normalize_axis_tuple(axes[1], np.ndim(b)),
    )
    a, b = np.moveaxis(a, of_a, range(-len(of_a), 0)), np.moveaxis(b, of_b, range(len(of_b)))
    left, right = np.shape(a)[: np.ndim(a) - len(of_a)], np.shape(b)[len(of_b) :]
    summed = np.shape(a)[len(left) :]
    # compare the shapes of the summed axes, because the product below checks only their total size
    if summed != np.shape(b)[: len(of_b)]:
        raise ValueError(f"shape mismatch for sum: {summed} and {np.shape(b)[: len(of_b)]}")
    n = math.prod(summed)
    product = np.reshape(a, (math.prod(left), n)) @ np.reshape(b, (n, math.prod(right)))
    return np.reshape(product, left + right)


# Einstein sums

ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@composition(np.einsum)
def einsum(subscripts: str, *operands: Array, optimize: Optimize = False) -> Operand:
    if not isinstance(subscripts, str):
        raise TypeError(
            "np.einsum has a derivative for subscripts in a string, such as 'ij,jk->ik'"
        )
    # use the dtype of NumPy's result, because einsum_of would convert integers to float64
    dtype = np.result_type(*map(value, operands))
    operands = tuple(
        a.astype(dtype) if isinstance(a, np.ndarray) and a.dtype.kind in "iub" else a
        for a in operands
    )
    return einsum_of(operands, subscripts=explicit(subscripts, operands), optimize=optimize)


def explicit(subscripts: str, operands: Sequence[Array]) -> str:
    """Expand subscripts as NumPy does: a letter for every axis, and an explicit output."""
    shapes = [(1,) * np.ndim(a) for a in operands]
    report = np.einsum_path(subscripts, *map(np.ones, shapes), optimize=False)[1]
    return str(report).partition("contraction:")[2].partition("\n")[0].strip()


def einsum_rule(
    y: Array, operands: Sequence[Array], *, subscripts: str, optimize: Optimize = False
) -> Pull:
    shapes = [np.shape(a) for a in operands]
    left, _, output = subscripts.partition("->")
    inputs = left.split(",")
    # a path given for the result does not fit the gradient, and finding the best path takes
    # factorial time
    optimize = "greedy" if optimize else False

    def pull(g: Array, i: int) -> Array:
        others = [
            (label, a) for j, (label, a) in enumerate(zip(inputs, operands, strict=True)) if j != i
        ]
        read, free = "", [c for c in ALPHABET if c not in left]
        for letter, size in zip(inputs[i], shapes[i], strict=True):
            # a repeated letter selects a diagonal; an identity matrix puts the gradient on it
            if letter in read:
                others.append((letter + free[0], np.eye(size, dtype=g.dtype)))
                letter = free.pop(0)
            elif not reaches(size, letter, [(output, g), *others]):
                # no other array has this axis at full length, so all its entries get the same
                # gradient
                others.append((letter, np.ones(size, dtype=g.dtype)))
            read += letter
        labels = ",".join([output, *(label for label, _ in others)])
        spread: Array = np.einsum(
            f"{labels}->{read}", g, *(a for _, a in others), optimize=optimize
        )
        return spread

    return pull


def reaches(size: int, letter: str, labelled: list[tuple[str, Array]]) -> bool:
    """Return whether some array has length ``size`` along ``letter``, instead of a broadcast 1."""
    lengths = {
        n for label, a in labelled for c, n in zip(label, np.shape(a), strict=True) if c == letter
    }
    return size in lengths or (size == 1 and bool(lengths))


einsum_of = primitive(
    lambda operands, *, subscripts, optimize=False: np.einsum(
        subscripts, *operands, optimize=optimize
    ),
    Each(einsum_rule),
)

# Reductions

derivative(np.sum, lambda y, a, axis=None, keepdims=False: spread_back(a, axis, keepdims))
derivative(
    np.mean,
    lambda y, a, axis=None, keepdims=False: spread_back(a, axis, keepdims, y.size / max(a.size, 1)),
)
for extreme in (np.max, np.min):
    derivative(extreme, lambda y, a, axis=None, keepdims=False: share_ties(y, a, axis, keepdims))


def spread_back(a: Array, axis: Axis, keepdims: bool, weight: float = 1.0) -> Pull:
    """Return the backward function of a sum or mean: all summed entries get the same gradient."""
    shape = np.shape(a)
    return lambda g: np.broadcast_to(weight * with_axes(g, axis, keepdims, len(shape)), shape)


def share_ties(y: Array, a: Array, axis: Axis, keepdims: bool) -> Pull:
    def pull(g: Array) -> Array:
        largest = a == with_axes(y, axis, keepdims, a.ndim)
        ties = largest.sum(axis=axis, keepdims=True).astype(g.dtype)
        # no entry equals a y of NaN, so every entry gets a gradient of NaN
        ties = np.where(ties == 0, np.nan, ties)
        part = with_axes(g, axis, keepdims, a.ndim) / ties
        return np.where(largest | np.isnan(ties), part, 0)

    return pull


def with_axes(g: Array, axis: Axis, keepdims: bool, ndim: int) -> Array:
    """Restore reduced axes of ``g`` with size one, if it needs them to broadcast with the input."""
    if keepdims or axis is None or ndim == 0:
        return g
    return np.expand_dims(g, normalize_axis_tuple(axis, ndim))


def of_deviation(
    function: Callable[..., Array], size: Callable[..., Operand], root: Callable[..., float]
) -> None:
    """Define the derivative of np.var or np.std; std's is 0 where all entries are equal."""

    @composition(function)
    def spread(a: Array, axis: Axis = None, *, ddof: float = 0, keepdims: bool = False) -> Operand:
        mean = np.mean(a, axis=axis, keepdims=True)
        freedom = max(np.size(a) / max(np.size(mean), 1) - ddof, 0.0)
        return size(a - mean, axis=axis, keepdims=keepdims) / root(freedom)


def euclidean_rule(y: Array, a: Array, *, axis: Axis = None, keepdims: bool = False) -> Pull:
    def pull(g: Array) -> Array:
        # define the gradient at y = 0 as zero, even if g is NaN
        slope = np.where(np.equal(y, 0), 0, g / without_zero(y))
        return with_axes(slope, axis, keepdims, a.ndim) * a

    return pull


euclidean_norm = primitive(
    lambda a, **along: np.sqrt(np.sum(np.square(a), **along)), euclidean_rule
)


of_deviation(np.var, lambda a, **along: np.sum(np.square(a), **along), float)
of_deviation(np.std, euclidean_norm, math.sqrt)


@composition(np.prod)
def prod(a: Array, axis: Axis = None, *, keepdims: bool = False) -> Array:
    """Multiply the entries one by one, because a derivative rule with ``y / a`` fails at zeros."""
    shape = np.shape(np.sum(value(a), axis=axis, keepdims=keepdims))
    axes = (
        range(np.ndim(a))
        if axis is None or np.ndim(a) == 0
        else normalize_axis_tuple(axis, np.ndim(a))
    )
    n = math.prod(np.shape(a)[i] for i in axes)
    rows = np.reshape(np.moveaxis(a, list(axes), list(range(len(axes)))), (n, math.prod(shape)))
    return np.reshape(functools.reduce(operator.mul, rows) if n else rows.sum(axis=0) + 1, shape)


derivative(np.cumsum, lambda y, a, axis=None: cumulate_back(np.shape(a), axis))


def cumulate_back(shape: tuple[int, ...], axis: int | None) -> Pull:
    """Return the backward function of np.cumsum, which sums ``g`` from each entry to the end."""
    along = -1 if axis is None else axis
    return lambda g: np.reshape(np.flip(np.cumsum(np.flip(g, along), along), along), shape)


@composition(np.cumprod)
def cumprod(a: Array, axis: int | None = None) -> Array:
    if axis is None or np.ndim(a) == 0:
        a, axis = np.ravel(a), 0
    steps = list(accumulate(np.moveaxis(a, axis, 0), operator.mul))
    return np.stack(steps, axis) if steps else np.positive(a)


@composition(np.diff)
def diff(a: Array, n: int = 1, axis: int = -1) -> Array:
    for _ in range(n):
        before = (slice(None),) * normalize_axis_index(axis, np.ndim(a))
        a = a[(*before, slice(1, None))] - a[(*before, slice(None, -1))]
    return a


# Shapes

# this rule returns g, because the engine sums it over the broadcast axes
derivative(np.broadcast_to, lambda y, array, shape=None: lambda g: g)
derivative(np.reshape, lambda y, a, shape=None, newshape=None, order="C": reshape_back(a, order))
derivative(np.transpose, lambda y, a, axes=None: lambda g: g.transpose(inverse(axes)))
derivative(np.swapaxes, lambda y, a, axis1=None, axis2=None: lambda g: np.swapaxes(g, axis1, axis2))
derivative(
    np.moveaxis, lambda y, a, source, destination: lambda g: np.moveaxis(g, destination, source)
)
derivative(
    np.concatenate, Each(lambda y, arrays, axis=0: take_part([np.shape(a) for a in arrays], axis))
)


def reshape_back(a: Array, order: Literal["C", "F", "A"]) -> Pull:
    shape = np.shape(a)
    if order in ("A", "a"):  # use the memory order of a; the order of g can differ
        order = "F" if np.isfortran(value(a)) else "C"
    return lambda g: g.reshape(shape, order=order)


def inverse(axes: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if axes is None else tuple(np.argsort(normalize_axis_tuple(axes, len(axes))))


def take_part(shapes: list[tuple[int, ...]], axis: int | None) -> Pull:
    """Return a function that slices one array's part from the gradient of the joined array."""
    if axis is None:
        ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])
        return lambda g, i: g[ends[i] - np.prod(shapes[i], dtype=int) : ends[i]].reshape(shapes[i])
    axis = normalize_axis_index(axis, len(shapes[0]))
    ends = np.cumsum([shape[axis] for shape in shapes])
    return lambda g, i: g[(slice(None),) * axis + (slice(ends[i] - shapes[i][axis], ends[i]),)]


composition(np.squeeze)(lambda a, axis=None: np.reshape(a, np.squeeze(value(a), axis).shape))
composition(np.expand_dims)(lambda a, axis: np.reshape(a, np.expand_dims(value(a), axis).shape))
composition(np.ravel)(lambda a, order="C": np.reshape(a, -1, order=order))
composition(np.matrix_transpose)(lambda x: np.swapaxes(x, -1, -2))


def at_least(function: Callable[..., Array], *arys: Array) -> Array | tuple[Array, ...]:
    results = tuple(np.reshape(a, np.shape(function(value(a)))) for a in arys)
    return results[0] if len(results) == 1 else results


for at_least_n in (np.atleast_1d, np.atleast_2d):
    composition(at_least_n)(functools.partial(at_least, at_least_n))

composition(np.stack)(
    lambda arrays, axis=0: np.concatenate([np.expand_dims(a, axis) for a in arrays], axis)
)
composition(np.vstack)(lambda tup: np.concatenate([np.atleast_2d(a) for a in tup], axis=0))


@composition(np.hstack)
def hstack(tup: Sequence[Array]) -> Array:
    arrays = [np.atleast_1d(a) for a in tup]
    return np.concatenate(arrays, axis=0 if np.ndim(arrays[0]) == 1 else 1)


@composition(np.column_stack)
def column_stack(tup: Sequence[Array]) -> Array:
    return np.concatenate([np.reshape(a, (-1, 1)) if np.ndim(a) < 2 else a for a in tup], axis=1)


composition(np.append)(lambda arr, values, axis=None: np.concatenate([arr, values], axis=axis))


# Rearrangements: applying a function to the indices of entries shows where each entry goes


def gathered(function: Callable[..., Any], a: Array, *args: Any, **kwargs: Any) -> Any:
    if any(map(holds_tensor, (*args, *kwargs.values()))):
        raise TypeError(
            f"np.{function.__name__} differentiates its first argument; use lora_np.value(x)"
        )
    # indices start at 1, so that 0 marks an entry that the function filled in
    numbers = function(np.arange(1, np.size(a) + 1).reshape(np.shape(a)), *args, **kwargs)
    return (
        [picked(a, part) for part in numbers] if isinstance(numbers, list) else picked(a, numbers)
    )


def picked(a: Array, numbers: Array) -> Array:
    """Return the entries of ``a`` at flat indices that start at 1, and zero for an index of 0."""
    entries: Array = np.ravel(a)
    if not np.all(numbers):
        entries = np.append(entries, np.zeros(1, a.dtype))  # an index of 0 selects this zero
    entries = entries[numbers - 1]
    return entries


for rearrangement in (
    np.roll, np.rot90, np.flip, np.fliplr, np.flipud, np.tile, np.repeat, np.diag, np.diagonal,
    np.tril, np.triu, np.delete, np.take, np.take_along_axis, np.resize, np.split, np.array_split,
):  # fmt: skip
    composition(rearrangement)(
        functools.wraps(rearrangement)(functools.partial(gathered, rearrangement))
    )


@composition(np.sort)
def sort(a: Array, axis: int | None = -1, kind: Any = None, *, stable: bool | None = None) -> Array:
    if axis is None:
        a, axis = np.ravel(a), -1
    order = np.argsort(value(a), axis=axis, kind=kind, stable=True if kind is None else stable)
    return np.take_along_axis(a, order, axis) if np.ndim(a) else a


PADS = ("constant", "edge", "reflect", "symmetric", "wrap")


@composition(np.pad)
def pad(
    array: Array, pad_width: Any, mode: str = "constant", *, constant_values: ArrayLike = 0
) -> Any:
    if mode not in PADS:
        raise TypeError(f"np.pad has no derivative for mode={mode!r}; it has for {', '.join(PADS)}")
    padded = gathered(np.pad, array, pad_width, mode=mode)
    if mode != "constant":
        return padded
    return padded + np.pad(
        np.zeros(np.shape(array), array.dtype), pad_width, constant_values=constant_values
    )


# Indexing


def put_forward(g: Array, index: Any, *, shape: tuple[int, ...]) -> Array:
    """Return an array of zeros with ``g`` added at ``index``."""
    result = np.zeros(shape, dtype=g.dtype)
    if isinstance(index, np.ndarray) and index.dtype.kind in "iu" and index.size:
        rows = index.ravel().astype(np.intp) % shape[0]  # uint8 cannot hold a large shape[0]
        add_rows(result, rows, g.reshape(index.size, *shape[1:]))
        return result
    if is_simple(index) or (isinstance(index, np.ndarray) and index.dtype == bool):
        result[index] = g
    else:  # add, because an index may select an entry twice
        np.add.at(result, index, g)
    return result


def add_rows(result: Array, rows: Array, g: Array) -> None:
    """Add ``g`` to ``rows`` of an array of zeros, like ``np.add.at`` but several times faster."""
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    result[rows[starts]] = np.add.reduceat(g[order], starts, axis=0)


put = primitive(put_forward, lambda y, g, index, *, shape: lambda h: h[index], NOT_DIFFERENTIABLE)
derivative(
    operator.getitem,
    lambda y, a, index: functools.partial(put, index=snapshot(index), shape=np.shape(a)),
    NOT_DIFFERENTIABLE,
)


composition(np.trace)(
    lambda a, offset=0, axis1=0, axis2=1: np.sum(np.diagonal(a, offset, axis1, axis2), -1)
)


# Functions without a gradient; their results are plain arrays

constant(
    np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal,
    np.logical_and, np.logical_or, np.logical_not, np.logical_xor, np.any, np.all,
    np.isfinite, np.isnan, np.isinf, np.signbit, np.isclose, np.allclose, np.array_equal,
    np.sign, np.floor, np.ceil, np.round, np.rint, np.trunc, np.floor_divide,
    np.argmax, np.argmin, np.argsort, np.argwhere, np.nonzero, np.flatnonzero, np.searchsorted,
    np.count_nonzero, np.shape, np.ndim, np.size, np.result_type, np.shares_memory,
    np.may_share_memory,
    np.heaviside, np.fix, np.array_equiv, np.isposinf, np.isneginf, np.isin, np.lexsort,
    np.iscomplexobj, np.isrealobj, np.nanargmax, np.nanargmin,
    np.zeros_like, np.ones_like, np.empty_like, np.full_like, np.array2string, np.array_repr,
    np.array_str,
)  # fmt: skip
