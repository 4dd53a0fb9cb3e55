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
from lora_np.table import Table

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
    from lora_np.hub.model import ModelSpec, Module
    from lora_np.table import binary_bytes, decimal_bytes, parse_bytes

# Loaded when first used, so that `import lora_np` stays quick.
_PLACES = {
    "LoraCount": "lora_np.accounting.lora",
    "Memory": "lora_np.accounting.memory",
    "ModelCount": "lora_np.accounting.live",
    "ModelSpec": "lora_np.hub.model",
    "Module": "lora_np.hub.model",
    "activation_bytes": "lora_np.accounting.memory",
    "binary_bytes": "lora_np.table",
    "checkpoint_bytes": "lora_np.accounting.memory",
    "count": "lora_np.accounting.live",
    "count_tables": "lora_np.accounting.summary",
    "decimal_bytes": "lora_np.table",
    "family_table": "lora_np.accounting.sources",
    "flops_table": "lora_np.accounting.flops",
    "forward_flops": "lora_np.accounting.flops",
    "from_config": "lora_np.accounting.sources",
    "from_model": "lora_np.accounting.live",
    "from_safetensors": "lora_np.accounting.checkpoint",
    "largest_batch": "lora_np.accounting.memory",
    "largest_rank": "lora_np.accounting.memory",
    "largest_sequence": "lora_np.accounting.memory",
    "memory_table": "lora_np.accounting.memory",
    "model_spec": "lora_np.accounting.sources",
    "optimizer_bytes": "lora_np.accounting.memory",
    "paper_bytes_table": "lora_np.accounting.paper",
    "paper_table": "lora_np.accounting.paper",
    "parse_bytes": "lora_np.table",
    "parse_names": "lora_np.accounting.summary",
    "parse_targets": "lora_np.accounting.summary",
    "preset": "lora_np.accounting.sources",
    "preset_config": "lora_np.accounting.sources",
    "preset_names": "lora_np.accounting.sources",
    "preset_table": "lora_np.accounting.sources",
    "rank_table": "lora_np.accounting.summary",
    "render": "lora_np.accounting.summary",
    "training_flops": "lora_np.accounting.flops",
    "training_memory": "lora_np.accounting.memory",
    "weights_bytes": "lora_np.accounting.memory",
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
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'lora_np.accounting' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
