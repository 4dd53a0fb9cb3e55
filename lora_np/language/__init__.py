"""Language models of the Llama family: load, adapt, generate, in plain NumPy.

A path in a model is the name that transformers has for the module there, so `lora_np.inject`,
`lora_np.adapters.save` and `attach` need no mapping.
"""

from lora_np.language.adapting import Adapted, finetune
from lora_np.language.decoder import LanguageModel, build, composed_operations
from lora_np.language.generation import generate
from lora_np.language.gguf_adapters import save_gguf_adapter
from lora_np.language.storing import load, located_adapter, read_text, save, shipped
from lora_np.language.text import Likelihood, likelihood, token_loss, windows
from lora_np.language.vocabulary import Characters, Subwords, read_vocabulary

__all__ = [
    "Adapted",
    "Characters",
    "LanguageModel",
    "Likelihood",
    "Subwords",
    "build",
    "composed_operations",
    "finetune",
    "generate",
    "likelihood",
    "load",
    "located_adapter",
    "read_text",
    "read_vocabulary",
    "save",
    "save_gguf_adapter",
    "shipped",
    "token_loss",
    "windows",
]
