"""Files that no program wrote, in the inspector and in the package: one clear line, or the same
numbers in both.
"""

import base64

import pytest

from lora_np import adapters
from lora_np.files import FileError
from tests.drawing import few
from tests.site.adapter_cases import SCRIPT, check_findings, check_rows, files, given, refusal
from tests.site.hostile_files import CASES, CONFIG, GGUF, MLX, WEIGHTS

pytestmark = pytest.mark.browser

# What the page opens not, and the package does; and numbers too small for the package's float32
ONLY_IN_THE_PACKAGE = {
    "rank 513",
    "a pattern of 200 parentheses",
    "mlx, a router",
    "GGUF, Q4_0",
    "GGUF, experts",
}
TINY = {"squares that vanish", "the smallest numbers", "lora_alpha = 1e-320"}
MEMORY = 30e6  # bytes that the page may hold more after all of them


@pytest.fixture
def inspector(open_page):
    return open_page("use/inspector.html")


def written(case, folder):
    """The path of an adapter of these files, or None if they are not what one of a program has."""
    if {*case} not in ({WEIGHTS, CONFIG}, {MLX, CONFIG}, {GGUF}):
        return None
    folder.mkdir()
    for name, content in case.items():
        (folder / name).write_bytes(content)
    return folder / GGUF if GGUF in case else folder


def ours(path):
    """What the package says: None if it opens the adapter, else its message. It never fails in
    another way.
    """
    try:
        adapters.inspect(path)
        adapters.check(path)
    except FileError as error:
        return str(error)
    return None


def used(page):
    """The bytes that a page holds."""
    client = page.context.new_cdp_session(page)
    client.send("HeapProfiler.collectGarbage")
    found = client.send("Runtime.getHeapUsage")
    return found["usedSize"] + found.get("backingStorageSize", 0)


def test_every_file_is_refused_in_a_line_or_read_as_the_package_reads_it(inspector, tmp_path):
    opened, before = set(), used(inspector)
    for i, (name, case) in enumerate(few(CASES.items(), 4)):
        answer = inspector.evaluate(SCRIPT, given(case, [1]))
        message = answer.get("refused")
        assert message is None or refusal(message), (name, message)
        path = written(case, tmp_path / str(i))
        if path is None:
            assert message, name
            continue
        if refused := ours(path):
            assert message, name
            assert "\n" not in refused, name
        elif message:
            assert name in ONLY_IN_THE_PACKAGE, (name, message)
        else:
            opened.add(name)
            check_findings(path, answer)
            if name not in TINY:
                check_rows(path, answer)
    assert used(inspector) - before < MEMORY  # though headers speak of 2^53 numbers
    assert len(CASES) > 280
    assert len(opened) > len(few(CASES.items(), 4)) / 10  # such as names of html, alpha 0 and NaN


@pytest.mark.parametrize("slot", ["first", "second"])
def test_the_page_says_it_and_runs_nothing(inspector, slot):
    """The fixture sees every exception and every word in the console."""
    title = inspector.title()
    place, found = {
        "first": ("message", ".inspector-found"),
        "second": ("compared", ".inspector-both"),
    }[slot]
    if slot == "second":
        inspector.get_by_role("button", name="Open an example").click()
        inspector.locator(".inspector-found").wait_for()
    said = inspector.locator(f"[data-show={place}]")
    for name, case in few(CASES.items(), 5 if slot == "first" else 25):
        if not case:
            continue  # a dialog that is closed without a choice
        said.evaluate("(element) => { element.textContent = 'waiting'; }")
        inspector.locator(f"input[name={slot}]").set_input_files(
            [
                {
                    "name": each["name"],
                    "mimeType": "application/octet-stream",
                    "buffer": base64.b64decode(each["content"]),
                }
                for each in files(case)
            ]
        )
        inspector.wait_for_function(
            "(name) => !/^(waiting|Reading|Computing)/.test(document.querySelector(`[data-show=${name}]`).textContent)",
            arg=place,
        )
        text = said.inner_text()
        assert refusal(text), (name, text)
        assert inspector.locator(found).is_hidden() == text.startswith("Refused: "), name
        assert inspector.locator("#inspector img, #inspector script").count() == 0
        assert inspector.title() == title, name


def test_html_in_names_is_text(inspector):
    for name in ("a module of html", "a base of html"):
        inspector.locator("input[name=first]").set_input_files(
            [
                {"name": file, "mimeType": "application/octet-stream", "buffer": content}
                for file, content in CASES[name].items()
            ]
        )
        inspector.locator(".inspector-found").get_by_text("hacked").first.wait_for(state="attached")
        assert inspector.locator("#inspector img, #inspector script").count() == 0
    assert "hacked" not in inspector.title()


def test_a_folder_or_a_file_that_cannot_be_read_is_refused(inspector):
    script = """async ([name, size, fails]) => {
      const file = {name, size, arrayBuffer: async () => { if (fails) throw new DOMException("x"); return new ArrayBuffer(0); }};
      try { await loraFormats.open([file]); } catch (error) { return error.message; }
    }"""
    assert "if it is a folder" in inspector.evaluate(script, ["adapter", 4096, True])
    large = inspector.evaluate(script, ["adapter.gguf", 2**33, False])  # of which nothing is read
    assert large == "adapter.gguf has 8.6 GB, more than this page reads: use lora-np inspect"
