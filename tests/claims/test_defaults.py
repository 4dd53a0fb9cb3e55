"""The defaults of alpha and the learning rate, against every recorded sweep of their setups."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest

import lora_np as lnp
from claims import at_scale, defaults
from claims.redrawn import kappas
from lora_np import language
from lora_np.lora import ALPHA, VARIANTS, learning_rate
from lora_np.nn import Adam, Linear, Sequential, trainable

MOST = 0.03  # nats, as the page of advice says; 0.05 would do
CASES = [(setup, rank) for setup in (*defaults.SETUPS, "language") for rank in defaults.RANKS]


@pytest.mark.parametrize(("setup", "rank"), CASES)
def test_the_defaults_lose_little_at_every_rank(setup, rank):
    assert 0 <= defaults.lost(setup, rank) <= MOST


@pytest.mark.parametrize("rank", [1, 8, 64])
def test_the_defaults_lose_little_at_135_million_parameters(rank):
    lost = defaults.lost_at_scale(rank)
    assert np.isnan(lost) or 0 <= lost <= MOST


def test_a_default_between_two_recorded_rates(tmp_path, monkeypatch):
    assert np.isnan(defaults.lost_at_scale(8)) or defaults.lost_at_scale(8) < 1
    monkeypatch.setattr(at_scale, "FOLDER", tmp_path)
    assert np.isnan(defaults.lost_at_scale(8))
    losses = {0.0005: 1.3, 0.001: 1.2, 0.002: 1.4}
    lines = [
        {"run": {"method": "LoRA, r = 8", "rate": lr, "seeds": seed}, "first": [log], "second": [log], "old": [1.0]}
        for lr, log in losses.items() for seed in range(2)
    ]  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "smollm2.0.jsonl").write_text(text, encoding="utf-8")
    share = np.log(0.0015 / 0.001) / np.log(2)
    expected = share * (np.exp(1.4) - np.exp(1.2))
    assert defaults.lost_at_scale(8) == pytest.approx(expected, rel=1e-3)
    assert defaults.lost_at_scale(8) > MOST


def test_the_bound_tells_other_settings():
    """alpha = r at a rate of 0.01 loses more, at rank 1 of digits."""
    known = defaults.mapped(1)
    halves = [kappas().logs(1, 1.0, -3, half) for half in ("first", "second")]  # a rate of 0.008
    apart = np.mean(np.exp(np.mean(halves, axis=0))) - min(known)
    assert apart > 2 * MOST


def test_one_alpha_everywhere():
    sweep = inspect.signature(lnp.training.sweep).parameters
    assert inspect.signature(lnp.inject).parameters["alpha"].default == ALPHA
    assert language.FinetuneSettings().alpha == ALPHA
    assert sweep["alphas"].default == (ALPHA,)
    assert sweep["lr"].default == (None,)
    assert language.FinetuneSettings().lr is None


def test_baking_keeps_the_settings_that_were_measured():
    page = Path("docs/understand/alpha.md").read_text(encoding="utf-8")
    bake = language.BakeSettings()
    assert f"takes {bake.alpha:g} and {bake.lr:g}" in page


def adapted(width, **settings):
    wide = Linear(np.zeros((width, 4 * width)))
    return lnp.inject(Sequential([Linear(np.zeros((2, width))), wide]), rank=2, **settings)


@pytest.mark.parametrize("width", [8, 64, 128, 576])
@pytest.mark.parametrize("alpha", [1, 16, 512])
def test_the_rule_of_the_rate(width, alpha):
    expected = 5 / (max(width, 64) * alpha**0.5)
    for variant in ("lora", "dora", "lora+"):
        model = adapted(width, alpha=alpha, variant=variant)
        assert learning_rate(model) == pytest.approx(expected, rel=0.06)
    faster = learning_rate(model, "lora+")
    assert faster == pytest.approx(expected / 4, rel=0.06)
    assert VARIANTS["lora+"].optimizer(Adam(lr=faster)).of("B").lr == 16 * faster
    assert learning_rate(lnp.merge(model)) == 0.01
    assert learning_rate(adapted(64, alpha=1e-300)) == learning_rate(adapted(64, alpha=1))


def test_fit_and_sweep_and_finetune_take_it():
    rng = np.random.default_rng(0)
    model, x = lnp.inject(Linear(np.zeros((6, 6))), rank=2), rng.normal(size=(20, 6))
    tuned = lnp.fit(model, x, x, steps=1, progress=False).model
    moved = np.abs(tuned.B.data).max()  # Adam's first step
    assert moved == pytest.approx(learning_rate(model), rel=1e-4)
    problem = lnp.training.Problem(Linear(np.zeros((6, 6))), x, x)
    found = lnp.training.sweep(
        problem, ranks=[1, 2], variants=["lora", "lora+"], steps=1, progress=False
    )
    rates = [(one["variant"], one["alpha"], one["lr"]) for one in found.records]
    plain, plus = (learning_rate(model, variant) for variant in ("lora", "lora+"))
    assert rates == [("lora", ALPHA, plain)] * 2 + [("lora+", ALPHA, plus)] * 2
    austen = language.load("austen")
    taught = language.finetune(austen, language.read_text("genesis")[:3000], steps=1, max_length=32,
                               warmup=0, progress=False)  # fmt: skip
    first = max(
        np.abs(leaf.data).max() for path, leaf in trainable(taught.model) if path.endswith("B")
    )
    assert (
        taught.settings["lr"]
        == learning_rate(lnp.inject(austen, rank=8))
        == pytest.approx(first, rel=0.01)
    )
