"""On paper: the page alone, code that wraps, figures in one piece, answers only where they are
asked for.
"""

import pytest

pytestmark = pytest.mark.browser
PAGES = [
    "lessons/01-see-rank.html",
    "practice/01-see-rank.html",
    "use/plan.html",
    "understand/report.html",
]
CHROME = ".skip-to-content, .sidebar-drawer, .toc-drawer, .mobile-header, .back-to-top, .copybtn, .lesson-links, article button"
A4 = 794 - 2 * 68  # pixels between the margins


@pytest.mark.parametrize("path", PAGES)
def test_paper_has_the_page_alone(open_page, path):
    page = open_page(path, viewport={"width": A4, "height": 1000}, color_scheme="dark")
    page.wait_for_load_state("networkidle")
    page.emulate_media(media="print", color_scheme="light")
    shown = page.locator(CHROME).evaluate_all(
        "all => all.filter(one => one.checkVisibility()).length"
    )
    assert shown == 0
    assert page.locator("article h1").is_visible()
    wide = page.locator("article pre").evaluate_all(
        "all => all.filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.textContent)"
    )
    assert wide == []
    split = page.locator("article img").evaluate_all(
        "all => all.filter(one => getComputedStyle(one).breakInside !== 'avoid').length"
    )
    assert split == 0
    assert len(page.pdf(format="A4")) > 10_000


@pytest.mark.parametrize("path", PAGES[:2])
def test_answers_are_printed_only_where_they_are_asked_for(open_page, path):
    for search, wanted in (("", False), ("?answers", True)):
        page = open_page(path + search)
        page.wait_for_load_state("networkidle")
        page.emulate_media(media="print")
        folds = page.locator("article details:not(.cell-code)")
        assert folds.count() >= 2
        assert {folds.nth(place).is_visible() for place in range(folds.count())} == {wanted}
