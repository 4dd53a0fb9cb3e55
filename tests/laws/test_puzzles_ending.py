"""The end of the puzzles: fifteen lines train a language model, and what they save is an adapter."""

import ast
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from lora_np import adapters, language, mini_llama
from lora_np.exercises import ending
from lora_np.exercises.catalogue import DATA
from lora_np.hub import directory
from tests.drawing import FULL, every

QUICK = {"steps": 3, "every": 39}  # of 78 pages
PAGE = Path(__file__).parents[2] / "docs" / "browser" / "page.py"
TRAINING = ("forward", "sum_gradients", "product_gradients", "broadcast", "walk", "start", "step")


def losses(scene):
    (found,) = scene.panels.values()
    return found


def loss_after(scene):
    return float(re.search(r"^After, loss ([\d.]+):", scene.said, re.M)[1])


def wrong(name):
    """The lines of the known mistakes of a puzzle."""
    table = tomllib.loads((DATA / "puzzles.toml").read_text("utf-8"))["puzzle"]
    (one,) = (row for row in table if row["name"] == name)
    return [line for line, _ in one["wrong"].values()]


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    folder, shown = tmp_path_factory.mktemp("ending") / "adapter", []
    return ending({}, folder, prompt="In the ", show=shown.append, **QUICK), folder, shown


def test_it_says_what_was_trained_and_drawn(ended):
    scene, folder, shown = ended
    assert "37,376 parameters trained beside 750,720 that stay as they were" in scene.said
    assert "Each change has rank 4" in scene.said
    before, after = re.findall(r"^(?:Before|After), loss [\d.]+: (In the .*)$", scene.said, re.M)
    assert min(len(before), len(after)) > 100
    assert "seed 3 at temperature 0.5" in scene.said
    assert "Genesis in sound, not in sense" in scene.said
    assert len(losses(scene)) == QUICK["steps"]
    assert shown[1:4] == [f"Step {i} of 3: loss {x:.2f}" for i, x in enumerate(losses(scene), 1)]
    card = ET.parse(folder / "card.svg").getroot()
    assert (card.get("width"), card.get("height")) == ("1200", "630")
    written = " ".join(card.itertext())
    assert "In the" in written
    assert "37,376 parameters trained" in written
    assert "not in sense" in written
    xs = [float(text.get("x")) for text in card.iter() if text.tag.endswith("text")]
    assert set(xs) == {60, 600}


def test_evaluate_finds_the_same_loss_in_the_saved_adapter(ended):
    scene, folder, _ = ended
    model = adapters.attach(language.load("austen"), adapters.load(folder))
    text = language.read_text("genesis")
    known = language.load("austen").vocabulary.encode(text).size
    assert known == len(text)
    held_out = text[len(text) * 9 // 10 :]
    pages = [
        held_out[start : start + 257]
        for start in range(0, len(held_out) - 256, 256 * QUICK["every"])
    ]
    losses = [language.likelihood(model, page).loss for page in pages]
    assert np.mean(losses) == pytest.approx(loss_after(scene), abs=1e-3)


def test_the_one_file_trains_the_same_way(ended):
    """Step by step with the engine of ``mini_llama.py`` instead of a reader's lines."""
    model, draw = mini_llama.Llama(directory("austen")), np.random.default_rng
    ids = model.read(language.read_text("genesis"))
    parameters = model.adapt(r=4, alpha=8, rng=draw(0))
    found = mini_llama.finetune(
        model, ids[: len(ids) * 9 // 10], parameters, steps=QUICK["steps"], lr=0.01, rng=draw(1000)
    )
    np.testing.assert_allclose([*found], losses(ended[0]), rtol=1e-4)


@pytest.mark.skipif(not FULL, reason="a minute of training")
def test_the_one_file_reaches_the_loss(tmp_path):
    """Run as a reader runs it, with other draws than the puzzles' end; 300 steps in both."""
    book = tmp_path / "genesis.txt"
    book.write_text(language.read_text("genesis"), encoding="utf-8")
    run = subprocess.run(
        [sys.executable, mini_llama.__file__, str(directory("austen")), str(book)],
        capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    assert float(re.search(r"After, loss ([\d.]+)", run.stdout)[1]) <= 1.35
    assert "37,376 parameters trained" in run.stdout


@every("name", TRAINING)
def test_each_line_that_trains_is_needed(name, tmp_path, ended):
    """One of its known mistakes changes the run, or stops it."""
    right = losses(ended[0])
    for line in reversed(wrong(name)):  # the first of the walk would take weeks
        try:
            found = losses(ending({name: line}, tmp_path, tokens=1, **QUICK))
        except ValueError:
            return
        if not np.allclose(found, right, rtol=1e-3):
            return
    raise AssertionError(f"no mistake in {name} changes the training")


@pytest.mark.skipif(not FULL, reason="a minute of training")
def test_three_seeds_that_chose_nothing_reach_the_loss(tmp_path):
    found = [loss_after(ending({}, tmp_path, seed=seed)) for seed in (21, 22, 23)]
    assert np.median(found) <= 1.35


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, about itself
def test_peft_finds_the_same_loss(tmp_path):
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    scene = ending({}, tmp_path, steps=5, tokens=1)
    base = transformers.AutoModelForCausalLM.from_pretrained(
        directory("austen"), dtype=torch.float32
    )
    tuned = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    text = language.read_text("genesis")
    ids = language.load("austen").vocabulary.encode(text)
    ids = torch.tensor(np.array(ids[len(ids) * 9 // 10 :], np.int64))
    found = []
    with torch.no_grad():
        for start in range(0, len(ids) - 256, 256):
            page = ids[None, start : start + 257]
            logits = tuned(page[:, :-1]).logits[0]
            found.append(torch.nn.functional.cross_entropy(logits, page[0, 1:]).item())
    assert np.mean(found) == pytest.approx(loss_after(scene), abs=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(not PAGE.is_file(), reason="the sources of the site are not there")
def test_the_shorter_training_of_the_page_is_long_enough(tmp_path):
    """On all pages that are held out, of which the site reads one in thirteen; the same sums."""
    (settings,) = re.findall(r"^SHORT = (\{.*\})$", PAGE.read_text("utf-8"), re.M)
    assert (
        loss_after(ending({}, tmp_path, tokens=1, **ast.literal_eval(settings) | {"every": 1}))
        <= 1.5
    )
