"""The digits story: the numbers in the documents are these."""

from pathlib import Path

import numpy as np
import pytest

from lora_np.datasets import digits
from lora_np.training import digits_story

# Accuracies on the new and the old task, seed 0. The documents quote this table.
STORY = {
    "not adapted": (0, 0.142, 0.975),
    "head only": (650, 0.853, 0.199),
    "LoRA, r = 1": (330, 0.834, 0.271),
    "LoRA, r = 2": (660, 0.906, 0.194),
    "LoRA, r = 4": (1320, 0.968, 0.246),
    "LoRA, r = 8": (2640, 0.968, 0.183),
    "full": (8970, 0.983, 0.251),
}


def test_the_data():
    images, labels = digits()
    assert images.shape == (1797, 8, 8)
    assert images.min() == 0
    assert images.max() == 1
    np.testing.assert_array_equal(np.bincount(labels), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])


def test_the_story_reproduces():
    rows = {row["method"]: row for row in digits_story().records}
    assert list(rows) == list(STORY)
    for name, (trained, new, old) in STORY.items():
        assert rows[name]["trained"] == trained
        # One image is 0.17 %; another BLAS may decide a few of them the other way.
        assert rows[name]["new task"] == pytest.approx(new, abs=0.02)
        assert rows[name]["old task"] == pytest.approx(old, abs=0.05)


def test_the_documents_quote_the_story():
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    for name, (trained, new, old) in STORY.items():
        assert f"| {name} | {trained:,} | {new:.1%} | {old:.1%} |" in text


def test_what_the_story_says():
    for seed in (1, 2):
        rows = {row["method"]: row for row in digits_story(ranks=[2, 8], seed=seed).records}
        head, two, eight, full = (
            rows[name]["new task"] for name in ("head only", "LoRA, r = 2", "LoRA, r = 8", "full")
        )
        assert head + 0.03 < two < eight + 0.01 < full + 0.03
        assert all(row["old task"] < 0.6 for name, row in rows.items() if name != "not adapted")
