"""Sixty searches, written down before the synonyms: what comes first."""

import json
from pathlib import Path
from urllib.parse import quote

import pytest

pytestmark = pytest.mark.browser

SEARCHES = json.loads(Path(__file__).with_name("searches.json").read_text(encoding="utf-8"))
# without the excerpts, for which the page loads every result
FIRST = "query => Search._performSearch(...Search._parseQuery(query)).at(-1)?.[0] ?? ''"


def test_of_sixty_searches_fifty_five_find_the_right_page_first(open_page):
    page = open_page("search.html?q=zzzz")  # nothing, whose excerpts would be loaded
    page.wait_for_function("Search._index")
    wrong = {}
    for query, right in SEARCHES["searches"]:
        found = page.evaluate(FIRST, query)
        if not found.startswith(tuple(right)):
            wrong[query] = found
    assert len(SEARCHES["searches"]) == 60
    assert len(wrong) <= 5, wrong


def test_an_address_finds_what_the_field_finds(open_page):
    page = open_page(f"search.html?q={quote('catastrophic forgetting')}")
    first = page.locator("#search-results li a").first
    first.wait_for()
    assert first.get_attribute("href").startswith("lessons/18-learn-without-forgetting")


def test_every_page_with_keywords_exists(open_page, site):
    page = open_page("search.html?q=zzzz")
    pages = page.evaluate("Object.keys(searchKeywords)")
    assert [each for each in pages if not (site / f"{each}.html").is_file()] == []
    right = [each for _, pages in SEARCHES["searches"] for each in pages]
    assert all(any(site.glob(f"{each}*")) or any(site.glob(f"{each}*/*")) for each in right)
