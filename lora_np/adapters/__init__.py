"""Adapters as files: read and write PEFT's, look into them, and operate on them without PyTorch."""

from lora_np.adapters.files import AdapterError
from lora_np.adapters.models import attach, save
from lora_np.adapters.peft_format import Adapter, Module, load

__all__ = ["Adapter", "AdapterError", "Module", "attach", "load", "save"]
