"""Every row of the tables obeys the law of derivatives, over shapes and broadcast pairs."""

import inspect
import operator
from pathlib import Path

import numpy as np
import pytest

from lora_np.autograd import (
    NOT_DIFFERENTIABLE,
    Tensor,
    adapted_affine,
    affine,
    check_derivative,
    grad,
    linear_algebra,
    plus_low_rank,
    primitive,
    rules,
    value,
)
from lora_np.autograd.methods import astype
from lora_np.autograd.tables import COMPOSITIONS, CONSTANTS, DERIVATIVES, name_of
from tests.drawing import every

RNG = np.random.default_rng(7)
BROADCAST_PAIRS = [
    ((), ()), ((3,), ()), ((), (3,)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((4, 1, 3), (2, 1)), ((1,), (5,)), ((2, 3), (2, 3)),
]  # fmt: skip


def away_from_zero(shape, low=0.4, high=1.6):
    """Values in +-[low, high]: far from kinks and poles."""
    return RNG.uniform(low, high, shape) * RNG.choice([-1.0, 1.0], shape)


def positive(shape):
    return RNG.uniform(0.4, 1.6, shape)


def distinct(shape):
    """Values at least 0.1 apart, so that no maximum is near a tie."""
    return RNG.permutation(np.arange(np.prod(shape, dtype=int)) * 0.1 - 0.35).reshape(shape)


def unary(f, make):
    return [(f, (make(shape),)) for shape in [(), (3,), (2, 3), (2, 1, 4), (0, 2)]]


def pairs(f, make_a, make_b=None):
    return [(f, (make_a(a), (make_b or make_a)(b))) for a, b in BROADCAST_PAIRS]


def reductions(f, make):
    return [
        (lambda a, kw=kw: f(a, **kw), (make((2, 3, 4)),))
        for kw in [{}, {"axis": 0}, {"axis": -1, "keepdims": True}, {"axis": (0, 2)}, {"keepdims": True}]
    ] + [(f, (make(()),)), (lambda a: f(a, 1), (make((2, 3)),))]


def matrix(*shape):
    return RNG.standard_normal(shape)


def between(low, high):
    return lambda shape: RNG.uniform(low, high, shape)


def well_conditioned(*shape):
    """Square matrices far from singular, with distinct eigenvalues and singular values."""
    n = shape[-1]
    return np.diag(np.arange(1.0, n + 1)) + 0.2 * RNG.standard_normal(shape)


def of_symmetric(f):
    """``f`` of a symmetric matrix, so that every change is a symmetric one."""
    return lambda a: f((a + np.swapaxes(a, -1, -2)) / 2)


def of_positive(f):
    return lambda a: f(a @ np.swapaxes(a, -1, -2))


def without_signs(U, s, Vh):
    """What does not change with the signs of pairs of singular vectors."""
    return np.concatenate(
        [
            np.ravel(U * s[..., None, :] @ Vh),
            np.ravel(s),
            np.ravel(U**2),
            np.ravel(Vh**3 * np.swapaxes(U, -1, -2)[..., :, :1]),
        ]
    )


MATMULS = [
    ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (5, 3, 4)),
    ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)), ((5, 1, 2, 3), (6, 3, 4)), ((3,), (5, 3, 4)), ((5, 2, 3), (3,)),
]  # fmt: skip

ONES = [(a, b) for a in [(1, 1), (1, 3), (2, 1), (2, 3)] for b in [(1, 1), (1, 3), (2, 1), (2, 3)]]
EINSUMS = [
    ("ij,jk->ik", (2, 3), (3, 4)), ("ij,kj", (2, 3), (4, 3)), ("ii->i", (3, 3)), ("ii", (3, 3)), ("ij->j", (2, 3)),
    ("ij->", (2, 3)), ("i,j->ij", (2,), (3,)), ("iij,j->i", (3, 3, 2), (2,)), ("bij,bjk->bik", (5, 2, 3), (5, 3, 4)),
    ("...ij,...jk->...ik", (5, 2, 3), (3, 4)), ("...i,i", (2, 4, 3), (3,)), ("ij,jk,kl->il", (2, 3), (3, 4), (4, 2)),
    ("ij,ij->ij", (2, 1), (2, 3)), ("ij->ji", (2, 3)), ("iik->k", (2, 2, 3)),
    # An axis of size 1 against a longer one, in every place: with an output axis, summed, alone, on a diagonal
    *(("ij,ij->", a, b) for a, b in ONES), *(("ij,ij->i", a, b) for a, b in ONES), *(("ij,ij->ij", a, b) for a, b in ONES),
    *(("ij,ij->j", a, b) for a, b in ONES), ("ii,i->i", (1, 1), (3,)), ("ii,i->", (1, 1), (3,)), ("ii,i", (3, 3), (1,)),
    ("ij,jk->ik", (2, 1), (3, 4)), ("ij,jk->k", (2, 3), (1, 4)), ("...i,...i->...", (4, 1, 3), (2, 1)), ("i,i,i->", (1,), (3,), (1,)),
    ("iij,ij->", (3, 3, 1), (1, 2)), ("iii->i", (2, 2, 2)), ("iijj->", (2, 2, 3, 3)), ("i,i", (0,), (0,)), ("i,i->", (1,), (0,)),
]  # fmt: skip

EXAMPLES = {
    np.add: pairs(np.add, away_from_zero),
    np.subtract: pairs(np.subtract, away_from_zero),
    np.multiply: pairs(np.multiply, away_from_zero),
    np.divide: pairs(np.divide, away_from_zero),
    np.power: [
        *pairs(np.power, positive, away_from_zero),
        (lambda a: a**2, (away_from_zero((3,)),)),
        (lambda a: a**-1.5, (positive((3,)),)),
        (lambda b: 2.0**b, (away_from_zero((3,)),)),
        (lambda a: a**0, (np.array([0.0, 1.0, -2.0]),)),
        (lambda a: a ** np.array([0, 1, 3], dtype=np.int8), (np.array([0.0, 0.0, -2.0]),)),
    ],
    np.negative: unary(np.negative, away_from_zero),
    np.positive: unary(np.positive, away_from_zero),
    np.reciprocal: unary(np.reciprocal, away_from_zero),
    np.square: unary(np.square, away_from_zero),
    np.sqrt: unary(np.sqrt, positive),
    np.exp: unary(np.exp, away_from_zero),
    np.expm1: unary(np.expm1, away_from_zero),
    np.log: unary(np.log, positive),
    np.log1p: unary(np.log1p, positive),
    np.tanh: unary(np.tanh, away_from_zero),
    np.sin: unary(np.sin, away_from_zero),
    np.cos: unary(np.cos, away_from_zero),
    np.absolute: unary(np.absolute, away_from_zero),
    np.maximum: pairs(np.maximum, lambda s: distinct(s) + 0.05, distinct),
    np.minimum: pairs(np.minimum, lambda s: distinct(s) + 0.05, distinct),
    np.where: [
        (lambda a, b, c=RNG.random(np.broadcast_shapes(sa, sb)) < 0.5: np.where(c, a, b), (matrix(*sa), matrix(*sb)))
        for sa, sb in BROADCAST_PAIRS
    ],
    np.clip: [
        (np.clip, (away_from_zero((2, 3)), -1.0, np.full((3,), 1.0))),
        (lambda a: np.clip(a, None, 1.0), (away_from_zero((4,)),)),
        (lambda a: np.clip(a, a_min=-1.0, a_max=None), (away_from_zero((4,)),)),
        (lambda a, low: np.clip(a, low, 2.0), (away_from_zero((4, 3)), np.array([-1.0, 0.0, 0.2]))),
        (np.clip, (away_from_zero((4, 3)), np.array([1.7, 0.1, -0.3]), np.array([-0.2, -0.1, 0.2]))),  # two cross
        (lambda a: a.clip(-1.0, 1.0), (away_from_zero((4,)),)),
    ],
    np.matmul: [(np.matmul, (matrix(*a), matrix(*b))) for a, b in MATMULS],
    np.dot: [
        (np.dot, (matrix(*a), matrix(*b)))
        for a, b in [((), (3,)), ((3,), (3,)), ((2, 3), (3, 4)), ((5, 2, 3), (3,)), ((2, 3), (5, 3, 4)), ((3,), (5, 3, 4))]
    ],
    np.inner: [(np.inner, (matrix(*a), matrix(*b))) for a, b in [((), (3,)), ((3,), (3,)), ((2, 3), (4, 3))]],
    np.vdot: [(np.vdot, (matrix(2, 3), matrix(2, 3)))],
    np.outer: [(np.outer, (matrix(2), matrix(3))), (np.outer, (matrix(2, 2), matrix(3)))],
    np.tensordot: [
        (np.tensordot, (matrix(2, 3, 4), matrix(3, 4, 5))),
        (lambda a, b: np.tensordot(a, b, axes=1), (matrix(2, 3), matrix(3, 4))),
        (lambda a, b: np.tensordot(a, b, axes=([0, 2], [1, 0])), (matrix(2, 3, 4), matrix(4, 2))),
    ],
    np.conjugate: unary(np.conjugate, away_from_zero),
    np.einsum: [(lambda a, b: np.einsum(a, [0, 1], b, [1, 2], [2, 0]), (matrix(2, 3), matrix(3, 4))),
                (lambda a, b: np.einsum(a, [..., 0], b, [0]), (matrix(2, 3), matrix(3)))] + [(lambda *a, s=s: np.einsum(s, *a), tuple(matrix(*shape) for shape in shapes)) for s, *shapes in EINSUMS],
    np.sum: reductions(np.sum, matrix_of := lambda s: matrix(*s)),
    np.mean: reductions(np.mean, matrix_of),
    np.max: reductions(np.max, distinct),
    np.min: reductions(np.min, distinct),
    np.var: [
        *reductions(np.var, matrix_of),
        (lambda a: np.var(a, axis=0, ddof=1), (matrix(4, 3),)),
        (lambda a: np.var(a, axis=0, correction=1), (matrix(4, 3),)),
        (lambda a: np.var(a, axis=0, mean=np.mean(a, axis=0, keepdims=True)), (matrix(4, 3),)),
        (lambda a: np.std(a, 0, None, None, 1), (matrix(4, 3),)),
    ],
    np.std: reductions(np.std, matrix_of)[:5],
    np.linalg.norm: [
        (np.linalg.norm, (matrix(2, 3),)),
        (np.linalg.norm, (matrix(4),)),
        (lambda a: np.linalg.norm(a, axis=1, keepdims=True), (matrix(2, 3),)),
        (lambda a: np.linalg.norm(a, "fro", axis=(0, 2)), (matrix(2, 3, 2),)),
        (lambda a: np.linalg.norm(a, 1), (away_from_zero((4,)),)),
        (lambda a: np.linalg.norm(a, np.inf, axis=-1), (distinct((2, 4)),)),
        *((lambda a, p=p: np.linalg.norm(a, p), (away_from_zero((4,)),)) for p in (3, 2.5, 0.5, -1, -np.inf)),
        *((lambda a, p=p: np.linalg.norm(a, p), (well_conditioned(3, 3),)) for p in ("fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf)),
        (lambda a: np.linalg.norm(a, "nuc", axis=(2, 0), keepdims=True), (matrix(3, 2, 2),)),
        (lambda a: np.linalg.norm(a, keepdims=True), (matrix(3, 2),)),
    ],
    np.broadcast_to: [(lambda a: np.broadcast_to(a, (2, 4, 3)), (matrix(4, 1),)), (lambda a: np.broadcast_to(a, 3), (matrix(),))],
    np.reshape: [
        (lambda a: np.reshape(a, (3, -1)), (matrix(2, 6),)),
        (lambda a: a.reshape(4, 3), (matrix(2, 6),)),
        (lambda a: np.reshape(a, (3, 4), order="F"), (matrix(2, 6),)),
    ],
    np.transpose: [
        (np.transpose, (matrix(2, 3, 4),)),
        (lambda a: np.transpose(a, (2, 0, 1)), (matrix(2, 3, 4),)),
        (lambda a: np.transpose(a, (-1, 0, 1)), (matrix(2, 3, 4),)),
        (lambda a: a.transpose(1, 0, 2), (matrix(2, 3, 4),)),
    ],
    np.swapaxes: [(lambda a: np.swapaxes(a, 0, -1), (matrix(2, 3, 4),))],
    np.moveaxis: [
        (lambda a: np.moveaxis(a, 0, -1), (matrix(2, 3, 4),)),
        (lambda a: np.moveaxis(a, (0, 2), (1, 0)), (matrix(2, 3, 4),)),
    ],
    np.squeeze: [(np.squeeze, (matrix(2, 1, 3, 1),)), (lambda a: np.squeeze(a, axis=1), (matrix(2, 1, 3, 1),))],
    np.expand_dims: [(lambda a: np.expand_dims(a, 1), (matrix(2, 3),)), (lambda a: np.expand_dims(a, (0, -1)), (matrix(2),))],
    np.ravel: [(np.ravel, (matrix(2, 3),))],
    np.concatenate: [
        (lambda a, b: np.concatenate([a, b]), (matrix(2, 3), matrix(1, 3))),
        (lambda a, b: np.concatenate((a, b, a), axis=-1), (matrix(2, 3), matrix(2, 1))),
        (lambda a, b: np.concatenate([a, b], axis=None), (matrix(2, 3), matrix(2))),
        (lambda a: np.concatenate(a, axis=1), (matrix(3, 2, 2),)),
    ],
    np.stack: [(lambda a, b: np.stack([a, b, a], axis=1), (matrix(2, 3), matrix(2, 3)))],
    np.vstack: [(lambda a, b: np.vstack([a, b]), (matrix(3), matrix(2, 3)))],
    np.hstack: [(lambda a, b: np.hstack([a, b]), (matrix(3), matrix(2))), (lambda a, b: np.hstack([a, b]), (matrix(2, 3), matrix(2, 1)))],
    np.split: [
        (lambda a: np.split(a, 3)[1] * np.split(a, 3)[2], (matrix(6, 2),)),
        (lambda a: np.split(a, [1, 4], axis=-1)[1], (matrix(2, 6),)),
    ],
    np.take: [
        (lambda a: np.take(a, [0, 2, 0]), (matrix(3, 2),)),
        (lambda a: np.take(a, [[1, 1], [0, 2]], axis=1), (matrix(2, 3),)),
        (lambda a: np.take(a, 1, axis=-1), (matrix(2, 3),)),
    ],
    np.diagonal: [
        (np.diagonal, (matrix(3, 4),)),
        (lambda a: np.diagonal(a, -1), (matrix(3, 4),)),
        (lambda a: np.diagonal(a, 2, axis1=0, axis2=2), (matrix(3, 2, 4),)),
    ],
    np.trace: [(np.trace, (matrix(3, 4),)), (lambda a: np.trace(a, offset=1), (matrix(3, 4),))],
    np.tril: [(np.tril, (matrix(3, 4),)), (lambda a: np.tril(a, -1), (matrix(2, 3, 3),))],
    np.triu: [(np.triu, (matrix(3, 4),)), (lambda a: np.triu(a, 1), (matrix(2, 3, 3),))],
    operator.getitem: [
        (lambda a, index=index: a[index], (matrix(4, 3),))
        for index in [1, -1, slice(1, 3), (slice(None), 0), None, Ellipsis, (2, 1), np.array([0, 2, 0]), [3, 3],
                      (np.array([0, 0]), np.array([1, 1])), np.array([True, False, True, True]),
                      (slice(None), np.array([[0, 1], [2, 2]]))]
    ],
    affine: [
        *[(affine, (matrix(*x), matrix(3, 2), matrix(3))) for x in [(2,), (5, 2), (4, 5, 2)]],
        (affine, (matrix(5, 2), matrix(3, 2), matrix(5, 3))),
        (lambda x, W: affine(x, W), (matrix(5, 2), matrix(3, 2))),
    ],
    np.remainder: pairs(np.remainder, between(2.1, 2.9), lambda s: between(0.9, 1.0)(s) * 1.1),
    np.fmod: pairs(np.fmod, lambda s: -between(2.1, 2.9)(s), lambda s: between(0.9, 1.0)(s) * 1.1),
    np.logaddexp: pairs(np.logaddexp, away_from_zero),
    np.logaddexp2: pairs(np.logaddexp2, away_from_zero),
    np.hypot: pairs(np.hypot, away_from_zero),
    np.arctan2: pairs(np.arctan2, away_from_zero),
    np.fmax: pairs(np.fmax, lambda s: distinct(s) + 0.05, distinct),
    np.fmin: pairs(np.fmin, lambda s: distinct(s) + 0.05, distinct),
    **{f: unary(f, away_from_zero) for f in (np.exp2, np.tan, np.arctan, np.sinh, np.cosh, np.arcsinh, np.fabs,
                                             np.deg2rad, np.rad2deg, np.radians, np.degrees)},
    **{f: unary(f, positive) for f in (np.log2, np.log10)},
    **{f: unary(f, between(-0.8, 0.8)) for f in (np.arcsin, np.arccos, np.arctanh)},
    np.arccosh: unary(np.arccosh, between(1.5, 2.5)),
    np.nan_to_num: [(np.nan_to_num, (matrix(2, 3),)), (lambda a: np.nan_to_num(a, nan=2.0), (matrix(3),))],
    np.copy: [(np.copy, (matrix(2, 3),)), (lambda a: a.copy(), (matrix(2, 3),))],
    astype: [(lambda a: a.astype(np.float32).astype(a.dtype) * 0 + a, (matrix(3),)), (lambda a: a.astype(a.dtype), (matrix(3),))],
    np.select: [(lambda a, b: np.select([np.array([True, False, False]), np.array([True, True, False])], [a, b], a * b), (matrix(3), matrix(2, 3)))],
    np.vecdot: [(np.vecdot, (matrix(*a), matrix(*b))) for a, b in [((3,), (3,)), ((2, 3), (3,)), ((4, 1, 3), (2, 3))]] +
               [(lambda a, b: np.vecdot(a, b, axis=0), (matrix(3, 2), matrix(3, 2)))],
    **({np.matvec: [(np.matvec, (matrix(*a), matrix(*b))) for a, b in [((2, 3), (3,)), ((5, 2, 3), (3,)), ((2, 3), (4, 3))]],
        np.vecmat: [(np.vecmat, (matrix(*a), matrix(*b))) for a, b in [((2,), (2, 3)), ((5, 2), (2, 3)), ((2,), (4, 2, 3))]]}
       if hasattr(np, "matvec") else {}),
    np.kron: [(np.kron, (matrix(*a), matrix(*b))) for a, b in [((2,), (3,)), ((2, 3), (3, 2)), ((2,), (3, 2)), ((2, 1, 3), (3, 2)), ((), (2, 3))]],
    np.cross: [(np.cross, (matrix(3), matrix(3))), (np.cross, (matrix(4, 3), matrix(3))),
               (lambda a, b: np.cross(a, b, axis=0), (matrix(3, 2), matrix(3, 2))), (lambda a, b: np.cross(a, b, 0, 1, 0), (matrix(3, 2), matrix(2, 3)))],
    np.ptp: [(np.ptp, (distinct((2, 3)),)), (lambda a: np.ptp(a, axis=1), (distinct((2, 3)),))],
    np.average: [(np.average, (matrix(2, 3),)), (lambda a, w: np.average(a, weights=w), (matrix(2, 3), positive((2, 3)))),
                 (lambda a, w: np.average(a, axis=(2, 0), weights=w), (matrix(2, 3, 4), positive((4, 2)))),
                 (lambda a, w: np.average(a, axis=1, weights=w), (matrix(2, 3), positive((3,)))), (lambda a: np.average(a, 0), (matrix(2, 3),))],
    np.prod: [*reductions(np.prod, away_from_zero), (np.prod, (np.array([2.0, 0.0, 3.0]),)), (np.prod, (np.array([0.0, 0.0, 3.0]),)),
              (lambda a: a.prod(0), (away_from_zero((5, 2)),)), (lambda a: np.prod(a, 0) + np.sum(a), (matrix(0, 2),))],
    np.cumsum: [(np.cumsum, (matrix(4),)), (np.cumsum, (matrix(2, 3),)), *((lambda a, i=i: np.cumsum(a, i), (matrix(2, 3),)) for i in (0, 1, -2)), (np.cumsum, (matrix(),))],
    np.cumprod: [(np.cumprod, (np.array([2.0, 0.0, 3.0, 0.0]),)), (np.cumprod, (matrix(2, 3),)), *((lambda a, i=i: np.cumprod(a, axis=i), (matrix(2, 3),)) for i in (0, -1))],
    np.diff: [(np.diff, (matrix(4),)), (lambda a: np.diff(a, 2, axis=0), (matrix(4, 2),)), (lambda a: np.diff(a, 0), (matrix(4),))],
    np.matrix_transpose: [(np.matrix_transpose, (matrix(2, 3, 4),))],
    np.atleast_1d: [(np.atleast_1d, (matrix(),)), (lambda a, b: np.atleast_1d(a, b)[0] * np.atleast_1d(a, b)[1], (matrix(), matrix(2)))],
    np.atleast_2d: [(np.atleast_2d, (matrix(*shape),)) for shape in [(), (3,), (2, 3)]],
    np.atleast_3d: [(np.atleast_3d, (matrix(*shape),)) for shape in [(), (3,), (2, 3), (2, 3, 4)]],
    np.dstack: [(lambda a, b: np.dstack([a, b]), (matrix(3), matrix(3))), (lambda a, b: np.dstack([a, b]), (matrix(2, 3), matrix(2, 3, 2)))],
    np.column_stack: [(lambda a, b: np.column_stack([a, b]), (matrix(3), matrix(3, 2)))],
    np.append: [(np.append, (matrix(2, 3), matrix(2))), (lambda a, b: np.append(a, b, axis=0), (matrix(2, 3), matrix(1, 3)))],
    np.array_split: [(lambda a: np.array_split(a, 3)[0] * np.array_split(a, 3)[2][0], (matrix(5, 2),)), (lambda a: np.array_split(a, 2, axis=1)[1], (matrix(2, 5),))],
    np.vsplit: [(lambda a: np.vsplit(a, 2)[1], (matrix(4, 2),))],
    np.hsplit: [(lambda a: np.hsplit(a, 2)[1], (matrix(4, 2),)), (lambda a: np.hsplit(a, [1])[1], (matrix(4),))],
    np.dsplit: [(lambda a: np.dsplit(a, 2)[1], (matrix(2, 3, 4),))],
    np.roll: [(lambda a: np.roll(a, 1), (matrix(2, 3),)), (lambda a: np.roll(a, (1, -1), axis=(0, 1)), (matrix(2, 3),))],
    np.rot90: [(np.rot90, (matrix(2, 3),)), (lambda a: np.rot90(a, 2, axes=(1, 2)), (matrix(2, 3, 4),))],
    np.fliplr: [(np.fliplr, (matrix(2, 3),))],
    np.flipud: [(np.flipud, (matrix(2, 3),))],
    np.flip: [(np.flip, (matrix(2, 3),)), (lambda a: np.flip(a, -1), (matrix(2, 3),)), (lambda a: np.flip(a, (0, 2)), (matrix(2, 3, 4),))],
    np.rollaxis: [(lambda a: np.rollaxis(a, 2), (matrix(2, 3, 4),))],
    np.tile: [(lambda a: np.tile(a, 2), (matrix(3),)), (lambda a: np.tile(a, (2, 1, 3)), (matrix(2, 3),)), (lambda a: np.tile(a, (0, 2)), (matrix(3),))],
    np.repeat: [(lambda a: np.repeat(a, 2), (matrix(2, 3),)), (lambda a: a.repeat([1, 0, 2], axis=1), (matrix(2, 3),))],
    np.diag: [(np.diag, (matrix(3),)), (lambda a: np.diag(a, -1), (matrix(3),)), (np.diag, (matrix(2, 3),)), (lambda a: np.diag(a, 1), (matrix(3, 3),))],
    np.diagflat: [(np.diagflat, (matrix(2, 2),))],
    np.delete: [(lambda a: np.delete(a, 1, axis=0), (matrix(3, 2),))],
    np.take_along_axis: [(lambda a: np.take_along_axis(a, np.array([[0, 0], [2, 1]]), 1), (matrix(2, 3),)), (lambda a: np.take_along_axis(a, np.array([5, 5, 0]), None), (matrix(2, 3),))],
    np.resize: [(lambda a: np.resize(a, (2, 4)), (matrix(3),))],
    np.sort: [(np.sort, (distinct((2, 5)),)), (lambda a: np.sort(a, axis=0), (distinct((4, 3)),)), (lambda a: np.sort(a, axis=None), (distinct((4, 3)),)),
              (lambda a: np.sort(a, kind="heapsort"), (distinct((2, 5)),)), (lambda a: np.sort(a, stable=True), (distinct((2, 5)),))],
    np.pad: [(lambda a: np.pad(a, 1), (matrix(2, 3),)), (lambda a: np.pad(a, ((0, 1), (2, 0)), constant_values=3.0), (matrix(2, 3),)),
             *((lambda a, mode=mode: np.pad(a, ((2, 1), (0, 2)), mode), (matrix(3, 3),)) for mode in ["edge", "reflect", "symmetric", "wrap"])],
    np.linalg.solve: [(np.linalg.solve, (well_conditioned(3, 3), matrix(3))), (np.linalg.solve, (well_conditioned(3, 3), matrix(3, 2))),
                      (np.linalg.solve, (well_conditioned(4, 3, 3), matrix(3))), (np.linalg.solve, (well_conditioned(4, 1, 3, 3), matrix(2, 3, 2)))],
    np.linalg.inv: [(np.linalg.inv, (well_conditioned(3, 3),)), (np.linalg.inv, (well_conditioned(2, 3, 3),))],
    np.linalg.det: [(np.linalg.det, (well_conditioned(3, 3),)), (np.linalg.det, (well_conditioned(2, 3, 3),)),
                    (np.linalg.det, (np.diag([3.0, 2.0, 0.0]),))],
    linear_algebra.cofactors: [(linear_algebra.cofactors, (a,)) for a in (well_conditioned(3, 3), well_conditioned(2, 3, 3), matrix(1, 1))],
    np.linalg.slogdet: [(lambda a: np.linalg.slogdet(a).logabsdet, (well_conditioned(3, 3),)), (lambda a: (lambda r: r.sign * r.logabsdet)(np.linalg.slogdet(a)), (-well_conditioned(2, 3, 3),))],
    np.linalg.cholesky: [(np.linalg.cholesky, (np.eye(3) + 0.2 * matrix(3, 3),)), (of_positive(np.linalg.cholesky), (well_conditioned(3, 3),)), (of_positive(np.linalg.cholesky), (well_conditioned(2, 3, 3),)),
                         (lambda a: np.linalg.cholesky(a, upper=True), (np.eye(3) + 0.2 * matrix(3, 3),))],
    np.linalg.pinv: [(np.linalg.pinv, (matrix(4, 2),)), (np.linalg.pinv, (matrix(2, 4),)), (np.linalg.pinv, (matrix(3, 4, 2),)),
                     (lambda b, a: np.linalg.pinv(b @ a, rcond=1e-8), (matrix(4, 2), matrix(2, 3)))],  # the rank stays 2
    np.linalg.eigh: [(lambda a: np.linalg.eigh(a).eigenvalues, (well_conditioned(3, 3),)),
                     (of_symmetric(lambda a: np.linalg.eigh(a)[1] ** 2), (well_conditioned(2, 3, 3),)),
                     (of_symmetric(lambda a: (lambda w, V: V * np.exp(w)[..., None, :] @ np.swapaxes(V, -1, -2))(*np.linalg.eigh(a, "U"))), (well_conditioned(3, 3),))],
    np.linalg.eigvalsh: [(np.linalg.eigvalsh, (well_conditioned(3, 3),)), (lambda a: np.linalg.eigvalsh(a, "U"), (well_conditioned(3, 3),))],
    np.linalg.svd: [(lambda a: without_signs(*np.linalg.svd(a, full_matrices=False)), (a,))
                    for a in (well_conditioned(3, 3), well_conditioned(2, 3, 3), np.vstack([well_conditioned(2, 2), matrix(2, 2)]), np.hstack([well_conditioned(2, 2), matrix(2, 1)]))] +
                   [(lambda a: np.linalg.svd(a, compute_uv=False), (well_conditioned(3, 3),)), (lambda a: np.linalg.svd(a)[1], (well_conditioned(2, 2),))],
    np.linalg.svdvals: [(np.linalg.svdvals, (well_conditioned(3, 3),))],
    np.linalg.qr: [(lambda a, i=i: np.linalg.qr(a)[i], (m,)) for i in (0, 1) for m in (well_conditioned(3, 3), matrix(4, 2), matrix(2, 4), matrix(3, 4, 2))] +
                  [(lambda a: np.linalg.qr(a, "r"), (matrix(4, 2),))],
    np.linalg.vector_norm: [(np.linalg.vector_norm, (matrix(2, 3),)), (lambda a: np.linalg.vector_norm(a, ord=3, axis=1, keepdims=True), (away_from_zero((2, 3)),)),
                            (lambda a: np.linalg.vector_norm(a, axis=(0, 2)), (matrix(2, 3, 2),)),
                            (lambda a: np.linalg.vector_norm(a, axis=(0, -1), ord=3, keepdims=True), (away_from_zero((2, 3, 2)),)), (lambda a: np.linalg.vector_norm(a, keepdims=True), (matrix(2, 3),))],
    np.linalg.matrix_norm: [(np.linalg.matrix_norm, (matrix(2, 3),)), (lambda a: np.linalg.matrix_norm(a, ord="nuc"), (well_conditioned(2, 3, 3),))],
    np.linalg.outer: [(np.linalg.outer, (matrix(2), matrix(3)))],
    np.linalg.tensordot: [(lambda a, b: np.linalg.tensordot(a, b, axes=1), (matrix(2, 3), matrix(3, 2)))],
    np.linalg.cross: [(np.linalg.cross, (matrix(3), matrix(3)))],
    np.linalg.matmul: [(np.linalg.matmul, (matrix(2, 3), matrix(3, 2)))],
    np.linalg.vecdot: [(np.linalg.vecdot, (matrix(2, 3), matrix(3)))],
    np.linalg.matrix_transpose: [(np.linalg.matrix_transpose, (matrix(2, 3),))],
    np.linalg.diagonal: [(np.linalg.diagonal, (matrix(2, 3, 3),)), (lambda a: np.linalg.diagonal(a, offset=1), (matrix(2, 3, 3),))],
    np.linalg.trace: [(np.linalg.trace, (matrix(2, 3, 3),))],
    np.linalg.matrix_power: [(lambda a, n=n: np.linalg.matrix_power(a, n), (well_conditioned(3, 3) / 2,)) for n in (1, 2, 3, 5, -2)] +
                            [(lambda a: np.linalg.matrix_power(a, 0) * np.sum(a), (matrix(3, 3),))],
    np.linalg.multi_dot: [(lambda a, b, c: np.linalg.multi_dot([a, b, c]), (matrix(2, 3), matrix(3, 2), matrix(2, 4)))],
    # by few rows; by many, with a small W and with one that is large beside A and B
    adapted_affine: [(adapted_affine, (matrix(n, k), matrix(d, k), matrix(r, k), matrix(d, r), matrix(), *b)) for n, d, k, r in ((5, 4, 3, 2), (9, 4, 3, 2), (24, 11, 12, 1)) for b in ((), (matrix(d),))],
    plus_low_rank: [(plus_low_rank, (matrix(5, 4), matrix(5, 3), matrix(2, 3), matrix(4, 2), matrix()))],
    **{row: [] for row in (linear_algebra.eigh_of, linear_algebra.svd_of, linear_algebra.qr_of, linear_algebra.logdet)},  # through np.linalg
    rules.put: [],  # through operator.getitem, at second order
    rules.einsum_of: [],  # through np.einsum
    rules.euclidean_norm: [],  # through np.linalg.norm
}  # fmt: skip

CASES = [
    pytest.param(f, args, id=f"{name_of(function)}-{i}")
    for function, examples in EXAMPLES.items()
    for i, (f, args) in enumerate(examples)
]


@every(("f", "args"), CASES)
def test_law_of_derivatives(f, args):
    check_derivative(f, *args)


@every(("f", "args"), CASES)
def test_second_order_law(f, args):
    check_derivative(f, *args, directions=1, order=2, tolerance=1e-5)


@every(("f", "args"), CASES)
def test_forward_pass_is_numpys(f, args):
    tensors = [Tensor(a) for a in args]
    np.testing.assert_allclose(value(f(*tensors)), f(*map(np.asarray, args)), rtol=1e-12)


@every(("f", "args"), CASES)
def test_float32_stays_float32(f, args):
    tensors = [Tensor(np.asarray(a, dtype=np.float32)) for a in args]
    y = f(*tensors)
    assert y.dtype == np.float32
    y.backward(np.ones_like(y.data))
    assert {t.grad.dtype for t in tensors if t.grad is not None} == {np.dtype(np.float32)}


def shipped(rule):
    """Whether a rule or a definition is the package's own, not that of a docstring or another test."""
    rule = getattr(rule, "rule", rule)
    return rule is not None and Path(rule.__code__.co_filename).name in (
        "rules.py",
        "linear_algebra.py",
        "kernels.py",
    )


SHIPPED = {f for f, row in DERIVATIVES.items() if any(map(shipped, row.rules))}
SHIPPED |= {
    f
    for f, definition in COMPOSITIONS.items()
    if getattr(f, "__module__", "numpy").startswith("numpy") or shipped(definition)
}


def test_every_row_has_examples_of_its_own():
    assert not {name_of(f) for f in SHIPPED - set(EXAMPLES)} - {"np.trapezoid"}  # a docstring's


def test_rules_of_a_row_agree_on_their_arguments():
    for function in SHIPPED & set(DERIVATIVES):
        rules = [getattr(r, "rule", r) for r in DERIVATIVES[function].rules if r is not NOT_DIFFERENTIABLE]
        assert len({tuple(inspect.signature(r).parameters) for r in rules}) == 1, name_of(function)


@pytest.mark.parametrize("factor", [1.0005, 0.9995])
@pytest.mark.parametrize("shape", [(), (3,), (20, 30)])
def test_of_the_test_a_small_error_is_caught(factor, shape):
    wrong = primitive(np.tanh, lambda y, a: lambda g: factor * g * (1 - y * y))
    with pytest.raises(AssertionError, match="argument 0 is off by"):
        check_derivative(wrong, positive(shape))


def test_check_names_the_wrong_argument():
    wrong = primitive(np.multiply, lambda y, a, b: lambda g: g * b, lambda y, a, b: lambda g: g * b)
    with pytest.raises(AssertionError, match="argument 1 is off"):
        check_derivative(wrong, positive((3,)), 2 + positive((3,)))


@pytest.mark.parametrize("places", [(0,), (1,), (0, 1)])
def test_a_joint_rule_is_told_what_is_wanted_and_runs_once(places):
    told, runs = [], []

    def joint(y, a, b, *, wanted, power=2):
        told.append(wanted)

        def pull(g):
            runs.append(1)
            ga = g * a ** (power - 1)
            return (power * ga * b if wanted[0] else None), (ga * a if wanted[1] else None)

        return pull

    text = lambda a, b, power=2: a**power * b
    product = primitive(text, joint=joint, composed=text)
    arguments = [positive((3,)), positive((2, 3))]
    check_derivative(product, *arguments)
    check_derivative(lambda a, b: product(a, b, power=3), *arguments)
    check_derivative(lambda a, b: product(a, b, 4), *arguments)
    told.clear()
    runs.clear()
    product(*(Tensor(a) if i in places else a for i, a in enumerate(arguments))).backward(np.ones((2, 3)))
    assert told == [(0 in places, 1 in places)]
    assert len(runs) == 1
    with pytest.raises(TypeError, match="power has no derivative"):
        product(*arguments, Tensor(2.0))


def test_functions_of_equal_eigenvalues_and_singular_values():
    """Their gradients exist where the function does not tell the equal ones apart."""
    check_derivative(lambda a: np.sum(np.linalg.eigvalsh(a) ** 2), np.eye(3))
    check_derivative(lambda a: np.sum(np.linalg.svdvals(a) ** 4), np.eye(3, 2))
    check_derivative(lambda a: np.linalg.norm(a, "nuc"), np.eye(3, 2))


def test_norm_and_std_have_second_gradients_at_zero():
    """NaN would spoil every Hessian. (The true curvature of a kink does not exist.)"""
    from lora_np.autograd import grad

    for f in [np.std, np.linalg.norm]:
        assert np.isfinite(grad(lambda x, f=f: np.sum(grad(f)(x)))(np.zeros(3))).all()


def test_what_does_not_vary_has_slope_zero_in_std_and_norms():
    for f in [np.std, lambda a: np.sum(np.std(a, axis=0)), np.linalg.norm, lambda a: np.sum(np.linalg.norm(a, 3, axis=1)),
              lambda a: np.sum(np.linalg.norm(a, 1.5, axis=0)), lambda a: np.linalg.norm(a, 1), lambda a: np.sum(np.linalg.vector_norm(a, axis=0))]:  # fmt: skip
        x = Tensor(np.zeros((2, 3)))
        f(x).backward()
        np.testing.assert_array_equal(x.grad, 0)
    x = Tensor(np.full((2, 3), 5.0))
    np.std(x).backward()
    np.testing.assert_array_equal(x.grad, 0)


def test_clip_between_equal_bounds_does_not_move():
    x = Tensor(np.zeros(3))
    np.sum(np.clip(x, 0, 0)).backward()
    np.testing.assert_array_equal(x.grad, 0)


@pytest.mark.parametrize("norm", [np.linalg.norm, lambda x: np.linalg.norm(x, "nuc", axis=(0, 1)),
                                  lambda x: np.linalg.norm(x, 1, axis=0), lambda x: np.linalg.norm(x, 3, axis=1)])  # fmt: skip
def test_norms_of_nothing_are_numpys(norm):
    for shape in [(0, 2), (2, 0), (0, 0)]:
        try:
            expected = norm(np.zeros(shape))
        except ValueError:  # which norms have one depends on NumPy's version
            with pytest.raises(ValueError):  # noqa: PT011 (NumPy's own)
                norm(Tensor(np.zeros(shape)))
            continue
        y = value(norm(Tensor(np.zeros(shape))))
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("optimize", [True, "greedy", "optimal", ["einsum_path", (1, 2), (0, 1)]])
def test_einsum_of_an_optimized_path(optimize):
    arrays = [matrix(2, 3), matrix(3, 4), matrix(4, 2)]
    check_derivative(lambda a, b, c: np.einsum("ij,jk,kl->l", a, b, c, optimize=optimize), *arrays, order=2)


def test_the_gradient_of_an_optimal_einsum_takes_no_search_of_its_own():
    from unittest import mock

    a, b = Tensor(matrix(2, 3)), matrix(3, 4)
    y = np.einsum("ij,jk->", a, b, optimize="optimal")
    with mock.patch.object(np, "einsum", wraps=np.einsum) as einsum:
        y.backward()
    assert [call.kwargs["optimize"] for call in einsum.call_args_list] == ["greedy"]


def test_pinv_of_a_symmetric_matrix_reads_one_triangle():
    check_derivative(lambda a: np.linalg.pinv(a, hermitian=True), np.array([[1.0, 2.0], [2.0, 1.0]]), order=2)
    check_derivative(lambda a: np.linalg.pinv(a, hermitian=True), well_conditioned(2, 3, 3), order=2)


def test_pad_of_nothing_is_numpys():
    np.testing.assert_array_equal(value(np.pad(Tensor(np.zeros((2, 0))), 1)), np.zeros((4, 2)))


def test_a_gradient_has_its_leafs_byte_order():
    x = Tensor(np.array(2.0, dtype=">f8"))
    np.clip(np.ones(3), 0, x)[0].backward()
    assert x.grad.dtype == x.dtype == np.dtype(">f8")


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_powers_of_zero_are_torchs():
    for a, b, slope_a, slope_b in [
        (0.0, 2.0, 0, 0),
        (0.0, 0.0, 0, 0),
        (0.0, 1.0, 1, 0),
        (0.0, -1.0, -np.inf, -np.inf),
        (0.0, 0.5, np.inf, 0),
    ]:
        x, z = Tensor(a), Tensor(b)
        (x**z).backward()
        assert (x.grad, z.grad) == (slope_a, slope_b)


def test_full_svd_of_a_rectangle_is_refused():
    with pytest.raises(TypeError, match="pass full_matrices=False"):
        np.linalg.svd(Tensor(np.ones((2, 3))))
    with pytest.raises(TypeError, match="no derivative for mode='complete'"):
        np.linalg.qr(Tensor(np.ones((2, 3))), "complete")


def test_results_have_numpys_names():
    a = Tensor(well_conditioned(3, 3))
    assert np.linalg.svd(a).S.shape == (3,)
    assert np.linalg.qr(a).R.shape == (3, 3)
    assert np.linalg.eigh(a).eigenvectors.shape == (3, 3)
    assert float(np.linalg.slogdet(a).sign) == 1


def determinant(rows):
    """Exact, of whole numbers in Python."""
    first, *others = rows or [[1]]
    minors = (
        determinant([row[:j] + row[j + 1 :] for row in others]) if others else 1 for j in range(len(first))
    )
    return sum((-1) ** j * x * minor for j, (x, minor) in enumerate(zip(first, minors, strict=True)))


def exact_cofactors(rows):
    n = range(len(rows))
    minors = [[determinant([[rows[k][m] for m in n if m != j] for k in n if k != i]) for j in n] for i in n]
    return np.array([[(-1) ** (i + j) * minors[i][j] for j in n] for i in n], dtype=float)


@every("seed", range(5))
@every(("n", "rank"), [(n, rank) for n in range(1, 6) for rank in range(n + 1)])
def test_gradient_of_det_is_the_cofactors_whatever_the_rank(n, rank, seed):
    rng = np.random.default_rng(seed)
    M = rng.integers(-3, 4, (n, rank)) @ rng.integers(-3, 4, (rank, n))
    x = Tensor(M.astype(float))
    np.linalg.det(x).backward()
    exact = exact_cofactors(M.tolist())
    # The error of any algorithm that is stable is that of n - 1 factors of the size of M.
    np.testing.assert_allclose(x.grad, exact, atol=1e-14 * (1 + np.linalg.norm(M)) ** (n - 1))
    np.testing.assert_allclose(
        linear_algebra.cofactors(M.astype(float)), exact, atol=1e-14 * (1 + np.linalg.norm(M)) ** (n - 1)
    )
    if seed == 0:
        check_derivative(np.linalg.det, M / 2, order=2, tolerance=1e-3)


def test_one_singular_matrix_of_a_stack_leaves_the_others_their_gradients():
    stack = np.stack(
        [np.zeros((2, 2)), np.array([[1.0, 2.0], [2.0, 4.0]]), np.array([[1.0, 2.0], [3.0, 4.0]])]
    )
    for f in (np.linalg.det, lambda a: np.linalg.slogdet(a).logabsdet):
        x, alone = Tensor(stack.astype(np.float32)), Tensor(stack[2].astype(np.float32))
        with np.errstate(divide="ignore", invalid="ignore"):
            np.sum(f(x)).backward()
        f(alone).backward()
        assert x.grad.dtype == np.float32
        np.testing.assert_allclose(x.grad[2], alone.grad, rtol=1e-5)
    assert np.isinf(x.grad[1]).all()  # of log |det|: as 1 / 0


@pytest.mark.peers
def test_of_a_singular_matrix_det_and_slogdet_have_torchs_gradients():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 4):
        M, W = rng.standard_normal((n, n - 1)) @ rng.standard_normal((n - 1, n)), rng.standard_normal((n, n))
        M = np.round(M) if n == 1 else M
        theirs = torch.tensor(M, requires_grad=True)
        first = torch.autograd.grad(torch.linalg.det(theirs), theirs, create_graph=True)[0]
        ours = grad(np.linalg.det)(M)
        np.testing.assert_allclose(ours, first.detach().numpy(), atol=1e-12)
        if n > 1:
            second = torch.autograd.grad((first * torch.tensor(W)).sum(), theirs)[0].numpy()
            np.testing.assert_allclose(
                grad(lambda a, W=W: np.sum(grad(np.linalg.det)(a) * W))(M), second, atol=1e-10
            )
    x = Tensor([[0.0]])
    with np.errstate(divide="ignore"):
        np.linalg.slogdet(x).logabsdet.backward()
    zero = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    torch.linalg.slogdet(zero)[1].backward()
    assert x.grad == zero.grad.numpy() == np.inf


def test_arguments_that_cannot_carry_a_gradient_are_named():
    x = Tensor(np.ones((2, 3)))
    for call, message in [
        (lambda: np.roll(x, Tensor(1.0)), "np.roll has a derivative for its first argument"),
        (lambda: np.pad(x, 1, "mean"), "np.pad has no derivative for mode='mean'"),
        (lambda: np.cross(np.ones(2), Tensor(np.ones(2))), "vectors of 3"),
        (lambda: np.linalg.svd(x, hermitian=True), "does not cover the argument hermitian=True"),
        (lambda: np.std(x, dtype=np.float32), "does not cover the argument dtype="),
        (lambda: np.concatenate([x, x], casting="unsafe"), "does not cover the argument casting='unsafe'"),
        (lambda: np.sort(x, order="f"), "does not cover the argument order='f'"),
    ]:
        with pytest.raises(TypeError, match=message):
            call()


def test_numpys_defaults_may_be_written_out():
    a = matrix(2, 3)
    for f in [
        lambda x: np.sum(x, dtype=None), lambda x: np.sum(x, None, None, None), lambda x: np.sum(x, where=True) if isinstance(x, Tensor) else np.sum(x),
        lambda x: np.std(x, dtype=None, out=None), lambda x: np.concatenate([x, x], casting="same_kind", dtype=None),
        lambda x: np.add(x, 1, where=True, dtype=None, casting="same_kind"), lambda x: np.ravel(x, order="C"), lambda x: np.stack([x, x], 0, None),
        lambda x: np.sort(x, kind=None), lambda x: np.clip(x, -1, 1, None),
    ]:  # fmt: skip
        y = f(Tensor(a))
        assert isinstance(y, Tensor)
        np.testing.assert_allclose(y.data, f(a))


def test_a_primitive_has_rules_or_a_joint_rule():
    for separate, joint in [
        ((), None),
        ((lambda y, a: lambda g: g,), lambda y, a, *, wanted: lambda g: (g,)),
    ]:
        with pytest.raises(TypeError, match="either a rule for each array argument, or joint="):
            primitive(np.tanh, *separate, joint=joint)


def test_check_catches_a_gradient_that_is_not_finite():
    wrong = primitive(np.square, lambda y, a: lambda g: g * np.nan)
    with pytest.raises(AssertionError, match="nan"):
        check_derivative(wrong, positive((3,)))


def test_check_compares_shape_and_dtype():
    short = primitive(
        np.multiply, lambda y, a, b: lambda g: np.sum(g * b, axis=0), lambda y, a, b: lambda g: g * a
    )
    with pytest.raises(ValueError, match=r"gradient of shape \(2,\) for an argument of shape \(10, 2\)"):
        check_derivative(short, np.ones((10, 2)), np.ones((1, 2)))
    for other, message in [
        (lambda a: a.astype(np.float32), r"must have shape and dtype of that for arrays, \(3,\) and float64"),
        (lambda a: a[:1], r"got \(1,\) and float64"),
        (lambda a: a + 1, "is not f of arrays"),
    ]:
        twofold = primitive(lambda a, other=other: other(a), lambda y, a: lambda g: g)
        with pytest.raises(AssertionError, match=message):
            check_derivative(
                lambda a, f=twofold: f(a) if isinstance(a, Tensor) else a, np.array([1.0, 1.0, 1.0])
            )


def test_einsum_over_an_axis_of_size_one_sums_it():
    x, b = Tensor([1.0, 2.0]), Tensor([[3.0, 4.0]])
    np.einsum("ij,ij->", np.broadcast_to(x, (10, 2)), b).backward()
    np.testing.assert_array_equal(x.grad, [30, 40])
    np.testing.assert_array_equal(b.grad, [[10, 20]])


@pytest.mark.parametrize("f", [lambda a, b: np.tensordot(a, b, 1), np.inner, np.dot, np.vdot, np.matmul])
def test_products_refuse_an_axis_of_size_one_as_numpy_does(f):
    for a, b in [((10,), (1,)), ((1,), (10,))]:
        with pytest.raises(ValueError, match=r"mismatch|aligned"):
            f(Tensor(np.ones(a)), np.ones(b))


def test_check_needs_a_real_argument():
    with pytest.raises(TypeError, match="at least one argument of real numbers"):
        check_derivative(np.square, 3)


def test_kinks_are_torchs():
    x = Tensor([0.0, -1.0, 1.0])
    np.sum(np.abs(x)).backward()
    np.testing.assert_array_equal(x.grad, [0, -1, 1])
    x = Tensor([-1.0, 0.0, 1.0, 2.0])
    np.sum(np.clip(x, -1, 1)).backward()
    np.testing.assert_array_equal(x.grad, [1, 1, 1, 0])
    x, z = Tensor([1.0, 2.0]), Tensor([1.0, 3.0])
    np.sum(np.maximum(x, z)).backward()
    np.testing.assert_array_equal((x.grad, z.grad), ([0.5, 0], [0.5, 1]))
    x = Tensor([3.0, 3.0, 1.0])
    np.max(x).backward()
    np.testing.assert_array_equal(x.grad, [0.5, 0.5, 0])
    x = Tensor(np.zeros(3))
    np.linalg.norm(x).backward()
    np.testing.assert_array_equal(x.grad, np.zeros(3))


@pytest.mark.filterwarnings("ignore:numpy.fix is deprecated:DeprecationWarning")
@every("function", sorted(CONSTANTS, key=name_of))
def test_constants_return_plain_arrays(function):
    x = Tensor([[1.0, -2.0]])
    arguments = {
        np.searchsorted: (np.array([0.0, 1.0]), x), np.full_like: (x, 3.0), np.argwhere: (x,),
    }.get(function)  # fmt: skip
    if arguments is None:
        arguments = (x,) * (function.nin if isinstance(function, np.ufunc) else 1)
        if function in (
            np.isclose,
            np.allclose,
            np.array_equal,
            np.shares_memory,
            np.may_share_memory,
            np.array_equiv,
            np.isin,
        ):
            arguments = (x, x)
    result = function(*arguments)
    assert not isinstance(result, Tensor)
    np.testing.assert_equal(
        result, function(*map(value, arguments)) if function is not np.empty_like else result
    )


@pytest.mark.peers
@pytest.mark.parametrize(
    ("name", "arrays"),
    [("tanh", 1), ("exp", 1), ("log1p", 1), ("sqrt", 1), ("square", 1), ("maximum", 2), ("minimum", 2), ("multiply", 2),
     ("matmul", 2), ("divide", 2), ("expm1", 1), ("sin", 1), ("cos", 1), ("power", 2), ("outer", 2)],
)  # fmt: skip
def test_same_gradients_as_torch(name, arrays):
    import torch

    shape = (4,) if name == "outer" else (4, 4)
    inputs = [positive(shape) for _ in range(arrays)]
    ours = [Tensor(a) for a in inputs]
    theirs = [torch.tensor(a, requires_grad=True) for a in inputs]
    y = getattr(np, name)(*ours)
    w = RNG.standard_normal(y.shape)
    y.backward(w)
    getattr(torch, "pow" if name == "power" else name)(*theirs).backward(torch.tensor(w))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=1e-12)


@pytest.mark.peers
def test_same_kinks_as_torch():
    import torch

    ties = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    for ours, theirs in [
        (lambda x: np.max(x), lambda x: torch.amax(x)),
        (lambda x: np.min(x, axis=1), lambda x: torch.amin(x, dim=1)),
        (lambda x: np.abs(x - 2.0), lambda x: torch.abs(x - 2.0)),
        (lambda x: np.clip(x, 2.0, 3.0), lambda x: torch.clamp(x, 2.0, 3.0)),
        (
            lambda x: np.maximum(x, 2.0 * np.ones((2, 3))),
            lambda x: torch.maximum(x, 2.0 * torch.ones(2, 3, dtype=x.dtype)),
        ),
        (lambda x: np.linalg.norm(x * 0.0), lambda x: torch.linalg.vector_norm(x * 0.0)),
        (lambda x: np.var(x, axis=0, ddof=1), lambda x: torch.var(x, dim=0)),
    ]:
        a, b = Tensor(ties), torch.tensor(ties, requires_grad=True)
        y, z = ours(a), theirs(b)
        y.backward(np.ones(y.shape))
        z.backward(torch.ones_like(z))
        np.testing.assert_allclose(a.grad, b.grad.numpy(), atol=1e-12)


@every("dtype", ["int64", "int32", "uint8"])
@every("shape", [(1,), (7,), (3, 4), (2, 0), (300,)])
@every("rest", [(), (1,), (5,), (2, 3)])
def test_rows_that_are_picked_more_than_once_add_up(dtype, shape, rest):
    rng = np.random.default_rng(0)
    for n in (1, 2, 9):
        index = rng.integers(0 if dtype == "uint8" else -n, n, shape).astype(dtype)
        W, g = Tensor(rng.normal(size=(n, *rest))), rng.normal(size=(*shape, *rest))
        W[index].backward(g)
        expected = np.zeros((n, *rest))
        np.add.at(expected, index, g)
        np.testing.assert_allclose(W.grad, expected, rtol=1e-12, atol=1e-12)
