"""Names as people type them: written down in as_typed.json before the code that finds them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_np import accounting, models
from lora_np.accounting.planning import gpu_names
from lora_np.files import read_json
from lora_np.models.sources import typed_names

TYPED = json.loads(Path(__file__).with_name("as_typed.json").read_text(encoding="utf-8"))
ALIASES = read_json(Path(models.__file__).with_name("aliases.json"))


def test_a_hundred_names_of_models_are_found_and_none_is_taken_for_another() -> None:
    names = typed_names()
    found = {text: names.find(text) for text, _, _ in TYPED["models"]}
    at_once = [text for text, meant, _ in TYPED["models"] if found[text] == meant]
    assert len(TYPED["models"]) == len(found) == 100
    assert len(at_once) >= 85
    for text, meant, _ in TYPED["models"]:
        assert found[text] in (meant, ""), text
        assert meant in names.nearest(text), text
    assert not [text for text, _ in TYPED["unknown"] if names.find(text)]


def test_forty_gpus_are_found_and_none_is_taken_for_another() -> None:
    names, at_once = gpu_names(), 0
    for text, meant, _ in TYPED["gpus"]:
        if len(several := names.several(text)) > 1:  # sold with several memories
            assert meant in several
            continue
        gpu = accounting.plan("gpt2", gpu=text, rank=1, methods=["LoRA"]).gpu
        if meant == "24 GB":
            assert (gpu.sold, gpu.memory) == (0, 24 * 2**30), text
        else:
            assert gpu.name == meant, text
            assert meant in names.nearest(text), text
        at_once += 1
    assert len(TYPED["gpus"]) == 40
    assert at_once >= 35
    for text, _ in TYPED["unknown gpus"]:
        with pytest.raises(
            ValueError, match=r"gpu must (be a memory such as 24 GB, or a GPU|say which)"
        ):
            accounting.plan("gpt2", gpu=text, rank=1)


def test_every_alias_has_its_place_and_no_two_presets_share_one() -> None:
    seen: dict[str, str] = {}
    names = typed_names()
    for preset, places in ALIASES["aliases"].items():
        assert preset in models.preset_names()
        assert {*places} <= {*ALIASES["places"]}
        for name in [name for several in places.values() for name in several]:
            assert seen.setdefault(name.lower(), preset) == preset
            assert names.find(name) == preset
    assert len(seen) >= 100
    assert all("https://" in place for place in ALIASES["places"].values())


def test_the_answer_says_whose_shapes_they_are() -> None:
    assert models.describe("Qwen2.5 7B Instruct").name == (
        "Qwen2.5 7B Instruct: same shapes as qwen2.5-7b"
    )
    assert models.describe("Qwen/Qwen2.5-7B").name == "qwen2.5-7b"
    address = "https://huggingface.co/meta-llama/Llama-2-7b-chat-hf/tree/main"
    assert models.describe(address).name.endswith("same shapes as llama-2-7b")
    with pytest.raises(ValueError, match="close names: llama-3-8b, "):
        models.describe("llama 8b")
