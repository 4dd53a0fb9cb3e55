"""How many parameters, bytes and FLOPs a LoRA costs."""

from lora_np.accounting.activations import TrainingOptions
from lora_np.accounting.flops import Flops, count_flops
from lora_np.accounting.lora import LoraCount, ModelCount, count, count_model, model_spec
from lora_np.accounting.matrix import (
    MatrixCount,
    break_even_rank,
    count_full,
    count_lora,
    count_lora_convolution,
    count_matrix,
    rank_for_budget,
    ratio,
)
from lora_np.accounting.memory import (
    Memory,
    MemoryComparison,
    compare_memory,
    largest_batch,
    largest_context,
    largest_rank,
    training_memory,
)
from lora_np.accounting.planning import METHODS, Card, Choice, Plan, cards, plan
from lora_np.accounting.rank_errors import RankErrors, rank_errors_of
from lora_np.accounting.report import CountReport, count_source
from lora_np.models import (
    Catalogue,
    ModelSpec,
    ModuleSpec,
    catalogue,
    from_config,
    from_safetensors,
    preset,
    preset_config,
    preset_names,
)

__all__ = [
    "METHODS",
    "Card",
    "Catalogue",
    "Choice",
    "CountReport",
    "Flops",
    "LoraCount",
    "MatrixCount",
    "Memory",
    "MemoryComparison",
    "ModelCount",
    "ModelSpec",
    "ModuleSpec",
    "Plan",
    "RankErrors",
    "TrainingOptions",
    "break_even_rank",
    "cards",
    "catalogue",
    "compare_memory",
    "count",
    "count_flops",
    "count_full",
    "count_lora",
    "count_lora_convolution",
    "count_matrix",
    "count_model",
    "count_source",
    "from_config",
    "from_safetensors",
    "largest_batch",
    "largest_context",
    "largest_rank",
    "model_spec",
    "plan",
    "preset",
    "preset_config",
    "preset_names",
    "rank_errors_of",
    "rank_for_budget",
    "ratio",
    "training_memory",
]
