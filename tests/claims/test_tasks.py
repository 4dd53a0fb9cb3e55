"""Two more tasks of digits: what they ask, and which claims turn on them."""

import numpy as np
import pytest

import claims
import lora_np as lnp
from claims.lab import batched, protocol, redrawn, tasks
from claims.lab.batched import HALVES, Digits
from claims.lab.rules import CONTRADICTED, NOT_SHOWN, SUPPORTED, TASK
from claims.lab.trial import read
from tests.rounding import assert_again


def test_names_change_and_images_stay():
    images, labels = batched.digits()
    for seed in range(20):
        x, names = batched.NEW["names"](images, labels, seed)
        assert np.array_equal(x, batched.flat(images))
        pairs = {*zip(labels.tolist(), names.tolist(), strict=True)}
        assert len(pairs) == len({new for _, new in pairs}) == 10
        assert all(old != new for old, new in pairs)
    first, second = (batched.NEW["names"](images, labels, seed)[1] for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_near_moves_each_image_by_two_pixels_and_loses_none():
    images, labels = batched.digits()
    x, names = batched.NEW["near"](images, labels, 0)
    assert np.array_equal(names, labels)
    moved = x.reshape(-1, 8, 8)
    upright = batched.flat(images).reshape(-1, 8, 8)
    assert np.array_equal(moved[:, :, 2:], upright[:, :, :-2])
    assert np.array_equal(moved[:, :, :2], upright[:, :, -2:])


@pytest.mark.parametrize("new", batched.NEW)
def test_the_untrained_network_cannot_do_the_new_task_and_a_lora_learns_it(new):
    setup = Digits(new=new, steps=100)
    before = setup.runs([0, 1], [0.1], kind="untrained")
    after = setup.runs([0, 1], [0.016], kind="lora", rank=8, alpha=16)
    for half in HALVES:
        assert before[half].shape == (2, 1)
        assert np.all(before[half] > np.log(10))
        assert np.all(after[half] < 1.5)


@pytest.mark.parametrize("task", tasks.TASKS)
def test_recorded_lines_come_again(task):
    one = redrawn.sweeps(f"digits-{task}")["LoRA, r = 8"]
    place = one.best(HALVES[0], range(16))
    again = one.setup.runs(range(8), [redrawn.rate(place)], **one.method)
    for half in HALVES:
        found, recorded = np.log(again[half][:, 0]), one.logs(place, half, range(16))
        assert_again(found, recorded[:8])
        with pytest.raises(AssertionError):  # other seeds
            assert_again(found, recorded[8:])


def test_every_method_on_digits_has_run_on_each_task():
    for task in tasks.TASKS:
        for name, sweep in redrawn.sweeps(f"digits-{task}").items():
            best = {sweep.best(half, range(16)) for half in HALVES}
            near = {place + i for place in best for i in (-1, 0, 1)}
            assert near <= {*sweep.known(range(16))}, name


SIDE = {"turns": SUPPORTED, "stays": SUPPORTED, "fails": CONTRADICTED}


@pytest.fixture
def known(monkeypatch):
    """One part that turns, one that does not, and one that fails on the first task alone."""
    names = {"turns": CONTRADICTED, "stays": NOT_SHOWN, "fails": SUPPORTED}
    found = {
        figure: {task: {"verdict": one, "mean": 1.0, "low": 0.9, "high": 1.1} for task, one in
                 (("side", SIDE[figure]), ("names", names[figure]), ("near", NOT_SHOWN))}
        for figure in SIDE
    }  # fmt: skip
    monkeypatch.setattr(tasks, "recorded", lambda: {"one": found})
    return found


def test_a_part_turns_if_it_is_supported_on_one_task_and_contradicted_on_another(known):
    assert tasks.turning("one") == ["turns", "fails"]
    assert tasks.verdict("one", SUPPORTED) == TASK
    assert "with other names" in tasks.sentence("one", dict.fromkeys(SIDE, "label"))
    assert tasks.turning("another") == []


def test_a_claim_that_fails_on_every_task_does_not_depend_on_it(known):
    assert tasks.verdict("one", CONTRADICTED, ["of another setup"]) == CONTRADICTED
    assert tasks.verdict("one", CONTRADICTED, ["fails"]) == TASK
    known["stays"] = {task: one | {"verdict": CONTRADICTED} for task, one in known["stays"].items()}
    assert tasks.verdict("one", CONTRADICTED) == CONTRADICTED


def test_a_lab_of_another_task_sweeps_it_in_the_place_of_digits():
    plain, other = protocol.Lab(), protocol.Lab(task="near")
    first, second = (lab.redrawn("digits", "LoRA, r = 8")[0] for lab in (plain, other))
    assert (first.sweep.setup.new, second.sweep.setup.new) == ("side", "near")
    assert other.redrawn("linear", "LoRA, r = 8")[0].sweep.setup == batched.Linear()


@pytest.mark.parametrize("name", ["asymmetry", "lora-xs"])
def test_what_is_recorded_follows_from_the_lines(name):
    figures = read(claims.claim(name), lnp.course.claims()[name]["figures"])
    assert tasks.measured_on_each(claims.claim(name), figures) == tasks.recorded()[name]
