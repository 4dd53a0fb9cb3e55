"""A model's own weights on the disk, in one file or in shards, as transformers writes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_np.adapters.files import (
    AdapterError,
    directory,
    inside,
    open_tensors,
    read_json,
    read_tensor,
    refuse_pickles,
)
from lora_np.checks import Array
from lora_np.hub.safetensors import SafetensorsFile, TensorInfo

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The tensors of a model, each read when it is asked for."""

    folder: Path
    files: Mapping[str, SafetensorsFile]  # by file name
    where: Mapping[str, str]  # from the name of a tensor to that of its file
    config: Mapping[str, Any]  # config.json, empty if there is none
    sharded: bool

    def __contains__(self, name: str) -> bool:
        return name in self.where

    def info(self, name: str) -> TensorInfo:
        return self.files[self.where[name]].tensors[name]

    def read(self, name: str) -> Array:
        return read_tensor(self.files[self.where[name]], name)

    def naming(self, wanted: Iterable[str]) -> Callable[[str], str]:
        """From an adapter's names of parameters to this checkpoint's.

        They are the same, unless one was saved from a model with a head and the other from its body alone:
        then all names differ by one segment at the front (``bert.encoder...`` and ``encoder...``).
        """
        fronts = sorted({name.partition(".")[0] for name in self.where})
        ways: list[Callable[[str], str]] = [
            lambda name: name,
            lambda name: name.partition(".")[2],
            *[lambda name, front=front: f"{front}.{name}" for front in fronts],
        ]
        wanted = list(wanted)
        return max(ways, key=lambda way: sum(way(name) in self.where for name in wanted))


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint in a directory: its index and all headers are read and checked, no tensor is."""
    folder = directory(path)
    if os.path.lexists(folder / SINGLE):
        names = [SINGLE]
        listed = None
    elif os.path.lexists(folder / INDEX):
        listed = _weight_map(folder)
        names = sorted(set(listed.values()))
    else:
        refuse_pickles(folder)
        raise AdapterError(f"{folder}: no {SINGLE} and no {INDEX}")
    files = {name: open_tensors(inside(folder, name)) for name in names}
    where: dict[str, str] = {}
    for file_name, file in files.items():
        for tensor in file.tensors:
            if tensor in where:
                raise AdapterError(f"{file.path}: {tensor!r} stands in {where[tensor]} too")
            where[tensor] = file_name
    for tensor, file_name in (listed or {}).items():
        if where.get(tensor) != file_name:
            raise AdapterError(f"{folder / INDEX}: places {tensor!r} in {file_name}, which does not hold it")
    has_config = os.path.lexists(folder / "config.json")
    config = read_json(inside(folder, "config.json")) if has_config else {}
    return Checkpoint(folder, files, where, config, sharded=listed is not None)


def _weight_map(folder: Path) -> Mapping[str, str]:
    path = inside(folder, INDEX)
    weight_map: Any = read_json(path).get("weight_map")
    named = isinstance(weight_map, dict) and all(isinstance(name, str) for name in weight_map.values())
    if not named or not weight_map:
        raise AdapterError(f"{path}: weight_map must map the names of tensors to names of files")
    for name in set(weight_map.values()):
        if not name.endswith(".safetensors"):
            raise AdapterError(f"{path}: places tensors in {name!r}, which is no safetensors file")
    listed: Mapping[str, str] = weight_map
    return listed
