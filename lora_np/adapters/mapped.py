"""Adapters of PEFT's other tuners, as what they do to each module: read by the rows of
`lora.MAPS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from lora_np.adapters.adapter import Adapter, AdapterModule, Stored
from lora_np.adapters.peft_format import PREFIX, full_name
from lora_np.checks import Array
from lora_np.files import FileError, errors_at
from lora_np.hub import SafetensorsFile
from lora_np.lora import MAPS, Map, selecting, vector_of
from lora_np.models import peft

Result = TypeVar("Result")
Tensors = Mapping[str, Stored]

_MOST = 2**32  # numbers of a weight; a small file could ask for any number


@dataclass(frozen=True, eq=False, kw_only=True)
class MappedModule(AdapterModule):
    """What a map other than B A does to one module. It has factors too: exact ones, or the update
    and ones.

    Parameters
    ----------
    name : str
        Its path, for messages.
    row : Map
        Its formula.
    settings : mapping of str to object
        Those that the formula takes.
    size : tuple of int, optional
        (d, k), which the file may not say: `on` tells it.
    base : callable, optional
        Reads the weight (d, k), which some formulas take.
    dtype : dtype
        In which it is computed.
    """

    name: str
    row: Map
    settings: Mapping[str, Any]
    size: tuple[int, ...] | None = None
    base: Callable[[], Array] | None = None
    dtype: npt.DTypeLike = np.float32

    def on(self, size: tuple[int, ...]) -> MappedModule:
        """The same module on a weight of this shape; refused if the tensors are for another one."""
        row = self.row
        if len(size) != 2 or min(size) < 1:
            raise FileError(f"{self.name!r}: {row.name} is read for matrices, not for shape {size}")
        try:
            wanted = row.trained(*size, **self.settings)
        except ValueError as error:
            raise FileError(f"{self.name!r} of shape {size}: {error}") from None
        has = {
            key: x.shape for key, x in self.parts.items() if key in wanted or not row.tensors[key]
        }
        if has != wanted:
            raise FileError(
                f"{self.name!r}: on a weight of shape {size}, {row.name} has {wanted}, got {has}"
            )
        return replace(self, size=size)

    def _with_tensors(self, compute: Callable[..., Result]) -> Result:
        W, shape = None, self.shape if self.row.needs("shape") else None
        if self.row.needs("W"):
            if self.base is None:
                raise self.unknown
            W = self.base().astype(self.dtype, copy=False)
        tensors = {name: part.read() for name, part in self.parts.items()}
        tensors = {
            name: x if x.dtype.kind in "iu" else x.astype(self.dtype) for name, x in tensors.items()
        }
        # who uses the result refuses what is not finite
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return compute(tensors, W=W, shape=shape, **self.settings)

    @property
    def unknown(self) -> FileError:
        return FileError(
            f"what {self.row.name} does to {self.name!r} depends on the base: give it (--base)"
        )

    @property
    def moves_bias(self) -> bool:
        """Whether it acts on the outputs, and so on a bias of the base."""
        return self.row.outputs and not self.settings.get("feedforward")

    def delta(self) -> Array:
        return np.asarray(self._with_tensors(self.row.delta))

    def factors(self) -> tuple[Array, Array]:
        if self.exact:
            B, A = self._with_tensors(self.row.lora)
            d, k = self.shape
            # AdaLoRA may leave no direction
            return (B, A) if len(A) else (np.zeros((d, 1), B.dtype), np.zeros((1, k), A.dtype))
        update = self.delta()
        one = np.eye(min(update.shape), dtype=update.dtype)
        return (update, one) if len(one) == update.shape[1] else (one, update)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        if self.size is None:
            raise self.unknown
        return self.size

    @cached_property
    def exact(self) -> bool:
        """Whether it has factors in closed form, of a rank that is not full."""
        return self.row.factors is not None and self.directions < min(self.shape)

    @cached_property
    def directions(self) -> int:
        most = min(self.shape)
        if self.row.factors is None:
            return most
        return min(most, max(1, self.row.count_directions(*self.shape, **self.settings)))

    maps = 1
    scale = 1.0  # it is in the formula


def read_mapped(row: Map, file: SafetensorsFile, raw: Mapping[str, Any], folder: Path) -> Adapter:
    """The tensors of ``file`` by module, every key and every setting accounted for."""
    config = folder / peft.NAME
    try:
        settings = row.settings_by_module(raw)
    except (TypeError, ValueError) as error:
        raise FileError(f"{config}: {error}") from None
    said = peft.parse(config, selecting(raw))
    found: dict[str, dict[str, Stored]] = {}
    whole: dict[str, Stored] = {}  # tensors of the whole model
    others: dict[str, Stored] = {}
    with errors_at(file.path):
        for key, info in file.tensors.items():
            stored = Stored(info.dtype, info.shape, partial(file.read, key))
            holder, own, tensor = key.partition(f".{row.prefix}")
            if own and holder == PREFIX.partition(".")[0]:
                whole[tensor] = stored
            elif own and holder.startswith(PREFIX):
                found.setdefault(holder.removeprefix(PREFIX), {})[tensor] = stored
            else:
                others[key] = stored
        full = {full_name(key, said, found, row.name): stored for key, stored in others.items()}
        for name, parts in found.items() if row is MAPS["TINYLORA"] else ():
            P = parts["P"].read() if "P" in parts else np.zeros(0)
            which = vector_of(P, len(found), settings(name)) if "v.1" in whole else 0
            if f"v.{which}" in whole:
                parts["v"] = whole[f"v.{which}"]
        modules = {
            name: _module(name, row, parts, whole, settings(name)) for name, parts in found.items()
        }
        for name in (name for name in modules if not said.targets(name)):
            raise FileError(
                f"{name!r} is not among the config's target_modules; PEFT would ignore it"
            )
        if not modules:
            raise FileError(
                f"holds no {row.name}, no key such as '{PREFIX}<module>.{row.prefix}...'"
            )
    return Adapter(modules, full, dict(raw), folder)


def _module(
    name: str, row: Map, parts: Tensors, whole: Tensors, settings: Mapping[str, Any]
) -> MappedModule:
    parts = {**whole, **parts}
    named = {
        tensor: parts.pop(tensor.rstrip("_"))
        for tensor in row.tensors
        if tensor.rstrip("_") in parts
    }
    if unread := sorted(parts.keys() - whole.keys()):
        raise FileError(f"{name!r} has {row.key(unread[0])}, which is not read for {row.name}")
    for tensor in (tensor for tensor, must in row.tensors.items() if must and tensor not in named):
        raise FileError(
            f"{name!r} has no {row.key(tensor)}, which PEFT may save or not (save_projection)"
        )
    module = MappedModule(named, 1.0, name=name, row=row, settings=settings)
    if row.size is None:
        return module
    shapes = {tensor: part.shape for tensor, part in named.items()}
    try:
        size = row.size(shapes)
    except IndexError:
        raise FileError(f"{name!r}: {row.name} has no tensors of such shapes: {shapes}") from None
    if prod(size) > _MOST:
        raise FileError(
            f"{name!r}: {row.name} of shape {size} is for a weight of more than {_MOST:,} numbers"
        )
    return module.on(size)
