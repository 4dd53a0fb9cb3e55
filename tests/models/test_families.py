"""Every family against transformers and PEFT, on the meta device: names, shapes and counts,
exactly.
"""

from __future__ import annotations

import warnings
from itertools import product
from typing import Any

import pytest

from lora_np.accounting import count_model
from lora_np.models import default_targets, from_config, fused_names
from lora_np.models.families import family_names, family_of
from tests.drawing import twentieth

SMALL = {"vocab_size": 97}
DECODER = {
    **SMALL,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
ENCODER = {**DECODER, "max_position_embeddings": 40}
T5 = {**SMALL, "d_model": 24, "d_kv": 5, "d_ff": 40, "num_layers": 2, "num_heads": 3}
WHISPER = {
    **SMALL,
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 36,
    "num_mel_bins": 8,
    "max_source_positions": 30,
    "max_target_positions": 20,
    "pad_token_id": 0,
}
LATENT = {
    **DECODER,
    "moe_intermediate_size": 16,
    "num_key_value_heads": 4,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "num_hidden_layers": 3,
    "q_lora_rank": 12,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4,
    "v_head_dim": 7,
}
GPT2 = {**SMALL, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40}
BLOOM = {**SMALL, "hidden_size": 32, "n_layer": 2, "n_head": 4}
FALCON = {**SMALL, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
OPT = {**DECODER, "ffn_dim": 48, "max_position_embeddings": 40}

# (family, class, fields): usual ones and odd ones
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("gpt2", "LMHeadModel", GPT2),
    ("gpt2", "LMHeadModel", {**GPT2, "n_inner": 50, "tie_word_embeddings": False}),
    ("gpt2", "LMHeadModel", {**GPT2, "add_cross_attention": True}),
    ("gpt2", "Model", {**GPT2, "n_head": 8}),
    ("gpt2", "DoubleHeadsModel", {**GPT2, "num_labels": 1}),
    ("gpt2", "ForSequenceClassification", {**GPT2, "num_labels": 5}),
    ("gpt2", "ForTokenClassification", GPT2),
    ("gpt2", "ForQuestionAnswering", GPT2),
    ("gpt_neox", "ForCausalLM", DECODER),
    ("gpt_neox", "ForCausalLM", {**DECODER, "attention_bias": False, "tie_word_embeddings": True}),
    ("gpt_neox", "ForQuestionAnswering", {**DECODER, "num_attention_heads": 8}),
    ("gpt_neox", "ForTokenClassification", DECODER),
    ("opt", "ForCausalLM", OPT),
    ("opt", "ForCausalLM", {**OPT, "word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    ("opt", "ForCausalLM", {**OPT, "enable_bias": False, "layer_norm_elementwise_affine": False}),
    ("opt", "ForSequenceClassification", {**OPT, "_remove_final_layer_norm": True, "word_embed_proj_dim": 20}),
    ("opt", "Model", {**OPT, "tie_word_embeddings": False}),
    ("bloom", "ForCausalLM", BLOOM),
    ("bloom", "ForCausalLM", {**BLOOM, "tie_word_embeddings": False, "n_head": 2}),
    ("bloom", "ForTokenClassification", BLOOM),
    ("falcon", "ForCausalLM", FALCON),
    ("falcon", "ForCausalLM", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": True}),
    ("falcon", "ForCausalLM", {**FALCON, "multi_query": False, "parallel_attn": False, "ffn_hidden_size": 50}),
    ("falcon", "ForCausalLM", {**FALCON, "new_decoder_architecture": True, "num_ln_in_parallel_attn": 1}),
    ("falcon", "ForSequenceClassification", {**FALCON, "tie_word_embeddings": False}),
    ("bert", "Model", ENCODER),
    ("bert", "ForMaskedLM", ENCODER),
    ("bert", "ForMaskedLM", {**ENCODER, "tie_word_embeddings": False}),
    ("bert", "ForPreTraining", {**ENCODER, "type_vocab_size": 3}),
    ("bert", "ForNextSentencePrediction", ENCODER),
    ("bert", "LMHeadModel", {**ENCODER, "is_decoder": True, "add_cross_attention": True}),
    ("bert", "ForSequenceClassification", {**ENCODER, "num_labels": 7}),
    ("bert", "ForTokenClassification", ENCODER),
    ("bert", "ForMultipleChoice", ENCODER),
    ("roberta", "Model", ENCODER),
    ("roberta", "ForMaskedLM", ENCODER),
    ("roberta", "ForCausalLM", {**ENCODER, "is_decoder": True, "tie_word_embeddings": False}),
    ("roberta", "ForSequenceClassification", {**ENCODER, "num_labels": 3, "type_vocab_size": 1}),
    ("roberta", "ForQuestionAnswering", ENCODER),
    ("roberta", "ForMultipleChoice", ENCODER),
    ("deberta-v2", "Model", ENCODER),
    ("deberta-v2", "ForMaskedLM", {**ENCODER, "embedding_size": 20, "type_vocab_size": 2}),
    ("deberta-v2", "ForMaskedLM", {**ENCODER, "legacy": False, "attention_head_size": 8}),
    (
        "deberta-v2",
        "ForSequenceClassification",
        {
            **ENCODER,
            "relative_attention": True,
            "pos_att_type": "p2c|c2p",
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "conv_kernel_size": 3,
            "conv_groups": 2,
            "position_biased_input": False,
            "share_att_key": False,
        },
    ),
    (
        "deberta-v2",
        "ForTokenClassification",
        {**ENCODER, "relative_attention": True, "pos_att_type": ["p2c"], "max_relative_positions": 17},
    ),
    (
        "deberta-v2",
        "ForQuestionAnswering",
        {**ENCODER, "relative_attention": True, "share_att_key": True, "pos_att_type": ["p2c"]},
    ),
    ("deberta-v2", "ForMultipleChoice", ENCODER),
    ("t5", "ForConditionalGeneration", T5),
    ("t5", "ForConditionalGeneration", {**T5, "num_decoder_layers": 3, "tie_word_embeddings": False}),
    ("t5", "ForConditionalGeneration", {**T5, "feed_forward_proj": "gated-gelu", "num_heads": 5}),
    ("t5", "Model", T5),
    ("t5", "EncoderModel", T5),
    ("t5", "ForSequenceClassification", {**T5, "num_labels": 4}),
    ("t5", "ForTokenClassification", T5),
    ("t5", "ForQuestionAnswering", T5),
    ("mt5", "ForConditionalGeneration", T5),
    ("mt5", "ForConditionalGeneration", {**T5, "feed_forward_proj": "relu", "relative_attention_num_buckets": 9}),
    ("mt5", "EncoderModel", T5),
    ("whisper", "ForConditionalGeneration", WHISPER),
    ("whisper", "ForConditionalGeneration", {**WHISPER, "tie_word_embeddings": False, "num_mel_bins": 12}),
    ("whisper", "Model", WHISPER),
    ("whisper", "ForCausalLM", WHISPER),
    ("whisper", "ForAudioClassification", {**WHISPER, "use_weighted_layer_sum": True, "num_labels": 4}),
    ("vit", "Model", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}),
    ("vit", "Model", {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "pooler_output_size": 9}),
    (
        "vit",
        "ForImageClassification",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "qkv_bias": False,
            "image_size": (32, 48),
            "patch_size": 8,
            "num_labels": 10,
        },
    ),
    (
        "vit",
        "ForMaskedImageModeling",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_channels": 1},
    ),
    ("llama", "ForCausalLM", DECODER),
    ("llama", "ForCausalLM", {**DECODER, "num_key_value_heads": 1, "head_dim": 12, "tie_word_embeddings": True}),
    ("llama", "ForCausalLM", {**DECODER, "attention_bias": True, "mlp_bias": True, "num_key_value_heads": 2}),
    ("llama", "Model", DECODER),
    ("llama", "ForSequenceClassification", {**DECODER, "num_labels": 3}),
    ("llama", "ForTokenClassification", DECODER),
    ("llama", "ForQuestionAnswering", DECODER),
    ("mistral", "ForCausalLM", {**DECODER, "num_attention_heads": 8}),
    ("mistral", "ForCausalLM", {**DECODER, "num_key_value_heads": 2, "head_dim": 16}),
    ("mistral", "ForQuestionAnswering", {**DECODER, "num_attention_heads": 16, "tie_word_embeddings": True}),
    ("qwen2", "ForCausalLM", {**DECODER, "num_key_value_heads": 2}),
    ("qwen2", "ForCausalLM", {**DECODER, "num_key_value_heads": None, "tie_word_embeddings": True}),
    ("qwen2", "ForQuestionAnswering", {**DECODER, "num_key_value_heads": 4, "head_dim": 24}),
    ("qwen3", "ForCausalLM", {**DECODER, "num_key_value_heads": 2}),
    ("qwen3", "ForCausalLM", {**DECODER, "num_key_value_heads": 4, "head_dim": 20, "attention_bias": True}),
    ("qwen3", "ForTokenClassification", {**DECODER, "num_key_value_heads": 1, "tie_word_embeddings": True}),
    ("gemma", "ForCausalLM", {**DECODER, "num_key_value_heads": 1}),
    ("gemma", "ForCausalLM", {**DECODER, "num_key_value_heads": 4, "head_dim": 10, "attention_bias": True}),
    ("gemma", "ForSequenceClassification", {**DECODER, "num_key_value_heads": 2, "tie_word_embeddings": False}),
    ("gemma2", "ForCausalLM", {**DECODER, "num_key_value_heads": 2}),
    ("gemma2", "ForCausalLM", {**DECODER, "head_dim": 6, "tie_word_embeddings": False, "attention_bias": True}),
    ("gemma2", "ForTokenClassification", DECODER),
    ("phi", "ForCausalLM", DECODER),
    ("phi", "ForCausalLM", {**DECODER, "num_key_value_heads": 2, "qk_layernorm": True}),
    ("phi", "ForCausalLM", {**DECODER, "tie_word_embeddings": True}),
    ("phi", "ForTokenClassification", DECODER),
    ("phi3", "ForCausalLM", {**DECODER, "pad_token_id": 0}),
    ("phi3", "ForCausalLM", {**DECODER, "num_key_value_heads": 1, "tie_word_embeddings": True, "pad_token_id": 0}),
    ("phi3", "ForSequenceClassification", {**DECODER, "pad_token_id": 0}),
    ("mixtral", "ForCausalLM", {**DECODER, "num_key_value_heads": 2, "num_local_experts": 4}),
    ("mixtral", "ForCausalLM", {**DECODER, "num_key_value_heads": 4, "head_dim": 12, "num_local_experts": 3}),
    ("mixtral", "ForTokenClassification", {**DECODER, "num_key_value_heads": 1, "tie_word_embeddings": True}),
    ("deepseek_v3", "ForCausalLM", LATENT),
    ("deepseek_v3", "ForCausalLM", {**LATENT, "q_lora_rank": None, "n_shared_experts": 3, "attention_bias": True}),
    ("deepseek_v3", "ForCausalLM", {**LATENT, "first_k_dense_replace": 5, "tie_word_embeddings": True}),
    ("deepseek_v3", "ForSequenceClassification", LATENT),
]  # fmt: skip
IDS = [f"{family}-{task}-{index}" for index, (family, task, _) in enumerate(CASES)]

# the ends of names to adapt, beside the defaults: some linear maps and an embedding
NAMED = {
    "gpt2": ["c_proj", "wte"],
    "gpt_neox": ["dense", "dense_4h_to_h"],
    "opt": ["fc1", "out_proj", "embed_tokens"],
    "bloom": ["self_attention.dense", "word_embeddings"],
    "falcon": ["dense_h_to_4h"],
    "bert": ["dense", "word_embeddings"],
    "roberta": ["attention.output.dense", "key"],
    "deberta-v2": ["key_proj", "intermediate.dense"],
    "t5": ["wo", "relative_attention_bias", "0.SelfAttention.k"],
    "mt5": ["o", "shared"],
    "whisper": ["fc2", "embed_positions", "k_proj"],
    "vit": ["q_proj", "projection"],
    "phi": ["dense", "fc1"],
    "phi3": ["qkv_proj", "gate_up_proj"],
    "mixtral": ["o_proj", "w1", "w2", "w3", "gate"],
    "deepseek_v3": ["o_proj", "gate_proj", "up_proj", "kv_b_proj"],
}
GATED = ["k_proj", "down_proj", "layers.1.self_attn.o_proj"]


def test_every_family_has_cases() -> None:
    assert {family for family, _, _ in CASES} <= set(family_names())


def meta_model(family: str, task: str, fields: dict[str, Any]) -> Any:
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(family, **fields)
    kind = getattr(transformers, family_of(family).classes + task)
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        return kind(config)


def linear_maps(model: Any) -> dict[str, tuple[int, int]]:
    import torch
    from transformers.pytorch_utils import Conv1D

    maps = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            maps[name] = (module.out_features, module.in_features)
        elif isinstance(module, Conv1D):
            maps[name] = (module.weight.shape[1], module.weight.shape[0])
    return maps


def peft_count(model: Any, **options: Any) -> tuple[int, int]:
    import copy

    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(**options))
    return adapted.get_nb_trainable_parameters()


def our_count(spec: Any, **options: Any) -> tuple[int, int]:
    report = count_model(spec, **options)
    return report.trainable, report.total


TIED = {"tie_word_embeddings": True}
FEW = {"num_hidden_layers": 2}


@pytest.mark.peers
@pytest.mark.parametrize(("family", "fields"), [
    ("deepseek_v2", {**FEW, "mlp_bias": True}),
    ("kimi_linear", {**FEW, **TIED}),
    *(("llama4", {"text_config": {**FEW, **text}, "vision_config": FEW, **top}) for text, top in ((TIED, {}), ({}, TIED))),
    *(("mllama", {"text_config": {**FEW, "cross_attention_layers": [1], **text}, **top}) for text, top in ((TIED, {}), ({}, TIED))),
])  # fmt: skip
def test_a_field_that_a_family_reads_in_its_own_way(family: str, fields: dict[str, Any]) -> None:
    task = family_of(family).tasks[0]
    model = meta_model(family, task, fields)
    config = {**model.config.to_dict(), "architectures": [family_of(family).classes + task]}
    for shown in (
        config,
        {"model_type": family, **fields, "architectures": config["architectures"]},
    ):
        assert from_config(shown).total == sum(p.numel() for p in model.parameters())


DRAWN = twentieth(CASES)


@pytest.mark.peers
@pytest.mark.parametrize(
    ("family", "task", "fields"), DRAWN, ids=[IDS[CASES.index(case)] for case in DRAWN]
)
def test_same_as_transformers_and_peft(family: str, task: str, fields: dict[str, Any]) -> None:
    model = meta_model(family, task, fields)
    architecture = family_of(family).classes + task
    spec = from_config({"model_type": family, **fields, "architectures": [architecture]})
    assert spec.total == sum(p.numel() for p in model.parameters())
    # a saved config, which holds every field, says the same
    assert (
        from_config({**model.config.to_dict(), "architectures": [architecture]}).total == spec.total
    )
    ours = {module.name: module.shape for module in spec.modules if module.kind == "linear"}
    assert ours == linear_maps(model)

    assert our_count(spec, rank=3, targets="all-linear") == peft_count(
        model, r=3, target_modules="all-linear"
    )
    named = NAMED.get(family, GATED)
    assert our_count(spec, rank=4, targets=named) == peft_count(model, r=4, target_modules=named)
    defaults = default_targets(family)
    if defaults:
        # PEFT 0.21 loses the defaults of fused experts while it converts the config, so there they
        # are named
        asked = list(defaults) if fused_names(family) else None
        pattern = {rf"1\..*{defaults[0]}": 7, defaults[-1]: 2}
        assert our_count(spec, rank=5) == peft_count(model, r=5, target_modules=asked)
        assert our_count(spec, rank=5, rank_pattern=pattern) == peft_count(
            model, r=5, target_modules=asked, rank_pattern=pattern
        )


def random_fields(family: str, seed: int) -> dict[str, Any]:
    """A config of random small sizes, drawn as odd as the family allows."""
    import random

    draw = random.Random(f"{family} {seed}")
    kv_heads = draw.randint(1, 3)
    heads = kv_heads * draw.randint(1, 3)
    width = 2 * draw.randint(2, 8)  # rotary positions need an even width
    d = heads * width
    fields: dict[str, Any] = {
        "vocab_size": draw.randint(5, 300),
        "hidden_size": d,
        "intermediate_size": draw.randint(3, 90),
        "num_hidden_layers": draw.randint(1, 3),
        "num_attention_heads": heads,
        "tie_word_embeddings": draw.random() < 0.5,
        "pad_token_id": 0,
    }
    if family in (
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
        "gemma",
        "gemma2",
        "phi",
        "phi3",
        "mixtral",
    ):
        fields["num_key_value_heads"] = kv_heads
        if family not in ("phi", "phi3") and draw.random() < 0.5:
            fields["head_dim"] = 2 * draw.randint(2, 10)
    if family in ("llama", "qwen3", "gemma", "gemma2", "gpt_neox"):
        fields["attention_bias"] = draw.random() < 0.5
    if family in ("t5", "mt5"):
        gate = draw.choice(["relu", "gated-gelu"])
        own = {"d_kv": draw.randint(1, 9), "d_ff": draw.randint(3, 50), "feed_forward_proj": gate}
        fields = {**fields, **own, "d_model": d, "num_decoder_layers": draw.randint(1, 3)}
    if family == "whisper":
        fields = {
            **WHISPER,
            "d_model": 8 * draw.randint(1, 5),
            "decoder_layers": draw.randint(1, 3),
        }
    if family == "opt":
        fields |= {
            "ffn_dim": draw.randint(3, 50),
            "word_embed_proj_dim": draw.choice([d, draw.randint(3, 20)]),
        }
        fields |= {"do_layer_norm_before": draw.random() < 0.5, "enable_bias": draw.random() < 0.5}
    if family == "falcon":
        fields |= {"new_decoder_architecture": draw.random() < 0.5, "num_kv_heads": kv_heads}
        fields |= {"multi_query": draw.random() < 0.5, "parallel_attn": draw.random() < 0.5}
    if family == "mixtral":
        fields["num_local_experts"] = draw.randint(2, 5)
    if family == "deepseek_v3":
        fields = {
            **LATENT,
            "vocab_size": fields["vocab_size"],
            "n_shared_experts": draw.randint(1, 3),
        }
        fields |= {
            "kv_lora_rank": draw.randint(1, 9),
            "q_lora_rank": draw.choice([None, draw.randint(1, 9)]),
        }
        fields |= {"v_head_dim": draw.randint(1, 9), "first_k_dense_replace": draw.randint(0, 3)}
    return fields


@pytest.mark.peers
@pytest.mark.parametrize(
    ("seed", "family"), twentieth(product(range(3), sorted({family for family, _, _ in CASES})))
)
def test_random_configs(family: str, seed: int) -> None:
    fields = random_fields(family, seed)
    spec = from_config({"model_type": family, **fields})
    model = meta_model(family, family_of(family).tasks[0], fields)
    assert spec.total == sum(p.numel() for p in model.parameters())
    assert {m.name: m.shape for m in spec.modules if m.kind == "linear"} == linear_maps(model)
    assert our_count(spec, rank=2, targets="all-linear") == peft_count(
        model, r=2, target_modules="all-linear"
    )
    if default_targets(family):
        targets = list(default_targets(family))
        assert our_count(spec, rank=3) == peft_count(model, r=3, target_modules=targets)


TOWERS = {
    "text_config": {"model_type": "gemma4_text", "num_hidden_layers": 2},
    "vision_config": {"model_type": "gemma4_vision", "num_hidden_layers": 2},
    "audio_config": {"model_type": "gemma4_audio", "num_hidden_layers": 2},
}


@pytest.mark.parametrize("tower", ["vision", "audio"])
def test_a_tower_that_is_null_or_absent_is_not_counted(tower: str) -> None:
    both = from_config({"model_type": "gemma4", **TOWERS})
    absent = {key: value for key, value in TOWERS.items() if not key.startswith(tower)}
    without = from_config({"model_type": "gemma4", **absent})
    null = from_config({"model_type": "gemma4", **absent, f"{tower}_config": None})
    assert null.total == without.total < both.total
    assert [m for m in both.modules if f"{tower}_tower" in m.name or f"embed_{tower}" in m.name]
    assert not [m for m in null.modules if tower in m.name]


@pytest.mark.parametrize(
    ("family", "field", "entries"),
    [
        ("lfm2", "layer_types", ["conv", "hyena"]),
        ("nemotron_h", "layers_block_type", ["moe", "rwkv"]),
        ("nemotron_h", "hybrid_override_pattern", "M-X*"),
        ("deepseek_v4", "compress_ratios", [0, 4, 64]),
        ("glm_moe_dsa", "indexer_types", ["full", "half"]),
        ("mimo_v2_flash", "mlp_layer_types", ["dense", "moe"]),
    ],
)
def test_an_entry_that_the_data_do_not_name_is_an_error(
    family: str, field: str, entries: Any
) -> None:
    with pytest.raises(ValueError, match=f"{field} must be one of .*, got"):
        from_config({"model_type": family, "num_hidden_layers": len(entries), field: entries})


@pytest.mark.parametrize(
    ("family", "older", "newer"),
    [
        (
            "nemotron_h",
            {"hybrid_override_pattern": "ME*-M"},
            {"layers_block_type": ["linear_attention", "moe", "full_attention", "mlp", "linear_attention"]},
        ),
        (
            "deepseek_v4",
            {"num_hidden_layers": 3, "compress_ratios": [128, 4, 0]},
            {
                "num_hidden_layers": 3,
                "layer_types": [
                    "heavily_compressed_attention", "compressed_sparse_attention", "sliding_attention",
                ],
            },
        ),
        (
            "glm_moe_dsa",
            {"num_hidden_layers": 4, "index_topk_pattern": "FSSF"},
            {"num_hidden_layers": 4, "indexer_types": ["full", "shared", "shared", "full"]},
        ),
        (
            "lfm2",
            {"num_hidden_layers": 3, "full_attn_idxs": [1], "block_ff_dim": 600},
            {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"], "intermediate_size": 600},
        ),
    ],
)  # fmt: skip
def test_older_spellings_mean_the_same(
    family: str, older: dict[str, Any], newer: dict[str, Any]
) -> None:
    first, second = (from_config({"model_type": family, **fields}) for fields in (older, newer))
    assert first.groups == second.groups
    assert first.total != from_config({"model_type": family, "num_hidden_layers": 1}).total


def test_a_type_may_have_class_names_from_elsewhere() -> None:
    few = {"text_config": {"num_hidden_layers": 1}, "vision_config": {"num_hidden_layers": 1}}
    names = ("Kimi_K25ForConditionalGeneration", "KimiK25ForConditionalGeneration")
    first, second = (
        from_config({"model_type": "kimi_k25", "architectures": [name], **few}) for name in names
    )
    assert first.groups == second.groups
    with pytest.raises(ValueError, match="architecture must be one of"):
        from_config({"model_type": "kimi_k25", "architectures": ["KimiK3Model"], **few})


@pytest.mark.parametrize(
    ("family", "inner"),
    [("qwen3_5", "qwen3_5_text"), ("qwen3_5_moe", "qwen3_5_moe_text"), ("llama4", "llama4_text")],
)
def test_the_text_model_of_a_composite_type_is_that_of_its_text_config(
    family: str, inner: str
) -> None:
    text = {"num_hidden_layers": 2, "vocab_size": 99, "hidden_size": 64}
    name = family_of(family).classes + "ForCausalLM"
    config = {"model_type": family, "text_config": text, "vision_config": None}
    composite = from_config({**config, "architectures": [name]})
    alone = from_config({"model_type": inner, **text})
    assert {m.name: m.shape for m in composite.modules} == {m.name: m.shape for m in alone.modules}


def test_a_number_is_taken_whole() -> None:
    spec = from_config({
        "model_type": "lfm2", "num_hidden_layers": 1, "intermediate_size": 1000,
        "block_ffn_dim_multiplier": 1.3, "block_multiple_of": 16,
    })  # fmt: skip
    (w1,) = (m for m in spec.modules if m.name.endswith("w1"))
    assert w1.shape[0] == -(-int(1.3 * (2 * 1000 // 3)) // 16) * 16
    with pytest.raises(TypeError, match="block_ffn_dim_multiplier must be"):
        from_config({"model_type": "lfm2", "block_ffn_dim_multiplier": "wide"})


def test_padded_numbers_of_layers_are_read():
    """transformers saves "05" for layer 5 of more than ten."""
    base = {
        "model_type": "gemma4_text", "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 12, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "hidden_size_per_layer_input": 0,
    }  # fmt: skip
    one, two = (
        from_config({**base, "per_layer_config": {key: {"head_dim": 12}, "11": {"head_dim": 12}}})
        for key in ("5", "05")
    )
    assert one.total == two.total == 100_112


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl"])
def test_the_text_model_may_say_that_the_head_is_tied(kind):
    text = {
        "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2,
    }  # fmt: skip
    vision = {"depth": 1, "embed_dim": 24, "num_heads": 4, "hidden_size": 32}
    tied, own = (
        from_config({
            "model_type": kind, "vision_config": vision,
            "text_config": {**text, "tie_word_embeddings": value},
        }).total
        for value in (True, False)
    )  # fmt: skip
    assert own - tied == 97 * 32
