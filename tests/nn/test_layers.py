"""Layers compute their equations, in the dtype of their arrays."""

import numpy as np
import pytest

import lora_np as lnp
from lora_np import Activation, Linear, Sequential, Tensor, value
from lora_np.autograd import check_derivative
from lora_np.nn import dropout, gelu, relu, sigmoid, softmax

RNG = np.random.default_rng(3)


def test_linear_is_its_equation_row_by_row():
    W, b, x = RNG.normal(size=(4, 3)), RNG.normal(size=4), RNG.normal(size=(5, 3))
    np.testing.assert_allclose(Linear(W, b)(x), [W @ row + b for row in x])
    assert (Linear(W).d_out, Linear(W).d_in) == (4, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_init_is_bounded_trainable_and_of_the_dtype(dtype):
    layer = Linear.init(d_out=50, d_in=100, rng=RNG, bias=True, dtype=dtype)
    assert isinstance(layer.W, Tensor)
    assert layer.W.dtype == layer.b.dtype == dtype
    assert 0.09 < np.abs(layer.W.data).max() <= 0.1
    assert not layer.b.data.any()


def test_init_is_reproducible():
    a, b = (Linear.init(d_out=5, d_in=4, rng=np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(a.W.data, b.W.data)


@pytest.mark.parametrize(("W", "b", "match"), [
    (np.ones(3), None, r"W must be a matrix \(d, k\), got shape \(3,\)"),
    (np.ones((2, 3)), np.ones(3), r"b must have shape \(2,\)"),
])  # fmt: skip
def test_shapes_that_do_not_fit(W, b, match):
    with pytest.raises(ValueError, match=match):
        Linear(W, b)


@pytest.mark.parametrize(
    ("size", "error"), [(0, ValueError), (-1, ValueError), (2.5, TypeError), (True, TypeError)]
)
def test_sizes_that_are_none(size, error):
    with pytest.raises(error, match="d_out must be"):
        Linear.init(d_out=size, d_in=3, rng=RNG)


@pytest.mark.parametrize("f", [relu, sigmoid, gelu, softmax])
def test_activations_obey_the_law_and_keep_float32(f):
    x = RNG.normal(size=(4, 5))
    check_derivative(f, x)
    assert f(x.astype(np.float32)).dtype == np.float32
    assert Activation(f)(Tensor(x.astype(np.float32))).dtype == np.float32


def test_relu_at_zero_has_derivative_zero():
    x = Tensor([0.0])
    relu(x).backward()
    assert x.grad == 0


def test_softmax_sums_to_one_and_does_not_overflow():
    np.testing.assert_allclose(softmax(1e4 * RNG.normal(size=(3, 4))).sum(axis=-1), 1)


def test_sequential_passes_randomness_on():
    class Noted:
        def __call__(self, x, *, rng=None):
            return x + (1 if rng is not None else 0)

    model = Sequential([Noted(), Noted()])
    assert model(0) == 0
    assert model(0, rng=RNG) == 2


def test_dropout_keeps_the_mean_and_the_dtype():
    x = np.ones((200, 500), dtype=np.float32)
    y = dropout(x, 0.3, rng=np.random.default_rng(0))
    assert y.dtype == np.float32
    assert abs((y == 0).mean() - 0.3) < 0.01
    assert abs(y.mean() - 1) < 0.01
    assert dropout(x, 0.3, rng=None) is x
    assert dropout(x, 0.0, rng=np.random.default_rng(0)) is x


def test_dropout_carries_gradients_through_what_it_kept():
    x = Tensor(np.ones(1000))
    y = dropout(x, 0.5, rng=np.random.default_rng(0))
    np.sum(y).backward()
    np.testing.assert_array_equal(x.grad, value(y))


@pytest.mark.parametrize("rate", [1.0, -0.1])
def test_dropout_has_a_rate_below_one(rate):
    for rng in (RNG, None):
        with pytest.raises(ValueError, match=f"rate must be at least 0 and below 1, got {rate}"):
            dropout(np.ones(3), rate, rng=rng)


def test_lists_are_as_good_as_arrays():
    layer = lnp.Linear(np.array([[1.0, 2.0]]))
    assert layer([[3.0, 4.0]]).tolist() == [[11.0]]
    assert lnp.inject(layer, rank=1, rng=0)([[3.0, 4.0]]).data.tolist() == [[11.0]]
