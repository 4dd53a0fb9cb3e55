"""LoRA: the layer, its variants, putting it into a model, taking it out again."""

from lora_np.lora.initial import gaussian, kaiming
from lora_np.lora.injection import adapter_leaves, inject, merge
from lora_np.lora.layers import LoRAEmbedding, LoRALinear
from lora_np.lora.low_bits import (
    LoftQ,
    QuantisedMerge,
    QuantisedModule,
    QuantisedStart,
    RequantisedModule,
    inject_quantised,
    loftq,
    merge_quantised,
)
from lora_np.lora.variants import ADAPTED, VARIANTS, DoRALinear, Residual, lora_plus, rebase

__all__ = [
    "ADAPTED",
    "VARIANTS",
    "DoRALinear",
    "LoRAEmbedding",
    "LoRALinear",
    "LoftQ",
    "QuantisedMerge",
    "QuantisedModule",
    "QuantisedStart",
    "RequantisedModule",
    "Residual",
    "adapter_leaves",
    "gaussian",
    "inject",
    "inject_quantised",
    "kaiming",
    "loftq",
    "lora_plus",
    "merge",
    "merge_quantised",
    "rebase",
]
