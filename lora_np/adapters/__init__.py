"""Adapters as files: read and write PEFT's, look into them, and operate on them without PyTorch."""

from lora_np.adapters.combine import combine
from lora_np.adapters.difference import Difference, diff
from lora_np.adapters.extract import extract
from lora_np.adapters.inspection import Inspection, inspect
from lora_np.adapters.merge import merge
from lora_np.adapters.models import attach, save
from lora_np.adapters.peft_format import Adapter, Module, load
from lora_np.adapters.resize import resize

__all__ = [
    "Adapter",
    "Difference",
    "Inspection",
    "Module",
    "attach",
    "combine",
    "diff",
    "extract",
    "inspect",
    "load",
    "merge",
    "resize",
    "save",
]
