"""Adapters of PEFT's other tuners, read as what they do to each module: by the rows of `lora_np.lora.MAPS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lora_np.adapters.adapter import Adapter, AdapterModule, Stored
from lora_np.checks import Array
from lora_np.hub import HubError, safetensors
from lora_np.lora import SELECTING, Map, map_of
from lora_np.models import peft

Result = TypeVar("Result")

_BASE = "base_layer"  # what PEFT calls a module inside the one that replaces it
_TOP_K = ("_topk_indices", "_topk_weights")  # of VB-LoRA, instead of the logits


@dataclass(frozen=True, eq=False, kw_only=True)
class MappedModule(AdapterModule):
    """What a map other than B A does to one module; `on` gives it the weight, which some rows need.

    Parameters
    ----------
    name : str
        Its path, for messages.
    row : Map
        Its formula.
    settings : mapping of str to object
        Those that the formula takes.
    shared : mapping of str to Stored
        Tensors of the whole model.
    size : tuple of int, optional
        (d, k), where the file or the base says it.
    base : callable, optional
        Reads the weight (d, k).
    """

    name: str
    row: Map
    settings: Mapping[str, Any]
    shared: Mapping[str, Stored]
    size: tuple[int, ...] | None = None
    base: Callable[[], Array] | None = None

    def on(self, size: tuple[int, ...], base: Callable[[], Array] | None = None) -> MappedModule:
        """The same module on a weight of this shape."""
        if self.size not in (None, size):
            raise HubError(f"{self.name!r} is for a weight of shape {self.size}, not {size}")
        if len(size) != 2:
            raise HubError(f"{self.name!r}: {self.row.name} is read for matrices, not for shape {size}")
        found = replace(self, size=size, base=base)
        found.check()
        return found

    def check(self) -> None:
        """Refuse tensors of other shapes than the row's."""
        if self.size is None:
            return
        d, k = self.size
        try:
            wanted = self.row.trained(d, k, **self.settings)
        except ValueError as error:
            raise HubError(f"{self.name!r} of shape {self.size}: {error}") from None
        optional = {name for name, must in self.row.tensors.items() if not must}
        for name in {*wanted, *(optional & self.parts.keys())}:
            has = self.parts[name].shape if name in self.parts else None
            if has != wanted.get(name):
                raise HubError(
                    f"{self.row.key(name)} of {self.name!r} must have shape {wanted.get(name)}, got {has}"
                )

    @cached_property
    def shape(self) -> tuple[int, ...]:
        if self.size is None:
            raise HubError(
                f"the file does not say the shape of {self.name!r}, on which {self.row.name} depends: "
                "give the base model (--base)"
            )
        return self.size

    @property
    def moves_bias(self) -> bool:
        """Whether it acts on the outputs, and so on a bias of the base."""
        return self.row.outputs and not self.settings.get("feedforward")

    def _with_tensors(self, compute: Callable[..., Result]) -> Result:
        W = self.base() if self.base is not None else None
        if W is None and "W" in self.row.parameters:
            raise HubError(
                f"{self.row.name} changes the base's own weight of {self.name!r}: give it (--base)"
            )
        shape = self.shape if "shape" in self.row.parameters else None
        wide = np.float32 if W is None else np.result_type(W, np.float32)
        tensors = {name: part.read() for name, part in {**self.shared, **self.parts}.items()}
        floats = {
            name: x.astype(np.result_type(x, wide)) if x.dtype.kind == "f" else x
            for name, x in tensors.items()
        }
        with np.errstate(
            over="ignore", invalid="ignore", divide="ignore"
        ):  # what is not finite is told later
            return compute(floats, W=W, shape=shape, **self.settings)

    def delta(self) -> Array:
        update: Array = self._with_tensors(self.row.delta)
        return update

    def factors(self) -> tuple[Array, Array]:
        """``(B, A)``: in closed form, or the update and an identity."""
        if self.row.factors is not None:
            return self._with_tensors(self.row.lora)
        update = self.delta()
        d, k = update.shape
        one = np.eye(min(d, k), dtype=update.dtype)
        return (update, one) if k <= d else (one, update)

    @cached_property
    def directions(self) -> int:
        return min(self.shape) if self.row.factors is None else len(self.factors()[1])

    maps = cached_property(lambda self: 1)
    scale = cached_property(lambda self: 1.0)  # it is in the formula
    rank = cached_property(lambda self: self.directions)

    @property
    def A(self) -> Array:
        return self.factors()[1]

    @property
    def B(self) -> Array:
        return self.factors()[0]

    def with_factors(self, *, B: Stored, A: Stored) -> AdapterModule:
        return AdapterModule({"B": B, "A": A}, alpha=float(A.shape[0]))


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class MappedAdapter(Adapter):
    """An adapter of another tuner than LoRA.

    Parameters
    ----------
    row : Map
        The tuner.
    shared : mapping of str to Stored
        Tensors of the whole model.
    """

    row: Map
    shared: Mapping[str, Stored]

    @property
    def stored(self) -> list[Stored]:
        return [*super().stored, *self.shared.values()]

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.raw)


def read(
    file: safetensors.SafetensorsFile, raw: Mapping[str, Any], folder: Path, prefix: str
) -> MappedAdapter:
    """The tensors of ``file`` by module, every key and every setting accounted for."""
    row = map_of(raw)
    assert row is not None
    try:
        return _interpreted(row, file, raw, folder, prefix)
    except HubError as error:
        raise HubError(f"{file.path}: {error}") from None
    except (TypeError, ValueError) as error:  # a setting
        raise HubError(f"{folder / peft.NAME}: {error}") from None


def _interpreted(
    row: Map, file: safetensors.SafetensorsFile, raw: Mapping[str, Any], folder: Path, prefix: str
) -> MappedAdapter:
    settings = row.settings_by_module(raw)
    chosen = {key: raw[key] for key in SELECTING if key in raw}
    bias = str(chosen.get("bias") or "none")
    chosen["bias"] = "lora_only" if bias.endswith("_only") else bias
    said = peft.parse(folder / peft.NAME, {"peft_type": "LORA", **chosen})
    endings = {row.key(name) + end: name + end for name in row.tensors for end in ("", *_TOP_K)}
    whole_model = prefix.removesuffix("model.")
    found: dict[str, dict[str, Stored]] = {}
    shared: dict[str, Stored] = {}
    full: dict[str, Stored] = {}
    for key, info in file.tensors.items():
        stored = Stored(info.dtype, info.shape, partial(file.read, key))
        own = key.removeprefix(prefix)
        ending = next((end for end in endings if own.endswith(f".{end}")), None)
        outer = key.removeprefix(whole_model).removeprefix(row.prefix)
        if key.startswith(prefix) and ending:
            found.setdefault(own.removesuffix(f".{ending}"), {})[endings[ending]] = stored
        elif key.startswith(whole_model + row.prefix):
            shared[outer] = stored
        elif key.startswith(prefix):
            module, _, parameter = own.rpartition(".")
            biased = parameter == "bias" and bias != "none"
            if not (said.saves(module) or biased):
                raise HubError(f"{key!r} belongs to no {row.name}, modules_to_save or trained bias")
            full[f"{module.removesuffix('.' + _BASE)}.{parameter}"] = stored
        else:
            raise HubError(f"{key!r} does not begin with {prefix!r}; PEFT would ignore it")
    modules = {}
    for name, parts in found.items():
        if not said.targets(name):
            raise HubError(f"{name!r} is not among the config's target_modules; PEFT would ignore it")
        parts = _logits(parts, shared)
        of_model = {name: shared[name] for name in row.tensors if name in shared and name not in parts}
        for tensor, must in row.tensors.items():
            if must and tensor not in parts and tensor not in of_model:
                hint = "; save the adapter with save_projection = true" * (
                    raw.get("save_projection") is False
                )
                raise HubError(f"{name!r} has no {row.key(tensor)}{hint}")
        shapes = {tensor: each.shape for tensor, each in {**of_model, **parts}.items()}
        try:
            size = row.size(shapes) if row.size else None
        except IndexError:
            raise HubError(
                f"the tensors of {name!r} do not have the shapes of {row.name}: {shapes}"
            ) from None
        alpha = float(settings(name).get("alpha", 1.0))
        modules[name] = MappedModule(
            parts, alpha, name=name, row=row, settings=settings(name), shared=of_model, size=size
        )
        modules[name].check()
    if not modules:
        raise HubError(f"holds no {row.name}, no key such as '{prefix}<module>.{next(iter(endings))}'")
    return MappedAdapter(modules, full, dict(raw), folder, row=row, shared=shared)


def _logits(parts: Mapping[str, Stored], shared: Mapping[str, Stored]) -> dict[str, Stored]:
    """VB-LoRA's logits, also from the weights of the largest that a file may hold instead."""
    indices, weights = _TOP_K
    found = {name: part for name, part in parts.items() if not name.endswith(_TOP_K)}
    for name in [each.removesuffix(indices) for each in parts if each.endswith(indices)]:
        where, how_much, bank = parts[name + indices], parts.get(name + weights), shared.get("vector_bank")
        if how_much is None or bank is None:
            raise HubError(f"{name}{indices} without {name}{weights} or the bank of vectors")
        shape = (*where.shape[:-1], bank.shape[0])

        def read(where: Stored = where, how_much: Stored = how_much, shape: tuple[int, ...] = shape) -> Array:
            given = how_much.read()
            given = np.concatenate([given, 1 - given.sum(axis=-1, keepdims=True)], axis=-1)
            logits = np.full(shape, -np.inf, given.dtype)
            with np.errstate(divide="ignore"):
                np.put_along_axis(logits, where.read().astype(np.int64), np.log(given), axis=-1)
            return logits

        found[name] = Stored(how_much.dtype, shape, read)
    return found
