"""A base and an adapter in one checkpoint, file by file and tensor by tensor."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from lora_np.adapters.adapter import Adapter, header
from lora_np.adapters.bases import check_base
from lora_np.adapters.formats import load
from lora_np.adapters.results import Written
from lora_np.adapters.weights import Change, Merging
from lora_np.checks import Array
from lora_np.files import replacing, write_json
from lora_np.hub import (
    INDEX,
    PICKLES,
    SINGLE,
    HubError,
    SafetensorsFile,
    TensorInfo,
    bitsandbytes_parts,
    directory,
    inside,
    safetensors,
)
from lora_np.models import OpenModel, open_model, untied
from lora_np.work import each

# Weights in other formats, which would still be the unmerged ones.
_OTHER_WEIGHTS = (*PICKLES, ".safetensors", ".h5", ".msgpack", ".gguf", ".onnx", ".ot", ".tflite", ".npz")
# What an older merge, of a base in other shards, may have left at the target.
_WEIGHTS = re.compile(rf"{re.escape(SINGLE)}|model-\d+-of-\d+\.safetensors|{re.escape(INDEX)}")


class MergedTensor(NamedTuple):
    """A tensor that a merge changed: its largest change and largest rounding error.

    Parameters
    ----------
    name, dtype : str
        As in the checkpoint.
    change, rounding : float or None
        None where the tensor was replaced in full.
    """

    name: str
    dtype: str
    change: float | None
    rounding: float | None


def merge(
    base: str | os.PathLike[str],
    adapter: Adapter | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    any_base: bool = False,
    full_precision: bool = False,
    jobs: int = 1,
    force: bool = False,
    progress: bool = False,
) -> Written[MergedTensor]:
    """Write the checkpoint in which every adapted weight is ``W0 + scale * B A``.

    Parameters
    ----------
    base : path
        A model's directory: safetensors in one file or in shards, and its config. A GGUF file is refused.
    adapter : path or Adapter
        A directory as PEFT writes it, or the result of `load`.
    out : path
        The directory to make: the same shards, names and dtypes, and the base's other files, so that
        transformers loads it directly.
    any_base : bool
        Whether to continue if the adapter is for another kind of base.
    full_precision : bool
        Whether to write a base that bitsandbytes quantised (nf4 or int8) in float32: all its quantised
        weights, adapted or not, and a config that says so. Without this such a base is refused, since
        quantising the result would round it again.
    jobs : int
        How many shards to work on at a time.
    force : bool
        Whether to replace an existing checkpoint at ``out``. One that holds a file that would not be
        rewritten is refused, as are the base and the adapter.
    progress : bool
        Show a bar, if standard error is a terminal.

    Returns
    -------
    Written
        For each changed tensor the largest change, and the largest error of rounding to its dtype.

    Raises
    ------
    HubError
        If base and adapter do not fit, a result is not finite, the base is quantised without
        ``full_precision`` or not quantised with it, or the target exists.

    See Also
    --------
    extract : The reverse.

    Notes
    -----
    With DoRA each output's row is brought to its magnitude: ``m * (W0 + scale * B A) / ||row||``
    (arXiv 2402.09353). Everything is computed in a higher precision than the base's.

    A head that shares the embedding's weight gets its own copy if one of the two is adapted, since merging
    into a shared weight would change both, which the adapter does not do.

    Examples
    --------
    >>> import tempfile, lora_np as lnp, numpy as np
    >>> from lora_np.hub import safetensors
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "base").mkdir()
    >>> safetensors.save({"q.weight": np.eye(2, dtype=np.float32)}, folder / "base" / "model.safetensors")
    >>> module = lnp.adapters.AdapterModule.of(A=np.ones((1, 2)), B=np.ones((2, 1)), alpha=1)
    >>> lnp.adapters.save(Adapter({"q": module}), folder / "adapter")
    >>> result = merge(folder / "base", folder / "adapter", folder / "merged")
    >>> safetensors.open(folder / "merged" / "model.safetensors").read("q.weight")
    array([[2., 1.],
           [1., 2.]], dtype=float32)
    """
    if Path(base).suffix == ".gguf" and Path(base).is_file():
        raise HubError(
            f"{base}: a GGUF file, and merge reads directories of safetensors; in Python: language.load it, "
            "adapters.attach the adapter, lora_np.merge, and language.save the result in full precision"
        )
    source, update = open_model(directory(base)), load(adapter, base=base)
    unsure = () if any_base else check_base(source.config, source.path, update)
    merging = Merging(source, update)
    quantised = {name: parts for name in source.places if (parts := bitsandbytes_parts(source, name))}
    if full_precision and not quantised:
        raise HubError(f"{source.path}: full_precision (--full-precision) is for what bitsandbytes quantised")
    if not full_precision:
        for name in (name for name, weight in merging.weights.items() if weight in quantised):
            raise HubError(
                f"{source.path}: the weight of {name!r} is quantised by bitsandbytes, and merging rounds it "
                "again; pass full_precision=True (--full-precision) to write the model in float32"
            )
        quantised = {}
    changes = {**{name: merging.unchanged(name) for name in quantised}, **merging.changes}
    gone = {part for parts in quantised.values() for part in parts[1:]}
    widened = header({name: changes[name].start for name in quantised})
    added = header({name: each.start for name, each in changes.items() if name not in source})
    written = {
        name: {each: widened.get(each, info) for each, info in file.tensors.items() if each not in gone}
        for name, file in source.files.items()
    }
    written[max(source.files)] |= added
    others, left_out = _others(source)
    folders = {parent.as_posix() for name in others for parent in PurePosixPath(name).parents}
    ours = {*source.files, *others, *folders}
    inputs = [source.path, *([update.path] if update.path else [])]
    with replacing(
        out, force=force, writes=lambda name: name in ours or bool(_WEIGHTS.fullmatch(name)), inputs=inputs
    ) as stage:
        shards = [(file, stage / name, written[name]) for name, file in source.files.items()]
        write = partial(_merge_shard, changes)
        by_shard = each(write, shards, jobs=jobs, progress=progress, label="merge")
        for name in others:
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.path / name, stage / name)
        if source.index is not None:
            write_json(stage / INDEX, _index(source.index, written))
        if added or quantised:
            config = _config(source.config) if quantised else source.config
            write_json(stage / "config.json", untied(config) if source.tied.keys() & added else config)
    rows = tuple(row for rows in by_shard for row in rows if row.name in merging.changes)
    rounding = max((row.rounding for row in rows if row.rounding is not None), default=0.0)
    notes = [f"largest rounding error {rounding:.3g}", *unsure]
    if added:
        notes.append(f"added: {', '.join(added)}")
    if own := sorted(source.tied.keys() & added):
        notes.append(f"with their own numbers now: {', '.join(own)} (tie_word_embeddings is false)")
    if quantised:
        notes.append(f"in float32 now, adapted or not: {len(quantised)} weights that bitsandbytes quantised")
    if left_out:
        notes.append(f"not copied, because they are unmerged weights or adapters: {', '.join(left_out)}")
    headings = ("tensor", "dtype", "largest change", "rounding error")
    return Written(f"{base} + {adapter}", rows, tuple(notes), headings, Path(out))


def _merge_shard(
    changes: Mapping[str, Change], shard: tuple[SafetensorsFile, Path, Mapping[str, TensorInfo]]
) -> list[MergedTensor]:
    source, path, tensors = shard
    rows: list[MergedTensor] = []

    def merged(name: str) -> Array | SafetensorsFile:
        if name not in changes:
            return source
        W, moved, lost = changes[name].result(f"{source.path}: {name!r}")
        rows.append(MergedTensor(name, changes[name].start.dtype, moved, lost))
        return W

    safetensors.write(tensors, merged, path, metadata=source.metadata)
    return rows


def _others(source: OpenModel) -> tuple[list[str], list[str]]:
    """The base's other files: those that are copied; weights in another form, and adapters for the base."""
    copied, left_out = [], []
    for folder, folders, names in os.walk(source.path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(folder)
        if here != source.path and "adapter_config.json" in names:
            left_out.append(f"{here.relative_to(source.path).as_posix()}/")
            folders.clear()
            continue
        for name in sorted(names):
            relative = (here / name).relative_to(source.path).as_posix()
            if here == source.path and (name in source.files or name == INDEX):
                continue
            if name.endswith((*_OTHER_WEIGHTS, ".index.json")):
                left_out.append(relative)
            elif not name.startswith("."):
                inside(here, name)
                copied.append(relative)
    return copied, left_out


def _index(old: Mapping[str, Any], written: Mapping[str, Mapping[str, TensorInfo]]) -> dict[str, Any]:
    """An index with the places of the tensors and, where the old one has it, their size."""
    new = {**old, "weight_map": {tensor: name for name, tensors in written.items() for tensor in tensors}}
    if isinstance(old.get("metadata"), dict) and "total_size" in old["metadata"]:
        total = sum(info.nbytes for tensors in written.values() for info in tensors.values())
        new["metadata"] = {**old["metadata"], "total_size": total}
    return new


def _config(old: Mapping[str, Any]) -> dict[str, Any]:
    """A config that says that nothing is quantised."""
    new = {key: _config(part) if key == "text_config" and part else part for key, part in old.items()}
    new |= {key: "float32" for key in ("dtype", "torch_dtype") if key in new}
    new.pop("quantization_config", None)
    return new
