"""QLoRA and LoftQ: what starts, what it computes, what merging costs, and what is refused."""

from functools import partial

import numpy as np
import pytest

from lora_np import Linear, Sequential, Tensor, adapters, inject, merge
from lora_np.files import FileError
from lora_np.linalg import rank_errors
from lora_np.lora import VARIANTS, LoRALinear, loftq
from lora_np.nn import Activation, Embedding, freeze, leaves, replace, trainable, walk
from lora_np.quantise import KINDS, Quantised, quantise
from tests.drawing import every
from tests.rounding import assert_near, in_double

SHAPES = [(1, 32), (40, 32), (64, 96), (7, 128)]
LINEAR = sorted(set(VARIANTS) - {"loftq"})


def weights(shape, seed=0, decay=0.0):
    rng = np.random.default_rng([seed, *shape])
    return (rng.normal(size=shape) * np.exp(-decay * np.arange(shape[1]))).astype(np.float32)


def model(seed=0):
    rng = np.random.default_rng(seed)
    linear = lambda d, k: Linear(
        rng.normal(size=(d, k)).astype(np.float32) / 8, np.ones(d, np.float32)
    )
    return Sequential([linear(64, 32), Activation(np.tanh), linear(32, 64)])


def in_few_bits(kind, **options):
    return replace(
        model(), Linear, lambda path, layer: Linear(quantise(layer.W, kind, **options), layer.b)
    )


def moved(tree, size=0.05, seed=1):
    rng = np.random.default_rng(seed)
    return replace(
        tree,
        Tensor,
        lambda path, a: Tensor(a.data + (rng.normal(size=a.shape) * size).astype(a.dtype)),
    )


def lost(start, base):
    """The relative error of each weight at the start."""
    merged = merge(start)
    pairs = ((merged.layers[i].W, base.layers[i].W) for i in (0, 2))
    return [np.linalg.norm(W - W0) / np.linalg.norm(W0) for W, W0 in pairs]


@every("kind", [kind for kind in KINDS if not kind.endswith("_K")])  # whose blocks are longer
@every("shape", SHAPES)
def test_the_errors_are_those_of_what_is_returned(kind, shape):
    for seed in range(3):
        W = weights(shape, seed)
        for rank in {1, min(shape)}:
            found = loftq(W, rank=rank, kind=kind, steps=3)
            left = W - found.Q.dequantised() - found.B @ found.A
            size = np.linalg.norm(W)
            assert np.linalg.norm(left) / size == pytest.approx(min(found.errors), abs=2e-6)
            assert found.errors[0] == pytest.approx(
                quantise(W, kind).error(W, relative=True), abs=1e-6
            )
            assert len(found.errors) == 4
            # the first step can only help, and by what Eckart and Young say
            best = rank_errors(W - quantise(W, kind).dequantised())[rank] / size
            assert found.errors[1] == pytest.approx(best, abs=2e-6)
            assert found.errors[1] <= found.errors[0] + 1e-6


def test_loftq_repairs_more_with_rank_and_with_steps():
    for seed in range(3):
        W = weights((128, 128), seed)
        errors = [min(loftq(W, rank=rank).errors) for rank in (1, 4, 16, 64)]
        assert errors == sorted(errors, reverse=True)
        curve = loftq(W, rank=16, steps=5).errors
        assert curve[5] < curve[1] < curve[0]


def test_pissa_leaves_less_to_quantise_where_singular_values_fall():
    for seed in range(3):
        W = weights((64, 64), seed, decay=0.1)
        start = inject(Linear(W), rank=8, variant="pissa", quantise="nf4", rng=0)
        error = np.linalg.norm(merge(start).W - W) / np.linalg.norm(W)
        assert error < 0.7 * quantise(W, "nf4").error(W, relative=True)


@pytest.mark.parametrize("variant", LINEAR)
@pytest.mark.parametrize(
    "kind", ["nf4", "int8", "Q4_1", partial(quantise, kind="nf4", double=True)]
)
def test_the_frozen_weights_are_in_few_bits(variant, kind):
    """Each variant starts within the error of quantising what it freezes, and trains the same
    names.
    """
    base = model()
    gradients = {path: layer.W for path, layer in walk(base) if isinstance(layer, Linear)}
    settings = {"rank": 4, "alpha": 8, "rng": 0, "variant": variant, "gradients": gradients}
    start, whole = inject(base, quantise=kind, **settings), inject(base, **settings)
    few = kind if callable(kind) else partial(quantise, kind=kind)
    assert [path for path, _ in trainable(start)] == [path for path, _ in trainable(whole)]
    for i, error in zip((0, 2), lost(start, base), strict=True):
        quantised, frozen = (
            (layer.lora if variant == "dora" else layer).base
            for layer in (start.layers[i], whole.layers[i])
        )
        assert isinstance(quantised.W, Quantised)
        np.testing.assert_array_equal(quantised.W.dequantised(), few(frozen.W).dequantised())
        np.testing.assert_array_equal(
            start.layers[i].base.b if variant != "dora" else start.layers[i].b, base.layers[i].b
        )
        if variant == "lora-one":  # which starts a step away from the base
            continue
        expected = few(frozen.W).error(frozen.W) / np.linalg.norm(base.layers[i].W)
        assert error == pytest.approx(expected, rel=1e-3)
    x = np.random.default_rng(0).normal(size=(5, 32)).astype(np.float32)
    merged = merge(start)
    for found in (freeze(start), merged):
        assert_near(found(x), in_double(merged)(x.astype(float)))


@pytest.mark.parametrize("alpha", [4, 8])
@pytest.mark.parametrize("kind", ["nf4", "int8", "Q4_1"])
def test_loftq_starts_where_it_says(alpha, kind):
    base = model()
    start = inject(base, rank=4, alpha=alpha, rng=0, variant="loftq", quantise=kind)
    for i, error in zip((0, 2), lost(start, base), strict=True):
        found = loftq(base.layers[i].W, rank=4, kind=kind)
        assert error == pytest.approx(min(found.errors), abs=2e-6)
        assert error < found.errors[0] or kind == "int8"
        assert start.layers[i].A.dtype == np.float32


@pytest.mark.parametrize("variant", ["loftq", "pissa", "olora"])
def test_an_adapter_that_moved_its_base_is_not_saved(tmp_path, variant):
    started = inject(model(), rank=2, rng=0, variant=variant, quantise="nf4")
    with pytest.raises(FileError, match="is not W0 any more"):
        adapters.save(started, tmp_path / "adapter")
    adapters.save(inject(model(), rank=2, rng=0, quantise="nf4"), tmp_path / "adapter")


@pytest.mark.parametrize("kind", ["same", "nf4", "Q8_0"])
@pytest.mark.parametrize("variant", ["lora", "dora"])
@pytest.mark.parametrize("double", [False, True])
def test_merging_rounds_the_exact_sum(kind, variant, double):
    tuned = moved(
        inject(in_few_bits("int4", block=32, double=double), rank=2, rng=0, variant=variant), 0.3
    )
    found, exact = merge(tuned, quantise=kind), merge(tuned)
    assert not any(isinstance(a, (Tensor, LoRALinear)) for _, a in leaves(found))
    assert not any(isinstance(a, Quantised) for _, a in leaves(exact))
    options = {"block": 32, "double": double} if kind == "same" else {}
    for i in (0, 2):
        Q, W = found.layers[i].W, exact.layers[i].W
        again = quantise(W, "int4" if kind == "same" else kind, **options)
        assert (Q.kind, Q.nbytes) == (again.kind, again.nbytes)
        np.testing.assert_array_equal(Q.dequantised(), again.dequantised())
        np.testing.assert_array_equal(found.layers[i].b, exact.layers[i].b)


def test_an_update_that_drowns_is_told():
    """Where rounding takes away more than the update added, by the norms of both."""
    small, large = (moved(inject(in_few_bits("nf4"), rank=2, rng=0), size) for size in (1e-3, 1.0))
    with pytest.warns(
        UserWarning, match="in 2 of 2 layers, the first layers.0: merge in full precision"
    ):
        merge(small, quantise="same")
    merge(large, quantise="same")
    half = Sequential([large.layers[0], Activation(np.tanh), small.layers[2]])
    with pytest.warns(UserWarning, match=r"in 1 of 2 layers, the first layers\.2"):
        merge(half, quantise=partial(quantise, kind="nf4"))


def test_without_an_update_nothing_is_lost():
    base = in_few_bits("int8")
    merged = merge(inject(base, rank=2, rng=0), quantise="same")
    for i in (0, 2):
        np.testing.assert_allclose(
            merged.layers[i].W.dequantised(), base.layers[i].W.dequantised(), atol=1e-6
        )


def test_targets_choose_and_embeddings_stay():
    tree = Sequential([Embedding(np.ones((10, 32), np.float32)), *model().layers])
    found = inject(
        tree,
        rank=1,
        rng=0,
        quantise="nf4",
        targets=lambda path, layer: path in ("layers.0", "layers.3"),
    )
    kinds = {path: type(leaf) for path, leaf in leaves(found) if path.endswith("W")}
    assert issubclass(kinds.pop("layers.3.base.W"), Quantised)
    assert kinds == {"layers.0.base.W": np.ndarray, "layers.1.W": np.ndarray}
    assert found.layers[1] is tree.layers[1]
    mixed = merge(inject(in_few_bits("nf4"), rank=1, rng=0, targets=["0"]), quantise="same")
    assert mixed.layers[2].W.kind == "nf4"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: loftq(np.ones((4, 4)), rank=5), "rank must be between 1 and min"),
        (lambda: loftq(np.ones((4, 4)), rank=1, steps=0), "steps must be at least 1"),
        (lambda: loftq([[np.nan]], rank=1), "W must be finite"),
        (lambda: loftq(np.ones((4, 4)), rank=1, kind="nf5"), "kind must be one of"),
        (
            lambda: inject(model(), rank=1, rng=0, variant="pizza"),
            "variant must be one of .*'pissa'",
        ),
        (lambda: inject(model(), rank=1, rng=0, quantise="nf5"), r"layers\.0: kind must be one of"),
        (lambda: inject(model(), rank=1, rng=0, variant="loftq"), "pass quantise="),
        (
            lambda: inject(Linear(np.ones((2, 33))), rank=1, rng=0, quantise="Q4_0"),
            "the layer: Q4_0 needs rows",
        ),
        (
            lambda: inject(Linear(quantise(np.ones((2, 2)), "nf4")), rank=1, rng=0, quantise="nf4"),
            "already quantised",
        ),
        (
            lambda: inject(
                Sequential([Linear(np.full((2, 2), np.inf))]), rank=1, rng=0, quantise="nf4"
            ),
            "layers.0: W must be finite",
        ),
        (lambda: merge(model(), quantise="nf4"), "no adapter on a quantised layer"),
        (
            lambda: merge(inject(model(), rank=1, rng=0), quantise="same"),
            "pass a kind to quantise other layers",
        ),
        (
            lambda: merge(inject(Linear(np.ones((2, 33))), rank=1, rng=0), quantise="Q4_0"),
            "the layer: Q4_0",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
