"""mlx-lm's adapter folders, read and written.

Source: mlx-lm, ``tuner/utils.py``, ``tuner/lora.py`` and ``tuner/dora.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lora_np.adapters.adapter import MLX_WEIGHTS as WEIGHTS, Adapter, AdapterModule, Stored
from lora_np.adapters.scaling import assembled, check_sayable, grouped, padded, parted, rescaled, store, usual
from lora_np.checks import shown
from lora_np.files import write_json
from lora_np.hub import HubError, inside, read_json, safetensors
from lora_np.models import Place, family_names, named_in, names_for

CONFIG = "adapter_config.json"
_PARTS = {"lora_a": "A", "lora_b": "B", "m": "magnitude"}
# whose names of experts are those of all: their modules are called alike in transformers, not in mlx-lm
_FAMILIES = ("qwen3_moe", "mixtral")
_EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "tok_embeddings", "embeddings", "embed_in")


def write(
    adapter: Adapter, folder: Path, config: Mapping[str, Any] | None, *, dtype: str | None = None
) -> None:
    """The two files of a folder, one tensor in memory at a time; ``config`` is the base's, for experts."""
    dora = adapter.has_magnitudes
    check_sayable(adapter, "mlx-lm", ("magnitude",) if dora else ("embedding", "parameter"))
    if dora and (plain := [name for name, module in adapter.items() if "magnitude" not in module.parts]):
        raise HubError(
            f"{adapter}: {plain[0]!r} has no magnitude, but in mlx-lm all modules are DoRA or none"
        )
    scale = usual(module.scale for module in adapter.values())
    rank = max(module.rank for module in adapter.values())
    tensors: dict[str, Stored] = {}
    for name, module in adapter.items():
        names = _names(adapter, name, config)
        for place, part in zip(names, parted(module, len(names)), strict=True):
            parts = padded(rescaled(part, scale), rank).parts
            for suffix, what in _PARTS.items():
                if what in parts:
                    flat = len(parts[what].shape) == 2
                    tensors[f"{place}.{suffix}"] = parts[what].seen(np.transpose) if flat else parts[what]
    wide = any(tensor.dtype == "float64" for tensor in tensors.values())  # which only its CPU has
    store(tensors, folder / WEIGHTS, dtype=dtype or ("float32" if wide else None), metadata={"format": "mlx"})
    said = {
        "model": adapter.raw.get("base_model_name_or_path"),
        "fine_tune_type": "dora" if dora else "lora",
        "num_layers": -1,  # all: `keys` are whole paths, which select the modules one by one
        "lora_parameters": {
            "rank": rank,
            "scale": scale,
            "dropout": 0.0,
            "keys": sorted({key.rpartition(".")[0] for key in tensors}),
        },
    }
    write_json(folder / CONFIG, said)


def _names(adapter: Adapter, name: str, config: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The names of a module's parts in mlx-lm's model."""
    if not adapter[name].parameter:
        return (name,)
    bare, family = name.removesuffix(".weight"), (config or {}).get("model_type")
    names = names_for("mlx", bare, str(family)) if family in family_names() else ()
    if not names and (config is None or ".experts." in name):
        raise HubError(
            f"{adapter}: what mlx-lm calls {name!r} depends on the base: give a known one (--base MODEL)"
        )
    return names or (bare,)


def read(folder: Path) -> dict[str, AdapterModule]:
    """The modules of a folder."""
    path = inside(folder, CONFIG)
    said = read_json(path)
    kind, parameters = said.get("fine_tune_type", "lora"), said.get("lora_parameters")
    if kind not in ("lora", "dora"):
        raise HubError(
            f"{path}: fine_tune_type must be 'lora' or 'dora', got {shown(kind)}; extract makes a LoRA"
        )
    scale = parameters.get("scale") if isinstance(parameters, Mapping) else None
    if isinstance(scale, bool) or not isinstance(scale, (int, float)):
        raise HubError(f"{path}: lora_parameters must have a number scale, got {shown(parameters)}")
    file = safetensors.open(inside(folder, WEIGHTS))
    found = []
    for key, stored in grouped(file, {f".{end}": part for end, part in _PARTS.items()}).items():
        parts = {part: x.seen(np.transpose) if len(x.shape) == 2 else x for part, x in stored.items()}
        if ("magnitude" in parts) != (kind == "dora"):
            raise HubError(f"{file.path}: {key!r} must have m if it is a dora, and only then")
        embedding = key.rpartition(".")[2] in _EMBEDDINGS
        module = AdapterModule(parts, scale * parts["A"].shape[-2], embedding=embedding)
        found.append((named_in("mlx", key, _FAMILIES) or Place(key), module))
    return assembled(file.path, found)
