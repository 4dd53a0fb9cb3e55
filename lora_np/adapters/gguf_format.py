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

from lora_np.adapters.adapter import Adapter, AdapterModule, Stored, header, misfit
from lora_np.adapters.scaling import check_sayable, joined, named_as_peft, parted, rescaled, usual
from lora_np.checks import Array, shown
from lora_np.hub import HubError, TensorInfo, gguf
from lora_np.models import family_names, from_config, interleaved, llama_cpp_of, named_in, names_for

_KINDS = {"float64": "F32", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_DTYPES = {"F16": "float16", "BF16": "bfloat16"}  # others are read as float32
_HEADS = {".self_attn.q_proj": "attention.head_count", ".self_attn.k_proj": "attention.head_count_kv"}


def write(adapter: Adapter, path: Path, config: Mapping[str, Any], *, dtype: str | None = None) -> None:
    """One file for a base with this config, one tensor in memory at a time."""
    family = str(config.get("model_type"))
    known = llama_cpp_of(family)
    if known is None:
        names = ", ".join(name for name in family_names() if llama_cpp_of(name))
        raise HubError(f"{path}: llama.cpp's names are known for models of {names}, not of {shown(family)}")
    architecture, turned = known
    check_sayable(adapter, "llama.cpp", ("embedding", "parameter"))
    alpha = float(np.float32(usual(module.scale * module.rank for module in adapter.values())))
    heads = _heads(config) if turned == "neighbours" else {}
    tied = {name for module in from_config(config).modules if module.tied for name in module.names()}
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
            part = _moved(name, rescaled(part, alpha / part.rank), heads, path, back=True)
            A, B = part.parts["A"], part.parts["B"]
            tensors[f"{place}.weight.lora_a"] = A.seen(np.transpose) if module.embedding else A
            tensors[f"{place}.weight.lora_b"] = B
    metadata = {
        "general.type": "adapter",
        "general.architecture": architecture,
        "general.name": "LoRA",
        "adapter.type": "lora",
        "adapter.lora.alpha": alpha,
        # llama.cpp knows them from the base; who reads only this file needs them for the order of rows
        **{f"{architecture}.{_HEADS[end]}": count for end, count in heads.items()},
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
            raise HubError(
                f"{path}: {key} is {shown(said.get(key))}, not {wanted!r}: not a LoRA for llama.cpp"
            )
    if "adapter.alora.invocation_tokens" in said:
        raise HubError(f"{path}: aLoRA acts from its invocation tokens on, which no change of weights does")
    architecture, alpha = said.get("general.architecture"), said.get("adapter.lora.alpha", 0.0)
    families = {
        name: known for name in family_names() if (known := llama_cpp_of(name)) and known[0] == architecture
    }
    if not families:
        raise HubError(f"{path}: the names of the architecture {shown(architecture)} are not known")
    if config is not None and config.get("model_type") not in families:
        raise HubError(f"{path}: is for {architecture}, but the base is {shown(config.get('model_type'))}")
    pairs: dict[str, dict[str, Stored]] = {}
    for key, info in file.tensors.items():
        name, _, part = key.rpartition(".weight.lora_")
        if part not in ("a", "b"):
            raise HubError(
                f"{path}: {shown(key)} is no factor of a LoRA: llama.cpp ignores it, or refuses the file"
            )
        stored = Stored(_DTYPES.get(info.dtype, "float32"), info.shape, partial(file.read, key))
        pairs.setdefault(name, {})[part.upper()] = stored
    heads: Mapping[str, int] | None = {}
    if ordered and "neighbours" in {turned for _, turned in families.values()}:
        heads = _heads(config) if config else _said_heads(said, str(architecture))
    found: dict[str, list[AdapterModule | None]] = {}
    for key, factors in pairs.items():
        place = named_in("llama_cpp", key, families)
        if place is None or len(factors) != 2:
            what = "has only one factor" if place else f"has no place in a model of {architecture}"
            raise HubError(f"{path}: {shown(key)} {what}")
        embedding = key == "token_embd"
        if embedding:
            factors["A"] = factors["A"].seen(np.transpose)
        if wrong := misfit(factors, f" of {shown(key)}"):
            raise HubError(f"{path}: {wrong}")
        name, parameter = named_as_peft(place.parameter)
        own = AdapterModule(
            factors, alpha or float(factors["A"].shape[-2]), embedding=embedding, parameter=parameter
        )
        found.setdefault(name, [None] * place.parts)[place.part] = _moved(name, own, heads, path)
    return {name: joined(parts) for name, parts in found.items()}


def base_of(path: Path) -> dict[str, Any]:
    """What a file says of the config of its base: a family with these names, and heads."""
    file = gguf.open(path)
    architecture = file.metadata.get("general.architecture")
    families = [name for name in family_names() if (llama_cpp_of(name) or ("",))[0] == architecture]
    names = {key.rpartition(".weight.lora_")[0] for key in file.tensors}
    known = {family: {name for name in names if named_in("llama_cpp", name, [family])} for family in families}
    heads = _said_heads(file.metadata, str(architecture)) or {}
    counts = zip(("num_attention_heads", "num_key_value_heads"), heads.values(), strict=False)
    return {"model_type": max(known, key=lambda family: len(known[family])), **dict(counts)}


def _heads(config: Mapping[str, Any]) -> dict[str, int]:
    """How many heads the rows of each module are for that llama.cpp keeps in another order."""
    layers = from_config(config).layers[0]
    return dict(zip(_HEADS, (layers.heads, layers.kv_heads), strict=True))


def _said_heads(metadata: Mapping[str, Any], architecture: str) -> dict[str, int] | None:
    """The same from the file, if it was written here."""
    found = {end: metadata.get(f"{architecture}.{key}") for end, key in _HEADS.items()}
    return {end: count for end, count in found.items() if type(count) is int and count > 0} or None


def _moved(
    name: str, module: AdapterModule, heads: Mapping[str, int] | None, path: object, *, back: bool = False
) -> AdapterModule:
    """The module with its rows in transformers' order, or ``back`` in llama.cpp's."""
    end = next((end for end in _HEADS if name.endswith(end)), None)
    if end is None or heads == {}:
        return module
    B = module.parts["B"]
    if heads is None:
        moved = replace(B, read=partial(_no_order, f"{path}: {name!r}"))
    else:
        rows, count = B.shape[-2], heads[end]
        if rows % (2 * count):
            raise HubError(f"{path}: {name!r} has {rows} outputs, which {count} heads do not share")
        order = interleaved(rows, count)
        moved = B.seen(partial(np.take, indices=np.argsort(order) if back else order, axis=-2))
    return replace(module, parts={**module.parts, "B": moved})


def _no_order(place: str) -> Array:
    raise HubError(
        f"{place}: llama.cpp keeps its rows in an order that depends on the base, which this file does not "
        "describe: convert it first, with lora-np convert --base MODEL --to peft"
    )
