"""Targets, ranks and options of a LoRA on a whole model; what PEFT makes of the same ones."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from lora_np.accounting import count_model
from lora_np.models import ModelSpec, ModuleSpec, from_config, preset
from lora_np.models.families import family_of
from tests.models.test_families import (
    BLOOM,
    DECODER,
    ENCODER,
    GPT2,
    LATENT,
    T5,
    WHISPER,
    meta_model,
    our_count,
    peft_count,
)

LLAMA = from_config({"model_type": "llama", **DECODER}, name="tiny")
VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
MIXTRAL = {**DECODER, "num_key_value_heads": 2, "num_local_experts": 4}

# (family, class, fields, options): what is trained beside plain factors
OPTIONS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("llama", "ForCausalLM", DECODER, {"targets": ["q_proj", "embed_tokens"], "dora": True}),
    (
        "llama",
        "ForCausalLM",
        {**DECODER, "attention_bias": True},
        {"targets": ["q_proj"], "bias": "all"},
    ),
    (
        "llama",
        "ForCausalLM",
        {**DECODER, "attention_bias": True},
        {"targets": ["q_proj"], "bias": "lora_only"},
    ),
    (
        "llama",
        "ForCausalLM",
        DECODER,
        {"targets": ["v_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
    ),
    (
        "llama",
        "ForCausalLM",
        {**DECODER, "tie_word_embeddings": True},
        {"targets": "all-linear", "modules_to_save": ["lm_head", "layers.1.mlp"]},
    ),
    ("llama", "ForCausalLM", DECODER, {"targets": r".*layers\.0\.self_attn\.[qk]_proj"}),
    (
        "llama",
        "ForCausalLM",
        DECODER,
        {"targets": r".*\.(up|down)_proj|lm_head", "rank_pattern": {"lm_head": 9}},
    ),
    (
        "llama",
        "ForCausalLM",
        DECODER,
        {"targets": ["q_proj"], "rank_pattern": {"0.self_attn.q_proj": 64}},
    ),
    (
        "llama",
        "ForCausalLM",
        DECODER,
        {
            "targets": "all-linear",
            "rank_pattern": {"mlp.*": 2, r"layers\.1\..*": 3, "^model.layers.0.self.*": 5},
        },
    ),
    (
        "llama",
        "ForSequenceClassification",
        DECODER,
        {"targets": ["q_proj"], "modules_to_save": ["score"]},
    ),
    (
        "bert",
        "ForSequenceClassification",
        ENCODER,
        {"targets": ["dense"], "modules_to_save": ["classifier"]},
    ),
    ("bert", "ForSequenceClassification", ENCODER, {"targets": ["query"], "bias": "all"}),
    (
        "bert",
        "ForMaskedLM",
        ENCODER,
        {"targets": ["query"], "bias": "all", "modules_to_save": ["cls"]},
    ),
    ("bert", "ForMaskedLM", ENCODER, {"targets": ["decoder", "query"], "bias": "lora_only"}),
    (
        "roberta",
        "ForSequenceClassification",
        ENCODER,
        {"targets": "all-linear", "modules_to_save": ["classifier"], "bias": "all"},
    ),
    (
        "gpt2",
        "LMHeadModel",
        GPT2,
        {"targets": ["c_attn", "mlp.c_proj"], "dora": True, "bias": "lora_only"},
    ),
    ("bloom", "ForCausalLM", BLOOM, {"targets": ["query_key_value"], "bias": "all", "dora": True}),
    ("t5", "ForConditionalGeneration", T5, {"targets": ["q"], "bias": "all"}),
    (
        "whisper",
        "ForConditionalGeneration",
        WHISPER,
        {"targets": ["conv1", "conv2", "fc1"], "dora": True},
    ),
    ("vit", "Model", VIT, {"targets": ["projection", "fc1"], "dora": True, "bias": "all"}),
    ("mixtral", "ForCausalLM", MIXTRAL, {"targets": r".*\.(w1|w3|q_proj)"}),
    (
        "mixtral",
        "ForCausalLM",
        MIXTRAL,
        {"targets": ["w2", "v_proj"], "rank_pattern": {"down_proj": 6}},
    ),
    (
        "deepseek_v3",
        "ForCausalLM",
        LATENT,
        {"targets": ["down_proj", "o_proj"], "modules_to_save": ["lm_head"]},
    ),
]


@pytest.mark.peers
@pytest.mark.parametrize(
    ("family", "task", "fields", "options"),
    OPTIONS,
    ids=[f"{case[0]}-{i}" for i, case in enumerate(OPTIONS)],
)
def test_options_as_in_peft(
    family: str, task: str, fields: dict[str, Any], options: dict[str, Any]
) -> None:
    architecture = family_of(family).classes + task
    spec = from_config({"model_type": family, **fields, "architectures": [architecture]})
    theirs = {"targets": "target_modules", "dora": "use_dora"}
    model = meta_model(family, task, fields)
    expected = peft_count(
        model, r=3, **{theirs.get(key, key): value for key, value in options.items()}
    )
    assert our_count(spec, rank=3, **options) == expected


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_printed_line_is_pefts(capsys: pytest.CaptureFixture[str]) -> None:
    import peft

    model = peft.get_peft_model(meta_model("llama", "ForCausalLM", DECODER), peft.LoraConfig(r=3))
    model.print_trainable_parameters()
    assert capsys.readouterr().out.strip() == count_model(LLAMA, rank=3).peft_line


def test_ends_of_names_are_whole_parts() -> None:
    (adapter,) = count_model(LLAMA, rank=2, targets=["q_proj"]).adapters
    assert adapter.module.name == "model.layers.{}.self_attn.q_proj"
    with pytest.raises(ValueError, match="'proj' matches no module of tiny"):
        count_model(LLAMA, rank=2, targets=["proj"])


def test_an_index_picks_a_layer() -> None:
    one = count_model(LLAMA, rank=2, targets=["layers.1.self_attn.q_proj"])
    assert [row["module"] for row in one.by_module.records] == ["model.layers.1.self_attn.q_proj"]


def test_all_linear_leaves_the_head_out_but_a_name_takes_it() -> None:
    names = {
        row["module"] for row in count_model(LLAMA, rank=2, targets="all-linear").by_module.records
    }
    assert "lm_head" not in names
    assert len(names) == 14
    assert count_model(LLAMA, rank=2, targets=["lm_head"]).trainable == 2 * (97 + 32)


@pytest.mark.parametrize(
    "same",
    [
        ({"modules_to_save": ["lm_head"]}, {"modules_to_save": "lm_head"}, {"modules_to_save": np.array(["lm_head"])}),
        ({}, {"modules_to_save": None}, {"layers": None}, {"layers": []}),
        ({"layers": [1]}, {"layers": 1}, {"layers": np.int64(1)}, {"layers": np.array([1])}, {"layers": range(1, 2)}),
    ],
)  # fmt: skip
def test_an_option_is_one_value_or_several_or_none(same: Sequence[dict[str, Any]]) -> None:
    first, *others = (count_model(LLAMA, rank=2, targets=["q_proj"], **each) for each in same)
    assert others == [first] * len(others)


def test_breakdowns_add_up() -> None:
    report = count_model(
        LLAMA,
        rank=4,
        targets="all-linear",
        rank_pattern={r"1\..*": 7},
        modules_to_save=["embed_tokens"],
    )
    assert sum(row["trainable"] for row in report.by_module.records) == report.trainable  # type: ignore[misc]
    assert sum(row["trainable"] for row in report.table.records) == report.adapter  # type: ignore[misc]
    assert sum(row["base"] for row in report.table.records) == report.base == LLAMA.total  # type: ignore[misc]
    assert report.total == report.base + report.trainable
    assert {row["rank"] for row in report.table.records} == {"4, 7", None}


def test_json_holds_plain_integers() -> None:
    count = count_model(LLAMA, rank=4)
    base = 2 * 97 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 48 + 2 * 32) + 32
    assert (count.trainable, count.base, count.total) == (1024, base, base + 1024)
    assert [row["trainable"] for row in json.loads(count.by_module.to_json())["rows"]] == [256] * 4


def test_high_ranks_are_counted_and_flagged() -> None:
    report = count_model(LLAMA, rank=40, targets=["q_proj"])
    assert report.trainable == 2 * 40 * 64
    assert any("above min(d, k) = 32" in note for note in report.notes)
    assert not count_model(LLAMA, rank=32, targets=["q_proj"]).notes


def test_experts_by_both_conventions() -> None:
    spec = from_config({"model_type": "mixtral", **MIXTRAL})
    d, inner, experts, layers, r = 32, 48, 4, 2, 3
    maps = ["w1", "w2", "w3"]
    own = count_model(spec, rank=r, targets=maps, experts="per-expert")
    assert own.trainable == layers * experts * 3 * r * (d + inner)
    assert own.notes == ("Experts are counted by the per-expert convention.",)
    assert "model.layers.1.block_sparse_moe.experts.3.w2" in {
        row["module"] for row in own.by_module.records
    }
    fused = count_model(spec, rank=r, targets=maps)
    assert fused.trainable == layers * experts * (2 * r * (d + 2 * inner) + r * (d + inner))
    assert fused.notes == ("Experts are counted by the peft convention.",)
    assert own.base == fused.base == spec.total
    one = count_model(spec, rank=r, targets=["experts.2.w1"], experts="per-expert")
    assert one.trainable == layers * r * (d + inner)


def test_all_linear_per_expert_counts_every_map_and_the_router() -> None:
    spec = from_config({"model_type": "mixtral", **MIXTRAL})
    count = count_model(spec, rank=1, targets="all-linear", experts="per-expert")
    linear = [m for m in spec.per_expert().modules if m.kind == "linear" and m.name != "lm_head"]
    assert count.trainable == sum(sum(m.shape) for m in linear)
    assert sum("experts" in m.name for m in linear) == 2 * 4 * 3


def test_names_in_checkpoints_are_aliases_where_nothing_has_the_name() -> None:
    spec = from_config({"model_type": "vit", **VIT})
    assert (
        count_model(spec, rank=2, targets=["query", "value"]).trainable
        == count_model(spec, rank=2, targets=["q_proj", "v_proj"]).trainable
    )
    assert (
        count_model(spec, rank=2, targets=r"encoder\.layer\.0\.attention\.attention\.key").trainable
        == 2 * 64
    )
    # a name that transformers has, too, means that one alone
    assert [
        row["module"] for row in count_model(spec, rank=2, targets=["dense"]).by_module.records
    ] == ["pooler.dense"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ["q_prj"]}, "close names: q_proj"),
        ({"targets": ["q_proj", "c_attn"]}, "'c_attn' matches no module of tiny"),
        ({"targets": []}, "targets must name at least one module"),
        (
            {"targets": ["mlp"]},
            "'mlp' matches the container 'model.layers.0.mlp'.* it holds down_proj, gate_proj, up_proj",
        ),
        ({"targets": ["norm"]}, "'norm' matches the norm 'model.norm'"),
        ({"targets": "q_proj"}, r"for the ends of names give a list: \['q_proj'\]"),
        ({"targets": ".*self_attn.*"}, "matches the container 'model.layers.0.self_attn'"),
        ({"targets": r".*layernorm"}, "matches the norm 'model.layers.0.input_layernorm'"),
        ({"targets": "("}, "targets must be a regular expression"),
        ({"rank_pattern": {"q_prj": 3}}, r"rank_pattern: 'q_prj' matches no module of .*q_proj"),
        ({"rank_pattern": {"(": 3}}, r"rank_pattern\['\('\] must be a regular expression"),
        ({"rank_pattern": {"q_proj": 0}}, r"rank_pattern\['q_proj'\] must be at least 1, got 0"),
        ({"modules_to_save": ["score"]}, "modules_to_save: 'score' matches no module of tiny"),
        ({"bias": "some"}, "bias must be one of 'none', 'all', 'lora_only', got 'some'"),
        ({"experts": "both"}, "experts must be one of 'peft', 'per-expert'"),
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"dora": True, "lora_bias": True}, "only one of DoRA, MiCA and lora_bias"),
        ({"dora": True, "mica": True}, "only one of DoRA, MiCA and lora_bias"),
    ],
)
def test_errors_name_the_value_and_what_would_be_right(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        count_model(LLAMA, **{"rank": 4, **options})


@pytest.mark.parametrize("rank", [2.5, True, "8", None])
def test_ranks_that_are_not_whole_numbers(rank: Any) -> None:
    with pytest.raises(TypeError, match="rank must be a whole number"):
        count_model(LLAMA, rank=rank)


@pytest.mark.parametrize("family", ["whisper", "vit", "phi3", "deepseek_v3"])
def test_a_family_without_default_targets_counts_all_linear_layers_and_says_so(family: str) -> None:
    spec = from_config({"model_type": family})
    counted, named = count_model(spec, rank=8), count_model(spec, rank=8, targets="all-linear")
    assert counted.trainable == named.trainable
    said = f"PEFT has no default targets for {family}: all linear layers are counted."
    assert said in counted.notes
    assert said not in named.notes


def test_half_of_a_fused_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="w1 needs w3 too"):
        count_model(preset("mixtral-8x7b"), rank=4, targets=["w1"])


def test_dora_on_fused_experts_is_refused() -> None:
    with pytest.raises(
        ValueError, match="dora must be False for a parameter, such as fused experts"
    ):
        count_model(preset("mixtral-8x7b"), rank=4, targets=["w2"], dora=True)


def test_a_spec_by_hand() -> None:
    spec = ModelSpec(
        "mine", (ModuleSpec("a", "linear", (3, 4), bias=True), ModuleSpec("b", "linear", (5, 3)))
    )
    assert spec.total == 12 + 3 + 15
    assert count_model(spec, rank=2, targets=["a"]).trainable == 14
    assert re.search(r"a +linear +3 x 4", str(count_model(spec, rank=2, targets=["a"])))
