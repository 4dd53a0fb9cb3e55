"""Every row of the tables obeys the law of derivatives, over shapes and broadcast pairs."""

import inspect
from pathlib import Path

import numpy as np
import pytest

from lora_np.autograd import (
    NOT_DIFFERENTIABLE,
    Tensor,
    check_derivative,
    primitive,
    value,
)
from lora_np.autograd.tables import COMPOSITIONS, CONSTANTS, DERIVATIVES, name_of
from tests.autograd.examples import EXAMPLES, RNG, matrix, positive
from tests.drawing import every

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
    """Whether a rule or a definition is the package's own, not that of a docstring or another
    test.
    """
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
        rules = [
            getattr(r, "rule", r)
            for r in DERIVATIVES[function].rules
            if r is not NOT_DIFFERENTIABLE
        ]
        assert len({tuple(inspect.signature(r).parameters) for r in rules}) == 1, name_of(function)


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
    product(*(Tensor(a) if i in places else a for i, a in enumerate(arguments))).backward(
        np.ones((2, 3))
    )
    assert told == [(0 in places, 1 in places)]
    assert len(runs) == 1
    with pytest.raises(TypeError, match="power has no derivative"):
        product(*arguments, Tensor(2.0))


def test_clip_between_equal_bounds_does_not_move():
    x = Tensor(np.zeros(3))
    np.sum(np.clip(x, 0, 0)).backward()
    np.testing.assert_array_equal(x.grad, 0)


@pytest.mark.parametrize("optimize", [True, "greedy", "optimal", ["einsum_path", (1, 2), (0, 1)]])
def test_einsum_of_an_optimized_path(optimize):
    arrays = [matrix(2, 3), matrix(3, 4), matrix(4, 2)]
    check_derivative(
        lambda a, b, c: np.einsum("ij,jk,kl->l", a, b, c, optimize=optimize), *arrays, order=2
    )


def test_the_gradient_of_an_optimal_einsum_takes_no_search_of_its_own():
    from unittest import mock

    a, b = Tensor(matrix(2, 3)), matrix(3, 4)
    y = np.einsum("ij,jk->", a, b, optimize="optimal")
    with mock.patch.object(np, "einsum", wraps=np.einsum) as einsum:
        y.backward()
    assert [call.kwargs["optimize"] for call in einsum.call_args_list] == ["greedy"]


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


def test_arguments_that_cannot_carry_a_gradient_are_named():
    x = Tensor(np.ones((2, 3)))
    for call, message in [
        (lambda: np.roll(x, Tensor(1.0)), "np.roll differentiates its first argument"),
        (lambda: np.pad(x, 1, "mean"), "np.pad has no derivative for mode='mean'"),
        (lambda: np.einsum(x, [0, 1], x, [0, 1]), "for subscripts in a string"),
        (lambda: np.var(x, correction=1), "does not cover correction=1"),
        (lambda: np.std(x, dtype=np.float32), "does not cover dtype="),
        (lambda: np.concatenate([x, x], casting="unsafe"), "does not cover casting='unsafe'"),
        (lambda: np.sort(x, order="f"), "does not cover order='f'"),
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


def test_einsum_over_an_axis_of_size_one_sums_it():
    x, b = Tensor([1.0, 2.0]), Tensor([[3.0, 4.0]])
    np.einsum("ij,ij->", np.broadcast_to(x, (10, 2)), b).backward()
    np.testing.assert_array_equal(x.grad, [30, 40])
    np.testing.assert_array_equal(b.grad, [[10, 20]])


@pytest.mark.parametrize(
    "f", [lambda a, b: np.tensordot(a, b, 1), np.inner, np.dot, np.vdot, np.matmul]
)
def test_products_refuse_an_axis_of_size_one_as_numpy_does(f):
    for a, b in [((10,), (1,)), ((1,), (10,))]:
        with pytest.raises(ValueError, match=r"mismatch|aligned"):
            f(Tensor(np.ones(a)), np.ones(b))


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


@every("dtype", ["int64", "int32", "uint8", "int8"])
@every("shape", [(1,), (7,), (3, 4), (2, 0), (300,)])
@every("rest", [(), (1,), (5,), (2, 3)])
def test_rows_that_are_picked_more_than_once_add_up(dtype, shape, rest):
    rng = np.random.default_rng(0)
    limits = np.iinfo(dtype)
    for n in (1, 2, 9, 300):
        index = rng.integers(max(-n, limits.min), min(n, limits.max), shape).astype(dtype)
        W, g = Tensor(rng.normal(size=(n, *rest))), rng.normal(size=(*shape, *rest))
        W[index].backward(g)
        expected = np.zeros((n, *rest))
        np.add.at(expected, index, g)
        np.testing.assert_allclose(W.grad, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_a_kink_has_slope_zero_whatever_follows():
    x, z = Tensor(0.0), Tensor(0.0)
    np.arctan2(x, z).backward()
    assert (x.grad, z.grad) == (0, 0)
    for f in (np.std, np.linalg.norm):
        x = Tensor([0.0, 0.0])
        (f(x) ** 0.5).backward()  # whose own slope is infinite
        np.testing.assert_array_equal(x.grad, [0, 0])
