"""The defaults of `fit`, alpha and the learning rate: through `fit` itself, on tasks that the rule of
the learning rate was not made on, and against every recorded sweep of text and at scale.
"""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest

import lora_np as lnp
from claims.lab import at_scale, defaults
from lora_np import language
from lora_np.lora import ALPHA, VARIANTS, learning_rate
from lora_np.nn import Adam, Linear, Sequential, trainable
from tests.rounding import assert_again

CASES = [(name, rank) for name in defaults.TASKS for rank in defaults.RANKS]
EXCEPTIONS = {
    ("digits inverted", 1): "0.11",
    ("digits inverted", 64): "0.09",
    ("middle layer, width 256", 8): "0.053",
}
NOTES = " ".join(learning_rate.__doc__.split())


@pytest.mark.parametrize(("name", "rank"), CASES)
def test_the_defaults_lose_little_or_the_docstring_says_how_much(name, rank):
    best, lost = defaults.best(name, rank), defaults.lost(name, rank)
    assert {best - 1, best, best + 1} <= defaults.known(name, rank)
    if (name, rank) in EXCEPTIONS:
        said = EXCEPTIONS[name, rank]
        assert not lost.kept(name)
        assert f"{said} at rank {rank}" in NOTES
        assert float(said) == round(lost.mean, len(said) - 2)
    else:
        assert lost.kept(name)


def test_the_docstring_names_no_other_exception():
    assert NOTES.count(" at rank ") == len(EXCEPTIONS)
    assert "three exceptions" in NOTES


@pytest.mark.parametrize("name", ["digits mirrored", "permuted names", "linear"])
def test_what_is_recorded_is_what_fit_does_by_default(name):
    seeds = range(defaults.FIRST, defaults.FIRST + 3)
    decayed, constant = (np.log(defaults.losses(name, 8, place)[:3]) for place in (0, "constant"))
    again, without = (
        np.log([defaults.once(defaults.TASKS[name](seed), seed, 8, place) for seed in seeds])
        for place in (0, "constant")
    )
    assert_again(again, decayed)
    with pytest.raises(AssertionError):
        assert_again(again, constant)
    # Rounding moves a training without decay by some per cent: it is only told from one with decay.
    assert np.all(np.abs(without - constant) < np.abs(without - decayed))


def test_the_default_is_at_place_zero_and_others_beside_it():
    """Adam that decays from the rule's rate is the same run, bit for bit."""
    task = defaults.TASKS["linear"](0)
    model = lnp.inject(task.base, rank=8, rng=np.random.default_rng([0, 23]))
    for place, name in ((0, "default"), (2, "twice the rate")):
        peak = learning_rate(model) * 2 ** (place / 2)
        rate = lnp.cosine_schedule(peak, steps=task.settings["steps"])
        tuned = lnp.fit(
            model, *task.data, **task.settings, optimizer=Adam(lr=rate), rng=0, progress=False
        )
        assert task.loss(lnp.freeze(tuned.model)) == defaults.once(task, 0, 8, place), name


@pytest.mark.parametrize("rank", [1, 4, 16, 64])
def test_the_defaults_lose_little_on_text_at_every_rank(rank):
    assert 0 <= defaults.lost_on_text(rank) <= defaults.NATS


@pytest.mark.parametrize("name", [name for name in at_scale.METHODS if name.startswith("LoRA, ")])
def test_the_defaults_lose_little_at_135_million_parameters(name):
    """At alpha 2, 256 and 512 as well."""
    lost = defaults.lost_at_scale(name)
    assert np.isnan(lost) or 0 <= lost <= defaults.NATS


NAME = "LoRA, r = 8"


def test_a_default_between_two_recorded_rates(tmp_path, monkeypatch):
    assert np.isnan(defaults.lost_at_scale(NAME)) or defaults.lost_at_scale(NAME) < 1
    monkeypatch.setattr(at_scale, "FOLDER", tmp_path)
    assert np.isnan(defaults.lost_at_scale(NAME))
    losses = {0.0005: 1.3, 0.001: 1.2, 0.002: 1.4}
    lines = [
        {"run": {"method": "LoRA, r = 8", "rate": lr, "seeds": seed}, "first": [log], "second": [log], "old": [1.0]}
        for lr, log in losses.items() for seed in range(2)
    ]  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "smollm2.0.jsonl").write_text(text, encoding="utf-8")
    share = np.log(0.0015 / 0.001) / np.log(2)
    expected = share * (np.exp(1.4) - np.exp(1.2))
    assert defaults.lost_at_scale(NAME) == pytest.approx(expected, rel=1e-3)
    assert defaults.lost_at_scale(NAME) > defaults.NATS


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
    rule = lambda alpha: 5 / (max(width, 64) * max(alpha**0.5, alpha / 12))
    expected = rule(alpha)
    for variant in ("lora", "dora", "lora+"):
        model = adapted(width, alpha=alpha, variant=variant)
        assert learning_rate(model) == pytest.approx(expected, rel=0.06)
    alone = lnp.inject(Linear(np.zeros((width, width))), rank=2, alpha=alpha)
    assert learning_rate(alone) == pytest.approx(2.5 * expected, rel=0.06)
    faster = learning_rate(model, "lora+")
    assert faster == pytest.approx(rule(16 * alpha), rel=0.06)
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
