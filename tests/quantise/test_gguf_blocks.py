"""Products with quantised matrices, some rows at a time, and the same codes with a byte for
each.
"""

import tracemalloc
from itertools import product

import numpy as np
import pytest

import lora_np as lnp
from lora_np.quantise import KINDS, LAYOUTS, Blocks, quantise
from lora_np.quantise.gguf_blocks import Codes, encode_whole
from tests.drawing import every
from tests.rounding import assert_near


def of(kind, d, k, seed=0):
    """A matrix of this kind: any bytes, with scales that are usual numbers."""
    rng = np.random.default_rng(seed)
    if kind in KINDS:
        return quantise(rng.normal(size=(d, k)).astype(np.float32), kind)
    layout = LAYOUTS[kind]
    if layout.block.names is None:
        return Blocks(kind, np.zeros((d, k), layout.block) + layout.block.type(15), (d, k))
    raw = rng.integers(0, 256, (d, k // layout.entries, layout.block.itemsize), dtype=np.uint8)
    data = raw.view(layout.block)[..., 0]
    for name in layout.block.names:
        if layout.block[name].kind == "f":
            data[name] = rng.normal(size=data[name].shape)
    return Blocks(kind, data, (d, k))


@every("kind, piece", product(dict.fromkeys([*KINDS, *LAYOUTS]), [100, 2000, 2**18]))
def test_products_by_rows_are_those_of_the_whole(kind, piece, monkeypatch):
    monkeypatch.setattr("lora_np.quantise.weight.PIECE", piece)
    Q = of(kind, 7, 512)
    W = Q.dequantised().astype(float)
    small = max(np.abs(W).max(), 1) * 2e-4
    for n in (1, 3, 20):
        rng = np.random.default_rng(n)
        x, g = (
            rng.normal(size=(n, 512)).astype(np.float32),
            rng.normal(size=(n, 7)).astype(np.float32),
        )
        np.testing.assert_allclose(Q.product(x), x @ W.T, atol=small)
        np.testing.assert_allclose(Q.pulled(g), g @ W, atol=small)
        assert Q.product(x).dtype == Q.pulled(g).dtype == np.float32
        assert Q.product(x.astype(float)).dtype == float
    for index in (slice(2, 5), slice(None), slice(6, 7), np.array([6, 0, 0]), np.array([[1], [2]])):
        np.testing.assert_array_equal(Q.rows(index), Q.dequantised()[index])


@every("kind, piece", product(LAYOUTS, [100, 2**18]))
def test_a_byte_for_each_code_gives_the_same_numbers(kind, piece, monkeypatch):
    monkeypatch.setattr("lora_np.quantise.weight.PIECE", piece)
    Q = of(kind, 7, 512)
    E, W = Q.expanded(), Q.dequantised()
    if LAYOUTS[kind].block.names is None:  # a plain float
        assert E is Q
        return
    assert isinstance(E, Codes)
    assert E.shape == Q.shape
    assert E.codes.dtype == np.int8
    for index in (slice(None), slice(2, 5), np.array([6, 0]), np.array([[1], [2]])):
        np.testing.assert_array_equal(E.rows(index), W[index])
    small = max(np.abs(W).max(), 1) * 2e-4
    for n in (1, 3, 20):
        x = np.random.default_rng(n).normal(size=(n, 512)).astype(np.float32)
        np.testing.assert_allclose(E.product(x), x @ W.astype(float).T, atol=small)


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K", "Q4_1", "IQ4_XS", "nf4"])
def test_no_product_makes_a_copy_in_float32(kind):
    Q = of(kind, 4096, 1024)
    x = np.ones((2, 1024), np.float32)
    for multiply in (Q.product, lambda x: Q.pulled(x @ np.ones((1024, 4096), np.float32))):
        multiply(x)
        tracemalloc.start()
        multiply(x)
        peak = tracemalloc.get_traced_memory()[1] - (
            0 if multiply == Q.product else 4096 * 1024 * 4
        )
        tracemalloc.stop()
        assert peak < 4096 * 1024 * 4 / 2


@pytest.mark.parametrize("piece", [60, 2**18])
@pytest.mark.parametrize(("k", "kind"), [(50, "nf4"), (33, "int4"), (7, "nf4"), (129, "int4")])
def test_rows_may_begin_within_a_block_and_within_a_byte(kind, k, piece, monkeypatch):
    monkeypatch.setattr("lora_np.quantise.weight.PIECE", piece)
    rng = np.random.default_rng(k)
    for double in (False, True):
        Q = quantise(rng.normal(size=(13, k)).astype(np.float32), kind, double=double)
        W = Q.dequantised()
        for index in (slice(1, 2), slice(3, 9), slice(0, 13, 2), slice(12, 13), slice(4, 4)):
            np.testing.assert_array_equal(Q.rows(index), W[index])
        x = rng.normal(size=(2, k)).astype(np.float32)
        assert_near(Q.product(x), x @ W.T.astype(float))
        np.testing.assert_array_equal(Q.rows(np.arange(13)), W)


@pytest.mark.parametrize("kind", [*dict.fromkeys([*KINDS, *LAYOUTS])])
def test_an_adapter_on_any_kind_learns_as_on_the_numbers(kind):
    """Outputs, and the gradients of x, A and B, two layers deep."""
    Q = of(kind, 6, 512)
    rng = np.random.default_rng(1)
    first = rng.normal(size=(512, 3)).astype(np.float32) / np.abs(Q.dequantised()).max()
    found = []
    for W in (Q, Q.dequantised()):
        model = lnp.inject(
            lnp.Sequential([lnp.Linear(first), lnp.Linear(W)]), rank=2, alpha=2, rng=0
        )
        model = lnp.replace(
            model,
            lnp.Tensor,
            lambda path, t: lnp.Tensor(
                np.cos(np.arange(t.size, dtype=np.float32)).reshape(t.shape)
            ),
        )
        x = lnp.Tensor(
            rng.standard_normal((2, 5, 3), np.float32) if not found else found[0][0].copy()
        )
        y = model(x)
        np.sum(np.tanh(y * 0.1)).backward()
        found.append([x.data, y.data, x.grad, *(leaf.grad for _, leaf in lnp.trainable(model))])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-4 * np.abs(other).max())


def test_random_rounding_keeps_the_sign_of_the_largest_entry():
    """2.125 times the reciprocal of its scale is 127.00001 in single precision."""
    x = np.zeros((1, 32), np.float32)
    x[0, 0] = 2.125
    almost = np.full_like(x, 1 - 2**-24)
    assert encode_whole(x, LAYOUTS["Q8_0"].block, almost)["q"][0, 0] == 127
    assert encode_whole(-x, LAYOUTS["Q8_0"].block, almost)["q"][0, 0] == -127
