"""Points for each law: the same in a notebook, in a terminal, in nbgrader and in a graded class."""

import ast
import json
import sys

import numpy as np
import pytest

import lora_np
from lora_np import exercises
from lora_np.exercises import HEADER, lessons, solution
from lora_np.grading import check_file, grade
from lora_np.grading.assignments import HIDDEN, teacher_notebook
from tests.attempts import attempts
from tests.drawing import few

pytestmark = pytest.mark.skipif(sys.platform == "emscripten", reason="no processes in a browser")

# Mistakes that satisfy some laws of their exercise and break others.
PARTIAL = {
    ("alpha_for_rank", "one rule for both"): 1,
    ("cross_entropy", "overflows"): 1,
    ("forget_nothing", "forgets everything"): 1,
    ("pissa_start", "freezes all of W0"): 2,
}


def sources():
    found = {(one.exercise, one.name): one.source for one in attempts()}
    return {case: found[case][found[case].index("def ") :] for case in PARTIAL}


def in_a_notebook(name, source, rng):
    names = {"np": np, "lnp": lora_np}
    exec(source, names)
    with np.errstate(all="ignore"):
        return exercises.check(names[name], rng=rng)


def in_nbgrader(name, source):
    """What nbgrader takes for the points of a cell: its last value."""
    (lesson,) = [one for one in lessons() if name in [e.name for e in one.exercises]]
    cells = {cell["id"]: cell for cell in json.loads(teacher_notebook(lesson))["cells"]}
    assert (
        cells[f"{name}-check"]["metadata"]["nbgrader"]["points"] == exercises.exercise(name).points
    )
    *before, last = ast.parse("".join(cells[f"{name}-check"]["source"])).body
    names = {"np": np, "lnp": lora_np, "exercises": exercises}
    exec(source, names)
    with np.errstate(all="ignore"):
        exec(compile(ast.Module(before, []), "cell", "exec"), names)
        return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.mark.parametrize("case", few(PARTIAL, 2), ids=" - ".join)
def test_part_of_the_laws_earns_part_of_the_points_everywhere(case, tmp_path):
    name, source = case[0], sources()[case]
    path = tmp_path / "class" / "anna.py"
    path.parent.mkdir()
    path.write_text(f"{HEADER}\n# %%\n{source}")
    here = in_a_notebook(name, source, None)
    assert here.points == PARTIAL[case]
    assert 0 < here.points < here.exercise.points
    there = check_file(path).outcomes[name]
    assert [(v.law, v.passed) for v in there.verdicts] == [(v.law, v.passed) for v in here.verdicts]
    grades = grade(path.parent, rng=HIDDEN)
    hidden = in_a_notebook(name, source, HIDDEN)
    assert {grades.points("anna"), hidden.points, in_nbgrader(name, source)} == {PARTIAL[case]}
    assert f"    {name}: {hidden.points} of {hidden.exercise.points}" in grades.feedback("anna")


@pytest.mark.parametrize("name", few(["cross_entropy", "forget_nothing"], 2))
def test_a_right_answer_earns_them_all_everywhere(name, tmp_path):
    source = solution(name).code
    path = tmp_path / "class" / "anna.py"
    path.parent.mkdir()
    path.write_text(f"{HEADER}\n# %%\n{source}")
    points = exercises.exercise(name).points
    assert (
        in_a_notebook(name, source, None).points == check_file(path).outcomes[name].points == points
    )
    assert grade(path.parent, rng=HIDDEN).points("anna") == in_nbgrader(name, source) == points
