"""Exercises on the page: what is checked there is what a terminal says, for right answers and for wrong ones."""

import numpy as np
import pytest

import lora_np as lnp
from lora_np import exercises
from tests.attempts import attempts

pytestmark = pytest.mark.browser
MINUTE = 60_000  # milliseconds


@pytest.fixture
def practice(open_page, site):
    if not (site / "lite" / "static" / "pyodide" / "pyodide.js").is_file():
        pytest.skip("the site was built without PYODIDE_DIST, so it has no runtime of its own")

    def practice(stem):
        page = open_page(f"practice/{stem}.html")
        page.set_default_timeout(3 * MINUTE)
        return page

    return practice


def in_a_terminal(name, code):
    space = {"np": np, "lnp": lnp}
    exec(code, space)
    return repr(exercises.check(space[name]))


def ten():
    """The first exercise of each of ten lessons."""
    found = [lesson.exercises[0].name for lesson in exercises.lessons() if lesson.exercises]
    return found[:10]


def mistake(name):
    """A usual wrong answer, which has a name and breaks a law."""
    return next(one for one in attempts() if one.exercise == name and one.breaks)


def test_ten_are_solved_and_ten_usual_mistakes_fail_as_in_a_terminal(practice):
    page = practice(exercises.lessons([1])[0].stem)
    check = "([name, code]) => loraExercises.check(name, code)"
    for name in ten():
        right = exercises.solution(name).code
        answer = page.evaluate(check, [name, right])
        assert answer["passed"], (name, answer)
        assert answer["text"] == in_a_terminal(name, right)
        wrong = mistake(name)
        answer = page.evaluate(check, [name, wrong.source])
        assert not answer["passed"], (name, wrong.name)
        assert answer["text"] == in_a_terminal(name, wrong.source)
        assert "Not written yet" not in answer["text"], (name, wrong.name)


def test_an_answer_is_written_checked_and_remembered(practice):
    lesson = exercises.lessons([4])[0]
    one = lesson.exercises[0]
    page = practice(lesson.stem)
    form = page.locator(f"form[data-exercise={one.name}]")
    form.get_by_role("button", name="Check").click()
    outcome = form.locator("[data-show=outcome]")
    outcome.get_by_text(f"{one.name}: 0 of").wait_for()
    form.locator("textarea").fill(exercises.solution(one.name).code)
    form.get_by_role("button", name="Check").click()
    outcome.get_by_text("All laws hold").wait_for()
    page.reload()
    assert form.locator("textarea").input_value() == exercises.solution(one.name).code
    assert form.locator("[data-show=points]").inner_text() == "Solved"
    form.get_by_role("button", name="Start again").click()
    assert form.locator("textarea").input_value() == one.stub


def test_code_that_is_no_python_says_where(practice):
    page = practice(exercises.lessons([1])[0].stem)
    name = exercises.lessons([1])[0].exercises[0].name
    answer = page.evaluate("([name, code]) => loraExercises.check(name, code)", [name, "def f(:\n  pass"])
    assert "SyntaxError" in answer["text"]
    assert "<your code>" in answer["text"]
    answer = page.evaluate("([name, code]) => loraExercises.check(name, code)", [name, "x = 1 / 0"])
    assert "ZeroDivisionError" in answer["text"]
    answer = page.evaluate("([name, code]) => loraExercises.check(name, code)", [name, "x = 1"])
    assert answer["text"] == f"There is no function {name} here."


def test_every_exercise_is_on_the_page_of_its_lesson(site):
    for lesson in exercises.lessons():
        page = site / "practice" / f"{lesson.stem}.html"
        assert page.exists() == bool(lesson.exercises)
        text = page.read_text(encoding="utf-8") if lesson.exercises else ""
        for one in lesson.exercises:
            assert f'data-exercise="{one.name}"' in text
        if not lesson.exercises or not (site / "lessons" / f"{lesson.stem}.html").exists():
            continue
        read = (site / "lessons" / f"{lesson.stem}.html").read_text(encoding="utf-8")
        assert f"../practice/{lesson.stem}.html" in read


def test_a_step_of_the_project_uses_those_before_it(practice):
    lesson = next(lesson for lesson in exercises.lessons() if any(one.needs for one in lesson.exercises))
    page = practice(lesson.stem)
    last = next(one for one in lesson.exercises if one.needs)
    for name in (*last.needs, last.name):
        page.locator(f"form[data-exercise={name}] textarea").fill(exercises.solution(name).code)
    form = page.locator(f"form[data-exercise={last.name}]")
    form.get_by_role("button", name="Check").click()
    form.locator("[data-show=outcome]").get_by_text("All laws hold").wait_for()
