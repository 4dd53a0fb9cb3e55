"""A whole ``LoraConfig`` of PEFT as what `count_model` takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_np.accounting.lora import LoraCount, count_model
from lora_np.checks import shown, whole_number
from lora_np.hub import ModelSpec, read_json

_NAMES = (list, tuple, set, frozenset)
# the fields that decide how many numbers are trained: what `count_model` calls them, and what they may be
_COUNTED: dict[str, tuple[str, Any, str]] = {
    "r": ("rank", int, "a whole number"),
    "target_modules": ("targets", (str, *_NAMES), "names or an expression"),
    "rank_pattern": ("rank_pattern", Mapping, "an object"),
    "modules_to_save": ("modules_to_save", _NAMES, "names"),
    "use_dora": ("dora", bool, "true or false"),
    "bias": ("bias", str, "text"),
    "exclude_modules": ("exclude", (str, *_NAMES), "names or an expression"),
    "layers_to_transform": ("layers", (int, *_NAMES), "whole numbers"),
    "layers_pattern": ("layers_pattern", (str, *_NAMES), "names"),
    "target_parameters": ("target_parameters", _NAMES, "names"),
    "trainable_token_indices": ("trainable_token_indices", (Mapping, *_NAMES), "whole numbers"),
    "lora_bias": ("lora_bias", bool, "true or false"),
}
# those that do not; any other must be unset
_REST = {
    "alora_invocation_tokens", "alpha_pattern", "auto_mapping", "base_model_name_or_path", "corda_config",
    "eva_config", "fan_in_fan_out", "inference_mode", "init_lora_weights", "loftq_config", "lora_alpha",
    "lora_dropout", "lora_ga_config", "megatron_core", "peft_type", "peft_version", "qalora_group_size",
    "revision", "runtime_config", "task_type", "use_rslora",
}  # fmt: skip


def count_config(
    spec: ModelSpec, config: str | Path | Mapping[str, Any] | Any, *, experts: str = "peft"
) -> LoraCount:
    """What a LoRA costs on a model, from all that PEFT's ``LoraConfig`` says of it.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    config : str, Path, mapping or LoraConfig
        An ``adapter_config.json`` or a directory with one, its fields, or the object.
    experts : {"peft", "per-expert"}
        As in `count_model`.

    Returns
    -------
    LoraCount
        The adapter's numbers, module by module, which print as a table.

    Raises
    ------
    TypeError
        If a field is of another type.
    ValueError
        If a setting is not counted here, or `count_model` refuses one.

    See Also
    --------
    count_model : The same with arguments.

    Examples
    --------
    >>> from lora_np.accounting import preset
    >>> config = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"], "layers_to_transform": [0, 1]}
    >>> count_config(preset("llama-3-8b"), config).trainable
    131072
    """
    return count_model(spec, **lora_options(config, spec), experts=experts)


def lora_options(config: str | Path | Mapping[str, Any] | Any, spec: ModelSpec) -> dict[str, Any]:
    """The arguments of `count_model` for a ``LoraConfig``."""
    fields = {key: value for key, value in _fields(config).items() if not _is_unset(value)}
    kind = getattr(fields.get("peft_type"), "value", fields.get("peft_type", "LORA"))
    if kind != "LORA":
        raise ValueError(f"peft_type must be 'LORA', got {shown(kind)}")
    if not any(module.tied for module in spec.groups):
        fields.pop("ensure_weight_tying", None)
    for key, value in fields.items():
        if key not in _COUNTED and key not in _REST:
            raise ValueError(
                f"{key} = {shown(value)} may change how many numbers are trained; that is not counted here"
            )
    if str(fields.get("init_lora_weights")).lower() == "mica":
        raise ValueError("init_lora_weights = 'mica' trains A alone; that is not counted here")
    options = {"rank": fields.get("r", 8)}
    for theirs, (ours, wanted, what) in _COUNTED.items():
        if theirs in fields:
            value = fields[theirs]
            if not isinstance(value, wanted):
                raise TypeError(f"{theirs} must be {what}, got {shown(value)}")
            options[ours] = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
    if "layers" in options:
        layers = options["layers"]
        each = [layers] if isinstance(layers, int) else layers
        options["layers"] = [whole_number("layers_to_transform", layer, minimum=0) for layer in each]
    for name in ("targets", "exclude", "layers_pattern", "modules_to_save", "target_parameters"):
        for each in options.get(name, ()):
            if not isinstance(each, str) or not each:
                raise TypeError(f"{name} must be names of modules, got {shown(each)}")
    return options


def _is_unset(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, (str, list, dict)) and not value)


def _fields(config: str | Path | Mapping[str, Any] | Any) -> Mapping[str, Any]:
    if isinstance(config, Mapping):
        return config
    if isinstance(config, (str, Path)):
        path = Path(config)
        return read_json(path / "adapter_config.json" if path.is_dir() else path)
    if callable(getattr(config, "to_dict", None)):
        return dict(config.to_dict())
    raise TypeError(
        f"config must be an adapter_config.json, its fields or a LoraConfig, got {type(config).__name__}"
    )
