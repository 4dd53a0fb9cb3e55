"""The round trip through nbgrader itself, and the same points as `lora-np exercises grade`."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lora_np.exercises import HEADER, lessons, solution
from lora_np.grading import grade, nbgrader
from lora_np.grading.assignments import HIDDEN
from tests.attempts import attempts

pytestmark = pytest.mark.nbgrader
LESSON = lessons([1])[0]
RIGHT = {one.name: solution(one.name).code for one in LESSON.exercises}
HALF = {name: RIGHT[name] for name in ("column_of_product", "noisy_rank")}
LIBRARY = {
    "rank_by_elimination": "def rank_by_elimination(M):\n    return np.linalg.matrix_rank(M)\n"
}
# Each breaks some laws: 1 of 2 points, none of 2 and 2 of 3.
WRONG = {
    "A transposed",
    "a thousandth of the largest",
    "a tolerance that knows nothing of the matrix",
}
PART = {
    one.exercise: one.source[one.source.index("def ") :] for one in attempts() if one.name in WRONG
}
STUDENTS = {"right": RIGHT, "half": HALF | LIBRARY, "part": PART, "empty": {}}
POINTS = {"right": 9.0, "half": 3.0, "part": 3.0, "empty": 0.0}


def run(folder, command, *arguments):
    beside = (
        # nbgrader calls alembic by name
        f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    result = subprocess.run(
        [sys.executable, "-m", "nbgrader", command, *arguments],
        cwd=folder, env=os.environ | {"PATH": beside}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stderr


@pytest.fixture(scope="module")
def classroom(tmp_path_factory):
    """A course of one lesson, released, answered by three students, graded, and given back."""
    folder = tmp_path_factory.mktemp("course")
    nbgrader(folder, [LESSON.number])
    run(folder, "generate_assignment", LESSON.stem)
    released = (folder / "release" / LESSON.stem / f"{LESSON.stem}.ipynb").read_text(
        encoding="utf-8"
    )
    for student, answers in STUDENTS.items():
        notebook = json.loads(released)
        for cell in notebook["cells"]:
            name = cell["metadata"].get("nbgrader", {}).get("grade_id")
            if name in answers:
                cell["source"] = answers[name]
        path = folder / "submitted" / student / LESSON.stem / f"{LESSON.stem}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(notebook), encoding="utf-8")
    run(folder, "autograde", LESSON.stem)
    run(folder, "generate_feedback", LESSON.stem)
    run(folder, "export", "--to", "grades.csv")
    return folder


def test_what_is_released_holds_no_solution_and_no_hidden_test(classroom):
    text = (classroom / "release" / LESSON.stem / f"{LESSON.stem}.ipynb").read_text(
        encoding="utf-8"
    )
    code = [
        "".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"
    ]
    expected = [f"{HEADER}from lora_np import exercises"]
    for exercise in LESSON.exercises:
        expected += [exercise.stub.rstrip(), f"exercises.check({exercise.name})"]
    assert [cell.rstrip() for cell in code] == expected
    assert str(HIDDEN) not in text


def test_nbgrader_gives_the_points_that_were_earned(classroom):
    with (classroom / "grades.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["student_id"]: float(row["score"]) for row in rows} == POINTS
    assert {float(row["max_score"]) for row in rows} == {9.0}


def test_grade_gives_the_same_points(classroom):
    grades = grade(classroom / "submitted", rng=HIDDEN)
    assert {student: grades.points(student) for student in grades.reports} == POINTS


def test_feedback_names_the_law(classroom):
    page = (classroom / "feedback" / "half" / LESSON.stem / f"{LESSON.stem}.html").read_text(
        encoding="utf-8"
    )
    assert "numpy.linalg.matrix_rank is not allowed in this exercise" in page
    assert "Not written yet" in page
