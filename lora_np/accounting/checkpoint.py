"""The modules of a checkpoint, from the headers of its safetensors files: no tensor is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from lora_np.checks import choice
from lora_np.hub import Kind, ModelSpec, ModuleSpec, fold, safetensors

_INDEX = "model.safetensors.index.json"
# the last names of tables that are looked up rather than multiplied
_EMBEDDINGS = ("wte", "wpe", "shared", "embed_in", "relative_attention_bias", "token_embd", "tok_embeddings")
_HEADS = ("lm_head", "embed_out", "proj_out", "output")


def from_safetensors(source: str | Path, *, kinds: Mapping[str, Kind] | None = None) -> ModelSpec:
    """The modules of a safetensors file, an index, or a directory that holds either; only headers are read.

    A matrix called ``weight`` is a linear map, unless its name is that of an embedding; an array of more axes
    is a convolution, a vector a norm. Anything else is a bare parameter.

    Parameters
    ----------
    source : str or Path
    kinds : mapping of str to str, optional
        What modules are where their names mislead: from the end of a name to ``"linear"``, ``"embedding"``,
        ``"convolution"``, ``"norm"`` or ``"parameter"``.

    Returns
    -------
    ModelSpec
        Without default targets, because a file does not say what family it is of.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a header is not true, an index and its files disagree, or an index names files outside its
        directory.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from lora_np.accounting import count_model
    >>> path = Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> safetensors.save(path, {"q_proj.weight": np.zeros((100, 120)), "q_proj.bias": np.zeros(100)})
    >>> count_model(from_safetensors(path), rank=8, targets=["q_proj"]).trainable
    1760
    """
    path = Path(source)
    shapes: dict[str, tuple[int, ...]] = {}
    for file in _files(path):
        shapes.update({name: info.shape for name, info in safetensors.open(file).tensors.items()})
    kinds = kinds or {}
    for end, kind in kinds.items():
        choice(f"kinds[{end!r}]", kind, get_args(Kind))
    modules = tuple(fold(_modules(shapes, kinds)))
    heads = [module.name for module in modules if module.name.rpartition(".")[2] in _HEADS]
    name = path.name if path.is_dir() or path.name != _INDEX else path.parent.name
    return ModelSpec(name or str(path), modules, head=heads[0] if len(heads) == 1 else "")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(values).__name__}")
    return values


def _files(path: Path) -> list[Path]:
    """The files whose headers together are the checkpoint."""
    if path.is_dir():
        if (path / _INDEX).is_file():
            return _shards(path / _INDEX)
        found = sorted(path.glob("*.safetensors"))
        if not found:
            raise FileNotFoundError(f"{path} holds neither config.json nor *.safetensors")
        return found
    if path.name.endswith(".index.json"):
        return _shards(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return [path]


def _shards(index: Path) -> list[Path]:
    """The files that an index names, once they hold what it says."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise ValueError(f"{index} must hold a weight_map from tensors to files")
    files = sorted(set(places.values()))
    for file in files:
        if "\\" in file or Path(file).name != file:
            raise ValueError(f"{index} names {file!r}, which is not a file of its own directory")
        if not (index.parent / file).is_file():
            raise FileNotFoundError(f"{index} names {file!r}, which is not there")
    for file in files:
        held = safetensors.open(index.parent / file).tensors
        missing = [name for name, place in places.items() if place == file and name not in held]
        if missing:
            raise ValueError(f"{index} says that {file} holds {missing[0]!r}, which it does not")
    return [index.parent / file for file in files]


def _modules(shapes: Mapping[str, tuple[int, ...]], kinds: Mapping[str, Kind]) -> list[ModuleSpec]:
    modules = []
    for name, shape in shapes.items():
        owner, _, last = name.rpartition(".")
        if last == "weight" and owner:
            modules.append(_module(owner, shape, shapes.get(f"{owner}.bias"), kinds))
        elif last != "bias" or f"{owner}.weight" not in shapes:
            modules.append(ModuleSpec(name, _told(name, kinds) or "parameter", shape))
    return modules


def _module(
    name: str, shape: tuple[int, ...], bias: tuple[int, ...] | None, kinds: Mapping[str, Kind]
) -> ModuleSpec:
    kind = _told(name, kinds) or _guess(name, shape)
    if kind == "linear" and bias is not None and bias == shape[1:] != shape[:1]:
        # GPT-2's Conv1D stores its weight as (d_in, d_out); its bias gives that away
        shape = shape[::-1]
    return ModuleSpec(name, kind, shape, bias=bias is not None)


def _told(name: str, kinds: Mapping[str, Kind]) -> Kind | None:
    return next((kind for end, kind in kinds.items() if name == end or name.endswith(f".{end}")), None)


def _guess(name: str, shape: tuple[int, ...]) -> Kind:
    last = name.rpartition(".")[2]
    if len(shape) == 1:
        return "norm"
    if len(shape) == 2:
        return "embedding" if last in _EMBEDDINGS or "embed" in last.removeprefix("embed_out") else "linear"
    return "convolution" if len(shape) in (3, 4, 5) else "parameter"
