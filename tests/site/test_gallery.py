"""The lessons at a glance: one card for each, with what its notebook says, and what the reader has
done.
"""

import io
import json
import math

import numpy as np
import pytest
from PIL import Image

from lora_np import exercises
from lora_np.course.notebooks import lessons
from notebooks import about

pytestmark = pytest.mark.browser
NOTEBOOKS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in lessons()}


def test_each_lesson_has_a_card(open_page):
    page = open_page("learn/index.html")
    cards = page.locator(".gallery > li")
    assert cards.count() == len(NOTEBOOKS)
    known = {lesson.stem: lesson for lesson in exercises.lessons()}
    for place, (stem, notebook) in enumerate(NOTEBOOKS.items()):
        card = cards.nth(place)
        assert card.get_attribute("data-lesson") == stem
        label = card.locator(".gallery-label").inner_text().split()
        assert label == [
            "Lesson",
            str(known[stem].number),
            "·",
            known[stem].group,
            str(math.ceil(about.minutes(notebook))),
            "minutes",
        ]
        link = card.get_by_role("link")
        assert link.inner_text() == known[stem].title
        assert link.get_attribute("href") == f"../lessons/{stem}.html"
        assert about.question(notebook).split("$")[0].strip() in card.inner_text()
        picture = card.locator("img").first
        picture.scroll_into_view_if_needed()
        assert picture.get_attribute("alt") == about.cover(notebook).alt
        assert picture.evaluate("img => img.decode().then(() => img.naturalWidth)") == 640


def grey(locator):
    """How a part of the page looks, as grey levels."""
    with Image.open(io.BytesIO(locator.screenshot())) as picture:
        return np.asarray(picture.convert("L"), dtype=float)


@pytest.mark.parametrize("path", ["learn/index.html", "lessons/02-cut-the-svd.html"])
def test_photographs_stay_as_they_are_in_the_dark_on_the_page_s_ground(open_page, path):
    looks = []
    for scheme in ("light", "dark"):
        page = open_page(path, color_scheme=scheme)
        page.wait_for_load_state("networkidle")
        figure = page.locator(".pictures").first
        figure.scroll_into_view_if_needed()
        figure.locator("img").first.evaluate("img => img.decode()")
        looks.append(grey(figure))
    light, dark = looks
    assert light[:4].min() > 240
    assert dark[:4].max() < 40  # paper
    height, width = light.shape
    photograph = slice(height // 6, height * 9 // 20), slice(width * 41 // 50, width * 19 // 20)
    assert light[photograph].std() > 20  # the last of the upper row
    assert np.corrcoef(light[photograph].ravel(), dark[photograph].ravel())[0, 1] > 0.95


def test_what_was_read_and_solved_is_remembered_until_it_is_forgotten(open_page):
    stem = "10-factor-a-matrix"
    solved = exercises.lessons([10])[0].exercises[0].name
    page = open_page("learn/index.html")
    done = page.locator(f'[data-lesson="{stem}"] .gallery-done')
    assert done.is_hidden()
    assert page.get_by_role("button", name="Forget what I have done").is_hidden()

    def open_lesson():  # to the end, or what is still on its way would be a failed request
        page.wait_for_load_state("networkidle")
        done.locator("..").get_by_role("link").click()
        page.get_by_role("heading", level=1, name="Factor a matrix").wait_for()
        page.wait_for_load_state("networkidle")

    open_lesson()
    page.go_back()
    assert done.inner_text() == "Begun"
    open_lesson()
    page.get_by_role("heading", name="Exercises, and the next lesson").scroll_into_view_if_needed()
    page.wait_for_function(f"JSON.parse(localStorage.getItem('lora_np:lesson:{stem}')).read")
    page.evaluate(
        f"""localStorage.setItem("lora_np:{solved}", '{{"code": "mine", "passed": true}}')"""
    )
    page.go_back()
    assert (
        done.inner_text()
        == f"Read · 1 of {len(exercises.lessons([10])[0].exercises)} exercises solved"
    )
    assert f"1 of {len(NOTEBOOKS)} lessons read, 1 of" in page.get_by_role("status").inner_text()
    page.get_by_role("button", name="Forget what I have done").click()
    assert done.is_hidden()
    kept = json.loads(page.evaluate(f'localStorage.getItem("lora_np:{solved}")'))
    assert kept == {"code": "mine", "passed": False}
