"""The page of puzzles: a line is checked, put to work, remembered, and can be shown to others."""

import pytest

from lora_np.exercises import puzzles

pytestmark = pytest.mark.browser


@pytest.fixture
def page(open_page, site):
    if not (site / "_static" / "python" / "pyodide" / "pyodide.js").is_file():
        pytest.skip("the site was built without PYODIDE_DIST, so it has no runtime of its own")
    return open_page("learn/puzzles.html")


def form_of(page, one):
    form = page.locator(f"form[data-puzzle={one.name}]")
    return form, lambda what: form.locator(f"[data-show={what}]")


def test_every_line_of_mini_is_right_and_draws_something(page):
    ask = "([name, code]) => loraPage.ask({ kind: 'puzzle', name, code })"
    for one in puzzles():
        answer = page.evaluate(ask, [one.name, one.right])
        assert answer["passed"], (one.name, answer["text"])
        panels = one.after(one.right).panels
        assert ("<svg" in answer["html"] or "<img" in answer["html"]) is bool(panels)
        assert not page.evaluate(ask, [one.name, one.blank])["passed"]


def test_a_line_is_checked_with_enter_remembered_and_counted(page):
    one = puzzles()[0]
    form, shown = form_of(page, one)
    assert form.locator("textarea").input_value() == one.blank
    form.locator("textarea").fill("parameters = d * k")
    form.locator("textarea").press("Enter")
    shown("outcome").get_by_text("the count must be").wait_for()
    assert shown("state").inner_text() == ""
    page.locator("#puzzle-parameters ~ details summary").first.click()
    form.locator("textarea").fill("parameters = d * r + r * k")
    form.get_by_role("button", name="Check").click()
    shown("outcome").get_by_text("1,760 parameters").wait_for()
    assert shown("outcome").locator("svg polyline").count() == 2
    page.reload()
    assert form.locator("textarea").input_value() == "parameters = d * r + r * k"
    assert shown("state").inner_text() == "Solved"
    text = page.locator("#puzzle-text").input_value().splitlines()
    assert text[:2] == ["LoRA puzzles: 1 of 15 solved, with 1 hint", "■" + 14 * "□"]
    assert text[2].endswith("learn/puzzles.html")
    form.get_by_role("button", name="Start again").click()
    assert form.locator("textarea").input_value() == one.blank


def test_each_has_a_picture_and_three_hints_without_scripts(site):
    text = (site / "learn" / "puzzles.html").read_text("utf-8")
    for one in puzzles():
        section = text.partition(f'data-puzzle="{one.name}"')
        assert section[1]
        assert section[2].partition("<form")[0].count("<summary>") == 3
