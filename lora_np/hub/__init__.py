"""Bytes on disk: safetensors, GGUF, bitsandbytes, JSON, and directories of them. It knows no model."""

from lora_np.hub import gguf, safetensors
from lora_np.hub.bitsandbytes import bitsandbytes_parts, bitsandbytes_size, read_bitsandbytes
from lora_np.hub.dtypes import FLOATS, float_dtype, rounded
from lora_np.hub.folders import INDEX, PICKLES, SINGLE, ModelDirectory, directory, inside, open_directory
from lora_np.hub.matrices import load_matrix
from lora_np.hub.reading import HubError, open_regular, read_json
from lora_np.hub.safetensors import SafetensorsFile, SafetensorsWriter
from lora_np.hub.shipped import located, shipped_paths
from lora_np.hub.tensors import TensorInfo

__all__ = [
    "FLOATS",
    "INDEX",
    "PICKLES",
    "SINGLE",
    "HubError",
    "ModelDirectory",
    "SafetensorsFile",
    "SafetensorsWriter",
    "TensorInfo",
    "bitsandbytes_parts",
    "bitsandbytes_size",
    "directory",
    "float_dtype",
    "gguf",
    "inside",
    "load_matrix",
    "located",
    "open_directory",
    "open_regular",
    "read_bitsandbytes",
    "read_json",
    "rounded",
    "safetensors",
    "shipped_paths",
]
