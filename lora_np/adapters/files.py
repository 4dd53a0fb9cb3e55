"""Files that may be hostile and writes that may be interrupted: what the rest of the package relies on.

A directory is written next to its target and renamed when complete. An old target is moved aside first and
removed last, so at every moment the old or the new one is complete on disk.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lora_np.hub import HubError


@contextmanager
def replacing(
    target: str | os.PathLike[str],
    *,
    force: bool,
    writes: Callable[[str], bool],
    keeps: Collection[str] = (),
    inputs: Collection[str | os.PathLike[str]] = (),
    in_place: bool = False,
) -> Iterator[Path]:
    """A new directory to write into, which becomes ``target`` when the block ends without an error.

    Parameters
    ----------
    target : path
        The directory to make.
    force : bool
        Whether an adapter or an existing checkpoint may be replaced.
    writes : callable
        Whether a path relative to the target is one that the block writes. A target that holds any other is
        refused, since it would be lost.
    keeps : collection of str
        Names of files that go over from the old target, unless the block writes them.
    inputs : collection of paths
        What the block reads from: a target that would take one of them with it is refused.
    in_place : bool
        Whether the target may be one of the inputs itself.

    Raises
    ------
    HubError
        If the target exists and ``force`` is not given, or if it holds what we would not have written.
    """
    target = Path(os.path.abspath(target))
    if not target.parent.is_dir():
        raise HubError(f"{target.parent}: no such directory to write {target.name} into")
    recover(target)
    _check_target(target, force, writes, [Path(os.path.realpath(path)) for path in inputs], in_place)
    stage = _unused(target)
    stage.mkdir()
    try:
        yield stage
        for name in keeps:
            if (target / name).is_file() and not (stage / name).exists():
                shutil.copy2(target / name, stage / name, follow_symlinks=False)
        _sync_tree(stage)
        _swap(stage, target)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise


def recover(target: Path) -> None:
    """Clean up after a run that was killed: finish or undo its last rename, remove what was half written."""
    aside = _aside(target)
    if aside.exists() and target.exists():
        _remove(aside, target)  # the new one is in place; only the removal of the old one was missing
    elif aside.exists():
        os.rename(aside, target)
    for stage in target.parent.iterdir():
        if stage.name.startswith(_writing(target)):
            shutil.rmtree(stage, ignore_errors=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_target(
    target: Path, force: bool, writes: Callable[[str], bool], inputs: list[Path], in_place: bool
) -> None:
    if not os.path.lexists(target):
        return
    real = Path(os.path.realpath(target))
    if real in inputs and not in_place:
        raise HubError(f"{target}: is an input itself, and so is not replaced; write to another directory")
    if not force:
        raise HubError(f"{target}: already exists; pass force=True (--force) to replace it")
    if target.is_symlink() or not target.is_dir():
        raise HubError(f"{target}: not a directory, and so not replaced")
    for path in inputs:
        if path != real and path.is_relative_to(real):
            raise HubError(f"{target}: holds the input {path}, and so is not replaced")
    ours = {"adapter_config.json", "model.safetensors", "model.safetensors.index.json"}
    names = set(os.listdir(target))
    if names and not names & ours:
        raise HubError(f"{target}: neither an adapter nor a checkpoint, and so not replaced")
    foreign = _first_foreign(target, writes)
    if foreign is not None:
        raise HubError(f"{target}: holds {foreign}, which would be lost, and so is not replaced")


def _first_foreign(target: Path, writes: Callable[[str], bool]) -> str | None:
    """The first path in the target, relative to it, that is not one of ours."""
    for folder, folders, names in os.walk(target):
        for name in sorted([*folders, *names]):
            relative = Path(folder, name).relative_to(target).as_posix()
            if not writes(relative):
                return relative
    return None


def _swap(stage: Path, target: Path) -> None:
    aside = _aside(target)
    if target.exists():
        os.rename(target, aside)
    try:
        os.rename(stage, target)
    except BaseException:
        if aside.exists():
            os.rename(aside, target)
        raise
    _sync(target.parent)
    if aside.exists():
        _remove(aside, target)


def _remove(aside: Path, target: Path) -> None:
    """Remove what was moved aside, under another name: what is called aside is always complete."""
    doomed = _unused(target)
    os.rename(aside, doomed)
    shutil.rmtree(doomed)


def _unused(target: Path) -> Path:
    # Never the same twice: of two runs with one target, none writes into or renames the other's directory.
    return target.parent / f"{_writing(target)}{secrets.token_hex(8)}"


def _writing(target: Path) -> str:
    return f".{target.name}.writing-"


def _aside(target: Path) -> Path:
    return target.parent / f".{target.name}.replaced"


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    """Have the disk hold what was written, so that a rename can not overtake it in a power cut."""
    if os.name == "nt" and path.is_dir():
        return  # Windows has no handle on a directory to flush
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
