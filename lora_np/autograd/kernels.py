"""Compute the building blocks of layers, each in one step instead of several NumPy calls."""

from __future__ import annotations

import math

import numpy as np

from lora_np.autograd.engine import Operand, Pulls
from lora_np.autograd.tables import Wanted, primitive
from lora_np.checks import Array

# What `adapted_affine` keeps for the backward pass: (W + scale B A, None) if it adds B A to W,
# otherwise (None, scale x A^T).
Kept = tuple[Array | None, Array | None]


def product(a: Operand, b: Operand) -> Array:
    """Multiply rows by a matrix with ndarray.dot, which has half the overhead of np.matmul.

    Parameters
    ----------
    a : ndarray of shape (..., n)
        Vectors, as rows.
    b : ndarray of shape (n, m)
        The matrix.

    Returns
    -------
    ndarray of shape (..., m)
        The product of each row with b.

    Examples
    --------
    >>> product(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))
    array([[11.]])
    """
    if 0 < a.ndim <= 2:
        return a.dot(b)  # type: ignore[no-any-return]
    # compute one matrix product, where np.matmul would compute one for each leading index
    return rows(a).dot(b).reshape(*a.shape[:-1], b.shape[1])  # type: ignore[no-any-return]


def rows(a: Operand) -> Array:
    if not a.ndim:
        raise ValueError("x must have an axis of inputs, got a number")
    # if the last axis is empty, compute the number of rows, because reshape cannot infer it
    return a.reshape(-1, a.shape[-1]) if a.shape[-1] else a.reshape(math.prod(a.shape[:-1]), 0)


def sum_of_outer(g: Array, x: Array) -> Array:
    """Return the sum of outer products ``sum_i outer(g_i, x_i) = g^T x`` over all rows.

    This is the gradient of W in ``x W^T``, if g is the gradient of the result.

    Parameters
    ----------
    g : Tensor or ndarray of shape (..., d)
        The gradient of the layer's result.
    x : Tensor or ndarray of shape (..., k)
        The layer's input.

    Returns
    -------
    Tensor or ndarray of shape (d, k)
        The gradient of W.

    See Also
    --------
    affine : Compute the layer whose weight has this gradient.

    Examples
    --------
    >>> sum_of_outer(np.array([[1.0], [2.0]]), np.array([[3.0, 4.0], [5.0, 6.0]]))
    array([[13., 16.]])
    """
    if g.ndim != 2:
        g, x = rows(g), rows(x)
    # pass the matrix with more columns first, because BLAS is faster in this order
    wide: Array = np.dot(g.T, x) if g.shape[1] > x.shape[1] else np.dot(x.T, g).T
    return wide


def affine(x: Operand, W: Operand, b: Operand | None = None) -> Operand:
    """Return ``x W^T + b`` in one step, without a copy for the sum.

    Parameters
    ----------
    x : Tensor or ndarray of shape (..., k)
        The inputs, one in each row.
    W : Tensor or ndarray of shape (d, k)
        The weight, as in PyTorch.
    b : Tensor or ndarray of shape (d,), optional
        The bias, or an addend of the result's shape.

    Returns
    -------
    Tensor or ndarray of shape (..., d)
        The layer's output.

    See Also
    --------
    plus_low_rank : Add the update of a LoRA.

    Examples
    --------
    >>> affine(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([0.5]))
    array([[11.5]])
    """
    y = product(x, W.T)
    if b is None:
        return y
    if b.dtype == y.dtype:
        y += b
    else:
        y = y + b
    return y


affine_of_arrays = affine
affine = primitive(
    affine_of_arrays,
    lambda y, x, W, b=None: lambda g: product(g, W),
    lambda y, x, W, b=None: lambda g: sum_of_outer(g, x),
    lambda y, x, W, b=None: lambda g: g,
    composed=lambda x, W, b=None: x @ W.T if b is None else x @ W.T + b,
)


def plus_low_rank(
    h: Operand, x: Operand, A: Operand, B: Operand, scale: Operand | float
) -> Operand:
    """Return ``h + scale (x A^T) B^T`` in three recorded steps; NumPy's functions would take six.

    Parameters
    ----------
    h : Tensor or ndarray of shape (..., d)
        The frozen layer's output.
    x : Tensor or ndarray of shape (..., k)
        The inputs, one in each row.
    A : Tensor or ndarray of shape (r, k)
        The factor that is applied first.
    B : Tensor or ndarray of shape (d, r)
        The factor that is applied second.
    scale : float
        The factor ``alpha / r``.

    Returns
    -------
    Tensor or ndarray of shape (..., d)
        The adapted layer's output.

    See Also
    --------
    affine : Compute the frozen layer.

    Examples
    --------
    >>> x, A, B = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([[1.0], [0.0]])
    >>> plus_low_rank(np.zeros((1, 2)), x, A, B, 2.0)
    array([[22.,  0.]])
    """
    return affine(affine(x, A) * scale, B, h)  # scale the (n, r) array, because it is small


def adapted_affine(
    x: Operand, W: Operand, A: Operand, B: Operand, scale: float, b: Operand | None = None
) -> Operand:
    """Return ``x (W + scale B A)^T + b`` in one step, in the cheaper order of products.

    Parameters
    ----------
    x : Tensor or ndarray of shape (..., k)
        The inputs, one in each row.
    W : Tensor or ndarray of shape (d, k)
        The weight of the frozen layer.
    A : Tensor or ndarray of shape (r, k)
        The factor that is applied first.
    B : Tensor or ndarray of shape (d, r)
        The factor that is applied second.
    scale : float
        The factor ``alpha / r``.
    b : Tensor or ndarray of shape (d,), optional
        The bias.

    Returns
    -------
    Tensor or ndarray of shape (..., d)
        The adapted layer's output.

    See Also
    --------
    plus_low_rank : Add the update of another kind of layer, or one with dropout before A.

    Examples
    --------
    >>> x, A, B = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([[1.0], [0.0]])
    >>> adapted_affine(x, np.eye(2), A, B, 2.0)
    array([[23.,  2.]])
    """
    kept: Kept
    if x.size <= sum(W.shape) * W.shape[1]:
        z = product(x, A.T) * scale
        y, kept = affine_of_arrays(z, B, affine_of_arrays(x, W, b)), (None, z)
    else:
        # x has many rows, so it is cheaper to add B A to W: one product with x then replaces three
        update = (B * scale).dot(A)
        merged = np.add(update, W, out=update if update.dtype == W.dtype else None)
        y, kept = affine_of_arrays(x, merged, b), (merged, None)
    return y, kept  # type: ignore[return-value]  # keeps=True expects (y, kept)


def adapted_gradients(
    kept: Kept,
    x: Array,
    W: Array,
    A: Array,
    B: Array,
    scale: float,
    b: Array | None = None,
    *,
    wanted: Wanted,
) -> Pulls:
    for_x, for_W, for_A, for_B, for_scale, _ = wanted
    merged, z = kept
    # The gradients of A and B can be computed from the gradient of W. The gradient of W takes one
    # wide product with x, which is faster than two narrow products unless W is much larger than A
    # and B.
    by_W = merged is not None and W.size <= 5 * (A.size + B.size)

    def pull(g: Array) -> tuple[Operand | None, ...]:
        gx: Operand | None = None if merged is None or not for_x else product(g, merged)
        gW = sum_of_outer(g, x) if for_W or by_W else None
        gA: Array | None
        if by_W and gW is not None:
            gA, gB = B.T.dot(gW) * scale, gW.dot(A.T) * scale
        else:
            u = product(g, B) * scale  # scale the (n, r) array, because it is small
            if for_x and merged is None:
                gx = affine_of_arrays(u, A.T, product(g, W))
            gA = sum_of_outer(u, x) if for_A else None
            gB = sum_of_outer(g, product(x, A.T) * scale if z is None else z) if for_B else None
        gscale = np.sum(product(g, B) * product(x, A.T)) if for_scale else None
        return gx, gW, gA, gB, gscale, g

    return pull


adapted_affine = primitive(
    adapted_affine,
    joint=adapted_gradients,
    keeps=True,
    composed=lambda x, W, A, B, scale, b=None: plus_low_rank(affine(x, W, b), x, A, B, scale),
)
