"""Methods and setups of the claims: each method starts where it says, trains what it says, and no setup beats
its optimum.
"""

import numpy as np
import pytest

import lora_np as lnp
from claims.lab import methods, setups
from lora_np.lora import VARIANTS

D, K, R = 12, 8, 2
NUMBERS = {
    "full": D * K,
    "lora-fa": R * D,
    "a-only": R * K,
    "galore": R * K,
    "dora": R * (D + K) + D,
    "lora-xs": R * R,
    "vera": R + D,
}


def loss(model):
    x = np.random.default_rng(1).normal(size=(30, K)).astype(np.float32)
    return lnp.mean_squared_error(model(x), x @ np.ones((K, D), np.float32))


@pytest.mark.parametrize("kind", sorted({*VARIANTS, *methods.OTHERS, "full"} - {"loftq"}))
def test_a_way_starts_at_the_base_and_trains_so_many_numbers(kind):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        base = lnp.Linear(rng.normal(size=(D, K)).astype(np.float32))
        model = methods.initialised(base, rng, loss, kind=kind, rank=R, alpha=4)
        x = rng.normal(size=(5, K)).astype(np.float32)
        apart = np.abs(lnp.value(model(x)) - lnp.value(base(x))).max()
        assert (apart > 1e-4) == (kind == "lora-one")
        assert sum(leaf.size for _, leaf in lnp.trainable(model)) == NUMBERS.get(kind, R * (D + K))


def test_galores_projector_moves_and_the_model_does_not():
    rng = np.random.default_rng(0)
    base = lnp.Linear(rng.normal(size=(D, K)).astype(np.float32))
    model = methods.initialised(base, rng, loss, kind="galore", rank=R)
    before = base.W.copy()
    for step in range(3):
        whole = lnp.merge(model).W
        methods.projected(step, model, 1, loss)
        np.testing.assert_allclose(lnp.merge(model).W, whole, atol=1e-6)
        np.testing.assert_allclose(model.B.T @ model.B, np.eye(R), atol=1e-5)
        G = methods.first_gradients(lnp.merge(model), loss)[""]
        np.testing.assert_allclose(model.A.grad, model.B.T @ G, rtol=1e-4, atol=1e-6)
        inside = np.linalg.norm(model.B.T @ G) ** 2
        assert inside == pytest.approx(np.sum(np.linalg.svdvals(G)[:R] ** 2), rel=1e-3)
        model.A.data[...] -= model.A.grad
        model.A.grad = None
    assert np.array_equal(base.W, before)  # the base of others is not moved


@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_no_low_rank_beats_the_optimum_of_the_linear_bed(decay):
    setup = setups.Linear(width=16, decay=decay, steps=60)
    for seed in range(3):
        for kind in ("lora", "lora-one", "zero-a"):  # not PiSSA or LoRA-GA: they move W0
            found = setup.run(0.02, seed, kind=kind, rank=3, alpha=6)
            assert found["test"] > setup.floor(3) * (1 - 1e-4)
    assert setup.floor(0) == 1
    assert setup.floor(16) == 0


def test_every_way_gets_the_same_batches(monkeypatch):
    setups.reader()
    fit, seen = lnp.fit, []

    def watched(*args, rng, **more):
        seen.append(rng.bit_generator.state)
        return fit(*args, rng=rng, **more)

    monkeypatch.setattr(lnp, "fit", watched)
    for rank in (1, 4):
        setups.Digits(steps=4).run(0.01, 3, kind="lora", rank=rank, alpha=4)
    assert seen[0] == seen[1]
