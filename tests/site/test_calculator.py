"""The calculator counts what the package counts: every preset, every family, and drawn configs of each."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lora_np import accounting

DOCS = Path(__file__).parents[2] / "docs" / "explorer"
sys.path.insert(0, str(DOCS))
import calculator_data  # noqa: E402

DATA = calculator_data.data()
FAMILIES = [name for name in DATA["families"] if not name.startswith("_")]
# sizes that divide one another often, so that most configs make sense
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
SCRIPT = """
require(process.argv[1]);
const { families, cases } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const attempt = (step) => { try { return step(); } catch (error) { return String(error.message); } };
console.log(JSON.stringify(cases.map(([config, options]) => attempt(() => {
  const spec = loraFamilies.build(config, families);
  return [loraFamilies.total(spec), attempt(() => loraFamilies.count(spec, options).trainable)];
}))));
"""


def in_the_page(cases):
    """Totals and trained numbers, or the message of an error, as the page's script finds them."""
    node = shutil.which("node") or pytest.skip("node is not installed")
    given = json.dumps({"families": DATA["families"], "cases": cases})
    done = subprocess.run(
        [node, "-e", SCRIPT, str(DOCS / "families.js")],
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


def refused(result):
    """The same, without what messages say."""
    if isinstance(result, str):
        return "refused"
    return ["refused" if isinstance(value, str) else value for value in result]


def options(rng):
    targets = [None, "all-linear", ["q_proj", "v_proj"], ["query", "value"], ["embed_tokens"]]
    return {
        "rank": int(rng.integers(1, 40)),
        "targets": targets[rng.integers(5)],
        "dora": bool(rng.integers(2)),
    }


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


@pages
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_and_weighs_little(open_page, width, scheme):
    page = open_page("use/calculator.html", viewport={"width": width, "height": 844}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    files = ("calculator", "families.js", "explorer.css")
    own = [r for r in open_page.received if any(name in r.url for name in files)]
    assert 0 < sum(len(r.body()) for r in own) < 300_000
