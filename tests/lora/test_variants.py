"""Variants: each starts where the base model is, computes its paper's equation, merges, and
trains.
"""

import numpy as np
import pytest

import lora_np as lnp
from lora_np.autograd import check_derivative
from lora_np.files import FileError
from lora_np.lora import (
    VARIANTS,
    DoRALinear,
    LoRAEmbedding,
    adapter_leaves,
    lora_plus,
    rebase,
)
from lora_np.nn import Embedding, Groups, walk
from tests.rounding import assert_near, in_double


def network(dtype=np.float64):
    rng = np.random.default_rng(0)
    return lnp.Sequential([
        lnp.Linear.init(d_out=8, d_in=6, rng=rng, bias=True, dtype=dtype),
        lnp.Activation(np.tanh),
        lnp.Linear.init(d_out=5, d_in=8, rng=rng, dtype=dtype),
    ])  # fmt: skip


def trained(model, x, steps=20, **settings):
    y = np.random.default_rng(9).normal(size=(len(x), 5)).astype(x.dtype)
    return lnp.fit(model, x, y, steps=steps, progress=False, **settings).model


def gradients(base):
    rng = np.random.default_rng(4)
    pairs = [(path, node) for path, node in walk(base) if isinstance(node, lnp.Linear)]
    return {path: rng.normal(size=layer.W.shape).astype(layer.W.dtype) for path, layer in pairs}


X = np.random.default_rng(1).normal(size=(40, 6))


# loftq is for few bits, and lora-one starts a step away
@pytest.mark.parametrize("variant", sorted({*VARIANTS} - {"loftq", "lora-one"}))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_starts_at_the_base_trains_and_merges(variant, dtype):
    base, x = network(dtype), X.astype(dtype)
    rank, rng = 2 if variant == "lora-ga" else 3, np.random.default_rng(2)
    tuned = lnp.inject(
        base, rank=rank, alpha=6, variant=variant, rng=rng, gradients=gradients(base)
    )
    eps = np.finfo(dtype).eps
    wide = in_double(base)(x.astype(float))
    for found in (tuned, base):
        assert_near(found(x), wide, unit=eps)
    model = trained(tuned, x)
    merged = lnp.merge(model)
    assert not lnp.trainable(merged)
    assert all(isinstance(layer, (lnp.Linear, lnp.Activation)) for layer in merged.layers)
    for found in (merged, model):
        assert_near(found(x), in_double(model)(x.astype(float)), unit=eps)
    assert np.abs(merged(x) - lnp.value(base(x))).max() > 0.01
    assert {lnp.value(a).dtype for _, a in lnp.leaves(merged)} == {np.dtype(dtype)}


@pytest.mark.parametrize("variant", sorted({*VARIANTS} - {"loftq"}))  # which is for few bits
def test_what_is_trained(variant):
    layer = lnp.Linear(np.random.default_rng(0).normal(size=(4, 6)))
    tuned = lnp.inject(
        layer, rank=2, variant=variant, rng=np.random.default_rng(0), gradients=gradients(layer)
    )
    names = {path.split(".")[-1] for path, _ in lnp.trainable(tuned)}
    assert names == {"lora-fa": {"B"}, "dora": {"A", "B", "m"}, "lora-xs": {"R"}}.get(
        variant, {"A", "B"}
    )
    assert {path.split(".")[-1] for path, _ in adapter_leaves(tuned)} == names | {"A", "B"}


def test_rslora_is_scaled_by_the_root_of_r():
    tuned = lnp.inject(
        lnp.Linear(np.zeros((9, 9))),
        rank=9,
        alpha=6,
        variant="rslora",
        rng=np.random.default_rng(0),
    )
    assert tuned.scale == pytest.approx(6 / 3)


def test_pissa_holds_the_leading_singular_triplets():
    W0 = np.random.default_rng(0).normal(size=(7, 5))
    tuned = lnp.inject(
        lnp.Linear(W0), rank=2, alpha=8, variant="pissa", rng=np.random.default_rng(0)
    )
    s = np.linalg.svd(W0, compute_uv=False)
    np.testing.assert_allclose(np.linalg.svd(tuned.delta(), compute_uv=False)[:2], s[:2])
    np.testing.assert_allclose(np.linalg.svd(tuned.base.W, compute_uv=False)[:3], s[2:])
    np.testing.assert_allclose(
        np.linalg.norm(tuned.B.data, axis=0), np.linalg.norm(tuned.A.data, axis=1)
    )


def test_olora_starts_with_orthonormal_columns():
    W0 = np.random.default_rng(0).normal(size=(7, 5))
    tuned = lnp.inject(lnp.Linear(W0), rank=2, variant="olora", rng=np.random.default_rng(0))
    np.testing.assert_allclose(tuned.B.data.T @ tuned.B.data, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(np.tril(tuned.A.data, -1), 0, atol=1e-12)


def test_starts_along_the_first_gradient():
    W0, G = (np.random.default_rng(seed).normal(size=(9, 7)) for seed in (0, 1))
    U, S, Vh = np.linalg.svd(G, full_matrices=False)
    settings = {"rank": 2, "alpha": 6, "gradients": {"": G}}
    one = lnp.inject(lnp.Linear(W0), variant="lora-one", **settings)
    np.testing.assert_allclose(one.delta(), -3 * (U[:, :2] * S[:2]) @ Vh[:2] / (128 * S[0]))
    assert one.base.W is W0
    ga = lnp.inject(lnp.Linear(W0), variant="lora-ga", **settings)
    for factor, vectors in [(ga.A.data, Vh[:2]), (ga.B.data.T, U[:, 2:4].T)]:
        np.testing.assert_allclose(np.abs(factor @ vectors.T), np.eye(2) * 9**0.25 / 4, atol=1e-12)
    np.testing.assert_allclose(ga.base.W + ga.delta(), W0)
    for variant in ("lora-one", "lora-ga"):  # gradients may be in another dtype than the weight
        half = lnp.inject(lnp.Linear(W0.astype(np.float32)), variant=variant, **settings)
        assert half(np.ones((1, 7), np.float32)).dtype == np.float32
    with pytest.raises(ValueError, match="pass gradients="):
        lnp.inject(lnp.Linear(W0), rank=2, variant="lora-ga")
    with pytest.raises(ValueError, match=r"of shape \(9, 7\), got \(7, 9\)"):
        lnp.inject(lnp.Linear(W0), rank=2, variant="lora-one", gradients={"": G.T})


def test_lora_xs_and_hira_compute_their_equations_and_are_not_saved_as_lora(tmp_path):
    rng = np.random.default_rng(0)
    W0, b, x = rng.normal(size=(9, 7)), rng.normal(size=9), rng.normal(size=(5, 7))
    U, S, Vh = np.linalg.svd(W0, full_matrices=False)
    for variant in ("lora-xs", "hira"):
        tuned = lnp.inject(lnp.Linear(W0, b), rank=2, alpha=6, variant=variant, rng=0)
        moved = lnp.replace(tuned, lnp.Tensor, lambda path, a: lnp.Tensor(rng.normal(size=a.shape)))
        if variant == "lora-xs":
            W = W0 + 3 * (U[:, :2] * S[:2]) @ moved.R.data @ Vh[:2]
        else:
            W = W0 + W0 * (3 * moved.B.data @ moved.A.data)
            assert np.linalg.matrix_rank(lnp.merge(moved).W - W0) > 2
        np.testing.assert_allclose(moved(x).data, x @ W.T + b)
        np.testing.assert_allclose(lnp.merge(moved)(x), x @ W.T + b)
        with pytest.raises(FileError, match="no adapter file can express"):
            lnp.adapters.save(moved, tmp_path / variant)


def test_doras_equation_and_its_constant_norm():
    rng = np.random.default_rng(0)
    W0, A, B, m, b, x = (rng.normal(size=s) for s in [(4, 6), (2, 6), (4, 2), 4, 4, (7, 6)])
    V = W0 + 1.5 * B @ A
    norm = np.linalg.norm(V, axis=1)

    def layer(A, B, m, b):
        return DoRALinear(lnp.LoRALinear(lnp.Linear(W0), A, B, alpha=3.0), m, b)

    np.testing.assert_allclose(layer(A, B, m, b)(x), x @ (V * (m / norm)[:, None]).T + b)
    # With the norm held constant the layer is linear in B; its gradient is that of this map.
    tensors = [lnp.Tensor(a) for a in (A, B, m, b)]
    np.sum(np.square(layer(*tensors)(x))).backward()
    fixed = [lnp.Tensor(a) for a in (A, B, m, b)]
    h = x @ W0.T + (x @ fixed[0].T) @ fixed[1].T * 1.5
    np.sum(np.square(h * (fixed[2] / norm) + fixed[3])).backward()
    for ours, theirs in zip(tensors, fixed, strict=True):
        np.testing.assert_allclose(ours.grad, theirs.grad, rtol=1e-10)


@pytest.mark.parametrize("b", [None, np.array([1.0, -1.0, 2.0])])
def test_a_merged_dora_keeps_the_bias_of_b(b):
    rng = np.random.default_rng(0)
    W0, A, B, c, m, x = (rng.normal(size=s) for s in [(3, 4), (2, 4), (3, 2), 3, 3, (5, 4)])
    layer = DoRALinear(lnp.LoRALinear(lnp.Linear(W0), A, B, alpha=3.0, c=c), m, b)
    np.testing.assert_allclose(layer.merged()(x), layer(x))


def test_dora_refuses_a_bias_in_the_wrong_place():
    inner = lnp.LoRALinear(
        lnp.Linear(np.eye(2), np.ones(2)), np.ones((1, 2)), np.ones((2, 1)), alpha=1.0
    )
    with pytest.raises(ValueError, match="must not have a b"):
        DoRALinear(inner, np.ones(2))
    plain = lnp.LoRALinear(lnp.Linear(np.eye(2)), np.ones((1, 2)), np.ones((2, 1)), alpha=1.0)
    with pytest.raises(ValueError, match=r"m must have shape \(2,\), got \(3,\)"):
        DoRALinear(plain, np.ones(3))


@pytest.mark.parametrize("variant", ["pissa", "olora"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_delta_against_the_original(variant, dtype):
    base = lnp.freeze(network(dtype))
    tuned = lnp.inject(base, rank=2, alpha=4, variant=variant, rng=np.random.default_rng(3))
    model = trained(tuned, X.astype(dtype))
    moved = rebase(model, base)
    for path, layer in zip([0, 2], [moved.layers[0], moved.layers[2]], strict=True):
        assert layer.base.W is base.layers[path].W
        assert layer.rank == 4
    for found in (moved, lnp.merge(model)):
        assert_near(found(X), in_double(model)(X), unit=np.finfo(dtype).eps)


def test_a_delta_against_another_model_is_refused():
    tuned = lnp.inject(network(), rank=2, variant="pissa", rng=np.random.default_rng(3))
    rng = np.random.default_rng(5)
    other = lnp.replace(network(), lnp.Tensor, lambda path, a: rng.normal(size=a.shape))
    with pytest.raises(
        ValueError, match=r"'layers.0' differs from the original by more than rank 2"
    ):
        rebase(tuned, other)
    with pytest.raises(ValueError, match=r"no Linear layer like 'layers.0'"):
        rebase(tuned, lnp.Linear(np.eye(6)))


def test_embedding():
    rng = np.random.default_rng(0)
    W0, A, B = rng.normal(size=(9, 4)), rng.normal(size=(2, 9)), rng.normal(size=(4, 2))
    tokens = np.array([[1, 8], [1, 0]])
    layer = LoRAEmbedding(Embedding(W0), A, B, alpha=4.0)
    np.testing.assert_allclose(layer(tokens), (W0 + 2 * (B @ A).T)[tokens])
    np.testing.assert_allclose(layer.merged()(tokens), layer(tokens))
    check_derivative(lambda A, B: LoRAEmbedding(Embedding(W0), A, B, alpha=4.0)(tokens), A, B)
    check_derivative(lambda W: Embedding(W)(tokens), W0)


def test_inject_leaves_embeddings_alone_unless_asked():
    model = lnp.Sequential(
        [Embedding(np.random.default_rng(0).normal(size=(9, 4))), lnp.Linear(np.eye(4))]
    )
    tokens = np.array([3, 3, 7])
    plain = lnp.inject(model, rank=2, rng=np.random.default_rng(0))
    assert isinstance(plain.layers[0], Embedding)
    both = lnp.inject(model, rank=2, targets=lambda path, layer: True, rng=np.random.default_rng(0))
    assert isinstance(both.layers[0], LoRAEmbedding)
    np.testing.assert_array_equal(lnp.value(both(tokens)), model(tokens))
    y = np.zeros((3, 4))
    result = lnp.fit(both, tokens, y, steps=30, progress=False)
    assert result.history.loss[-1] < result.history.loss[0]
    np.testing.assert_allclose(lnp.merge(result.model)(tokens), lnp.value(result.model(tokens)))
    # Tokens that never occurred have not moved.
    np.testing.assert_array_equal(lnp.merge(result.model).layers[0].W[1], model.layers[0].W[1])


@pytest.mark.parametrize(("tokens", "error", "match"), [
    ([0.5], TypeError, "whole numbers, got dtype float64"),
    ([9], ValueError, "between 0 and 8, got 9"),
    ([-1], ValueError, "between 0 and 8, got -1"),
])  # fmt: skip
def test_tokens_that_are_none(tokens, error, match):
    with pytest.raises(error, match=match):
        Embedding(np.zeros((9, 4)))(np.array(tokens))


@pytest.mark.parametrize(("bias", "expected"), [
    ("none", set()), ("lora_only", {"layers.0.base.b"}), ("all", {"layers.0.base.b", "layers.2.b"}),
])  # fmt: skip
def test_bias(bias, expected):
    rng = np.random.default_rng(0)
    model = lnp.Sequential([
        lnp.Linear.init(d_out=3, d_in=6, bias=True, rng=rng), lnp.Activation(np.tanh),
        lnp.Linear.init(d_out=5, d_in=3, bias=True, rng=rng),
    ])  # fmt: skip
    tuned = lnp.inject(
        model, rank=1, targets=lambda path, layer: path == "layers.0", bias=bias, rng=rng
    )
    biases = {path for path, _ in lnp.trainable(tuned) if path.endswith("b")}
    assert biases == expected
    fitted = trained(tuned, X)
    assert bool(expected) == bool(np.any(lnp.value(fitted.layers[0].base.b) != 0))
    np.testing.assert_allclose(lnp.merge(fitted)(X), lnp.value(fitted(X)), atol=1e-12)


def test_lora_plus_gives_b_a_larger_step():
    tuned = lnp.inject(network(), rank=2, rng=np.random.default_rng(0))
    before = dict(lnp.trainable(tuned))
    model = trained(tuned, X, steps=1, optimizer=lora_plus(lnp.Adam(lr=1e-3), ratio=10))
    moved = {
        path: np.abs(leaf.data - before[path].data).max() for path, leaf in lnp.trainable(model)
    }
    # Adam's first step has the length of its rate, and A has no gradient yet.
    assert moved["layers.0.B"] == pytest.approx(1e-2, rel=1e-4)
    assert moved["layers.0.A"] == 0
    schedule = lora_plus(lnp.AdamW(lr=lnp.cosine_schedule(0.1, steps=10)), ratio=2).of("B").lr
    assert schedule(0) == pytest.approx(0.2)
    nested = lora_plus(Groups({r"layers\.0\..*": lnp.SGD(lr=1.0), ".*": lnp.SGD(lr=2.0)}), ratio=3)
    assert [nested.of(p).lr for p in ("layers.0.A", "layers.0.B", "layers.2.B")] == [1.0, 3.0, 6.0]


@pytest.mark.parametrize(("settings", "error", "match"), [
    ({"variant": "dorra"}, ValueError, r"variant must be one of 'lora', .*got 'dorra' \(did you mean 'dora'\?\)"),
    ({"bias": "lora"}, ValueError, "bias must be one of 'none', 'lora_only', 'all', got 'lora'"),
    ({"variant": "pissa", "rank": 9}, ValueError, r"rank must be between 1 and min\(d, k\) = 6, got 9"),
    ({"variant": "olora", "rank": 9}, ValueError, r"rank must be between 1 and min\(d, k\) = 6, got 9"),
    ({"alpha": 0}, ValueError, "alpha must be above 0, got 0"),
    ({"variant": "hira", "dropout": 0.1}, ValueError, "dropout must be 0 for the variant 'hira', got 0.1"),
    ({"variant": "lora-xs", "dropout": 0.1}, ValueError, "dropout must be 0 for the variant 'lora-xs'"),
])  # fmt: skip
def test_bad_settings(settings, error, match):
    with pytest.raises(error, match=match):
        lnp.inject(network(), **{"rank": 2, "rng": np.random.default_rng(0)} | settings)


@pytest.mark.parametrize("variant", ["lora-fa", "dora", "pissa", "olora"])
def test_variants_that_are_not_for_embeddings_say_so(variant):
    model = Embedding(np.eye(3))
    with pytest.raises(TypeError, match=f"{variant} is for Linear layers, got Embedding"):
        lnp.inject(
            model,
            rank=1,
            targets=lambda path, layer: True,
            variant=variant,
            rng=np.random.default_rng(0),
        )


def test_injecting_twice_is_refused_for_every_kind():
    for variant in ("dora", "pissa"):
        tuned = lnp.inject(network(), rank=1, variant=variant, rng=np.random.default_rng(0))
        with pytest.raises(ValueError, match="has LoRA adapters already"):
            lnp.inject(tuned, rank=1, rng=np.random.default_rng(0))


def fused_arguments(shape, bias):
    rng = np.random.default_rng(0)
    x, W0, A, B = (rng.normal(size=s) for s in [(*shape, 6), (4, 6), (2, 6), (4, 2)])
    return x, W0, rng.normal(size=4) if bias else None, A, B, rng.normal(size=(*shape, 4))


@pytest.mark.parametrize("shape", [(7,), (3, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_fused_steps_equal_the_composed_ones(shape, bias):
    """The layer and the squared error, each in one step, against NumPy's functions one by one."""
    x, W0, b, A, B, y = fused_arguments(shape, bias)

    def composed(x, W0, b, A, B):
        h = x @ W0.T + (x @ A.T * 1.5) @ B.T
        return np.mean(np.square((h if b is None else h + b) - y))

    def layered(x, W0, b, A, B):
        return lnp.mean_squared_error(lnp.LoRALinear(lnp.Linear(W0, b), A, B, alpha=3.0)(x), y)

    results = []
    for form in (composed, layered):
        tensors = [None if a is None else lnp.Tensor(a) for a in (x, W0, b, A, B)]
        loss = form(*tensors)
        loss.backward()
        results.append([loss.data, *(t.grad for t in tensors if t is not None)])
    for other in results[1:]:
        for expected, got in zip(results[0], other, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_laws_of_the_fused_steps():
    from lora_np.autograd import plus_low_rank

    x, _, _, A, B, y = fused_arguments((7,), True)
    check_derivative(plus_low_rank, y, x, A, B, 1.5)
