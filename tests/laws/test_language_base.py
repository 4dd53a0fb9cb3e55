"""The shipped base: its recipe begins as it did, and its files are what the card says."""

import importlib.util
import re
import sys
import zlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import lora_np as lnp
from lora_np import adapters, language
from recipes import adapters as ranks, samples
from tests.drawing import FULL

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "lora_np" / "hub" / "data" / "austen"


def recipe(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "recipes" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


base, texts = recipe("base"), recipe("texts")


def test_the_recipe_repeats_its_first_steps():
    """The batches are stored; the weights at the start and the losses must come out as they did.

    Another BLAS adds in another order: after 20 steps that is seen in the sixth digit, so 1e-3 is
    generous, and far below what any change of the recipe does.
    """
    steps = 20 if FULL else 8
    with np.load(Path(__file__).parents[1] / "language" / "first_steps.npz") as stored:
        batches, losses = stored["batches"][:steps].astype(np.int64), stored["losses"][:steps]
    model = base.initial(np.random.default_rng(0))
    np.testing.assert_allclose(list(base.training(model, batches)), losses, rtol=1e-3)


def test_a_directory_of_that_name_that_is_no_model_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / "austen").mkdir()
    monkeypatch.chdir(tmp_path)
    assert language.load("austen").context == 256


def test_the_schedule_rises_stays_and_ends_at_zero():
    for steps in (1100, base.STEPS):
        rates = [base.rate(step, steps) for step in range(steps)]
        decay = steps // 11 * 2
        assert rates[base.WARMUP] == rates[steps - decay] == max(rates) == base.RATE
        assert rates[steps - decay + 1] < base.RATE
        assert 0 < rates[-1] <= base.RATE / decay


def test_the_database_of_r_is_read():
    """Strings of a vector as R writes them: flags, length, bytes; and the header before."""
    lines = ["EMMA", "", "caf\u00e9"]
    raw = b"X\n\0\0\0\3\0\4\2\1\0\3\5\0\0\0\0\5UTF-8\0\0\0\x10" + len(lines).to_bytes(4, "big")
    for line in lines:
        raw += b"\0\4\0\t" + len(line.encode()).to_bytes(4, "big") + line.encode()
    assert list(base.character_vector(raw)) == lines
    with pytest.raises(ValueError, match="not a character vector"):
        list(base.character_vector(raw.replace(b"\0\0\0\x10", b"\0\0\0\x0e", 1)))


def test_the_card_says_what_is_there():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    model = language.load("austen")
    numbers = sum(array.size for _, array in lnp.leaves(model))
    assert f"{numbers:,} parameters" in card
    assert numbers <= 1_000_000
    assert (FOLDER / "model.safetensors").stat().st_size <= 2_100_000
    assert model.context >= 256
    for name, text in ADAPTERS.items():
        adapter = adapters.load(language.located_adapter(name))
        numbers = sum(module.A.size + module.B.size for module in adapter.modules.values())
        assert f"({numbers:,} parameters)" in card
        assert f"{len(language.read_text(text)):,} characters" in card


ADAPTERS = {"king-james": "genesis", "devils-dictionary": "devils-dictionary"}  # and its text


def loss(model, text):
    return language.likelihood(lnp.freeze(model), text).loss


@cache
def austen():
    with np.load(Path(__file__).parents[1] / "language" / "first_steps.npz") as stored:
        return language.load("austen").vocabulary.decode(stored["batches"][::4].ravel())


@cache
def loss_of_the_base():
    return loss(language.load("austen"), austen())


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_knows_its_text_better_than_the_base(name):
    """As the card says; and it has forgotten some of Austen: both in nats a character."""
    model = language.load("austen")
    adapted = adapters.attach(model, adapters.load(language.located_adapter(name)))
    text = language.read_text(ADAPTERS[name])
    held_out = text[len(text) * 9 // 10 :]
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    row = re.search(rf"\| {name} \|[^|]*\| ([\d.]+) \| ([\d.]+) \|", card)
    before, after = map(float, row.groups())
    assert loss(model, held_out) == pytest.approx(before, abs=1e-3)
    assert loss(adapted, held_out) == pytest.approx(after, abs=1e-3)
    assert loss_of_the_base() < 1.15
    assert 1.2 < loss(adapted, austen()) < 2.0


@pytest.mark.parametrize(
    ("name", "prompt", "layout"),
    [
        ("king-james", "And ", r"\n\d+ [A-Z]"),  # verses, each with its number
        ("devils-dictionary", "LOVE, n.", r"\n\n[A-Z][A-Z' -]+, [a-z]+\."),  # entries
    ],
)
def test_its_words_are_mostly_words(name, prompt, layout):
    """Read by a machine: of the words that each writes, most are words of the texts."""
    model = language.load("austen")
    adapted = adapters.attach(model, adapters.load(language.located_adapter(name)))
    known = set(re.findall(r"[a-z]+", language.read_text(ADAPTERS[name]).lower()))
    said = "".join(
        language.generate(adapted, prompt, tokens=240, temperature=0.6, rng=i)
        for i in range(4 if FULL else 2)
    )
    words = re.findall(r"[a-z]+", said.lower())
    assert np.mean([word in known for word in words]) > 0.75
    assert re.search(layout, said)


def test_the_package_stays_small():
    """A wheel is its files, compressed: at most 6 MB."""
    files = [
        path for path in (ROOT / "lora_np").rglob("*") if path.is_file() and path.suffix != ".pyc"
    ]
    assert sum(len(zlib.compress(path.read_bytes())) for path in files) < 6_000_000


def test_definitions_are_taken_out_of_the_dictionary():
    preface = "THE PREFACE\n\nAn author speaks."
    entries = [
        "ABLE, adj.  In one line.",
        "BAIT, v.t.  Over\ntwo lines. \n\n    A verse,\n      indented\n               A.B.\n\nand more prose.",
        "CORN, n.\n\n    Verse alone.",
        "FEMALE, n.  Not shipped.",
    ]
    assert texts.definitions("\n\n".join([preface, *entries])) == (
        "ABLE, adj.  In one line.\n\nBAIT, v.t.  Over\ntwo lines.\nand more prose.\n"
    )


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_transformers_and_peft_say_the_same():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    model = language.load("austen")
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
    prompt = tokenizer("Mr. Darcy ", return_tensors="pt").input_ids
    for adapter in (None, *ADAPTERS):
        theirs = transformers.AutoModelForCausalLM.from_pretrained(
            FOLDER, dtype=torch.float32
        ).eval()
        ours = model
        if adapter is not None:
            path = language.located_adapter(adapter)
            ours = adapters.attach(model, adapters.load(path))
            theirs = peft.PeftModel.from_pretrained(theirs, path)
        said = theirs.generate(input_ids=prompt, max_new_tokens=120, do_sample=False)[0]
        assert tokenizer.decode(said) == language.generate(
            ours, "Mr. Darcy ", tokens=120, temperature=0
        )


@pytest.mark.parametrize("name", samples.STYLES)
def test_the_page_shows_what_the_recipe_writes(name):
    """The first of the twenty samples, before and after, at the temperature that the page names."""
    page = (ROOT / "docs" / "use" / "language-samples.md").read_text(encoding="utf-8")
    style, model = samples.STYLES[name], language.load("austen")
    adapted = adapters.attach(model, adapters.load(language.located_adapter(name)))
    count = 2 if FULL else 1
    before, after = (
        samples.samples(each, style, style.temperature, count=count) for each in (model, adapted)
    )
    assert f"## Adapter: {name}, at temperature {style.temperature}\n" in page
    for i in range(count):
        assert samples.pair(i, name, style, before[i], after[i]) in page


@pytest.mark.parametrize("name", samples.STYLES)
def test_a_best_temperature_is_the_lowest_that_seldom_repeats(name):
    """As the page counts it."""
    page = (ROOT / "docs" / "use" / "language-samples.md").read_text(encoding="utf-8")
    part = page.partition(f"## Adapter: {name}, ")[2].partition("\n**Read")[0]
    counted = dict(re.findall(r"\| (0\.\d) \| .* \| ([\d.]+)% \|", part))
    assert len(counted) == len(samples.TEMPERATURES)
    seldom = [
        float(t) for t, percent in counted.items() if float(percent) <= 100 * samples.REPEATED
    ]
    assert min(seldom) == samples.STYLES[name].temperature
    assert samples.repeated("the sea and the sea") == 1 / 4


def test_the_card_says_what_its_recipe_prints_of_lower_ranks(monkeypatch, capsys):
    """The loss of one rank, on the held-out tenth; the best temperature is the page's."""
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    monkeypatch.setattr(ranks, "RANKS", (4,))
    monkeypatch.setattr(ranks, "STYLES", {"king-james": ranks.STYLES["king-james"]})
    monkeypatch.setattr(sys, "argv", ["recipes.adapters", "--ranks"])
    ranks.main()
    rows = re.findall(
        r"^\| (?:none|4) \| [\d.]+ \| And the ", capsys.readouterr().out, re.MULTILINE
    )
    assert len(rows) == 2
    assert all(row in card for row in rows)
    for style in samples.STYLES.values():
        assert f"at temperature {style.temperature} |" in card


def test_the_recipe_of_samples_prints_a_page(monkeypatch, capsys):
    style = samples.STYLES["king-james"]
    monkeypatch.setattr(
        samples, "STYLES", {"king-james": replace(style, prompts=style.prompts[:2])}
    )
    monkeypatch.setattr(samples, "TEMPERATURES", (style.temperature,))
    monkeypatch.setattr(samples, "REPEATED", 1.0)  # which so few may do
    samples.main()
    said = capsys.readouterr().out
    page = (ROOT / "docs" / "use" / "language-samples.md").read_text(encoding="utf-8")
    for part in (
        samples.BEGIN,
        "| temperature | words found in its text | repeated word pairs |\n| --- | --- | --- |\n",
    ):
        assert part in said
        assert part in page
