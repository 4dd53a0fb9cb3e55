"""Files of kohya's sd-scripts, which programs for images read, too.

Source: sd-scripts, ``networks/lora.py``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from lora_np.adapters.adapter import Adapter, AdapterModule, Stored, misfit
from lora_np.adapters.peft_format import as_maps, in_file
from lora_np.adapters.scaling import check_sayable, grouped, rescaled, store
from lora_np.hub import HubError, safetensors

_ENDS = {".lora_down.weight": "A", ".lora_up.weight": "B", ".alpha": "alpha"}
_PREFIXES = ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_", "lora_te3_")
_TEXT = ("text_model.", "encoder.block.", "model.", "lm_head")  # how paths in encoders of texts begin


def is_flat(name: str) -> bool:
    """Whether a name is kohya's, in which dots and underscores look alike."""
    return name.startswith(_PREFIXES) and "." not in name


def flat(name: str) -> str:
    """Kohya's name of a module."""
    return name if is_flat(name) else _PREFIXES[name.startswith(_TEXT)] + name.replace(".", "_")


def write(adapter: Adapter, path: Path, *, dtype: str | None = None) -> None:
    """One file, one tensor in memory at a time."""
    check_sayable(adapter, "kohya's format", ("kernel",))
    tensors: dict[str, Stored] = {}
    for name, module in adapter.items():
        place = flat(name)
        if f"{place}.alpha" in tensors:
            raise HubError(f"{adapter}: {name!r} and another module are both {place!r} in kohya's format")
        module = module if module.scale else rescaled(module, 1.0)  # alpha 0 means r
        alpha = np.array(module.scale * module.rank, np.float32)
        tensors[f"{place}.alpha"] = Stored("float32", (), partial(np.copy, alpha))
        tensors[f"{place}.lora_down.weight"] = in_file(module, "A")
        tensors[f"{place}.lora_up.weight"] = in_file(module, "B")
    metadata = {"ss_network_module": "networks.lora", "modelspec.architecture": "lora"}
    for key, numbers in (
        ("ss_network_dim", {module.rank for module in adapter.values()}),
        ("ss_network_alpha", {module.scale * module.rank for module in adapter.values()}),
    ):
        metadata[key] = f"{numbers.pop():g}" if len(numbers) == 1 else "Dynamic"
    store(tensors, path, dtype=dtype, metadata=metadata)


def read(path: str | os.PathLike[str], known: Iterable[str] | None = None) -> dict[str, AdapterModule]:
    """The modules of a file, under the ``known`` names of the base's or, without them, under kohya's."""
    places = grouped(safetensors.open(path), _ENDS)
    names = {place: place for place in places} if known is None else _decoded(path, places, known)
    found: dict[str, AdapterModule] = {}
    for place, parts in places.items():
        alpha = parts.pop("alpha", None)
        if alpha is not None and alpha.size != 1:
            raise HubError(f"{path}: {place!r} must have one number alpha, got shape {alpha.shape}")
        factors, kernel = as_maps(parts, 0)
        if wrong := misfit(factors, f" of {place!r}"):
            raise HubError(f"{path}: {wrong}")
        module = AdapterModule(factors, 1.0, kernel=kernel)
        strength = float(alpha.read().reshape(())) if alpha else 0.0
        found[names[place]] = replace(module, alpha=strength or float(module.rank))
    return found


def _decoded(path: object, places: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """The base's name of each place: the one that is the same once its dots are underscores."""
    flat: dict[str, list[str]] = {}
    for name in known:
        flat.setdefault(name.replace(".", "_"), []).append(name)
    found = {}
    for place in places:
        prefix = next((prefix for prefix in _PREFIXES if place.startswith(prefix)), "")
        names = flat.get(place.removeprefix(prefix), [])
        if len(names) != 1:
            raise HubError(f"{path}: {place!r} is {' or '.join(names) or 'no module'} of the base")
        found[place] = names[0]
    return found
