"""What a model is: its modules, their kinds and names, which of them `targets` mean, how it computes."""

from lora_np.models import peft
from lora_np.models.checkpoint import HEAD, OpenModel, open_model
from lora_np.models.expressions import Expression
from lora_np.models.families import build_spec, family_names, family_of
from lora_np.models.headers import from_safetensors
from lora_np.models.live import from_named_modules
from lora_np.models.llama_cpp import GGUFModel, gguf_name, open_gguf, row_order
from lora_np.models.names import Place, default_targets, fused_names, names_are_known
from lora_np.models.selection import Pick, check_patterns, pick, saved_modules
from lora_np.models.sources import (
    Catalogue,
    catalogue,
    describe,
    from_config,
    matrix_size,
    preset,
    preset_config,
    preset_names,
)
from lora_np.models.spec import ATTENTION, Kind, Layers, ModelSpec, ModuleSpec, fold
from lora_np.models.targets import ALL_LINEAR, Patterns, Targets, checked_names, ends_with, matcher

__all__ = [
    "ALL_LINEAR",
    "ATTENTION",
    "HEAD",
    "Catalogue",
    "Expression",
    "GGUFModel",
    "Kind",
    "Layers",
    "ModelSpec",
    "ModuleSpec",
    "OpenModel",
    "Patterns",
    "Pick",
    "Place",
    "Targets",
    "build_spec",
    "catalogue",
    "check_patterns",
    "checked_names",
    "default_targets",
    "describe",
    "ends_with",
    "family_names",
    "family_of",
    "fold",
    "from_config",
    "from_named_modules",
    "from_safetensors",
    "fused_names",
    "gguf_name",
    "matcher",
    "matrix_size",
    "names_are_known",
    "open_gguf",
    "open_model",
    "peft",
    "pick",
    "preset",
    "preset_config",
    "preset_names",
    "row_order",
    "saved_modules",
]
