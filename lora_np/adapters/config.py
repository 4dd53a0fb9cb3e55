"""``adapter_config.json``: what it says about each module, and what it must not say."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lora_np.checks import number
from lora_np.hub import ALL_LINEAR, HubError, Matcher, Patterns, inside, matcher, read_json

NAME = "adapter_config.json"
# What every adapter made here says first.
FRESH = {"peft_type": "LORA", "task_type": None, "base_model_name_or_path": None, "inference_mode": True}

# Settings that change nothing in what the saved numbers compute, or that are read below. Any other setting
# must be unset: a layer that is replicated, quantised or routed in its own way cannot be ignored.
# fmt: off
_KNOWN = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "eva_config",
    "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "loftq_config", "lora_alpha", "lora_bias", "lora_dropout", "lora_ga_config",
    "megatron_core", "modules_to_save", "peft_type", "peft_version", "qalora_group_size", "r",
    "rank_pattern", "revision", "runtime_config", "target_modules", "task_type", "use_dora", "use_rslora",
}
# fmt: on
# The others move the base weight as they start, so that the saved factors belong to another base.
_INITS_THAT_KEEP_THE_BASE = (None, True, False, "gaussian", "eva", "orthogonal")
_LIMIT = 2**63  # of alpha

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class AdapterConfig:
    """The settings of one adapter, checked.

    ``raw`` holds all of them as the file does; the other fields are those that computations depend on.
    """

    r: int
    alpha: float
    ranks: Patterns
    alphas: Patterns
    targets: Matcher  # the modules that PEFT would adapt
    rslora: bool
    dora: bool
    lora_bias: bool
    bias: str
    modules_to_save: tuple[str, ...]
    raw: Mapping[str, Any]

    def rank_of(self, module: str) -> int:
        return int(self.ranks.get(module, self.r))

    def alpha_of(self, module: str) -> float:
        return float(self.alphas.get(module, self.alpha))

    def saves(self, module: str) -> bool:
        """Whether ``modules_to_save`` names the module or one that it belongs to, by the end of its path."""
        segments = module.split(".")
        holders = [".".join(segments[: i + 1]) for i in range(len(segments))]
        return any(holder.endswith(name) for holder in holders for name in self.modules_to_save)


def read(folder: Path) -> AdapterConfig:
    """The config in an adapter's directory."""
    path = inside(folder, NAME)
    return parse(path, read_json(path))


def parse(path: Path, raw: Mapping[str, Any]) -> AdapterConfig:
    """``raw`` with every value checked; ``path`` is for the messages."""
    setting = _Reader(path, raw)
    if raw.get("peft_type") != "LORA":
        raise HubError(f"{path}: peft_type must be 'LORA', got {raw.get('peft_type')!r}")
    for key, content in raw.items():
        if key not in _KNOWN and content not in (None, False, "") and content != [] and content != {}:
            raise HubError(f"{path}: {key} = {_short(content)} is not supported")
    init = raw.get("init_lora_weights")
    if init not in _INITS_THAT_KEEP_THE_BASE:
        raise HubError(
            f"{path}: init_lora_weights = {_short(init)} changes the base weights, so that this adapter does "
            "not fit the original model; save it with PEFT's path_initial_model_for_weight_conversion"
        )
    bias = raw.get("bias", "none")
    if bias not in ("none", "all", "lora_only"):
        raise HubError(f"{path}: bias must be 'none', 'all' or 'lora_only', got {_short(bias)}")
    if not 0 <= setting.real("lora_dropout", raw.get("lora_dropout") or 0) < 1:
        raise HubError(f"{path}: lora_dropout must be from 0 to below 1, got {_short(raw['lora_dropout'])}")
    for key in ("use_rslora", "use_dora", "lora_bias", "fan_in_fan_out"):
        if raw.get(key) is not None and not isinstance(raw[key], bool):
            raise setting.fail(key, "true or false", raw[key])
    setting.check_targets()
    r, alpha = setting.whole("r", raw.get("r", 8)), setting.real("lora_alpha", raw.get("lora_alpha", 8))
    ranks = setting.pattern("rank_pattern", setting.whole)
    alphas = setting.pattern("alpha_pattern", setting.real)
    saved = setting.names("modules_to_save")
    targets, layers = raw.get("target_modules"), raw.get("layers_to_transform")
    try:
        return AdapterConfig(
            r=r,
            alpha=alpha,
            ranks=Patterns(ranks, "rank_pattern"),
            alphas=Patterns(alphas, "alpha_pattern"),
            targets=matcher(
                ALL_LINEAR if targets is None else targets,
                exclude=raw.get("exclude_modules") or (),
                layers=() if layers is None else layers,
                layers_pattern=raw.get("layers_pattern") or (),
                what="target_modules",
            ),
            rslora=bool(raw.get("use_rslora")),
            dora=bool(raw.get("use_dora")),
            lora_bias=bool(raw.get("lora_bias")),
            bias=bias,
            modules_to_save=saved,
            raw=dict(raw),
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
        if raw.get("rank_pattern") or raw.get("alpha_pattern"):
            said = parse(Path(NAME), raw)
            fits = all(said.rank_of(name) == rank for name, rank in ranks.items()) and all(
                said.alpha_of(name) == alpha for name, alpha in alphas.items()
            )
        else:
            fits = [*{*ranks.values()}] == [raw["r"]] and [*{*alphas.values()}] == [raw["lora_alpha"]]
        if fits:
            return dict(raw)
    r = _commonest(ranks.values())
    alpha = _commonest(alphas[name] for name in ranks if ranks[name] == r)
    return {
        **raw,
        "r": r,
        "lora_alpha": _plain(alpha),
        "rank_pattern": {_exactly(name): rank for name, rank in ranks.items() if rank != r},
        "alpha_pattern": {_exactly(name): _plain(a) for name, a in alphas.items() if a != alpha},
    }


def checked_alpha(alpha: object) -> float:
    """``alpha`` as a file may hold it: a number of either sign, below 2**63."""
    value = finite_number("alpha", alpha)
    if not abs(value) < _LIMIT:
        raise ValueError(f"alpha must be smaller than 2**63, got {alpha}")
    return value


def finite_number(name: str, value: object) -> float:
    """``value`` as a finite float of either sign."""
    try:
        return number(name, value, minimum=-math.inf)
    except (ValueError, OverflowError):
        raise ValueError(f"{name} must be finite, got {_short(value)}") from None


def with_targets(raw: Mapping[str, Any], modules: Collection[str]) -> dict[str, Any]:
    """``raw`` for exactly these modules, named by their full paths."""
    left_out = ("layers_to_transform", "layers_pattern", "exclude_modules")
    return {
        **{key: content for key, content in raw.items() if key not in left_out},
        "target_modules": sorted(modules),
    }


@dataclass(frozen=True)
class _Reader:
    """Typed access to a config; each refusal names file, key and value."""

    path: Path
    raw: Mapping[str, Any]

    def fail(self, key: str, wanted: str, got: object) -> HubError:
        return HubError(f"{self.path}: {key} must be {wanted}, got {_short(got)}")

    def whole(self, key: str, got: object) -> int:
        if isinstance(got, bool) or not isinstance(got, int) or not 1 <= got < 2**31:
            raise self.fail(key, "a whole number from 1 on", got)
        return got

    def real(self, key: str, got: object) -> float:
        if isinstance(got, bool) or not isinstance(got, (int, float)) or not abs(got) < _LIMIT:
            raise self.fail(key, "a finite number", got)
        return float(got)

    def names(self, key: str) -> tuple[str, ...]:
        got = self.raw.get(key)
        if got is None:
            return ()
        if not isinstance(got, list) or set(map(type, got)) - {str} or "" in got:
            raise self.fail(key, "a list of names", got)
        return tuple(got)

    def pattern(self, key: str, check: Callable[[str, object], Number]) -> dict[str, Number]:
        got = self.raw.get(key)
        if got is not None and not isinstance(got, dict):
            raise self.fail(key, "an object", got)
        found = {}
        for name, content in (got or {}).items():
            found[name] = check(f"{key}[{name!r}]", content)
        return found

    def check_targets(self) -> None:
        for key in ("target_modules", "exclude_modules", "layers_pattern"):
            got = self.raw.get(key)
            if got is not None and not isinstance(got, (str, list)):
                raise self.fail(key, "a list of names or one expression", got)
            if isinstance(got, list):
                self.names(key)
        layers = self.raw.get("layers_to_transform")
        if layers is not None and set(map(type, layers if isinstance(layers, list) else [layers])) - {int}:
            raise self.fail("layers_to_transform", "whole numbers", layers)


def _commonest(values: Any) -> Any:
    counts = Counter(values)
    return max(sorted(counts), key=counts.__getitem__)


def _exactly(module: str) -> str:
    return f"^{re.escape(module)}"


def _plain(alpha: float) -> int | float:
    return int(alpha) if math.isfinite(alpha) and alpha == int(alpha) else alpha


def _short(content: object) -> str:
    text = repr(content)
    return text if len(text) <= 80 else f"{text[:77]}..."
