"""A whole config of PEFT, a ``LoraConfig`` or another tuner's: its fields, and what `count_model` takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lora_np.checks import shown
from lora_np.hub import read_json
from lora_np.lora import MAPS
from lora_np.models import ALL_LINEAR, ModelSpec, ends_with, matcher, peft

# The settings that decide how many numbers are trained, by what `count_model` calls them.
_OPTIONS = {
    "rank": "r", "targets": "target_modules", "exclude": "exclude_modules",
    "layers": "layers_to_transform", "dora": "use_dora", "blocks": "use_bdlora",
}  # fmt: skip
_ALIKE = (
    "bias", "layers_pattern", "lora_bias", "modules_to_save", "rank_pattern", "target_parameters",
    "trainable_token_indices",
)  # fmt: skip


def config_fields(config: Any) -> dict[str, Any]:
    """What is set, in an ``adapter_config.json``, its directory, its fields, or the object."""
    fields = {}
    for key, value in _fields(config).items():
        if isinstance(value, (set, frozenset, tuple)):
            value = list(value) if isinstance(value, tuple) else sorted(value, key=str)
        elif isinstance(value, Mapping):
            value = dict(value)
        no_module = key == "target_modules" and value is not None  # an empty list of targets says so
        if no_module or value not in (None, "", [], {}):
            fields[key] = value
    return {**fields, "peft_type": getattr(fields.get("peft_type"), "value", fields.get("peft_type", "LORA"))}


def lora_options(spec: ModelSpec, fields: dict[str, Any]) -> dict[str, Any]:
    """What `count_model` takes, from the fields of a LoRA's config."""
    if fields["peft_type"] != "LORA":
        wanted = ", ".join(sorted({name.partition(" ")[0] for name in MAPS}))
        raise ValueError(f"peft_type must be one of {wanted}, got {shown(fields['peft_type'])}")
    fields = {key: value for key, value in fields.items() if value is not False}
    for key, value in fields.items():
        if key == "velora_config" or key not in (*peft.SETTINGS, "alora_invocation_tokens"):
            raise ValueError(f"{key} = {shown(value)} may change how many numbers are trained: not counted")
    peft.check_values(fields)
    task = getattr(fields.get("task_type"), "value", fields.get("task_type"))
    if heads := peft.HEADS.get(str(task), ()):
        parts = {part for module in spec.groups for part in module.name.split(".")}
        there = [head for head in heads if any(part.endswith(head) for part in parts)]
        asked = [name for name in fields.get("modules_to_save", ()) if name not in heads]
        fields["modules_to_save"] = asked + there
    if fields.get("ensure_weight_tying"):
        fields |= _tied(spec, fields)
    options = {ours: fields[theirs] for ours, theirs in _OPTIONS.items() if theirs in fields}
    options |= {name: fields[name] for name in _ALIKE if name in fields}
    return {"rank": 8, "mica": str(fields.get("init_lora_weights")).lower() == "mica", **options}


def _tied(spec: ModelSpec, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What PEFT adapts or trains in full where ``ensure_weight_tying`` adds all that share an embedding.

    It does so if it is asked for one of them by a name that ends as `peft.EMBEDDINGS` do.
    """
    tables = [module for module in spec.modules if module.kind == "embedding" and not module.tied]
    tied = [module.name for module in spec.modules if module.tied]
    saved, targets = fields.get("modules_to_save") or [], fields.get("target_modules") or []
    if not tied or not tables:
        return {}
    if _names_one(saved):
        kept = [end for end in saved if not any(ends_with(name, end) for name in tied)]
        return {"modules_to_save": [*kept, tables[0].name]}
    all_of_them = [tables[0].name, *tied]
    if isinstance(targets, str):
        asked = any(matcher(targets)(name) for name in peft.EMBEDDINGS) and targets.lower() != ALL_LINEAR
        return {"target_modules": "|".join([targets, *map(re.escape, all_of_them)])} if asked else {}
    return {"target_modules": [*targets, *all_of_them]} if _names_one(targets) else {}


def _names_one(ends: Iterable[str]) -> bool:
    return any(end.rpartition(".")[2] in peft.EMBEDDINGS for end in ends)


def _fields(config: Any) -> Mapping[str, Any]:
    if isinstance(config, Mapping):
        return config
    if isinstance(config, (str, Path)):
        path = Path(config)
        return read_json(path / "adapter_config.json" if path.is_dir() else path)
    if callable(getattr(config, "to_dict", None)):
        return dict(config.to_dict())
    raise TypeError(f"config must be an adapter_config.json, its fields or a LoraConfig, got {shown(config)}")
