"""The adapter inspector answers as `lora-np inspect`, `check`, `diff`, `overlap` and `resize` do."""

import base64
import json
import math
import re
import time
from pathlib import Path

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import Adapter, AdapterModule
from lora_np.files import FileError
from lora_np.language import located_adapter
from tests.adapters.test_checking import CASES, Q, made
from tests.adapters.test_formats import SMALL, drawn as modelled
from tests.adapters.test_image_models import saved, tensors_of
from tests.drawing import FULL, few, only_full
from tests.laws.hostile_files import CASES as HOSTILE, FURTHER

pytestmark = pytest.mark.browser
MEMORY = 512  # MB that the page may take for an adapter of 100 MB

ASK = """async ([what, places]) => {
  const files = {};
  for (const [place, given] of Object.entries(places)) {
    files[place] = given.map(([name, content]) =>
      ({name, data: new Blob([Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0))])}));
  }
  const answer = await loraPage.ask({...what, files});
  if (answer.bytes) answer.bytes = btoa(Array.from(answer.bytes, (byte) => String.fromCharCode(byte)).join(""));
  return answer;
}"""


@pytest.fixture
def runs(site):
    if not (site / "_static" / "python" / "pyodide" / "pyodide.js").is_file():
        pytest.skip("the site was built without PYODIDE_DIST, so it has no runtime of its own")


@pytest.fixture
def inspector(open_page, runs):
    return open_page("use/inspect.html")


def contents(path):
    """Names and contents of the files at a path, or of a mapping."""
    if isinstance(path, Path):
        found = [path] if path.is_file() else sorted(each for each in path.iterdir())
        path = {each.name: each.read_bytes() for each in found}
    return path


def ask(page, what, **places):
    encoded = {
        place: [[name, base64.b64encode(raw).decode()] for name, raw in contents(path).items()]
        for place, path in places.items()
    }
    return page.evaluate(ASK, [what, encoded])


def assert_same(theirs, ours, path=""):
    """Values as JSON has them: text and whole numbers the same, fractions but for rounding."""
    if isinstance(ours, dict):
        assert {*theirs} == {*ours}, path
        for key, value in ours.items():
            assert_same(theirs[key], value, f"{path}/{key}")
    elif isinstance(ours, list):
        assert len(theirs) == len(ours), path
        for i, (one, other) in enumerate(zip(theirs, ours, strict=True)):
            assert_same(one, other, f"{path}/{i}")
    elif isinstance(ours, float) and not math.isfinite(ours):
        assert theirs == str(ours), path
    elif isinstance(ours, float):
        assert theirs == pytest.approx(ours, rel=2e-5, abs=1e-9), path
    else:
        assert theirs == ours, path


def as_json(value):
    return json.loads(json.dumps(value))


def check(page, path):
    """What the page says of an adapter against `inspect` and `check`."""
    answer = ask(page, {"kind": "inspect", "place": "first"}, first=path)
    seen, checked = adapters.inspect(path), adapters.check(path)
    ours = json.loads(seen.to_json())
    for key in ("rows", "contents"):
        assert_same(answer[key], ours[key], key)
    for name, s in seen.spectra.items():
        largest = s.max(initial=0)
        np.testing.assert_allclose(answer["spectra"][name], s, rtol=1e-5, atol=1e-6 * largest)
    assert_same(answer["words"], as_json(seen.contents_table.rows))
    rows = as_json(checked.table.rows)
    assert_same(answer["check"]["rows"], rows)
    assert all(answer["check"]["programs"].values()) == checked.fine
    assert "/given" not in json.dumps(answer)
    return answer


def every_kind(folder):
    """Adapters of all formats and kinds: PEFT's, GGUF, mlx-lm's, experts, convolutions, tuners."""
    found = []
    for i, (_, (settings, _)) in enumerate(few(CASES.items(), 4)):
        found.append(folder / f"case-{i}")
        adapters.save(made(**settings), found[-1])
    for family, roles in few(
        [
            ("llama", ("linear", "embedding", "head")),
            ("qwen2", ("linear", "head")),
            ("gemma2", ("linear",)),
            ("mistral", ("linear",)),
        ],
        2,
    ):
        config = {"model_type": family, **SMALL}
        adapter = modelled(config, roles=roles)
        adapters.save(adapter, folder / family / "peft")
        adapters.convert(adapter, folder / family / "adapter.gguf", to="gguf", base=config)
        adapters.convert(adapter, folder / family / "mlx", to="mlx")
        found += [folder / family / name for name in ("peft", "adapter.gguf", "mlx")]
    experts = modelled({"model_type": "qwen3_moe", **SMALL}, roles=("linear", "experts", "router"))
    adapters.save(experts, folder / "experts")
    wide = AdapterModule.of(A=np.eye(600, 40), B=np.eye(30, 600), alpha=600.0)
    adapters.save(Adapter({Q: wide}), folder / "wide")
    adapters.save(Adapter({Q: high(np.float32)}), folder / "high")
    return [*found, folder / "experts", folder / "wide", folder / "high"]


def high(dtype, rank=96, d=200, k=130):
    """A module of a high rank, which seven columns of zeros and a row that is there twice reduce."""
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(rank, k)), rng.normal(size=(d, rank)) / 8
    A[-1], B[:, :7] = A[0], 0
    return AdapterModule.of(A=A.astype(dtype), B=B.astype(dtype), alpha=rank)


def test_before_python_is_there_ranks_are_those_of_numpy(inspector, tmp_path):
    inspector.route("**/pyodide.js", lambda route: None)  # which never comes
    adapters.convert(located_adapter("king-james"), tmp_path / "mlx", to="mlx")
    for dtype in (np.float16, np.float32, np.float64):
        adapters.save(Adapter({Q: high(dtype)}), tmp_path / dtype.__name__)
    glance = inspector.locator(".inspector-glance")
    for path in [located_adapter("king-james"), *tmp_path.iterdir()]:
        glance.evaluate("box => box.textContent = ''")  # what it said of the adapter before
        chosen(inspector, path)
        said = glance.get_by_text("keeps 99 %").inner_text()
        ranks = sorted({row.rank_for_99 for row in adapters.inspect(path).rows})
        short = [str(ranks[0]), str(ranks[-1])] if len(ranks) > 3 else map(str, ranks)
        assert (" to " if len(ranks) > 3 else ", ").join(short) in said.partition("rank of ")[2]


def test_the_page_answers_as_the_package(inspector, tmp_path):
    paths = every_kind(tmp_path)
    for path in paths:
        check(inspector, path)
    rng = np.random.default_rng(0)
    kinds = [("lora", (6, 4), ()), ("lora", (6, 4), (3, 3)), ("loha", (6, 4), ())]
    for kind, shape, kernel in few(kinds, 3):
        path = tmp_path / "image" / f"{kind}{len(kernel)}.safetensors"
        path.parent.mkdir(exist_ok=True)
        saved(path, {"lora_unet_q": tensors_of(kind, shape, kernel, rng)[0]})
        check(inspector, path)
    name, other = map(located_adapter, ("king-james", "genesis-by-peft"))
    answer = ask(inspector, {"kind": "compare"}, first=name, second=other)
    ours = [row._asdict() for row in adapters.overlap([name, other], any_base=True).rows]
    for theirs, mine in zip(answer["overlap"], ours, strict=True):
        both = [
            {k: v for k, v in each.items() if k not in ("first", "second")}
            for each in (theirs, mine)
        ]
        assert_same(*both)
    difference = adapters.diff(name, other)
    assert_same(answer["diff"]["rows"], as_json(difference.rows))
    assert answer["diff"]["notes"] == list(difference.notes)
    cut = ask(inspector, {"kind": "cut", "rank": 3}, first=name)
    done = adapters.resize(name, tmp_path / "cut", rank=3)
    assert (cut["size"], cut["error"]) == (done.bytes, pytest.approx(done.error, rel=1e-5))
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "adapter_model.safetensors").write_bytes(base64.b64decode(cut["bytes"]))
    (theirs / "adapter_config.json").write_text(cut["config"], encoding="utf-8")
    assert adapters.diff(theirs, tmp_path / "cut", tolerance=1e-4).same


def test_hostile_files_are_refused_in_a_line_or_opened_as_by_the_package(inspector, tmp_path):
    title = inspector.title()
    cases = [*few(HOSTILE.items(), 12), *few(FURTHER.items(), 4)]
    opened = 0
    for i, (name, case) in enumerate(cases):
        if not case:
            continue  # a dialog that is closed without a choice
        answer = ask(inspector, {"kind": "inspect", "place": "first"}, first=case)
        folder = tmp_path / str(i)
        folder.mkdir()
        for file, content in case.items():
            (folder / file).write_bytes(content)
        path = folder / next(iter(case)) if len(case) == 1 else folder
        refused = ""
        try:
            adapters.inspect(path)
            adapters.check(path)
        except FileError as error:
            refused = str(error)
        assert bool(answer.get("refused")) == bool(refused), (name, answer)
        if not refused:
            opened += 1
            continue
        message = answer["refused"]
        assert len(message) <= 500, name
        assert message.isprintable(), name
        assert not re.search(r"/given|/tmp|\bundefined\b|\[object", message), (name, message)
        reason = re.sub(rf"{re.escape(str(tmp_path))}/\d+(/|: )", "", refused)
        assert message[:60] == reason[:60] or len(refused) > 500, (name, message, reason)
    assert opened or not FULL
    # and the page itself shows names as text
    for name in ("a module of html", "a base of html"):
        chosen(inspector, HOSTILE[name])
        inspector.locator(".inspector-found").get_by_text("hacked").first.wait_for(state="attached")
        assert inspector.locator("#inspector img, #inspector script").count() == 0
    assert inspector.title() == title


def chosen(page, path, slot="first"):
    """Give the files at a path to one of the two places."""
    files = contents(path).items()
    files = [{"name": n, "mimeType": "application/octet-stream", "buffer": b} for n, b in files]
    page.locator(f"input[name={slot}]").set_input_files(files)


def table(page, selector):
    return page.locator(f"{selector} tbody tr").evaluate_all(
        "rows => rows.map((row) => [...row.children].map((cell) => cell.textContent))"
    )


def dropped(page, path):
    target = page.locator(".inspector-drop").first
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    dragged = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for event in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": event, "data": dragged, **place})


def test_a_visit(inspector, tmp_path):
    """An example, cut and saved; a folder that is dropped; a second adapter, refused and read."""
    page, path = inspector, located_adapter("king-james")
    assert page.evaluate("loraPage.there") is False  # nothing is fetched before it is asked for
    assert re.search(r"about \d+ MB", page.locator("#inspector").inner_text())
    page.get_by_role("button", name="Open an example").click()
    glance = page.locator(".inspector-glance")
    glance.wait_for()
    assert "28 modules of rank 8" in glance.inner_text()  # before Python is there
    page.locator(".inspector-found").wait_for()
    expected = adapters.inspect(path)
    assert [row[0] for row in table(page, ".inspector-modules")] == [r.name for r in expected.rows]
    shown = table(page, ".inspector-check")
    assert [row[:3] for row in shown] == [list(row[:3]) for row in adapters.check(path).table.rows]
    error = page.locator("[data-show=error]")
    page.wait_for_function("document.querySelector('[data-show=error]').textContent")
    before = error.inner_text()
    slider = page.get_by_role("slider")
    slider.focus()
    page.keyboard.press("Home")
    page.wait_for_function(
        f"document.querySelector('[data-show=error]').textContent !== {before!r}"
    )
    assert "r=1" in page.evaluate("location.search")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download adapter_model").click()
    one = adapters.resize(path, tmp_path / "one", rank=1)
    assert Path(waiting.value.path()).stat().st_size == one.bytes

    dropped(page, located_adapter("genesis-by-peft"))
    page.wait_for_function("document.querySelector('[data-show=modules]').textContent === '8'")
    page.get_by_role("button", name="With an example").click()
    page.locator(".inspector-both").wait_for()
    assert table(page, ".inspector-pairs")[0][0] == "all"
    chosen(page, {"adapter.gguf": b"GGUF"}, "second")
    page.locator("[data-show=compared]").get_by_text("Refused").wait_for()
    assert page.locator(".inspector-found").is_visible()
    assert page.locator(".inspector-both").is_hidden()
    adapters.convert(path, tmp_path / "mlx", to="mlx")
    chosen(page, tmp_path / "mlx", "second")
    page.locator(".inspector-both").wait_for()
    chosen(page, tmp_path / "mlx")  # another first one: nothing is compared any more
    page.wait_for_function(
        "document.querySelector('[data-show=dtype]').textContent.startsWith('mlx-lm')"
    )
    assert page.locator(".inspector-both").is_hidden()
    chosen(page, {"adapter_model.safetensors": b"\xff" * 9, "adapter_config.json": b"{"})
    message = page.locator("[data-show=message]")
    message.get_by_text("Refused").wait_for()
    assert message.inner_text().startswith("Refused: adapter_")
    assert page.locator(".inspector-found").is_hidden()


def test_a_new_file_stops_the_work_on_the_old_one(inspector, tmp_path):
    """A question that nobody waits for any more is not answered, whether it runs or waits."""
    page, large = inspector, big(tmp_path / "big", 8)
    chosen(page, large)
    page.wait_for_function("loraPage.there")
    chosen(page, {"adapter.gguf": b"GGUF"})
    message = page.locator("[data-show=message]")
    message.get_by_text("Refused").wait_for()
    before = message.inner_text()
    page.evaluate("loraPage.ask({kind: 'inspect', place: 'first', files: {}})")  # after all others
    assert message.inner_text() == before
    assert page.locator(".inspector-found").is_hidden()


def big(folder, layers, d=2048, r=32):
    """Files of an adapter of so many layers, each of half a megabyte."""
    A, B = np.random.default_rng(0).standard_normal((2, r, d), "f4")
    module = AdapterModule.of(A=A, B=np.ascontiguousarray(B.T), alpha=r)
    adapters.save(Adapter({f"layers.{i}.q": module for i in range(layers)}), folder)
    return folder


@only_full
def test_a_hundred_megabytes_leave_the_page_alive_and_small(inspector, tmp_path):
    inspector.evaluate(
        """() => {
          window.longest = 0;
          let last = performance.now();
          setInterval(() => {
            window.longest = Math.max(window.longest, performance.now() - last);
            last = performance.now();
          }, 20);
        }"""
    )
    inspector.locator("input[name=first]").set_input_files(
        sorted(big(tmp_path / "big", 200).iterdir())
    )
    largest = 0
    while not inspector.locator(".inspector-found").is_visible():
        largest = max(largest, renderer_memory())
        time.sleep(0.2)
    assert inspector.locator("[data-show=modules]").inner_text() == "200"
    assert largest < MEMORY
    assert inspector.evaluate("window.longest") < 2000  # also where others use the machine


def renderer_memory():
    """MB of memory of the browser's largest process that draws a page."""
    found = [0]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"--type=renderer" in (process / "cmdline").read_bytes():
                status = (process / "status").read_text()
                found.append(int(status.partition("RssAnon:")[2].split()[0]) // 1000)
        except OSError:
            continue
    return max(found)


def test_where_python_cannot_be_fetched_the_header_and_the_command_stand(open_page):
    page = open_page("use/inspect.html")
    page.route("**/pyodide.js", lambda route: route.fulfill(body="throw new Error('no network')"))
    chosen(page, located_adapter("king-james"))
    message = page.locator("[data-show=message]")
    message.get_by_text("could not be loaded").wait_for()
    assert "28 modules of rank 8" in page.locator(".inspector-glance").inner_text()
    assert page.locator("#inspector code", has_text="lora-np inspect").is_visible()


def test_an_example_that_comes_late_does_not_replace_files_that_were_chosen(inspector):
    waiting = []
    inspector.route("**/example-adapter/*", lambda route: waiting.append(route))
    inspector.get_by_role("button", name="Open an example").click()
    chosen(inspector, {"adapter.gguf": b"GGUF"})
    message = inspector.locator("[data-show=message]")
    message.get_by_text("Refused").wait_for()
    before = message.inner_text()
    assert len(waiting) == 2
    for route in waiting:
        with inspector.expect_response(route.request.url):
            route.continue_()
    inspector.evaluate("fetch(location.href).then((answer) => answer.text())")  # after it
    assert message.inner_text() == before


SCREENS = [("light", 1280), ("dark", 390)]


@pytest.mark.parametrize(("scheme", "width"), SCREENS if FULL else SCREENS[1:])
def test_no_barrier_where_all_is_open(open_page, axe, runs, scheme, width):
    screen = {"color_scheme": scheme, "viewport": {"width": width, "height": 844}}
    page = open_page("use/inspect.html", **screen)
    page.get_by_role("button", name="Open an example").press("Enter")
    page.locator(".inspector-found").wait_for()
    page.get_by_role("button", name="With an example").press("Enter")
    page.locator(".inspector-both").wait_for()
    for summary in page.locator("#inspector summary").all():
        summary.press("Enter")
    page.evaluate(axe)
    found = page.evaluate("axe.run('#inspector')")["violations"]
    grave = ("moderate", "serious", "critical")
    assert [each["id"] for each in found if each["impact"] in grave] == []
    edges = page.locator("#inspector button:visible").evaluate_all(
        "all => all.map(b => [b.textContent, b.getBoundingClientRect().left, b.getBoundingClientRect().right])"
    )
    assert len(edges) == 4
    assert [edge for edge in edges if edge[1] < 0 or edge[2] > width] == []
