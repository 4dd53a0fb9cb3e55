"""How many parameters, bytes and FLOPs a LoRA costs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lora_np.accounting.matrix import (
    break_even_rank,
    count_full,
    count_lora,
    count_lora_convolution,
    matrix_table,
    rank_for_budget,
    ratio,
    saving,
)
from lora_np.accounting.report import Table

if TYPE_CHECKING:
    from lora_np.accounting.checkpoint import from_safetensors
    from lora_np.accounting.live import ModelCount, count, from_model
    from lora_np.accounting.lora import LoraCount
    from lora_np.accounting.model import ModelSpec, Module
    from lora_np.accounting.sources import (
        family_table,
        from_config,
        model_spec,
        preset,
        preset_config,
        preset_names,
        preset_table,
    )

# Loaded when first used, so that `import lora_np` stays quick.
_PLACES = {
    "LoraCount": "lora",
    "ModelCount": "live",
    "ModelSpec": "model",
    "Module": "model",
    "count": "live",
    "family_table": "sources",
    "from_config": "sources",
    "from_model": "live",
    "from_safetensors": "checkpoint",
    "model_spec": "sources",
    "preset": "sources",
    "preset_config": "sources",
    "preset_names": "sources",
    "preset_table": "sources",
}

__all__ = [
    "LoraCount",
    "ModelCount",
    "ModelSpec",
    "Module",
    "Table",
    "break_even_rank",
    "count",
    "count_full",
    "count_lora",
    "count_lora_convolution",
    "family_table",
    "from_config",
    "from_model",
    "from_safetensors",
    "matrix_table",
    "model_spec",
    "preset",
    "preset_config",
    "preset_names",
    "preset_table",
    "rank_for_budget",
    "ratio",
    "saving",
]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(f"lora_np.accounting.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'lora_np.accounting' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
