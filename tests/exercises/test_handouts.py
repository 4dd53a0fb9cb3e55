"""What is made from the one source: notebooks, scripts, a course, pages of solutions."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lora_np import course, exercises
from lora_np.exercises import SEEDS, judge, lessons, notebook, notebook_text, solution, start
from lora_np.exercises.handouts import script as script_of
from lora_np.exercises.testing import local_caller
from lora_np.grading import check_file, nbgrader
from lora_np.grading.assignments import CONFIG, HIDDEN, teacher_notebook
from lora_np.grading.submissions import Report, defined_in
from tests.drawing import every

LESSONS = [pytest.param(lesson, id=lesson.slug) for lesson in lessons() if lesson.exercises]


def code_of(text):
    return [
        "".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"
    ]


@every("lesson", LESSONS)
def test_a_students_files_hold_every_stub_and_no_solution(lesson):
    text, script = notebook_text(notebook(lesson)), script_of(lesson)
    assert "SOLUTION" not in text + script
    for exercise in lesson.exercises:
        assert exercise.stub.rstrip() in code_of(text)
        assert f"exercises.check({exercise.name})" in code_of(text)
        assert exercise.stub in script
        assert all(hint.splitlines()[0] in script for hint in exercise.hints)
        code = "\n".join(
            [*code_of(text), *(line for line in script.splitlines() if not line.startswith("#"))]
        )
        assert solution(exercise.name).code.partition("\n")[2] not in code


@every("lesson", LESSONS)
def test_hints_unfold(lesson):
    cells = ["".join(cell["source"]) for cell in notebook(lesson)["cells"]]
    for exercise in lesson.exercises:
        (text,) = [cell for cell in cells if exercise.statement in cell]
        assert text.count("<details><summary>") == text.count("</details>") == len(exercise.hints)


@pytest.mark.parametrize("lesson", LESSONS)
def test_notebooks_are_valid(lesson):
    nbformat = pytest.importorskip("nbformat")
    for text in (notebook_text(notebook(lesson)), teacher_notebook(lesson)):
        nbformat.validate(nbformat.reads(text, as_version=4))


@every("lesson", LESSONS)
def test_a_script_is_python_and_a_submission(lesson):
    script = script_of(lesson)
    compile(script, "script", "exec")
    assert defined_in([script]) == list(lesson.exercises)


@every("lesson", LESSONS)
def test_the_teachers_copy_is_marked_for_nbgrader(lesson):
    cells = json.loads(teacher_notebook(lesson))["cells"]
    marked = [cell for cell in cells if "nbgrader" in cell["metadata"]]
    answers, checks = marked[::2], marked[1::2]
    for exercise, answer, check in zip(lesson.exercises, answers, checks, strict=True):
        assert (
            answer["metadata"]["nbgrader"]["grade_id"],
            answer["metadata"]["nbgrader"]["solution"],
        ) == (
            exercise.name,
            True,
        )
        assert check["metadata"]["nbgrader"]["points"] == exercise.points
        source = "".join(answer["source"])
        assert source.startswith(exercise.stub.removesuffix("    ...\n"))
        assert (
            solution(exercise.name).code.partition("\n")[2]
            in source.partition("### BEGIN SOLUTION\n")[2]
        )
        hidden = f"exercises.check({exercise.name}, rng={HIDDEN})\nprint(outcome)\noutcome.points\n### END HIDDEN TESTS"
        assert "".join(check["source"]).endswith(hidden)


def test_the_teachers_copy_earns_all_points(tmp_path):
    path = tmp_path / "04.ipynb"
    path.write_text(teacher_notebook(lessons([3])[0]))
    assert check_file(path).passed


def test_start_never_overwrites(tmp_path):
    written, kept = start(tmp_path, [1])
    assert [path.name for path in written] == ["01-see-rank.ipynb", "01-see-rank.py"]
    assert kept == []
    written[1].write_text("my work")
    written, kept = start(tmp_path, [1, 2])
    assert [path.name for path in kept] == ["01-see-rank.ipynb", "01-see-rank.py"]
    assert len(written) == 2
    assert (tmp_path / "01-see-rank.py").read_text() == "my work"


def test_a_course_for_nbgrader(tmp_path):
    written, _ = nbgrader(tmp_path, [1])
    assert sorted(str(path.relative_to(tmp_path)) for path in written) == [
        "nbgrader_config.py",
        "source/01-see-rank/01-see-rank.ipynb",
    ]


def test_the_same_bytes_each_time():
    for lesson in [lesson for lesson in lessons() if lesson.exercises]:
        assert notebook_text(notebook(lesson)) == notebook_text(notebook(lesson))
        assert "\r" not in script_of(lesson)


def test_files_are_called_like_the_lessons():
    names = {path.stem for path in course.lessons()}
    known = {lesson.stem for lesson in lessons()}
    assert names <= known, names - known


def test_settings_of_nbgrader_are_python():
    compile(CONFIG, "nbgrader_config.py", "exec")


def test_a_passed_check_and_the_files_lead_to_the_solution_unless_the_course_leaves_it_out():
    lesson = lessons([3])[0]
    text, script = "".join(notebook(lesson)["cells"][0]["source"]), script_of(lesson)
    assert 'exercises.solution("NAME")' in text
    assert 'exercises.solution("NAME")' in script
    bare = replace(lesson, exercises=tuple(replace(one, solution="") for one in lesson.exercises))
    assert "solution" not in "".join(notebook(bare)["cells"][0]["source"]) + script_of(bare)

    one = exercises.exercise("lora_count")
    right, wrong = local_caller(lambda d, k, r: r * (d + k)), local_caller(lambda d, k, r: d * k)
    assert 'lora_np.exercises.solution("lora_count")' in repr(judge(one, right, SEEDS))
    assert "solution" not in repr(judge(one, wrong, SEEDS))
    outcome = judge(replace(one, solution=""), right, SEEDS)
    assert repr(outcome) == "lora_count: 1 of 1 point. All laws hold."
    assert "solution" not in repr(Report(Path("a.py"), {"lora_count": outcome}))
