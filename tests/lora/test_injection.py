"""LoRA: where it starts, what it computes, what it leaves alone."""

import numpy as np
import pytest

import lora_np as lnp
from lora_np import (
    Activation,
    Linear,
    LoRALinear,
    Sequential,
    Tensor,
    inject,
    leaves,
    merge,
    trainable,
    value,
)
from lora_np.autograd import check_derivative
from lora_np.lora import ALPHA, adapter_leaves, kaiming

SHAPES = [(4, 6), (6, 4), (1, 5), (5, 1), (3, 3)]


def network(dtype=np.float64):
    rng = np.random.default_rng(0)
    return Sequential([
        Linear.init(d_out=8, d_in=6, rng=rng, bias=True, dtype=dtype),
        Activation(np.tanh),
        Linear.init(d_out=3, d_in=8, rng=rng, dtype=dtype),
    ])  # fmt: skip


def randomised(model, seed=1):
    """The adapted model with B moved away from zero, as after training."""
    rng = np.random.default_rng(seed)
    for path, leaf in adapter_leaves(model):
        if path.endswith("B"):
            leaf.data[...] = rng.normal(size=leaf.shape)
    return model


@pytest.mark.parametrize(("d", "k"), SHAPES)
def test_the_equation(d, k):
    rng = np.random.default_rng(0)
    W0, A, B, x = (rng.normal(size=s) for s in [(d, k), (2, k), (d, 2), (7, k)])
    layer = LoRALinear(Linear(W0), A, B, alpha=3.0)
    np.testing.assert_allclose(
        layer(x), np.array([W0 @ row + 3.0 / 2 * B @ (A @ row) for row in x])
    )
    check_derivative(lambda A, B: LoRALinear(Linear(W0), A, B, alpha=3.0)(x), A, B)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_starts_bit_identical_to_the_base(dtype):
    base = network(dtype)
    x = np.random.default_rng(1).normal(size=(50, 6)).astype(dtype)
    tuned = inject(base, rank=3, alpha=16, rng=np.random.default_rng(2))
    assert np.array_equal(value(tuned(x)), value(base(x)))
    assert tuned(x).dtype == dtype


def test_never_touches_the_base_and_shares_its_memory():
    base = network()
    before = [a.data.copy() for _, a in leaves(base)]
    tuned = inject(base, rank=2, rng=np.random.default_rng(0))
    np.mean(np.square(tuned(np.ones((4, 6))))).backward()
    for (_, a), old in zip(leaves(base), before, strict=True):
        np.testing.assert_array_equal(a.data, old)
        assert a.grad is None
    assert tuned.layers[0].base.W is base.layers[0].W.data
    assert {path for path, _ in trainable(tuned)} == {path for path, _ in adapter_leaves(tuned)}


def test_the_first_gradient_of_A_is_zero_and_that_of_B_is_not():
    tuned = inject(network(), rank=2, rng=np.random.default_rng(0))
    np.mean(np.square(tuned(np.ones((4, 6))))).backward()
    gradients = {path: leaf.grad for path, leaf in adapter_leaves(tuned)}
    assert not gradients["layers.2.A"].any()
    assert gradients["layers.2.B"].any()


@pytest.mark.parametrize("alpha", [ALPHA, 1, 0.5, np.float64(16)])
def test_merged_computes_the_same_as_plain_arrays(alpha):
    tuned = randomised(inject(network(), rank=2, alpha=alpha, rng=np.random.default_rng(0)))
    x = np.random.default_rng(1).normal(size=(20, 6))
    merged = merge(tuned)
    assert trainable(merged) == []
    assert type(merged(x)) is np.ndarray
    np.testing.assert_allclose(merged(x), value(tuned(x)), rtol=1e-12, atol=1e-14)


def test_scale_is_alpha_over_r_and_alpha_has_one_default():
    base = Linear(np.eye(4))
    rng = np.random.default_rng(0)
    assert [inject(base, rank=r, rng=rng).scale for r in (1, 4)] == [ALPHA, ALPHA / 4]
    assert inject(base, rank=2, alpha=8, rng=rng).scale == 4


def test_a_numpy_alpha_does_not_lift_float32():
    layer = inject(
        Linear(np.eye(4, dtype=np.float32)),
        rank=2,
        alpha=np.float64(3),
        rng=np.random.default_rng(0),
    )
    assert layer(np.ones((1, 4), np.float32)).dtype == np.float32
    assert merge(layer).W.dtype == np.float32


def test_where_chooses_layers_by_path():
    tuned = inject(
        network(),
        rank=2,
        targets=lambda path, layer: path == "layers.2",
        rng=np.random.default_rng(0),
    )
    assert [type(layer).__name__ for layer in tuned.layers] == [
        "Linear",
        "Activation",
        "LoRALinear",
    ]


def test_train_names_exceptions_from_freezing():
    base = network()
    tuned = inject(base, rank=2, train=["layers.0.b", "layers.2"], rng=np.random.default_rng(0))
    assert [path for path, _ in trainable(tuned)] == [
        "layers.0.base.b",
        "layers.0.A",
        "layers.0.B",
        "layers.2.W",
    ]
    assert type(tuned.layers[2]) is Linear


def test_train_thaws_frozen_arrays_without_touching_them():
    base = Sequential([Linear(np.eye(3)), Linear(np.eye(3))])
    tuned = inject(base, rank=1, train=["layers.1"], rng=np.random.default_rng(0))
    assert isinstance(tuned.layers[1].W, Tensor)
    assert not np.shares_memory(tuned.layers[1].W.data, base.layers[1].W)


def test_adapter_leaves_are_A_and_B():
    tuned = inject(network(), rank=2, train=["layers.0.b"], rng=np.random.default_rng(0))
    assert [path for path, _ in adapter_leaves(tuned)] == [
        "layers.0.A",
        "layers.0.B",
        "layers.2.A",
        "layers.2.B",
    ]


def test_a_tied_layer_gets_one_adapter():
    layer = Linear(np.eye(3))
    tuned = inject(Sequential([layer, layer]), rank=1, rng=np.random.default_rng(0))
    assert tuned.layers[0] is tuned.layers[1]
    assert len(adapter_leaves(tuned)) == 2


def test_dropout_is_on_only_with_randomness():
    rng = np.random.default_rng(0)
    layer = randomised(inject(Linear(np.eye(6)), rank=2, dropout=0.5, rng=rng))
    x = np.ones((3, 6))
    assert np.array_equal(value(layer(x)), value(layer(x)))
    assert not np.array_equal(value(layer(x, rng=rng)), value(layer(x)))


def test_initialisation_of_A():
    rng = np.random.default_rng(0)
    A = kaiming(rng, 50, 400)
    assert 0.045 < np.abs(A).max() <= 0.05
    assert A.std() == pytest.approx(400**-0.5 / 3**0.5, rel=0.02)


def test_same_seed_same_adapter():
    a, b = (inject(network(), rank=2, rng=np.random.default_rng(7)) for _ in range(2))
    for (_, x), (_, y) in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(value(x), value(y))


# What is refused


def test_injecting_twice():
    tuned = inject(network(), rank=2, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="has LoRA adapters already"):
        inject(tuned, rank=2, rng=np.random.default_rng(0))
    inject(merge(tuned), rank=2, rng=np.random.default_rng(0))


@pytest.mark.parametrize(("rank", "error", "match"), [
    (0, ValueError, "rank must be at least 1, got 0"),
    (-3, ValueError, "rank must be at least 1, got -3"),
    (2.5, TypeError, "rank must be a whole number, got 2.5"),
    (True, TypeError, "rank must be a whole number, got the boolean True"),
    ("8", TypeError, "rank must be a whole number, got '8'"),
])  # fmt: skip
def test_ranks_that_are_none(rank, error, match):
    with pytest.raises(error, match=match):
        inject(network(), rank=rank, rng=np.random.default_rng(0))


def test_a_rank_above_min_d_k_is_legal_and_flagged():
    with pytest.warns(UserWarning, match=r"rank 4 is above min\(d, k\) = 3"):
        tuned = inject(network(), rank=4, rng=np.random.default_rng(0))
    assert tuned.layers[2].rank == 4


@pytest.mark.parametrize(("settings", "match"), [
    ({"alpha": 0}, "alpha must be above 0, got 0"),
    ({"alpha": float("inf")}, "alpha must be finite, got inf"),
    ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
    ({"train": ["layers.9"]}, r"train names 'layers.9', which is not in the model; close names: layers.\d"),
    ({"targets": ["layers.0", "layer.2"]}, "targets: 'layer.2' matches no module of Sequential; close names: "),
    ({"targets": iter(["0", "2", "3"])}, "targets: '3' matches no module"),
    ({"targets": lambda path, layer: False}, "targets: the function selected no module"),
])  # fmt: skip
def test_settings_that_do_not_fit(settings, match):
    with pytest.raises(ValueError, match=match):
        inject(network(), rank=2, rng=np.random.default_rng(0), **settings)


def test_train_as_a_string_is_a_mistake():
    with pytest.raises(TypeError, match=r"such as \['layers.2'\]"):
        inject(network(), rank=2, train="layers.2", rng=np.random.default_rng(0))


def test_factors_that_do_not_fit():
    base = Linear(np.eye(3))
    with pytest.raises(ValueError, match=r"must agree in r, got \(2, 3\) and \(3, 1\)"):
        LoRALinear(base, np.ones((2, 3)), np.ones((3, 1)), 1)
    with pytest.raises(
        ValueError, match=r"\(3, 4\) does not fit the base weight of shape \(3, 3\)"
    ):
        LoRALinear(base, np.ones((2, 4)), np.ones((3, 2)), 1)


@pytest.mark.peers
def test_same_as_loralib():
    import loralib
    import torch

    rng = np.random.default_rng(0)
    W0, b, A, B, x = (rng.normal(size=s) for s in [(4, 6), (4,), (2, 6), (4, 2), (5, 6)])
    peer = loralib.Linear(6, 4, r=2, lora_alpha=16).double()
    with torch.no_grad():
        for parameter, array in [
            (peer.weight, W0),
            (peer.bias, b),
            (peer.lora_A, A),
            (peer.lora_B, B),
        ]:
            parameter.copy_(torch.tensor(array))
    ours = LoRALinear(Linear(W0, b), A, B, alpha=16)
    np.testing.assert_allclose(ours(x), peer(torch.tensor(x)).detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize(("dtype", "adapted"), [
    (np.int64, np.float64), (bool, np.float64), (np.float16, np.float32),
    (np.float32, np.float32), (np.float64, np.float64),
])  # fmt: skip
def test_adapters_have_a_dtype_that_can_be_trained(dtype, adapted):
    W0 = np.arange(12).reshape(3, 4).astype(dtype)
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(adapted)
    model = lnp.inject(lnp.Linear(W0), rank=2, rng=0)
    assert model.A.dtype == model.B.dtype == adapted
    assert np.ptp(model.A.data) > 0
    history = lnp.fit(
        model, x, x @ np.ones((4, 3), adapted), optimizer=lnp.Adam(lr=0.1), progress=False
    ).history
    assert history.loss[-1] < 0.5 * history.loss[0]


def test_slips_are_named():
    layer, rng = lnp.Linear(np.eye(3)), np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"pattern 'q_proj' matches no module"):
        lnp.inject(layer, rank=1, rng=rng, targets="q_proj")
    with pytest.raises(TypeError, match=r"W must be an ndarray .*, got list"):
        lnp.Linear([[1.0, 2.0]])
    with pytest.raises(TypeError, match=r"b must be an ndarray .*, got list"):
        lnp.Linear(np.eye(1), [1.0])
    with pytest.raises(ValueError, match="vanishes in float16"):
        lnp.training_run(lnp.Adam(), lnp.Tensor(np.ones(3, np.float16)))
    x = np.ones((2, 3))
    with pytest.raises(TypeError, match=r"optimizer must be an Optimizer .*, got 'adam'"):
        lnp.fit(lnp.inject(layer, rank=1, rng=rng), x, x, optimizer="adam")
    with pytest.raises(TypeError, match=r"validation must be a pair \(x, y\), got tuple"):
        lnp.fit(lnp.inject(layer, rank=1, rng=rng), x, x, validation=(x,))
    with pytest.raises(TypeError, match=r"validation must be a pair \(X, Y\), got ndarray"):
        lnp.linalg.optimal_losses(x, x, validation=x)
    with pytest.raises(TypeError, match="variants must be a list of names, got 'lora'"):
        lnp.training.sweep(lnp.training.Problem(layer, x, x), ranks=[1], variants="lora")
    with pytest.raises(ValueError, match="lr must be finite, got inf"):
        lnp.Adam(lr=float("inf"))
    assert lnp.matrix_rank([[1e308, 1e308], [1e308, -1e308]]) == 2
