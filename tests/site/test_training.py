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
import palette  # noqa: E402
import training_data  # noqa: E402

TASK = training_data.task()
ENDS = palette.rgb("minus"), palette.rgb("plus")
SCRIPT = """
globalThis.window = globalThis;
for (const file of process.argv.slice(1)) require(file);
const { script, cases } = JSON.parse(require("fs").readFileSync(0, "utf8"));
eval(script);
const { trainer, zeros } = loraTraining;
console.log(JSON.stringify(cases.map(({ rank, alpha, rate, random }) => {
  const B = random ? loraTask.B.map((row) => row.slice(0, rank)) : zeros(20, rank);
  const run = trainer(loraTask, { A: loraTask.A.slice(0, rank), B }, { alpha });
  for (let step = 0; step < 200; step += 1) run.step(rate);
  return [run.loss(), loraSvd.jacobi(run.update()).s];
})));
"""
DRAWN = [(1, 1, 0.01, 0), (3, 16, 0.02, 0), (5, 8, 0.05, 1), (8, 4, 0.005, 0)]
CASES = [dict(zip(("rank", "alpha", "rate", "random"), each, strict=True)) for each in DRAWN]


def test_after_200_steps_loss_and_update_are_those_of_fit():
    node = shutil.which("node") or pytest.skip("node is not installed")
    given = json.dumps({"script": training_data.script(), "cases": CASES})
    command = [node, "-e", SCRIPT, *(str(DOCS / f"{name}.js") for name in ("svd", "adam", "lora"))]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
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
        result = lnp.fit(
            layer, TASK["x"], TASK["y"], optimizer=optimizer, steps=200, progress=False
        )
        update = case["alpha"] / rank * lnp.value(result.model.B) @ lnp.value(result.model.A)
        want = np.mean((TASK["x"] @ update.T - TASK["y"]) ** 2)
        assert loss == pytest.approx(want, rel=1e-9)
        np.testing.assert_allclose(values, np.linalg.svd(update, compute_uv=False), atol=1e-9)


def ended(page):
    """It trains by itself, once it is in sight."""
    page.wait_for_function(
        "document.querySelector('#training [data-show=step]').textContent === '400'"
    )


def pixels(page, name):
    """Colors of one matrix, (rows, columns, 3)."""
    found = page.evaluate(
        """(name) => {
          const c = document.querySelector(`#training [data-canvas=${name}]`);
          return [c.height, c.width, [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data]];
        }""",
        name,
    )
    return np.array(found[2]).reshape(found[0], found[1], 4)[:, :, :3]


def colors(M, limit):
    share = np.clip(np.abs(M) / limit, 0, 1)[:, :, None]
    return 255 + share * (np.where(M[:, :, None] < 0, *ENDS) - 255)


@pytest.mark.browser
def test_training_reaches_the_line_of_its_rank(open_page):
    page = open_page("learn/explorer.html?rank=2&rate=0.05#train-b-a")
    shown = lambda name: page.locator(f'#training [data-show="{name}"]').inner_text()
    assert shown("best") == f"{TASK['best'][2]:.4f}"
    ended(page)
    assert float(shown("loss")) == pytest.approx(TASK["best"][2], rel=5e-3)
    assert "found the best update" in shown("verdict")


@pytest.mark.browser
def test_from_two_zeros_nothing_moves(open_page):
    page = open_page("learn/explorer.html?start=both#train-b-a")
    ended(page)
    assert page.locator('#training [data-show="loss"]').inner_text() == f"{TASK['best'][0]:.4f}"
    assert "Nothing moves" in page.locator('#training [data-show="verdict"]').inner_text()


@pytest.mark.browser
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_product_comes_to_look_like_the_best_update(open_page, rank):
    asked = f"rank={rank}&rate=0.05"
    page = open_page(f"learn/explorer.html?{asked}#train-b-a", reduced_motion="reduce")
    ended(page)
    B, A = lnp.reduced_rank_regression(TASK["x"], TASK["y"], rank=rank)
    most = np.matmul(*lnp.reduced_rank_regression(TASK["x"], TASK["y"], rank=training_data.RANKS))
    want = colors(B @ A, np.abs(most).max())
    np.testing.assert_allclose(pixels(page, "best"), want, atol=1.5)
    assert np.abs(pixels(page, "BA") - want).max() < 25
    assert pixels(page, "A").shape == (rank, training_data.K, 3)
    assert pixels(page, "B").shape == (training_data.D, rank, 3)


@pytest.mark.browser
def test_old_curves_stay_until_they_are_cleared(open_page):
    page = open_page("learn/explorer.html?rank=1#train-b-a", reduced_motion="reduce")
    names = page.locator("#training .old text")
    for rank in (2, 3):
        ended(page)
        page.locator("#training-rank").press("ArrowRight")
        assert page.locator('#training [data-show="rank"]').inner_text() == str(rank)
    ended(page)
    assert names.all_text_contents() == ["rank 1", "rank 2"]
    assert page.locator("#training .old path").count() == 2
    page.locator("#training-rank").press("ArrowLeft")  # what is run again is not also old
    ended(page)
    assert sorted(names.all_text_contents()) == ["rank 1", "rank 3"]
    page.get_by_role("button", name="Clear old curves").click()
    assert names.count() == page.locator("#training .old path").count() == 0


# Begins a run and pauses it in the page, since it may have ended before a click from outside
# arrives. The step then.
PAUSED = """() => new Promise((done) => {
  const form = document.getElementById("training"), { rank, run } = form.elements;
  const step = () => form.querySelector("[data-show=step]").textContent;
  rank.value = 2;
  rank.dispatchEvent(new Event("input", { bubbles: true }));
  const look = () => {
    if (run.textContent !== "Pause" || step() === "0") return requestAnimationFrame(look);
    run.click();
    done(step());
  };
  look();
})"""


@pytest.mark.browser
def test_it_can_be_paused(open_page):
    page = open_page("learn/explorer.html#train-b-a")
    step = page.evaluate(PAUSED)
    page.get_by_role("button", name="Go on").click()
    ended(page)
    assert int(step) < 400
    page.get_by_role("button", name="Train again").wait_for()


@pytest.mark.browser
def test_on_a_phone_pictures_stay_in_sight_under_the_controls(open_page):
    page = open_page("learn/explorer.html#train-b-a", viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    for control in ("#training-rank", "#training-rate", "#training [name=clear]"):
        page.locator(control).scroll_into_view_if_needed()
        *pictures, hand = page.evaluate(  # at one moment
            """names => names.map((name) => document.querySelector(name).getBoundingClientRect().toJSON())""",
            ["#training .training-scene", "#training .training-loss", control],
        )
        for box in pictures:
            assert box["y"] >= 0
            assert box["bottom"] <= hand["y"] + 1 <= 844
