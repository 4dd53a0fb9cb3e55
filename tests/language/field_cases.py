"""Fields of the configs of families that `language` runs: the values of each, alone and in pairs.

A fact may be spelt in several ways, old and new: every pair of values of fields that stand for one
fact is a case, as every value of a field is. Null and a field that is missing are values too.
"""

import copy
import itertools

from tests.language import family_cases

ABSENT = "absent"
KINDS = ["sliding_attention", "full_attention", "sliding_attention"]
LLAMA3 = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0}
LONG = {"short_factor": [1.0, 1.5, 2.0, 1.0], "long_factor": [2.0, 3.0, 5.0, 7.0]}
ORIGINAL = {"original_max_position_embeddings": 16}
YARN = {"rope_type": "yarn", "factor": 4.0, **ORIGINAL}
#: Parameters of rotary positions, under either name.
ROPE = [
    None,
    {},
    {"rope_type": "default"},
    {"rope_theta": 700.0},
    {"rope_type": "default", "rope_theta": 300.0, "partial_rotary_factor": 0.5},
    {"type": "linear", "factor": 2.0},
    {"rope_type": "linear", "factor": 3.0, "rope_theta": 500.0},
    {"rope_type": "linear", "type": "dynamic", "factor": 3.0},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 3.0, "rope_theta": 500.0, **ORIGINAL},
    {"rope_type": "llama3", **LLAMA3, **ORIGINAL},
    {"rope_type": "llama3", **LLAMA3, "rope_theta": 500.0},
    YARN,
    {**YARN, "rope_theta": 500.0, "beta_fast": 8.0, "beta_slow": 2.0},
    {**YARN, "attention_factor": 1.3, "mscale": 2.0, "mscale_all_dim": 0.5},
    {**YARN, "mscale": 2.0, "mscale_all_dim": 0.5},
    {**YARN, "mscale": 2.0},
    {**YARN, "mscale": 1.0, "mscale_all_dim": 0},
    {**YARN, "truncate": False, "rope_theta": 50.0},
    {**YARN, "factor": None, "beta_fast": None, "rope_theta": 50.0},
    {"type": "yarn", "factor": 4.0},
    {"rope_type": "longrope", **LONG, **ORIGINAL},
    {"rope_type": "longrope", **LONG, "factor": 3.0, "rope_theta": 500.0},
    {"type": "su", **LONG, **ORIGINAL},
    {"rope_type": "linear", "factor": 3.0, "unknown": 1.0},
    {
        "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
        "full_attention": {"rope_type": "linear", "factor": 2.0},
    },
    {"full_attention": {"type": "linear", "factor": 2.0}, "sliding_attention": None},
    {"full_attention": {**YARN, "truncate": False, "rope_theta": 50.0}},
    {"sliding_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 300.0}},
]
ACTIVATIONS = [
    *("silu", "swish", "gelu", "gelu_new", "gelu_pytorch_tanh"),
    *("relu2", "relu", "quick_gelu", "xielu", "tanh"),
]
SWITCH = [False, True]
FACTOR = [0.3, 1.0, 2.5]
WIDTH = [4, 8, 12]
COUNT = [1, 2, 3, 6]
RATE = [0.0, 0.25]
TOKEN = [None, 0, 3]
#: Values of each field: those of some config class, and spellings that only some other class has.
VALUES = {
    **dict.fromkeys(("rope_parameters", "rope_scaling"), ROPE),
    **dict.fromkeys(("hidden_act", "hidden_activation", "activation_function"), ACTIVATIONS),
    **{key: [50.0, 20000] for key in ("rope_theta", "rotary_emb_base", "rope_local_base_freq")},
    **{key: [0.25, 0.5, 1.0] for key in ("partial_rotary_factor", "rotary_pct")},
    **{key: [11, 32, 100] for key in ("max_position_embeddings", "n_positions")},
    "original_max_position_embeddings": [8, 16, 40],
    **{key: [24, 48] for key in ("hidden_size", "n_embd")},
    **{key: [2, 6, 12] for key in ("num_attention_heads", "n_head")},
    **{key: [1, 3, 4] for key in ("num_hidden_layers", "n_layer")},
    **{key: [None, 20, 40] for key in ("intermediate_size", "n_inner")},
    "num_key_value_heads": [None, *COUNT],
    "head_dim": [None, ABSENT, 6, *WIDTH],
    "vocab_size": [37, 41],
    "layer_types": [
        *(None, KINDS, ["full_attention"] * 3, ["sliding_attention"] * 3),
        ["full_attention", "full_attention", "sliding_attention"],
    ],
    "sliding_window": [None, 1, 5, 40],
    "sliding_window_pattern": [1, 2, 3],
    "use_sliding_window": SWITCH,
    "max_window_layers": [0, 1, 2, 28],
    "no_rope_layers": [None, [1, 0, 1], [0, 0, 0], [1, 1, 1]],
    "no_rope_layer_interval": [1, 2, 3],
    "use_bidirectional_attention": [None, *SWITCH],
    **dict.fromkeys(("attention_bias", "mlp_bias", "qkv_bias", "use_bias"), SWITCH),
    **dict.fromkeys(("use_qkv_bias", "attention_out_bias"), SWITCH),
    **dict.fromkeys(("use_parallel_residual", "qk_layernorm", "use_qk_norm"), SWITCH),
    **dict.fromkeys(("scale_attn_weights", "scale_attn_by_inverse_layer_idx"), SWITCH),
    "tie_word_embeddings": SWITCH,
    **{key: [1e-06, 0.1] for key in ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon")},
    "norm_epsilon": [1e-6, 0.1],
    **{key: [None, 2.0, 30] for key in ("attn_logit_softcapping", "final_logit_softcapping")},
    "query_pre_attn_scalar": [3, 200],
    **dict.fromkeys(("embedding_multiplier", "residual_multiplier", "logit_scale"), FACTOR),
    **dict.fromkeys(("attention_multiplier", "logits_scaling"), FACTOR),
    **{key: [3, 5] for key in ("num_experts", "num_local_experts")},
    "num_experts_per_tok": [1, 2, 3],
    **{key: [10, 12] for key in ("moe_intermediate_size", "shared_expert_intermediate_size")},
    "norm_topk_prob": SWITCH,
    "decoder_sparse_step": [1, 2, 3],
    "mlp_only_layers": [None, [], [1], [0, 2]],
    # What does not change how a text is read.
    "router_jitter_noise": [0.0, 0.2],
    "output_router_logits": SWITCH,
    "router_aux_loss_coef": RATE,
    **dict.fromkeys(("attention_dropout", "attn_pdrop", "classifier_dropout", "embd_pdrop"), RATE),
    **dict.fromkeys(("embedding_dropout", "hidden_dropout", "resid_pdrop"), RATE),
    **dict.fromkeys(("residual_dropout", "summary_first_dropout"), RATE),
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id", "eod_token_id"), TOKEN),
    "initializer_range": [0.02, 0.5],
    "pretraining_tp": [1],
    **dict.fromkeys(("use_cache", "reorder_and_upcast_attn", "is_decoder"), SWITCH),
    **dict.fromkeys(("add_cross_attention", "output_hidden_states"), SWITCH),
    "summary_activation": [None, "tanh"],
    "summary_type": ["last", "cls_index"],
    **dict.fromkeys(("summary_proj_to_labels", "summary_use_proj"), SWITCH),
    "chunk_size_feed_forward": [0, 5],
    "dtype": [None, "float32"],
    "transformers_version": ["4.40.0", "5.0.0"],
}
#: Of these, what they are called or who wrote them.
NOT_READ = {
    *("architectures", "id2label", "label2id", "problem_type"),
    *("is_encoder_decoder", "return_dict"),
}
#: Spellings of one fact, and what decides it with them.
FACTS = [
    ["rope_parameters", "rope_scaling"],
    ["rope_parameters", "rope_theta", "rotary_emb_base", "rope_local_base_freq"],
    ["rope_scaling", "rope_theta", "rotary_emb_base", "rope_local_base_freq"],
    ["rope_parameters", "partial_rotary_factor", "rotary_pct"],
    ["rope_scaling", "partial_rotary_factor", "rotary_pct"],
    ["rope_parameters", "max_position_embeddings", "original_max_position_embeddings"],
    ["rope_scaling", "max_position_embeddings", "original_max_position_embeddings"],
    ["rope_parameters", "layer_types"],
    ["rope_scaling", "layer_types"],
    ["rope_parameters", "head_dim"],
    ["hidden_act", "hidden_activation", "activation_function"],
    [
        *("use_sliding_window", "sliding_window", "sliding_window_pattern", "layer_types"),
        *("max_window_layers", "no_rope_layers", "no_rope_layer_interval", "num_hidden_layers"),
        *("use_bidirectional_attention", "n_layer"),
    ],
    ["hidden_size", "n_embd", "head_dim", "num_attention_heads", "n_head", "num_key_value_heads"],
    ["intermediate_size", "n_inner"],
    ["max_position_embeddings", "n_positions"],
    ["attention_bias", "mlp_bias", "qkv_bias", "use_bias", "use_qkv_bias", "attention_out_bias"],
    ["num_experts", "num_local_experts", "num_experts_per_tok"],
    ["decoder_sparse_step", "mlp_only_layers", "num_hidden_layers"],
    ["query_pre_attn_scalar", "head_dim", "attention_multiplier"],
    ["use_parallel_residual", "qk_layernorm", "use_qk_norm"],
]
#: Spellings that any family may find in a config, though its class has no such field.
ANYWHERE = {
    *("rope_scaling", "rope_theta", "partial_rotary_factor", "rotary_pct", "rotary_emb_base"),
    *("rope_local_base_freq", "original_max_position_embeddings", "sliding_window_pattern"),
    *("head_dim", "layer_types", "hidden_act", "hidden_activation", "sliding_window"),
    *("use_sliding_window", "num_local_experts", "num_experts", "attention_bias", "mlp_bias"),
}
SIZE = {**family_cases.SIZE, "hidden_size": 48}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 12}
#: What makes a config small where the family calls it otherwise.
SMALL = {
    "gpt2": {"n_embd": 48, "n_layer": 3, "n_head": 6, "n_inner": 40, "n_positions": 64},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {**EXPERTS, "num_experts": 5, "shared_expert_intermediate_size": 20},
    "qwen3_moe": {**EXPERTS, "num_experts": 5},
    **{key: {"partial_rotary_factor": 0.5} for key in ("stablelm", "glm", "glm4")},
    "gpt_neox": {"rotary_pct": 0.5},
}
#: Families whose heads have a width of their own.
WIDE = {
    *("gemma", "gemma2", "gemma3_text", "glm", "glm4", "ernie4_5", "qwen3", "seed_oss"),
    *("hunyuan_v1_dense", "mixtral"),
}


def base_of(family):
    """A small config of a family."""
    size = {"vocab_size": 37} if family == "gpt2" else SIZE
    width = {"head_dim": 8} if family in WIDE else {}
    return {"model_type": family, **size, **width, **SMALL.get(family, {})}


def cases_of(fields):
    """What is changed in a config whose class has these fields: each alone, and pairs of a fact."""
    fields = [name for name in VALUES if name in {*fields, *ANYWHERE}]
    for name in fields:
        yield from ({name: value} for value in VALUES[name])
    pairs = {
        pair
        for fact in FACTS
        for pair in itertools.combinations([name for name in fields if name in fact], 2)
    }
    for first, second in sorted(pairs):
        for values in itertools.product(VALUES[first], VALUES[second]):
            yield dict(zip((first, second), values, strict=True))


def changed(config, changes):
    """A copy of the config with the changes, which come last."""
    config = {name: value for name, value in config.items() if name not in changes}
    changes = {name: value for name, value in changes.items() if value != ABSENT}
    return copy.deepcopy({**config, **changes})
