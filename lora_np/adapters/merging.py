"""Write a base and an adapter as one checkpoint."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from lora_np import hub
from lora_np.adapters.adapter import FILES, Adapter, header
from lora_np.adapters.base_models import MERGED, check_base, digest_of
from lora_np.adapters.base_weights import Change, Merging
from lora_np.adapters.formats import CARD, Written, load
from lora_np.adapters.values import check_finite
from lora_np.checks import Array, StrPath
from lora_np.files import FileError, replacing, write_json
from lora_np.hub import SafetensorsFile, TensorInfo, directory
from lora_np.models import OpenModel, resized, untied
from lora_np.work import parallel_map

# Weights in other formats, which would still be the unmerged ones.
_OTHER_WEIGHTS = (
    *hub.PICKLES,
    ".safetensors",
    ".h5",
    ".msgpack",
    ".gguf",
    ".onnx",
    ".ot",
    ".tflite",
    ".npz",
)
# What an older merge, of a base in other shards, may have left at the target.
_WEIGHTS = re.compile(
    rf"{re.escape(hub.SINGLE)}|model-\d+-of-\d+\.safetensors|{re.escape(hub.INDEX)}"
)


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
    base: StrPath,
    adapter: Adapter | StrPath,
    out: StrPath,
    *,
    any_base: bool = False,
    jobs: int = 1,
    force: bool = False,
    progress: bool = False,
) -> Written[MergedTensor]:
    """Write the checkpoint in which every adapted weight is ``W0 + scale * B A``.

    Parameters
    ----------
    base : path
        A model's directory: safetensors in one file or in shards, and its config.
    adapter : path or Adapter
        A directory as PEFT writes it, or the result of `load`.
    out : path
        The directory to make: the same shards, names and dtypes, and the base's other files, so
        that transformers loads it directly.
    any_base : bool
        Whether to continue if the adapter is for another kind of base.
    jobs : int
        How many shards to work on at a time.
    force : bool
        Whether to replace an existing checkpoint at ``out``. One that holds a file that would not
        be rewritten is refused, as are the base and the adapter.
    progress : bool
        Show a bar, if standard error is a terminal.

    Returns
    -------
    Written
        For each changed tensor the largest change, and the largest error of rounding to its dtype.

    Raises
    ------
    FileError
        If base and adapter do not fit, a result is not finite, or the target exists.

    See Also
    --------
    merge_gguf : The same for a GGUF file.
    extract : The reverse.

    Notes
    -----
    With DoRA each output's row is brought to its magnitude: ``m * (W0 + scale * B A) / ||row||``
    (arXiv 2402.09353). Everything is computed in a higher precision than the base's.

    A base that bitsandbytes quantised (nf4 or int8) is written in float32, all its quantised
    weights, adapted or not, with a config that says so: quantising the result would round it again.

    A head that shares the embedding's weight gets its own copy if one of the two is adapted, since
    merging into a shared weight would change both, which the adapter does not do.

    Examples
    --------
    >>> import tempfile, lora_np as lnp, numpy as np
    >>> from lora_np.hub import safetensors
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "base").mkdir()
    >>> safetensors.save({"q.weight": np.eye(2, dtype=np.float32)},
    ...     folder / "base" / "model.safetensors")
    >>> module = lnp.adapters.AdapterModule.of(A=np.ones((1, 2)), B=np.ones((2, 1)), alpha=1)
    >>> lnp.adapters.save(Adapter({"q": module}), folder / "adapter")
    >>> result = merge(folder / "base", folder / "adapter", folder / "merged")
    >>> safetensors.open(folder / "merged" / "model.safetensors").read("q.weight")
    array([[2., 1.],
           [1., 2.]], dtype=float32)
    """
    if Path(base).suffix == ".gguf" and Path(base).is_file():
        raise FileError(f"{base}: a GGUF file: adapters.merge_gguf (lora-np merge -o NEW.gguf)")
    if Path(out).suffix in FILES:
        raise ValueError(
            f"{out}: a merged model is a directory, which must not end in a file's name"
        )
    source = OpenModel.at(directory(base))
    update = load(adapter, base=source)
    check_finite(update)
    unsure = () if any_base else check_base(source, update)
    merging = Merging(source, update)
    plan = _Plan.of(merging)
    others, left_out = _others(source)
    folders = {parent.as_posix() for name in others for parent in PurePosixPath(name).parents}
    ours = {*source.files, *others, *folders, CARD}
    inputs = [source.path, *([update.path] if update.path else [])]
    with replacing(
        out,
        force=force,
        marks=(hub.SINGLE, hub.INDEX),
        writes=lambda name: name in ours or bool(_WEIGHTS.fullmatch(name)),
        keeps=[CARD],
        inputs=inputs,
    ) as stage:
        shards = {
            name: (source.files[name], stage / name, plan.written[name]) for name in plan.written
        }
        write = partial(_merge_shard, plan.changes)
        by_shard = parallel_map(write, shards, jobs=jobs, progress=progress, label="merge")
        for name in others:
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.path / name, stage / name)
        if source.index is not None:
            write_json(stage / hub.INDEX, _index(source.index, plan.written))
        config = plan.config()
        if config is not source.config:
            write_json(stage / "config.json", config)
    rows = tuple(row for rows in by_shard.values() for row in rows if row.name in merging.changes)
    notes = [*_measured(rows), *plan.notes()]
    notes[1:1] = unsure
    if left_out:
        notes.append(
            "not copied, because they are unmerged weights or adapters, or describe the base:"
            f" {', '.join(left_out)}"
        )
    headings = ("tensor", "dtype", "largest change", "rounding error")
    return Written(f"{base} + {adapter}", rows, tuple(notes), headings, Path(out))


class _Plan(NamedTuple):
    """What a merged checkpoint holds."""

    merging: Merging
    changes: Mapping[str, Change]  # every tensor that is not copied
    written: Mapping[str, Mapping[str, TensorInfo]]  # the tensors of each file
    added: list[str]  # those that the base does not have
    untied: list[str]  # of these, those that had another's numbers
    quantised: int  # how many weights bitsandbytes quantised, if one of them is adapted

    @classmethod
    def of(cls, merging: Merging) -> _Plan:
        """Find out which tensors change, and what each file will hold."""
        source, quantised = merging.source, merging.source.quantised
        if quantised.keys().isdisjoint(merging.weights.values()):
            quantised = {}
        changes = {name: merging.unchanged(name) for name in quantised} | merging.changes
        infos = header({name: change.start for name, change in changes.items()})
        gone = {part for parts in quantised.values() for part in parts[1:]}
        written = {
            name: {
                tensor: infos.get(tensor, info)
                for tensor, info in file.tensors.items()
                if tensor not in gone
            }
            for name, file in source.files.items()
        }
        added = [name for name in changes if name not in source.places]
        written[max(written)] |= {name: infos[name] for name in added}
        untied = sorted(source.tied.keys() & {*added})
        return cls(merging, changes, written, added, untied, len(quantised))

    def config(self) -> Mapping[str, Any]:
        """The config of the merged model: the base's own, if nothing of it changes."""
        config, update = self.merging.source.config, self.merging.update
        config = _in_numbers(config) if self.quantised else config
        config = untied(config) if self.untied else config
        if self.merging.vocabulary:
            config = resized(config, self.merging.vocabulary[1])
        if config and update.path:
            merged = f"{config.get(MERGED, '')} {digest_of(update.path)}"
            config = {**config, MERGED: merged.strip()}
        return config

    def notes(self) -> list[str]:
        """What is unlike the base."""
        notes = []
        if self.merging.vocabulary:
            old, new = self.merging.vocabulary
            notes.append(
                f"the vocabulary has {new} tokens now, {old} in the base, and config.json says so;"
                " its tokenizer is the base's: copy the one that the adapter was trained with"
            )
        if self.added:
            notes.append(f"added: {', '.join(self.added)}")
        if self.untied:
            own = ", ".join(self.untied)
            notes.append(f"with their own numbers now: {own} (tie_word_embeddings is false)")
        if self.quantised:
            notes.append(
                f"in float32 now, adapted or not: {self.quantised} weights that bitsandbytes"
                " quantised"
            )
        return notes


def _measured(rows: Collection[MergedTensor]) -> list[str]:
    """What was lost, and whether anything has changed."""
    rounding = max((row.rounding for row in rows if row.rounding is not None), default=0.0)
    notes = [f"largest rounding error {rounding:.3g}"]
    if not any(row.change is None or row.change for row in rows):
        notes.append("nothing has changed: every update is zero, or less than its dtype can hold")
    return notes


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

    hub.safetensors.write(tensors, merged, path, metadata=source.metadata)
    return rows


def _others(source: OpenModel) -> tuple[list[str], list[str]]:
    """List the base's other files: those to copy, and weights and adapters to leave out."""
    root, copied, left_out = source.path, [], []
    adapters = sorted({path.parent for path in root.rglob("adapter_config.json")} - {root})
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        if (
            path.is_dir()
            or hidden
            or name in {*source.files, hub.INDEX}
            or {*adapters} & {*path.parents}
        ):
            continue
        if name == CARD or name.endswith((*_OTHER_WEIGHTS, ".index.json")):
            left_out.append(name)
        else:
            hub.inside(path.parent, path.name)
            copied.append(name)
    return copied, left_out + [f"{folder.relative_to(root).as_posix()}/" for folder in adapters]


def _index(
    old: Mapping[str, Any], written: Mapping[str, Mapping[str, TensorInfo]]
) -> dict[str, Any]:
    """An index with the places of the tensors and, where the old one has it, their size."""
    new = {
        **old,
        "weight_map": {tensor: name for name, tensors in written.items() for tensor in tensors},
    }
    if isinstance(old.get("metadata"), dict) and "total_size" in old["metadata"]:
        total = sum(info.nbytes for tensors in written.values() for info in tensors.values())
        new["metadata"] = {**old["metadata"], "total_size": total}
    return new


def _in_numbers(old: Mapping[str, Any]) -> dict[str, Any]:
    """A config that says that nothing is quantised."""
    new = {
        key: _in_numbers(part) if key == "text_config" and part else part
        for key, part in old.items()
    }
    new |= {key: "float32" for key in ("dtype", "torch_dtype") if key in new}
    new.pop("quantization_config", None)
    return new
