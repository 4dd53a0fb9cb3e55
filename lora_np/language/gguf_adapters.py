"""Adapters as llama.cpp reads them: one GGUF file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from lora_np.autograd import value
from lora_np.checks import Array, choice, float_name
from lora_np.hub import gguf
from lora_np.lora import LoRALinear, adapter_leaves
from lora_np.models import gguf_name, row_order
from lora_np.nn import Linear, replace

DTYPES: Mapping[str, Any] = {"float32": np.float32, "float16": np.float16}


def save_gguf_adapter(model: Any, path: str | os.PathLike[str], *, dtype: str = "float32") -> None:
    """Write the adapters of a language model as a GGUF file for ``llama-cli --lora``.

    Parameters
    ----------
    model : LanguageModel
        With adapters on linear layers, made by `lora_np.inject` or `lora_np.adapters.attach`.
    path : str or path-like
        The file; replaced as a whole.
    dtype : {"float32", "float16"}
        Of the numbers in the file.

    Raises
    ------
    ValueError
        If the model has no adapter, one that llama.cpp cannot apply (DoRA, embeddings, a moved base), or its
        family is not one whose names are known.
    OSError
        If the file cannot be written.

    See Also
    --------
    lora_np.adapters.save : The same for PEFT.

    Notes
    -----
    llama.cpp has one alpha for the whole file: where scales differ, they go into B. It reorders the rows of q
    and k in models of the family llama, and so those of their B.
    """
    float_name(dtype, list(DTYPES))
    config = model.config
    layers: dict[str, LoRALinear] = {}
    replace(model, LoRALinear, layers.setdefault)
    known = {id(a) for layer in layers.values() for a in (layer.A, layer.B)}
    left = [place for place, a in adapter_leaves(model) if id(a) not in known]
    if not layers or left:
        raise ValueError(f"llama.cpp applies LoRA on linear layers only, got {left[0] if left else 'none'}")
    family = choice("the model's family", config["model_type"], ("llama", "qwen2", "qwen3"))
    alpha = next(iter(layers.values())).alpha
    tensors: dict[str, Array] = {}
    for place, layer in layers.items():
        name = gguf_name(place, family)
        if name is None:
            raise ValueError(f"llama.cpp has no name for {place}")
        if type(layer.base) is not Linear:
            raise ValueError(
                f"the base of {place} is no longer W0: save lora_np.lora.rebase(model, original)"
            )
        A, B = value(layer.A), value(layer.B)
        if layer.alpha != alpha:
            B = B * (layer.alpha / alpha)
        order = row_order(config, place)
        if order is not None:
            B = B[np.argsort(order)]
        tensors[f"{name}.weight.lora_a"] = A.astype(DTYPES[dtype])
        tensors[f"{name}.weight.lora_b"] = B.astype(DTYPES[dtype])
    metadata = {
        "general.type": "adapter",
        "general.architecture": family,
        "general.name": "LoRA",
        "adapter.type": "lora",
        "adapter.lora.alpha": alpha,
    }
    gguf.save(tensors, path, metadata=metadata)
