"""A whole LoraConfig: every setting that changes the count, against PEFT; the others refused by
name.
"""

from __future__ import annotations

import copy
import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_np.accounting import count, count_model, model_spec
from lora_np.cli import run
from lora_np.hub import safetensors
from lora_np.models import from_config, preset

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
ROUTED = {"moe_intermediate_size": 12, "num_experts": 4, "num_experts_per_tok": 2}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **SIZES, "attention_bias": True},
    "tied": {"model_type": "llama", **SIZES, "tie_word_embeddings": True},
    "qwen3_moe": {"model_type": "qwen3_moe", **SIZES, **ROUTED},
    "gpt_oss": {"model_type": "gpt_oss", **SIZES, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8},
    "gemma3": {
        "model_type": "gemma3",
        "text_config": {"model_type": "gemma3_text", **SIZES, "head_dim": 8},
        "vision_config": {
            "model_type": "siglip_vision_model", "hidden_size": 24, "intermediate_size": 40,
            "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 28, "patch_size": 14,
        },
    },
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 97},
}  # fmt: skip
Q = {"target_modules": ["q_proj"]}
CASES: list[tuple[str, dict[str, Any]]] = [
    # the first embedding is the positions of the vision tower
    ("gemma3", {**Q, "trainable_token_indices": [0, 90]}),
    ("gemma3", {**Q, "modules_to_save": ["lm_head"], "ensure_weight_tying": True}),
    ("gemma3", {**Q, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
    ("gemma3", {"target_modules": ["q_proj", "lm_head"], "ensure_weight_tying": True}),
    # a parameter of another layer than the targets'
    (
        "llama",
        {
            "target_modules": ["layers.0.self_attn.q_proj"],
            "target_parameters": ["layers.1.self_attn.k_proj.weight"],
        },
    ),
    (
        "llama",
        {
            "target_modules": ["layers.0.self_attn.q_proj"],
            "target_parameters": ["layers.1.self_attn.q_proj.weight"],
        },
    ),
    ("llama", {"exclude_modules": ["layers.1.self_attn.q_proj"]}),
    # a container holds on to nothing
    ("llama", {"exclude_modules": ["mlp"], "target_modules": "all-linear"}),
    ("llama", {"exclude_modules": r".*mlp.*", "target_modules": "all-linear"}),
    ("llama", {"exclude_modules": r".*\.0\..*", "target_modules": r".*\.(q|v)_proj"}),
    ("llama", {"layers_to_transform": [0, 2]}),
    ("llama", {"layers_to_transform": [0, 1], "target_modules": ["q_proj", "model.layers.2.mlp.up_proj"]}),
    ("llama", {"layers_to_transform": 1, "layers_pattern": "layers", "rank_pattern": {"q_proj": 7}}),
    ("llama", {"lora_bias": True}),
    ("llama", {"bias": "lora_only"}),
    ("llama", {"bias": "all", "modules_to_save": ["lm_head", "norm"], "use_dora": True}),
    ("llama", {"modules_to_save": ["q_proj"], "target_modules": "all-linear"}),
    ("llama", {"trainable_token_indices": [1, 2, 3]}),
    ("llama", {"trainable_token_indices": {"embed_tokens": [1, 2], "lm_head": [1]}}),
    ("tied", {"trainable_token_indices": [1, 2, 3]}),
    ("tied", {"trainable_token_indices": {"embed_tokens": [1, 2], "lm_head": [1, 2]}}),
    ("tied", {"trainable_token_indices": {"embed_tokens": [1, 2], "lm_head": [1]}}),
    ("tied", {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True}),
    ("tied", {"target_modules": r".*(lm_head|\.q_proj)", "ensure_weight_tying": True}),
    ("tied", {"modules_to_save": ["lm_head"], "ensure_weight_tying": True}),
    ("tied", {"target_modules": "all-linear", "ensure_weight_tying": True}),
    ("llama", {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True}),
    ("llama", {"target_parameters": ["q_proj.weight"], "target_modules": ["v_proj"]}),
    ("llama", {"target_parameters": ["embed_tokens.weight"]}),
    ("qwen3_moe", {"target_parameters": ["mlp.experts.gate_up_proj"]}),
    ("qwen3_moe", {
        "target_modules": ["q_proj"], "rank_pattern": {"down_proj": 5, r"0\.mlp\.experts\.gate_up_proj": 2},
        "target_parameters": ["gate_up_proj", "layers.1.mlp.experts.down_proj"],
    }),
    ("qwen3_moe", {"target_modules": "all-linear", "exclude_modules": ["k_proj"]}),
    ("qwen3_moe", {"target_modules": ["q_proj", "gate_proj", "up_proj"], "layers_to_transform": [0]}),
    ("gpt_oss", {"target_modules": "all-linear", "target_parameters": ["1.mlp.experts.down_proj"]}),
    ("gpt_oss", {"target_parameters": ["experts.gate_up_proj", "router.weight"], "rank_pattern": {"weight": 3}}),
    ("gpt2", {"lora_bias": True}),
    ("gpt2", {"target_modules": ["c_attn", "wpe"], "exclude_modules": "wpe"}),
    ("gpt2", {"use_rslora": True, "alpha_pattern": {"c_attn": 3}, "task_type": "CAUSAL_LM", "lora_dropout": 0.1}),
]  # fmt: skip


@cache
def built(kind: str) -> Any:
    import torch
    import transformers

    fields = dict(MODELS[kind])
    config = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
    with torch.device("meta"):
        if kind == "gemma3":
            return transformers.Gemma3ForConditionalGeneration(config)
        return transformers.AutoModelForCausalLM.from_config(config)


@pytest.mark.peers
@pytest.mark.parametrize(("kind", "settings"), CASES, ids=str)
def test_every_setting_counts_as_in_peft(
    tmp_path: Path, kind: str, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    import peft

    config = peft.LoraConfig(r=4, **settings)
    config.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(copy.deepcopy(built(kind)), copy.deepcopy(config))
    expected = adapted.get_nb_trainable_parameters()
    for spec in (model_spec(built(kind)), from_config(MODELS[kind])):
        for given in (
            config,
            {"r": 4, **settings},
            tmp_path,
            str(tmp_path / "adapter_config.json"),
        ):
            found = count(spec, config=given)
            assert (found.trainable, found.total) == expected
    path = tmp_path / "config.json"
    path.write_text(json.dumps(MODELS[kind]))
    assert run(["count", str(path), "--config", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert f"trainable params: {expected[0]:,} || all params: {expected[1]:,}" in printed


def test_a_config_is_the_same_as_arguments() -> None:
    spec = preset("llama-3-8b")
    found = count(
        spec, config={"r": 4, "target_modules": ["q_proj", "v_proj"], "layers_to_transform": [3]}
    )
    one = count_model(spec, rank=4, targets=["q_proj", "v_proj"], layers=[3])
    assert found.trainable == one.trainable == 4 * (4096 + 4096) + 4 * (4096 + 1024)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer_replication": [[0, 4]]}, r"layer_replication = \[\[0, 4\]\] may change"),
        ({"no_such_setting": 1}, "no_such_setting = 1 may change"),
        ({"peft_type": "XLORA"}, "peft_type = 'XLORA' is not supported, only LORA, ADALORA, LOHA, LOKR, VERA, IA3, OFT"),
        ({"peft_type": "IA3"}, r"\(IA\)\^3 has no defaults here"),
        ({"peft_type": "VERA", "target_modules": ["q_proj"], "lora_alpha": 4}, "lora_alpha = 4 is not supported"),
        ({"velora_config": {"groups": 2}}, "velora_config = {'groups': 2} may change"),
        ({"r": "8"}, "r must be a whole number from 1 on, got '8'"),
        ({"r": True}, "r must be a whole number from 1 on, got True"),
        ({"layers_to_transform": ["0"]}, r"layers_to_transform must be whole numbers, got \['0'\]"),
        ({"target_modules": [1]}, r"target_modules must be a list of names or one expression, got \[1\]"),
        ({"layers_to_transform": [0], "target_modules": ".*q_proj"}, "layers needs a list of targets"),
        ({"layers_pattern": ["layers"]}, "layers_pattern says what layers counts"),
        ({"exclude_modules": ["q_proj", "v_proj"]}, "is left out again"),
        ({"target_parameters": ["experts.down_proj"]}, "matches no parameter of llama;"),
        ({"target_parameters": ["norm.weight"]}, r"'norm.weight' is a norm of shape \(32,\)"),
        ({"target_parameters": ["q_proj.weight"]}, "of a module that targets select as well"),
        ({"trainable_token_indices": [97]}, "must be between 0 and 96, got 97"),
        ({"trainable_token_indices": {"wte": [0]}}, "'wte' matches no embedding"),
        ({"trainable_token_indices": [1], "modules_to_save": ["embed_tokens"]}, "trained in full as well"),
        ({"lora_bias": True, "target_modules": ["embed_tokens"]}, "lora_bias must be False for an embedding"),
    ],
)  # fmt: skip
def test_what_is_not_counted_is_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        count(from_config(MODELS["tied"]), config=settings)


def test_a_config_leaves_no_room_for_other_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    with pytest.raises(ValueError, match="holds all settings of the LoRA: leave out rank, dora"):
        count("gpt2", rank=8, dora=True, config=str(tmp_path))
    assert run(["count", "gpt2", "--rank", "8", "--dora", "--config", str(tmp_path)]) == 1
    assert "holds all settings of the LoRA: leave out rank, dora" in capsys.readouterr().err
    with pytest.raises(
        TypeError, match=r"config must be an adapter_config\.json, its fields or a LoraConfig"
    ):
        count("gpt2", config=8)


def test_a_missing_model_type_is_said_to_be_missing() -> None:
    for fields in ({}, {"model_type": None}):
        with pytest.raises(ValueError, match="model_type is missing"):
            from_config(fields)


def test_the_head_of_a_reward_model_is_read_from_its_file(tmp_path: Path) -> None:
    fields = {"peft_type": "LORA", "r": 4, **Q, "task_type": "SEQ_CLS"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(fields))
    path = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    tensors = {path.format(i, x): np.zeros((4, 32) if x == "A" else (32, 4), np.float32)
               for i in range(3) for x in "AB"}  # fmt: skip
    for rows in (1, 2, 3):
        head = {"base_model.model.score.weight": np.zeros((rows, 32), np.float32)}
        safetensors.save({**tensors, **head}, tmp_path / "adapter_model.safetensors")
        found = count(MODELS["llama"], config=tmp_path)
        assert found.trainable == sum(each.size for each in (tensors | head).values())


def test_the_number_of_labels_wins_against_their_names() -> None:
    fields = {**MODELS["llama"], "architectures": ["LlamaForSequenceClassification"]}
    for more, rows in (
        ({"num_labels": 5, "id2label": {"0": "a", "1": "b"}}, 5),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, 3),
        ({}, 2),
    ):
        (head,) = (each for each in from_config({**fields, **more}).modules if each.name == "score")
        assert head.shape[0] == rows
