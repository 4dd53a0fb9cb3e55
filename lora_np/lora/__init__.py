"""LoRA: the layer, putting it into a model, taking it out again."""

from lora_np.lora.init import gaussian, kaiming
from lora_np.lora.inject import adapter_leaves, inject, merge
from lora_np.lora.layer import LoRALinear

__all__ = ["LoRALinear", "adapter_leaves", "gaussian", "inject", "kaiming", "merge"]
