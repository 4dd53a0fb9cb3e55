"""How many parameters, bytes and FLOPs a LoRA costs."""

from lora_np.accounting.activations import TrainingOptions
from lora_np.accounting.errors import RankErrors, rank_errors_of
from lora_np.accounting.flops import Flops, count_flops
from lora_np.accounting.live import ModelCount, count, from_model, model_spec
from lora_np.accounting.lora import LoraCount, count_model
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
    largest_rank,
    largest_sequence,
    training_memory,
)
from lora_np.accounting.paper import PaperClaims, paper_claims
from lora_np.accounting.planning import METHODS, Card, Choice, Plan, cards, plan
from lora_np.accounting.settings import count_config
from lora_np.accounting.summary import CountReport, count_source
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
    "PaperClaims",
    "Plan",
    "RankErrors",
    "TrainingOptions",
    "break_even_rank",
    "cards",
    "catalogue",
    "compare_memory",
    "count",
    "count_config",
    "count_flops",
    "count_full",
    "count_lora",
    "count_lora_convolution",
    "count_matrix",
    "count_model",
    "count_source",
    "from_config",
    "from_model",
    "from_safetensors",
    "largest_batch",
    "largest_rank",
    "largest_sequence",
    "model_spec",
    "paper_claims",
    "plan",
    "preset",
    "preset_config",
    "preset_names",
    "rank_errors_of",
    "rank_for_budget",
    "ratio",
    "training_memory",
]
