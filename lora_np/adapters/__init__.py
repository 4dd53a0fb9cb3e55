"""Adapters as files: read and write PEFT's, look into them, and operate on them without PyTorch."""

from lora_np.adapters.adapter import Adapter, AdapterModule
from lora_np.adapters.combining import CombinedModule, combine
from lora_np.adapters.difference import ComparedPart, Difference, diff
from lora_np.adapters.extraction import ExtractedTensor, extract
from lora_np.adapters.inspection import InspectedModule, Inspection, inspect
from lora_np.adapters.merging import MergedTensor, merge
from lora_np.adapters.models import attach, save
from lora_np.adapters.peft_format import load
from lora_np.adapters.resizing import ResizedModule, ResizeResult, resize
from lora_np.adapters.steps import Written

__all__ = [
    "Adapter",
    "AdapterModule",
    "CombinedModule",
    "ComparedPart",
    "Difference",
    "ExtractedTensor",
    "InspectedModule",
    "Inspection",
    "MergedTensor",
    "ResizeResult",
    "ResizedModule",
    "Written",
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
