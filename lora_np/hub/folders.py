"""A model's own weights on the disk: which files they are, as transformers decides it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from lora_np.checks import Array
from lora_np.hub import safetensors
from lora_np.hub.names import NameMap, Place
from lora_np.hub.reading import HubError, read_json
from lora_np.hub.safetensors import SafetensorsFile
from lora_np.hub.shipped import located, shipped_paths
from lora_np.hub.tensors import TensorInfo

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
HEAD = "lm_head.weight"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_HEADED = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")  # how a class with a head ends
_TIED = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")


@dataclass(frozen=True, eq=False)
class ModelDirectory:
    """The tensors of a model and its config; made by `open_model`. Each tensor is read when it is first used.

    Attributes
    ----------
    path : Path
        The directory, or the one file.
    files : mapping of str to SafetensorsFile
        The files that are the model, by name.
    places : mapping of str to str
        From the name of a tensor to that of its file.
    config : mapping
        The fields of ``config.json``; empty if there is none.
    index : mapping or None
        The content of the index, where the model is in shards.
    """

    path: Path
    files: Mapping[str, SafetensorsFile]
    places: Mapping[str, str]
    config: Mapping[str, Any]
    index: Mapping[str, Any] | None

    def __contains__(self, name: str) -> bool:
        return name in self.places

    def info(self, name: str) -> TensorInfo:
        """Dtype and shape of one tensor."""
        return self.files[self.places[name]].tensors[name]

    def read(self, name: str) -> Array:
        """One tensor in its own dtype, bfloat16 as float32."""
        return self.files[self.places[name]].read(name)

    @property
    def tied_embedding(self) -> str | None:
        """The embedding that serves a language model as its head, if the checkpoint has no separate head."""
        architectures = self.config.get("architectures") or []
        has_head = any(str(name).endswith(_HEADED) for name in architectures)
        if HEAD in self.parameters or not has_head or self.config.get("is_encoder_decoder"):
            return None
        return next((name for name in self.places if name.endswith(_TIED)), None)

    @cached_property
    def parameters(self) -> Mapping[str, Mapping[str, Place]]:
        """The parameters of the live model: for each, the tensors that make it up and their places in it."""
        names = NameMap(self.config)
        found: dict[str, dict[str, Place]] = {}
        for name in self.places:
            place = names.place(name)
            if place is not None:
                found.setdefault(place.parameter, {})[name] = place
        return found

    @cached_property
    def unread(self) -> tuple[str, ...]:
        """The tensors that transformers splits, joins or permutes as it loads them: they have no place."""
        names = NameMap(self.config)
        return tuple(name for name in self.places if names.place(name) is None)

    def shape(self, places: Mapping[str, Place]) -> tuple[int, ...]:
        """The shape of the parameter of the live model that tensors make up, from their places in it."""
        (name, first), *_ = places.items()
        shape = self.info(name).shape
        if first.transposed:
            shape = (*shape[:-2], shape[-1], shape[-2])
        if first.expert is None:
            return shape
        found = {(place.expert, place.part) for place in places.values()}
        experts = 1 + max(place.expert or 0 for place in places.values())
        alike = all(self.info(each).shape == shape for each in places)
        if len(shape) != 2 or not alike or len(found) != experts * first.parts:
            raise HubError(f"{self.path}: experts of {first.parameter!r} are missing, or not of one shape")
        return experts, first.parts * shape[0], shape[1]

    def naming(self, wanted: Iterable[str]) -> Callable[[str], str]:
        """From an adapter's names of parameters to this checkpoint's.

        They are those of the live model, or those of an older version. One may have been saved from a model
        with a head and the other from its body alone: then all names differ by one segment at the front
        (``bert.encoder...`` and ``encoder...``).
        """
        names, parameters = NameMap(self.config), self.parameters

        def tensor(name: str) -> str:
            place = names.place(name)
            for live in (name, place.parameter if place else name):
                if len(parameters.get(live, ())) == 1:
                    return next(iter(parameters[live]))
            return name

        wanted = list(wanted)
        fronts = sorted({name.partition(".")[0] for name in parameters})
        ways: list[Callable[[str], str]] = [
            tensor,
            lambda name: tensor(name.partition(".")[2]),
            *[lambda name, front=front: tensor(f"{front}.{name}") for front in fronts],
        ]
        return max(ways, key=lambda way: sum(way(name) in self.places for name in wanted))


def open_model(path: str | os.PathLike[str]) -> ModelDirectory:
    """The model in a directory, its config, index and all headers checked; no tensor is read.

    Which files are the model is decided as in transformers: ``model.safetensors`` if it is there, otherwise
    the files that ``model.safetensors.index.json`` names. Any others are not part of it.

    Parameters
    ----------
    path : path
        A directory, an index, or one safetensors file.

    Returns
    -------
    ModelDirectory
        Its names, dtypes and shapes, and ``read`` for one tensor.

    Raises
    ------
    HubError
        If the model does not exist or is damaged, index and files differ, two files hold the same tensor, or
        a name leads out of the directory.

    See Also
    --------
    SafetensorsFile : One of its files.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> folder = Path(tempfile.mkdtemp())
    >>> safetensors.save({"q.weight": np.eye(2)}, folder / "model.safetensors")
    >>> safetensors.save({"other": np.eye(2)}, folder / "stray.safetensors")
    >>> list(open_model(folder).places)
    ['q.weight']
    """
    path = Path(path)
    is_file = path.name.endswith((".safetensors", ".index.json")) and not path.is_dir()
    folder = path.parent if is_file else directory(path)
    present = (name for name in (SINGLE, INDEX) if os.path.lexists(folder / name))
    name = path.name if is_file else next(present, "")
    if not name:
        _refuse_pickles(folder)
        others = sorted(other.name for other in folder.glob("*.safetensors"))
        hint = f"; name the file itself: {', '.join(others[:3])}" if others else ""
        raise HubError(f"{folder}: no {SINGLE} and no {INDEX}{hint}")
    index = _read_index(inside(folder, name)) if name.endswith(".index.json") else None
    names = sorted(set(index["weight_map"].values())) if index else [name]
    files = {name: safetensors.open(inside(folder, name)) for name in names}
    places: dict[str, str] = {}
    for file_name, file in files.items():
        for tensor in file.tensors:
            if tensor in places:
                raise HubError(f"{file.path}: {tensor!r} is in {places[tensor]} too")
            places[tensor] = file_name
    for tensor, file_name in (index["weight_map"] if index else {}).items():
        if places.get(tensor) != file_name:
            raise HubError(f"{folder / name}: places {tensor!r} in {file_name}, which does not hold it")
    has_config = not is_file and os.path.lexists(folder / "config.json")
    config = read_json(inside(folder, "config.json")) if has_config else {}
    return ModelDirectory(path, files, places, config, index)


def directory(path: str | os.PathLike[str]) -> Path:
    """``path`` as an existing directory, which may be that of a shipped model or adapter.

    Parameters
    ----------
    path : path
        A directory, or the name of what is shipped, such as "austen".

    Returns
    -------
    Path
        The directory.

    Raises
    ------
    HubError
        If there is none.

    See Also
    --------
    inside : A file of a directory.
    """
    path = located(path)
    if not path.exists():
        close = get_close_matches(str(path)[:100], shipped_paths("models") | shipped_paths("adapters"), n=1)
        hint = f" (did you mean the shipped {close[0]!r}?)" if close else ""
        raise HubError(f"{path}: no such directory{hint}")
    if not path.is_dir():
        raise HubError(f"{path}: not a directory")
    return path


def inside(folder: Path, name: str) -> Path:
    """The regular file ``name`` of ``folder``; a name or a link that leads out of the folder is refused.

    Links from a snapshot of the Hugging Face cache to its blobs are the one exception.

    Parameters
    ----------
    folder : Path
        The directory.
    name : str
        Of the file, without any directory.

    Returns
    -------
    Path
        ``folder / name``.

    Raises
    ------
    HubError
        If the file does not exist (which is explained where pickles do instead of it) or is not inside.

    See Also
    --------
    directory : A directory that exists.
    """
    plain = name not in ("", ".", "..") and {"/", "\\", "\0"}.isdisjoint(name) and Path(name).name == name
    if not plain:
        raise HubError(f"{folder}: the file name {name!r} must be a plain name inside the directory")
    path = folder / name
    try:
        real = path.resolve(strict=True)
        regular = stat.S_ISREG(real.stat().st_mode)
    except (OSError, RuntimeError, ValueError):
        if name.endswith(".safetensors"):
            _refuse_pickles(folder)
        raise HubError(f"{path}: no such file") from None
    home = folder.resolve()
    cache = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    if not (real.is_relative_to(home) or real.is_relative_to(cache)):
        raise HubError(f"{path}: a link that leads out of the directory")
    if not regular:
        raise HubError(f"{path}: not a regular file")
    return path


def _refuse_pickles(folder: Path) -> None:
    """Say why nothing is read from a directory that holds pickles instead of safetensors."""
    for path in sorted(folder.iterdir()):
        if path.suffix in PICKLES:
            raise HubError(
                f"{path}: a pickle can run any code when it is opened, so none is opened here; "
                "save the model as safetensors with PEFT or transformers"
            )


def _read_index(path: Path) -> Mapping[str, Any]:
    index = read_json(path)
    places: Any = index.get("weight_map")
    named = isinstance(places, dict) and all(isinstance(name, str) for name in places.values())
    if not named or not places:
        raise HubError(f"{path}: weight_map must map the names of tensors to names of files")
    for name in set(places.values()):
        if not name.endswith(".safetensors"):
            raise HubError(f"{path}: places tensors in {name!r}, which is not a safetensors file")
    return index
