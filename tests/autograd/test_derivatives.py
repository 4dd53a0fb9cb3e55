"""Every row of the tables obeys the law of derivatives, over shapes and broadcast pairs."""

import inspect
import operator

import numpy as np
import pytest

from lora_np.autograd import NOT_DIFFERENTIABLE, Tensor, affine, check_derivative, primitive, rules, value
from lora_np.autograd.tables import COMPOSITIONS, CONSTANTS, DERIVATIVES, name_of

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
    np.einsum: [(lambda *a, s=s: np.einsum(s, *a), tuple(matrix(*shape) for shape in shapes)) for s, *shapes in EINSUMS],
    np.sum: reductions(np.sum, matrix_of := lambda s: matrix(*s)),
    np.mean: reductions(np.mean, matrix_of),
    np.max: reductions(np.max, distinct),
    np.min: reductions(np.min, distinct),
    np.var: [
        *reductions(np.var, matrix_of),
        (lambda a: np.var(a, axis=0, ddof=1), (matrix(4, 3),)),
    ],
    np.std: reductions(np.std, matrix_of)[:5],
    np.linalg.norm: [
        (np.linalg.norm, (matrix(2, 3),)),
        (np.linalg.norm, (matrix(4),)),
        (lambda a: np.linalg.norm(a, axis=1, keepdims=True), (matrix(2, 3),)),
        (lambda a: np.linalg.norm(a, "fro", axis=(0, 2)), (matrix(2, 3, 2),)),
        (lambda a: np.linalg.norm(a, 1), (away_from_zero((4,)),)),
        (lambda a: np.linalg.norm(a, np.inf, axis=-1), (distinct((2, 4)),)),
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
    rules.put: [],  # through operator.getitem, at second order
    rules.einsum_of: [],  # through np.einsum
    rules.euclidean_norm: [],  # through np.linalg.norm
}  # fmt: skip

CASES = [
    pytest.param(f, args, id=f"{name_of(function)}-{i}")
    for function, examples in EXAMPLES.items()
    for i, (f, args) in enumerate(examples)
]


@pytest.mark.parametrize(("f", "args"), CASES)
def test_law_of_derivatives(f, args):
    check_derivative(f, *args)


@pytest.mark.parametrize(("f", "args"), CASES)
def test_second_order_law(f, args):
    check_derivative(f, *args, directions=1, order=2, tolerance=1e-5)


@pytest.mark.parametrize(("f", "args"), CASES)
def test_forward_pass_is_numpys(f, args):
    tensors = [Tensor(a) for a in args]
    np.testing.assert_allclose(value(f(*tensors)), f(*map(np.asarray, args)), rtol=1e-12)


@pytest.mark.parametrize(("f", "args"), CASES)
def test_float32_stays_float32(f, args):
    tensors = [Tensor(np.asarray(a, dtype=np.float32)) for a in args]
    y = f(*tensors)
    assert y.dtype == np.float32
    y.backward(np.ones_like(y.data))
    assert {t.grad.dtype for t in tensors if t.grad is not None} == {np.dtype(np.float32)}


SHIPPED = {
    f
    for f in (*DERIVATIVES, *COMPOSITIONS)
    if getattr(f, "__module__", "numpy").startswith("numpy") or isinstance(f, np.ufunc)
} | {affine, operator.getitem, rules.einsum_of, rules.euclidean_norm, rules.put}


def test_every_row_has_examples_of_its_own():
    missing = {name_of(f) for f in SHIPPED - set(EXAMPLES)} - {
        "np.sinh"
    }  # np.sinh: added by a docstring's example
    assert not missing


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

    product = primitive(lambda a, b, power=2: a**power * b, joint=joint)
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


@pytest.mark.parametrize("function", sorted(CONSTANTS, key=name_of), ids=name_of)
def test_constants_return_plain_arrays(function):
    x = Tensor([[1.0, -2.0]])
    arguments = {
        np.searchsorted: (np.array([0.0, 1.0]), x), np.full_like: (x, 3.0), np.argwhere: (x,),
    }.get(function)  # fmt: skip
    if arguments is None:
        arguments = (x,) * (function.nin if isinstance(function, np.ufunc) else 1)
        if function in (np.isclose, np.allclose, np.array_equal, np.shares_memory, np.may_share_memory):
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
