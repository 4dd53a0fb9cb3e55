"""A model of a directory in a GGUF file, for what begins with such a file."""

from __future__ import annotations

from typing import Any

import numpy as np

from lora_np.checks import StrPath
from lora_np.hub import TensorInfo, directory, gguf
from lora_np.models import as_stored, decoder_of, open_model
from lora_np.quantise import LAYOUTS, Blocks, quantise

KEYS = {
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "context_length": "max_position_embeddings",
    "rope.freq_base": "rope_theta",
}


def write(model: StrPath, path: StrPath, *, kind: str = "F32") -> None:
    """Write a small Llama, without its vocabulary; matrices are in blocks of a kind.

    Rows that are no whole blocks stay in F16.
    """
    source = open_model(directory(model))
    tensors: dict[str, Any] = {}
    for name, parameter in source.parameters.items():
        W = as_stored(source.config, name, parameter.whole().astype(np.float32))
        module, _, part = name.rpartition(".")
        (theirs,) = source.dialects.names_in("llama_cpp", module)
        own = "F32" if W.ndim == 1 else "F16" if W.shape[-1] % LAYOUTS[kind].entries else kind
        tensors[f"{theirs}.{part}"] = W if own == "F32" else quantise(W, own)
    fields = decoder_of(source.config).fields
    metadata: dict[str, Any] = {
        "general.architecture": "llama",
        "general.type": "model",
        **{f"llama.{key}": fields[name] for key, name in KEYS.items() if name in fields},
    }
    infos = {
        name: TensorInfo(x.kind if isinstance(x, Blocks) else "F32", x.shape)
        for name, x in tensors.items()
    }
    gguf.write(infos, tensors.__getitem__, path, metadata=metadata)
