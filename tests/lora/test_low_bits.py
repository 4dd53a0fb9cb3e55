"""QLoRA and LoftQ: what starts, what it computes, what merging costs, and what is refused."""

import dataclasses

import numpy as np
import pytest

from lora_np import Linear, Sequential, Tensor, adapters, inject, merge
from lora_np.hub import HubError
from lora_np.linalg import rank_errors
from lora_np.lora import LoRALinear, inject_quantised, loftq, merge_quantised
from lora_np.nn import Activation, Embedding, freeze, leaves, replace, trainable
from lora_np.quantise import KINDS, Quantised, quantise

SHAPES = [(1, 32), (40, 32), (64, 96), (7, 128)]


def weights(shape, seed=0, decay=0.0):
    rng = np.random.default_rng([seed, *shape])
    return (rng.normal(size=shape) * np.exp(-decay * np.arange(shape[1]))).astype(np.float32)


def model(seed=0):
    rng = np.random.default_rng(seed)
    linear = lambda d, k: Linear(rng.normal(size=(d, k)).astype(np.float32) / 8, np.ones(d, np.float32))
    return Sequential([linear(64, 32), Activation(np.tanh), linear(32, 64)])


def moved(tree, size=0.05, seed=1):
    rng = np.random.default_rng(seed)
    return replace(
        tree, Tensor, lambda path, a: Tensor(a.data + (rng.normal(size=a.shape) * size).astype(a.dtype))
    )


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("TQ")])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("start", ["loftq", "pissa"])
def test_the_errors_are_those_of_what_is_returned(kind, shape, start):
    for seed in range(3):
        W = weights(shape, seed)
        for rank in {1, min(shape)}:
            found = loftq(W, rank=rank, kind=kind, steps=3, start=start)
            left = W - found.Q.dequantised() - found.B @ found.A
            size = np.linalg.norm(W)
            assert np.linalg.norm(left) / size == pytest.approx(found.error, abs=2e-6)
            assert found.errors[0] == pytest.approx(quantise(W, kind).error(W, relative=True), abs=1e-6)
            assert len(found.errors) == 4
            assert found.error == min(found.errors)
            assert found.table.records[1]["relative error"] == found.errors[1]
            if start == "loftq":  # the first step can only help, and by what Eckart and Young say
                best = rank_errors(W - quantise(W, kind).dequantised())[rank] / size
                assert found.errors[1] == pytest.approx(best, abs=2e-6)
                assert found.errors[1] <= found.errors[0] + 1e-6


def test_loftq_repairs_more_with_rank_and_with_steps():
    for seed in range(3):
        W = weights((128, 128), seed)
        errors = [loftq(W, rank=rank).error for rank in (1, 4, 16, 64)]
        assert errors == sorted(errors, reverse=True)
        curve = loftq(W, rank=16, steps=5).errors
        assert curve[5] < curve[1] < curve[0]


def test_pissa_leaves_less_to_quantise_where_singular_values_fall():
    for seed in range(3):
        W = weights((64, 64), seed, decay=0.1)
        assert loftq(W, rank=8, steps=1, start="pissa").error < 0.7 * loftq(W, rank=8, steps=1).errors[0]


@pytest.mark.parametrize("start", ["zero", "loftq", "pissa"])
@pytest.mark.parametrize(
    ("kind", "double"), [("nf4", False), ("nf4", True), ("int8", False), ("Q4_1", False)]
)
def test_the_model_starts_as_close_as_it_says(start, kind, double):
    base = model()
    found = inject_quantised(base, rank=4, alpha=8, rng=0, kind=kind, start=start, double=double)
    assert [m.path for m in found.modules] == ["layers.0", "layers.2"]
    assert [path for path, _ in trainable(found.model)] == [
        f"layers.{i}.{part}" for i in (0, 2) for part in "AB"
    ]
    for module, i in zip(found.modules, (0, 2), strict=True):
        W, layer = base.layers[i].W, found.model.layers[i]
        assert isinstance(layer.base.W, Quantised)
        error = np.linalg.norm(W - freeze(layer).merged().W) / np.linalg.norm(W)
        assert module.start == pytest.approx(error, abs=2e-6)
        assert module.alone == pytest.approx(
            quantise(W, kind, **({"double": True} if double else {})).error(W, relative=True), abs=1e-6
        )
        assert (module.start < module.alone) == (start != "zero") or kind == "int8"
        assert module.bits == layer.base.W.bits
    assert found.table.columns == ("module", "kind", "bits", "error alone", "error at the start")


def test_an_adapter_that_moved_its_base_is_not_saved(tmp_path):
    started = inject_quantised(model(), rank=2, rng=0, start="loftq").model
    with pytest.raises(HubError, match="no longer W0"):
        adapters.save(started, tmp_path / "adapter")
    adapters.save(inject_quantised(model(), rank=2, rng=0).model, tmp_path / "adapter")


@pytest.mark.parametrize("kind", [None, "nf4", "Q8_0"])
@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_merging_says_what_it_costs(kind, variant):
    base = replace(model(), Linear, lambda path, layer: Linear(quantise(layer.W, "int4", block=32), layer.b))
    tuned = moved(inject(base, rank=2, rng=0, variant=variant))
    x = np.random.default_rng(0).normal(size=(16, 32)).astype(np.float32)
    loss = lambda m: np.mean(m(x) ** 2)
    found = merge_quantised(tuned, kind=kind, loss=loss)
    exact = merge(tuned)
    assert not any(isinstance(a, (Tensor, LoRALinear)) for _, a in leaves(found.model))
    assert not any(isinstance(a, Quantised) for _, a in leaves(exact))
    for module, i in zip(found.modules, (0, 2), strict=True):
        Q, W = found.model.layers[i].W, exact.layers[i].W
        assert (Q.kind, module.kind, module.path) == (kind or "int4", kind or "int4", f"layers.{i}")
        assert kind or Q.block == 32
        assert module.error == pytest.approx(Q.error(W))
        assert module.update == pytest.approx(np.linalg.norm(W - base.layers[i].W.dequantised()), rel=1e-4)
        assert module.ratio == pytest.approx(module.error / module.update)
        np.testing.assert_array_equal(found.model.layers[i].b, exact.layers[i].b)
    assert found.loss_before == pytest.approx(loss(freeze(tuned)).item())
    assert found.loss_after == pytest.approx(loss(found.model).item())
    assert found.loss_after != found.loss_before
    assert "with the adapter" in str(found.table)


def test_a_small_update_drowns_and_the_table_shows_it():
    base = replace(model(), Linear, lambda path, layer: Linear(quantise(layer.W, "nf4"), layer.b))
    small, large = (merge_quantised(moved(inject(base, rank=2, rng=0), size)) for size in (1e-3, 1.0))
    assert all(m.ratio > 1 for m in small.modules)
    assert all(m.ratio < 0.2 for m in large.modules)


def test_without_an_update_nothing_is_lost():
    base = replace(model(), Linear, lambda path, layer: Linear(quantise(layer.W, "int8"), layer.b))
    for module in merge_quantised(inject(base, rank=2, rng=0)).modules:
        assert (module.update, module.error) == (0, pytest.approx(0, abs=1e-6))


def test_targets_choose_and_embeddings_stay():
    tree = Sequential([Embedding(np.ones((10, 32), np.float32)), *model().layers])
    found = inject_quantised(tree, rank=1, rng=0, targets=lambda path, layer: path == "layers.3")
    assert [m.path for m in found.modules] == ["layers.3"]
    assert found.model.layers[1] is tree.layers[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: loftq(np.ones((4, 4)), rank=5), "rank must be between 1 and min"),
        (lambda: loftq(np.ones((4, 4)), rank=1, steps=0), "steps must be at least 1"),
        (lambda: loftq([[np.nan]], rank=1), "W must be finite"),
        (lambda: loftq(np.ones((4, 4)), rank=1, kind="nf5"), "kind must be one of"),
        (lambda: inject_quantised(model(), rank=1, rng=0, start="pizza"), "start must be one of .*'pissa'"),
        (
            lambda: inject_quantised(Linear(np.ones((2, 33))), rank=1, rng=0, kind="Q4_0"),
            "the layer: Q4_0 needs rows",
        ),
        (
            lambda: inject_quantised(Linear(quantise(np.ones((2, 2)), "nf4")), rank=1, rng=0),
            "already quantised",
        ),
        (
            lambda: inject_quantised(Sequential([Linear(np.full((2, 2), np.inf))]), rank=1, rng=0),
            "layers.0: W must be finite",
        ),
        (lambda: merge_quantised(model(), kind="nf4"), "no adapter on a quantised layer"),
        (lambda: merge_quantised(inject(model(), rank=1, rng=0)), "give kind= to quantise others"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_results_are_frozen():
    found = inject_quantised(model(), rank=1, rng=0)
    for result in (found, found.modules[0], merge_quantised(found.model)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            result.model = None
