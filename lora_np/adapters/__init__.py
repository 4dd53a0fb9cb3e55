"""Adapters as files: read and write PEFT's, look into them, and operate on them without PyTorch."""

from lora_np.adapters.combining import CombinedModule, CombineResult, combine
from lora_np.adapters.difference import ComparedPart, Difference, diff
from lora_np.adapters.extraction import ExtractedTensor, ExtractResult, extract
from lora_np.adapters.inspection import InspectedModule, Inspection, inspect
from lora_np.adapters.merging import MergedTensor, MergeResult, merge
from lora_np.adapters.models import attach, save
from lora_np.adapters.module import AdapterModule
from lora_np.adapters.peft_format import Adapter, load
from lora_np.adapters.resizing import ResizedModule, ResizeResult, resize

__all__ = [
    "Adapter",
    "AdapterModule",
    "CombineResult",
    "CombinedModule",
    "ComparedPart",
    "Difference",
    "ExtractResult",
    "ExtractedTensor",
    "InspectedModule",
    "Inspection",
    "MergeResult",
    "MergedTensor",
    "ResizeResult",
    "ResizedModule",
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
