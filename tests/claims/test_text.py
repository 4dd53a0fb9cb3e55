"""Text with its base, split, start and order redrawn: what a seed draws, and what a run measures."""

import numpy as np
import pytest

import lora_np as lnp
from claims import redrawn, text
from claims.redrawn import Book, Sweep
from claims.text import KEPT, LOOKED, LOSSES, METHODS, Text, loaded
from recipes import base

SMALL = Text(KEPT, steps=2, batch=2, length=16, rows=4)


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


def test_seeds_take_the_bases_in_turn_and_each_set_has_all_of_them():
    setup, seeds = Text(), redrawn.DRAWN["language"]
    drawn = [setup.bases[seed % len(setup.bases)] for seed in range(seeds)]
    assert len({*drawn}) == 4
    assert {*drawn[: seeds // 2]} == {*drawn[seeds // 2 :]} == {*setup.bases}
    assert setup.shortened().bases == setup.bases[:2] == KEPT
    ours, theirs = (dict(lnp.leaves(loaded(name))) for name in KEPT)
    assert ours.keys() == theirs.keys()
    assert not any(np.array_equal(W, theirs[path]) for path, W in ours.items())
    assert all(W.shape == theirs[path].shape for path, W in ours.items())


def test_the_base_that_is_kept_has_learnt_as_much_as_the_shipped_one():
    rows = SMALL.parts(0, loaded("austen"))["old"]
    losses = [
        text.setups.mean_loss(loaded(name), Text(KEPT).parts(0, loaded(name))["old"])
        for name in KEPT
    ]
    assert len(rows) == 4
    assert losses[1] == pytest.approx(losses[0], abs=0.03)
    assert max(losses) < 1.6 < np.log(len(base.CHARACTERS))


def test_a_base_that_is_not_here_is_named_with_the_command_that_trains_it():
    with pytest.raises(SystemExit, match=r"claims/bases/7 is not here: .* --seed 7"):
        loaded(str(text.BASES / "7"))


def test_what_is_looked_at_is_of_the_weights_that_changed():
    method = {"kind": "lora", "rank": 2, "alpha": 4, "look": True}
    found = SMALL.runs([1], [0.02], **method)
    assert {*found} == {*LOSSES, *LOOKED}
    tuned = SMALL.train(1, 0.02, **method)
    one = text.directions(loaded(KEPT[1]), tuned, 2)
    assert {name: found[name][0, 0] for name in LOOKED} == one
    assert one["rank 90"] <= 2
    assert one["top"] < one["amplified"]
    assert {*SMALL.runs([1], [0.02], **method | {"look": False})} == {*LOSSES}


def test_an_untrained_model_is_the_base_and_a_run_that_diverged_is_infinite(monkeypatch):
    assert SMALL.train(1, 0.1, **text.UNTRAINED) is loaded(KEPT[1])

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


def test_every_method_of_a_claim_on_text_is_one_of_the_sweeps():
    assert redrawn.sweeps("language").keys() == METHODS.keys()
    for sweep in redrawn.sweeps("language").values():
        assert (sweep.width, sweep.look, sweep.seeds) == (1, 4, 8)
