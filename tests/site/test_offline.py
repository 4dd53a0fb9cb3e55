"""The site as a zip, opened from files without a network in Chromium and, where it is, in Firefox:
its tools answer and all fifteen puzzles are solved. Without the zip a page says what it needs.
"""

import json
import shutil
import sys
import zipfile

import pytest

from lora_np.exercises import puzzles
from tests import firefox
from tests.site.conftest import ROOT

pytestmark = pytest.mark.browser
READY = {  # what is true once a page's tool has answered
    "index.html": "document.querySelector('.front-stage').dataset.trained === '8'",
    "use/fit.html": "'result' in document.getElementById('fit').dataset",
    "learn/explorer.html": "document.querySelector('[data-show=error]').textContent.length > 2",
    "learn/explorer.html#train-b-a": "document.querySelector('#training [data-show=loss]').textContent > '0'",
    "learn/explorer.html#generate-text": "document.querySelector('#speaker [data-show=speed]').textContent"
    " && (window.asked ||= !document.querySelector('#speaker [name=again]').click()) && parseFloat(document.querySelector('#speaker [data-show=speed]').textContent) > 0",
}
HOLDS = "new Promise((done) => { const look = () => HELD ? done(true) : setTimeout(look, 500); look(); })"
SOLVED = """(async (lines) => {
  for (const [name, line] of Object.entries(lines)) {
    const form = document.querySelector(`form[data-puzzle=${name}]`), { code, check } = form.elements;
    code.value = line;
    form.requestSubmit();
    while (check.disabled) await new Promise((done) => setTimeout(done, 50));
  }
  return document.querySelector(".puzzle-progress [data-show=done]").textContent;
})(LINES)"""


@pytest.fixture(scope="module")
def unpacked(site, tmp_path_factory):
    if not (site / "_static" / "python" / "pyodide" / "pyodide.js").is_file():
        pytest.skip("the site was built without PYODIDE_DIST, so it has no runtime of its own")
    folder = tmp_path_factory.mktemp("offline")
    sys.path.append(str(ROOT / "docs" / "_ext"))
    import offline

    offline.pack(site, folder / "lora_np-offline.zip")
    assert (folder / "lora_np-offline.zip").stat().st_size <= 45_000_000
    with zipfile.ZipFile(folder / "lora_np-offline.zip") as archive:
        archive.extractall(folder)
    return (folder / "lora_np-offline").as_uri()


@pytest.fixture(params=["chromium", "firefox"])
def visit(request, chromium, tmp_path):
    """``visit(address, expression)``: what a promise comes to on a page, without a network."""
    if request.param == "chromium":
        context = chromium.new_context(offline=True)
        page, trouble = context.new_page(), []
        page.on("pageerror", lambda error: trouble.append(str(error)))
        aborted = "net::ERR_ABORTED"  # what was on its way when a page was left
        page.on("requestfailed", lambda r: r.failure == aborted or trouble.append(r.url))

        def visited(address, expression):
            page.goto(address)  # comes to None if only the part after # is another
            return page.evaluate(expression)

        yield visited
        context.close()
        assert not trouble
        return
    if not shutil.which(firefox.PROGRAM):
        pytest.skip(f"left out: {firefox.PROGRAM} is not installed")
    with firefox.driven(tmp_path) as asked:
        yield asked


def test_from_files_the_tools_answer_and_all_puzzles_are_solved(visit, unpacked):
    for page, held in READY.items():
        assert visit(f"{unpacked}/{page}", HOLDS.replace("HELD", held)) is True, page
    lines = json.dumps({one.name: one.right for one in puzzles()})
    said = visit(f"{unpacked}/learn/puzzles.html", SOLVED.replace("LINES", lines))
    assert said == "15 of 15 solved"


@pytest.mark.parametrize("page", ["learn/puzzles.html", "use/fit.html", "use/inspect.html"])
def test_without_the_zip_a_page_opened_from_a_file_says_what_it_needs(chromium, site, page):
    opened = chromium.new_page()
    opened.goto((site / page).as_uri())
    opened.get_by_text("Unpack lora_np-offline.zip").wait_for(timeout=5000)
    opened.close()
