"""The optimum, and what is said about a rate that is too large."""

import numpy as np
import pytest

import lora_np as lnp
from lora_np.training import optimum


def problem(d=6, k=7, n=80, seed=0, bias=None):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, k)) * np.linspace(2.0, 0.4, k)
    base = lnp.Linear(rng.normal(size=(d, k)), bias)
    y = x @ (base.W + rng.normal(size=(d, k))).T + 0.5 * rng.normal(size=(n, d)) + 1.0
    return base, x, y, rng


def loss(model, x, y):
    return float(np.mean((lnp.freeze(model)(x) - y) ** 2))


def variants():
    base, x, y, rng = problem(bias=np.full(6, 0.3))
    free = lnp.Linear(base.W, lnp.Tensor(base.b))
    tuned = lnp.inject(base, rank=2, rng=rng)
    return x, y, {
        "lora": tuned,
        "lora above min(d, k)": lnp.LoRALinear(base, lnp.Tensor(rng.normal(size=(8, 7))), lnp.Tensor(np.zeros((6, 8))), 8.0),
        "lora and b": lnp.LoRALinear(free, tuned.A, tuned.B, 4.0),
        "A frozen": lnp.inject(base, rank=2, variant="lora-fa", rng=rng),
        "full": lnp.Linear(lnp.Tensor(base.W), base.b),
        "full and b": lnp.Linear(lnp.Tensor(base.W), lnp.Tensor(base.b)),
        "b alone": free,
        "nothing": base,
        "adapted and frozen": lnp.LoRALinear(base, rng.normal(size=(2, 7)), rng.normal(size=(6, 2)), 2.0),
    }  # fmt: skip


@pytest.mark.parametrize("name", variants()[2])
def test_training_reaches_the_optimum_and_no_less(name):
    x, y, models = variants()
    model = models[name]
    best = optimum(model, x, y)
    if not lnp.trainable(model):
        assert loss(model, x, y) == pytest.approx(best, rel=1e-12)
        return
    rate = lnp.cosine_schedule(0.05, steps=3000)
    result = lnp.fit(model, x, y, optimizer=lnp.Adam(lr=rate), steps=3000, progress=False)
    reached = loss(result.model, x, y)
    assert best <= reached * (1 + 1e-10)
    assert reached == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize(("model", "error", "match"), [
    (lnp.Sequential([lnp.Linear(np.eye(7))]), TypeError, "known for Linear and LoRALinear, got Sequential"),
    (lnp.Linear(np.eye(3)), ValueError, r"x \(80, 7\) and y \(80, 6\) do not fit a weight of shape \(3, 3\)"),
    (lnp.LoRALinear(lnp.Linear(np.ones((6, 7))), lnp.Tensor(np.ones((1, 7))), np.ones((6, 1)), 1.0), ValueError, "B is frozen"),
])  # fmt: skip
def test_optimum_of_what_is_not_known(model, error, match):
    _, x, y, _ = problem()
    with pytest.raises(error, match=match):
        optimum(model, x, y)


def test_fit_stops_at_a_distance():
    base, x, y, rng = problem()
    model = lnp.inject(base, rank=2, rng=rng)
    best = optimum(model, x, y)
    result = lnp.fit(
        model, x, y, optimizer=lnp.Adam(lr=0.02), steps=5000, goal=1.001 * best, progress=False
    )
    gap = result.history.loss / best - 1
    assert len(gap) < 5000
    assert gap[-1] <= 1e-3 < gap[-2]
    assert loss(result.model, x, y) == pytest.approx(result.history.loss[-1])


@pytest.mark.parametrize(("settings", "match"), [
    ({"goal": -1.0}, "goal must be at least 0, got -1"),
    ({"goal": 1.0, "batch_size": 8}, "goal needs the full batch"),
    ({"goal": 1.0, "accumulate": 2}, "goal needs the full batch"),
    ({"clip": 0.0}, "clip must be above 0, got 0"),
])  # fmt: skip
def test_bad_goals(settings, match):
    base, x, y, rng = problem()
    with pytest.raises(ValueError, match=match):
        lnp.fit(lnp.inject(base, rank=2, rng=rng), x, y, progress=False, **settings)


def test_divergence_is_told():
    x, y, models = variants()
    for name in ("full", "lora", "A frozen"):
        with pytest.raises(FloatingPointError) as error:
            lnp.fit(models[name], x, y, optimizer=lnp.SGD(lr=1e3), steps=2000, progress=False)
        message = str(error.value)
        assert "training diverged, from" in message
        assert message.endswith("try a learning rate below 1000")
    deep = lnp.Sequential([models["full"], lnp.Linear(np.ones((6, 6)))])
    with pytest.raises(
        FloatingPointError, match=r"at step \d+.*in layers.0.W|parameter layers.0.W"
    ):
        lnp.fit(deep, x, y, optimizer=lnp.SGD(lr=1e3), steps=2000, progress=False)


def test_a_loss_that_is_nan_from_the_start_blames_no_rate():
    x, y, models = variants()
    with pytest.raises(
        FloatingPointError,
        match=r"at step 0, where all parameters are finite yet.*nothing has been trained",
    ):
        lnp.fit(models["lora"], x, y, loss=lambda p, t: np.sum(p) * np.nan, progress=False)
    broken = lnp.Linear(lnp.Tensor(np.full((6, 7), np.nan)))
    with pytest.raises(
        FloatingPointError,
        match="the loss is nan at step 0, where the parameter W is no longer finite",
    ):
        lnp.fit(broken, x, y, progress=False)
