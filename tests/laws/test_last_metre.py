"""Every command of the page "From prompt or chats to a file that Ollama opens", one after the other."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import lora_np as lnp
from benchmarks import baking
from lora_np import adapters, language
from lora_np.cli import run
from lora_np.hub import gguf
from recipes.pages import markdown
from tests.language.conftest import needs_tokenizers
from tests.models.test_gguf_vocabulary import write

PAGE = Path(__file__).parents[2] / "docs" / "use" / "ollama.md"
COMMANDS = [
    shlex.split(command)[1:]
    for command in re.findall(r"^\$ (lora-np .*)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
]
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ '<|end|>' if m.role == 'assistant' }}\n"
    "{% endfor %}{{ 'assistant: ' if add_generation_prompt }}"
)
QUESTIONS = ["When? ", "Who is he? ", "And the ", "What? ", "Where is it? ", "How far "]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """What the page takes as given: a model of random weights stands for SmolLM2."""
    monkeypatch.chdir(tmp_path)
    told = {"tokenizer.chat_template": TEMPLATE, "llama.context_length": 512}
    write("smollm2.gguf", kind="Q4_1", metadata=told)
    Path("hotel.txt").write_text("And Noah was the keeper of the ark. ")
    Path("asked.txt").write_text("\n".join(QUESTIONS))
    for name, begins in (("chats.jsonl", 0), ("held-out.jsonl", 20)):
        rows = [
            {"messages": [{"role": "user", "content": f"Number {i}?"},
                          {"role": "assistant", "content": f"It is {i}, friend."}]}
            for i in range(begins, begins + 20)
        ]  # fmt: skip
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def run_all(commands, capsys):
    for words in commands:
        assert run(words) == 0, (words, capsys.readouterr().err)


@needs_tokenizers
def test_a_prompt_and_chats_become_files(files, capsys):
    pytest.importorskip("jinja2")
    commands = [words for words in COMMANDS if "smollm2.gguf" in words]
    assert len(commands) == 6
    run_all(commands, capsys)
    base = gguf.open("smollm2.gguf")
    for name, kind in (("hotel", "Q4_1"), ("hotel-q8", "Q8_0"), ("style", "Q8_0")):
        merged = gguf.open(f"{name}.gguf")
        assert merged.metadata["tokenizer.chat_template"] == TEMPLATE
        assert merged.tensors.keys() == base.tensors.keys()
        assert {
            merged.tensors[key].dtype
            for key in merged.tensors
            if "attn_q" in key and "weight" in key
        } == {kind}
    assert "hotel.gguf" in Path("Modelfile").read_text()
    for page in ("hotel.html", "style.html", "compared.html"):
        assert "<table" in Path(page).read_text()


@pytest.mark.slow
def test_the_same_way_on_the_model_that_is_shipped(files, capsys):
    commands = [words for words in COMMANDS if "austen" in words]
    assert len(commands) == 5
    texts = [{"prompt": "And the ", "completion": "king said."}] * 3
    Path("held-out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    run_all(commands, capsys)
    assert capsys.readouterr().out.count("In the beginning ") >= 1
    austen, tokens = language.load("austen"), np.arange(8)[np.newaxis]
    tuned = lnp.freeze(adapters.attach(austen, adapters.load("genesis-style")))(tokens)
    apart = tuned - language.load("austen-genesis")(tokens)
    assert np.linalg.norm(apart) < 0.1 * np.linalg.norm(tuned - austen(tokens))


def test_the_page_of_bake_shows_what_was_recorded():
    rows = json.loads(baking.RESULTS.read_text(encoding="utf-8"))
    page = PAGE.with_name("bake.md").read_text(encoding="utf-8")
    assert markdown(baking.table(rows)) in page
    assert {(row["prompt"], row["seed"]) for row in rows} == {
        (prompt, seed) for prompt in ("hotel", "library", "workshop") for seed in (0, 1)
    }
    for row in rows:
        assert row["baked, sampled"] <= 0.33 * row["base, sampled"], row
        assert row["baked, greedy"] <= 0.25 * row["base, greedy"], row
        assert row["CPU seconds"] <= 8 * 60, row
    left = [round(100 * row["baked, sampled"] / row["base, sampled"]) for row in rows]
    minutes = max(row["CPU seconds"] for row in rows) / 60
    readme = PAGE.parents[2].joinpath("README.md").read_text(encoding="utf-8")
    assert f"{min(left)} to {max(left)} %, in 5.7 to 6.7 CPU minutes, by machine" in readme
    assert 5.7 <= round(minutes, 1) <= 6.7
