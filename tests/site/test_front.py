"""The front page trains B and A to their optimum, counts as the package does, and works without
motion or scripts.
"""

import numpy as np
import pytest

import lora_np as lnp
from lora_np import accounting, datasets, linalg

pytestmark = pytest.mark.browser

STILL = {"reduced_motion": "reduce"}  # trained at once, not to be watched


def missing() -> np.ndarray:
    """The least that each rank can miss, of the change from the mountains to the portrait in whole
    shades.
    """
    area = datasets.terrain()[20:320, 20:380].reshape(100, 3, 120, 3).mean(axis=(1, 3))
    face = datasets.photograph()[20:320, 86:446].reshape(100, 3, 120, 3).mean(axis=(1, 3))
    low, high = np.rint(255 * (area - area.min()) / np.ptp(area)), np.rint(255 * face)
    return linalg.rank_errors(high - low, relative=True)


def trained(page, rank):
    """To the end at this rank: the steps that are shown may still be those of the rank before
    it.
    """
    page.wait_for_function(
        "said => document.querySelector('#front [data-show=status]').textContent.includes(said)",
        arg=f"the best of rank {rank} misses",
    )


@pytest.mark.parametrize("rank", [1, 8, 20, 54])
def test_training_ends_at_the_best_of_the_rank(open_page, rank):
    page = open_page("index.html", **STILL)
    page.locator(f'button[data-rank="{rank}"]').click()
    trained(page, rank)
    shown = page.locator('[data-show="missing"]').inner_text()
    assert float(shown.split()[0]) / 100 == pytest.approx(missing()[rank], rel=0.02, abs=0.005)
    assert (
        page.locator('#front [data-show="count"]').inner_text()
        == f"{lnp.count_lora(100, 120, rank=rank):,}"
    )
    assert page.locator('[data-show="step"]').inner_text() == "step 300 of 300"
    size = page.locator('canvas[data-canvas="B"]').evaluate(
        "canvas => [canvas.width, canvas.height]"
    )
    assert size == [rank, 100]


def test_past_break_even_it_says_so(open_page):
    page = open_page("index.html", **STILL)
    slider = page.locator("#front-rank")
    slider.focus()
    page.keyboard.press("End")
    assert "more than the 12,000" in page.locator('#front [data-show="verdict"]').inner_text()
    page.keyboard.press("Home")
    assert page.locator('[data-show="rank"]').inner_text() == "1"
    assert lnp.break_even_rank(100, 120) == 54


def test_it_moves_by_itself_and_stops_for_the_reader(open_page):
    page = open_page("index.html")
    page.wait_for_function("document.querySelector('#front-rank').value === '20'")
    page.locator('button[data-rank="1"]').click()
    trained(page, 1)
    assert page.locator('[data-show="step"]').inner_text() == "step 300 of 300"
    assert page.locator("#front-rank").input_value() == "1"


def test_each_rank_of_the_adapter_writes_and_learns_more(open_page):
    page = open_page("index.html", **STILL)
    losses, texts = [], set()
    for button in page.locator('[data-part="voices"] button').all():
        button.click()
        losses.append(float(page.locator('[data-show="tuned-loss"]').inner_text()))
        texts.add(page.locator('[data-show="tuned"]').inner_text())
    assert losses == sorted(losses, reverse=True)
    assert len(texts) == len(losses) == 5
    assert page.locator('[data-show="base-loss"]').inner_text() == f"{losses[0]:.2f}"


def test_every_fit_is_that_of_the_package(open_page):
    page = open_page("index.html", **STILL)
    methods = {
        "full fine-tuning": {},
        "LoRA, rank 16": {"dtype": "bfloat16"},
        "QLoRA, rank 16": {"dtype": "nf4"},
    }
    choice = {name: page.locator(f'[data-choice="{name}"]') for name in ("model", "method", "gpu")}
    names = {name: select.locator("option").all_inner_texts() for name, select in choice.items()}
    assert names["method"] == list(methods)
    for model in names["model"]:
        choice["model"].select_option(model)
        for method, options in methods.items():
            choice["method"].select_option(method)
            lora = {"rank": 16, "targets": "all-linear", **options} if options else {}
            needed = accounting.training_memory(model, max_length=2_048, **lora).total
            for gpu in names["gpu"]:
                choice["gpu"].select_option(gpu)
                said = page.locator('[data-show="fit"]').inner_text()
                room = accounting.gpus()[gpu].room
                assert said.startswith("It fits" if needed <= room else "It does not fit"), (
                    model,
                    method,
                    gpu,
                )
                assert f"{needed / 1e9:.1f} GB" in said


def test_without_scripts_the_picture_and_the_texts_stay(open_page):
    page = open_page("index.html", java_script_enabled=False)
    assert page.locator("noscript img").evaluate("image => image.naturalWidth") > 0
    said = page.locator("noscript").inner_text()
    assert all(words in said for words in ("4,400", "no adapter", "rank 8"))
