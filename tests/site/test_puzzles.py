"""The page of puzzles: a line is checked, put to work, remembered, and can be shown to others."""

import re

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


# every text that the state of the training has had
TOLD = """() => {
  const state = document.querySelector("#puzzle-ending [data-show=state]");
  window.told = [];
  new MutationObserver(() => told.push(state.textContent)).observe(state, { childList: true });
}"""


def test_fifteen_lines_train_a_model_that_speaks(page):
    """To the end: its progress is told as text, both texts come, and a card that can be saved."""
    form = page.locator("#puzzle-ending")
    assert form.locator("[name=train]").is_disabled()
    progress = {
        one.name: {"solved": True, "line": one.right, "right": one.right} for one in puzzles()
    }
    page.evaluate("all => localStorage.setItem('lora_np:puzzles', JSON.stringify(all))", progress)
    page.reload()
    form.locator("[name=prompt]").fill("In the ")
    page.evaluate(TOLD)
    form.get_by_role("button", name="Train it").click()
    form.locator("[data-show=outcome] img").wait_for()
    told = [
        int(step)
        for text in page.evaluate("told")
        for step in re.findall(r"^Step (\d+) of 60: loss \d", text)
    ]
    assert told == sorted({*told})
    assert len(told) > 30  # a busy page may pass over some
    said = form.locator("[data-show=outcome]").inner_text()
    assert "Your fifteen lines have trained a language model" in said
    after = re.search(r"After, loss ([\d.]+): In the ", said)
    assert float(after[1]) <= 1.5
    with page.expect_download() as card:
        form.get_by_role("button", name="Save the card").click()
    assert card.value.suggested_filename == "lora-puzzles.png"
