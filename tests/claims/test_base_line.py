"""The untrained model's loss stands beside every setup that a claim trains in."""

import numpy as np
import pytest

import claims
from claims.lab import base_line, redrawn, setups

RECORDED = claims.records()
TRAINED = [name for name, record in RECORDED.items() if record.get("methods")]


@pytest.mark.parametrize("name", TRAINED)
def test_every_setup_of_a_claim_has_its_untrained_loss(name):
    known = base_line.recorded()[name]
    swept = {one.split(": ")[0] for one in RECORDED[name]["methods"]} & {*redrawn.METHODS}
    assert swept <= {*known}
    assert ("at scale" in RECORDED[name]) == (base_line.LARGE in known)
    for setup, losses in known.items():
        assert losses["low"] <= losses["mean"] <= losses["high"], setup


@pytest.mark.parametrize("name", TRAINED)
def test_the_best_rate_of_every_method_of_text_and_digits_ends_below_it(name):
    for method, sweep in RECORDED[name]["methods"].items():
        setup = method.split(": ")[0]
        if setup in ("digits", "language", "linear", "muon", "batch"):
            best = sweep["rates"][f"{sweep['best']:g}"]["test"]
            assert np.mean(best) < base_line.recorded()[name][setup]["mean"], method


@pytest.mark.parametrize("setup", ["digits", "digits-names", "digits-near", "linear", "muon"])
def test_recorded_lines_are_the_bases_loss(setup):
    sweep = next(iter(redrawn.sweeps(setup).values()))
    tasks = sweep.setup.tasks(range(2))
    losses = [[float(sweep.setup.loss(task.base(x), y)) for x, y in task.halves] for task in tasks]
    found = redrawn.untrained(sweep, range(sweep.seeds))[:2]
    assert found == pytest.approx(np.exp(np.mean(np.log(losses), axis=1)), rel=1e-3)


def test_a_run_that_changes_nothing_has_the_untrained_loss():
    found = setups.Digits(steps=base_line.STEPS).run(
        base_line.NOTHING, 0, kind="lora", rank=8, alpha=8
    )
    base, parts = setups.reader()
    assert found["test"] == pytest.approx(setups.loss(base, parts["test"]), rel=1e-5)


def test_at_135_million_parameters_it_is_that_of_both_texts():
    found = base_line.large()
    assert found["135M"].size == found["135M, old text"].size >= 6
    assert found["135M, old text"] == pytest.approx([3.873] * found["135M"].size, abs=1e-3)
    assert 3.7 < found["135M"].min() < found["135M"].max() < 4.1


def test_the_file_follows_from_the_lines():
    for name in ("rslora", "attention-or-mlp", "rate-ten-times"):
        known = base_line.setups(claims.claim(name), RECORDED[name])
        found = {setup: base_line.numbers(setup, losses) for setup, losses in known.items()}
        assert found == base_line.recorded()[name]
