"""No law lets an answer pass that takes one argument for another, or does not look at one."""

from itertools import combinations

import numpy as np
import pytest

from lora_np.exercises import SEEDS, judge, lessons, solution
from lora_np.exercises.testing import local_caller
from tests.drawing import every, few
from tests.exercises.test_catalogue import function_of

# BLAS sometimes raises this flag for finite matrices of odd shapes; a learner sees no warning
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered in matmul")

ALL = [one for lesson in lessons() for one in lesson.exercises]
# Only their sum or product counts, so that the answer is the same when they are exchanged.
SYMMETRIC = {
    "lora_count": {"d and k"},
    "last_rank_that_saves": {"d and k"},
    "attention_count": {"layers and r"},
    "step_multiplications": {"d and k"},
    "dora_weight": {"B and alpha"},
    "chance_similarity": {"i and j"},
    "one_alpha": {"B and own"},
    "bits_per_parameter": {"d and k"},
}
SLOW = ("train_lora", "project_training")  # they train


def exchanged(function, i, j):
    def answer(*arguments):
        given = list(arguments)
        given[i], given[j] = given[j], given[i]
        return function(*given)

    return answer


def constant(function, i, value):
    return lambda *arguments: function(*arguments[:i], value, *arguments[i + 1 :])


def passes(one, answer):
    with np.errstate(all="ignore"):
        return judge(one, local_caller(answer), SEEDS, smallest=False).passed


@pytest.mark.filterwarnings("ignore")
@every("one", few([one for one in ALL if one.name not in SLOW], 6))
def test_exchanged_and_constant_arguments_are_refused(one):
    function = function_of(solution(one.name).code, one.name)
    places = range(len(one.parameters))
    passed = {
        f"{one.parameters[i]} and {one.parameters[j]}"
        for i, j in combinations(places, 2)
        if passes(one, exchanged(function, i, j))
    }
    passed |= {
        f"{one.parameters[i]} = {value}"
        for i in places
        for value in (1, 2, 0.5)
        if passes(one, constant(function, i, value))
    }
    assert passed == SYMMETRIC.get(one.name, set())
