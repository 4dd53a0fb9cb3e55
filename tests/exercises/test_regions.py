"""Every law is seen to fail: an answer that is spoiled inside one region of inputs is refused."""

import tomllib
from functools import cache

import numpy as np
import pytest

from lora_np.exercises import SEEDS, judge, lessons, other_seeds, puzzles, run_cell
from lora_np.exercises.catalogue import DATA
from lora_np.exercises.inputs import Draw, Rejected
from lora_np.exercises.regions import regions
from lora_np.exercises.testing import Answer, local_caller
from tests.drawing import FULL, few

# BLAS sometimes raises this flag for finite matrices of odd shapes; a learner sees no warning
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered in matmul")

TABLE = tomllib.loads((DATA / "regions.toml").read_text("utf-8"))
PUZZLES = {one.name: one for one in puzzles()}
ALL = {one.name: one for lesson in lessons() for one in lesson.exercises} | PUZZLES
RANK = "a rank in between"
SLOW = ("train_lora", "project_training", "project_lora")


class Stop(Exception):  # noqa: N818
    """Enough is drawn: the answer is not wanted."""


@cache
def solved(name):
    one, names = ALL[name], {}
    source = one.cell(one.right) if name in PUZZLES else one.answer
    assert run_cell(source, "cell 0", names) == ""
    return names[name]


@cache
def known(name):
    """The regions of an exercise, whichever of its laws looks for them."""
    one = ALL[name]
    found = (regions(name, law.slug, tuple(one.parameters)) for law in one.laws)
    return next(filter(None, found))


@cache
def drawn(name):
    """The regions that fit the kinds of arguments that the exercise draws."""
    one, seen = ALL[name], set()

    def caller(arguments, rules):
        seen.update(region for region, of in known(name).items() if of(*arguments) is not None)
        raise Stop

    for place, law in enumerate(one.laws):
        for case in range(40):
            try:
                law.check(Draw(np.random.default_rng([place, case])), Answer(one, caller))
            except (Rejected, Stop):
                continue
    return sorted(seen)


def spoiled(value):
    """Another value of the same kind."""
    if isinstance(value, dict):
        return {key: spoiled(one) for key, one in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(map(spoiled, value)) if value else [0]
    if isinstance(value, str):
        return value + "s"
    return 2 * value + 1


def wrong_inside(name, region):
    """The solution, but another answer in the region."""
    solution, inside = solved(name), known(name)[region]

    def answer(*arguments):
        value = solution(*arguments)
        return spoiled(value) if inside(*arguments) else value

    return answer


def refused(name, region, seeds):
    with np.errstate(all="ignore"):
        answer = local_caller(wrong_inside(name, region))
        return not judge(ALL[name], answer, seeds, smallest=False).passed


@pytest.mark.parametrize("part", range(4))
def test_an_answer_that_is_wrong_in_a_region_is_refused_by_every_seed(part):
    cases = few([(name, region) for name in ALL for region in drawn(name)], 12)
    for name, region in cases[part::4]:
        if FULL or name not in SLOW:
            for seeds in (SEEDS, *map(other_seeds, range(10 if FULL else 1))):
                assert refused(name, region, seeds), (name, region, seeds)


def ranked():
    return [name for name in ALL if RANK in drawn(name)]


def test_every_exercise_that_has_a_rank_has_ranks_in_between():
    named = {name for name, one in ALL.items() if {"r", "rank"} & {*one.parameters}}
    without = {"alpha_for_rank", "attention_count", "project_counting"}  # no matrix to compare with
    assert named - without <= {*ranked()}


def test_right_only_at_rank_one_and_full_rank_passes_no_grading():
    for name in ranked() if FULL else few([name for name in ranked() if name not in SLOW], 6):
        for seed in range(100 if FULL else 4):
            assert refused(name, RANK, other_seeds(seed)), (name, seed)


def test_what_has_no_region_is_listed_with_its_reason():
    reasons = [reason for several in TABLE["left_out"].values() for reason in several.values()]
    assert len(reasons) <= 25
    assert all(len(reason) > 20 for reason in reasons)
    for name, several in TABLE["left_out"].items():
        arguments = {region.partition(":")[0] for region in several}
        assert arguments <= {*ALL[name].parameters}, name


def test_a_region_of_an_exercise_has_a_name_that_exists():
    for of in TABLE["of"]:
        several = {*of.split(", ")}
        assert of in ALL or any(several <= {*one.parameters} for one in ALL.values()), of
    for name, laws in TABLE["searching"].items():
        assert {*laws} < {law.slug for law in ALL[name].laws}


def test_a_law_sees_small_inputs_first_and_five_of_each_region():
    cut, asked = ALL["cut"], []

    def caller(arguments, rules):
        asked.append(arguments)
        return local_caller(solved("cut"))(arguments, rules)

    assert judge(cut, caller, SEEDS).passed
    assert max(max(M.shape) for M, _ in asked[:4]) <= 3
    looked_for = {name: known("cut")[name] for name in drawn("cut")}
    for name, inside in looked_for.items():
        assert sum(bool(inside(*arguments)) for arguments in asked) >= 5, name
    # only what is needed is asked after the usual cases; the last call is the example
    missing = dict.fromkeys(looked_for, 5)
    for place, arguments in enumerate(asked[:-1]):
        new = [n for n, inside in looked_for.items() if inside(*arguments) and missing[n]]
        assert new or place < cut.cases
        missing |= {name: missing[name] - 1 for name in new}
