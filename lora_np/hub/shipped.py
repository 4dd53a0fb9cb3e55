"""Shipped models, adapters and texts, which can be named wherever a path is accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lora_np.checks import StrPath

_DATA = Path(__file__).parents[1] / "language" / "data"
_PATTERNS = {"models": "*/config.json", "adapters": "*/*/adapter_config.json", "texts": "texts/*.txt"}


def shipped_paths(kind: Literal["models", "adapters", "texts"]) -> dict[str, Path]:
    """The shipped items of a kind, by name.

    Parameters
    ----------
    kind : {"models", "adapters", "texts"}
        Directories, and files for texts.

    Returns
    -------
    dict of str to Path
        In the order of their names.

    See Also
    --------
    located : The path of one.

    Examples
    --------
    >>> list(shipped_paths("models"))
    ['austen']
    """
    files = sorted(_DATA.glob(_PATTERNS[kind]))
    paths = files if kind == "texts" else [file.parent for file in files]
    return {path.stem if kind == "texts" else path.name: path for path in paths}


def located(path: StrPath) -> Path:
    """``path``, or the directory of the shipped model or adapter of that name where there is no such path.

    Parameters
    ----------
    path : str or path
        A directory, or a name.

    Returns
    -------
    Path
        It need not exist.

    See Also
    --------
    shipped_paths : The names.

    Examples
    --------
    >>> located("king-james").parent.name, located("my-adapter").name
    ('austen', 'my-adapter')
    """
    path = Path(path)
    if path.name != str(path):
        return path
    # a folder of that name without anything readable, such as texts, does not hide a model
    files = [*path.iterdir()] if path.is_dir() else [path] * path.exists()
    if any(file == path or file.suffix in (".json", ".safetensors") for file in files):
        return path
    return (shipped_paths("models") | shipped_paths("adapters")).get(path.name, path)
