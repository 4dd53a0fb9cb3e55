"""Read adapters trained by PEFT's tuners other than LoRA, which `lora.TUNERS` describes."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from lora_np.adapters.adapter import Adapter, AdapterModule, Stored, TunedUpdate
from lora_np.adapters.peft_format import PREFIX, REPAIR, full_name
from lora_np.files import FileError, errors_at
from lora_np.hub import SafetensorsFile
from lora_np.lora import Tuner, selecting
from lora_np.models import peft

Tensors = Mapping[str, Stored]

# limits the entries of a weight, so that a small file cannot declare a huge weight
_MOST = 2**32


def read_tuner(
    tuner: Tuner, file: SafetensorsFile, raw: Mapping[str, Any], folder: Path
) -> Adapter:
    """Read an adapter from ``file``; raise an error if keys or settings do not fit the tuner."""
    config = folder / peft.NAME
    try:
        settings = tuner.settings_by_module(raw)
    except (TypeError, ValueError) as error:
        raise FileError(f"{config}: {error}") from None
    parsed = peft.parse(config, selecting(raw))
    parts: dict[str, dict[str, Stored]] = {}
    shared: dict[str, Stored] = {}  # tensors that all modules share, such as VeRA's projections
    others: dict[str, Stored] = {}
    with errors_at(file.path):
        for key in file.tensors:
            stored = Stored.of(file, key)
            holder, own, tensor = key.partition(f".{tuner.prefix}")
            if own and holder == PREFIX.partition(".")[0]:
                shared[tensor] = stored
            elif own and holder.startswith(PREFIX):
                parts.setdefault(holder.removeprefix(PREFIX), {})[tensor] = stored
            else:
                others[key] = stored
        full = {full_name(key, parsed, parts, tuner.name): others[key] for key in others}
        modules = {
            name: _module(name, tuner, own, shared, settings(name)) for name, own in parts.items()
        }
        for name in (name for name in modules if not parsed.targets(name)):
            raise FileError(
                f"{name!r} is not among the config's target_modules; PEFT would ignore it{REPAIR}"
            )
        if not modules:
            raise FileError(
                f"holds no {tuner.name}: it has no key such as '{PREFIX}<module>.{tuner.prefix}...'"
            )
    return Adapter(modules, full, dict(raw), folder)


def _module(
    name: str, tuner: Tuner, own: Tensors, shared: Tensors, settings: Mapping[str, float]
) -> AdapterModule:
    """Make a module from its own and the shared tensors, after checking their names and shapes."""
    if unread := sorted(own.keys() - tuner.tensors.keys()):
        raise FileError(
            f"{name!r} has {tuner.prefix}{unread[0]}, which is not a tensor of {tuner.name}"
        )
    tensors = {
        key: own.get(key) or shared[key] for key in tuner.tensors if key in {**shared, **own}
    }
    if missing := [key for key, must in tuner.tensors.items() if must and key not in tensors]:
        raise FileError(
            f"{name!r} has no {tuner.prefix}{missing[0]}; PEFT saves it with save_projection=True"
        )
    update = TunedUpdate(name, tuner, settings, tensors)
    if tuner.size is not None:
        shapes = {key: tensor.shape for key, tensor in tensors.items()}
        try:
            size = tuner.size(shapes)
        except IndexError:
            raise FileError(
                f"{name!r}: {tuner.name} has no tensors of such shapes: {shapes}"
            ) from None
        if prod(size) > _MOST:
            raise FileError(
                f"{name!r}: {tuner.name} of shape {size} is for a weight of more than "
                f"{_MOST:,} parameters"
            )
        update = update.on(size)
    return AdapterModule(tensors, 1.0, tuned=update)
