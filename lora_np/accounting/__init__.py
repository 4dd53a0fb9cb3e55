"""Count the parameters, bytes and FLOPs that a LoRA costs."""

from lora_np.lazy import on_demand

with on_demand(globals()):
    from lora_np.accounting.activations import TrainingOptions as TrainingOptions
    from lora_np.accounting.bits import Capacity as Capacity, capacity as capacity
    from lora_np.accounting.lora import (
        LoraCount as LoraCount,
        ModelCount as ModelCount,
        count as count,
        count_model as count_model,
        model_spec as model_spec,
    )
    from lora_np.accounting.matrix import (
        MatrixCount as MatrixCount,
        break_even_rank as break_even_rank,
        count_full as count_full,
        count_lora as count_lora,
        count_matrix as count_matrix,
        rank_for_budget as rank_for_budget,
        ratio as ratio,
    )
    from lora_np.accounting.memory import (
        Memory as Memory,
        MemoryComparison as MemoryComparison,
        MemoryTerms as MemoryTerms,
        compare_memory as compare_memory,
        largest_batch as largest_batch,
        largest_max_length as largest_max_length,
        largest_rank as largest_rank,
        memory_terms as memory_terms,
        training_memory as training_memory,
    )
    from lora_np.accounting.planning import (
        GPU as GPU,
        Choice as Choice,
        Flops as Flops,
        Plan as Plan,
        Remedy as Remedy,
        count_flops as count_flops,
        gpus as gpus,
        plan as plan,
    )
    from lora_np.accounting.rank_errors import (
        RankErrors as RankErrors,
        rank_errors_of as rank_errors_of,
    )
