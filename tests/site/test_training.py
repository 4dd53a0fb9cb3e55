"""The page that trains B A computes what the package computes, and says what happens."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lora_np as lnp
from lora_np.lora import LoRALinear

DOCS = Path(__file__).parents[2] / "docs" / "explorer"
sys.path.insert(0, str(DOCS))
import training_data  # noqa: E402

TASK = training_data.task()
SCRIPT = """
globalThis.window = globalThis;
require(process.argv[1]);
const { script, cases } = JSON.parse(require("fs").readFileSync(0, "utf8"));
eval(script);
const { trainer, singularValues, zeros } = loraTraining;
console.log(JSON.stringify(cases.map(({ rank, alpha, rate, random }) => {
  const B = random ? loraTask.B.map((row) => row.slice(0, rank)) : zeros(20, rank);
  const run = trainer(loraTask, { A: loraTask.A.slice(0, rank), B }, { alpha, rate });
  for (let step = 0; step < 200; step += 1) run.step();
  return [run.loss(), singularValues(run.update())];
})));
"""
CASES = [
    {"rank": rank, "alpha": alpha, "rate": rate, "random": random}
    for rank, alpha, rate, random in [(1, 1, 0.01, 0), (3, 16, 0.02, 0), (5, 8, 0.05, 1), (8, 4, 0.005, 0)]
]


def test_after_200_steps_loss_and_update_are_those_of_fit():
    node = shutil.which("node") or pytest.skip("node is not installed")
    given = json.dumps({"script": training_data.script(), "cases": CASES})
    done = subprocess.run(
        [node, "-e", SCRIPT, str(DOCS / "lora.js")], input=given, capture_output=True, text=True, check=True
    )
    for case, (loss, values) in zip(CASES, json.loads(done.stdout), strict=True):
        rank = case["rank"]
        B = TASK["B"][:, :rank] if case["random"] else np.zeros((training_data.D, rank))
        layer = LoRALinear(
            lnp.Linear(np.zeros((training_data.D, training_data.K))),
            A=lnp.Tensor(TASK["A"][:rank].copy()),
            B=lnp.Tensor(B.copy()),
            alpha=case["alpha"],
        )
        optimizer = lnp.Adam(lr=case["rate"])
        result = lnp.fit(layer, TASK["x"], TASK["y"], optimizer=optimizer, steps=200, progress=False)
        update = case["alpha"] / rank * lnp.value(result.model.B) @ lnp.value(result.model.A)
        want = np.mean((TASK["x"] @ update.T - TASK["y"]) ** 2)
        assert loss == pytest.approx(want, rel=1e-9)
        np.testing.assert_allclose(values, np.linalg.svd(update, compute_uv=False), atol=1e-9)


@pytest.mark.browser
def test_training_reaches_the_line_of_its_rank(open_page):
    page = open_page("learn/training.html#rank=2&alpha=8&rate=0.05&start=B")
    shown = lambda name: page.locator(f'#training [data-show="{name}"]').inner_text()
    assert shown("best") == f"{TASK['best'][2]:.4f}"
    page.get_by_role("button", name="Train").click()
    page.wait_for_function("document.querySelector('#training [data-show=step]').textContent === '400'")
    assert float(shown("loss")) == pytest.approx(TASK["best"][2], rel=5e-3)
    assert "found the best update" in shown("verdict")


@pytest.mark.browser
def test_from_two_zeros_nothing_moves(open_page):
    page = open_page("learn/training.html#rank=3&start=both")
    page.get_by_role("button", name="Train").click()
    page.wait_for_function("document.querySelector('#training [data-show=step]').textContent === '400'")
    assert page.locator('#training [data-show="loss"]').inner_text() == f"{TASK['best'][0]:.4f}"
    assert "Nothing moves" in page.locator('#training [data-show="verdict"]').inner_text()


@pytest.mark.browser
def test_it_fits_a_phone(open_page):
    page = open_page("learn/training.html", viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
