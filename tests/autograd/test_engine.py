"""The engine: the graph, its memory, its errors, and a Tensor as a Python object."""

import copy
import gc
import pickle
import tracemalloc
import weakref

import numpy as np
import pytest

import lora_np.autograd as ag
from lora_np.autograd import Tensor, check_derivative, derivative, primitive, value
from lora_np.autograd.tables import composition
from tests.drawing import FULL


def test_gradient_of_a_linear_model_by_hand():
    x, y = np.array([[1.0, 2.0]]), np.array([[3.0]])
    W = Tensor([[0.5, -1.0]])
    np.mean(np.square(x @ W.T - y)).backward()
    np.testing.assert_allclose(W.grad, 2 * (x @ W.data.T - y) * x)


def test_an_array_used_twice_gets_both_gradients():
    x = Tensor([2.0, 3.0])
    np.sum(x * x + x).backward()
    np.testing.assert_array_equal(x.grad, 2 * x.data + 1)


def test_gradients_accumulate_until_they_are_cleared():
    x = Tensor([1.0, 2.0])
    np.sum(3 * x).backward()
    np.sum(4 * x).backward()
    np.testing.assert_array_equal(x.grad, [7, 7])
    x.grad = None
    np.sum(3 * x).backward()
    np.testing.assert_array_equal(x.grad, [3, 3])


def test_two_inputs_of_an_addition_do_not_share_their_gradient():
    a, b = Tensor([1.0]), Tensor([2.0])
    np.sum(a + b).backward()
    a.grad += 5
    np.testing.assert_array_equal(b.grad, [1])


def test_a_shared_intermediate_is_walked_once_and_after_all_its_uses():
    calls = []
    noted = primitive(lambda a: a * 2, lambda y, a: lambda g: (calls.append(1), g * 2)[1])
    x = Tensor(3.0)
    h = noted(x)
    (h * h + np.exp(h) * h).backward()
    assert len(calls) == 1
    check_derivative(lambda a: (h := a * 2) * h + np.exp(h) * h, 0.3)


def test_backward_on_a_leaf_is_the_identity():
    x = Tensor(3.0)
    x.backward()
    assert x.grad == 1


def test_backward_with_a_gradient_of_ones_own():
    x = Tensor([1.0, 2.0])
    (x * 2).backward([1.0, 10.0])
    np.testing.assert_array_equal(x.grad, [2, 20])


def test_backward_needs_a_scalar_or_a_gradient():
    x = Tensor(np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"starts from a scalar, got shape \(3, 2\)"):
        (x * 2).backward()
    with pytest.raises(ValueError, match=r"must have the shape \(3, 2\), got \(2,\)"):
        (x * 2).backward([1.0, 2.0])


def test_second_backward_is_an_error_and_leaves_gradients_alone():
    x = Tensor([1.0, 2.0])
    h = np.square(x)
    loss = np.sum(h)
    loss.backward()
    with pytest.raises(RuntimeError, match="used by an earlier backward"):
        loss.backward()
    with pytest.raises(RuntimeError, match="used by an earlier backward"):
        np.sum(h + x).backward()
    np.testing.assert_array_equal(x.grad, [2, 4])


def test_a_tensor_without_influence_gets_no_gradient():
    x, unused = Tensor(1.0), Tensor(2.0)
    (x * 2).backward()
    assert unused.grad is None


# Frozen arrays


def test_frozen_arrays_stay_plain():
    x, W = np.ones((2, 3)), np.ones((4, 3))
    assert type(x @ W.T) is np.ndarray
    assert isinstance(x @ Tensor(W).T, Tensor)
    assert isinstance(Tensor(x) @ W.T, Tensor)
    assert isinstance(x + Tensor(x), Tensor)
    assert isinstance(2.0 - Tensor(x), Tensor)


def test_the_callers_array_is_copied():
    a = np.ones(2)
    x = Tensor(a)
    x.data += 1
    np.testing.assert_array_equal(a, [1, 1])


def test_value_stops_the_gradient():
    x = Tensor([1.0, 2.0])
    np.sum(x * value(x)).backward()
    np.testing.assert_array_equal(x.grad, [1, 2])


@pytest.mark.parametrize("scalar", [2, 2.0, True])
def test_python_scalars_do_not_lift_float32(scalar):
    x = Tensor(np.ones(3, dtype=np.float32))
    for y in (
        x * scalar,
        scalar + x,
        x / scalar,
        x**scalar,
        np.maximum(x, scalar),
        np.where(x > 0, x, scalar),
    ):
        assert y.dtype == np.float32
        np.sum(y).backward()
    assert x.grad.dtype == np.float32


def test_a_gradient_has_the_dtype_of_its_leaf():
    x = Tensor(np.ones(3, dtype=np.float32))
    np.sum(x * np.ones(3)).backward()  # a float64 constant lifts the result, not the leaf
    assert x.grad.dtype == np.float32


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        ([1, 2], np.float64),
        ([True], np.float64),
        (np.ones(2, np.float32), np.float32),
        (np.ones(2, np.float16), np.float16),
        (np.ones(2, np.longdouble), np.longdouble),
    ],
)
def test_dtypes(data, dtype):
    assert Tensor(data).dtype == dtype


@pytest.mark.parametrize("data", [[1j], ["a"], [None]])
def test_only_real_numbers(data):
    with pytest.raises(TypeError, match="data must hold real numbers, got dtype"):
        Tensor(data)


# Memory


def test_a_chain_of_20_000_operations():
    x = y = Tensor([1.0])
    for _ in range(20_000):
        y = y + 0.5
    y.backward()
    assert x.grad == 1


def test_a_long_chain_that_is_never_walked_is_freed_without_recursion():
    y = Tensor([1.0])
    for _ in range(200_000 if FULL else 50_000):
        y = np.tanh(y)
    del y


def test_additions_keep_no_values_alive():
    x = y = Tensor(np.zeros(125_000))
    tracemalloc.start()
    for _ in range(100):
        y = y + 1.0
    np.sum(y).backward()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6e6
    np.testing.assert_array_equal(x.grad, 1)


def test_memory_is_released_as_backward_walks():
    """Each step frees what it saved before the next runs: far fewer activations are alive at the
    end.
    """
    alive = []

    class Saved(np.ndarray):
        pass

    def forward(a):
        return a * 1.0

    def rule(y, a):
        saved = np.zeros(1).view(Saved)
        references.append(weakref.ref(saved))

        def pull(g):
            alive.append(sum(r() is not None for r in references) + 0 * saved.size)
            return g

        return pull

    references = []
    step = primitive(forward, rule)
    y = Tensor([1.0])
    for _ in range(10):
        y = step(y)
    y.backward()
    assert alive == list(range(10, 0, -1))


def test_no_reference_cycles():
    gc.collect()
    gc.disable()
    try:
        x = Tensor(np.ones((3, 3)))
        h = np.tanh(x @ x) + np.concatenate([x, x])[:3] + np.einsum("ij,jk->ik", x, x)
        loss = np.mean(np.square(h)) + np.max(h) + np.var(h)
        seen = [weakref.ref(t) for t in (h, loss)]
        loss.backward()
        del h, loss
        assert [r() for r in seen] == [None, None]
        assert gc.collect() == 0
    finally:
        gc.enable()


# What is refused, and how


def test_in_place_writes():
    x, a = Tensor([1.0, 2.0]), np.zeros(2)
    for write in [
        lambda: np.add(x, 1, out=a),
        lambda: np.add(x, 1, a),
        lambda: np.add(a, x, out=a),
        lambda: np.sum(x, out=a),
        lambda: np.sum(x, None, None, a),
        lambda: a.__iadd__(x),
        lambda: x.__setitem__(0, 1.0),
    ]:
        with pytest.raises(TypeError, match=r"write h = h \+ x instead of h\[i\] = x or out=h"):
            write()


def test_in_place_operators_bind_the_name_anew():
    x, loss = Tensor([1.0, 2.0]), 0.0
    for power in (1, 2, 3):
        loss += np.sum(x**power)
    loss *= 2
    loss -= 1
    loss /= 4
    assert loss.item() == (2 * (3 + 5 + 9) - 1) / 4
    loss.backward()
    np.testing.assert_array_equal(x.grad, (1 + 2 * x.data + 3 * x.data**2) / 2)
    h = x
    h += 1
    assert h is not x
    np.testing.assert_array_equal(x.data, [1, 2])


def test_a_result_that_is_not_real_is_refused():
    with pytest.raises(
        TypeError,
        match=r"np\.multiply: a Tensor holds real numbers, and the result has dtype complex",
    ):
        Tensor(2.0) * 1j


def test_silent_conversion():
    x = Tensor([1.0])
    for convert in [np.asarray, np.array, lambda t: np.array([t, t])]:
        with pytest.raises(TypeError, match=r"np\.stack\(\[x, y\]\).* pass lora_np\.value\(x\)"):
            convert(x)
    with pytest.raises(TypeError, match="Tensor"):
        float(x)
    with pytest.raises(ValueError, match="setting an array element"):
        np.zeros(1)[0] = x


def test_a_function_without_derivative_lists_what_to_do():
    with pytest.raises(TypeError) as caught:
        np.unwrap(Tensor([1.0]))
    message = str(caught.value)
    assert message.startswith("np.unwrap has no derivative here")
    for help_ in ("lora_np.value(x)", "derivative(np.unwrap, ...)"):
        assert help_ in message


def test_a_tensor_where_there_is_no_derivative_is_named():
    x = Tensor([1.0, 0.0])
    with pytest.raises(TypeError, match=r"np\.where: the argument condition"):
        np.where(x, 1.0, 2.0)
    with pytest.raises(TypeError, match=r"the argument index"):
        x[Tensor([0])]
    with pytest.raises(TypeError, match=r"use lora_np\.value\(x\)"):
        np.take(x, Tensor([0]))
    with pytest.raises(TypeError, match=r"np\.sum: the argument axis"):
        np.sum(x, axis=Tensor(0))


def test_tensors_inside_a_list_do_not_lose_their_gradient():
    x, a = Tensor([1.0, 2.0]), Tensor(3.0)
    total = primitive(lambda arrays: np.sum(arrays), lambda y, arrays: lambda g: g)
    for call, name in [
        (lambda: np.add(x, [a, 1.0]), r"join Tensors by np\.stack"),
        (lambda: np.maximum((a, a), x), r"join Tensors by np\.stack"),
        (lambda: x @ [a, [a]], r"join Tensors by np\.stack"),
        (lambda: np.concatenate([[a], x]), r"join Tensors by np\.stack"),
        (lambda: total([x, x]), r"join Tensors by np\.stack"),
        (lambda: x[(a,)], "the argument index has no derivative"),
        (lambda: np.where([a, 0.0], x, x), "the argument condition has no derivative"),
        (lambda: np.sum(x, axis=(a,)), "the argument axis has no derivative"),
    ]:
        with pytest.raises(TypeError, match=name):
            call()
    np.sum(x * [3.0, 4.0] + np.stack([a, a])).backward()
    assert x.grad.tolist() == [3, 4]
    assert a.grad == 2


def test_an_argument_that_the_derivative_does_not_cover_is_named():
    x = Tensor([1.0, 2.0])
    for call, name in [
        (lambda: np.sum(x, where=np.array([True, False])), "where"),
        (lambda: np.sum(x, 0, np.float32), "dtype"),
        (lambda: np.add(x, 1, dtype=np.float32), "dtype"),
        (lambda: np.max(x, initial=3.0), "initial"),
        (lambda: np.var(x, dtype=np.float32), "dtype"),
    ]:
        with pytest.raises(TypeError, match=name):
            call()


def test_ufunc_methods_point_to_the_function():
    with pytest.raises(TypeError, match=r"np\.add\.reduce has no derivative; use np\.sum"):
        np.add.reduce(Tensor([1.0]))


def test_matrix_norms_without_derivative():
    for ord in (1, 2, np.inf, "nuc"):
        with pytest.raises(TypeError, match="for the root of a sum of squares, not for ord="):
            np.linalg.norm(Tensor(np.ones((2, 2))), ord)


def test_numpys_own_errors_come_through():
    with pytest.raises(ValueError, match="matmul"):
        Tensor(np.ones((2, 3))) @ np.ones((2, 3))
    with pytest.raises(ValueError, match="equal to the number of operands"):
        np.einsum("ij,jk", Tensor(np.ones((2, 2))))


def test_keywords_and_positions_mean_the_same():
    x = Tensor(np.arange(6.0).reshape(2, 3))
    for y in (np.sum(a=x, axis=1), np.sum(x, 1), x.sum(1), x.sum(axis=1)):
        np.testing.assert_array_equal(y.data, [3, 12])
    np.testing.assert_array_equal(np.clip(a=x, a_min=1, a_max=2).data, np.clip(x.data, 1, 2))
    np.testing.assert_array_equal(np.transpose(axes=(1, 0), a=x).data, x.data.T)


# A Tensor as a Python object


def test_repr_and_formatting():
    assert repr(Tensor([1.0, 2.0])) == "Tensor([1., 2.])"
    assert repr(Tensor(np.ones(1, np.float32))) == "Tensor([1.], dtype=float32)"
    assert repr(Tensor([1.0]) * 2) == "Tensor([2.], from=np.multiply)"
    assert f"{np.mean(Tensor([1.0, 2.0])):.3f}" == "1.500"


def test_python_protocols():
    x = Tensor([[1.0, 2.0], [3.0, 4.0]])
    assert len(x) == 2
    assert [row.data.tolist() for row in x] == [[1, 2], [3, 4]]
    assert all(isinstance(row, Tensor) for row in x)
    assert x[0, 0].item() == 1.0
    assert Tensor(3.0)
    assert not Tensor([0.0])
    with pytest.raises(ValueError, match="ambiguous"):
        bool(x)
    with pytest.raises(TypeError, match="unsized"):
        len(Tensor(1.0))
    assert (x.shape, x.ndim, x.size, x.nbytes) == ((2, 2), 2, 4, 32)
    assert len({x: 1, Tensor(1.0): 2}) == 2
    np.testing.assert_array_equal(x > 2, [[False, False], [True, True]])


def test_iteration_carries_gradients():
    x = Tensor([1.0, 2.0, 3.0])
    sum(xi * i for i, xi in enumerate(x)).backward()
    np.testing.assert_array_equal(x.grad, [0, 1, 2])


def test_methods_forward_to_numpy():
    a = np.arange(12.0).reshape(3, 4) % 5
    x = Tensor(a)
    for name, args in [
        ("sum", (0,)), ("mean", ()), ("max", (1,)), ("min", (1,)), ("var", ()), ("std", (0,)), ("reshape", (2, 6)),
        ("ravel", ()), ("transpose", ()), ("swapaxes", (0, 1)), ("squeeze", ()), ("clip", (1, 3)), ("take", ([1, 2],)),
        ("trace", ()), ("diagonal", ()), ("flatten", ()), ("astype", (np.float32,)), ("copy", ()), ("prod", ()), ("all", ()),
        ("any", ()), ("round", (1,)), ("cumsum", (0,)), ("cumprod", (1,)), ("repeat", (2,)), ("argsort", ()), ("dot", (np.ones(4),)), ("argmax", (1,)), ("argmin", ()),
    ]:  # fmt: skip
        np.testing.assert_allclose(
            value(getattr(x, name)(*args)), getattr(a, name)(*args), err_msg=name
        )
    np.testing.assert_array_equal(x.T.data, a.T)
    np.testing.assert_array_equal(x.mT.data, a.T)


def test_leaves_pickle_and_copy_and_results_do_not():
    x = Tensor([1.0, 2.0])
    for y in (pickle.loads(pickle.dumps(x)), copy.copy(x), copy.deepcopy(x)):
        np.testing.assert_array_equal(y.data, x.data)
        assert not np.shares_memory(y.data, x.data)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"in a graph: copy or pickle lora_np\.value\(x\)"):
            attempt(x * 2)


# Adding to the tables


def test_a_class_adds_its_own_operation_in_one_line():
    softplus = primitive(lambda a: np.log1p(np.exp(a)), lambda y, a: lambda g: g / (1 + np.exp(-a)))
    check_derivative(softplus, np.linspace(-2, 2, 5))
    assert type(softplus(np.zeros(2))) is np.ndarray
    assert "softplus" not in ag.known()


def test_a_class_adds_a_row_for_numpy():
    with pytest.raises(TypeError, match=r"np\.sinc has no derivative"):
        np.sinc(Tensor([1.0]))
    derivative(np.sinc, lambda y, x: lambda g: g * (np.cos(np.pi * x) - y) / x)
    try:
        check_derivative(np.sinc, np.linspace(0.3, 2, 5), order=2)
    finally:
        del ag.tables.DERIVATIVES[np.sinc]


def test_a_composition_is_written_in_terms_of_others():
    @composition(np.trapezoid)
    def trapezoid(y, x=None, dx=1.0, axis=-1):
        return np.sum(y[1:] + y[:-1]) * dx / 2

    try:
        check_derivative(lambda y: np.trapezoid(y, dx=2.0), np.array([1.0, 4.0, 2.0]), order=2)
    finally:
        del ag.tables.COMPOSITIONS[np.trapezoid]


@pytest.mark.peers
def test_a_small_network_has_torchs_gradients():
    import torch

    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(6, 5)), np.array([0, 1, 2, 1, 0, 2])
    weights = [rng.normal(size=s) for s in [(8, 5), (8,), (3, 8)]]
    W1, b1, W2 = map(Tensor, weights)
    h = np.tanh(x @ W1.T + b1)
    logits = h @ W2.T
    shifted = logits - value(logits).max(axis=1, keepdims=True)
    loss = np.mean(np.log(np.sum(np.exp(shifted), axis=1)) - shifted[np.arange(6), labels])
    loss.backward()
    V1, c1, V2 = (torch.tensor(w, requires_grad=True) for w in weights)
    reference = torch.nn.functional.cross_entropy(
        torch.tanh(torch.tensor(x) @ V1.T + c1) @ V2.T, torch.tensor(labels)
    )
    reference.backward()
    assert loss.item() == pytest.approx(reference.item(), rel=1e-12)
    for ours, theirs in [(W1, V1), (b1, c1), (W2, V2)]:
        np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-10)
