"""llama.cpp's adapter files, read and written.

Sources: llama.cpp, ``src/llama-adapter.cpp`` and ``convert_lora_to_gguf.py``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lora_np.adapters.adapter import Adapter, AdapterModule, Stored, header
from lora_np.adapters.scaling import assembled, check_sayable, grouped, parted, rescaled, usual
from lora_np.checks import Array, shown
from lora_np.hub import HubError, TensorInfo, gguf
from lora_np.models import Place, family_names, from_config, llama_cpp_of, named_in, names_for, row_order
from lora_np.quantise import LAYOUTS

_KINDS = {"float64": "F32", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_DTYPES = {**dict.fromkeys(LAYOUTS, "float32"), "F16": "float16", "BF16": "bfloat16"}
_ENDS = {".weight.lora_a": "A", ".weight.lora_b": "B"}
_HEADS = {"num_attention_heads": "attention.head_count", "num_key_value_heads": "attention.head_count_kv"}


def write(adapter: Adapter, path: Path, config: Mapping[str, Any], *, dtype: str | None = None) -> None:
    """One file for a base with this config, one tensor in memory at a time."""
    family = str(config.get("model_type"))
    known = llama_cpp_of(family)
    if known is None:
        names = ", ".join(name for name in family_names() if llama_cpp_of(name))
        raise HubError(f"{path}: llama.cpp's names are known for models of {names}, not of {shown(family)}")
    (architecture, turned), spec = known, from_config(config)
    check_sayable(adapter, "llama.cpp", ("embedding", "parameter"))
    alpha = float(np.float32(usual(module.scale * module.rank for module in adapter.values())))
    layers = spec.layers[0]
    heads = dict(zip(_HEADS, (layers.heads, layers.kv_heads), strict=True)) if turned == "neighbours" else {}
    tied = {name for module in spec.modules if module.tied for name in module.names()}
    tensors: dict[str, Stored] = {}
    for name, module in adapter.items():
        places = names_for("llama_cpp", name.removesuffix(".weight"), family)
        if not places:
            raise HubError(f"{adapter}: llama.cpp has no name for {name!r} of {family}")
        if tied and (module.embedding or name in tied):
            raise HubError(
                f"{adapter}: {name!r} is a tied weight of the base; llama.cpp crashes when one is adapted"
            )
        for place, part in zip(places, parted(module, len(places)), strict=True):
            part = rescaled(part, alpha / part.rank)
            A, B = part.parts["A"], _ordered(name, part.parts["B"], {**config, **heads}, path, back=True)
            tensors[f"{place}.weight.lora_a"] = A.seen(np.transpose) if module.embedding else A
            tensors[f"{place}.weight.lora_b"] = B
    metadata = {
        "general.type": "adapter",
        "general.architecture": architecture,
        "general.name": "LoRA",
        "adapter.type": "lora",
        "adapter.lora.alpha": alpha,
        # llama.cpp knows them from the base; who reads only this file needs them for the order of rows
        **{f"{architecture}.{_HEADS[field]}": count for field, count in heads.items()},
    }
    infos = {
        name: TensorInfo(_KINDS[info.dtype], info.shape) for name, info in header(tensors, dtype).items()
    }
    gguf.write(infos, lambda name: tensors[name].read(), path, metadata=metadata)


def read(
    path: str | os.PathLike[str], config: Mapping[str, Any] | None = None, *, ordered: bool = True
) -> dict[str, AdapterModule]:
    """The modules of a file, rows of q and k in transformers' order or, unless ``ordered``, the file's."""
    file = gguf.open(path)
    said = file.metadata
    for key, wanted in (("general.type", "adapter"), ("adapter.type", "lora")):
        if said.get(key) != wanted:
            raise HubError(f"{path}: {key} is {shown(said.get(key))}, not {wanted!r}: no LoRA for llama.cpp")
    if "adapter.alora.invocation_tokens" in said:
        raise HubError(f"{path}: aLoRA acts from its invocation tokens on, which no change of weights does")
    architecture, alpha = said.get("general.architecture"), said.get("adapter.lora.alpha")
    families = _families(architecture)
    if not families:
        raise HubError(f"{path}: the names of the architecture {shown(architecture)} are not known")
    if config is not None and config.get("model_type") not in families:
        raise HubError(f"{path}: is for {architecture}, but the base is {shown(config.get('model_type'))}")
    base = config or base_of(file)
    found: list[tuple[Place, AdapterModule]] = []
    for key, factors in grouped(file, _ENDS, dtypes=_DTYPES).items():
        place = named_in("llama_cpp", key, families)
        if place is None:
            raise HubError(f"{path}: {shown(key)} has no place in a model of {architecture}")
        embedding = key == "token_embd"
        A, B = factors["A"].seen(np.transpose) if embedding else factors["A"], factors["B"]
        if ordered:
            B = _ordered(place.parameter, B, base, path)
        strength = alpha or float(A.shape[-2])  # without an alpha, or with 0, llama.cpp does not scale
        found.append((place, AdapterModule({"A": A, "B": B}, strength, embedding=embedding)))
    return assembled(path, found)


def base_of(file: gguf.GGUFFile) -> dict[str, Any]:
    """What an adapter's file says of the config of its base: a family with these names, and perhaps heads."""
    architecture = file.metadata.get("general.architecture")
    keys = {key.removesuffix(end) for key in file.tensors for end in _ENDS if key.endswith(end)}
    fitting = {
        name: [key for key in keys if named_in("llama_cpp", key, [name])] for name in _families(architecture)
    }
    family = max(fitting, key=lambda name: len(fitting[name]))
    heads = {field: file.metadata.get(f"{architecture}.{key}") for field, key in _HEADS.items()}
    return {"model_type": family, **{field: heads[field] for field in heads if type(heads[field]) is int}}


def _families(architecture: object) -> list[str]:
    return [name for name in family_names() if (llama_cpp_of(name) or ("",))[0] == architecture]


def _ordered(name: str, B: Stored, config: Mapping[str, Any], path: object, *, back: bool = False) -> Stored:
    """The rows of B in transformers' order, or ``back`` in llama.cpp's."""
    try:
        order = row_order(config, name, B.shape[-2])
    except HubError as error:
        raise HubError(f"{path}: {error}") from None
    except KeyError:  # of the heads
        return replace(B, read=partial(_no_order, f"{path}: {name!r}"))
    if order is None:
        return B
    return B.seen(partial(np.take, indices=np.argsort(order) if back else order, axis=-2))


def _no_order(place: str) -> Array:
    raise HubError(
        f"{place}: llama.cpp keeps its rows in an order that depends on the base, which this file does not "
        "describe: convert it first, with lora-np convert --base MODEL --to peft"
    )
