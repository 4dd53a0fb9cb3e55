"""Every plausible change of a right answer breaks a law, or is proved to change nothing."""

import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lora_np.exercises import SEEDS, exercise, judge, lessons, solution
from lora_np.exercises.testing import local_caller
from tests.drawing import FULL
from tests.exercises.mutants import difference, mutants
from tests.exercises.test_catalogue import function_of

PROOFS = tomllib.loads(
    (Path(__file__).parents[1] / "exercises" / "answers" / "equivalent.toml").read_text("utf-8")
)["mutant"]
EQUIVALENT = {
    (name, line) for proof in PROOFS for name in proof["exercises"] for line in proof["lines"]
}


def made(name):
    """Mutants of a solution; what shows a step of the project to its check stays as it is."""
    code = solution(name).code
    head, shown, rest = code.partition(f"def {name}(")
    if not name.startswith("project_"):
        head, shown, rest = code, "", ""
    return [
        (name, difference(head, mutant), mutant + "\n\n" + shown + rest) for mutant in mutants(head)
    ]


@cache
def all_made():
    return [
        one for lesson in lessons() for exercise in lesson.exercises for one in made(exercise.name)
    ]


def survives(name, mutant):
    try:
        function = function_of(mutant, name)
    except AssertionError:  # it does not even run
        return False
    with np.errstate(all="ignore"):
        return judge(exercise(name), local_caller(function), SEEDS, smallest=False).passed


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", range(40) if FULL else [7])
def test_each_mutant_is_killed_or_proved_equivalent(part):
    wrong = []
    for name, line, mutant in all_made()[part::40]:
        alive = survives(name, mutant)
        if alive is not ((name, line) in EQUIVALENT):
            wrong.append(
                f"{name}: {line} {'survives' if alive else 'is killed, though proved equivalent'}"
            )
    assert not wrong, "\n".join(wrong)


def test_enough_mutants_of_every_exercise_and_no_proof_without_one():
    assert len(all_made()) >= 1000
    counts = Counter(name for name, _, _ in all_made())
    assert min(counts.values()) >= 4
    known = EQUIVALENT & {(name, line) for name, line, _ in all_made()}
    assert {line for _, line in EQUIVALENT} == {line for _, line in known}
    assert all(len(proof["proof"]) > 20 for proof in PROOFS)
