"""The adapter inspector: its numbers, verdicts and files are those of the package."""

import base64
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import Adapter, AdapterModule
from lora_np.adapters.rules import runtimes
from lora_np.files import FileError
from lora_np.hub import gguf
from lora_np.language import located_adapter
from lora_np.models import peft
from lora_np.models.expressions import Expression
from lora_np.quantise.gguf_blocks import encoded
from tests.adapters.test_checking import CASES, Q, made
from tests.adapters.test_formats import SMALL, drawn as modelled
from tests.drawing import few
from tests.gguf_files import save_gguf
from tests.site.adapter_cases import (
    SCRIPT,
    check,
    check_findings,
    check_overlap,
    check_rows,
    files,
    given,
)

pytestmark = pytest.mark.browser


def drawn(seed):
    """An adapter of modules of all shapes, ranks, scales and dtypes; some do nothing, some have
    DoRA.
    """
    rng = np.random.default_rng(seed)
    dtype = rng.choice(["float32", "float16", "bfloat16", "float64"])
    dora, rslora = bool(rng.integers(2)), bool(rng.integers(2))
    modules = {}
    for i in range(rng.integers(1, 7)):
        d, k = rng.integers(1, 40, 2)
        r = int(rng.integers(1, 9))
        B, A = rng.normal(size=(d, r)) * 0.5 ** np.arange(r), rng.normal(size=(r, k))
        if rng.integers(5) == 0:
            B = np.zeros_like(B)
        modules[f"model.layers.{i}.q_proj"] = AdapterModule.of(
            A=A,
            B=B,
            alpha=float(rng.choice([1, 8, 16.5])),
            rslora=rslora,
            magnitude=np.abs(rng.normal(size=d)) if dora else None,
            dtype=str(dtype),
        )
    raw = {"peft_type": "LORA", "use_rslora": rslora, "use_dora": dora}
    raw["target_modules"] = ["q_proj"]
    return Adapter(modules, raw=raw)


@pytest.fixture
def inspector(open_page):
    return open_page("use/inspector.html")


def test_numbers_verdicts_and_files_are_those_of_the_package(inspector, tmp_path):
    for seed in few(range(40), 5):
        path = tmp_path / f"adapter-{seed}"
        adapters.save(drawn(seed), path)
        ranks = [1, 3]
        answer = inspector.evaluate(SCRIPT, given(path, ranks))
        folder = tmp_path / f"resized-{seed}"
        folder.mkdir()
        check(path, ranks, answer, folder)


def test_what_programs_make_of_it_is_what_the_package_says(inspector, tmp_path):
    """Every rule, about every case that is known to go wrong."""
    head, embedding = {"full": ["lm_head.weight"]}, {"embedding": True}
    more = [
        {"full": ["score.weight", "model.norm.weight"], "modules_to_save": ["score", "norm"]},
        {"full": [f"{Q}.bias"], "bias": "lora_only"},
        {"rows": ["model.embed_tokens.weight"], "trainable_token_indices": {"embed_tokens": [0, 1]}},
        {"target_modules": r".*\.[qk]_proj"},
        {"target_modules": "all-linear"},
        {"ranks": (500, 4), "alphas": (500.0, 4.0)},
        {"r": 32, "lora_alpha": 32, "rank_pattern": {"q_proj": 4, "k_proj": 4}, "alphas": (4.0, 4.0),
         "alpha_pattern": {"q_proj": 4, "k_proj": 4}},
        {"ranks": (4, 2), "alphas": (8.0, 0.0)},
        {"alphas": (-8.0, 8.0), "use_rslora": True},
        {"ranks": (16, 7), "alphas": (33.0, 0.1)},
        {"ranks": (65, 16), "alphas": (65.0, 16.0)},
        head, embedding, head | embedding, {"parts": ["magnitude", "bias"], "raw": {"use_dora": True, "lora_bias": True}},
    ]  # fmt: skip
    findings = set()
    for i, settings in enumerate([*(settings for settings, _ in CASES.values()), *more]):
        path = tmp_path / str(i)
        adapters.save(made(**settings), path)
        answer = inspector.evaluate(SCRIPT, given(path))
        check_rows(path, answer)
        check_findings(path, answer)
        findings |= {(row["runtime"], row["status"]) for row in answer["checked"]}
    assert findings >= {
        (name, finding)
        for name, rules in runtimes().items()
        for finding in (
            rule["status"] for rule in rules.get("rules", ()) if {*rule["has"]} - BASE - {"kernel"}
        )
    }


# What only a base can tell, and names that the page refuses to read
BASE = {
    "unknown", "tied", "tied embedding", "prefix", "headless", "misfit", "unsure", "no target",
    "container", "router", "wrapped", "doubled", "unprefixed", "parameter", "named",
}  # fmt: skip


def in_every_format(folder, family, *, seed=0, roles=("linear",), **options):
    """The paths of one adapter as PEFT, llama.cpp and mlx-lm have it."""
    config = {"model_type": family, **SMALL}
    adapter = modelled(config, seed=seed, roles=roles, **options)
    folder.mkdir()
    adapters.save(adapter, folder / "peft")
    adapters.convert(adapter, folder / "adapter.gguf", to="gguf", base=config)
    adapters.convert(adapter, folder / "mlx", to="mlx")
    return [folder / "peft", folder / "adapter.gguf", folder / "mlx"]


FAMILIES = [
    ("llama", ("linear", "embedding", "head")),
    ("qwen2", ("linear", "head")),
    ("gemma2", ("linear",)),
    ("mistral", ("linear",)),
]


@pytest.mark.parametrize(("family", "roles"), few(FAMILIES, 2))
def test_the_files_of_llama_cpp_and_mlx_are_read_as_the_package_reads_them(
    inspector, tmp_path, family, roles
):
    paths = in_every_format(tmp_path / family, family, roles=roles)
    for path in paths:
        answer = inspector.evaluate(SCRIPT, given(path, [1, 2]))
        folder = tmp_path / f"resized-{path.name}"
        folder.mkdir()
        check(path, [1, 2], answer, folder)
    for one, other in combinations(
        paths, 2
    ):  # as far as B A is the same, whatever the order of rows and the scale
        found = inspector.evaluate(SCRIPT, given(one, second=other))["overlap"]
        check_overlap(one, other, found)
        assert found[-1]["cosine"] == pytest.approx(1)
        assert found[-1]["overlap"] == pytest.approx(1)


def test_halves_and_blocks_of_a_gguf_file(inspector, tmp_path):
    config = {"model_type": "qwen2", **SMALL, "hidden_size": 64}
    adapter = modelled(config, roles=("linear",), ranks=(2,))
    adapters.convert(adapter, tmp_path / "a.gguf", to="gguf", base=config)
    file = gguf.open(tmp_path / "a.gguf")
    for kind in ("F16", "BF16", "Q8_0"):
        kinds = {
            name: kind if file.tensors[name].shape[-1] % 32 == 0 or kind != "Q8_0" else "F32"
            for name in file.tensors
        }
        blocks = {name: encoded(file.read(name), kinds[name]) for name in file.tensors}
        path = tmp_path / f"{kind}.gguf"
        save_gguf(blocks, path, metadata=file.metadata)
        answer = inspector.evaluate(SCRIPT, given(path, [1]))
        folder = tmp_path / kind
        folder.mkdir()
        check(path, [1], answer, folder)


def test_a_gguf_file_that_says_nothing_of_heads_is_looked_into_but_not_compared(
    inspector, tmp_path
):
    *_, path, mlx = in_every_format(tmp_path / "llama", "llama")
    file = gguf.open(path)
    said = {key: value for key, value in file.metadata.items() if "head_count" not in key}
    save_gguf({name: file.read(name) for name in file.tensors}, path, metadata=said)
    answer = inspector.evaluate(SCRIPT, given(path, [1], second=mlx))
    check_rows(path, answer)
    check_findings(path, answer)
    for found in (answer["overlap"], answer["resized"][0]):
        assert "an order that depends on the base" in found["refused"]
    for function in (
        lambda: adapters.overlap([path, mlx]),
        lambda: adapters.resize(path, tmp_path / "out", rank=1),
    ):
        with pytest.raises(FileError, match="an order that depends on the base"):
            function()


def alike(seed):
    """An adapter of the shapes that all seeds have, in which some modules are missing, negative or
    do nothing.
    """
    shapes, rng = np.random.default_rng(7), np.random.default_rng(seed)
    modules = {}
    for i in range(6):
        d, k = shapes.integers(1, 40, 2)
        r = int(rng.integers(1, 9))
        B, A = rng.normal(size=(d, r)) * (rng.integers(5) > 0), rng.normal(size=(r, k))
        if rng.integers(4) == 0 and i:
            continue
        dtype = str(rng.choice(["float32", "float16", "bfloat16", "float64"]))
        module = AdapterModule.of(A=A, B=B, alpha=float(rng.choice([1, -8, 16.5, 0])), dtype=dtype)
        modules[f"model.layers.{i + 8}.q_proj"] = module
    return Adapter(modules)


def test_the_overlap_is_that_of_the_package(inspector, tmp_path):
    for seed in few(range(60), 6):
        paths = [tmp_path / f"{seed}-{which}" for which in ("first", "second")]
        for i, path in enumerate(paths):
            adapters.save(alike(2 * seed + i), path)
        check_overlap(
            *paths, inspector.evaluate(SCRIPT, given(paths[0], second=paths[1]))["overlap"]
        )


REFUSED = [
    ({"d": 5}, "is of shape"),
    ({"raw": {"fan_in_fan_out": True}}, "fan_in_fan_out differs"),
    ({"raw": {"init_lora_weights": "pissa"}}, "no update of the base"),
    ({"A": [[np.nan] * 3]}, "not finite"),
]


def test_what_cannot_be_compared_is_refused_as_by_the_package(inspector, tmp_path):
    def saved(name, *, d=4, A=((1.0,) * 3,), raw=()):
        module = AdapterModule.of(A=np.array(A), B=np.ones((d, 1)), alpha=1.0)
        adapters.save(
            Adapter({"q": module}, raw={"peft_type": "LORA", **dict(raw)}), tmp_path / name
        )
        return tmp_path / name

    one = saved("one")
    for i, (change, message) in enumerate(REFUSED):
        other = saved(str(i), **change)
        assert message in inspector.evaluate(SCRIPT, given(one, second=other))["overlap"]["refused"]
        with pytest.raises(FileError):
            adapters.overlap([one, other])


# Names and expressions: those of real adapters, and others that leave much choice
EXPRESSIONS = [
    "q_proj", r".*\.(q|v)_proj", r"model\.layers\.(0|1[0-3]?)\..*proj", r"^model\.layers\.0\.q_proj$", r"layers.\d+.q_proj", r"[^.]+\.q",
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|mlp).*?(?:k_proj|v_proj|q_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:q_proj))",
    r"(?!.*visual).*q_proj", r"(?=.*layers).*", r"a{2,3}", r"a{,2}b?", "(a|aa)+", "(a*)*b", "(a|a|aa)+" * 8 + "$", r"[]a]+", r"[\w.-]*", "", "a|", "(|a)b",
    r"\Amodel.*\Z", r"(?P<name>model)\..*", "x{}", "a**", "(", ")", "[z-a]", "*a", "a{3,2}", "(?#x)a", r"\1(a)", "{a", "a}", "a]", r"q\-proj", r"\.", r"a$b",
]  # fmt: skip
NAMES = [
    "q_proj", "model.layers.0.q_proj", "model.layers.1.self_attn.v_proj", "model.layers.12.mlp.q_proj", "language.x.attention.q_proj.z",
    "visual.q_proj", "layers.0.q", "a", "aa", "aaa", "aaaa", "ab", "b", "aab", "", "]a]", "q-proj", "x{}", "{a", "a}", "a.a", "model", "." * 5, "a" * 60,
]  # fmt: skip


def test_expressions_match_as_in_the_package(inspector):
    script = """([expressions, names]) => expressions.map((text) => [false, true].map((end) => {
      try { const matches = loraExpressions.expression(text, "it", end); return names.map(matches); } catch (error) { return error.message; }
    }))"""
    answers = inspector.evaluate(script, [EXPRESSIONS, NAMES])
    matched = 0
    for text, answer in zip(EXPRESSIONS, answers, strict=True):
        for end, theirs in zip((False, True), answer, strict=True):
            try:
                expression = Expression(text, end=end)
                ours = [expression.matches(name) for name in NAMES]
            except ValueError:
                assert isinstance(theirs, str), (text, theirs)
                continue
            if isinstance(theirs, str):  # it may match less, and says so
                assert "must be a regular expression" in theirs, text
                continue
            assert theirs == ours, text
            matched += 1
    assert matched > 50


VALUES = [
    None, True, False, 0, 1, -1, 2, 2**31, 2**53, 2**63, 1.0, 0.5, -0.5, 1.5, 1e300, "", "none", "all", "lora_only", "x", [], ["a"], [""], [1], [1, 1],
    [1, -1], [1.0], [True], [["a"]], {}, {"a": 1}, {"a": [1, 2]}, {"a": [1, 1]}, {"a": {}},
]  # fmt: skip


def test_settings_are_refused_as_by_the_package(inspector):
    script = """(configs) => configs.map((text) => {
      try { loraFormats.settingsOf(loraTensors.json(new TextEncoder().encode(text), "it")); return null; } catch (error) { return error.message; }
    })"""
    settings = {"target_modules": ["q"]}
    asked = [
        (name, value) for name in (*peft.SETTINGS, *peft._REFUSED, "unknown") for value in VALUES
    ]
    configs = [{**settings, "peft_type": "LORA", name: value} for name, value in asked]
    answers = inspector.evaluate(script, [json.dumps(config) for config in configs])
    only_here = {"target_parameters"}  # what the page does not read
    for (name, value), config, theirs in zip(asked, configs, answers, strict=True):
        try:
            peft.parse(Path("it"), config)
        except FileError:
            assert theirs is not None, (name, value)
        else:
            huge = type(value) is int and value >= 2**53  # which a script cannot hold
            assert theirs is None or huge or name in only_here, (name, value, theirs)


def chosen(page, path, slot="first"):
    """Give the files at a path to one of the two places."""
    page.locator(f"input[name={slot}]").set_input_files(
        [
            {
                "name": each["name"],
                "mimeType": "application/octet-stream",
                "buffer": base64.b64decode(each["content"]),
            }
            for each in files(path)
        ]
    )


def table(page, selector):
    return page.locator(f"{selector} tbody tr").evaluate_all(
        "rows => rows.map((row) => [...row.children].map((cell) => cell.textContent))"
    )


def test_the_example_opens_and_is_cut(inspector):
    inspector.get_by_role("button", name="Open an example").click()
    inspector.locator(".inspector-found").wait_for()
    path = located_adapter("king-james")
    expected = adapters.inspect(path)
    assert inspector.locator("[data-show=modules]").inner_text() == str(len(expected.rows))
    assert [
        row[0]
        for row in table(inspector, ".inspector-table:not(.inspector-check, .inspector-pairs)")
    ] == [row.name for row in expected.rows]
    shown = table(inspector, ".inspector-check")
    assert [row[:3] for row in shown] == [list(row[:3]) for row in adapters.check(path).table.rows]
    slider = inspector.get_by_role("slider")
    slider.focus()
    before = inspector.locator("[data-show=error]").inner_text()
    inspector.keyboard.press("Home")
    assert inspector.locator("[data-show=error]").inner_text() != before
    assert "r=1" in inspector.evaluate("location.search")
    with inspector.expect_download() as waiting:
        inspector.get_by_role("button", name="Download adapter_model").click()
    assert waiting.value.suggested_filename == "adapter_model.safetensors"


def test_a_folder_is_dropped(inspector):
    path = located_adapter("king-james")
    target = inspector.locator(".inspector-drop").first
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    dragged = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    session = inspector.context.new_cdp_session(inspector)
    for event in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": event, "data": dragged, **place})
    inspector.locator(".inspector-found").wait_for()
    assert inspector.locator("[data-show=modules]").inner_text() == str(
        len(adapters.inspect(path).rows)
    )


def test_two_adapters_side_by_side(inspector, tmp_path):
    first, second = located_adapter("king-james"), located_adapter("genesis-by-peft")
    adapters.convert(second, tmp_path / "mlx", to="mlx")
    chosen(inspector, first)
    inspector.locator(".inspector-found").wait_for()
    inspector.get_by_role("button", name="With an example").click()
    inspector.locator(".inspector-both").wait_for()
    from_example = table(inspector, ".inspector-pairs")
    ours = {row.module: row for row in adapters.overlap([first, second]).rows}
    looks = [{row.name: row for row in adapters.inspect(path).rows} for path in (first, second)]
    assert {row[0] for row in from_example} == {*ours}
    assert from_example[0][0] == "all"
    for name, overlap, cosine, inputs, outputs, *each in from_example:
        row = ours[name]
        assert float(overlap) == pytest.approx(row.overlap, rel=1e-3)
        assert float(cosine) == pytest.approx(row.cosine, rel=1e-3)
        assert float(inputs.removesuffix("°")) == pytest.approx(row.inputs, abs=0.06)
        assert float(outputs.removesuffix("°")) == pytest.approx(row.outputs, abs=0.06)
        if name != "all":
            wanted = [
                getattr(look[name], what) for what in ("rank", "scale", "norm") for look in looks
            ]
            assert list(map(float, " | ".join(each).split(" | "))) == pytest.approx(
                wanted, rel=1e-3
            )
    chosen(inspector, tmp_path / "mlx", "second")
    inspector.get_by_text("Overlap").first.wait_for()
    inspector.wait_for_function(
        "document.querySelector('[data-show=compared]').textContent.includes('modules in both')"
    )
    again = table(inspector, ".inspector-pairs")
    assert [row[:5] for row in again] == [row[:5] for row in from_example]
    chosen(inspector, tmp_path / "mlx")  # another first one: nothing is compared any more
    inspector.wait_for_function(
        "document.querySelector('[data-show=dtype]').textContent.startsWith('mlx-lm')"
    )
    assert inspector.locator(".inspector-both").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_barrier_where_all_is_open(open_page, axe, scheme):
    page = open_page("use/inspector.html", color_scheme=scheme)
    page.get_by_role("button", name="Open an example").press("Enter")
    page.get_by_role("button", name="With an example").press("Enter")
    page.locator(".inspector-both").wait_for()
    for summary in page.locator("#inspector summary").all():
        summary.press("Enter")
    page.evaluate(axe)
    found = page.evaluate("axe.run('#inspector')")["violations"]
    assert [
        each["id"] for each in found if each["impact"] in ("moderate", "serious", "critical")
    ] == []


def test_a_refused_second_adapter_leaves_the_first_alone(inspector):
    inspector.get_by_role("button", name="Open an example").click()
    inspector.locator(".inspector-found").wait_for()
    chosen(inspector, {"adapter.gguf": b"GGUF"}, "second")
    verdict = inspector.locator("[data-show=compared]")
    verdict.get_by_text("Refused").wait_for()
    assert inspector.locator(".inspector-found").is_visible()
    assert inspector.locator(".inspector-both").is_hidden()


def test_an_example_that_comes_late_does_not_replace_files_that_were_chosen(inspector):
    inspector.evaluate(
        """() => {
          const fetched = window.fetch;
          window.late = [];
          window.fetch = async (...given) => {
            await new Promise((done) => { window.late.push(done); });
            return fetched(...given);
          };
        }"""
    )
    inspector.get_by_role("button", name="Open an example").click()
    chosen(inspector, {"adapter.gguf": b"GGUF"})
    message = inspector.locator("[data-show=message]")
    message.get_by_text("Refused").wait_for()
    before = message.inner_text()
    inspector.evaluate(
        """() => new Promise((done) => {
          const made = window.File;
          let count = 0;
          window.File = function (...given) {
            if (++count === 2) setTimeout(done);
            return new made(...given);
          };
          for (const goOn of window.late) goOn();
        })"""
    )
    assert message.inner_text() == before


@pytest.mark.parametrize("width", [390, 1280])
def test_every_button_of_an_open_adapter_is_on_the_screen(open_page, width):
    page = open_page("use/inspector.html", viewport={"width": width, "height": 844})
    page.get_by_role("button", name="Open an example").click()
    page.locator(".inspector-found").wait_for()
    edges = page.locator("#inspector button:visible").evaluate_all(
        "all => all.map(b => [b.textContent, b.getBoundingClientRect().left, b.getBoundingClientRect().right])"
    )
    assert len(edges) == 4
    assert [edge for edge in edges if edge[1] < 0 or edge[2] > width] == []


BROKEN = [
    (lambda w, c: (w[:4], c), "too short"),
    (lambda w, c: (b"\xff" * len(w), c), "not a safetensors file"),
    (lambda w, c: (w, b"{"), "is not JSON"),
    (lambda w, c: (w, b"null"), "must be an object of JSON, got null"),
    (lambda w, c: (w, b'{"peft_type": "IA3"}'), "peft_type must be LORA, got 'IA3'"),
    (lambda w, c: (w, b'{"peft_type": "LORA", "r": 99}'), "the config says rank 99"),
    (lambda w, c: (w.replace(b'"F32"', b'"I32"'), c), "has dtype 'I32'"),
]


def test_what_is_not_an_adapter_is_refused_by_name(inspector, tmp_path):
    path, names = tmp_path / "adapter", ("adapter_model.safetensors", "adapter_config.json")
    module = AdapterModule.of(A=np.ones((1, 3)), B=np.ones((2, 1)), alpha=1.0)
    adapters.save(Adapter({"q": module}), path, dtype="float32")
    for change, message in BROKEN:
        changed = change(*((path / name).read_bytes() for name in names))
        chosen(inspector, dict(zip(names, changed, strict=True)))
        inspector.locator("[data-show=message]", has_text="Refused").filter(
            has_text=message
        ).wait_for()
        assert inspector.locator(".inspector-found").is_hidden()
