"""LoRA: the layer, its variants, putting it into a model, taking it out again."""

from lora_np.lora.init import gaussian, kaiming
from lora_np.lora.inject import adapter_leaves, inject, merge
from lora_np.lora.layer import LoRAEmbedding, LoRALinear
from lora_np.lora.riemannian import Preconditioned
from lora_np.lora.variants import VARIANTS, DoRALinear, lora_plus, rebase

__all__ = [
    "VARIANTS",
    "DoRALinear",
    "LoRAEmbedding",
    "LoRALinear",
    "Preconditioned",
    "adapter_leaves",
    "gaussian",
    "inject",
    "kaiming",
    "lora_plus",
    "merge",
    "rebase",
]
