"""Searches that were written down before the search was made: what comes first, and that something
does.
"""

import json
import re
import tomllib
from pathlib import Path
from urllib.parse import quote

import pytest

pytestmark = pytest.mark.browser

HERE = Path(__file__).parent
SEARCHES = json.loads((HERE / "searches.json").read_text(encoding="utf-8"))["searches"]
ANSWERS = json.loads((HERE / "answers.json").read_text(encoding="utf-8"))["answers"]
QUERIES = tomllib.loads((HERE / "queries.toml").read_text(encoding="utf-8"))["queries"]
# what was a synonym before the queries were written: none may be added for one of them
BEFORE = """
alpha; catastrophic forgetting; claims; cuda out of memory; dask; dora; exercises; fit; gguf; glossary; gpu;
learning rate; lora variants; merge; mlx; ollama; peft; qlora; quantization; rank; rslora; safetensors; svd;
target modules; teaching; vllm; vram calculator"""
# addresses in order, without the excerpts, for which the page loads every result
FOUND = "queries => queries.map((query) => Search._performSearch(query).map(([page]) => page).reverse())"


@pytest.fixture
def search(open_page):
    """A function from queries to the pages that are found for each, the best first."""
    page = open_page("search.html?q=%20")
    page.wait_for_function("Search._index")
    return lambda queries: page.evaluate(FOUND, list(queries))


def wrong(search, answers):
    """The queries for which another page than a right one comes first, and all pages found."""
    pages = search(query for query, _ in answers)
    return {
        query: found
        for (query, right), found in zip(answers, pages, strict=True)
        if not found or not without_number(found[0]).startswith(tuple(map(without_number, right)))
    }


def without_number(page):
    """Lessons may move."""
    return re.sub(r"^lessons/\d+-", "lessons/", page)


def test_of_sixty_searches_fifty_five_find_the_right_page_first(search):
    assert len(SEARCHES) == 60
    others = wrong(search, SEARCHES)
    assert len(others) <= 5, others


def test_of_a_hundred_other_searches_eighty_find_the_right_page_first_and_all_find_some(search):
    assert [query for query, _ in ANSWERS] == [entry["query"] for entry in QUERIES]
    assert len(ANSWERS) == 100
    others = wrong(search, ANSWERS)
    assert [query for query, found in others.items() if not found] == []
    assert len(others) <= 20, others


def test_every_word_finds_a_page_that_has_it(open_page):
    page = open_page("search.html?q=%20")
    page.wait_for_function("Search._index")
    words = page.evaluate("Object.keys(Search._index.terms)")
    words = [word for word in words if word == word.lower()][
        ::25
    ]  # "A" is a word that says nothing
    assert len(words) > 100
    empty = page.evaluate(
        "words => words.filter((word) => !Search._performSearch(word).length)", words
    )
    assert empty == []
    assert page.evaluate("Search._performSearch('qqqq xxxx').length") == 0


def test_a_rare_word_counts_for_more_than_common_ones_and_a_slip_for_little(search):
    alone, among, slip, none = search(["dask", "dask adapter", "safetensros", "qqqqq"])
    assert alone[0] == among[0] == "use/training"
    assert slip == search(["safetensors"])[0]
    assert none == []


def test_no_synonym_is_there_for_a_query_that_judges(open_page):
    page = open_page("search.html?q=%20")
    entries = {words(entry) for entry in page.evaluate("Object.values(searchKeywords).flat()")}
    assert entries & {words(query) for query, _ in ANSWERS} == {
        words(entry) for entry in BEFORE.split(";")
    }


def words(text):
    return " ".join(re.findall(r"[\w.]+", text.lower()))


def test_an_address_finds_what_the_field_finds(open_page):
    page = open_page(f"search.html?q={quote('catastrophic forgetting')}")
    first = page.locator("#search-results li a").first
    first.wait_for()
    assert first.get_attribute("href").startswith("lessons/19-learn-without-forgetting")


def test_an_excerpt_does_not_begin_with_its_title(open_page):
    page = open_page(f"search.html?q={quote('singular values of an update')}")
    page.wait_for_function("document.querySelectorAll('#search-results .context').length > 15")
    results = page.locator("#search-results li").evaluate_all(
        "items => items.map((item) => [item.querySelector('a').textContent.split(' > ').at(-1),"
        " item.querySelector('.context')?.textContent ?? ''])"
    )
    assert len(results) == 20
    assert [title for title, excerpt in results if excerpt.startswith(title)] == []
    assert not any("#" in excerpt[:80] for _, excerpt in results)


def test_every_page_with_keywords_exists(open_page, site):
    page = open_page("search.html?q=%20")
    pages = page.evaluate("Object.keys(searchKeywords)")
    assert [each for each in pages if not (site / f"{each}.html").is_file()] == []
    known = {
        without_number(path.relative_to(site).with_suffix("").as_posix())
        for path in site.rglob("*.html")
    }
    right = {without_number(each) for _, pages in [*SEARCHES, *ANSWERS] for each in pages}
    assert [each for each in right if not any(page.startswith(each) for page in known)] == []
