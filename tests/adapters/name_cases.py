"""The matrix of names: bases, ways to write a config, wrappers, and the runtimes that run here. Data.

tests/laws/test_adapters_names.py makes the files and judges what `check` says of them by PEFT's and
mlx-lm's own logits: what is *fine* has those of the adapter as it was trained, what is *ignored*
those of the base.
"""

from itertools import product

#: The class that an adapter is trained on, and those that it is loaded on.
BASES = {
    "llama": ("llama",),
    "qwen3": ("qwen3", "qwen3_vl", "qwen3 without head"),
    "qwen3_vl": ("qwen3_vl", "qwen3"),
    "qwen3 without head": ("qwen3 without head", "qwen3", "qwen3_vl"),
    "gemma3_text": ("gemma3_text", "gemma3"),
    "gemma3": ("gemma3", "gemma3_text"),
    "gpt2": ("gpt2",),
    "bert": ("bert", "bert without head"),
    "mixtral": ("mixtral",),
}

#: Of which as many matrices as can be are square, so that only logits tell which way one is stored.
SQUARE = (
    "llama square",
    "gpt2 square",
    "mixtral square",
    "qwen3_moe square",
    "qwen3_vl_moe square",
    "qwen3_vl_moe square down",
)

#: Settings; FIRST and SECOND stand for two linear modules of a layer, PATH for the whole path of
#: one, TABLE for the embedding. Where a base has none, the case is left out.
WAYS = {
    "ends": {"target_modules": ["FIRST", "SECOND"]},
    "whole paths": {"target_modules": ["PATH"]},
    "expression": {"target_modules": r".*\.\d+\..*(FIRST|SECOND)"},
    "all-linear": {"target_modules": "all-linear"},
    "patterns": {
        "target_modules": ["FIRST", "SECOND"],
        "rank_pattern": {"FIRST": 2},
        "alpha_pattern": {"PATH": 3},
    },
    "unmatched pattern": {"target_modules": ["FIRST"], "alpha_pattern": {"^FIRST": 100}},
    "rsLoRA": {"target_modules": ["FIRST"], "use_rslora": True},
    "DoRA": {"target_modules": ["FIRST"], "use_dora": True},
    "embedding": {"target_modules": ["FIRST", "TABLE"]},
    "experts": {"target_modules": ["FIRST"], "target_parameters": ["gate_up_proj", "down_proj"]},
}

#: How keys are changed: a pattern and what it becomes.
WRAPPERS = {
    "none": (r"^", ""),
    "_orig_mod. outside": (r"^", "_orig_mod."),
    "_orig_mod. inside": (r"^base_model\.model\.", "base_model.model._orig_mod."),
    "_orig_mod. of a layer": (r"(\.\d+)\.", r"\1._orig_mod."),
    "module. outside": (r"^", "module."),
    "module. inside": (r"^base_model\.model\.", "base_model.model.module."),
    "_fsdp_wrapped_module.": (r"^", "_fsdp_wrapped_module."),
    "_checkpoint_wrapped_module.": (r"(\.\d+)\.", r"\1._checkpoint_wrapped_module."),
    "twice": (r"^", "base_model.model."),
    "missing": (r"^base_model\.model\.", ""),
    "default": (r"\.(lora_\w+)(\.weight)?$", r".\1.default\2"),
    "two of them": (r"^", "module._orig_mod."),
}

RUNTIMES = ("peft", "mlx")

CASES = [
    (trained, loaded, way, wrapper)
    for trained, over in BASES.items()
    for loaded, way, wrapper in product(over, WAYS, WRAPPERS)
    # each of the two in every form, both at once only once: they are told apart independently
    if loaded == trained or wrapper in ("none", "_orig_mod. outside")
] + [
    (base, base, way, wrapper) for base, way, wrapper in product(SQUARE, WAYS, ("none", "default"))
]
