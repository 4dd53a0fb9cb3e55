"""How many parameters, bytes and FLOPs a LoRA costs."""

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

__all__ = [
    "Table",
    "break_even_rank",
    "count_full",
    "count_lora",
    "count_lora_convolution",
    "matrix_table",
    "rank_for_budget",
    "ratio",
    "saving",
]
