"""Models on disk: safetensors, GGUF, directories, names, targets, dtypes, and the families of models."""

from lora_np.hub import gguf, safetensors, settings
from lora_np.hub.bitsandbytes import bitsandbytes_parts, bitsandbytes_size, read_bitsandbytes
from lora_np.hub.dtypes import FLOATS, float_dtype, rounded
from lora_np.hub.families import build_spec, family_names, family_of
from lora_np.hub.folders import HEAD, INDEX, PICKLES, SINGLE, ModelDirectory, directory, inside, open_model
from lora_np.hub.llama_cpp import GGUFModel, gguf_name, open_gguf, row_order
from lora_np.hub.matrices import load_matrix
from lora_np.hub.model import ATTENTION, Kind, Layers, ModelSpec, ModuleSpec, fold
from lora_np.hub.names import Place, default_targets, fused_names, names_are_known
from lora_np.hub.patterns import Expression
from lora_np.hub.reading import HubError, open_regular, read_json
from lora_np.hub.safetensors import SafetensorsFile, SafetensorsWriter
from lora_np.hub.shipped import located, shipped_paths
from lora_np.hub.targets import ALL_LINEAR, Patterns, Targets, checked_names, close_names, ends_with, matcher
from lora_np.hub.tensors import TensorInfo

__all__ = [
    "ALL_LINEAR",
    "ATTENTION",
    "FLOATS",
    "HEAD",
    "INDEX",
    "PICKLES",
    "SINGLE",
    "Expression",
    "GGUFModel",
    "HubError",
    "Kind",
    "Layers",
    "ModelDirectory",
    "ModelSpec",
    "ModuleSpec",
    "Patterns",
    "Place",
    "SafetensorsFile",
    "SafetensorsWriter",
    "Targets",
    "TensorInfo",
    "bitsandbytes_parts",
    "bitsandbytes_size",
    "build_spec",
    "checked_names",
    "close_names",
    "default_targets",
    "directory",
    "ends_with",
    "family_names",
    "family_of",
    "float_dtype",
    "fold",
    "fused_names",
    "gguf",
    "gguf_name",
    "inside",
    "load_matrix",
    "located",
    "matcher",
    "names_are_known",
    "open_gguf",
    "open_model",
    "open_regular",
    "read_bitsandbytes",
    "read_json",
    "rounded",
    "row_order",
    "safetensors",
    "settings",
    "shipped_paths",
]
