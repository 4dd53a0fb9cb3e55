"""``adapter_config.json``: what it says about each module, and what it must not say."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lora_np.checks import number
from lora_np.hub import ALL_LINEAR, HubError, Matcher, Patterns, inside, matcher, read_json

NAME = "adapter_config.json"

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


@dataclass(frozen=True)
class AdapterConfig:
    """The settings of one adapter, checked.

    ``raw`` holds all of them as the file does; the other fields are those that computations depend on.
    """

    r: int = 8
    alpha: float = 8.0
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    rslora: bool = False
    dora: bool = False
    lora_bias: bool = False
    fan_in_fan_out: bool = False
    bias: str = "none"
    modules_to_save: tuple[str, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict)

    def rank_of(self, module: str) -> int:
        return int(self._ranks.get(module, self.r))

    def alpha_of(self, module: str) -> float:
        return float(self._alphas.get(module, self.alpha))

    def saves(self, module: str) -> bool:
        """Whether ``modules_to_save`` names the module or one that it belongs to, by the end of its path."""
        segments = module.split(".")
        holders = [".".join(segments[: i + 1]) for i in range(len(segments))]
        return any(holder.endswith(name) for holder in holders for name in self.modules_to_save)

    @cached_property
    def _ranks(self) -> Patterns:
        return Patterns(self.rank_pattern, "rank_pattern")

    @cached_property
    def _alphas(self) -> Patterns:
        return Patterns(self.alpha_pattern, "alpha_pattern")

    @cached_property
    def targets(self) -> Matcher:
        """Whether PEFT would adapt the module of this path."""
        names = self.raw.get("target_modules")
        return matcher(
            ALL_LINEAR if names is None else names,
            exclude=self.raw.get("exclude_modules") or (),
            layers=() if self.raw.get("layers_to_transform") is None else self.raw["layers_to_transform"],
            layers_pattern=self.raw.get("layers_pattern") or (),
            what="target_modules",
        )


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
    bias = setting.text("bias", "none")
    if bias not in ("none", "all", "lora_only"):
        raise HubError(f"{path}: bias must be 'none', 'all' or 'lora_only', got {_short(bias)}")
    if not 0 <= setting.real("lora_dropout", raw.get("lora_dropout") or 0) < 1:
        raise HubError(f"{path}: lora_dropout must be from 0 to below 1, got {_short(raw['lora_dropout'])}")
    setting.check_targets()
    config = AdapterConfig(
        r=setting.whole("r", raw.get("r", 8)),
        alpha=setting.real("lora_alpha", raw.get("lora_alpha", 8)),
        rank_pattern={
            k: setting.whole(f"rank_pattern[{k!r}]", v) for k, v in setting.pattern("rank_pattern")
        },
        alpha_pattern={
            k: setting.real(f"alpha_pattern[{k!r}]", v) for k, v in setting.pattern("alpha_pattern")
        },
        rslora=setting.flag("use_rslora"),
        dora=setting.flag("use_dora"),
        lora_bias=setting.flag("lora_bias"),
        fan_in_fan_out=setting.flag("fan_in_fan_out"),
        bias=bias,
        modules_to_save=setting.names("modules_to_save"),
        raw=dict(raw),
    )
    try:
        config._ranks, config._alphas, config.targets  # noqa: B018 - meets every expression
    except ValueError as error:
        raise HubError(f"{path}: {error}") from None
    return config


def compose(
    raw: Mapping[str, Any], *, ranks: Mapping[str, int], alphas: Mapping[str, float]
) -> dict[str, Any]:
    """``raw`` with r, lora_alpha and their patterns such that every module has its rank and alpha.

    What ``raw`` already says is kept, if it is right for every module. Otherwise the commonest
    values become the default, and each exception is named by its full path.
    """
    said = parse(Path(NAME), {"r": 8, "lora_alpha": 8, **raw})
    complete = "r" in raw and "lora_alpha" in raw  # PEFT would assume 8 and 8 in silence
    if complete and all(
        (said.rank_of(name), said.alpha_of(name)) == (ranks[name], alphas[name]) for name in ranks
    ):
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

    def flag(self, key: str) -> bool:
        got = self.raw.get(key)
        if got is not None and not isinstance(got, bool):
            raise self.fail(key, "true or false", got)
        return bool(got)

    def text(self, key: str, default: str) -> str:
        got = self.raw.get(key, default)
        if not isinstance(got, str):
            raise self.fail(key, "a string", got)
        return got

    def names(self, key: str) -> tuple[str, ...]:
        got = self.raw.get(key)
        if got is None:
            return ()
        if not isinstance(got, list) or not all(isinstance(name, str) and name for name in got):
            raise self.fail(key, "a list of names", got)
        return tuple(got)

    def pattern(self, key: str) -> list[tuple[str, Any]]:
        got = self.raw.get(key)
        if got is None:
            return []
        if not isinstance(got, dict):
            raise self.fail(key, "an object", got)
        return list(got.items())

    def check_targets(self) -> None:
        for key in ("target_modules", "exclude_modules", "layers_pattern"):
            got = self.raw.get(key)
            if got is not None and not isinstance(got, (str, list)):
                raise self.fail(key, "a list of names or one expression", got)
            if isinstance(got, list):
                self.names(key)
        layers = self.raw.get("layers_to_transform")
        numbers = layers if isinstance(layers, list) else [] if layers is None else [layers]
        if not all(isinstance(i, int) and not isinstance(i, bool) for i in numbers):
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
