"""No mutant that an independent judge finds wrong is accepted by a check.

The judge compares with the solution on 1,000 large inputs from `tests.exercises.inputs`, which
shares no code with the checks. ``python -m tests.exercises.test_testing`` prints the counts.
"""

import contextlib
import io
import random
import signal
import tomllib
import warnings

import numpy as np
import pytest

from lora_np.exercises import SEEDS, judge, lessons, other_seeds, puzzles, run_cell, solution
from lora_np.exercises.testing import local_caller
from tests.attempts import FOLDER
from tests.drawing import FULL
from tests.exercises.inputs import MAKERS, same_answer
from tests.exercises.mutants import mutants
from tests.exercises.test_blanks import changed
from tests.exercises.test_catalogue import RIGHT, function_of

INPUTS = 1000
PARTS = 100
SECONDS = 20  # for a mutant that loops for ever
EXERCISES = {one.name: one for lesson in lessons() for one in lesson.exercises}
PUZZLES = {one.name: one for one in puzzles()}


class Endless(BaseException):
    """A call takes too long."""


@contextlib.contextmanager
def limited():
    def late(number, frame):
        raise Endless

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def of_solutions():
    """1,000 mutants of the solutions and of other right answers, the same ones in every run."""
    sources = [(name, solution(name).code) for name in EXERCISES]
    sources += [(one.exercise, one.source) for one in RIGHT]
    several = [(name, code) for name, right in sources if name in MAKERS for code in mutants(right)]
    return random.Random(53).sample(sorted(set(several)), 1000)


def of_lines():
    """600 mutants of right lines of the puzzles."""
    table = tomllib.loads((FOLDER / "puzzles.toml").read_text("utf-8"))["right"]
    lines = [(name, line) for name, one in PUZZLES.items() for line in [one.right, *table[name]]]
    several = {(name, new) for name, line in lines for new in changed(line)}
    several |= {(name, newer) for name, new in sorted(several) for newer in changed(new)}
    return random.Random(53).sample(sorted(several), 600)


def function(name, code):
    """What the mutant defines, or None if it does not even run."""
    if name in PUZZLES:
        names = {}
        return None if run_cell(PUZZLES[name].cell(code), "cell 0", names) else names[name]
    try:
        return function_of("import lora_np\n" + code, name)
    except AssertionError:
        return None


def accepted(name, answer, seeds):
    one = PUZZLES.get(name) or EXERCISES[name]
    return judge(one, local_caller(answer), seeds, smallest=False).passed


def verdict(name, code):
    """Whether a check accepts it, and if so, whether it is right on all inputs of the judge."""
    with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
        try:
            with limited(), contextlib.redirect_stdout(io.StringIO()):
                answer = function(name, code)
                if answer is None or not accepted(name, answer, SEEDS):
                    return "refused"
        except Endless:
            return "refused"
        right = function(name, PUZZLES[name].right if name in PUZZLES else solution(name).code)
        if same_answer(name, right, answer, INPUTS):
            return "right"
        # a check of a student has one sequence of inputs; a grading has others
        return "wrong" if accepted(name, answer, other_seeds(0)) else "wrong, but graded as wrong"


def share(cases):
    return cases if FULL else cases[50::PARTS]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [of_solutions, of_lines], ids=lambda kind: kind.__name__)
def test_no_mutant_that_is_wrong_is_accepted(kind):
    wrong = [case for case in share(kind()) if verdict(*case).startswith("wrong")]
    assert not wrong, "\n\n".join(f"{name}:\n{code}" for name, code in wrong)


def test_the_judge_tells_right_from_wrong():
    """It calls each solution right, and a changed one wrong."""
    for name in list(MAKERS)[:: 1 if FULL else 9]:
        right = function(name, PUZZLES[name].right if name in PUZZLES else solution(name).code)
        with np.errstate(all="ignore"):
            assert same_answer(name, right, right, 30), name
            assert not same_answer(name, right, lambda *arguments: None, 30), name


if __name__ == "__main__":
    from collections import Counter

    for kind in (of_solutions, of_lines):
        counts = Counter()
        for name, code in kind():
            said = verdict(name, code)
            counts[said] += 1
            if said.startswith("wrong"):
                print(f"{said}: {name}\n{code}", flush=True)
        print(kind.__name__, dict(counts), flush=True)
