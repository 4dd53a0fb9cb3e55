"""``adapter_config.json``: what it says about each module, and what it must not say."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_np.checks import number, shown
from lora_np.hub import ALL_LINEAR, HubError, Matcher, Patterns, ends_with, inside, matcher, read_json

NAME = "adapter_config.json"
# What every adapter made here says first.
FRESH = {"peft_type": "LORA", "task_type": None, "base_model_name_or_path": None, "inference_mode": True}

# Settings that change nothing in what the saved numbers compute, or that are read below. Any other setting
# must be unset: a layer that is replicated, quantised or routed in its own way cannot be ignored.
# fmt: off
_KNOWN = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config",
    "ensure_weight_tying", "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode",
    "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha", "lora_bias",
    "lora_dropout", "lora_ga_config", "megatron_core", "modules_to_save", "peft_type", "peft_version",
    "qalora_group_size", "r", "rank_pattern", "revision", "runtime_config", "target_modules",
    "target_parameters", "task_type", "trainable_token_indices", "use_bdlora", "use_dora", "use_rslora",
    "velora_config",  # another backward pass
}
# fmt: on
_REFUSED = {
    "alora_invocation_tokens": "aLoRA acts from its invocation tokens on, which no change of weights does",
    "arrow_config": "Arrow mixes several adapters anew for each token",
    "kasa_config": "KaSA takes the least singular directions out of the base, so that the adapter belongs to "
    "another one",
    "layer_replication": "the base is built anew, with some of its layers repeated",
    "megatron_config": "its layers are Megatron's, each with a part of the weight",
    "monteclora_config": "MonteCLoRA draws its updates at random",
    "use_qalora": "QA-LoRA averages groups of inputs",
}
# The others move the base weight as they start, so that the saved factors belong to another base.
_INITS_THAT_KEEP_THE_BASE = (None, True, False, "gaussian", "eva", "mica", "orthogonal")
_LIMIT = 2**63  # of alpha
_BLOCK_DIAGONAL = {"A": "target_modules_bd_a", "B": "target_modules_bd_b"}  # of use_bdlora


def _is_whole(got: object) -> bool:
    return type(got) is int and 1 <= got < 2**31


def _is_real(got: object) -> bool:
    return isinstance(got, (int, float)) and not isinstance(got, bool) and abs(got) < _LIMIT


def _are_names(got: object) -> bool:
    return isinstance(got, list) and all(isinstance(name, str) and name for name in got)


def _are_tokens(got: Any) -> bool:
    if isinstance(got, dict):
        return bool(got) and all(_are_tokens(tokens) for tokens in got.values())
    fits = isinstance(got, list) and all(type(token) is int and 0 <= token < 2**31 for token in got)
    return fits and len(set(got)) == len(got) > 0


def _are_blocks(got: Any) -> bool:
    if not isinstance(got, dict):
        return not got
    others = {**got}
    names = [others.pop(key, None) or [] for key in _BLOCK_DIAGONAL.values()]
    fits = _is_whole(others.pop("nblocks", 1)) and isinstance(others.pop("match_strict", True), bool)
    return fits and not others and all(map(_are_names, names))


# What the values of settings must be, and how to tell.
_WANTED: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "r": ("a whole number from 1 on", _is_whole),
    "lora_alpha": ("a finite number", _is_real),
    "lora_dropout": ("from 0 to below 1", lambda got: _is_real(got) and 0 <= got < 1),
    "bias": ("'none', 'all' or 'lora_only'", lambda got: got in ("none", "all", "lora_only")),
    **dict.fromkeys(("modules_to_save", "target_parameters"), ("a list of names", _are_names)),
    "trainable_token_indices": ("different whole numbers, or lists of them by module", _are_tokens),
    "use_bdlora": (
        f"an object of nblocks, match_strict and lists of names, {' and '.join(_BLOCK_DIAGONAL.values())}",
        _are_blocks,
    ),
    "layers_to_transform": (
        "whole numbers",
        lambda got: all(type(number) is int for number in (got if isinstance(got, list) else [got])),
    ),
    **dict.fromkeys(
        ("target_modules", "exclude_modules", "layers_pattern"),
        ("a list of names or one expression", lambda got: isinstance(got, str) or _are_names(got)),
    ),
    **dict.fromkeys(
        ("use_rslora", "use_dora", "lora_bias", "fan_in_fan_out", "ensure_weight_tying"),
        ("true or false", lambda got: isinstance(got, bool)),
    ),
    **dict.fromkeys(("rank_pattern", "alpha_pattern"), ("an object", lambda got: isinstance(got, dict))),
}


@dataclass(frozen=True)
class AdapterConfig:
    """The settings of one adapter, checked: ``raw`` as in the file, and what they say of each module."""

    raw: Mapping[str, Any]
    ranks: Patterns
    alphas: Patterns
    targets: Matcher  # the modules that PEFT would adapt

    def rank_of(self, module: str) -> int:
        return int(self.ranks.get(module, self.raw.get("r", 8)))

    def alpha_of(self, module: str) -> float:
        return float(self.alphas.get(module, self.raw.get("lora_alpha", 8)))

    def says(self, flag: str) -> bool:
        return bool(self.raw.get(flag))

    def saves(self, module: str) -> bool:
        """Whether ``modules_to_save`` names the module or one that it belongs to, by the end of its path."""
        segments = module.split(".")
        holders = [".".join(segments[: i + 1]) for i in range(len(segments))]
        names = self.raw.get("modules_to_save") or ()
        return any(holder.endswith(name) for holder in holders for name in names)

    def blocks_of(self, module: str) -> dict[str, int]:
        """The number of blocks of each factor that ``use_bdlora`` makes block-diagonal, by parts of names."""
        said = self.raw.get("use_bdlora") or {}
        found = {
            part: int(said.get("nblocks", 1))
            for part, key in _BLOCK_DIAGONAL.items()
            if any(name in module for name in said.get(key) or ())
        }
        if len(found) > 1 or (said and not found and said.get("match_strict", True)):
            raise HubError(
                f"{NAME}: use_bdlora must make A or B of {module!r} block-diagonal, and names it for "
                f"{'both' if found else 'neither, although match_strict is true'}"
            )
        return found

    def parameters_of(self, module: str) -> list[str]:
        """The parameters of a module that ``target_parameters`` name, by the ends of their paths."""
        ends = self.raw.get("target_parameters") or ()
        found = {f"{module}.{name.rpartition('.')[2]}" for name in ends}
        return sorted(name for name in found if any(ends_with(name, end) for end in ends))

    def tokens_of(self, module: str) -> tuple[int, ...] | None:
        """The rows of an embedding that are trained, by the end of its path, or of the one that there is."""
        said = self.raw.get("trainable_token_indices")
        if isinstance(said, dict):
            said = next((tokens for name, tokens in said.items() if module.endswith(name)), None)
        return None if said is None else tuple(said)


def read(folder: Path) -> AdapterConfig:
    """The config in an adapter's directory."""
    path = inside(folder, NAME)
    return parse(path, read_json(path))


def parse(path: Path, raw: Mapping[str, Any]) -> AdapterConfig:
    """``raw`` with every value checked; ``path`` is for the messages."""
    if raw.get("peft_type") != "LORA":
        raise HubError(f"{path}: peft_type must be 'LORA', got {raw.get('peft_type')!r}")

    def check(name: str, rule: str, got: object) -> None:
        wanted, fits = _WANTED[rule]
        if not fits(got):
            raise HubError(f"{path}: {name} must be {wanted}, got {shown(got)}")

    for key, content in raw.items():
        if key not in _KNOWN and content not in (None, False, "") and content != [] and content != {}:
            why = f": {_REFUSED[key]}" if key in _REFUSED else ""
            raise HubError(f"{path}: {key} = {shown(content)} is not supported{why}")
        if key in _WANTED and (content is not None or key in ("r", "lora_alpha")):
            check(key, key, content)
    for key, rule in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha")):
        for name, content in (raw.get(key) or {}).items():
            check(f"{key}[{name!r}]", rule, content)
    init = raw.get("init_lora_weights")
    if init not in _INITS_THAT_KEEP_THE_BASE:
        raise HubError(
            f"{path}: init_lora_weights = {shown(init)} changes the base weights, so that this adapter does "
            "not fit the original model; save it with PEFT's path_initial_model_for_weight_conversion"
        )
    targets, layers = raw.get("target_modules"), raw.get("layers_to_transform")
    if not targets and (raw.get("target_parameters") or raw.get("trainable_token_indices")):
        targets = "(?!)"  # no module at all
    try:
        return AdapterConfig(
            raw=dict(raw),
            ranks=Patterns(raw.get("rank_pattern") or {}, "rank_pattern"),
            alphas=Patterns(raw.get("alpha_pattern") or {}, "alpha_pattern"),
            targets=matcher(
                ALL_LINEAR if targets is None else targets,
                exclude=raw.get("exclude_modules") or (),
                layers=() if layers is None else layers,
                layers_pattern=raw.get("layers_pattern") or (),
                saved=raw.get("modules_to_save") or (),
                what="target_modules",
            ),
        )
    except ValueError as error:  # an expression
        raise HubError(f"{path}: {error}") from None


def compose(
    raw: Mapping[str, Any], *, ranks: Mapping[str, int], alphas: Mapping[str, float]
) -> dict[str, Any]:
    """``raw`` with r, lora_alpha and their patterns such that every module has its rank and alpha.

    What ``raw`` already says is kept, if it is right for every module. Otherwise the commonest
    values become the default, and each exception is named by its full path.
    """
    if "r" in raw and "lora_alpha" in raw:  # without them PEFT would assume 8 and 8 in silence
        said = parse(Path(NAME), raw)
        if all((said.rank_of(name), said.alpha_of(name)) == (ranks[name], alphas[name]) for name in ranks):
            return dict(raw)
    r = _commonest(ranks.values())
    alpha = _commonest(alphas[name] for name in ranks if ranks[name] == r)
    return {
        **raw,
        "r": r,
        "lora_alpha": _plain(alpha),
        "rank_pattern": {f"^{re.escape(name)}": rank for name, rank in ranks.items() if rank != r},
        "alpha_pattern": {f"^{re.escape(name)}": _plain(a) for name, a in alphas.items() if a != alpha},
    }


def checked_alpha(alpha: object) -> float:
    """``alpha`` as a file may hold it: a number of either sign, below 2**63."""
    value = finite_number("alpha", alpha)
    if not abs(value) < _LIMIT:
        raise ValueError(f"alpha must be smaller than 2**63, got {alpha}")
    return value


def finite_number(name: str, value: object) -> float:
    """``value`` as a finite float of either sign."""
    return number(name, value, minimum=-math.inf)


def _commonest(values: Any) -> Any:
    counts = Counter(values)
    return max(sorted(counts), key=counts.__getitem__)


def _plain(alpha: float) -> int | float:
    return int(alpha) if math.isfinite(alpha) and alpha == int(alpha) else alpha
