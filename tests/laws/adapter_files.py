"""200 adapter files: 120 that four libraries write, and 80 of them damaged. Only what they are: data.

tests/laws/test_adapters_two_hundred.py makes, reads and judges them.
"""

from itertools import product
from typing import Any, NamedTuple


class Written(NamedTuple):
    """A file that a library writes: over which model, and with which of its settings."""

    library: str
    base: str
    way: str


class Damaged(NamedTuple):
    """A file in which something is wrong, and whether it still says all that is needed."""

    file: Written
    damage: str
    whole: bool


#: Fields of a LoraConfig, or of the config of another tuner; "r" is 4 and alpha 6 unless said.
PEFT: dict[str, dict[str, Any]] = {
    "attention": {"target_modules": ["QUERY", "VALUE"]},
    "all-linear": {"target_modules": "all-linear"},
    "rslora": {"target_modules": ["QUERY", "VALUE"], "use_rslora": True},
    "dora": {"target_modules": "all-linear", "use_dora": True},
    "patterns": {
        "target_modules": "all-linear",
        # in the order of the alphabet, in which PEFT saves them
        "rank_pattern": {r".*\.1\..*": 7, "QUERY": 2},
        "alpha_pattern": {r".*\.0\..*": 3, "VALUE": 16},
    },
    "table": {"target_modules": ["TABLE", "QUERY"]},
    "saved table": {"target_modules": ["QUERY", "VALUE"], "modules_to_save": ["TABLE"]},
    "LOHA": {"target_modules": ["QUERY", "VALUE"]},
    "LOKR": {"target_modules": ["QUERY", "VALUE"]},
}

#: `rank`, `scale`, `keys`, and the number of layers, counted from the last; all linear unless said.
MLX: dict[str, dict[str, Any]] = {
    "attention": {"keys": ["self_attn.q_proj", "self_attn.v_proj"]},
    "all": {},
    "last layer": {"num_layers": 1},
    "dora": {"fine_tune_type": "dora", "keys": ["self_attn.q_proj", "self_attn.o_proj"]},
    "usual scale": {"scale": 20.0},
}

#: Fields of the LoraConfig of diffusers' `add_adapter`.
DIFFUSERS: dict[str, dict[str, Any]] = {
    "attention": {"target_modules": ["to_q", "to_k", "to_v", "to_out.0"]},
    "square alone": {"target_modules": ["to_out.0"], "r": 3, "lora_alpha": 3},
    "feed-forward and convolutions": {"target_modules": ["to_q", "net.2", "conv1", "proj_in", "proj_out"]},
    "patterns": {
        "target_modules": ["to_q", "to_k", "net.2"],
        "rank_pattern": {"to_k": 2},
        "alpha_pattern": {"to_q": 16},
    },
    "rslora": {"target_modules": ["to_q", "to_v"], "use_rslora": True},
    "dora": {"target_modules": ["to_k", "net.2"], "use_dora": True},
}  # fmt: skip

#: Options of `create_lycoris`; `dim` is 4, `alpha` 2 and `conv_dim` 3 unless said.
LYCORIS: dict[str, dict[str, Any]] = {
    "lora": {"algo": "lora"},
    "lora, alpha as dim": {"algo": "lora", "alpha": 4, "conv_alpha": 3},
    "lora, rank 1": {"algo": "lora", "dim": 1, "conv_dim": 1},
    "locon, tucker": {"algo": "locon", "use_tucker": True},
    "locon, scalar": {"algo": "locon", "use_scalar": True},
    "locon, bfloat16": {"algo": "locon", "dtype": "bfloat16"},
    "locon, kohya's prefix": {"algo": "locon", "prefix": "lora_unet"},
    "locon, rs_lora": {"network_module": "locon", "rs_lora": True},
    # whose convolutions it does not reload itself
    "dylora": {"algo": "dylora", "block_size": 2, "convolutions": False},
    "loha": {"algo": "loha"},
    "loha, alpha as dim": {"algo": "loha", "alpha": 4, "conv_alpha": 3},
    "loha, tucker": {"algo": "loha", "use_tucker": True},
    "loha, rank 1": {"algo": "loha", "dim": 1, "conv_dim": 1},
    "loha, float16": {"algo": "loha", "dtype": "float16"},
    "loha, kohya's prefix": {"algo": "loha", "prefix": "lora_unet"},
    "lokr": {"algo": "lokr", "dim": 1},
    "lokr, both in full": {"algo": "lokr", "full_matrix": True},
    "lokr, both factored": {"algo": "lokr", "dim": 1, "conv_dim": 1, "decompose_both": True},
    "lokr, factor 2": {"algo": "lokr", "dim": 1, "factor": 2},
    "lokr, tucker": {"algo": "lokr", "dim": 1, "conv_dim": 1, "use_tucker": True},
    "lokr, unbalanced": {"algo": "lokr", "dim": 1, "unbalanced_factorization": True},
    "lokr, kohya's prefix": {"algo": "lokr", "dim": 1, "prefix": "lora_unet"},
    "full": {"algo": "full"},
    "norms": {"algo": "locon", "train_norm": True},
    "dora by outputs": {"algo": "locon", "dora_wd": True, "wd_on_output": True},
    "dora by inputs": {"algo": "locon", "dora_wd": True, "wd_on_output": False},
    "dora over loha": {"algo": "loha", "dora_wd": True},
    "ia3": {"algo": "ia3"},
    "glora": {"algo": "glora"},
    "diag-oft": {"algo": "diag-oft"},
}

#: What a file may be refused for, by library and way: there is no other reason.
NEEDS_THE_WEIGHT = {"dora by inputs", "dora over loha", "ia3", "glora", "diag-oft"}

WRITTEN = [
    *(Written("peft", *case) for case in product(("llama", "qwen2", "qwen3", "gemma2", "bert"), PEFT)),
    *(Written("mlx-lm", *case) for case in product(("llama", "qwen2", "qwen3", "mixtral"), MLX)),
    *(Written("diffusers", *case) for case in product(("sd15", "sdxl", "flux", "sd3"), DIFFUSERS)),
    Written("diffusers", "wan", "attention"),
    *(Written("lycoris", "block", way) for way in LYCORIS),
]  # fmt: skip

#: What is done to a file, by library, and whether what it held can still be told. Names are those
#: of modules in keys; "no model" is an adapter of an AutoModel over a model with a head.
DAMAGES: dict[str, dict[str, bool]] = {
    "peft": {
        "_orig_mod. before names": True,
        "module. before names": True,
        "base_model.model. twice": True,
        "base_model.model. missing": True,
        ".default in keys": True,
        "language_model. in names": True,
        "no model. in names": True,
        "magnitudes with .weight": True,
        "a container among the targets": True,
        # which leaves two scales to choose from
        "a pattern that matches nothing": False,
        "targets that match nothing": True,
        "tensors emptied by ZeRO-3": False,
        "one factor missing": False,
    },
    "mlx-lm": {
        "no model. in names": True,
        "language_model. in names": True,
        "module. before names": True,
        "one factor missing": False,
    },
    "diffusers": {
        "base_model.model. after the prefix": True,
        "base_model.model. before the prefix": True,
        ".default in keys": True,
        "_orig_mod. in names": True,
        "tensors emptied by ZeRO-3": False,
    },
    "lycoris": {
        "lora_transformer_ for the prefix": True,
        "alphas of shape (1,)": True,
        "keys in another order": True,
        "tensors emptied by ZeRO-3": False,
        "one factor missing": False,
    },
}
# How many files each of a library's damages is done to.
_EACH = {"peft": 4, "mlx-lm": 2, "diffusers": 2, "lycoris": 2}
# With which way a damage is at home, where not every way has what it spoils.
_HOME = {"magnitudes with .weight": "dora", "a pattern that matches nothing": "patterns"}


def _damaged() -> list[Damaged]:
    cases = []
    for library, damages in DAMAGES.items():
        files = [file for file in WRITTEN if file.library == library]
        for place, (damage, whole) in enumerate(damages.items()):
            home = _HOME.get(damage)
            fit = [
                file
                for file in files
                if home in (None, file.way)
                and file.way not in NEEDS_THE_WEIGHT
                # BERT has no "model." to lose, and is no part of a larger model
                and not (file.base == "bert" and "model. in" in damage)
            ]
            # a stride that meets every base and many ways
            step = 1 if home else 7
            cases += [
                Damaged(fit[(5 * place + step * i) % len(fit)], damage, whole)
                for i in range(_EACH[library])
            ]
    return cases


DAMAGED = _damaged()
