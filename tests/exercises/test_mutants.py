"""Every plausible change of a right answer breaks a law, or is proved to change nothing."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

from lora_np.exercises import QUESTIONS, exercise, judge, lessons, solution
from lora_np.exercises.asking import here
from tests.drawing import FULL
from tests.exercises.mutants import difference, mutants
from tests.exercises.test_exercises import function_of

PROOFS = tomllib.loads((Path(__file__).parents[2] / "exercises" / "equivalent.toml").read_text("utf-8"))[
    "mutant"
]
EQUIVALENT = {(name, line) for proof in PROOFS for name in proof["exercises"] for line in proof["lines"]}
MADE = [
    (one.name, difference(solution(one.name).code, mutant), mutant)
    for lesson in lessons()
    for one in lesson.exercises
    for mutant in mutants(solution(one.name).code)
]


def survives(name, mutant):
    try:
        function = function_of(mutant, name)
    except AssertionError:  # it does not even run
        return False
    with np.errstate(all="ignore"):
        return judge(exercise(name), here(function), QUESTIONS, smallest=False).passed


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", range(20) if FULL else [7])
def test_each_mutant_is_killed_or_proved_equivalent(part):
    wrong = []
    for name, line, mutant in MADE[part::20]:
        alive = survives(name, mutant)
        if alive is not ((name, line) in EQUIVALENT):
            wrong.append(f"{name}: {line} {'survives' if alive else 'is killed, though proved equivalent'}")
    assert not wrong, "\n".join(wrong)


def test_enough_mutants_of_every_exercise_and_no_proof_without_one():
    assert len(MADE) >= 1000
    counts = {lesson_exercise: 0 for lesson_exercise, _, _ in MADE}
    for name, _, _ in MADE:
        counts[name] += 1
    assert min(counts.values()) >= 9
    made = {(name, line) for name, line, _ in MADE}
    named = {line for _, line in EQUIVALENT}
    assert named == {line for name, line in EQUIVALENT & made}
    assert all(len(proof["proof"]) > 20 for proof in PROOFS)
