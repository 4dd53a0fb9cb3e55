"""Capacity: the range is the measured one, the rank that is named is the smallest, and what was not
measured is refused.
"""

import json

import numpy as np
import pytest

import lora_np as lnp
from claims.lab.memorising import TEXTS, UNSEEN, foretold
from lora_np import accounting, language
from lora_np.accounting.bits import MEASURED, SHARE
from lora_np.cli import run

RECORDED = lnp.course.claims()["capacity-range"]["figures"]


def means():
    return {name: figure["mean"] for name, figure in RECORDED.items()}


def test_the_ranges_are_those_that_were_measured():
    for key, rank in (("labels", 2), ("labels, rank 1", 1)):
        assert MEASURED[key] == pytest.approx(foretold(means(), rank), abs=0.006)
        assert MEASURED[key][1] / MEASURED[key][0] <= 1.5 * 1.01
    texts = [RECORDED[name] for name in TEXTS]
    measured = min(each["low"] for each in texts), max(each["high"] for each in texts)
    assert MEASURED["text"] == pytest.approx(measured, abs=0.006)


def inside(factor):
    """Of the settings that were not fitted, how many hold what `capacity` foretells, times a
    factor.
    """
    count = 0
    for name, (bed, rank) in UNSEEN.items():
        shapes = {"layers.0": f"{bed.h}x{bed.d}", "layers.2": f"{bed.classes}x{bed.h}"}
        found = [
            accounting.capacity(shapes[target], rank=rank, content="labels")
            for target in bed.targets
        ]
        low, high = (factor * sum(getattr(each, end) for each in found) for end in ("low", "high"))
        count += low <= RECORDED[name]["mean"] * sum(each.count.trainable for each in found) <= high
    return count


def test_five_of_six_unseen_settings_are_foretold():
    assert len(UNSEEN) == 6
    assert inside(1) >= 5


@pytest.mark.parametrize("factor", [0.5, 2])
def test_a_prediction_that_is_doubled_or_halved_fails(factor):
    assert inside(factor) < 5


@pytest.mark.parametrize("content", ["text", "labels"])
@pytest.mark.parametrize("seed", range(20))
def test_the_smallest_rank_is_the_smallest(seed, content):
    rng = np.random.default_rng(seed)
    d, k = (int(n) for n in rng.integers(8, 200, size=2))
    shape, highest = f"{d}x{k}", min(d, k) // SHARE
    rank = int(rng.integers(1, highest + 1))
    found = accounting.capacity(
        shape, rank=rank, bits=float(rng.uniform(0, 3) * highest * (d + k)), content=content
    )
    assert found.free == rank * (d + k - rank)
    assert 0 < found.low < found.high
    holds = [
        r
        for r in range(1, highest + 1)
        if accounting.capacity(shape, rank=r, content=content).low >= found.bits
    ]
    assert found.enough == (min(holds) if holds else None)
    share = f"Warning: the data requires {found.bits / found.low:.0%} of the low estimate"
    assert (share in str(found)) == ("Warning" in str(found)) == (found.bits > found.low / 2)


def test_a_layer_may_have_a_rank_of_its_own():
    """Then the parameters are no multiple of the rank; and targets may be an iterator."""
    targets, pattern = ["q_proj", "v_proj"], {"q_proj": 64}
    given = {"rank_pattern": pattern, "bits": 4e6}
    found = accounting.capacity("llama-3-8b", rank=8, targets=iter(targets), **given)
    lows = [
        accounting.capacity("llama-3-8b", rank=rank, targets=targets, rank_pattern=pattern).low
        for rank in (found.enough - 1, found.enough)
    ]
    assert lows[0] < 4e6 <= lows[1]


@pytest.mark.parametrize(
    "asked",
    [
        {"rank": 26},
        {"rank": 4, "dora": True},
        {"rank": 4, "mica": True},
        {"rank": 4, "content": "images"},
        {"rank": 4, "bits": -1.0},
    ],
)
def test_what_was_not_measured_is_refused(asked):
    with pytest.raises(ValueError, match=r"measured|content|bits"):
        accounting.capacity("100x120", **asked)
    assert accounting.capacity("100x120", rank=25).low > 0


def test_modules_in_full_are_refused():
    with pytest.raises(ValueError, match="only plain LoRA was measured"):
        accounting.capacity("gpt2", rank=4, modules_to_save=["lm_head"])


def test_bits_to_learn_are_the_loss_of_the_tokens_above_the_target():
    model, text = language.load("austen"), language.read_text("genesis")[: 4 * 256 + 1]
    told = language.likelihood(model, text, max_length=256)
    for target in (0.0, 1.0, 9.0):
        expected = told.tokens * max(told.loss - target, 0) / np.log(2)
        assert language.bits_to_learn(model, text, target_loss=target) == pytest.approx(
            expected, rel=1e-5
        )
    for length in (2, 100, 300):  # shorter than a window, or with a remainder: all tokens count
        counted = language.likelihood(model, text[:length], max_length=min(256, length - 1))
        assert language.bits_to_learn(model, text[:length]) == pytest.approx(
            (length - 1) * counted.loss / np.log(2), rel=1e-5
        )
    pair = [{"prompt": "abc", "completion": "def"}]
    assert 0 < language.bits_to_learn(model, pair) < 3 * 40


def test_the_command_measures_or_says_what_it_assumes(tmp_path, capsys):
    data = tmp_path / "notes.txt"
    data.write_text(language.read_text("genesis")[:2000])
    assert run(["capacity", "austen", "--rank", "4", "--data", str(data), "--json"]) == 0
    said = capsys.readouterr()
    measured = json.loads(said.out)["bits"]
    assert measured > 2000
    assert said.err == ""
    assert run(["capacity", "gpt2", "--rank", "4", "--data", str(data), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["bits"] == 500
    assert "assumed: 500 tokens of 1 bit each" in said.err
    assert run(["capacity", "austen", "--rank", "4", "--data", str(data), "--bits", "9"]) == 2
    assert run(["capacity", "austen", "--rank", "99", "--bits", "9"]) == 2


def test_each_expert_has_degrees_of_freedom_of_its_own():
    found = accounting.capacity("mixtral-8x7b", rank=1, targets=["w1", "w2", "w3"])
    # in transformers, w1 and w3 are one matrix, which PEFT adapts with twice the rank
    assert found.free == 32 * 8 * (2 * (2 * 14336 + 4096 - 2) + (4096 + 14336 - 1))
