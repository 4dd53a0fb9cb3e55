"""How many parameters, bytes and FLOPs a LoRA costs."""
