"""Define LoRA's layers and variants, inject them into a model, and merge them."""

from lora_np.lazy import on_demand

with on_demand(globals()):
    from lora_np.lora.defaults import (
        ALPHA as ALPHA,
        learning_rate as learning_rate,
    )
    from lora_np.lora.injection import (
        adapter_leaves as adapter_leaves,
        inject as inject,
        merge as merge,
    )
    from lora_np.lora.layers import (
        LoRAEmbedding as LoRAEmbedding,
        LoRAExperts as LoRAExperts,
        LoRALinear as LoRALinear,
        TrainableTokens as TrainableTokens,
    )
    from lora_np.lora.merge_methods import (
        MERGE_METHODS as MERGE_METHODS,
        MergeMethod as MergeMethod,
        WeightedUpdate as WeightedUpdate,
    )
    from lora_np.lora.tuners import (
        TUNERS as TUNERS,
        Tuner as Tuner,
        selecting as selecting,
        tuner_of as tuner_of,
    )
    from lora_np.lora.variants import (
        ADAPTED as ADAPTED,
        STARTS as STARTS,
        VARIANTS as VARIANTS,
        DoRALinear as DoRALinear,
        LoftQ as LoftQ,
        Residual as Residual,
        kaiming as kaiming,
        loftq as loftq,
        lora_plus as lora_plus,
        rebase as rebase,
    )
