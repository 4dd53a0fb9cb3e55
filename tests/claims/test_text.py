"""Text with its base, split, start and order redrawn: what a seed draws, and what a run measures."""

from dataclasses import replace

import numpy as np
import pytest

import claims
import lora_np as lnp
from claims import intruder_dimensions
from claims.lab import redrawn, setups, text
from claims.lab.at_scale import between
from claims.lab.batched import HALVES
from claims.lab.redrawn import Book, Sweep
from claims.lab.rules import NOT_SHOWN
from claims.lab.text import BASES, LOOKED, LOSSES, METHODS, Text, loaded
from claims.lab.trial import read
from recipes import base as recipe

RECORDED = claims.records()
SMALL = Text(steps=2, batch=2, length=16, rows=4)


def test_a_seed_draws_split_start_and_order():
    base = loaded("austen")
    first, second = SMALL.parts(0, base), SMALL.parts(1, base)
    assert not np.array_equal(first["first"], second["first"])
    held = {row.tobytes() for name in ("first", "second") for row in first[name]}
    assert not held & {row.tobytes() for row in first["training"]}
    assert np.array_equal(first["old"], second["old"])


def test_losses_are_of_each_seed_and_rate_and_a_run_repeats_itself():
    method = {"kind": "lora", "rank": 2, "alpha": 4}
    found = SMALL.runs([0, 1], [0.01, 0.02], **method)
    assert {name: losses.shape for name, losses in found.items()} == dict.fromkeys(LOSSES, (2, 2))
    assert len({*np.round(found["first"].ravel(), 9)}) == 4
    assert SMALL.once(1, 0.02, **method)["first"] == found["first"][1, 1]


def test_seeds_take_the_bases_in_turn_and_each_half_has_all_of_them():
    setup, seeds = Text(), redrawn.DRAWN["language"]
    drawn = [setup.bases[seed % len(setup.bases)] for seed in range(seeds)]
    assert {*drawn[: seeds // 2]} == {*drawn[seeds // 2 :]} == {*BASES}
    assert [setup.base(seed) for seed in range(seeds)] == [loaded(name) for name in drawn]
    leaves = [dict(lnp.leaves(loaded(name))) for name in BASES]
    for path, W in leaves[0].items():
        others = [other[path] for other in leaves[1:]]
        assert all(W.shape == other.shape and W.dtype == other.dtype for other in others)
        assert not any(np.array_equal(W, other) for other in others)


def test_every_base_has_learnt_about_as_much_as_the_shipped_one():
    rows = Text().parts(0, loaded("austen"))["old"]
    losses = [setups.mean_loss(loaded(name), rows) for name in BASES]
    assert losses == pytest.approx([losses[0]] * 4, abs=0.03)
    assert max(losses) < 1.3 < np.log(len(recipe.CHARACTERS))


def test_what_is_looked_at_is_of_the_weights_that_changed():
    method = {"kind": "lora", "rank": 2, "alpha": 4, "look": True}
    found = SMALL.runs([1], [0.02], **method)
    assert {*found} == {*LOSSES, *LOOKED}
    tuned = SMALL.train(1, 0.02, **method)
    one = text.directions(loaded(BASES[1]), tuned, 2)
    assert {name: found[name][0, 0] for name in LOOKED} == one
    assert one["rank 90"] <= 2
    assert one["top"] < one["amplified"]
    assert {*SMALL.runs([1], [0.02], **method | {"look": False})} == {*LOSSES}


def test_an_untrained_model_is_the_base_and_a_run_that_diverged_is_infinite(monkeypatch):
    assert SMALL.train(1, 0.1, **text.UNTRAINED) is loaded(BASES[1])

    def diverge(*args, **settings):
        raise FloatingPointError("the loss is nan")

    monkeypatch.setattr(text.lnp, "fit", diverge)
    found = SMALL.runs([0], [0.1], kind="lora", rank=2, look=True)
    assert all(np.isinf(values).all() for values in found.values())


def test_what_was_looked_at_is_recorded_as_it_is_and_belongs_to_no_half(tmp_path):
    book = Book(tmp_path / "language.jsonl")
    losses = {"first": np.exp([[0.5]]), "second": np.exp([[0.7]]), "old": np.exp([[0.25]])}
    for at in (-1, 0, 1):
        run = {"method": "one", "rate": redrawn.rate(at), "seeds": 0}
        worse = {name: (values * np.exp(abs(at)))[:, 0] for name, values in losses.items()}
        book.note(run, worse | {"intruders": np.array([0.0])})
    sweep = Sweep(Book(book.path), "one", None, {}, 0, width=1)
    assert sweep.values([0]) == pytest.approx(0.6)
    assert sweep.values([0], "old", beside=1) == pytest.approx(1.25)
    assert sweep.values([0], "intruders") == 0
    assert redrawn.Redrawn(sweep, [0]).losses("intruders") == 0
    assert redrawn.Redrawn(sweep, [0]).losses() == pytest.approx(np.exp(0.6))


def used():
    """Names of the sweeps on text that claims show."""
    for record in RECORDED.values():
        for name in record.get("methods", {}):
            setup, _, own = name.partition(": ")
            if setup == "language":
                yield own


def test_every_method_on_text_is_used_by_a_claim():
    assert {*used()} == {*METHODS} - {"LoRA, r = 16, kappa / 16", "LoRA, r = 16, kappa x 16"}
    assert {"text_smaller", "text_larger"} <= RECORDED["one-knob"]["figures"].keys()


ON_TEXT = [name for name, record in RECORDED.items()
           if any(one.startswith("language: ") for one in record.get("methods", {}))]  # fmt: skip


@pytest.mark.parametrize("name", ON_TEXT)
def test_one_verdict_changes_if_the_two_seeds_of_a_base_count_as_one(name):
    claim, record = claims.claim(name), RECORDED[name]
    figures = read(claim, record["figures"])
    for key, figure in figures.items():
        if len(figure.values) == redrawn.DRAWN["language"]:
            means = np.mean(np.reshape(figure.numbers, (2, len(BASES))), axis=0)
            figures[key] = figure._replace(values=tuple(map(figure.back, means)))
    fewer = {"intruder-dimensions": NOT_SHOWN}  # as the report says
    assert claim.rule.verdict(figures) == fewer.get(name, record["verdict"])


def test_a_quick_run_takes_the_rates_of_the_full_one_with_one_seed_for_each_base():
    small, full = (redrawn.sweeps("language", quick) for quick in (True, False))
    assert redrawn.QUICK["language"] == redrawn.LOOKING["language"] == len(BASES)
    for name, sweep in small.items():
        assert sweep.book.path is None
        assert sweep.setup.bases == BASES
        assert sweep.setup.steps < full[name].setup.steps
        for half in HALVES:
            assert sweep.best(half, range(4)) == full[name].best(half, range(8))


def test_the_loss_of_the_bases_is_paired_with_the_seeds():
    setup = Text()
    known = redrawn.untrained(redrawn.sweeps("language")["full"], range(8))
    for seed in (1, 6):
        parts = setup.parts(seed, setup.base(seed))
        mean = np.mean([np.log(setups.mean_loss(setup.base(seed), parts[half])) for half in HALVES])
        assert known[seed] == pytest.approx(np.exp(mean), rel=1e-4)


def test_shrinking_no_intruder_changes_nothing_and_shrinking_some_does(monkeypatch):
    sweep = redrawn.sweeps("language")["LoRA, r = 16"]
    small = redrawn.Redrawn(replace(sweep, setup=SMALL), range(8))
    still = intruder_dimensions.shrinking(small, 0)
    assert still == pytest.approx((0, 0), abs=1e-6)  # two steps make no intruder
    everything = lambda W0, W, **settings: range(3)
    monkeypatch.setattr(lnp.linalg, "intruder_dimensions", everything)
    learned, kept = intruder_dimensions.shrinking(small, 0)
    assert abs(learned) > 1e-3 < abs(kept)


def test_the_full_update_is_matched_where_it_has_learned_as_much():
    curve = [(1.0, 0.0), (0.8, 0.1), (0.6, 0.3)]  # new and old loss, from the lowest rate up
    assert between(curve, 0.7) == pytest.approx(0.2)
    assert between(curve, 1.0) == 0
    assert np.isnan(between(curve, 0.5))


def test_other_splits_has_the_same_verdict_without_the_shipped_base():
    claim, record = claims.claim("other-splits"), RECORDED["other-splits"]
    figures = read(claim, record["figures"])
    others = [seed for seed in range(8) if seed % len(BASES)]
    kept = {
        key: one._replace(values=tuple(one.values[seed] for seed in others))
        for key, one in figures.items()
    }
    assert claim.rule.verdict(kept) == record["verdict"]


def test_half_of_the_best_rate_costs_rank_4_one_percent_and_its_factor_falls_below_ten():
    sweep = redrawn.sweeps("language")["LoRA, r = 4"]
    lost = np.mean(sweep.values(range(8), beside=-1) - sweep.values(range(8)))
    assert 0.005 < lost < 0.015
    assert RECORDED["amplification"]["figures"]["slow"]["high"] < 10
