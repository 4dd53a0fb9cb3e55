"""Lessons run cell by cell in their own page: what comes out is what was recorded."""

import json
import re
import time

import numpy as np
import pytest

from lora_np import exercises
from lora_np.course import lessons
from tests.drawing import FULL, few
from tests.site.test_lessons import caption, cut, pixels

pytestmark = pytest.mark.browser
STEMS = [path.stem for path in lessons()]
MOST = 26  # MB that are fetched until a lesson shows its first result, its page included
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture
def open_lesson(open_page, site):
    if not (site / "_static" / "python" / "pyodide" / "pyodide.js").is_file():
        pytest.skip("the site was built without PYODIDE_DIST, so it has no runtime of its own")

    def open_lesson(stem, **settings):
        page = open_page(f"lessons/{stem}.html", **settings)
        page.wait_for_load_state("networkidle")
        return page

    return open_lesson


def cell(page, number):
    """The parts of a cell: its box, its button by name, its status."""
    box = page.locator("article div.cell").nth(number - 1)
    return box, lambda name: box.get_by_role("button", name=name), box.get_by_role("status")


def edit(page, number, code):
    box, button, _ = cell(page, number)
    button("Edit").click()
    box.locator("textarea").fill(code)


def run(page, number, name="Run cell"):
    """Run a cell and wait; what its status then says."""
    _, button, status = cell(page, number)
    button(name).click()
    ended = (
        status.get_by_text("Ran ")
        .or_(status.get_by_text("Ended"))
        .or_(status.get_by_text("Stopped"))
    )
    ended.wait_for()
    return status.inner_text()


OUTPUTS = """cells => cells.map((cell) => ({
  varies: cell.classList.contains("tag_varies"),
  text: [...cell.querySelectorAll(".cell_output .output")].map((one) => (one.querySelector("pre") ?? one).textContent.trim()),
  pictures: [...cell.querySelectorAll(".cell_output img:not(.kept img)")].map((one) => [one.alt, one.width]),
  sliders: cell.querySelectorAll(".cell_output input").length,
}))"""
ALL_RAN = """() => [...document.querySelectorAll("article div.cell")].every((cell) => cell.dataset.state === "ran")
  || document.querySelector("[data-state=failed]")"""
WATCH = """() => new MutationObserver(() => {
  if (document.querySelector("[data-state] .cell_output > *")) window.first ??= Date.now();
}).observe(document.querySelector("article"), {subtree: true, childList: true, attributes: true})"""
NUMBER = re.compile(r"\d+(?:\.\d+)?")
MARKS = "performance.getEntriesByType('mark').map((mark) => [mark.name, mark.startTime / 1000])"


def check_alike(recorded, now, where):
    """The same words, and numbers within the rounding that training magnifies from one processor to
    another.
    """
    then, now = ("\n".join(texts) for texts in (recorded, now))
    assert NUMBER.sub("#", now) == NUMBER.sub("#", then), where
    assert np.allclose(*([*map(float, NUMBER.findall(text))] for text in (now, then)), rtol=0.05), (
        where
    )


@pytest.mark.parametrize("stem", few(STEMS, 14))  # of which the first one draws at once
def test_a_lesson_runs_to_its_end_in_its_page_and_says_what_was_recorded(
    open_lesson, open_page, stem, capsys
):
    """Its seconds and bytes are printed, from a cold start: Python there, the first result, all;
    MB of the page, until the first result, and of all.
    """
    page = open_lesson(stem)
    recorded = page.locator("article div.cell").evaluate_all(OUTPUTS)
    light, before = len(open_page.received), page.evaluate("performance.now() / 1000")
    page.evaluate(WATCH)
    begin = time.time()
    page.get_by_role("button", name="Run all cells").click()
    page.wait_for_function(ALL_RAN)
    whole = time.time() - begin
    assert page.locator(".traceback").all_inner_texts() == []
    ready, first = dict(page.evaluate(MARKS))["python:ready"] - before, page.evaluate("first")
    sizes = [
        int(answer.headers.get("content-length", 0)) / 1e6 * (answer.request.method == "GET")
        for answer in open_page.received
    ]
    soon = [answer.request.timing["startTime"] < first for answer in open_page.received]
    opened, early = sum(sizes[:light]), float(np.dot(sizes, soon))
    with capsys.disabled():
        print(
            f"\n{stem:40}{ready:8.1f}{first / 1000 - begin:8.1f}{whole:8.1f}"
            f"{opened:8.2f}{early:8.1f}{sum(sizes):8.1f}"
        )
    assert early < MOST
    for number, (then, now) in enumerate(
        zip(recorded, page.locator("article div.cell").evaluate_all(OUTPUTS), strict=True), start=1
    ):
        if now["sliders"]:  # where a figure was recorded
            assert len(then["pictures"]) == 1
            continue
        if not then["varies"]:
            check_alike(then["text"], now["text"], f"cell {number}")
        assert [alt for alt, _ in now["pictures"]] == [alt for alt, _ in then["pictures"]], (
            f"cell {number}"
        )
        widths = [[width for _, width in one["pictures"]] for one in (then, now)]
        assert np.allclose(*widths, rtol=0.05), f"cell {number}"


def test_what_a_figure_shows_is_said(site):
    """The words of each figure are those of its cell."""
    for path in lessons():
        page = (site / "lessons" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert '<img alt="../' not in page
        drawn = [
            one for one in json.loads(path.read_text("utf-8"))["cells"] if "alt" in one["metadata"]
        ]
        assert page.count('<details class="cell-code">') == len(drawn)


def test_a_cell_runs_after_those_above_it_each_once_and_all_from_nothing(open_lesson):
    page = open_lesson("01-see-rank")
    edit(page, 1, "count = globals().get('count', 0) + 1")
    edit(page, 2, "print('cell two', count)")
    edit(page, 3, "print('cell three', count)")
    assert run(page, 3).startswith("Ran")
    assert cell(page, 2)[0].locator(".cell_output").inner_text().strip() == "cell two 1"
    assert run(page, 3).startswith("Ran")
    assert cell(page, 3)[0].locator(".cell_output").inner_text().strip() == "cell three 1"
    cell(page, 1)[1]("Run cell").click()
    page.locator("[aria-disabled]").first.wait_for(state="detached")
    run(page, 3)
    assert cell(page, 3)[0].locator(".cell_output").inner_text().strip() == "cell three 2"
    run(page, 3, "Run all to here")
    page.locator("[aria-disabled]").first.wait_for(state="detached")
    assert cell(page, 3)[0].locator(".cell_output").inner_text().strip() == "cell three 1"


def test_a_cell_is_edited_by_keyboard_shows_its_error_and_is_undone(open_lesson):
    page = open_lesson("01-see-rank")
    box, button, status = cell(page, 2)
    recorded = box.locator("pre").first.inner_text().strip()
    button("Edit").focus()
    page.keyboard.press("Enter")
    area = box.locator("textarea")
    assert area.input_value() == recorded
    assert area.evaluate("area => area === document.activeElement")
    assert "Escape" in area.get_attribute("aria-label")
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("def f():")
    page.keyboard.press("Enter")
    page.keyboard.type("return 1 / 0  # a remark")
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+Tab")
    page.keyboard.type("f()")
    assert area.input_value() == "def f():\n    return 1 / 0  # a remark\nf()"
    colours = box.locator(".code-field pre")
    assert colours.locator(".k").all_inner_texts() == ["def", "return"]
    assert colours.locator(".c1").inner_text() == "# a remark"
    assert colours.inner_text().strip() == area.input_value()
    # both at one moment: the page may still be scrolling
    assert area.evaluate(
        """area => {
            const places = [area, area.parentElement.querySelector("pre")].map(one => one.getBoundingClientRect());
            return ["x", "y", "width", "height"].every(side => places[0][side] === places[1][side]);
        }"""
    )
    page.keyboard.press("Shift+Enter")
    status.get_by_text("Ended with an error").wait_for()
    lines = box.locator(".traceback").inner_text().strip().splitlines()
    assert lines[0].startswith("ZeroDivisionError")
    assert '"<cell 2>", line 3' in lines[1]
    assert not any("pyodide" in line or "page.py" in line for line in lines)
    button("Undo the edits").click()
    assert area.input_value() == recorded
    assert run(page, 2).startswith("Ran")
    assert "independent columns: [0, 1]" in box.locator(".cell_output").inner_text()
    area.press("Escape")
    area.press("Tab")
    assert not area.evaluate("area => area === document.activeElement")


def test_an_edit_is_kept_until_it_is_undone(open_lesson):
    page = open_lesson("01-see-rank")
    box, button, _ = cell(page, 2)
    recorded = box.locator("pre").first.inner_text().strip()
    edit(page, 2, "print('mine')")
    page.reload()
    assert box.locator("textarea").input_value() == "print('mine')"
    assert page.locator("article div.cell textarea").count() == 1
    assert run(page, 2).startswith("Ran")
    assert "mine" in box.locator(".cell_output").inner_text()
    button("Undo the edits").click()
    assert box.locator("textarea").input_value() == recorded
    page.reload()
    assert box.locator("textarea").count() == 0
    page.evaluate(
        """localStorage.setItem("lora_np:cells:01-see-rank.html",
           JSON.stringify({ 2: { recorded: "of an older lesson", code: "1 / 0" } }))"""
    )
    page.reload()
    assert box.locator("textarea").count() == 0


def test_text_comes_as_it_is_printed_and_a_loop_is_stopped(open_lesson):
    page = open_lesson("01-see-rank")
    edit(page, 1, "print('so far')\nwhile True:\n    pass")
    box, button, status = cell(page, 1)
    button("Run cell").click()
    box.locator(".cell_output").get_by_text("so far").wait_for()
    assert status.inner_text() == "Running …"
    button("Stop").click()
    status.get_by_text("Stopped").wait_for()
    button("Undo the edits").click()
    assert run(page, 2).startswith("Ran")


def test_values_are_shown_as_a_notebook_shows_them_and_endless_text_is_cut(open_lesson):
    page = open_lesson("01-see-rank")
    edit(page, 1, "import lora_np as lnp\nlnp.accounting.count_matrix(100, 120, rank=[8])")
    edit(
        page,
        2,
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.figure()\nplt.plot([2, 1])\nplt.show()",
    )
    edit(
        page,
        3,
        "from matplotlib.figure import Figure\nfigure = Figure()\nfigure.subplots()\nfigure",
    )
    edit(page, 4, "{'rank': 8}")
    edit(page, 5, "print('x' * 100_000)\nimport warnings\nwarnings.warn('careful')")
    run(page, 5)
    outputs = [cell(page, number)[0].locator(".cell_output") for number in (1, 2, 3, 4, 5)]
    assert "1,760" in outputs[0].locator("table").inner_text()
    assert outputs[1].locator("img").count() == 2
    assert outputs[1].inner_text().strip() == ""
    assert outputs[2].locator("img").get_attribute("alt") == "Drawn by the edited code"
    assert outputs[3].inner_text().strip() == "{'rank': 8}"
    assert "Only the first 40,000 characters are shown." in outputs[4].inner_text()
    assert outputs[4].inner_text().count("x") == 40_000


def test_a_slider_moves_its_picture(open_lesson):
    from playwright.sync_api import expect

    page = open_lesson("02-cut-the-svd")
    number = page.locator("article div.cell").evaluate_all(
        "cells => 1 + cells.findIndex((cell) => cell.textContent.includes('sliders('))"
    )
    run(page, number)
    box = cell(page, number)[0]
    slider = box.get_by_role("slider")
    assert slider.get_attribute("aria-valuetext") == "16"
    slider.focus()
    for rank in (20, 30):
        page.keyboard.press("ArrowRight")
        expect(box.locator("figcaption")).to_have_text(caption(rank))
        assert slider.get_attribute("aria-valuetext") == str(rank)
        assert np.abs(pixels(box.locator("img")) - cut(rank)).max() <= 1


def test_exercises_are_in_the_lesson_and_use_the_same_python(open_lesson, open_page, site):
    lesson = exercises.lessons([1])[0]
    page = open_lesson(lesson.stem)
    run(page, 2)
    form = page.locator(f"form[data-exercise={lesson.exercises[0].name}]")
    form.locator("textarea").fill(exercises.solution(lesson.exercises[0].name).code)
    form.get_by_role("button", name="Check").click()
    form.locator("[data-show=outcome]").get_by_text("All laws hold").wait_for()
    assert run(page, 3).startswith("Ran")
    begun = [answer.url for answer in open_page.received if answer.url.endswith("pyodide.asm.wasm")]
    assert len(begun) == 1
    for lesson in exercises.lessons():
        path = site / "lessons" / f"{lesson.stem}.html"
        if path.exists():
            text = path.read_text(encoding="utf-8")
            assert all(f'data-exercise="{one.name}"' in text for one in lesson.exercises)


def test_a_failed_start_says_so_and_the_next_try_works(open_lesson):
    page = open_lesson("01-see-rank")
    page.route("**/lora_np-*.whl", lambda route: route.fulfill(status=204))
    assert run(page, 1) == "Stopped"
    assert "could not be loaded" in cell(page, 1)[0].locator(".cell_output").inner_text()
    page.unroute("**/lora_np-*.whl")
    assert run(page, 1).startswith("Ran")


def test_without_script_a_lesson_is_complete(open_page):
    page = open_page("lessons/01-see-rank.html", java_script_enabled=False)
    boxes = page.locator("article div.cell")
    assert boxes.count() == 14
    assert boxes.locator("button").count() == 0
    drawn = boxes.filter(has=page.locator("img")).first
    assert drawn.locator("img").is_visible()
    assert drawn.locator("pre").first.is_hidden()
    drawn.get_by_text("Show the code").click()
    assert drawn.locator("pre").first.is_visible()


def test_on_paper_a_lesson_has_its_code_and_no_buttons(open_lesson):
    page = open_lesson("01-see-rank")
    edit(page, 2, "print('on paper')")
    page.emulate_media(media="print")
    assert (
        page.locator(".cell-bar, .cell-note").evaluate_all(
            "all => all.some((one) => one.checkVisibility())"
        )
        is False
    )
    hidden = page.locator("article div.cell .cell_input").evaluate_all(
        "all => all.filter((one) => !one.checkVisibility({ contentVisibilityAuto: true }) || !one.getBoundingClientRect().height).length"
    )
    assert hidden == 0


def test_no_barrier_while_cells_run(open_lesson, axe):
    page = open_lesson("01-see-rank", **PHONE)
    edit(page, 2, "print(M)  # not yet\n1 / 0")
    run(page, 2)
    edit(page, 5, "M = 'a long line' * 3  # " + "of many words " * 12)
    page.locator("details.cell-code").first.evaluate("fold => { fold.open = true; }")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.evaluate(axe)
    for scheme in ("light", "dark") if FULL else ("dark",):
        page.emulate_media(color_scheme=scheme)
        found = page.evaluate("axe.run()")["violations"]
        barriers = [
            (v["id"], [n["target"] for n in v["nodes"]][:5])
            for v in found
            if v["impact"] in ("moderate", "serious", "critical")
        ]
        assert not barriers, scheme
