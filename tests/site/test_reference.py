"""The reference says what docstrings say: classes that are raised, types, names that lead
somewhere; and is found.
"""

import html
import importlib
import inspect
import pkgutil
import re

import pytest

import lora_np

pytestmark = pytest.mark.browser


def public():
    """Every class and function that a package offers, by the names it is offered under."""
    names = {"lora_np"} | {m.name for m in pkgutil.walk_packages(lora_np.__path__, "lora_np.")}
    things = {}
    for name in sorted(names):
        module = None if name.endswith("__main__") else importlib.import_module(name)
        for each in getattr(module, "__all__", ()):
            thing = getattr(module, each)
            if inspect.isclass(thing) or inspect.isroutine(thing):
                things.setdefault(id(thing), (thing, []))[1].append(f"{name}.{each}")
    return list(things.values())


@pytest.fixture(scope="module")
def entries(site):
    """The HTML of each name's description, without that of its members."""
    found = {}
    for path in (site / "reference").glob("*.html"):
        parts = re.split(r'<dt class="sig[^>]*id="([^"]+)"', path.read_text(encoding="utf-8"))
        found |= dict(zip(parts[1::2], parts[2::2], strict=True))
    return found


def text(part):
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", part)).split())


def documented(thing):
    """The classes in a docstring's section Raises, without their modules."""
    section = re.search(
        r"^Raises\n-+\n(.*?)(?=^\S[^\n]*\n-+$|\Z)",
        inspect.getdoc(thing) or "",
        re.DOTALL | re.MULTILINE,
    )
    return (
        [name.rpartition(".")[2] for name in re.findall(r"^\S+$", section[1], re.MULTILINE)]
        if section
        else []
    )


def rendered(entry):
    section = re.search(r">Raises<.*?<dd[^>]*>(.*?)</dd>", entry, re.DOTALL)
    return re.findall(r"(?:^|<p>)\s*(?:<[^>]+>)*(\w+)(?:<[^>]+>)* –", section[1]) if section else []


def test_each_class_is_raised_as_documented(entries):
    compared = 0
    for thing, names in public():
        entry = next((entries[name] for name in names if name in entries), None)
        if entry is None:
            continue  # documented elsewhere: test_pages looks for it
        assert rendered(entry) == documented(thing), names
        compared += len(documented(thing))
    assert compared > 200


def test_functions_come_before_classes(site):
    kinds = {name: inspect.isclass(thing) for thing, names in public() for name in names}
    mixed = 0
    for path in (site / "reference").glob("*.html"):
        modules = {}
        for name in re.findall(
            r'<dt class="sig[^>]*id="([^"]+)"', path.read_text(encoding="utf-8")
        ):
            if name in kinds:
                modules.setdefault(name.rpartition(".")[0], []).append(kinds[name])
        for module, found in modules.items():
            assert found == sorted(found), module
            mixed += len({*found}) == 2
    assert mixed > 10


@pytest.mark.parametrize("package", ["linalg", "nn", "accounting"])
def test_many_functions_are_listed_once_each_under_their_subject(site, package):
    content = (site / "reference" / f"{package}.html").read_text(encoding="utf-8")
    before, _, _ = content.partition('<p class="rubric">Classes</p>')
    subjects = re.findall(r'<p class="rubric">(.*?)</p>', before)
    listed = re.findall(r'<tr[^>]*><td><p><a [^>]*title="([\w.]+)"', before)
    module = importlib.import_module(f"lora_np.{package}")
    functions = [name for name in module.__all__ if inspect.isroutine(getattr(module, name))]
    assert sorted(name.rpartition(".")[2] for name in listed) == sorted(functions)
    assert 2 < len(subjects) <= len(functions) / 2


def test_what_tasks_lead_to_is_listed_first(site):
    listed = r'<tr[^>]*><td><p><a [^>]*title="[\w.]+\.(\w+)"'
    described = r'<dl class="py function">\s*<dt[^>]* id="[\w.]+\.(\w+)"'
    wanted = {"lora": ["inject", "merge"], "adapters": ["load", "save", "attach"]}
    for page, first in wanted.items():
        content = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
        for names in (re.findall(listed, content), re.findall(described, content)):
            assert names[: len(first)] == first
            assert names != sorted(names, key=str.lower)


def test_no_attribute_is_listed_without_a_word(site):
    for path in (site / "reference").glob("*.html"):
        content = path.read_text(encoding="utf-8")
        listed = re.findall(
            r'<dl class="py (?:attribute|property|data)">\s*<dt[^>]*id="([^"]+)".*?<dd>(.*?)</dd>',
            content,
            re.DOTALL,
        )
        bare = [name for name, said in listed if not text(said) or "Alias for field number" in said]
        assert not bare, path


def test_no_name_is_dead(site):
    """What looks like a reference leads somewhere; single backticks leave no citation."""
    for path in site.rglob("*.html"):
        if path.relative_to(site).parts[0] == "_static":
            continue
        content = path.read_text(encoding="utf-8")
        assert not re.findall(r"<cite>(\w[\w.]*)</cite>", content), path
        outside = re.sub(r"<a [^>]*>.*?</a>", "", content, flags=re.DOTALL)
        dead = {
            text(m[1])
            for m in re.finditer(r'<code class="xref[^>]*>(.*?)</code>', outside, re.DOTALL)
        }
        assert not dead, path


def test_no_option_has_become_a_dash(site):
    for path in site.rglob("*.html"):
        if path.relative_to(site).parts[0] != "_static":
            assert not re.search(r"[–—](?=[a-z])", path.read_text(encoding="utf-8")), path


def test_a_type_is_in_one_piece(site):
    content = (site / "reference" / "linalg.html").read_text(encoding="utf-8")
    assert "array_like of shape (d, k)</span>" in content
    assert re.search(
        r"ndarray</span></code></a> <span class=\"type\">of shape \(d, rank\)</span>", content
    )


def test_the_page_of_search_has_one_heading_and_excerpts_without_tex(open_page):
    page = open_page("search.html?q=singular")
    page.locator("#search-results li p.context").nth(10).wait_for()
    assert page.locator("h1").all_inner_texts() == ["Search"]
    page.wait_for_load_state("networkidle")
    excerpts = page.locator("#search-results p.context").all_inner_texts()
    assert len(excerpts) > 10
    assert not [each for each in excerpts if "\\" in each or "Download the notebook" in each]


# What a newcomer types, and where the word is explained or used: the first page; the glossary is near.
ASKED = {
    "rank": ("lessons/01-see-rank", "use/choose-a-rank"),
    "alpha": ("understand/alpha",),
    "merge": ("use/merge",),
    "memory": ("use/fit", "use/plan"),
    "QLoRA": ("lessons/16-four-bits", "use/quantise"),
    "DoRA": ("claims/dora-better", "understand/family"),
    "PEFT": ("use/peft",),
    "target modules": ("use/counting", "understand/questions"),
    "GGUF": ("use/convert", "use/merge", "use/quantise"),
    "learning rate": (
        "lessons/22-is-a-lora-enough",
        "claims/rate-ten-times",
        "understand/questions",
    ),
}


@pytest.mark.parametrize("asked", ASKED)
def test_search_shows_a_word_and_then_its_page(open_page, site, asked):
    page = open_page(f"search.html?q={asked}")
    found = page.locator("#search-results li")
    page.get_by_text("Search finished").wait_for()
    pages = [each.get_attribute("href").partition(".html") for each in found.locator("a").all()]
    names = [name for name, _, _ in pages]
    assert next(name for name in names if name != "reference/glossary") in ASKED[asked]
    at = names.index("reference/glossary")
    assert at < 6, names[:8]
    assert pages[at][2].partition("#")[2] == f"term-{asked.replace(' ', '-')}"
    meaning = found.nth(at).locator("p.context")
    meaning.wait_for()
    glossary = (site / "reference" / "glossary.html").read_text(encoding="utf-8")
    defined = glossary.partition(f'id="{pages[at][2].partition("#")[2]}"')[2].partition("</dd>")[0]
    said = " ".join(html.unescape(re.sub(r"<[^>]+>", "", defined)).split())
    assert meaning.inner_text().strip(".")[:40] in said


def test_search_for_a_name_shows_the_function(open_page):
    page = open_page("search.html?q=truncated_svd")
    first = page.locator("#search-results li a").first
    first.wait_for()
    assert first.get_attribute("href") == "reference/linalg.html#lora_np.linalg.truncated_svd"


@pytest.mark.parametrize(
    "path", ["index.html", "learn/explorer.html", "lessons/02-cut-the-svd.html"]
)
def test_without_script_there_are_figures(open_page, path):
    page = open_page(path, java_script_enabled=False)
    assert page.locator("article img:visible, article svg:visible").count() >= 1


EXPLORABLES = [f"learn/explorer.html#{name}" for name in ("rank-explorer", "training", "speaker")]
EXPLORABLES += ["use/fit.html#fit", "use/inspect.html#inspector"]


@pytest.mark.parametrize("path", EXPLORABLES)
def test_an_explorable_without_script_is_a_figure_and_a_sentence(open_page, path):
    page = open_page(path, java_script_enabled=False)
    explorable = page.locator(f".explorer#{path.partition('#')[2]}")
    assert "JavaScript" in explorable.locator("noscript figcaption").inner_text()
    assert explorable.locator("button:visible, input:visible, select:visible").count() == 0
    if path.endswith("speaker"):
        assert explorable.locator("noscript figure p").count() == 2
    else:
        picture = explorable.locator("noscript img")
        assert len(picture.get_attribute("alt")) > 30
        assert picture.bounding_box()["height"] > 80  # it was found and decoded


@pytest.mark.parametrize("path", ["understand/optimum.html", "practice/02-cut-the-svd.html"])
def test_formulas_are_there_without_script(open_page, path):
    page = open_page(path, java_script_enabled=False)
    formulas = page.locator("article mjx-container")
    assert (
        formulas.count()
        == page.locator("article .math").count()
        == page.locator("article math").count()
        >= 1
    )
    assert formulas.locator("visible=true").first.bounding_box()["height"] > 8
    letters = lambda response: "MathJax_Math" in response.url
    assert any(map(letters, open_page.received)) or page.wait_for_event("response", letters)


def test_no_page_loads_mathjax_and_only_those_with_formulas_its_style(site):
    styled, letters = 0, set()
    for path in site.rglob("*.html"):
        if path.relative_to(site).parts[0] == "_static":
            continue
        content = path.read_text(encoding="utf-8")
        assert not re.search(
            r'<script[^>]*(mathjax|MathJax)|class="math[^>]*>\s*\\[(\[]', content
        ), path
        assert ("<mjx-container" in content) == ("formulas.css" in content), path
        styled += "formulas.css" in content
        letters |= {*re.findall(r'<mjx-c class="mjx-c([0-9A-F]+)', content)}
    assert styled > 20
    style = (site / "_static" / "formulas.css").read_text(encoding="utf-8")
    assert not [letter for letter in letters if f"mjx-c{letter}" not in style]
