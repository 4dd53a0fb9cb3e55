"""Alpha, LoRA+'s ratio, A's start and the rates have two invariants under Adam: the theorem.

Put ``a A``, ``b B`` and ``s / (a b)`` for A, B and s: W0 + s B A is the same, and the gradients of the
factors shrink by a and b. Adam's step ignores that if eps shrinks alike, so with the rates times a
and b every step is the same.
"""

import functools
import os
from itertools import product

import numpy as np
import pytest

import lora_np as lnp
from claims.lab import batched, methods, setups

STEPS = 25


def trained(
    alpha, start=1.0, rate_a=0.01, rate_b=0.01, eps_a=1e-8, eps_b=1e-8, *, dtype=np.float64
):
    """The merged weights of a small network after some steps of LoRA."""
    rng = np.random.default_rng(3)
    draw = lambda d, k: lnp.Linear(
        rng.normal(size=(d, k)).astype(dtype), rng.normal(size=d).astype(dtype)
    )
    base = lnp.Sequential([draw(7, 6), lnp.Activation(np.tanh), draw(5, 7)])
    x, y = rng.normal(size=(40, 6)).astype(dtype), rng.integers(5, size=40)
    model = lnp.inject(base, rank=4, alpha=alpha, targets="all-linear", rng=rng)
    scaled = lambda path, layer: lnp.LoRALinear(
        layer.base, lnp.Tensor(layer.A.data * np.array(start, dtype)), layer.B, layer.alpha
    )
    rules = {
        name: lnp.Adam(lr=lnp.cosine_schedule(rate, steps=STEPS), eps=eps)
        for name, rate, eps in (("A", rate_a, eps_a), ("B", rate_b, eps_b))
    }
    fitted = lnp.fit(
        lnp.replace(model, lnp.LoRALinear, scaled), x, y, loss=lnp.cross_entropy, steps=STEPS,
        optimizer=lnp.nn.Groups(rules), progress=False,
    ).model  # fmt: skip
    return [W for _, W in lnp.leaves(lnp.merge(fitted))]


@pytest.mark.parametrize(("a", "b"), [*product([0.25, 1.0, 8.0], repeat=2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_four_knobs_have_two_invariants_to_the_last_bit_if_epsilon_is_scaled(a, b, dtype):
    plain = trained(8.0, dtype=dtype)
    other = trained(8.0 / (a * b), a, 0.01 * a, 0.01 * b, 1e-8 / a, 1e-8 / b, dtype=dtype)
    for W, V in zip(plain, other, strict=True):
        assert np.array_equal(W, V)


def test_other_factors_differ_by_rounding_only():
    plain = trained(8.0)
    other = trained(8.0 / 15, 3, 0.03, 0.05, 1e-8 / 3, 1e-8 / 5)
    assert max(np.abs(W - V).max() for W, V in zip(plain, other, strict=True)) < 1e-12


def test_what_follows_for_papers():
    same = lambda one, two: all(map(np.array_equal, one, two))
    # LoRA+ with ratio 16 is LoRA with 16 times alpha: a = 1/4, b = 4 and then s times 16
    plus = trained(8.0, 1.0, 0.01, 0.16, 1e-8, 1e-8 / 16)
    assert same(plus, trained(8.0 * 16))
    # alpha times 16 at a quarter of the rate is A's start times 4
    quarter = trained(8.0 * 16, 1.0, 0.01 / 4, 0.01 / 4)
    assert same(quarter, trained(8.0, 4.0, 0.01, 0.01, 1e-8 / 4, 1e-8 / 4))
    # and that is not what the rate alone does
    assert not same(quarter, trained(8.0))
    # rsLoRA is LoRA with sqrt(r) times alpha
    layer = lnp.Linear(np.eye(6))
    stable = lnp.inject(layer, rank=4, alpha=8.0, variant="rslora", rng=0)
    assert stable.scale == lnp.inject(layer, rank=4, alpha=16.0, rng=0).scale


def logits(alpha, ratio, *, eps_b=1e-8, clip=None):
    """What a LoRA on digits makes of held-back images after 100 steps."""
    setup, steps = batched.Digits(steps=100), 100
    task = setup.tasks([0])[0]
    rules = {
        name: lnp.Adam(lr=lnp.nn.linear_schedule(rate, steps=steps), eps=eps)
        for name, rate, eps in (("A", 0.004, 1e-8), ("B", 0.004 * ratio, eps_b))
    }
    model = lnp.inject(task.base, rank=8, alpha=alpha, targets=setup.targets, rng=0)
    tuned = lnp.fit(
        model, list(zip(task.x, task.y, strict=True)), loss=functools.partial(batch_loss, setup),
        steps=steps, optimizer=lnp.nn.Groups(rules), progress=False, clip=clip,
    ).model  # fmt: skip
    return lnp.freeze(tuned)(task.halves[0][0])


def test_lora_plus_is_a_larger_alpha_only_with_its_own_epsilon_and_without_clipping():
    larger = logits(256, 1)
    assert np.array_equal(logits(16, 16, eps_b=1e-8 / 16), larger)
    assert 1e-4 < np.abs(logits(16, 16) - larger).max() < 0.1
    clipped = logits(16, 16, eps_b=1e-8 / 16, clip=1.0) - logits(256, 1, clip=1.0)
    assert np.abs(clipped).max() > 1


def batch_loss(setup, model, batch, rng=None):
    return setup.loss(model(batch[0]), batch[1])


KINDS = ("lora", "dora", "lora+", "lora-xs", "vera", "pissa", "zero-a", "lora-fa", "hira", "full")
DRAWN = KINDS if os.environ.get("LORA_NP_FULL") else ("lora", "dora", "lora+", "vera")


def test_runs_side_by_side_are_the_runs_one_by_one():
    for setup in (batched.Digits(steps=12), batched.Linear(width=12, steps=12)):
        for kind in DRAWN:
            method = {"kind": kind, "rank": 3, "alpha": 6}
            seeds, rates = [0, 1], [0.01, 0.03]
            found = batched.run(setup, seeds, rates, **method)
            for (i, seed), (j, rate) in product(enumerate(seeds), enumerate(rates)):
                task = setup.tasks([seed])[0]
                model = batched.starts(setup, [task], [seed], method)[0]
                optimizer = methods.optimizer(
                    lnp.nn.linear_schedule(rate, steps=setup.steps), **method
                )
                tuned = lnp.freeze(lnp.fit(
                    model, list(zip(task.x, task.y, strict=True)), steps=setup.steps, progress=False,
                    loss=functools.partial(batch_loss, setup), optimizer=optimizer,
                ).model)  # fmt: skip
                for half, (x, y) in zip(batched.HALVES, task.halves, strict=True):
                    alone = float(setup.loss(tuned(x), y))
                    assert found[half][i, j] == pytest.approx(alone, rel=2e-3), (kind, half)


def test_no_base_has_seen_what_its_losses_are_of():
    for seed in (0, 63):
        parts = batched.split(seed)
        assert [len(part) for part in parts] == list(batched.PARTS)
        assert len({*np.concatenate(parts)}) == sum(batched.PARTS)
        seen = batched.batches(seed + 1000, batched.PARTS[0], 500, 64)
        assert seen.shape == (500, 64)
        assert {*seen.ravel()} <= {*range(batched.PARTS[0])}
    images, labels = lnp.datasets.digits()
    upright = batched.flat(images)
    for base, seed in zip(batched.readers(0)[:2], (0, 1), strict=True):
        half = batched.split(seed)[1]
        assert 0.85 < lnp.nn.accuracy(base(upright[half]), labels[half]) < 1.0


def test_the_exact_loss_of_the_linear_task_is_that_of_its_setup():
    setup, old = batched.Linear(width=12), setups.Linear(width=12)
    W0, D = old.task(5)
    task = setup.task(5)
    x, y = task.halves[0]
    assert float(np.mean((task.base(x) - y) ** 2)) == pytest.approx(1, rel=1e-4)
    moved = lnp.Linear(W0 + np.float32(0.5) * D)
    assert float(np.mean((moved(x) - y) ** 2)) == pytest.approx(0.25, rel=1e-4)
