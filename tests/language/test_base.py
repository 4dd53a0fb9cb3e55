"""The shipped base: its recipe begins as it did, and its files are what the card says."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

import lora_np as lnp
from lora_np import adapters, language

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "lora_np" / "language" / "data" / "austen"
SPEC = importlib.util.spec_from_file_location("base", ROOT / "recipes" / "base.py")
base = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(base)


def test_the_recipe_repeats_its_first_steps():
    """The batches are stored; the weights at the start and the losses must come out as they did.

    Another BLAS adds in another order: after 20 steps that is seen in the sixth digit, so 1e-3 is generous,
    and far below what any change of the recipe does.
    """
    with np.load(Path(__file__).with_name("first_steps.npz")) as stored:
        batches, losses = stored["batches"].astype(np.int64), stored["losses"]
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
    adapter = adapters.load(language.located_adapter("king-james"))
    numbers = sum(module.A.size + module.B.size for module in adapter.modules.values())
    assert f"{numbers:,} numbers" in card
    assert f"{len(language.read_text('genesis')):,} characters" in card


def test_the_adapter_knows_its_text_better_than_the_base():
    """And it has forgotten some of Austen: both in nats a character."""
    model = language.load("austen")
    adapted = adapters.attach(model, adapters.load(language.located_adapter("king-james")))
    held_out = language.read_text("genesis")[-20000:]  # the last tenth was not trained on
    with np.load(Path(__file__).with_name("first_steps.npz")) as stored:
        austen = model.vocabulary.decode(stored["batches"][::4].ravel())
    loss = lambda m, text: language.likelihood(lnp.freeze(m), text).loss
    assert loss(model, held_out) > 2.0
    assert loss(adapted, held_out) < 1.35
    assert loss(model, austen) < 1.15
    assert 1.2 < loss(adapted, austen) < 2.0


def test_its_words_are_mostly_words():
    """Read by a machine: of the words that each writes, most are words of the texts."""
    model = language.load("austen")
    adapted = adapters.attach(model, adapters.load(language.located_adapter("king-james")))
    genesis = set(re.findall(r"[a-z]+", language.read_text("genesis").lower()))
    said = "".join(language.generate(adapted, "And ", tokens=240, temperature=0.6, rng=i) for i in range(4))
    words = re.findall(r"[a-z]+", said.lower())
    assert np.mean([word in genesis for word in words]) > 0.75
    assert re.search(r"\n\d+ [A-Z]", said)  # verses, each with its number


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_transformers_and_peft_say_the_same():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    model = language.load("austen")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
    prompt = tokenizer("Mr. Darcy ", return_tensors="pt").input_ids
    for adapter in (None, "king-james"):
        if adapter is not None:
            path = language.located_adapter(adapter)
            model, theirs = (
                adapters.attach(model, adapters.load(path)),
                peft.PeftModel.from_pretrained(theirs, path),
            )
        said = theirs.generate(input_ids=prompt, max_new_tokens=120, do_sample=False)[0]
        assert tokenizer.decode(said) == language.generate(model, "Mr. Darcy ", tokens=120, temperature=0)
