"""Merge an adapter into a checkpoint."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from lora_np import hub
from lora_np.adapters.adapter import FILES, Adapter, header
from lora_np.adapters.base_models import MERGED, check_base, digest_of
from lora_np.adapters.base_weights import Change, MergeLoss, Merging, losses
from lora_np.adapters.formats import CARD, Written, load
from lora_np.adapters.values import check_finite
from lora_np.checks import Array, Seed, StrPath, choice, float_name, generator
from lora_np.files import FileError, replacing, write_json
from lora_np.hub import SafetensorsFile, TensorInfo, directory
from lora_np.models import OpenModel, resized, untied
from lora_np.work import parallel_map

# Weight files with these extensions are not copied, because they contain the unmerged weights.
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
# Matches weight files of an earlier merge into the same directory; a new merge replaces them.
_WEIGHTS = re.compile(r"(diffusion_pytorch_)?model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")


class MergedTensor(NamedTuple):
    """A tensor that a merge changed.

    Parameters
    ----------
    name, dtype : str
        The tensor's name and dtype in the checkpoint.
    change, rounding : float or None
        The largest change and the largest rounding error; like the shares, None if the tensor was
        replaced in full.
    share_kept : float or None
        ``<Q - W0, dW> / <dW, dW>`` for the update dW and the written weights Q: 1 if rounding lost
        nothing.
    unmoved : float or None
        The share of entries that are equal to the base's.
    """

    name: str
    dtype: str
    change: float | None = None
    rounding: float | None = None
    share_kept: float | None = None
    unmoved: float | None = None


def merge(
    base: StrPath,
    adapter: Adapter | StrPath,
    out: StrPath,
    *,
    dtype: str | None = None,
    rounding: str = "nearest",
    rng: Seed = 0,
    any_base: bool = False,
    jobs: int = 1,
    force: bool = False,
    progress: bool = False,
) -> Written[MergedTensor]:
    """Merge an adapter into a checkpoint: every adapted weight becomes ``W0 + scale * B A``.

    Parameters
    ----------
    base : path
        A model's directory: safetensors in one file or in shards, and its config.
    adapter : path or Adapter
        An adapter in any format that `load` reads, or its result.
    out : path
        The directory to create. It has the same shards, names and dtypes as the base, and the
        base's other files, so that transformers can load it directly.
    dtype : {"float32", "bfloat16", "float16", "float8_e4m3", ...}, optional
        Round all floating-point tensors to this dtype, and record it in ``config.json``; vectors
        are not rounded to 8 bits, which no config can name. By default each tensor keeps its dtype.
    rounding : {"nearest", "random"}
        How weights are rounded. Rounding to nearest loses most of a small update; random rounding
        keeps it on average, with noise.
    rng : Generator or int
        Randomness for random rounding; the result does not depend on ``jobs``.
    any_base : bool
        Whether to continue if the adapter is for another kind of base.
    jobs : int
        The number of shards to work on at a time.
    force : bool
        Whether to replace an existing checkpoint at ``out``. A directory is refused if it contains
        a file that would not be rewritten, or is the base or the adapter.
    progress : bool
        Whether to show a progress bar, if standard error is a terminal.

    Returns
    -------
    Written
        For each changed tensor, the largest change, the largest rounding error, the share of the
        update that survived rounding, and the share of entries that are unchanged.

    Raises
    ------
    FileError
        If base and adapter do not fit, or a result is not finite.
    ValueError
        If an option is unknown, or the target exists.

    See Also
    --------
    merge_gguf : Merge into a GGUF file.
    extract : Extract the difference of two checkpoints as an adapter.

    Notes
    -----
    With DoRA each row is scaled to its magnitude: ``m * (W0 + scale * B A) / ||row||`` (arXiv
    2402.09353). Sums are computed in float64 if the result is in float32 or float64, otherwise in
    float32.

    If the adapter changes a weight that bitsandbytes quantised (nf4 or int8), all quantised weights
    are written in ``dtype``, by default float32, and the config says so: quantising the result
    would round it again.

    If only one of a tied head and embedding is adapted, the head gets its own copy of the weight,
    since merging into the shared weight would change both.

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
            f"{out}: a merged model is a directory, whose name must not have a file's extension"
        )
    choice("rounding", rounding, ("nearest", "random"))
    float_name(dtype or "float32", hub.ALL_FLOATS)
    draw = int(generator(rng).integers(2**63))
    seed = draw if rounding == "random" else None
    source = OpenModel.at(directory(base))
    update = load(adapter, base=source)
    unsure = () if any_base else check_base(source, update)
    merging = Merging(source, update)
    plan = _Plan.of(merging, dtype)
    others, left_out = _others(source)
    folders = {parent.as_posix() for name in others for parent in PurePosixPath(name).parents}
    ours = {*source.files, *others, *folders, CARD}
    inputs = [source.path, *filter(None, [update.path])]
    with replacing(
        out,
        force=force,
        marks=hub.HOMES,
        writes=lambda name: name in ours or bool(_WEIGHTS.fullmatch(name)),
        keeps=[CARD],
        inputs=inputs,
    ) as stage:
        for name in others:
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.path / name, stage / name)
        try:
            measured = plan.write(stage, seed, jobs, progress)
        except FileError:
            check_finite(update)  # if the adapter is the cause, name its tensor in the error
            raise
    records = [
        MergedTensor(
            name,
            plan.changes[name].initial.dtype,
            *((one.change, one.rounding, *one.shares) if one else ()),
        )
        for name, one in measured.items()
    ]
    offer = "keep base and adapter apart, take --dtype float32"
    notes = [*losses(merging, [*measured.values()], offer), *unsure, *plan.notes()]
    if left_out:
        notes.append(
            "not copied, since they are unmerged weights or adapters, or describe the base:"
            f" {', '.join(left_out)}"
        )
    headings = (
        "tensor", "dtype", "largest change", "rounding error", "share kept", "unmoved"
    )  # fmt: skip
    return Written(f"{base} + {adapter}", tuple(records), tuple(notes), headings, Path(out))


class _Plan(NamedTuple):
    """The contents of a merged checkpoint."""

    merging: Merging
    changes: Mapping[str, Change]  # by tensor; other tensors are copied unchanged
    written: Mapping[str, Mapping[str, TensorInfo]]  # the tensors of each file
    added: list[str]  # the tensors that the base does not have
    untied: list[str]  # the added tensors that were tied to another tensor in the base
    quantised: int  # the number of weights to dequantise
    # the dtype of all floats, or None to keep each tensor's own dtype; an 8-bit dtype skips vectors
    dtype: str | None

    @classmethod
    def of(cls, merging: Merging, dtype: str | None) -> _Plan:
        """Plan a merge: decide which tensors change, and which tensors each file will contain."""
        source, quantised = merging.source, merging.source.quantised
        # copy quantised weights as they are if the adapter changes none of them
        if not dtype and quantised.keys().isdisjoint(merging.weights.values()):
            quantised = {}
        also = source.places if dtype else quantised
        changes = {name: merging.unchanged(name) for name in also} | merging.changes
        for name, change in changes.items():
            initial = change.initial
            fits = dtype in hub.FLOATS or len(initial.shape) > 1
            if dtype and fits and initial.dtype in hub.ALL_FLOATS:
                changes[name] = replace(change, initial=replace(initial, dtype=dtype))
        infos = header({name: change.initial for name, change in changes.items()})
        # leave out the tensors with scales, which dequantised weights do not need
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
        # put tensors that the base does not have into the last file
        written[max(written)] |= {name: infos[name] for name in added}
        untied = sorted(source.tied.keys() & {*added})
        return cls(merging, changes, written, added, untied, len(quantised), dtype)

    def write(
        self, stage: Path, seed: int | None, jobs: int, progress: bool
    ) -> dict[str, MergeLoss | None]:
        """Write weights, index and config; return the statistics of each changed tensor."""
        source, written = self.merging.source, self.written
        shards = {name: (source.files[name], stage / name, written[name]) for name in written}
        write = partial(_merge_shard, self.changes, seed)
        by_shard = parallel_map(write, shards, jobs=jobs, progress=progress, label="merge")
        if source.index is not None:
            write_json(stage / source.home[1], _index(source.index, written))
        config = self.config()
        if config is not source.config:
            write_json(stage / "config.json", config)
        found = [pair for measured in by_shard.values() for pair in measured.items()]
        return {name: one for name, one in found if name in self.merging.changes}

    def config(self) -> Mapping[str, Any]:
        """Return the config of the merged model, or the base's config object if nothing changes."""
        config, update = self.merging.source.config, self.merging.update
        if config and (self.quantised or self.dtype in hub.FLOATS):
            config = _in_numbers(config, self.dtype or "float32")
        config = untied(config) if self.untied else config
        if self.merging.vocabulary:
            config = resized(config, self.merging.vocabulary[1])
        if config and update.path:
            merged = f"{config.get(MERGED, '')} {digest_of(update.path)}"
            config = {**config, MERGED: merged.strip()}
        return config

    def notes(self) -> list[str]:
        """Return notes on how the merged model differs from the base, beyond changed weights."""
        notes = []
        if self.merging.vocabulary:
            old, new = self.merging.vocabulary
            notes.append(
                f"the vocabulary now has {new} tokens ({old} in the base), as config.json says; the"
                " tokenizer is still the base's: copy the one that the adapter was trained with"
            )
        if self.added:
            notes.append(f"added: {', '.join(self.added)}")
        if self.untied:
            own = ", ".join(self.untied)
            notes.append(f"no longer tied: {own} (tie_word_embeddings is now false)")
        if self.quantised:
            notes.append(
                f"{self.quantised} weights that bitsandbytes quantised are now in"
                f" {self.dtype or 'float32'}, adapted or not"
            )
        return notes


def _merge_shard(
    changes: Mapping[str, Change],
    seed: int | None,
    shard: tuple[SafetensorsFile, Path, Mapping[str, TensorInfo]],
) -> dict[str, MergeLoss | None]:
    """Write one file of the merged checkpoint; return the statistics of its changed tensors."""
    source, path, tensors = shard
    found: dict[str, MergeLoss | None] = {}

    def merged(name: str) -> Array | SafetensorsFile:
        if name not in changes:
            return source
        # seed by the tensor's name, because shards may be written in any order
        rng = None if seed is None else np.random.default_rng([seed, crc32(name.encode())])
        W, found[name] = changes[name].result(f"{source.path}: {name!r}", rng=rng)
        return W

    hub.safetensors.write(tensors, merged, path, metadata=source.metadata)
    return found


def _others(source: OpenModel) -> tuple[list[str], list[str]]:
    """List the base's files to copy besides its weights, and what not to copy, such as adapters."""
    root, copied, left_out = source.path, [], []
    adapters = sorted({path.parent for path in root.rglob("adapter_config.json")} - {root})
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        if (
            path.is_dir()
            or hidden
            or name in {*source.files, hub.INDEX, source.home[1]}
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
    """Return an index with the new file of each tensor and, if it had one, the new total size."""
    new = {
        **old,
        "weight_map": {tensor: name for name, tensors in written.items() for tensor in tensors},
    }
    if isinstance(old.get("metadata"), dict) and "total_size" in old["metadata"]:
        total = sum(info.nbytes for tensors in written.values() for info in tensors.values())
        new["metadata"] = {**old["metadata"], "total_size": total}
    return new


def _in_numbers(old: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Return a config in which every weight has this dtype, and no weight is quantised."""
    new = {
        key: _in_numbers(part, dtype) if key == "text_config" and part else part
        for key, part in old.items()
    }
    new |= dict.fromkeys({"dtype", "torch_dtype"} & new.keys() or ["torch_dtype"], dtype)
    new.pop("quantization_config", None)
    return new
