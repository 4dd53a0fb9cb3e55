"""How many parameters, bytes and FLOPs a LoRA costs."""

from lora_np.accounting.checkpoint import from_safetensors
from lora_np.accounting.flops import flops_table, forward_flops, training_flops
from lora_np.accounting.live import ModelCount, count, from_model
from lora_np.accounting.lora import LoraCount, count_model
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
from lora_np.accounting.summary import count_tables, parse_names, parse_targets, rank_table, render
from lora_np.hub.model import ModelSpec, ModuleSpec
from lora_np.table import Table, binary_bytes, decimal_bytes, parse_bytes

__all__ = [
    "LoraCount",
    "Memory",
    "ModelCount",
    "ModelSpec",
    "ModuleSpec",
    "Table",
    "activation_bytes",
    "binary_bytes",
    "break_even_rank",
    "checkpoint_bytes",
    "count",
    "count_full",
    "count_lora",
    "count_lora_convolution",
    "count_model",
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
