"""Find and open the files of a model in a directory, by the rules of transformers."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from lora_np.checks import Array, StrPath
from lora_np.files import FileError, MissingFileError, read_json, unfinished
from lora_np.hub import safetensors
from lora_np.hub.safetensors import SafetensorsFile
from lora_np.hub.tensors import TensorInfo

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DIFFUSERS = "diffusion_pytorch_model.safetensors"
# Files that hold a model or its index: first as transformers names them, then as diffusers does.
HOMES = (SINGLE, INDEX, DIFFUSERS, f"{DIFFUSERS}.index.json")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
# Maps the name of a missing file to the name of another file, and to the error to raise if the
# directory has that other file instead.
_OTHERS = {
    "config.json": (
        "adapter_config.json",
        "an adapter, not a model: give its base instead (to count it, add --config ADAPTER)",
    ),
    "adapter_config.json": (
        "config.json", "a model, not an adapter: it has no adapter_config.json",
    ),
}  # fmt: skip
# The folder of the shipped files, and a pattern for each kind of file.
_DATA = Path(__file__).parent / "data"
_PATTERNS = {
    "models": "*/config.json",
    "adapters": "*/*/adapter_config.json",
    "texts": "texts/*",
}


@dataclass(frozen=True, eq=False)
class ModelDirectory:
    """A model on disk; its headers and tensors are read when they are needed.

    Parameters
    ----------
    path : Path
        The directory, or the one file.
    config : mapping
        The fields of ``config.json``; empty if there is none.
    """

    path: Path
    config: Mapping[str, Any]

    @classmethod
    def at(cls, path: StrPath) -> Self:
        """Open the model at a path: read its config now, and its headers when they are needed."""
        path = Path(path)
        if is_weights(path):
            return cls(path, {})
        path = directory(path)
        has_config = os.path.lexists(path / "config.json")
        return cls(path, read_json(inside(path, "config.json")) if has_config else {})

    @cached_property
    def index(self) -> Mapping[str, Any] | None:
        """The content of the index if the model is in shards, otherwise None."""
        folder, name = self.home
        return _read_index(inside(folder, name)) if name.endswith(".index.json") else None

    @cached_property
    def files(self) -> Mapping[str, SafetensorsFile]:
        """The weights files of the model, with checked headers, by name."""
        folder, name = self.home
        names = sorted(set(self.index["weight_map"].values())) if self.index else [name]
        return {name: safetensors.open(inside(folder, name)) for name in names}

    @cached_property
    def places(self) -> Mapping[str, str]:
        """A mapping from the name of each tensor to the name of its file."""
        places: dict[str, str] = {}
        for file_name, file in self.files.items():
            for tensor in file.tensors:
                if tensor in places:
                    raise FileError(f"{file.path}: {tensor!r} is in {places[tensor]} too")
                places[tensor] = file_name
        for tensor, file_name in (self.index["weight_map"] if self.index else {}).items():
            if places.get(tensor) != file_name:
                raise FileError(
                    f"{Path(*self.home)}: says that {tensor!r} is in {file_name}, but it is not"
                )
        return places

    @cached_property
    def home(self) -> tuple[Path, str]:
        """The model's directory, and the file name of its index or of its only weights file."""
        if is_weights(self.path):
            return self.path.parent, self.path.name
        folder = directory(self.path)
        for name in HOMES:
            if os.path.lexists(folder / name):
                return folder, name
        _refuse_other(folder, "config.json")
        _refuse_pickles(folder)
        others = sorted(other.name for other in folder.glob("*.safetensors"))
        hint = f"; name the file itself: {', '.join(others[:3])}" if others else ""
        if (folder / "model_index.json").is_file():
            hint = ": it is a pipeline of diffusers; give the folder of one of its parts"
        raise FileError(f"{folder}: no {SINGLE} and no {INDEX}{hint}")

    def __contains__(self, name: str) -> bool:
        return name in self.places

    def info(self, name: str) -> TensorInfo:
        """Return the dtype and shape of one tensor."""
        return self.files[self.places[name]].tensors[name]

    def read(self, name: str) -> Array:
        """Read one tensor in its own dtype; bfloat16 and 8-bit floats become float32."""
        file = self.files[self.places[name]]
        if (dtype := file.tensors[name].dtype).startswith("float8"):
            safetensors.refuse_scaled(self.path, name, dtype, self.places)
        return file.read(name)


def is_weights(path: Path) -> bool:
    """Return whether ``path`` is named as a weights file or an index and is no directory."""
    return path.name.endswith((".safetensors", ".index.json")) and not path.is_dir()


def open_directory(path: StrPath) -> ModelDirectory:
    """Open the model in a directory and check its config, index and headers; read no tensor.

    As in transformers, the model is ``model.safetensors`` if that exists, and otherwise the files
    that ``model.safetensors.index.json`` names; without either, the names that diffusers uses are
    tried. Other files are ignored.

    Parameters
    ----------
    path : path
        A directory, an index, or one safetensors file.

    Returns
    -------
    ModelDirectory
        The names, dtypes and shapes of its tensors, with ``read`` for one tensor.

    Raises
    ------
    FileError
        If the model does not exist or is damaged, index and files differ, two files contain the
        same tensor, or a name leads out of the directory.

    See Also
    --------
    SafetensorsFile : A single file.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> folder = Path(tempfile.mkdtemp())
    >>> safetensors.save({"q.weight": np.eye(2)}, folder / "model.safetensors")
    >>> safetensors.save({"other": np.eye(2)}, folder / "stray.safetensors")
    >>> list(open_directory(folder).places)
    ['q.weight']
    """
    opened = ModelDirectory.at(path)
    len(opened.places)  # reading `places` checks the headers and the index
    return opened


def directory(path: StrPath) -> Path:
    """Return the directory ``path``, or the directory of the shipped model or adapter ``path``.

    Parameters
    ----------
    path : path
        A directory, or the name of a shipped model or adapter, such as "austen".

    Returns
    -------
    Path
        The directory.

    Raises
    ------
    FileError
        If there is no such directory; the error is also a ``FileNotFoundError``.

    See Also
    --------
    inside : Find a file of a directory.

    Examples
    --------
    >>> directory("austen").name
    'austen'
    """
    path = located(path)
    if not path.exists():
        models, adapters = shipped_paths("models"), shipped_paths("adapters")
        shipped = f"shipped: {', '.join(models)}, and the adapters {', '.join(adapters)}"
        missing = f"{path}: no such directory, and nothing is downloaded; {shipped}"
        raise MissingFileError(unfinished(path) or missing)
    if not path.is_dir():
        raise FileError(f"{path}: not a directory")
    return path


def inside(folder: Path, name: str) -> Path:
    """Return the regular file ``name`` of ``folder``; refuse names and links that lead out of it.

    Links from a snapshot of the Hugging Face cache to its blobs are the only exception.

    Parameters
    ----------
    folder : Path
        The directory.
    name : str
        The name of the file, without any directory.

    Returns
    -------
    Path
        The path ``folder / name``.

    Raises
    ------
    FileError
        If the file does not exist (with an explanation if there are pickles instead) or is not
        inside.

    See Also
    --------
    directory : Find an existing directory.

    Examples
    --------
    >>> inside(directory("austen"), "config.json").name
    'config.json'
    >>> inside(directory("austen"), "../secret")
    Traceback (most recent call last):
        ...
    lora_np.files.FileError: ...: the file name '../secret' must be a plain name inside the
    directory
    """
    plain = (
        name not in ("", ".", "..")
        and {"/", "\\", "\0"}.isdisjoint(name)
        and Path(name).name == name
    )
    if not plain:
        raise FileError(
            f"{folder}: the file name {name!r} must be a plain name inside the directory"
        )
    path = folder / name
    try:
        real = path.resolve(strict=True)
        regular = stat.S_ISREG(real.stat().st_mode)
    except (OSError, RuntimeError, ValueError):
        _refuse_other(folder, name)
        if name.endswith(".safetensors"):
            _refuse_pickles(folder)
        raise MissingFileError(f"{path}: no such file") from None
    home = folder.resolve()
    snapshots = next((parent for parent in home.parents if parent.name == "snapshots"), None)
    cache = snapshots.parent / "blobs" if snapshots else home
    if not (real.is_relative_to(home) or real.is_relative_to(cache)):
        raise FileError(f"{path}: a link that leads out of the directory")
    if not regular:
        raise FileError(f"{path}: not a regular file")
    return path


def _refuse_other(folder: Path, wanted: str) -> None:
    """Raise an error if a directory has an adapter where a model belongs, or the reverse."""
    other, why = _OTHERS.get(wanted, ("", ""))
    if other and (folder / other).is_file():
        raise MissingFileError(f"{folder}: {why}")


# files of a Trainer's checkpoint that have no weights
_TRAINERS = r"(training_args|optimizer|scheduler|scaler|rng_state.*)\."


def _refuse_pickles(folder: Path) -> None:
    """Raise an error that explains why pickles are not read, if a directory has any."""
    for path in sorted(folder.iterdir()):
        if path.suffix in PICKLES and not re.match(_TRAINERS, path.name):
            raise FileError(
                f"{path}: a pickle can run any code when it is opened; PEFT and transformers save"
                " safetensors"
            )


def _read_index(path: Path) -> Mapping[str, Any]:
    """Read an index, after checking that it maps tensors to safetensors files."""
    index = read_json(path)
    places = index.get("weight_map")
    named = isinstance(places, dict) and all(isinstance(name, str) for name in places.values())
    if not named or not places:
        raise FileError(f"{path}: weight_map must map the names of tensors to names of files")
    for name in set(places.values()):
        if not name.endswith(".safetensors"):
            raise FileError(f"{path}: says that {name!r} has tensors, but only safetensors can")
    return index


def shipped_paths(kind: Literal["models", "adapters", "texts"]) -> dict[str, Path]:
    """Map the names of the shipped models, adapters or texts to their paths.

    Parameters
    ----------
    kind : {"models", "adapters", "texts"}
        The kind of items to list.

    Returns
    -------
    dict of str to Path
        The directories, or files for texts, by name in alphabetical order.

    See Also
    --------
    located : Find one by name.

    Examples
    --------
    >>> list(shipped_paths("models"))
    ['austen']
    """
    files = sorted(_DATA.glob(_PATTERNS[kind]))
    paths = files if kind == "texts" else [file.parent for file in files]
    return {path.stem if kind == "texts" else path.name: path for path in paths}


def located(path: StrPath) -> Path:
    """Replace the name of a shipped model or adapter by its path, unless ``path`` has model files.

    Parameters
    ----------
    path : str or path
        A path, or the name of a shipped model or adapter.

    Returns
    -------
    Path
        The path, which need not exist.

    See Also
    --------
    shipped_paths : List the names.

    Examples
    --------
    >>> located("king-james").parent.name, located("my-adapter").name
    ('austen', 'my-adapter')
    """
    path = Path(path)
    if path.name != str(path):
        return path
    # A folder with the name of a shipped model hides it only if it has JSON or safetensors files.
    files = [*path.iterdir()] if os.path.isdir(path) else [path] * os.path.exists(path)
    if any(file == path or file.suffix in (".json", ".safetensors") for file in files):
        return path
    return (shipped_paths("models") | shipped_paths("adapters")).get(path.name, path)
