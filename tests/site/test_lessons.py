"""Lessons run in the browser, on a Pyodide that the site itself serves."""

import base64
import io
import json
import time

import numpy as np
import pytest
from PIL import Image

import lora_np as lnp
from lora_np.course import lessons
from lora_np.datasets import photograph
from tests.drawing import FULL

pytestmark = pytest.mark.browser

PRODUCTS = """
import itertools
import numpy as np
import lora_np as lnp
from lora_np.autograd import kernels, rules
import lora_np_browser

rng = np.random.default_rng(0)
faster = 0

def draw(m, n):
    # whole numbers, so that sums are exact, in one of four layouts
    M = rng.integers(-5, 6, size=(m, n)).astype(np.float32)
    M[rng.random(m) < 0.2] = 0
    return [M, np.asfortranarray(M), M[::-1], np.repeat(M, 2, axis=1)[:, ::2]][rng.integers(4)]

def multiply(*arguments):
    global faster
    faster += 1
    native(*arguments)

native, lora_np_browser.multiply = lora_np_browser.multiply, multiply
lora_np_browser.WORTH = 1
sizes = [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 300]
for m, k, n in itertools.product(sizes, repeat=3):
    a, b = draw(m, k), draw(k, n)
    assert np.array_equal(kernels.product(a, b), np.asarray(a, float) @ b), (m, k, n)
    g = draw(m, n)
    assert np.array_equal(rules.sum_of_outer(g, a), np.asarray(g, float).T @ a), (m, k, n)
x = rng.integers(-5, 6, size=(2, 9, 8)).astype(np.float32)
W = lnp.Tensor(rng.integers(-5, 6, size=(7, 8)).astype(np.float32))
y = lnp.autograd.affine(x, W)
assert np.array_equal(y.data, x.astype(float) @ W.data.T)
faster
"""


@pytest.fixture
def runtime(site):
    if not (site / "lite" / "static" / "pyodide" / "pyodide.js").is_file():
        pytest.skip("the site was built without PYODIDE_DIST, so it has no runtime of its own")


def test_products_in_the_browser_are_those_of_numpy(open_page, site, runtime):
    page = open_page("404.html")
    (wheel,) = (site / "lite" / "pypi").glob("lora_np-*.whl")
    faster = page.evaluate(
        """async ([wheel, program]) => {
          const { loadPyodide } = await import(new URL("lite/static/pyodide/pyodide.mjs", document.baseURI));
          const pyodide = await loadPyodide({ packages: ["numpy", "matplotlib"] });
          pyodide.unpackArchive(await (await fetch(wheel)).arrayBuffer(), "wheel");
          return pyodide.runPython(program);
        }""",
        [f"lite/pypi/{wheel.name}", PRODUCTS],
    )
    assert faster > 2_000


@pytest.fixture
def open_lesson(open_page, runtime):
    def open_lesson(name):
        page = open_page(f"lite/notebooks/index.html?path={name}.ipynb")
        page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
        return page

    return open_lesson


def run_all(page):
    page.get_by_role("button", name="Run all cells", exact=True).click()


def wait_for_the_end(page):
    page.wait_for_function(
        """() => {
          const prompts = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")];
          return prompts.length > 2 && prompts.every((p) => /\\[\\d+\\]/.test(p.textContent));
        }"""
    )


def problems(page):
    selector = '[data-mime-type="application/vnd.jupyter.error"], [data-mime-type="application/vnd.jupyter.stderr"]'
    return page.locator(selector).all_inner_texts()


def wait_for_figures(page, site, name):
    """As many as cells of the lesson draw: those with an alt text. They come after the numbers of
    their cells.
    """
    notebook = json.loads((site / "lite" / "files" / f"{name}.ipynb").read_text(encoding="utf-8"))
    expected = sum("alt" in cell["metadata"] for cell in notebook["cells"])
    page.wait_for_function(f"document.querySelectorAll('.jp-OutputArea img').length >= {expected}")


ALWAYS = ("01-see-rank", "05-adapt-a-language-model")


@pytest.mark.parametrize("name", [path.stem for path in lessons() if FULL or path.stem in ALWAYS])
def test_runs_to_its_end_in_the_browser(open_lesson, site, name, capsys):
    """Its seconds are printed, from a cold start: to the first result, and in all."""
    begin = time.monotonic()
    page = open_lesson(name)
    run_all(page)
    page.locator(".jp-CodeCell .jp-OutputArea-output").first.wait_for(state="attached")
    first = time.monotonic() - begin
    wait_for_the_end(page)
    with capsys.disabled():
        print(
            f"\n{name}: first result after {first:.0f} s, all after {time.monotonic() - begin:.0f} s"
        )
    assert problems(page) == []
    wait_for_figures(page, site, name)


FETCHED = (
    "performance.getEntriesByType('resource').filter(({ name }) => name.includes('/lite/')).length"
)


def test_who_reaches_for_a_notebook_has_python_fetched(open_page, runtime):
    page = open_page("lessons/01-see-rank.html")
    page.wait_for_load_state("networkidle")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.locator('a[href*="lite/notebooks/"]').first.hover()
    page.locator('a[href*="lite/notebooks/"]').first.focus()
    page.wait_for_function(f"{FETCHED} >= 4")
    names = [url.rpartition("/")[2] for url in asked]
    assert {"pyodide.asm.wasm", "pyodide.asm.js", "python_stdlib.zip"} < set(names)
    assert len(names) == len(set(names)) == page.evaluate(FETCHED) == 4


def test_a_notebook_leads_back_to_its_lesson_and_on_to_the_next(open_lesson):
    page = open_lesson("01-see-rank")
    page.get_by_role("link", name="Next lesson").click()
    page.wait_for_url(
        lambda url: url.endswith("/lite/notebooks/index.html?path=07-factor-a-matrix.ipynb")
    )
    page.get_by_role("heading", name="Factor a matrix").wait_for()
    page.get_by_role("link", name="Back to the lesson").click()
    page.wait_for_url("**/lessons/07-factor-a-matrix.html")
    assert "Factor a matrix" in page.title()


def test_the_last_lesson_has_no_next(open_lesson):
    page = open_lesson(lessons()[-1].stem)
    page.get_by_role("link", name="Back to the lesson").wait_for()
    assert page.get_by_role("link", name="Next lesson").count() == 0


def test_cut_the_svd_runs_and_its_slider_moves_the_picture(open_lesson, site):
    from playwright.sync_api import expect

    page = open_lesson("02-cut-the-svd")
    run_all(page)
    wait_for_the_end(page)
    assert problems(page) == []
    wait_for_figures(page, site, "02-cut-the-svd")
    view = page.locator(".widget-vbox")
    view.locator(".noUi-handle").focus()
    for rank in (20, 30):  # the lesson starts it at 16
        page.keyboard.press("ArrowRight")
        expect(view.locator("figcaption")).to_have_text(caption(rank))
        assert np.abs(pixels(view.locator("img")) - cut(rank)).max() <= 1


def caption(rank):
    error = lnp.rank_errors(photograph(), relative=True)[rank]
    count = lnp.count_lora(*photograph().shape, rank=rank)
    return f"rank {rank}: error {error:.1%}, {count:,} numbers"


def cut(rank):
    """Grey levels of the photograph at this rank."""
    B, A = lnp.low_rank_factors(photograph(), rank=rank)
    return 255 * np.clip(B @ A, 0, 1)


def pixels(picture):
    encoded = picture.get_attribute("src").removeprefix("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))), dtype=float)
