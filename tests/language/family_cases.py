"""Tiny models of each family that `language` runs, with odd sizes and settings; and of each kind of
rotary positions.
"""

import numpy as np

TOKENS = 29
SIZE = {
    "vocab_size": 37,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 3.0, "original_max_position_embeddings": 16}
YARN = {"factor": 4.0, "original_max_position_embeddings": 16}
GPT2 = {
    "n_embd": 24,
    "n_layer": 3,
    "n_head": 6,
    "n_inner": 40,
    "n_positions": 64,
    "tie_word_embeddings": True,
}
EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "head_dim": 8}
KINDS = ["sliding_attention", "full_attention", "sliding_attention"]


def rope(kind, **settings):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 500.0, **settings}}


def each(sliding, full):
    """Parameters for each kind of layer."""
    return {"rope_parameters": {"sliding_attention": sliding, "full_attention": full}}


DEFAULT = {"rope_type": "default", "rope_theta": 300.0}
LONG = {"short_factor": [1.0, 1.5, 2.0], "long_factor": [2.0, 3.0, 5.0], "rope_type": "longrope"}

#: (family, what is special, fields)
CASES = [
    ("llama", "tied", {"tie_word_embeddings": True}),
    ("llama", "biases", {"attention_bias": True, "mlp_bias": True, "head_dim": 10}),
    ("llama", "one head", {"num_attention_heads": 1, "num_key_value_heads": 1}),
    ("llama", "linear", rope("linear", factor=3.0)),
    ("llama", "dynamic", {**rope("dynamic", factor=2.0), "max_position_embeddings": 11}),
    ("llama", "llama3", rope("llama3", factor=4.0, **LLAMA3)),
    ("llama", "yarn", {**rope("yarn", **YARN), "head_dim": 16}),
    ("mistral", "windows", {"sliding_window": 7, "head_dim": 6}),
    ("mistral", "all", {"sliding_window": None}),
    ("qwen2", "tied", {"tie_word_embeddings": True}),
    ("qwen2", "windows", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    ("qwen3", "", {"head_dim": 8}),
    ("smollm3", "", {"no_rope_layer_interval": 2}),
    (
        "smollm3",
        "windows",
        {"no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": 4},
    ),
    ("gemma", "", {"head_dim": 12, "hidden_act": "gelu_pytorch_tanh"}),
    ("gemma2", "", {"head_dim": 12, "sliding_window": 6, "query_pre_attn_scalar": 10}),
    (
        "gemma2",
        "no caps",
        {
            "head_dim": 8,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "layer_types": KINDS,
        },
    ),
    ("gemma3_text", "", {"head_dim": 12, "sliding_window": 6, "sliding_window_pattern": 2}),
    (
        "gemma3_text",
        "caps and angles",
        {
            **each(DEFAULT, {"rope_type": "linear", "factor": 2.0, "rope_theta": 900.0}),
            **{
                "head_dim": 8,
                "sliding_window": 5,
                "layer_types": KINDS,
                "final_logit_softcapping": 3.0,
            },
            "attn_logit_softcapping": 2.0,
        },
    ),
    ("phi3", "", {"head_dim": 4, "sliding_window": 9}),
    (
        "phi3",
        "longrope",
        {
            "rope_parameters": {**LONG, "rope_theta": 500.0, "partial_rotary_factor": 0.75},
            "hidden_size": 48,
            "original_max_position_embeddings": 16,
        },
    ),
    (
        "phi3",
        "longrope, within",
        {
            "rope_parameters": {**LONG, "rope_theta": 500.0, "partial_rotary_factor": 0.75},
            "hidden_size": 48,
            "original_max_position_embeddings": 50,
        },
    ),
    ("olmo2", "", {}),
    ("olmo3", "", {"sliding_window": 6, "num_hidden_layers": 4}),
    (
        "olmo3",
        "yarn",
        {
            **each(DEFAULT, {"rope_type": "yarn", "rope_theta": 300.0, **YARN}),
            "layer_types": KINDS,
            "sliding_window": 5,
        },
    ),
    (
        "granite",
        "",
        {
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.3,
            "attention_multiplier": 0.2,
            "logits_scaling": 2.0,
            "attention_bias": True,
        },
    ),
    ("starcoder2", "", {"sliding_window": 8}),
    ("stablelm", "", {"use_qkv_bias": True, "partial_rotary_factor": 0.5}),
    (
        "stablelm",
        "parallel",
        {
            "use_parallel_residual": True,
            "qk_layernorm": True,
            "head_dim": 4,
            "partial_rotary_factor": 1.0,
        },
    ),
    ("cohere", "", {"use_qk_norm": True}),
    ("cohere", "plain", {"logit_scale": 0.3, "attention_bias": True}),
    ("glm", "", {"head_dim": 8}),
    ("glm4", "", {"head_dim": 12, "partial_rotary_factor": 0.5}),
    ("gpt2", "", GPT2),
    (
        "gpt2",
        "scales",
        {**GPT2, "scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True},
    ),
    ("gpt_neox", "", {"hidden_size": 48}),
    (
        "gpt_neox",
        "one after the other",
        {"use_parallel_residual": False, "rotary_pct": 1.0, "attention_bias": False},
    ),
    ("mixtral", "", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    ("mixtral", "windows", {"num_local_experts": 3, "num_experts_per_tok": 1, "sliding_window": 6}),
    (
        "qwen2_moe",
        "",
        {**EXPERTS, "head_dim": 4, "shared_expert_intermediate_size": 20, "mlp_only_layers": [1]},
    ),
    (
        "qwen2_moe",
        "windows",
        {
            **EXPERTS,
            "head_dim": 4,
            "shared_expert_intermediate_size": 20,
            "norm_topk_prob": True,
            **{"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2},
        },
    ),
    ("qwen3_moe", "", {**EXPERTS, "norm_topk_prob": True, "decoder_sparse_step": 2}),
    ("qwen3_moe", "windows", {**EXPERTS, "use_sliding_window": True, "sliding_window": 5}),
    ("exaone4", "", {"sliding_window": 6, "sliding_window_pattern": 2}),
    ("exaone4", "all", {"sliding_window": None, "layer_types": ["full_attention"] * 3}),
    ("seed_oss", "", {"head_dim": 8, "attention_out_bias": True}),
    ("arcee", "", {"mlp_bias": True}),
    ("apertus", "", {}),
    ("ernie4_5", "", {"head_dim": 8, "use_bias": True}),
    ("hunyuan_v1_dense", "", {"head_dim": 8}),
    ("hunyuan_v1_dense", "alpha", {**rope("dynamic", alpha=50.0, factor=1.0), "head_dim": 8}),
]


def data(seed=1):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, SIZE["vocab_size"], (2, TOKENS))
    labels = np.where(
        rng.random(tokens.shape) < 0.2, -100, rng.integers(0, SIZE["vocab_size"], tokens.shape)
    )
    return tokens, labels


def torch_loss(model, tokens, labels):
    import torch

    logits = model(torch.tensor(tokens)).logits
    return torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), torch.tensor(labels).ravel()
    )
