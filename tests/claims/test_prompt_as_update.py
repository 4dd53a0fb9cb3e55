"""Prompts as updates: models that a seed draws, and recorded values that come again."""

import numpy as np
import pytest

import lora_np as lnp
from claims import prompt_as_update
from claims.prompt_as_update import BOOK, FIGURES, KINDS, LARGE, compared, drawn, model_of


def test_the_twelve_random_models_differ_in_shape_and_weights():
    models = [drawn(seed) for seed in range(12)]
    shapes = {(model.config["hidden_size"], model.config["num_hidden_layers"]) for model in models}
    assert len(shapes) >= 6
    sums = {float(np.sum(lnp.value(leaf))) for model in models for _, leaf in lnp.leaves(model)[:1]}
    assert len(sums) == 12
    again = drawn(3)
    for (_, first), (_, second) in zip(lnp.leaves(models[3]), lnp.leaves(again), strict=True):
        assert np.array_equal(lnp.value(first), lnp.value(second))


@pytest.mark.parametrize("name", ["random 1", "random 5", "base 0"])
def test_recorded_values_come_again_and_the_update_is_exact_for_its_token(name):
    found = compared(model_of(name), 3)
    assert found["exact"].max() < 1e-9
    for figure in FIGURES[1:]:
        recorded = BOOK.logs({"model": name}, figure)[:3]
        assert np.log(found[figure]) == pytest.approx(recorded, abs=2e-3)


def test_an_update_that_is_left_out_is_no_update(monkeypatch):
    monkeypatch.setattr(prompt_as_update, "written", lambda model, tokens, known: model)
    found = compared(model_of("random 1"), 2)
    assert found["second"] == pytest.approx([1, 1])
    assert found["later"] == pytest.approx([1, 1])
    assert found["exact"].min() > 1e-6


def test_a_tiny_model_learns_genesis_and_its_prompts_come_from_what_it_has_not_read():
    model = prompt_as_update.tiny(0, 30)
    text = prompt_as_update.genesis(model)
    cut = prompt_as_update.TRAINED * len(text) // 5
    held = lnp.language.windows(text[cut:], 64)[:20]
    start = prompt_as_update.tiny(0, 1)
    loss = lambda one: float(lnp.language.token_loss(lnp.freeze(one), held))
    assert loss(model) < loss(start) - 0.3


def test_every_model_of_the_claim_is_recorded():
    for name in [*(name for names in KINDS.values() for name in names), LARGE]:
        few = 32 if name.startswith("base") else 8
        assert len(BOOK.logs({"model": name}, "second")) == few
