"""Examples for every row of the tables: arguments away from kinks and poles, over shapes and
broadcast pairs.
"""

import operator

import numpy as np

from lora_np.autograd import adapted_affine, affine, linear_algebra, plus_low_rank, rules
from lora_np.autograd.methods import astype

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
        for kw in [
            {},
            {"axis": 0},
            {"axis": -1, "keepdims": True},
            {"axis": (0, 2)},
            {"keepdims": True},
        ]
    ] + [(f, (make(()),)), (lambda a: f(a, 1), (make((2, 3)),))]


def matrix(*shape):
    return RNG.standard_normal(shape)


def between(low, high):
    return lambda shape: RNG.uniform(low, high, shape)


def well_conditioned(*shape):
    """Square matrices far from singular."""
    n = shape[-1]
    return np.diag(np.arange(1.0, n + 1)) + 0.2 * RNG.standard_normal(shape)


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
    # An axis of size 1 against a longer one, in every place: with an output axis, summed, alone, on
    # a diagonal
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
        # two cross
        (np.clip, (away_from_zero((4, 3)), np.array([1.7, 0.1, -0.3]), np.array([-0.2, -0.1, 0.2]))),
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
    np.einsum: [(lambda *a, s=s: np.einsum(s, *a), tuple(matrix(*shape) for shape in shapes)) for s, *shapes in EINSUMS],
    np.sum: reductions(np.sum, matrix_of := lambda s: matrix(*s)),
    np.mean: reductions(np.mean, matrix_of),
    np.max: reductions(np.max, distinct),
    np.min: reductions(np.min, distinct),
    np.var: [
        *reductions(np.var, matrix_of),
        (lambda a: np.var(a, axis=0, ddof=1), (matrix(4, 3),)),
        (lambda a: np.std(a, 0, None, None, 1), (matrix(4, 3),)),
    ],
    np.std: reductions(np.std, matrix_of)[:5],
    np.linalg.norm: [
        (np.linalg.norm, (matrix(2, 3),)),
        (np.linalg.norm, (matrix(4),)),
        (lambda a: np.linalg.norm(a, axis=1, keepdims=True), (matrix(2, 3),)),
        (lambda a: np.linalg.norm(a, "fro", axis=(0, 2)), (matrix(2, 3, 2),)),
        (lambda a: np.linalg.norm(a, 2, axis=-1), (matrix(2, 4),)),
        (lambda a: np.linalg.norm(a, "fro"), (matrix(3, 3),)),
        (lambda a: np.linalg.norm(a, axis=(2, 0), keepdims=True), (matrix(3, 2, 2),)),
        (lambda a: np.linalg.norm(a, keepdims=True), (matrix(3, 2),)),
    ],
    np.broadcast_to: [(lambda a: np.broadcast_to(a, (2, 4, 3)), (matrix(4, 1),)), (lambda a: np.broadcast_to(a, 3), (matrix(),))],
    np.reshape: [
        (lambda a: np.reshape(a, (3, -1)), (matrix(2, 6),)),
        (lambda a: a.reshape(4, 3), (matrix(2, 6),)),
        (lambda a: np.reshape(a, (3, 4), order="F"), (matrix(2, 6),)),
        (lambda a: np.reshape(a.T, (3, 4), order="A"), (matrix(2, 6),)),
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
    np.ravel: [(np.ravel, (matrix(2, 3),)), (lambda a: np.ravel(a.T, "A"), (matrix(2, 3),))],
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
    **{f: unary(f, away_from_zero) for f in (np.exp2, np.tan, np.arctan, np.sinh, np.cosh, np.arcsinh, np.fabs,
                                             np.deg2rad, np.rad2deg, np.radians, np.degrees)},
    **{f: unary(f, positive) for f in (np.log2, np.log10)},
    **{f: unary(f, between(-0.8, 0.8)) for f in (np.arcsin, np.arccos, np.arctanh)},
    np.arccosh: unary(np.arccosh, between(1.5, 2.5)),
    np.nan_to_num: [(np.nan_to_num, (matrix(2, 3),)), (lambda a: np.nan_to_num(a, nan=2.0), (matrix(3),))],
    np.copy: [(np.copy, (matrix(2, 3),)), (lambda a: a.copy(), (matrix(2, 3),))],
    astype: [(lambda a: a.astype(np.float32).astype(a.dtype) * 0 + a, (matrix(3),)), (lambda a: a.astype(a.dtype), (matrix(3),))],
    np.vecdot: [(np.vecdot, (matrix(*a), matrix(*b))) for a, b in [((3,), (3,)), ((2, 3), (3,)), ((4, 1, 3), (2, 3))]] +
               [(lambda a, b: np.vecdot(a, b, axis=0), (matrix(3, 2), matrix(3, 2)))],
    np.kron: [(np.kron, (matrix(*a), matrix(*b))) for a, b in [((2,), (3,)), ((2, 3), (3, 2)), ((2,), (3, 2)), ((2, 1, 3), (3, 2)), ((), (2, 3))]],
    np.prod: [*reductions(np.prod, away_from_zero), (np.prod, (np.array([2.0, 0.0, 3.0]),)), (np.prod, (np.array([0.0, 0.0, 3.0]),)),
              (lambda a: a.prod(0), (away_from_zero((5, 2)),)), (lambda a: np.prod(a, 0) + np.sum(a), (matrix(0, 2),))],
    np.cumsum: [(np.cumsum, (matrix(4),)), (np.cumsum, (matrix(2, 3),)), *((lambda a, i=i: np.cumsum(a, i), (matrix(2, 3),)) for i in (0, 1, -2)), (np.cumsum, (matrix(),))],
    np.cumprod: [(np.cumprod, (np.array([2.0, 0.0, 3.0, 0.0]),)), (np.cumprod, (matrix(2, 3),)), *((lambda a, i=i: np.cumprod(a, axis=i), (matrix(2, 3),)) for i in (0, -1))],
    np.diff: [(np.diff, (matrix(4),)), (lambda a: np.diff(a, 2, axis=0), (matrix(4, 2),)), (lambda a: np.diff(a, 0), (matrix(4),))],
    np.matrix_transpose: [(np.matrix_transpose, (matrix(2, 3, 4),))],
    np.atleast_1d: [(np.atleast_1d, (matrix(),)), (lambda a, b: np.atleast_1d(a, b)[0] * np.atleast_1d(a, b)[1], (matrix(), matrix(2)))],
    np.atleast_2d: [(np.atleast_2d, (matrix(*shape),)) for shape in [(), (3,), (2, 3)]],
    np.column_stack: [(lambda a, b: np.column_stack([a, b]), (matrix(3), matrix(3, 2)))],
    np.append: [(np.append, (matrix(2, 3), matrix(2))), (lambda a, b: np.append(a, b, axis=0), (matrix(2, 3), matrix(1, 3)))],
    np.array_split: [(lambda a: np.array_split(a, 3)[0] * np.array_split(a, 3)[2][0], (matrix(5, 2),)), (lambda a: np.array_split(a, 2, axis=1)[1], (matrix(2, 5),))],
    np.roll: [(lambda a: np.roll(a, 1), (matrix(2, 3),)), (lambda a: np.roll(a, (1, -1), axis=(0, 1)), (matrix(2, 3),))],
    np.rot90: [(np.rot90, (matrix(2, 3),)), (lambda a: np.rot90(a, 2, axes=(1, 2)), (matrix(2, 3, 4),))],
    np.fliplr: [(np.fliplr, (matrix(2, 3),))],
    np.flipud: [(np.flipud, (matrix(2, 3),))],
    np.flip: [(np.flip, (matrix(2, 3),)), (lambda a: np.flip(a, -1), (matrix(2, 3),)), (lambda a: np.flip(a, (0, 2)), (matrix(2, 3, 4),))],
    np.tile: [(lambda a: np.tile(a, 2), (matrix(3),)), (lambda a: np.tile(a, (2, 1, 3)), (matrix(2, 3),)), (lambda a: np.tile(a, (0, 2)), (matrix(3),))],
    np.repeat: [(lambda a: np.repeat(a, 2), (matrix(2, 3),)), (lambda a: a.repeat([1, 0, 2], axis=1), (matrix(2, 3),))],
    np.diag: [(np.diag, (matrix(3),)), (lambda a: np.diag(a, -1), (matrix(3),)), (np.diag, (matrix(2, 3),)), (lambda a: np.diag(a, 1), (matrix(3, 3),))],
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
    np.linalg.vector_norm: [(np.linalg.vector_norm, (matrix(2, 3),)), (lambda a: np.linalg.vector_norm(a, axis=1, keepdims=True), (matrix(2, 3),)),
                            (lambda a: np.linalg.vector_norm(a, axis=(0, 2)), (matrix(2, 3, 2),)),
                            (lambda a: np.linalg.vector_norm(a, axis=(0, -1), keepdims=True), (matrix(2, 3, 2),)), (lambda a: np.linalg.vector_norm(a, keepdims=True), (matrix(2, 3),))],
    np.linalg.matrix_norm: [(np.linalg.matrix_norm, (matrix(2, 3),)), (lambda a: np.linalg.matrix_norm(a, keepdims=True), (matrix(2, 3, 3),))],
    # by few rows; by many, with a small W and with one that is large beside A and B
    adapted_affine: [(adapted_affine, (matrix(n, k), matrix(d, k), matrix(r, k), matrix(d, r), matrix(), *b)) for n, d, k, r in ((5, 4, 3, 2), (9, 4, 3, 2), (24, 11, 12, 1)) for b in ((), (matrix(d),))],
    plus_low_rank: [(plus_low_rank, (matrix(5, 4), matrix(5, 3), matrix(2, 3), matrix(4, 2), matrix()))],
    rules.clipped: [],  # through np.clip
    linear_algebra.solve_columns: [],  # through np.linalg.solve
    rules.put: [],  # through operator.getitem, at second order
    rules.einsum_of: [],  # through np.einsum
    rules.euclidean_norm: [],  # through np.linalg.norm
}  # fmt: skip
