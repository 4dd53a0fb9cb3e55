"""The calculator counts what the package counts, numbers and bytes: every preset, every family, drawn configs."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lora_np import accounting
from lora_np.table import decimal_bytes
from tests.drawing import FULL

DOCS = Path(__file__).parents[2] / "docs" / "explorer"
sys.path.insert(0, str(DOCS))
import calculator_data  # noqa: E402

DATA = calculator_data.data()
FAMILIES = [name for name in DATA["families"] if not name.startswith("_")]
# sizes that divide one another often, so that most configs make sense
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
SCRIPT = """
for (const file of process.argv.slice(1)) require(file);
const { families, tables, cases } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const attempt = (step) => { try { return step(); } catch (error) { return String(error.message); } };
console.log(JSON.stringify(cases.map(([config, options]) => attempt(() => {
  const spec = loraFamilies.build(config, families);
  return [loraFamilies.total(spec), attempt(() => loraFamilies.count(spec, options).trainable)];
}))));
"""
MEMORY = (
    SCRIPT[: SCRIPT.index("console")]
    + """
console.log(JSON.stringify(cases.map(([config, options, training]) => attempt(() => {
  const spec = loraFamilies.build(config, families);
  return [() => null, () => loraFamilies.count(spec, options)].map((each) => attempt(() => {
    const { parts, host } = loraMemory.memory(spec, each(), tables, training);
    return [parts, host];
  }));
}))));
"""
)


def in_the_page(cases, script=SCRIPT):
    """Totals and trained numbers (or bytes), or the message of an error, as the page's script finds them."""
    node = shutil.which("node") or pytest.skip("node is not installed")
    given = json.dumps({"families": DATA["families"], "tables": DATA["memory"], "cases": cases})
    done = subprocess.run(
        [node, "-e", script, str(DOCS / "families.js"), str(DOCS / "memory.js")],
        input=given,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def in_the_package(config, options):
    try:
        spec = accounting.from_config(config)
    except (ValueError, TypeError):
        return "refused"
    try:
        return [spec.total, accounting.count_model(spec, **options).trainable]
    except ValueError:
        return [spec.total, "refused"]


def bytes_in_the_package(config, options, training):
    """Bytes in full and with the LoRA."""

    def attempt(model):
        try:
            memory = accounting.training_memory(model(), **training)
        except ValueError:
            return "refused"
        return [memory.parts, memory.host]

    try:
        spec = accounting.from_config(config)
    except (ValueError, TypeError):
        return "refused"
    return [attempt(lambda: spec), attempt(lambda: accounting.count_model(spec, **options))]


def refused(result):
    """The same, without what messages say."""
    if isinstance(result, str):
        return "refused"
    return ["refused" if isinstance(value, str) else value for value in result]


def options(rng):
    named = [["q_proj", "v_proj"], ["query", "value"], ["embed_tokens"], ["down_proj"], ["fc2"]]
    targets = [None, "all-linear", *named]
    return {
        "rank": int(rng.integers(1, 40)),
        "targets": targets[rng.integers(len(targets))],
        "dora": bool(rng.integers(2)),
    }


def training(rng):
    """Half of the options that an estimate of memory takes, each drawn from its choices."""
    choices = DATA["memory"]["choices"] | {
        "double_quantization": [False, True],
        "master_copy": [False, True],
        "checkpointing": [False, True],
        "batch_size": [1, 2, 3, 16],
        "context": [1, 7, 64, 512, 2048],
    }
    drawn = {name: values[rng.integers(len(values))] for name, values in choices.items()}
    return {name: value for name, value in drawn.items() if rng.random() < 0.5}


def drawn(name, rng):
    """A config of the family with some of its fields set; many are of sizes that fit one another."""
    config = {"model_type": name}
    tree, extends = {}, name
    while extends:
        tree = {**DATA["families"][extends].get("fields", {}), **tree}
        extends = DATA["families"][extends].get("extends")
    for field, entry in tree.items():
        described = entry if isinstance(entry, dict) else {"default": entry}
        if rng.random() < 0.5:
            continue
        key = described.get("from", field)
        key = key if isinstance(key, str) else key[0]
        if isinstance(described["default"], bool):
            config[key] = bool(rng.integers(2))
        elif isinstance(described["default"], int) and described.get("type", "size") == "size":
            config[key] = int(rng.choice(SIZES))
    return config


def test_every_preset_is_counted_alike():
    rng = np.random.default_rng(0)
    cases = [(config, options(rng)) for config in DATA["presets"].values() for _ in range(4)]
    want = [in_the_package(*case) for case in cases]
    assert [refused(result) for result in in_the_page(cases)] == want
    assert all(isinstance(result, list) for result in want)


def test_drawn_configs_are_counted_alike():
    rng = np.random.default_rng(1)
    cases = [({"model_type": name}, options(rng)) for name in FAMILIES]
    cases += [(drawn(name, rng), options(rng)) for name in FAMILIES for _ in range(8)]
    want = [in_the_package(*case) for case in cases]
    assert [refused(result) for result in in_the_page(cases)] == want
    counted = [result for result in want if isinstance(result, list) and isinstance(result[1], int)]
    assert len(counted) >= 250


def test_the_memory_of_every_preset_is_estimated_alike():
    rng = np.random.default_rng(2)
    cases = [(config, options(rng), training(rng)) for config in DATA["presets"].values() for _ in range(4)]
    want = [bytes_in_the_package(*case) for case in cases]
    assert [refused(result) for result in in_the_page(cases, MEMORY)] == want
    assert estimated(want) >= len(want)  # of two ways: not all targets are in all models


def test_the_memory_of_drawn_configs_is_estimated_alike():
    rng = np.random.default_rng(3)
    each = 8 if FULL else 1
    cases = [(drawn(name, rng), options(rng), training(rng)) for name in FAMILIES for _ in range(each)]
    want = [bytes_in_the_package(*case) for case in cases]
    assert [refused(result) for result in in_the_page(cases, MEMORY)] == want
    assert len(cases) >= 62 * each
    assert estimated(want) >= 0.8 * len(cases)  # of two ways


def estimated(results):
    return sum(each != "refused" for pair in results if pair != "refused" for each in pair)


def test_names_that_nobody_may_use_are_refused():
    cases = [
        ({"model_type": "no-such-family"}, {"rank": 8}),
        ({"model_type": "llama", "hidden_size": -1}, {"rank": 8}),
        ({"model_type": "llama", "num_hidden_layers": 10**9}, {"rank": 8}),
        ({"model_type": "llama"}, {"rank": 0}),
    ]
    results = in_the_page(cases)
    assert all(isinstance(result, str) for result in results[:3])
    assert isinstance(results[3][1], str)


pages = pytest.mark.browser


@pages
def test_the_page_shows_the_count_and_keeps_its_address(open_page):
    page = open_page("use/calculator.html#model=llama-3-8b&rank=16&targets=all-linear")
    want = accounting.count_model(accounting.preset("llama-3-8b"), rank=16, targets="all-linear")
    assert page.locator(".calculator-peft").inner_text() == want.peft_line
    page.locator("#calculator-rank").focus()
    page.keyboard.press("ArrowLeft")
    page.locator("#calculator").get_by_text("PEFT's default").click()
    want = accounting.count_model(accounting.preset("llama-3-8b"), rank=8)
    assert page.locator(".calculator-peft").inner_text() == want.peft_line
    assert page.url.endswith("#model=llama-3-8b&rank=8&targets=default")
    assert (
        page.locator('#calculator [data-show="command"]').inner_text() == "lora-np count llama-3-8b --rank 8"
    )


@pages
def test_the_page_shows_what_can_be_learnt_by_heart_where_it_was_measured(open_page):
    page = open_page("use/calculator.html#model=llama-3-8b&rank=8&targets=default")
    shown = page.locator('#calculator [data-show="heart"]')
    found = accounting.capacity("llama-3-8b", rank=8)
    low, high = (float(part.split()[0]) for part in shown.inner_text().split(" to "))
    assert low == pytest.approx(found.low / 8e3, rel=0.02)
    assert high == pytest.approx(found.high / 8e3, rel=0.02)
    page.locator('#calculator [name="dora"]').check()
    assert shown.inner_text() == "not measured"


@pages
def test_the_page_shows_the_memory_and_keeps_its_address(open_page):
    page = open_page("use/calculator.html#model=llama-3-8b&rank=16&targets=all-linear&dtype=nf4&context=2048")
    count = accounting.count_model(accounting.preset("llama-3-8b"), rank=16, targets="all-linear")
    form = page.locator("#calculator")

    def shows(**training):
        want = accounting.compare_memory(count, **training)
        *causes, total, disk = [
            [str(name), *("–" if n is None else decimal_bytes(n) for n in sizes)]
            for name, *sizes in want.table.rows
        ]
        rows = [row.split("\t") for row in page.locator(".calculator-causes tbody").inner_text().splitlines()]
        assert [[cell.strip() for cell in row] for row in rows] == [*causes, total, disk]
        assert page.locator(".calculator-stacks [data-total]").all_inner_texts() == total[1:]
        widths = page.locator(".calculator-stacks [data-way=LoRA] i").evaluate_all(
            "all => all.map(part => [part.dataset.cause, part.getBoundingClientRect().width])"
        )
        shown = {cause: width for cause, width in widths if width > 1}
        bytes_ = want.ways["LoRA"].parts
        for cause, width in shown.items():
            assert width / shown["weights"] == pytest.approx(
                bytes_[cause] / bytes_["weights"], rel=0.02, abs=0.01
            )

    shows(dtype="nf4", context=2048)
    form.get_by_label("Optimizer").select_option("paged_adamw_8bit")
    form.get_by_label("Gradient checkpointing").uncheck()
    form.get_by_label("Batch").fill("4")
    shows(dtype="nf4", context=2048, optimizer="paged_adamw_8bit", checkpointing=False, batch_size=4)
    assert page.url.endswith(
        "&dtype=nf4&optimizer=paged_adamw_8bit&batch_size=4&context=2048&checkpointing=0"
    )
    assert page.locator('#calculator [data-show="memory-command"]').inner_text() == (
        "lora-np count llama-3-8b --rank 16 --targets all-linear --memory --dtype nf4 "
        "--optimizer paged_adamw_8bit --batch-size 4 --context 2048 --no-checkpointing"
    )


def figures(page):
    """The four figures of the count."""
    return page.locator("#calculator .explorer-numbers dd").all_inner_texts()


@pages
def test_any_whole_rank_can_be_chosen_and_stays_in_the_address(open_page):
    page = open_page("use/calculator.html", viewport={"width": 390, "height": 844})
    line, slider = page.locator(".calculator-peft"), page.locator("#calculator-rank")
    number = page.get_by_label("rank r")

    def shows(rank):
        want = accounting.count_model(accounting.preset("llama-3-8b"), rank=rank)
        assert line.inner_text() == want.peft_line
        assert number.input_value() == str(rank)
        assert page.url.endswith(f"#model=llama-3-8b&rank={rank}&targets=default")

    for rank in (1, 12, 20, 48, 100, 2000):
        page.evaluate(f"location.hash = '#model=llama-3-8b&rank={rank}&targets=default'")
        page.wait_for_function(f"document.querySelector('[name=rank]').value === '{rank}'")
        shows(rank)
    number.fill("20")
    shows(20)
    assert slider.get_attribute("aria-valuetext") == "rank 20"
    number.press("ArrowUp")
    shows(21)
    slider.press("ArrowRight")  # the power of two above that next to 21
    shows(32)
    box = slider.bounding_box()
    assert box["x"] + box["width"] <= 390
    page.mouse.click(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
    shows(1024)


@pages
@pytest.mark.parametrize("rank", ["0", "2.5", "", "-4"])
def test_a_rank_that_is_no_whole_number_is_refused_and_not_changed(open_page, rank):
    address = f"use/calculator.html#model=llama-3-8b&rank={rank}"
    page = open_page(address)
    error = page.locator(".calculator-error")
    assert "rank must be a whole number from 1" in error.inner_text()
    assert figures(page) == ["–"] * 5
    assert page.url.endswith(address)
    assert page.get_by_label("rank r").get_attribute("aria-invalid") == "true"
    page.get_by_label("rank r").fill("20")
    assert error.is_hidden()
    assert page.get_by_label("rank r").get_attribute("aria-invalid") is None
    want = accounting.count_model(accounting.preset("llama-3-8b"), rank=20)
    assert page.locator(".calculator-peft").inner_text() == want.peft_line


@pages
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("model=llama-9-8b", "The address asks for model 'llama-9-8b', which is not in the list"),
        ("model=gpt2&dtype=int3", "The address asks for dtype 'int3', which is not in the list"),
        ("model=llama-3-8b&targets=q_proj,qproj", "targets: 'qproj' matches no module of llama-3-8b"),
    ],
)
def test_an_address_with_an_unknown_name_says_so(open_page, asked, message):
    page = open_page(f"use/calculator.html#{asked}")
    error = page.locator(".calculator-error")
    assert message in error.inner_text()
    assert figures(page) == ["–"] * 5
    assert page.url.endswith(f"#{asked}")
    page.locator("#calculator [name=preset]").select_option("mistral-7b")
    assert error.is_hidden()
    assert page.locator("#calculator [name=preset]").input_value() == "mistral-7b"
    assert figures(page) != ["–"] * 5


@pages
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("context", "9000", "context must be at most 8,192"),
        ("context", "", "context must be a whole number"),
        ("batch_size", "0", "batch_size must be a whole number of at least 1, got 0"),
    ],
)
def test_an_option_of_memory_that_is_wrong_leaves_the_count(open_page, axe, name, value, message):
    page = open_page("use/calculator.html#model=llama-3-8b&rank=8&targets=default")
    count, error = figures(page), page.locator(".calculator-memory-error")
    assert error.is_hidden()
    field = page.locator(f"#calculator [name={name}]")
    field.fill(value)
    assert message in error.inner_text()
    assert field.get_attribute("aria-invalid") == "true"
    assert figures(page) == count
    assert page.locator(".calculator-error").is_hidden()
    assert page.locator(".calculator-stacks i").count() == 0
    assert page.locator(".calculator-causes td").count() == 0
    page.evaluate(axe)
    serious = page.evaluate("axe.run('#calculator')")["violations"]
    assert [found["id"] for found in serious] == []
    page.get_by_label("rank r").fill("16")  # the count goes on, and the address says all that was chosen
    assert figures(page) != count
    assert message in error.inner_text()
    if value:
        assert f"{name}={value}" in page.url
        page.reload()
        assert message in error.inner_text()
    field.fill("2")
    assert error.is_hidden()
    assert page.locator(".calculator-stacks i").count() > 0


@pages
def test_a_config_of_ones_own(open_page, tmp_path):
    config = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    page = open_page("use/calculator.html")
    page.get_by_text("or your own").click()
    page.set_input_files("#calculator [name=file]", str(file))
    want = accounting.count_model(accounting.from_config(config), rank=8)
    page.wait_for_function(f"document.querySelector('.calculator-peft').textContent === {want.peft_line!r}")
    page.locator("#calculator [name=config]").fill('{"model_type": "nothing"}')
    error = page.locator(".calculator-error")
    assert re.search('model_type must be .* got "nothing"', error.inner_text())
    page.locator("#calculator [name=config]").fill("{")
    assert "not JSON" in error.inner_text()
    page.get_by_label("rank r").fill("9")  # not counted for the model before
    assert "not JSON" in error.inner_text()
    assert figures(page) == ["–"] * 5


@pages
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits(open_page, width, scheme):
    page = open_page("use/calculator.html", viewport={"width": width, "height": 844}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pages
def test_the_page_and_all_that_others_do_not_load_are_under_300_kB(open_page):
    def loaded(path):
        before = len(open_page.received)
        open_page(path).wait_for_load_state("networkidle")
        return {response.url: len(response.body()) for response in open_page.received[before:]}

    everywhere = loaded("vocabulary.html")  # text alone: with the theme's files and nothing else but itself
    own = {url: size for url, size in loaded("use/calculator.html").items() if url not in everywhere}
    assert any("calculator-data.js" in url for url in own)
    assert sum(own.values()) < 300_000
