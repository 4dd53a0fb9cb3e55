"""Configs, checkpoints and models in memory, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_np.accounting import count_model, model_spec
from lora_np.models import catalogue, from_config, preset
from lora_np.models.families import family_names, family_of
from lora_np.models.sources import preset_config
from tests.models.test_families import CASES, DECODER, LATENT, meta_model


def test_a_config_file_a_directory_and_its_fields_say_the_same(tmp_path: Path) -> None:
    fields = preset_config("llama-3.2-1b")
    (tmp_path / "config.json").write_text(json.dumps(fields))
    specs = [from_config(fields), model_spec(tmp_path / "config.json"), model_spec(tmp_path)]
    assert {spec.total for spec in specs} == {preset("llama-3.2-1b").total}
    assert specs[1].name == tmp_path.name


def test_absent_fields_take_the_familys_defaults() -> None:
    assert from_config({"model_type": "gpt2"}).total == preset("gpt2").total
    assert from_config({"model_type": "deepseek_v3"}).total == preset("deepseek-v3").total


def test_the_class_decides_the_head() -> None:
    fields = {**preset_config("llama-3-8b"), "num_labels": 5}
    base = from_config({**fields, "architectures": ["LlamaModel"]})
    assert (
        from_config({**fields, "architectures": ["LlamaForSequenceClassification"]}).total
        == base.total + 5 * 4096
    )
    assert from_config({**fields, "architectures": ["LlamaModel"]}).total == base.total


def test_every_family_is_listed_with_its_defaults() -> None:
    rows = {row["family"]: row["default targets"] for row in catalogue().families.records}
    assert set(rows) == set(family_names())
    assert rows["phi"] == "q_proj v_proj fc1 fc2"
    assert rows["vit"] is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"model_type": "mamba2"},
            "model_type must be one .*got 'mamba2'.*safetensors.*named_modules",
        ),
        ({}, "model_type is missing"),
        (
            {"model_type": "llama", "hidden_size": 100, "num_attention_heads": 3},
            "num_attention_heads must divide",
        ),
        (
            {"model_type": "bert", "hidden_size": 100, "num_attention_heads": 12},
            "must divide hidden_size = 100",
        ),
        (
            {"model_type": "gpt2", "n_embd": 100, "n_head": 3},
            "n_head must divide n_embd = 100, got 3",
        ),
        (
            {"model_type": "whisper", "d_model": 10, "encoder_attention_heads": 4},
            "must divide d_model = 10",
        ),
        (
            {"model_type": "llama", "num_attention_heads": 8, "num_key_value_heads": 3},
            "num_key_value_heads must divide num_attention_heads = 8, got 3",
        ),
        (
            {"model_type": "mixtral", "num_experts_per_tok": 9},
            "must be between 1 and num_local_experts = 8",
        ),
        ({"model_type": "llama", "hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        (
            {"model_type": "llama", "architectures": ["LlamaForPoetry"]},
            "architecture must be one of",
        ),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_config(fields)


@pytest.mark.parametrize("value", [2.5, "4096", True])
def test_fields_of_the_wrong_type_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="hidden_size must be a whole number"):
        from_config({"model_type": "llama", "hidden_size": value})


def test_a_flag_that_is_no_boolean_is_refused() -> None:
    with pytest.raises(TypeError, match="tie_word_embeddings must be true or false, got 1"):
        from_config({"model_type": "llama", "tie_word_embeddings": 1})


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not valid JSON"), ("[1]", "must be a JSON object")]
)
def test_a_config_that_is_not_json(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        model_spec(str(tmp_path / "config.json"))


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        model_spec(str(tmp_path / "config.json"))
    with pytest.raises(ValueError, match=r"model\.safetensors: no such file"):
        model_spec(str(tmp_path / "model.safetensors"))
    with pytest.raises(
        ValueError, match=r"no model.safetensors and no model.safetensors.index.json"
    ):
        model_spec(tmp_path)
    with pytest.raises(
        ValueError, match=r"no model 'lama-3-8b': neither .*; close names: llama-3-8b"
    ):
        model_spec("lama-3-8b")
    with pytest.raises(ValueError, match=r"nor a preset \(lora-np count --list\)$"):
        model_spec("xyz")  # like no name
    assert model_spec("LLAMA-3-8B").total == model_spec("llama-3-8b").total
    with pytest.raises(ValueError, match="d must be at least 1, got 0"):
        model_spec("0x120")


@pytest.mark.peers
@pytest.mark.parametrize("case", range(0, len(CASES), 4))
def test_a_torch_model_says_what_its_config_says(case: int) -> None:
    family, task, fields = CASES[case]
    spec = from_config(
        {"model_type": family, **fields, "architectures": [family_of(family).classes + task]}
    )
    live = model_spec(meta_model(family, task, fields))
    assert live.total == spec.total
    linear = {m.name: m.shape for m in spec.modules if m.kind == "linear"}
    assert {m.name: m.shape for m in live.modules if m.kind == "linear"} == linear
    ours, theirs = (count_model(each, rank=3, targets="all-linear") for each in (spec, live))
    assert (ours.trainable, ours.total) == (theirs.trainable, theirs.total)


@pytest.mark.peers
def test_experts_of_a_torch_model_by_both_conventions() -> None:
    spec = from_config({"model_type": "deepseek_v3", **LATENT})
    live = model_spec(meta_model("deepseek_v3", "ForCausalLM", LATENT))
    for experts in ("peft", "per-expert"):
        ours, theirs = (
            count_model(each, rank=2, targets="all-linear", experts=experts)
            for each in (spec, live)
        )
        assert ours.trainable == theirs.trainable


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd")
def test_any_torch_module() -> None:
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(4, 6, 3, groups=2)
            self.norm = torch.nn.BatchNorm2d(6)
            self.up = torch.nn.ConvTranspose2d(6, 2, 2)
            self.maps = torch.nn.ModuleList([torch.nn.Linear(5, 7, bias=b) for b in (True, False)])
            self.scale = torch.nn.Parameter(torch.zeros(3))

    import peft

    net = Net()
    spec = model_spec(net)
    assert spec.total == sum(p.numel() for p in net.parameters())
    report = count_model(spec, rank=2, targets=["conv", "maps.0", "maps.1"])
    adapted = peft.get_peft_model(
        net, peft.LoraConfig(r=2, target_modules=["conv", "maps.0", "maps.1"])
    )
    assert (report.trainable, report.total) == adapted.get_nb_trainable_parameters()


def test_decoders_agree_across_defaults() -> None:
    # Mistral is Llama with eight key-value heads and a wider MLP
    llama = from_config({"model_type": "llama", **DECODER, "num_key_value_heads": 2})
    mistral = from_config({"model_type": "mistral", **DECODER, "num_key_value_heads": 2})
    assert llama.total == mistral.total
