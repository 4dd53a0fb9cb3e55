"""The longer runs that a later day starts: that a stopped sweep goes on, and what runs beside it."""

from dataclasses import dataclass

import numpy as np
import pytest

import claims
from claims.forgetting_frontier import FAR
from claims.lab import longer
from claims.lab.at_scale import METHODS
from claims.lab.redrawn import Book, Sweep, rate
from claims.lab.text import Text

SMALL = Text(("austen",), steps=2, batch=2, length=16, rows=4)


class Bowl:
    """A setup whose best rate is known."""

    def __init__(self):
        self.count = 0

    def runs(self, seeds, rates, **method):
        self.count += len(seeds) * len(rates)
        losses = np.exp(
            [[np.log(lr / 0.05) ** 2 / 9 + seed / 100 for lr in rates] for seed in seeds]
        )
        return {"first": losses, "second": losses}


def test_a_stopped_sweep_goes_on_where_it_was_and_parts_know_of_each_other(tmp_path):
    setup, whole = Bowl(), Bowl()
    for _ in range(2):
        Sweep(Book(tmp_path / "text.0.jsonl"), "method", setup, {}, 0, width=1, look=2).search(
            range(6)
        )
    sweep = Sweep(Book(tmp_path / "text.1.jsonl"), "method", setup, {}, 0, width=1, look=2)
    sweep.search(range(6))
    Sweep(Book(None), "method", whole, {}, 0, width=1, look=2).search(range(6))
    assert setup.count == whole.count  # nothing ran twice
    best = rate(sweep.best("first", range(6)))
    assert 0.05 / 2**0.5 <= best <= 0.05 * 2**0.5
    assert {*sweep.known(range(6))} >= {sweep.best("first", range(6)) + i for i in (-1, 0, 1)}


def test_with_few_seeds_looking_the_others_run_at_the_best_rate_alone(tmp_path):
    setup = Bowl()
    sweep = Sweep(Book(tmp_path / "text.0.jsonl"), "method", setup, {}, 1, width=1, look=2)
    for seeds in (range(4), range(6)):  # a later run adds seeds
        sweep.search(seeds, neighbours=False)
    best = sweep.best("first", range(6))
    assert sweep.known(range(6)) == [best]
    assert {*sweep.known(range(2))} >= {best - 1, best, best + 1}
    assert setup.count == 2 * len(sweep.known(range(2))) + 4


def test_rates_beside_the_best_run_with_all_seeds(tmp_path):
    book = Book(tmp_path / "smollm2.0.jsonl")
    sweep = lambda name: Sweep(book, name, Bowl(), {}, 1, width=1, look=2)
    with pytest.raises(SystemExit, match="LoRA, r = 8: run that first"):
        longer.beside(sweep("LoRA, r = 1"), range(4))
    for name in ("LoRA, r = 8", "full"):
        sweep(name).search(range(4), neighbours=False)
        longer.beside(sweep(name), range(4))
    longer.beside(sweep("LoRA, r = 1"), range(4))
    best = sweep("full").best("first", range(2))
    assert sweep("full").known(range(4)) == [best - 2, best - 1, best]
    assert sweep("LoRA, r = 1").known(range(4)) == [best]
    assert sweep("LoRA, r = 8").known(range(4)) == [best - 2, best - 1, best]
    assert {*longer.BESIDE} < {*METHODS}


def test_parts_share_the_methods():
    parts = [sweep.name for part in range(3) for sweep in longer.sweeps(SMALL, part, 3)]
    assert sorted(parts) == sorted(METHODS)


@dataclass
class WithOld(Bowl):
    old: str = "near"
    count: int = 0

    def runs(self, seeds, rates, **method):
        assert self.old == str(longer.FAR)
        losses = super().runs(seeds, rates, **method)
        return {**losses, "old": losses["first"]}


def test_a_far_text_is_measured_at_the_learning_rates_that_were_chosen(tmp_path, monkeypatch):
    monkeypatch.setattr(longer, "FOLDER", tmp_path)
    names = ("LoRA, r = 8", "full", "LoRA, r = 64")
    for name in names:
        found = Sweep(Book(tmp_path / "smollm2.0.jsonl"), name, Bowl(), *METHODS[name], width=1)
        found.search(range(2))
    longer.far(WithOld(), range(2))
    far = Book(tmp_path / "smollm2-far.0.jsonl")
    for name in names:
        sweep = Sweep(far, name, None, {}, 0, width=1)
        best = found.best("first", range(2))
        assert sweep.known(range(2)) == [best - 2, best - 1, best]
    assert Sweep(far, "untrained", None, {}, 0, width=1).known(range(2)) == [0]


def test_the_card_says_how_many_seeds_ran_with_the_far_text():
    scale = claims.claim("forgetting-frontier").at_scale
    figures = scale.recorded()["figures"]
    assert {len(figures[name]["values"]) for name in FAR} == {3}
    assert len(figures["old8"]["values"]) == 6
    assert "three of the six seeds ran with it" in scale.setting
