"""What llama.cpp's files say of models and texts: families by what its converter makes of them, and
ways to cut texts by their names in ``tokenizer.ggml.pre``.

Sources: llama.cpp, ``conversion/*.py``, ``src/models/*.cpp``, ``gguf-py/gguf/tensor_mapping.py``
and ``src/llama-vocab.cpp``; the ``tokenizer.json`` of the models that the names come from.
"""

SIZE = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
SCALES = {
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.3,
    "attention_multiplier": 0.2,
    "logits_scaling": 2.0,
}
EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 8}
CAPS = {"attn_logit_softcapping": 20.0, "final_logit_softcapping": 5.0}
LONG = {"short_factor": [1.0, 1.5, 2.0], "long_factor": [2.0, 3.0, 5.0], "rope_type": "longrope"}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0}

#: name: (architecture in the file; whether rows of queries and keys move; whether norms are stored
#: as 1 + W; fields of a tiny model; the same as keys of the file, under the architecture's name)
FAMILIES = {
    "llama": ("llama", True, False, {}, {}),
    "qwen2": ("qwen2", False, False, {}, {}),
    "qwen3": (
        "qwen3", False, False, {"head_dim": 16},
        {"attention.key_length": 16, "attention.value_length": 16},
    ),
    "gemma2": (
        "gemma2", False, True,
        {"head_dim": 16, "sliding_window": 6, "query_pre_attn_scalar": 16, **CAPS},
        {
            "attention.key_length": 16, "attention.value_length": 16,
            "attention.sliding_window": 6,
            "attn_logit_softcapping": 20.0, "final_logit_softcapping": 5.0,
        },
    ),
    "gemma3_text": (
        "gemma3", False, True,
        {
            "head_dim": 16, "sliding_window": 5, "query_pre_attn_scalar": 16,
            "num_hidden_layers": 7,
        },
        {
            "attention.key_length": 16, "attention.value_length": 16,
            "attention.sliding_window": 5,
        },
    ),
    "smollm3": ("smollm3", True, False, {}, {}),
    "phi3": (
        "phi3", False, False, {"sliding_window": None, "original_max_position_embeddings": 64},
        {
            "rope.dimension_count": 8, "rope.scaling.original_context_length": 64,
            "attention.sliding_window": 0,
        },
    ),
    "granite": (
        "granite", True, False, SCALES,
        {
            "embedding_scale": 3.0, "residual_scale": 0.3, "attention.scale": 0.2,
            "logit_scale": 2.0,
        },
    ),
    "olmo2": ("olmo2", False, False, {}, {}),
    "qwen3_moe": (
        "qwen3moe", False, False, {**EXPERTS, "norm_topk_prob": True},
        {
            "attention.key_length": 8, "attention.value_length": 8, "expert_count": 5, "expert_used_count": 2,
            "expert_feed_forward_length": 32,
        },
    ),
}  # fmt: skip

TEXT = "I've 12345 CamelCase DON'T x1\n\n  y"
DIGITS = ["1", "2", "3", "4", "5"]
END = [" x", "1", "\n\n", " ", " y"]
WORDS = [" CamelCase", " DON", "'T", *END]

#: pieces of TEXT: those of GPT-2 first
GPT2 = ["I", "'ve", " 12345", " CamelCase", " DON", "'", "T", " x", "1", "\n\n ", " y"]
SINGLE = ["I", "'ve", " ", *DIGITS, " CamelCase", " DON", "'", "T", " x", "1", "\n\n ", " y"]
THREES = ["I", "'ve", " ", "123", "45", *WORDS]
ONES = ["I", "'ve", " ", *DIGITS, *WORDS]
GPT4O = ["I've", " ", "123", "45", " Camel", "Case", " DON'T", *END]
TEKKEN = ["I", "'ve", " ", *DIGITS, " Camel", "Case", " DON", "'T", *END]
CODER = ["I", "'", "ve", " ", *DIGITS, " CamelCase", " DON", "'", "T", " x", "1", "\n", "\n"]
CODER += [" ", " y"]

#: names in llama.cpp: (pieces, Unicode form, whether a piece that is a token stays whole, whether
#: BOS comes first if the file does not say)
CUTS = {
    **dict.fromkeys(("gpt-2", "phi-2", "jais", "exaone4", "trillion"), (GPT2, None, False, False)),
    **dict.fromkeys(("granite-docling", "mellum", "gigachat"), (GPT2, None, False, False)),
    **dict.fromkeys(("mpt", "olmo", "modern-bert"), (GPT2, "NFC", False, False)),
    **dict.fromkeys(("smollm", "starcoder", "refact"), (SINGLE, None, False, False)),
    **dict.fromkeys(("codeshell", "exaone", "minerva-7b"), (SINGLE, None, False, False)),
    "command-r": (SINGLE, "NFC", False, False),
    **dict.fromkeys(("llama-bpe", "llama-v3", "llama3", "falcon3"), (THREES, None, True, True)),
    **dict.fromkeys(("falcon-h1", "pixtral", "midm-2.0", "lfm2"), (THREES, None, True, True)),
    **dict.fromkeys(("smaug-bpe", "dbrx", "glm4", "chatglm-bpe"), (THREES, None, False, False)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), (ONES, "NFC", False, False)),
    **dict.fromkeys(("stablelm2", "hunyuan", "megrez", "grok-2"), (ONES, None, False, False)),
    "qwen35": (ONES, "NFC", False, False),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2"), (GPT4O, None, False, False)),
    "tekken": (TEKKEN, None, True, True),
    "deepseek-coder": (CODER, None, False, False),
    "deepseek-v3": (THREES, None, False, False),
}
