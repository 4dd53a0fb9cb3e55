"""Configs of newer families: a usual one and odd ones each, small enough to build."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
}
GROUPED = {**SMALL, "num_key_value_heads": 2}
ROUTED = {**GROUPED, "moe_intermediate_size": 12, "num_experts": 4, "num_experts_per_tok": 2}
LOCAL = {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}
DELTA = {
    **ROUTED,
    "num_hidden_layers": 4,
    "head_dim": 8,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 6,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "shared_expert_intermediate_size": 20,
}
KINDS = ["linear_attention", "full_attention", "linear_attention", "linear_attention"]
LATENT = {
    **LOCAL,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "q_lora_rank": 12,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4,
    "v_head_dim": 7,
}
VISION = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 28,
    "patch_size": 14,
}
TEXT = {**SMALL, "num_key_value_heads": 2}
TURNED = {
    **TEXT,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
}
TOWER = {
    "depth": 2,
    "num_heads": 3,
    "hidden_size": 24,
    "intermediate_size": 40,
    "out_hidden_size": 32,
}
BART = {
    "vocab_size": 97,
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 36,
    "max_position_embeddings": 20,
}
ENCODER = {**SMALL, "max_position_embeddings": 40}


def both(text: dict[str, Any], vision: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A config of a vision tower and a language model."""
    return {"text_config": text, "vision_config": vision, **more}


# (family, how the class name ends, fields)
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("smollm3", "ForCausalLM", GROUPED),
    ("smollm3", "ForQuestionAnswering", {**GROUPED, "attention_bias": True, "mlp_bias": True}),
    ("granite", "ForCausalLM", {**GROUPED, "mlp_bias": True}),
    ("olmo", "ForCausalLM", {**GROUPED, "attention_bias": True}),
    ("olmo2", "ForCausalLM", {**GROUPED, "tie_word_embeddings": True}),
    ("olmo2", "ForSequenceClassification", {**SMALL, "attention_bias": True}),
    ("olmo3", "ForCausalLM", {**GROUPED, "num_hidden_layers": 5}),
    ("ministral", "ForCausalLM", {**GROUPED, "head_dim": 12}),
    ("ministral3", "ForCausalLM", {**GROUPED, "head_dim": 16}),
    ("glm", "ForCausalLM", {**GROUPED, "head_dim": 16}),
    ("glm4", "ForCausalLM", {**GROUPED, "head_dim": 12, "attention_bias": False}),
    ("glm4", "ForSequenceClassification", {**GROUPED, "head_dim": 8, "tie_word_embeddings": True}),
    ("cohere", "ForCausalLM", {**GROUPED, "use_qk_norm": True}),
    ("cohere2", "ForCausalLM", {**GROUPED, "attention_bias": True, "tie_word_embeddings": False}),
    ("starcoder2", "ForCausalLM", {**GROUPED, "use_bias": False}),
    ("starcoder2", "ForTokenClassification", GROUPED),
    ("stablelm", "ForCausalLM", {**GROUPED, "use_qkv_bias": True, "qk_layernorm": True}),
    ("stablelm", "ForCausalLM", {**GROUPED, "use_parallel_residual": True}),
    ("ernie4_5", "ForCausalLM", {**GROUPED, "use_bias": True, "head_dim": 12}),
    ("seed_oss", "ForCausalLM", {**GROUPED, "head_dim": 12, "attention_out_bias": True}),
    ("arcee", "ForCausalLM", {**GROUPED, "mlp_bias": True, "head_dim": 12}),
    ("exaone4", "ForCausalLM", {**GROUPED, "num_hidden_layers": 3}),
    ("apertus", "ForCausalLM", {**GROUPED, "attention_bias": True}),
    ("apertus", "ForTokenClassification", GROUPED),
    ("hunyuan_v1_dense", "ForCausalLM", {**GROUPED, "head_dim": 12}),
    ("hunyuan_v1_dense", "ForSequenceClassification", {**GROUPED, "head_dim": 8, "attention_bias": True}),
    ("gemma3_text", "ForCausalLM", {**GROUPED, "head_dim": 12}),
    ("gemma3_text", "ForCausalLM", {**GROUPED, "attention_bias": True, "tie_word_embeddings": False}),
    ("gemma3n_text", "ForCausalLM", {
        **GROUPED, "num_hidden_layers": 6, "num_kv_shared_layers": 2, "vocab_size_per_layer_input": 50,
        "hidden_size_per_layer_input": 6, "laurel_rank": 5, "altup_num_inputs": 3, "head_dim": 8,
        "layer_types": ["sliding_attention", "full_attention"] * 3, "activation_sparsity_pattern": [0.0] * 6,
        "intermediate_size": [48, 48, 40, 40, 48, 48],
    }),
    ("gemma4_text", "ForCausalLM", {
        **GROUPED, "num_hidden_layers": 7, "vocab_size_per_layer_input": 50, "hidden_size_per_layer_input": 6,
        "head_dim": 8, "global_head_dim": 12,
    }),
    ("gemma4_text", "ForCausalLM", {
        **GROUPED, "num_hidden_layers": 4, "hidden_size_per_layer_input": 0, "head_dim": 8,
        "global_head_dim": 16, "num_global_key_value_heads": 1, "attention_k_eq_v": True,
        "enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 12,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    }),
    ("gemma4_text", "ForCausalLM", {
        **GROUPED, "num_hidden_layers": 6, "num_kv_shared_layers": 2, "use_double_wide_mlp": True,
        "vocab_size_per_layer_input": 50, "hidden_size_per_layer_input": 6, "head_dim": 8,
        "layer_types": ["sliding_attention", "full_attention"] * 3,
    }),
    ("qwen2_moe", "ForCausalLM", {**ROUTED, "shared_expert_intermediate_size": 20}),
    ("qwen2_moe", "ForCausalLM", {
        **ROUTED, "num_hidden_layers": 5, "mlp_only_layers": [1], "decoder_sparse_step": 2, "qkv_bias": False,
        "shared_expert_intermediate_size": 20,
    }),
    ("qwen3_moe", "ForCausalLM", {**ROUTED, "head_dim": 12}),
    ("qwen3_moe", "ForSequenceClassification", {**ROUTED, "num_hidden_layers": 4, "decoder_sparse_step": 2}),
    ("olmoe", "ForCausalLM", {**ROUTED, "attention_bias": True}),
    ("qwen3_next", "ForCausalLM", DELTA),
    ("qwen3_next", "ForCausalLM", {**DELTA, "layer_types": KINDS, "mlp_only_layers": [0], "attention_bias": True}),
    ("qwen3_5_text", "ForCausalLM", DELTA),
    ("qwen3_5_text", "ForCausalLM", {**DELTA, "layer_types": KINDS, "tie_word_embeddings": True}),
    ("qwen3_5_moe_text", "ForCausalLM", {**DELTA, "layer_types": KINDS}),
    ("glm4_moe", "ForCausalLM", {
        **ROUTED, "n_routed_experts": 4, "n_shared_experts": 2, "num_hidden_layers": 3,
        "first_k_dense_replace": 2, "use_qk_norm": True, "attention_bias": True, "head_dim": 12,
    }),
    ("phimoe", "ForCausalLM", {**LOCAL, "lm_head_bias": True, "attention_bias": True}),
    ("granitemoe", "ForCausalLM", LOCAL),
    ("granitemoeshared", "ForCausalLM", {**LOCAL, "shared_intermediate_size": 20, "attention_bias": True}),
    ("granitemoehybrid", "ForCausalLM", {
        **LOCAL, "num_hidden_layers": 4, "layer_types": ["mamba", "attention", "mamba", "mamba"],
        "mamba_n_heads": 4, "mamba_d_state": 8, "mamba_n_groups": 2, "shared_intermediate_size": 20,
    }),
    ("granitemoehybrid", "ForCausalLM", {
        **GROUPED, "num_local_experts": 0, "num_experts_per_tok": 0, "layer_types": ["attention", "mamba"],
        "mamba_n_heads": 4, "mamba_proj_bias": True, "mamba_conv_bias": False, "tie_word_embeddings": True,
    }),
    ("deepseek_v2", "ForCausalLM", {**LATENT, "first_k_dense_replace": 1}),
    ("deepseek_v2", "ForCausalLM", {**LATENT, "q_lora_rank": None, "n_shared_experts": 1}),
    ("gpt_oss", "ForCausalLM", {**LOCAL, "head_dim": 12}),
    ("gpt_oss", "ForCausalLM", {**LOCAL, "attention_bias": False, "head_dim": 8, "tie_word_embeddings": True}),
    ("llama4_text", "ForCausalLM", {**LOCAL, "head_dim": 12, "intermediate_size_mlp": 50}),
    ("llama4_text", "ForCausalLM", {
        **LOCAL, "num_hidden_layers": 4, "interleave_moe_layer_step": 2, "attention_bias": True, "head_dim": 8,
    }),
    ("gemma3", "ForConditionalGeneration", both({**TEXT, "head_dim": 8}, VISION)),
    ("gemma3", "ForSequenceClassification", both(TEXT, {**VISION, "vision_use_head": False}, num_labels=3)),
    ("llava", "ForConditionalGeneration", both(
        {**TEXT, "model_type": "llama"}, {**VISION, "model_type": "clip_vision_model"},
    )),
    ("llava", "ForConditionalGeneration", both(
        {**TEXT, "model_type": "qwen2"}, {**VISION, "model_type": "siglip_vision_model"},
        multimodal_projector_bias=False, tie_word_embeddings=True,
    )),
    ("llava_next", "ForConditionalGeneration", both(
        {**TEXT, "model_type": "mistral", "head_dim": 8}, {**VISION, "model_type": "clip_vision_model"},
    )),
    ("paligemma", "ForConditionalGeneration", both(
        {**TEXT, "model_type": "gemma2", "head_dim": 8},
        {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False}, projection_dim=32,
    )),
    ("mistral3", "ForConditionalGeneration", both(
        {**TEXT, "model_type": "mistral", "head_dim": 8}, {**VISION, "model_type": "pixtral"},
        spatial_merge_size=3, multimodal_projector_bias=True,
    )),
    ("qwen2_vl", "ForConditionalGeneration", both(
        TURNED, {"depth": 2, "embed_dim": 24, "num_heads": 3, "mlp_ratio": 2, "hidden_size": 32},
    )),
    ("qwen2_5_vl", "ForConditionalGeneration", both(TURNED, {**TOWER, "model_type": "qwen2_5_vl"})),
    ("qwen3_vl", "ForConditionalGeneration", both(
        {**TEXT, "head_dim": 12}, {**TOWER, "deepstack_visual_indexes": [0], "num_position_embeddings": 16},
    )),
    ("qwen3_5", "ForConditionalGeneration", both(DELTA, {**TOWER, "num_position_embeddings": 16})),
    ("qwen3_5_moe", "ForConditionalGeneration", both(DELTA, {**TOWER, "num_position_embeddings": 16})),
    ("mllama", "ForConditionalGeneration", both(
        {**TEXT, "num_hidden_layers": 4, "cross_attention_layers": [1, 2]},
        {
            "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_global_layers": 2,
            "attention_heads": 3, "image_size": 28, "patch_size": 14, "vision_output_dim": 48,
            "intermediate_layers_indices": [1],
        },
    )),
    ("clip", "Model", both({**TEXT, "max_position_embeddings": 9}, VISION, projection_dim=10)),
    ("siglip", "Model", both({**TEXT, "projection_size": 24}, VISION)),
    ("dinov2", "Model", {**VISION, "mlp_ratio": 3}),
    ("dinov2", "ForImageClassification", {**VISION, "use_swiglu_ffn": True, "qkv_bias": False, "num_labels": 5}),
    ("modernbert", "ForMaskedLM", ENCODER),
    ("modernbert", "ForSequenceClassification", {
        **ENCODER, "num_labels": 3, "norm_bias": True, "attention_bias": True, "mlp_bias": True,
    }),
    ("distilbert", "ForMaskedLM", {"dim": 32, "n_heads": 4, "n_layers": 2, "hidden_dim": 40, "vocab_size": 97}),
    ("distilbert", "ForSequenceClassification", {"dim": 24, "n_heads": 4, "n_layers": 3, "num_labels": 5}),
    ("albert", "ForMaskedLM", {**ENCODER, "embedding_size": 12, "num_hidden_groups": 2, "inner_group_num": 3}),
    ("albert", "ForSequenceClassification", {**ENCODER, "num_labels": 3, "type_vocab_size": 3}),
    ("electra", "ForMaskedLM", {**ENCODER, "embedding_size": 12}),
    ("electra", "ForPreTraining", {**ENCODER, "embedding_size": 32}),
    ("electra", "ForSequenceClassification", {**ENCODER, "num_labels": 3}),
    ("xlm-roberta", "ForMaskedLM", ENCODER),
    ("xlm-roberta", "ForSequenceClassification", {**ENCODER, "num_labels": 3}),
    ("bart", "ForConditionalGeneration", BART),
    ("bart", "ForSequenceClassification", {**BART, "num_labels": 5}),
    ("bart", "ForCausalLM", {**BART, "tie_word_embeddings": False}),
    ("mbart", "ForConditionalGeneration", BART),
]  # fmt: skip
