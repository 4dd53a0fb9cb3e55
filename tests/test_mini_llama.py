"""A Llama in one file: it computes what `lora_np.language` computes."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from lora_np import adapters, language, value
from lora_np.hub import directory
from lora_np.mini_llama import Llama

ROOT = Path(__file__).parents[1]
ADAPTER = "genesis-by-peft"


@pytest.mark.parametrize("adapter", ["", ADAPTER, "king-james"])
@pytest.mark.parametrize("text", ["A", "It is a truth universally acknowledged, that\n" * 5])
def test_logits_are_the_package_s(adapter, text):
    model, ours = Llama(directory("austen")), language.load("austen")
    if adapter:
        model.adapted(directory(adapter))
        ours = adapters.attach(ours, adapters.load(language.located_adapter(adapter)))
    ids = np.array([model.ids[character] for character in text])
    expected = value(ours(ids[None]))[0]
    assert np.abs(model(ids) - expected).max() < 1e-5 * np.abs(expected).max()


def test_it_can_be_read_and_its_page_shows_what_it_writes(capsys, monkeypatch):
    path = ROOT / "lora_np" / "mini_llama.py"
    text = path.read_text(encoding="utf-8").splitlines()
    assert len(text) <= 150
    assert max(map(len, text)) <= 100
    folder = directory("austen")
    monkeypatch.setattr(sys, "argv", ["mini_llama", str(folder), str(folder / ADAPTER)])
    runpy.run_path(str(path), run_name="__main__")
    page = (ROOT / "docs" / "learn" / "mini-llama.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out in page
    assert f"{len(text)} lines" in page
