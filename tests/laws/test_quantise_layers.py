"""A quantised weight as a leaf: layers compute with its numbers, nothing trains it, and it counts
with its bytes.
"""

import tracemalloc

import numpy as np
import pytest

from lora_np import Linear, Sequential, Tensor, adapters, fit, inject, merge
from lora_np.accounting import count
from lora_np.autograd import check_derivative
from lora_np.nn import Activation, AdamW, Embedding, freeze, leaves, replace, trainable
from lora_np.quantise import KINDS, Quantised, quantise
from tests.drawing import every
from tests.rounding import assert_near, in_double


def layer(kind, d=6, k=None, seed=0, bias=True):
    rng, k = np.random.default_rng(seed), k or (256 if kind.endswith("_K") else 32)
    W = rng.normal(size=(d, k)).astype(np.float32)
    return Linear(quantise(W, kind), rng.normal(size=d).astype(np.float32) if bias else None)


def dense(model):
    """The same model with plain arrays in the place of quantised weights."""
    return replace(model, Quantised, lambda path, Q: Q.dequantised())


@every("kind", KINDS)
@every("shape", [(32,), (4, 32), (2, 3, 32)])
@every("bias", [False, True])
def test_a_linear_layer_computes_what_it_would_with_the_numbers(kind, shape, bias):
    linear = layer(kind, bias=bias)
    x = np.random.default_rng(1).normal(size=(*shape[:-1], linear.W.shape[1])).astype(np.float32)
    np.testing.assert_array_equal(linear(x), dense(linear)(x))
    ours, theirs = Tensor(x), Tensor(x)
    np.sum(np.tanh(linear(ours))).backward()
    np.sum(np.tanh(dense(linear)(theirs))).backward()
    np.testing.assert_array_equal(ours.grad, theirs.grad)


def test_the_bias_of_a_quantised_layer_can_be_trained():
    linear = Linear(layer("nf4").W, Tensor(np.zeros(6, np.float32)))
    x = np.ones((3, 32), np.float32)
    np.sum(linear(x) ** 2).backward()
    assert [path for path, _ in trainable(linear)] == ["b"]
    np.testing.assert_allclose(linear.b.grad, 2 * linear(x).data.sum(0), rtol=1e-6)


def test_the_derivative_law_holds():
    W = layer("Q8_0").W
    check_derivative(
        lambda x, b: Linear(W, b)(x), np.random.default_rng(0).normal(size=(3, 32)), np.ones(6)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_embedding_gives_the_rows(kind):
    table = Embedding(layer(kind).W)
    tokens = np.array([[0, 5, 5], [2, 1, 0]])
    np.testing.assert_array_equal(table(tokens), table.W.dequantised()[tokens])
    with pytest.raises(ValueError, match="tokens must be between 0 and 5"):
        table(np.array([6]))


def test_it_is_a_leaf_once_however_often_it_occurs():
    W = layer("nf4").W
    model = Sequential([Embedding(W), Linear(W)])
    assert leaves(model) == [("layers.0.W = layers.1.W", W)]
    assert not trainable(model)
    assert freeze(model) is model
    rewritten = replace(model, Quantised, lambda path, Q: Q.dequantised())
    assert rewritten.layers[0].W is rewritten.layers[1].W


def test_it_counts_with_its_bytes():
    model = inject(Sequential([layer("nf4", d=64, k=64, bias=False)]), rank=2, rng=0)
    found = count(model)
    assert (found.total, found.trainable) == (64 * 64 + 2 * 128, 2 * 128)
    assert found.nbytes == 64 * 64 // 2 + 4 * 64 + 4 * 2 * 128
    assert "Some weights are quantised; in total 3.25 KiB." in str(found)


def test_a_bias_or_a_vector_is_not_quantised():
    with pytest.raises(TypeError, match="b must be an ndarray"):
        Linear(np.ones((6, 32)), layer("nf4").W)


@pytest.mark.parametrize("kind", ["nf4", "int8", "Q4_1"])
def test_qlora_trains_as_lora_does_on_the_numbers(kind):
    rng = np.random.default_rng(0)
    base = Sequential([layer(kind, d=32), Activation(np.tanh), layer(kind, seed=1)])
    x, y = rng.normal(size=(40, 32)).astype(np.float32), rng.normal(size=(40, 6)).astype(np.float32)
    settings = {"optimizer": AdamW(lr=1e-2), "steps": 20}
    ours = fit(inject(base, rank=2, rng=1), x, y, **settings)
    theirs = fit(inject(dense(base), rank=2, rng=1), x, y, **settings)
    exact = fit(in_double(inject(dense(base), rank=2, rng=1)), x.astype(float), y, **settings)
    for found in (ours, theirs):
        assert_near(np.array(found.history.loss), np.array(exact.history.loss))
    assert ours.history.loss[-1] < 0.9 * ours.history.loss[0]
    assert [a for _, a in leaves(ours.model) if isinstance(a, Quantised)] == [
        W for _, W in leaves(base)[::2]
    ]
    merged = merge(ours.model)
    for found in (merged, freeze(ours.model)):
        assert_near(found(x), in_double(merged)(x.astype(float)))


def test_a_single_layer_is_trained_too():
    x = np.random.default_rng(0).normal(size=(40, 32)).astype(np.float32)
    y = x[:, :6].copy()
    losses = fit(
        inject(layer("nf4"), rank=2, rng=1), x, y, steps=30, optimizer=AdamW(lr=1e-2)
    ).history.loss
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "variant", ["lora", "rslora", "lora+", "lora-fa", "dora", "pissa", "olora"]
)
def test_every_variant_starts_on_a_quantised_base(variant):
    base = layer("nf4")
    x = np.random.default_rng(0).normal(size=(4, 32)).astype(np.float32)
    start = freeze(inject(base, rank=2, rng=0, variant=variant))
    for found in (start, base):
        assert_near(found(x), in_double(dense(base))(x.astype(float)))


def test_an_adapter_of_a_quantised_model_is_saved_and_attached(tmp_path):
    base = Sequential([layer("nf4", d=32), layer("nf4", seed=1)])
    model = replace(inject(base, rank=2, rng=1), Tensor, lambda path, a: Tensor(a.data + 0.1))
    adapters.save(model, tmp_path / "adapter")
    again = adapters.attach(base, adapters.load(tmp_path / "adapter"))
    x = np.ones((2, 32), np.float32)
    np.testing.assert_array_equal(freeze(again)(x), freeze(model)(x))
    assert again.layers[0].base.W is base.layers[0].W


def test_only_one_layer_is_dequantised_at_a_time():
    d = 512
    quantised = quantise(np.random.default_rng(0).normal(size=(d, d)), "nf4")
    model = inject(Sequential([Linear(quantised) for _ in range(12)]), rank=2, rng=0)
    x = np.ones((1, d), np.float32)
    tracemalloc.start()
    np.sum(model(x)).backward()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 4 * d * d  # one matrix in float32, its codes and what it takes to decode them
