"""The adapter inspector: its numbers and its files are those of the package."""

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import Adapter, AdapterModule
from tests.site.adapter_cases import SCRIPT, check, given

pytestmark = pytest.mark.browser


def drawn(seed):
    """An adapter of modules of all shapes, ranks, scales and dtypes; some do nothing, some have DoRA."""
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


def test_numbers_and_files_are_those_of_the_package(inspector, tmp_path):
    for seed in range(12):
        path = tmp_path / f"adapter-{seed}"
        adapters.save(drawn(seed), path)
        ranks = [1, 3]
        answer = inspector.evaluate(SCRIPT, given(path, ranks))
        folder = tmp_path / f"resized-{seed}"
        folder.mkdir()
        check(path, ranks, answer, folder)


def test_the_example_opens_and_is_cut(inspector):
    inspector.get_by_role("button", name="Open an example").click()
    inspector.locator(".inspector-found").wait_for()
    expected = adapters.inspect(king_james())
    assert inspector.locator("[data-show=modules]").inner_text() == str(len(expected.rows))
    assert inspector.locator(".inspector-table tr").count() == len(expected.rows) + 1
    slider = inspector.get_by_role("slider")
    slider.focus()
    before = inspector.locator("[data-show=error]").inner_text()
    inspector.keyboard.press("Home")
    assert inspector.locator("[data-show=error]").inner_text() != before
    assert "r=1" in inspector.url
    with inspector.expect_download() as waiting:
        inspector.get_by_role("button", name="Download adapter_model").click()
    assert waiting.value.suggested_filename == "adapter_model.safetensors"


@pytest.mark.parametrize("width", [390, 1280])
def test_every_button_of_an_open_adapter_is_on_the_screen(open_page, width):
    page = open_page("use/inspector.html", viewport={"width": width, "height": 844})
    page.get_by_role("button", name="Open an example").click()
    page.locator(".inspector-found").wait_for()
    edges = page.locator("#inspector button:visible").evaluate_all(
        "all => all.map(b => [b.textContent, b.getBoundingClientRect().left, b.getBoundingClientRect().right])"
    )
    assert len(edges) == 3
    assert [edge for edge in edges if edge[1] < 0 or edge[2] > width] == []


def king_james():
    from lora_np import language

    return language.located_adapter("king-james")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w, c: (w[:4], c), "too short"),
        (lambda w, c: (b"\xff" * len(w), c), "not a safetensors file"),
        (lambda w, c: (w, b"{"), "is not JSON"),
        (lambda w, c: (w, b"null"), "peft_type must be LORA"),
        (lambda w, c: (w, b'{"peft_type": "IA3"}'), "peft_type must be LORA, got IA3"),
        (lambda w, c: (w, b'{"peft_type": "LORA", "r": 99}'), "the config says rank 99"),
        (lambda w, c: (w.replace(b'"F32"', b'"I32"'), c), "has dtype I32"),
    ],
)
def test_what_is_not_an_adapter_is_refused_by_name(inspector, tmp_path, change, message):
    path = tmp_path / "adapter"
    adapters.save(
        Adapter({"q": AdapterModule.of(A=np.ones((1, 3)), B=np.ones((2, 1)), alpha=1.0)}),
        path,
        dtype="float32",
    )
    names = ("adapter_model.safetensors", "adapter_config.json")
    weights, config = change(*((path / name).read_bytes() for name in names))
    inspector.locator("input[type=file]").set_input_files(
        [
            {"name": name, "mimeType": "application/octet-stream", "buffer": content}
            for name, content in zip(names, (weights, config), strict=True)
        ]
    )
    verdict = inspector.locator(".explorer-verdict")
    verdict.get_by_text("Refused").wait_for()
    assert message in verdict.inner_text()
    assert inspector.locator(".inspector-found").is_hidden()
