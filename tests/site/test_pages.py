"""Every page: links that lead somewhere, images with words, headings in order, no barrier."""

import html
import json
import re
import struct
import zlib
from collections import Counter
from functools import cache
from html.parser import HTMLParser
from itertools import cycle, pairwise, product
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from hatch_build import place
from lora_np.version import __version__
from tests.drawing import FULL

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]
FRONT_PAGE = 400_000  # bytes
SITE = 60_000_000  # bytes, without the runtime
KINDS = {
    "front page": "index.html",
    "prose with code": "understand/low-rank.html",
    "formulas": "understand/optimum.html",
    "lessons": "learn/index.html",
    "lesson": "lessons/03-count-parameters.html",
    "exercises": "practice/03-count-parameters.html",
    "table of functions": "reference/index.html",
    "reference": "reference/adapters.html",
    "command line": "reference/cli.html",
    "fit": "use/fit.html",
    "inspector": "use/inspect.html",
    "speaker": "learn/explorer.html#generate-text",
    "live training": "learn/explorer.html#train-b-a",
    "picture": "develop/architecture.html",
    "index": "genindex.html",
    "search": "search.html?q=rank",
    "explorer": "learn/explorer.html",
    "claims": "claims/index.html",
    "claim": "claims/rslora.html",
    "questions": "understand/questions.html",
    "not found": "404.html",
}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


class Page(HTMLParser):
    """Targets, links, images and headings of an HTML file."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.wordless, self.levels = set(), [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids.add(given.get("id"))
        self.links += [given[a] for a in ("href", "src") if given.get(a)]
        if tag == "img" and not given.get("alt"):
            self.wordless.append(given.get("src"))
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))


@cache
def parsed(path):
    return Page(path)


def pages(site):
    return [p for p in site.rglob("*.html") if p.relative_to(site).parts[0] != "_static"]


def test_every_link_inside_leads_somewhere(site, root):
    broken = []
    for path in pages(site):
        for link in parsed(path).links:
            if re.match(r"[a-z]+:|//", link):
                continue
            target, anchor = urldefrag(link)
            # The page for what is not found has links from the root, since it is shown at any
            # address.
            start = root if target.startswith("/") else path.parent
            place = start / unquote(target.split("?")[0]).lstrip("/")
            found = place.resolve() if target else path
            if not found.exists() or (
                anchor and found.suffix == ".html" and anchor not in parsed(found).ids
            ):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken


unpublished = pytest.mark.skipif(any(place().values()), reason="a site with addresses")
published = pytest.mark.skipif(
    not all(place().values()), reason="PUBLICATION names no file with addresses"
)


@unpublished
def test_nothing_claims_to_be_published_elsewhere(site):
    """Without addresses there are no cards, no sitemap, and no links to a repository."""
    text = (site / "index.html").read_text(encoding="utf-8")
    assert "og:url" not in text
    assert not (site / "sitemap.xml").exists()
    assert not any(
        "colab.research" in p.read_text(encoding="utf-8") for p in (site / "lessons").glob("*.html")
    )


@published
def test_links_to_the_own_repository_lead_to_what_is_there(site):
    """To a file, or lines that it has, at the branch or tag of this version."""
    ref = "main" if site.name == "latest" else f"v{__version__}"
    repository = re.escape(place()["repository"])
    kinds = {
        "GitHub": rf"https://github\.com/{repository}/(?:blob|edit)/{ref}/([^?#]+)(?:\?plain=true)?(?:#L(\d+)-L(\d+))?",
        "Colab": rf"https://colab\.research\.google\.com/github/{repository}/blob/{ref}/([^?#]+)()()",
        "Binder": rf"https://mybinder\.org/v2/gh/{repository}/{ref}\?labpath=([^?#]+)()()",
    }
    found, broken = Counter(), []
    for path in pages(site):
        for link in parsed(path).links:
            if (
                place()["repository"] not in link
                or link == f"https://github.com/{place()['repository']}"
            ):
                continue
            matches = {
                kind: match for kind, form in kinds.items() if (match := re.fullmatch(form, link))
            }
            if not matches:
                broken.append(f"{path.relative_to(site)}: {link}")
            for kind, match in matches.items():
                found[kind] += 1
                file, first, last = ROOT / match[1], int(match[2] or 1), int(match[3] or 1)
                if not file.is_file() or not first <= last <= length(file):
                    broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken
    lessons = len(list((ROOT / "notebooks").glob("*.ipynb")))
    assert found["Colab"] == found["Binder"] == lessons
    assert found["GitHub"] > 500


@cache
def length(file):
    return len(file.read_text(encoding="utf-8").splitlines())


@published
def test_addresses_of_the_own_site_are_those_of_pages(site):
    """In the sitemap, as canonical address, in cards; and none is left to a page's own picture."""
    start = f"{place()['site']}{site.name}/"
    sitemap = re.findall("<loc>(.*?)</loc>", (site / "sitemap.xml").read_text(encoding="utf-8"))
    assert len(sitemap) > 100
    all_of = sitemap
    for path in pages(site):
        text = path.read_text(encoding="utf-8")
        canonical = re.search('<link rel="canonical" href="(.*?)"', text)
        named = re.findall(rf'(?:content|href)="({re.escape(start)}[^"]*)"', text)
        assert canonical is None or canonical[1] in named
        for address in (*named, *sitemap):
            assert address.startswith(start)
            assert (site / address.removeprefix(start).split("#")[0]).exists(), f"{path}: {address}"
        sitemap = []
        if "og:url" in text:
            own = path.relative_to(site).with_suffix("").as_posix()
            card = CARDS.get(own, "card.png")
            if own.startswith("claims/") and not own.endswith("index"):
                card = f"card-{path.stem}.png"
            assert f'<meta property="og:image" content="{start}_static/{card}" />' in text
            assert (site / "_static" / card).is_file()
    text = (site / "index.html").read_text(encoding="utf-8")
    for name, content in (("og:image:width", 1200), ("og:image:height", 630)):
        assert f'<meta property="{name}" content="{content}">' in text
    assert '<meta name="twitter:card" content="summary_large_image">' in text
    assert re.search(
        '<meta property="og:image:alt" content="LoRA in plain NumPy: freeze the big matrix.+?"',
        text,
    )
    assert f"{start}index.html" in all_of
    assert not {f"{start}404.html", f"{start}search.html"} & {*all_of}


CARDS = {"use/fit": "card-fit.png", "learn/puzzles": "card-puzzles.png"}
OWN = ("lessons/", "claims/", "use/", "understand/", "learn/", "practice/")


def test_every_page_is_described_in_words_of_its_own(site):
    """For previews and results of searches; what is shared is the same."""
    seen = {}
    for path in pages(site):
        name, text = path.relative_to(site).as_posix(), path.read_text(encoding="utf-8")
        if "<article" not in text or name in (
            "search.html",
            "genindex.html",
            "py-modindex.html",
            "404.html",
        ):
            continue  # among them pages that only forward
        found = re.findall(
            r'<meta (?:content="([^"]+)" name="description"|name="description" content="([^"]+)")',
            text,
        )
        assert len(found) == 1, name
        (described,) = [a or b for a, b in found]
        assert 3 <= len(html.unescape(described)) <= 200, name
        shared = re.search('og:description" content="([^"]*)"', text)
        assert shared is None or html.unescape(shared[1]) == html.unescape(described), name
        if name.startswith(OWN):
            assert len(described) > 40, (name, described)
            assert seen.setdefault(described, name) == name
        assert re.search("<title>.{6,}?</title>", text), name


def test_the_card_has_the_size_that_is_promised(site):
    content = (site / "_static" / "card.png").read_bytes()
    assert struct.unpack(">II", content[16:24]) == (1200, 630)
    assert len(content) < 300_000


@published
def test_pages_say_how_to_install_from_the_index(site):
    here, said = [], {}
    for path in pages(site):
        text = said[path] = html.unescape(re.sub(r"<[^>]+>", "", path.read_text(encoding="utf-8")))
        commands = re.findall(r"pip install (?!-e )(?:[\"']?)\.(?:\[|[\"'\s])", text)
        here += [f"{path.relative_to(site)}: {command}" for command in commands]
    assert not here
    assert "pip install lora-np" in said[site / "index.html"]


@published
def test_versions_are_listed(open_page, root):
    page = open_page("learn/index.html")
    page.locator("nav.versions a").first.wait_for(state="attached")
    listed = page.locator("nav.versions a").all_inner_texts()
    assert listed == json.loads((root / "versions.json").read_text(encoding="utf-8"))
    assert {*listed} == {entry.name for entry in root.iterdir() if entry.is_dir()}
    assert all((root / version / "index.html").is_file() for version in listed)
    (target,) = re.findall('url=([^"]+)"', (root / "index.html").read_text(encoding="utf-8"))
    assert (root / target / "index.html").is_file()


def test_every_image_has_words(site):
    assert {p.name: parsed(p).wordless for p in pages(site) if parsed(p).wordless} == {}


def test_headings_are_in_order(site):
    for path in pages(site):
        levels = parsed(path).levels
        assert levels.count(1) == 1, path
        assert all(later <= earlier + 1 for earlier, later in pairwise(levels)), path


def test_nothing_is_loaded_from_elsewhere(site):
    """Anchors may lead out; scripts, styles, fonts and pictures may not."""
    for path in pages(site):
        text = path.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe|source)[^>]*\ssrc="(https?:[^"]*)"', text)
        loaded += re.findall(
            r'<link[^>]*\srel="(?:stylesheet|preload|icon)"[^>]*\shref="(https?:[^"]*)"', text
        )
        assert not loaded, path


def test_every_public_name_is_documented(site):
    import importlib
    import inspect
    import pkgutil

    import lora_np

    names = {"lora_np"} | {m.name for m in pkgutil.walk_packages(lora_np.__path__, "lora_np.")}
    modules = [
        importlib.import_module(name) for name in sorted(names) if not name.endswith("__main__")
    ]
    # whose names are commands: see below
    modules = [m for m in modules if m.__name__ != "lora_np.cli"]
    # Constants explain themselves where they are used; a thing that several packages offer is
    # documented once.
    public: dict[int, set[str]] = {}
    for m in modules:
        for name in getattr(m, "__all__", ()):
            thing = getattr(m, name)
            if inspect.isclass(thing) or inspect.isroutine(thing):
                public.setdefault(id(thing), set()).add(f"{m.__name__}.{name}")
    content = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    documented = {line.split(" ", 1)[0] for line in zlib.decompress(content).decode().splitlines()}
    assert len(public) > 100
    assert [names for names in public.values() if not names & documented] == []


def test_every_command_is_documented(site):
    from lora_np.cli import app

    text = re.sub(r"<[^>]+>", "", (site / "reference" / "cli.html").read_text(encoding="utf-8"))
    for name in app.list_commands(None):
        command = app.get_command(None, name)
        assert f"lora-np {name}" in text
        shown = [p for p in command.params if not getattr(p, "hidden", False)]
        for option in (o for p in shown for o in p.opts if o.startswith("--")):
            assert option in text, f"{name} {option}"


def test_pages_load_one_python_and_say_its_size(site):
    text = (site / "_static" / "python-data.js").read_text()
    loaded = json.loads(text[text.index("{") : text.rindex(";")])
    said = r"Python[^.]{0,30}about (?:<span[^>]*>)?(\d+)(?:</span>)? MB"
    found = [size for path in site.rglob("*.html") for size in re.findall(said, path.read_text())]
    assert len(found) > 9
    assert {*found} == {f"{(loaded['bytes'] + loaded['compiled']) / 1e6:.0f}"}


def test_the_site_is_small(site):
    apart = {site / "_static" / "python" / "pyodide", site / ".doctrees"}
    sizes = [p.stat().st_size for p in site.rglob("*") if p.is_file() and not apart & {*p.parents}]
    assert sum(sizes) < SITE


def test_the_front_page_is_light(open_page):
    open_page("index.html").wait_for_load_state("networkidle")
    sizes = {response.url: len(response.body()) for response in open_page.received}
    assert any("front-data" in url for url in sizes)
    assert sum(sizes.values()) < FRONT_PAGE


SCHEMES = ("light", "dark")
LOOKS = [*product(KINDS, SCHEMES)] if FULL else [*zip(KINDS, cycle(SCHEMES), strict=False)]


@pytest.mark.parametrize(("kind", "scheme"), LOOKS)
def test_no_barrier(open_page, axe, kind, scheme):
    page = open_page(KINDS[kind], color_scheme=scheme)
    page.wait_for_load_state("networkidle")
    page.evaluate(axe)
    found = page.evaluate("axe.run()")["violations"]
    barriers = [
        (v["id"], v["help"], [n["target"] for n in v["nodes"]][:5])
        for v in found
        if v["impact"] in ("moderate", "serious", "critical")
    ]
    assert not barriers


@pytest.mark.parametrize("kind", KINDS)
def test_a_phone_scrolls_in_one_direction(open_page, kind):
    page = open_page(KINDS[kind], **PHONE)
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["viewport"]["width"]


@pytest.mark.parametrize("path", ["understand/advice.html", "use/adapters.html"])
def test_on_a_phone_a_row_is_a_list_of_named_cells(open_page, path):
    table = open_page(path, **PHONE).locator("article table.stacked").first
    names, rows, over = table.evaluate(
        """(table) => [
            [...table.querySelectorAll("th")].map((th) => th.textContent.trim()),
            [...table.querySelectorAll("tbody tr")].map((row) => [...row.cells].map((td) => td.dataset.heading.trim())),
            table.scrollWidth - table.parentElement.clientWidth,
        ]"""
    )
    assert rows
    assert all(row == names for row in rows)
    assert over <= 0


# a picture, or what one can type or choose
THING = "article :is(img, svg, canvas, table, textarea, select, input, label):not([type=checkbox])"


@pytest.mark.parametrize(
    "path",
    [
        "learn/index",
        "learn/explorer",
        "learn/puzzles",
        "understand/advice",
        "understand/report",
        "claims/index",
        "use/fit",
        "use/inspect",
        "use/adapters",
    ],
)
def test_a_page_begins_with_its_thing(open_page, path):
    page = open_page(f"{path}.html")
    page.wait_for_load_state("networkidle")
    places = page.locator(THING).evaluate_all(
        "all => all.map((one) => one.getBoundingClientRect()).filter(({ width }) => width > 20)"
        ".map(({ y }) => y)"
    )
    assert min(places) < 600


def test_the_front_page_says_what_it_is_in_its_title(open_page):
    assert open_page("index.html").title() == "lora_np: LoRA in plain NumPy"


def test_where_nothing_was_found_no_words_are_marked(open_page):
    page = open_page("search.html?q=rank")
    page.locator("#search-results li").first.wait_for()
    page.wait_for_load_state("networkidle")
    page.goto(page.url.split("search.html")[0] + "404.html")
    page.wait_for_load_state("networkidle")
    assert "Hide Search Matches" not in page.locator("body").inner_text()
    assert page.locator(".highlighted").count() == 0


def test_formulas_show_without_a_network(open_page):
    page = open_page(KINDS["formulas"])
    page.locator("mjx-container").first.wait_for()
    assert page.locator("mjx-container").first.bounding_box()["height"] > 10
    assert page.locator("mjx-merror").count() == 0


def test_what_is_there_is_seen_at_once(open_page):
    page = open_page("learn/index.html")
    entries = page.locator(".sidebar-tree > ul > li > a").all_inner_texts()
    assert len(entries) == len(set(entries)) <= 25
    captions = page.locator(".sidebar-tree .caption").all_text_contents()
    assert captions == ["Start", "Fit", "Adapters", "Evidence", "Reference"]


@pytest.mark.parametrize(
    "path",
    ["lessons/03-count-parameters.html", "lessons/13-differentiate.html", "use/adapters.html"],
)
def test_the_menu_is_short(open_page, path):
    page = open_page(path)
    seen = page.locator(".sidebar-tree a:visible")
    assert 20 < seen.count() <= 40
    names = page.locator(".sidebar-tree a").all_text_contents()
    assert [name for name in names if len(name) > 26] == []
    lines = [link.bounding_box()["height"] for link in seen.all()]
    assert max(lines) < 1.5 * min(lines)
    if path.startswith("lessons/"):
        numbers = [int(name.split(".")[0]) for name in names if re.match(r"\d+\. ", name)]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) == len(list((ROOT / "notebooks").glob("*.ipynb")))
        here = page.locator(".sidebar-tree .current-page > a").inner_text()
        assert re.match(rf"{int(path[8:10])}\. ", here)


def links_of_bodies(site):
    """For each page, the pages that its article leads to, itself left out."""
    leads = {}
    for path in pages(site):
        article = (
            path.read_text(encoding="utf-8").partition("<article")[2].partition("</article>")[0]
        )
        targets = (urldefrag(link)[0] for link in re.findall(r'href="([^"]+)"', article))
        found = {(path.parent / unquote(target)).resolve() for target in targets if target}
        leads[path.resolve()] = found - {path.resolve()}
    return leads


def test_every_page_has_a_link_from_the_body_of_another(site):
    leads = links_of_bodies(site)
    reached = set().union(*leads.values())
    alone = {
        "404.html",
        "search.html",
    }  # for an address that leads nowhere; the field of every page
    missing = {path.relative_to(site.resolve()).as_posix() for path in {*leads} - reached}
    assert missing <= alone
    assert (site / "use" / "inspect.html").resolve() in leads[(site / "index.html").resolve()]


def test_a_page_in_the_menu_lists_its_children(site):
    leads = links_of_bodies(site)
    menu = (site / "index.html").read_text(encoding="utf-8")
    menu = menu.partition('<div class="sidebar-tree">')[2].partition("</aside>")[0]
    branches = re.findall(
        r'<li class="toctree-l1 has-children"><a [^>]*href="([^"]+)">.*?<ul>(.*?)</ul>',
        menu,
        re.DOTALL,
    )
    assert len(branches) > 6
    for parent, children in branches:
        body = leads[(site / parent).resolve()]
        names = re.findall(r'href="([^"]+)"', children)
        assert names
        assert [name for name in names if (site / name).resolve() not in body] == [], parent


def test_i_have_and_i_want_come_first(open_page):
    from lora_np.cli import app

    page = open_page("use/adapters.html")
    table = page.locator("article table").first
    assert table.locator("th").all_inner_texts() == ["I have", "I want", "page", "command"]
    assert table.bounding_box()["y"] < page.locator("article pre").first.bounding_box()["y"]
    assert table.bounding_box()["y"] < 400
    commands = re.findall(r"lora-np (\w+)", table.inner_text())
    assert len(commands) > 10
    assert {*commands} <= {*app.list_commands(None)}
