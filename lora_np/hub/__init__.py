"""What lies on disk: safetensors, model directories, names, targets, dtypes, and the families of models."""

from lora_np.hub import gguf, safetensors
from lora_np.hub.families import build_spec, family_names, family_of
from lora_np.hub.llama_cpp import GGUFModel, gguf_name, open_gguf, row_order
from lora_np.hub.matrices import load_matrix
from lora_np.hub.model import ATTENTION, Indices, Kind, Layers, ModelSpec, ModuleSpec, fold
from lora_np.hub.patterns import Expression
from lora_np.hub.picking import Pick, check_patterns, names_of, pick, saved_modules
from lora_np.hub.targets import Matcher, Patterns, Targets, close_names, matcher

__all__ = [
    "ATTENTION",
    "Expression",
    "GGUFModel",
    "Indices",
    "Kind",
    "Layers",
    "Matcher",
    "ModelSpec",
    "ModuleSpec",
    "Patterns",
    "Pick",
    "Targets",
    "build_spec",
    "check_patterns",
    "close_names",
    "family_names",
    "family_of",
    "fold",
    "gguf",
    "gguf_name",
    "load_matrix",
    "matcher",
    "names_of",
    "open_gguf",
    "pick",
    "row_order",
    "safetensors",
    "saved_modules",
]
