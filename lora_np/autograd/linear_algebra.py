"""The rules of np.linalg.

If a factorisation is not unique, neither is its derivative, which then holds for functions that do not depend
on the choice (the gauge): signs of eigenvectors, and of pairs of singular vectors. Eigenvectors also need
distinct eigenvalues, and singular vectors distinct singular values above zero. Where some are equal, the
first gradient of a function of the values alone is still right if it is symmetric in them, as a sum of
squares is; the second is not. cholesky and eigh read one triangle of a symmetric matrix, and its gradient is
there.

To the engine, a result of several arrays is one array, with the parts next to each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from lora_np.autograd.engine import Pull
from lora_np.autograd.methods import value
from lora_np.autograd.rules import euclidean_norm
from lora_np.autograd.tables import composition, constant, derivative, primitive


def mT(a: Any) -> Any:
    return np.swapaxes(a, -1, -2)


def symmetric(a: Any) -> Any:
    return (a + mT(a)) / 2


def triangle(g: Any, UPLO: Any = "L") -> Any:
    """The gradient of a symmetric matrix, gathered in the triangle that LAPACK reads."""
    return np.tril(g) + np.tril(g, -1) if UPLO in ("L", "l") else np.triu(g) + np.triu(g, 1)


def diagonal_matrix(v: Any) -> Any:
    return np.expand_dims(v, -1) * np.eye(np.shape(v)[-1], dtype=v.dtype)


# Systems, inverses, determinants

derivative(
    np.linalg.solve,
    lambda y, a, b: lambda g: -outer_of(solve_back(a, g, np.ndim(b)), y, np.ndim(b)),
    lambda y, a, b: lambda g: solve_back(a, g, np.ndim(b)),
)
derivative(np.linalg.inv, lambda y, a: lambda g: -mT(y) @ g @ mT(y))
derivative(np.linalg.det, lambda y, a: lambda g: with_matrix(g) * slope_of_det(y, a))
derivative(np.linalg.cholesky, lambda y, a: lambda g: cholesky_gradient(y, g))
derivative(np.linalg.pinv, lambda y, a, rcond=None, rtol=None: lambda g: pinv_gradient(y, a, g))


def solve_back(a: Any, g: Any, ndim: int) -> Any:
    """``a^-T g``; where b was a vector, and a perhaps a stack of matrices, g holds vectors."""
    return np.linalg.solve(mT(a), np.expand_dims(g, -1))[..., 0] if ndim == 1 else np.linalg.solve(mT(a), g)


def outer_of(g: Any, y: Any, ndim: int) -> Any:
    """``g y^T`` for columns, or for vectors where b was one."""
    return np.expand_dims(g, -1) * np.expand_dims(y, -2) if ndim == 1 else g @ mT(y)


def with_matrix(g: Any) -> Any:
    return np.expand_dims(g, (-1, -2))


def cholesky_gradient(L: Any, g: Any) -> Any:
    inner = np.tril(mT(L) @ g)
    inner = inner - diagonal_matrix(np.diagonal(inner, axis1=-2, axis2=-1)) / 2
    # L^-T inner L^-1
    half = np.linalg.solve(mT(L), inner)
    return triangle(symmetric(mT(np.linalg.solve(mT(L), mT(half)))))


def pinv_gradient(y: Any, a: Any, g: Any) -> Any:
    """Where the rank does not change."""
    outside = y @ mT(y) @ (g - g @ a @ y) + (g - y @ a @ g) @ mT(y) @ y
    return mT(outside) - mT(y) @ g @ mT(y)


def slope_of_det(y: Any, a: Any) -> Any:
    # By the inverse small entries keep their digits. It does not exist for singular matrices, and near them
    # it loses the digits of second derivatives.
    return with_matrix(y) * mT(np.linalg.inv(a)) if type(a) is np.ndarray and np.all(y) else cofactors(a)


def products_without(s: Any) -> Any:
    """``p_ij``, the product of all entries of ``s`` but i and j; of all but i on the diagonal."""
    rows = np.where(np.eye(np.shape(s)[-1], dtype=bool), 1, np.expand_dims(s, -2))  # without s_i in row i
    first = np.ones_like(rows[..., :1])
    before = np.concatenate([first, np.cumprod(rows[..., :-1], axis=-1)], axis=-1)
    after = np.concatenate([first, np.cumprod(np.flip(rows[..., 1:], -1), axis=-1)], axis=-1)
    return before * np.flip(after, -1)


def cofactor_parts(a: Any) -> tuple[Any, Any, Any]:
    """``U``, ``p`` and ``Vh`` of ``cof(a) = U diag(p_ii) Vh``; p has the sign of ``det(U Vh)``."""
    U, s, Vh = np.linalg.svd(a)
    return U, products_without(s) * with_matrix(np.linalg.det(U @ Vh)), Vh


def cofactors_forward(a: Any) -> Any:
    U, p, Vh = cofactor_parts(a)
    return U @ diagonal_matrix(np.diagonal(p, axis1=-2, axis2=-1)) @ Vh


def cofactors_rule(y: Any, a: Any) -> Pull:
    # Between the same U and Vh a change e of diag(s) moves cofactor ii by the sum of p_ij e_jj over j != i,
    # and cofactor ij by -p_ij e_ji. No quotient appears, so the rank may be any.
    U, p, Vh = cofactor_parts(a)
    others = p - diagonal_matrix(np.diagonal(p, axis1=-2, axis2=-1))

    def pull(g: Any) -> Any:
        inside = mT(U) @ g @ mT(Vh)
        on_diagonal = others @ np.expand_dims(np.diagonal(inside, axis1=-2, axis2=-1), -1)
        return U @ (diagonal_matrix(on_diagonal[..., 0]) - mT(others * inside)) @ Vh

    return pull


cofactors: Callable[[Any], Any] = primitive(cofactors_forward, cofactors_rule)


def logdet_rule(y: Any, a: Any) -> Pull:
    singular = with_matrix(np.isneginf(value(y)))
    if not singular.any():
        return lambda g: with_matrix(g) * mT(np.linalg.inv(a))
    inverse = mT(np.linalg.inv(np.where(singular, np.eye(np.shape(a)[-1], dtype=a.dtype), a)))
    return lambda g: with_matrix(g) * np.where(singular, cofactors(a) / (~singular).astype(a.dtype), inverse)


logdet = primitive(lambda a: np.linalg.slogdet(a)[1], logdet_rule)


@composition(np.linalg.slogdet)
def slogdet(a: Any) -> Any:
    plain = np.linalg.slogdet(value(a))
    return type(plain)(plain.sign, logdet(a))


# Eigenvalues and singular values


def inverse_differences(x: Any) -> Any:
    """``1 / (x_j - x_i)``, and 0 where they are equal: there the gauge makes the factor zero."""
    differences = np.expand_dims(x, -2) - np.expand_dims(x, -1)
    return np.where(differences == 0, 0, 1 / np.where(differences == 0, 1, differences))


def eigh_forward(a: Any, *, UPLO: Any = "L") -> Any:
    w, V = np.linalg.eigh(a, UPLO)
    return np.concatenate([np.expand_dims(w, -2), V], axis=-2)


def eigh_rule(y: Any, a: Any, *, UPLO: Any = "L") -> Pull:
    w, V = y[..., 0, :], y[..., 1:, :]

    def pull(g: Any) -> Any:
        turn = mT(V) @ g[..., 1:, :] * inverse_differences(w)
        return triangle(symmetric(V @ (diagonal_matrix(g[..., 0, :]) + turn) @ mT(V)), UPLO)

    return pull


eigh_of = primitive(eigh_forward, eigh_rule)


@composition(np.linalg.eigh)
def eigh(a: Any, UPLO: Any = "L") -> Any:
    y = eigh_of(a, UPLO=UPLO)
    return type(np.linalg.eigh(np.eye(1)))(y[..., 0, :], y[..., 1:, :])


def svd_forward(a: Any) -> Any:
    U, s, Vh = np.linalg.svd(a, full_matrices=False)
    return np.concatenate([U, np.expand_dims(s, -2), mT(Vh)], axis=-2)


def svd_rule(y: Any, a: Any) -> Pull:
    m = np.shape(a)[-2]
    U, s, V = y[..., :m, :], y[..., m, :], y[..., m + 1 :, :]

    def pull(g: Any) -> Any:
        gU, gs, gV = g[..., :m, :], g[..., m, :], g[..., m + 1 :, :]
        rows, columns = np.expand_dims(s, -2), np.expand_dims(s, -1)
        F = inverse_differences(s * s)
        of_U, of_V = mT(U) @ gU * F, mT(V) @ gV * F
        inside = (of_U + mT(of_U)) * rows + columns * (of_V + mT(of_V)) + diagonal_matrix(gs)
        safe = np.where(rows == 0, 1, rows)
        of_left = (gU - U @ (mT(U) @ gU)) / safe
        of_right = (gV - V @ (mT(V) @ gV)) / safe
        return U @ inside @ mT(V) + of_left @ mT(V) + U @ mT(of_right)

    return pull


svd_of = primitive(svd_forward, svd_rule)


@composition(np.linalg.svd)
def svd(a: Any, full_matrices: bool = True, compute_uv: bool = True) -> Any:
    m, n = np.shape(a)[-2:]
    y = svd_of(a)
    if not compute_uv:
        return y[..., m, :]
    if full_matrices and m != n:
        raise TypeError("np.linalg.svd needs full_matrices=False: further columns of U or V are not unique")
    return type(np.linalg.svd(np.eye(1)))(y[..., :m, :], y[..., m, :], mT(y[..., m + 1 :, :]))


# Q R


def qr_forward(a: Any) -> Any:
    Q, R = np.linalg.qr(a)
    return np.concatenate([Q, mT(R)], axis=-2)


def qr_rule(y: Any, a: Any) -> Pull:
    m = np.shape(a)[-2]
    Q, RT = y[..., :m, :], y[..., m:, :]

    def pull(g: Any) -> Any:
        gQ, gRT = g[..., :m, :], g[..., m:, :]
        M = mT(RT) @ gRT - mT(gQ) @ Q
        mirrored = np.tril(M) + mT(np.tril(M, -1))
        return mT(np.linalg.solve(mT(RT), mT(gQ + Q @ mirrored)))

    return pull


qr_of = primitive(qr_forward, qr_rule)


@composition(np.linalg.qr)
def qr(a: Any, mode: str = "reduced") -> Any:
    if mode not in ("reduced", "r"):
        raise TypeError(f"np.linalg.qr has no derivative for mode={mode!r}; it has for 'reduced' and 'r'")
    m, n = np.shape(a)[-2:]
    y = qr_of(a[..., :, :m])  # of a wide matrix the first columns decide on Q
    Q, R = y[..., :m, :], mT(y[..., m:, :])
    if n > m:
        R = np.concatenate([R, mT(Q) @ a[..., :, m:]], axis=-1)
    return R if mode == "r" else type(np.linalg.qr(np.eye(1)))(Q, R)


# Norms


@composition(np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    axes = range(np.ndim(x)) if axis is None else normalize_axis_tuple(axis, np.ndim(x))
    if len(axes) == 1 or (axis is None and ord is None):
        return vector_norm(x, axis=axis, keepdims=keepdims, ord=2 if ord is None else ord)
    if len(axes) != 2:
        raise ValueError(f"np.linalg.norm takes one axis or two, got {np.ndim(x)} axes and axis={axis}")
    y = matrix_size(x, ord, axes)
    return np.expand_dims(y, tuple(axes)) if keepdims else y


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


def matrix_size(x: Any, ord: Any, axes: Sequence[int]) -> Any:
    if ord is None or ord == "fro":
        return euclidean_norm(x, axis=tuple(axes))
    if np.size(x) == 0:
        return np.linalg.norm(value(x), ord, axis=tuple(axes))
    x = np.moveaxis(x, list(axes), [-2, -1])
    if ord == "nuc":
        return np.sum(np.linalg.svdvals(x), axis=-1)
    sums = {1: (-2, np.max), -1: (-2, np.min), np.inf: (-1, np.max), -np.inf: (-1, np.min)}
    if ord in sums:
        along, extreme = sums[ord]
        return extreme(np.sum(np.abs(x), axis=along), axis=-1)
    if ord in (2, -2):
        return (np.max if ord == 2 else np.min)(np.linalg.svdvals(x), axis=-1)
    raise TypeError(f"ord of matrices must be None, 'fro', 'nuc', 1, -1, 2, -2, inf or -inf, got {ord!r}")


@composition(np.linalg.vector_norm)
def vector_norm(x: Any, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    axes = normalize_axis_tuple(range(np.ndim(x)) if axis is None else axis, np.ndim(x))
    rows = np.moveaxis(x, axes, range(-len(axes), 0))  # several axes are one long one
    kept, length = np.shape(rows)[: np.ndim(x) - len(axes)], math.prod(np.shape(x)[i] for i in axes)
    y = vector_length(np.reshape(rows, (*kept, length)), ord)
    return np.expand_dims(y, axes) if keepdims else y


# What np.linalg has under a second name

constant(np.linalg.matrix_rank)
composition(np.linalg.svdvals)(lambda x: np.linalg.svd(x, compute_uv=False))
composition(np.linalg.eigvalsh)(lambda a, UPLO="L": np.linalg.eigh(a, UPLO)[0])
composition(np.linalg.matrix_norm)(lambda x, *, keepdims=False, ord="fro": norm(x, ord, (-2, -1), keepdims))
