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
    from lora_np.accounting.flops import flops_table, forward_flops, training_flops
    from lora_np.accounting.live import ModelCount, count, from_model
    from lora_np.accounting.lora import LoraCount
    from lora_np.accounting.memory import (
        Memory,
        activation_bytes,
        checkpoint_bytes,
        largest_batch,
        largest_rank,
        largest_sequence,
        memory_table,
        optimizer_bytes,
        training_memory,
        weights_bytes,
    )
    from lora_np.accounting.model import ModelSpec, Module
    from lora_np.accounting.paper import paper_bytes_table, paper_table
    from lora_np.accounting.sources import (
        family_table,
        from_config,
        model_spec,
        preset,
        preset_config,
        preset_names,
        preset_table,
    )
    from lora_np.accounting.summary import (
        count_tables,
        parse_names,
        parse_targets,
        rank_table,
        render,
    )
    from lora_np.accounting.units import binary_bytes, decimal_bytes, parse_bytes

# Loaded when first used, so that `import lora_np` stays quick.
_PLACES = {
    "LoraCount": "lora",
    "Memory": "memory",
    "ModelCount": "live",
    "ModelSpec": "model",
    "Module": "model",
    "activation_bytes": "memory",
    "binary_bytes": "units",
    "checkpoint_bytes": "memory",
    "count": "live",
    "count_tables": "summary",
    "decimal_bytes": "units",
    "family_table": "sources",
    "flops_table": "flops",
    "forward_flops": "flops",
    "from_config": "sources",
    "from_model": "live",
    "from_safetensors": "checkpoint",
    "largest_batch": "memory",
    "largest_rank": "memory",
    "largest_sequence": "memory",
    "memory_table": "memory",
    "model_spec": "sources",
    "optimizer_bytes": "memory",
    "paper_bytes_table": "paper",
    "paper_table": "paper",
    "parse_bytes": "units",
    "parse_names": "summary",
    "parse_targets": "summary",
    "preset": "sources",
    "preset_config": "sources",
    "preset_names": "sources",
    "preset_table": "sources",
    "rank_table": "summary",
    "render": "summary",
    "training_flops": "flops",
    "training_memory": "memory",
    "weights_bytes": "memory",
}

__all__ = [
    "LoraCount",
    "Memory",
    "ModelCount",
    "ModelSpec",
    "Module",
    "Table",
    "activation_bytes",
    "binary_bytes",
    "break_even_rank",
    "checkpoint_bytes",
    "count",
    "count_full",
    "count_lora",
    "count_lora_convolution",
    "count_tables",
    "decimal_bytes",
    "family_table",
    "flops_table",
    "forward_flops",
    "from_config",
    "from_model",
    "from_safetensors",
    "largest_batch",
    "largest_rank",
    "largest_sequence",
    "matrix_table",
    "memory_table",
    "model_spec",
    "optimizer_bytes",
    "paper_bytes_table",
    "paper_table",
    "parse_bytes",
    "parse_names",
    "parse_targets",
    "preset",
    "preset_config",
    "preset_names",
    "preset_table",
    "rank_for_budget",
    "rank_table",
    "ratio",
    "render",
    "saving",
    "training_flops",
    "training_memory",
    "weights_bytes",
]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(f"lora_np.accounting.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'lora_np.accounting' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
