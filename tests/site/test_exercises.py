"""Exercises on the page: what is checked there is what a terminal says, for right answers and for
wrong ones.
"""

import warnings

import numpy as np
import pytest

import lora_np as lnp
from lora_np import exercises
from tests.attempts import attempts

pytestmark = pytest.mark.browser
MINUTE = 60_000  # milliseconds


@pytest.fixture
def practice(open_page, site):
    if not (site / "_static" / "python" / "pyodide" / "pyodide.js").is_file():
        pytest.skip("the site was built without PYODIDE_DIST, so it has no runtime of its own")

    def practice(stem):
        return open_page(f"practice/{stem}.html")

    return practice


def in_a_terminal(name, code):
    space = {"np": np, "lnp": lnp}
    exec(code, space)
    with warnings.catch_warnings():  # there, as in a page, they are no errors
        warnings.simplefilter("ignore")
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
    lesson = exercises.lessons([3])[0]
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
    answer = page.evaluate(
        "([name, code]) => loraExercises.check(name, code)", [name, "def f(:\n  pass"]
    )
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
    lesson = next(
        lesson for lesson in exercises.lessons() if any(one.needs for one in lesson.exercises)
    )
    page = practice(lesson.stem)
    last = next(one for one in lesson.exercises if one.needs)
    for name in (*last.needs, last.name):
        page.locator(f"form[data-exercise={name}] textarea").fill(exercises.solution(name).code)
    form = page.locator(f"form[data-exercise={last.name}]")
    form.get_by_role("button", name="Check").click()
    form.locator("[data-show=outcome]").get_by_text("All laws hold").wait_for()


SLOW = {
    "offline": False,
    "latency": 400,
    "downloadThroughput": 250_000,
    "uploadThroughput": 250_000,
}  # 2 Mbit/s


def form_of(page, one, code=None):
    form = page.locator(f"form[data-exercise={one.name}]")
    if code is not None:
        form.locator("textarea").fill(code)
    return form, lambda what: form.locator(f"[data-show={what}]")


def test_on_a_slow_line_right_is_right(practice):
    """Python takes longer to arrive than a check may take; a bar says how much is there."""
    lesson = exercises.lessons([1])[0]
    page = practice(lesson.stem)
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.emulateNetworkConditions", SLOW)
    form, shown = form_of(
        page, lesson.exercises[0], exercises.solution(lesson.exercises[0].name).code
    )
    form.get_by_role("button", name="Check").click()
    bar = form.get_by_role("progressbar", name="Loading Python")
    page.wait_for_function("bar => bar.value > 0", arg=bar.element_handle())
    shown("loading").get_by_text("MB").wait_for()
    shown("points").get_by_text("Solved").wait_for()
    assert bar.is_hidden()
    assert shown("outcome").get_attribute("data-kind") == "right"


def test_code_runs_and_shows_what_it_prints_and_its_error_last_line_first(practice):
    lesson = exercises.lessons([1])[0]
    one = lesson.exercises[0]
    page = practice(lesson.stem)
    form, shown = form_of(
        page,
        one,
        "print('rank', end=' ')\nprint(np.ones((2, 3)).shape)\nlnp.count_lora(2, 3, rank=1)",
    )
    form.get_by_role("button", name="Run").click()
    shown("printed").get_by_text("(2, 3)").wait_for()
    form.get_by_text("It ran.").wait_for()
    # and the value at the end
    assert shown("printed").inner_text().split() == ["rank", "(2,", "3)", "5"]
    form, shown = form_of(page, one, "print('before')\n\ndef f():\n    return 1 / 0\n\nf()")
    form.locator("textarea").press("Shift+Enter")
    shown("outcome").get_by_text("ZeroDivisionError").wait_for()
    lines = shown("outcome").inner_text().splitlines()
    assert lines[0].startswith("ZeroDivisionError")
    assert '"<your code>", line 6' in lines[1]
    assert not any("pyodide" in line for line in lines)
    assert shown("printed").inner_text().strip() == "before"
    form, shown = form_of(page, one, one.stub)
    form.get_by_role("button", name="Run").click()
    shown("outcome").get_by_text("printed nothing").wait_for()
    assert shown("printed").is_hidden()
    # a run is no check
    assert shown("points").inner_text() == exercises.plural(one.points, "point")


def test_what_an_answer_prints_is_shown_with_its_check_up_to_a_limit(practice):
    lesson = exercises.lessons([1])[0]
    one = lesson.exercises[0]
    page = practice(lesson.stem)
    right = exercises.solution(one.name).code
    head, body = right.split("\n", 1)
    calls = f"{head}\n    print('in a call')\n{body}"  # one of many, so it is dropped
    form, shown = form_of(page, one, f"print('before', '.' * 5000)\n{calls}")
    form.get_by_role("button", name="Check").click()
    shown("points").get_by_text("Solved").wait_for()
    printed = shown("printed").inner_text()
    assert printed.startswith("before .")
    assert len(printed) == 4000
    assert "the first 4,000 characters" in shown("cut").inner_text()


# What the page tells Python waits until `goOn()`.
HELD = """() => {
  const post = Worker.prototype.postMessage, held = [];
  Worker.prototype.postMessage = function (what) { held.push(() => post.call(this, what)); };
  window.goOn = () => {
    Worker.prototype.postMessage = post;
    for (const each of held) each();
  };
}"""


def test_an_endless_loop_ends_after_a_minute_or_by_hand_and_the_next_answer_is_checked(practice):
    lesson = exercises.lessons([1])[0]
    one = lesson.exercises[0]
    page = practice(lesson.stem)
    page.clock.install()
    page.evaluate(HELD)
    loop = "print('so far')\nwhile True:\n    pass"
    form, shown = form_of(page, one, loop)
    form.get_by_role("button", name="Check").click()
    page.clock.fast_forward(MINUTE)  # while Python is not there yet, which does not count
    page.evaluate("goOn()")
    stop = form.get_by_role("button", name="Stop")
    stop.wait_for()
    assert shown("outcome").inner_text() == "Running …"
    page.clock.fast_forward(MINUTE)
    shown("outcome").get_by_text("has not returned for 60 seconds").wait_for()
    assert shown("printed").inner_text().strip() == "so far"
    form, shown = form_of(page, one, exercises.solution(one.name).code)
    form.get_by_role("button", name="Check").click()
    shown("points").get_by_text("Solved").wait_for()
    form, shown = form_of(page, one, loop)
    form.get_by_role("button", name="Run").click()
    stop.click()
    assert shown("outcome").inner_text() == "Stopped."
    assert stop.is_hidden()


def test_tab_indents_and_after_escape_it_leaves(practice):
    lesson = exercises.lessons([1])[0]
    page = practice(lesson.stem)
    page.route("**/python-worker.js", lambda route: route.fulfill(body=""))  # Python is not needed
    form, _ = form_of(page, lesson.exercises[0], "")
    area = form.locator("textarea")
    hint = page.locator(f"#{area.get_attribute('aria-describedby')}")
    assert "Esc" in hint.inner_text()
    page.keyboard.type("def f(x):")
    area.press("Enter")
    page.keyboard.type("y = x")
    area.press("Enter")
    page.keyboard.type("return y")
    assert area.input_value() == "def f(x):\n    y = x\n    return y"
    area.press("Tab")
    assert area.input_value().endswith("return y    ")
    area.press("ControlOrMeta+z")
    assert not area.input_value().endswith("    ")
    area.press("ControlOrMeta+Shift+z")
    assert area.input_value().endswith("return y    ")
    area.press("Shift+Tab")
    area.fill("def f(x):\n    y = x\n    return y")
    area.press("ControlOrMeta+a")
    area.press("Tab")
    assert area.input_value() == "    def f(x):\n        y = x\n        return y"
    area.press("Shift+Tab")
    area.press("Shift+Tab")
    assert area.input_value() == "def f(x):\ny = x\nreturn y"
    area.press("Escape")
    area.press("Tab")
    assert form.get_by_role("button", name="Run").evaluate(
        "button => button === document.activeElement"
    )
    page.keyboard.press("Shift+Tab")
    area.press("Escape")
    area.press("Shift+Tab")
    assert not area.evaluate("area => area === document.activeElement")
    assert area.input_value() == "def f(x):\ny = x\nreturn y"


def test_a_failed_start_says_so_and_the_next_try_works(practice):
    lesson = exercises.lessons([1])[0]
    one = lesson.exercises[0]
    page = practice(lesson.stem)
    page.route("**/lora_np-*.whl", lambda route: route.fulfill(status=204))
    form, shown = form_of(page, one, exercises.solution(one.name).code)
    form.get_by_role("button", name="Check").click()
    shown("outcome").get_by_text("could not be loaded").wait_for()
    page.unroute("**/lora_np-*.whl")
    form.get_by_role("button", name="Check").click()
    shown("points").get_by_text("Solved").wait_for()
