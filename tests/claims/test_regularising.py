"""Weight decay and dropout: runs side by side are runs of `fit`, and what is recorded comes again."""

import functools
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import lora_np as lnp
from claims.lab import batched, methods, regularising
from claims.lab.batched import HALVES
from claims.lab.regularising import KEYS, KNOBS, RANKS, STUDIES, Regularised, cells, sweep
from claims.lab.rules import Figure
from tests.rounding import assert_again


def loss_of(setup, model, batch, rng=None):
    return setup.loss(model(batch[0], rng=rng), batch[1])


def test_decay_and_dropout_side_by_side_are_those_of_fit():
    setup, seeds, rates = Regularised(steps=12), [1, 2], [0.01, 0.02]
    decay, dropout = [0.0, 1.0], [0.5, 0.1]
    plain = {"kind": "lora", "rank": 3, "alpha": 6}
    found = batched.run(setup, seeds, rates, decay=decay, dropout=dropout, **plain)
    for (i, seed), (j, rate) in product(enumerate(seeds), enumerate(rates)):
        (task,) = setup.tasks([seed])
        method = plain | {"decay": decay[j], "dropout": dropout[j]}
        model = batched.starts(setup, [task], [seed], method)[0]
        schedule = lnp.nn.linear_schedule(rate, steps=setup.steps)
        tuned = lnp.freeze(lnp.fit(
            model, list(zip(task.x, task.y, strict=True)), steps=setup.steps, progress=False,
            loss=functools.partial(loss_of, setup), optimizer=methods.optimizer(schedule, **method),
            rng=np.random.default_rng([seed, 25]),
        ).model)  # fmt: skip
        for half, (x, y) in zip(HALVES, task.halves, strict=True):
            assert found[half][i, j] == pytest.approx(float(setup.loss(tuned(x), y)), rel=1e-4)


def test_each_knob_changes_a_run_and_zero_changes_nothing():
    setup, method = Regularised(steps=6), {"kind": "lora", "rank": 2, "alpha": 4}
    plain = setup.runs([0], [0.02], **method)
    for knob, key in KEYS.items():
        for value in KNOBS[knob]:
            same = np.array_equal(
                setup.runs([0], [0.02], **method, **{key: value})["first"], plain["first"]
            )
            assert same == (value == 0), (knob, value)


def test_text_takes_both_too():
    text = replace(STUDIES["text"].setup, steps=3, batch=2, length=16, rows=4)
    method = {"kind": "lora", "rank": 2, "alpha": 4}
    plain = text.once(0, 0.05, **method)["first"]
    assert text.once(0, 0.05, **method, dropout=0.0)["first"] == plain
    assert abs(text.once(0, 0.05, **method, dropout=0.5)["first"] - plain) > 1e-5
    assert abs(text.once(0, 0.05, **method, decay=10.0)["first"] - plain) > 1e-5


def test_few_images_are_the_first_of_all():
    few, all_of_them = (Regularised(images=n, steps=40).tasks([3])[0] for n in (100, 1000))
    assert len(np.unique(few.x.reshape(-1, 64), axis=0)) <= 100
    assert len(np.unique(all_of_them.x.reshape(-1, 64), axis=0)) > 500
    assert np.array_equal(few.halves[0][0], all_of_them.halves[0][0])


@pytest.mark.parametrize("name", STUDIES)
def test_every_cell_has_a_best_rate_between_others(name):
    assert len(cells()) == len(RANKS) * 9
    study = STUDIES[name]
    for cell in cells():
        one = sweep(name, *cell)
        look = study.seeds[: one.look]
        assert one.known(study.seeds), cell
        for half in HALVES:
            best = one.best(half, look)
            assert {best - 1, best, best + 1} <= {*one.known(look)}, (cell, half)


def test_recorded_lines_come_again():
    one, without = sweep("digits", 8, "dropout", 0.1), sweep("digits", 8, "weight decay", 0.0)
    place, seeds = one.best(HALVES[0], range(8)), range(8)
    again = one.setup.runs(seeds, [one_rate(place)], **one.method)
    for half in HALVES:
        found, recorded = np.log(again[half][:, 0]), one.logs(place, half, range(8))
        assert_again(found, recorded)
        with pytest.raises(AssertionError):
            assert_again(found, without.logs(place, half, range(8)))


@pytest.mark.slow
def test_a_recorded_line_of_text_comes_again():
    text = sweep("text", 8, "weight decay", 1.0)
    place = text.best(HALVES[0], range(8))
    found = text.setup.once(1, one_rate(place), **text.method)
    assert np.log(found["first"]) == pytest.approx(text.logs(place, "first", [1])[0], abs=0.005)


def one_rate(place):
    return regularising.redrawn.rate(place)


def test_words_follow_from_the_interval():
    said = lambda *values: regularising.verdict("digits", Figure(values, ratio=True))
    assert said(0.8, 0.81, 0.8) == "helps"
    assert said(0.95, 0.951, 0.95) == "helps a little"
    assert said(1.1, 1.11, 1.1) == "hurts"
    assert said(0.5, 2.0, 1.0) == "no difference shown"
