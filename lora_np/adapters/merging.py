"""A base and an adapter in one checkpoint, file by file and tensor by tensor."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from lora_np.adapters.bases import check_base
from lora_np.adapters.findings import Findings
from lora_np.adapters.module import AdapterModule, Stored, TokenRows, header
from lora_np.adapters.peft_format import Adapter, load
from lora_np.adapters.weights import merged, oriented
from lora_np.checks import Array, close_names
from lora_np.files import replacing, write_json
from lora_np.hub import (
    FLOATS,
    INDEX,
    PICKLES,
    SINGLE,
    HubError,
    SafetensorsFile,
    SafetensorsWriter,
    TensorInfo,
    bitsandbytes_parts,
    directory,
    inside,
    read_bitsandbytes,
    rounded,
)
from lora_np.models import HEAD, OpenModel, Place, open_model
from lora_np.work import each

# Weights in other formats, which would be the unmerged ones.
_OTHER_WEIGHTS = (*PICKLES, ".safetensors", ".h5", ".msgpack", ".gguf", ".onnx", ".ot", ".tflite", ".npz")
# What transformers registers with inputs before outputs (``is_transposed``).
_TRANSPOSED_EXPERTS = ("gpt_oss", "aria_text", "openai_privacy_filter")
# What an older merge, of a base in other shards, may have left at the target.
_WEIGHTS = re.compile(rf"{re.escape(SINGLE)}|model-\d+-of-\d+\.safetensors|{re.escape(INDEX)}")


class MergedTensor(NamedTuple):
    """A tensor that a merge changed: its largest change, and the largest rounding error on the way.

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


@dataclass(frozen=True, repr=False)
class MergeResult(Findings[MergedTensor]):
    """What `merge` wrote.

    Parameters
    ----------
    title : str
        Of the table.
    rows : tuple of MergedTensor
        The tensors that differ from the base's.
    notes : tuple of str
        What was added, and what was not copied.
    path : Path
        The new checkpoint.
    """

    path: Path
    headings = ("tensor", "dtype", "largest change", "rounding error")


def merge(
    base: str | os.PathLike[str],
    adapter: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    any_base: bool = False,
    full_precision: bool = False,
    jobs: int = 1,
    force: bool = False,
    progress: bool = False,
) -> MergeResult:
    """Write the checkpoint in which every adapted weight is ``W0 + scale * B A``.

    Parameters
    ----------
    base : path
        A model's directory: safetensors in one file or in shards, and its config. A GGUF file is refused.
    adapter : path
        A directory as PEFT writes it.
    out : path
        The directory to make: the same shards, names and dtypes, and the base's other files, so that
        transformers loads it directly.
    any_base : bool
        Whether to go on where the adapter is for another kind of base.
    full_precision : bool
        Whether to write a base that bitsandbytes quantised (nf4 or int8) in float32: all its quantised
        weights, adapted or not, and a config that says so. Without this such a base is refused, since to
        quantise the result would round it again.
    jobs : int
        How many shards to work on at a time.
    force : bool
        Whether to replace an existing checkpoint at ``out``. One that holds a file which is not written
        again is refused, as are the base and the adapter.
    progress : bool
        Show a bar, if standard error is a terminal.

    Returns
    -------
    MergeResult
        For each changed tensor the largest change, and the largest rounding error on the way to its dtype.

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
    (arXiv 2402.09353). All is computed in one precision above the base's.

    A head that shares the embedding's numbers gets its own where one of the two is adapted, since merging
    into shared numbers would change both, which the adapter does not do.

    Examples
    --------
    >>> import tempfile, lora_np as lnp
    >>> from lora_np.hub import safetensors
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "base").mkdir()
    >>> safetensors.save({"q.weight": np.eye(2, dtype=np.float32)}, folder / "base" / "model.safetensors")
    >>> module = AdapterModule.of(A=np.ones((1, 2)), B=np.ones((2, 1)), alpha=1)
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
    source, update = open_model(directory(base)), load(adapter)
    unsure = () if any_base else check_base(source.config, source.path, update)
    merging = Merging(source, update)
    quantised = {name: parts for name in source.places if (parts := bitsandbytes_parts(source, name))}
    if full_precision and not quantised:
        raise HubError(f"{source.path}: full_precision (--full-precision) is for what bitsandbytes quantised")
    for name, weight in merging.weights.items():
        if weight in quantised and not full_precision:
            raise HubError(
                f"{source.path}: the weight of {name!r} is quantised by bitsandbytes, and merging rounds it "
                "again; pass full_precision=True (--full-precision) to write the model in float32"
            )
    if not full_precision:
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

    def writes(name: str) -> bool:
        return name in ours or _WEIGHTS.fullmatch(name) is not None

    with replacing(out, force=force, writes=writes, inputs=[base, adapter]) as stage:
        shards = [(file, stage / name, written[name]) for name, file in source.files.items()]
        write = partial(_merge_shard, changes)
        by_shard = each(write, shards, jobs=jobs, progress=progress, label="merge")
        for name in others:
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.path / name, stage / name)
        _write_index(source, stage, written)
        if HEAD in added or quantised:
            _write_config(source, stage, untied=HEAD in added, widened=bool(quantised))
    rows = tuple(row for rows in by_shard for row in rows if row.name in merging.changes)
    rounding = max((row.rounding for row in rows if row.rounding is not None), default=0.0)
    notes = [f"largest rounding error {rounding:.3g}", *unsure]
    if added:
        notes.append(f"added: {', '.join(added)}")
    if HEAD in added:
        notes.append(f"{HEAD} has its own numbers now (tie_word_embeddings is false)")
    if quantised:
        notes.append(f"in float32 now, adapted or not: {len(quantised)} weights that bitsandbytes quantised")
    if left_out:
        notes.append(f"not copied, because they are unmerged weights or adapters: {', '.join(left_out)}")
    return MergeResult(f"{base} + {adapter}", rows, tuple(notes), Path(out))


@dataclass(frozen=True)
class _Change:
    """What becomes of a tensor: ``start``, with ``rows`` replaced, on which ``module`` acts."""

    start: Stored  # of the dtype that the result is to have
    module: AdapterModule | None = None
    rows: TokenRows | None = None
    transposed: bool = False  # whether it may be stored as inputs by outputs


@dataclass(frozen=True)
class Merging:
    """What an adapter makes of the tensors of a base."""

    source: OpenModel
    update: Adapter

    @cached_property
    def named(self) -> Callable[[str], str]:
        """From the adapter's name of a parameter to that of the tensor in the base."""
        return self.source.naming(map(weight_name, self.update, self.update.values()))

    @property
    def weights(self) -> dict[str, str]:
        """The tensor of each adapted module in the base."""
        return {name: self.named(weight_name(name, module)) for name, module in self.update.items()}

    def base_weights(self) -> dict[str, Callable[[], Array]]:
        """A reader of each adapted module's weight in the base, where that is one tensor."""
        return {
            name: self.changes[target].start.read
            for name, target in self.weights.items()
            if target in self.changes
        }

    def read(self, name: str) -> Array:
        """A tensor as the adapter makes it, in float64, before it is rounded."""
        if name not in self.changes:
            return self.source.read(name)
        change, start = self.changes[name], self.changes[name].start
        wide = replace(start, dtype="float64", read=lambda: start.read().astype(np.float64))
        return _become(self.source.path, name, replace(change, start=wide))[0]

    @cached_property
    def changes(self) -> dict[str, _Change]:
        """Every tensor that will not be the base's, by its name in the base."""
        named, embedding = self.named, self.source.tied_embedding
        changes = {named(name): self._replacement(name) for name in self.update.full}
        for name, rows in self.update.rows.items():
            before = changes.get(named(name)) or self._original(named(name), name)
            shape = before.start.shape
            d, k = shape if len(shape) == 2 else (0, 0)
            if rows.new.shape[1] != k or max(rows.tokens) >= d:
                raise HubError(
                    f"{self.source.path}: {name!r} of shape {shape} does not have the rows that "
                    f"{self.update.path} replaces: up to {max(rows.tokens)}, of {rows.new.shape[1]} numbers"
                )
            changes[named(name)] = replace(before, rows=rows)
        heads_own = changes.get(HEAD)
        # TokenRows are replaced in what the two share, as PEFT ties them.
        unshared = {*map(named, self.update.full), *self.weights.values()}
        for name, module in self.update.items():
            for target, part, transposed in self._targets(name, module):
                if target == embedding:
                    # The head goes on with the numbers from which the embedding's adapter starts.
                    heads_own = heads_own or changes.get(target) or self.unchanged(target)
                before = changes.get(target) or self._original(target, name)
                changes[target] = replace(before, module=part, transposed=transposed)
        if embedding in changes and embedding in unshared:
            changes.setdefault(HEAD, heads_own or self.unchanged(embedding))
        return changes

    def _targets(self, name: str, module: AdapterModule) -> Iterator[tuple[str, AdapterModule, bool]]:
        """The tensors that a module changes; what acts on each; whether it may be stored inputs by outputs.

        A checkpoint may hold the experts of a layer one by one, and the maps that were stacked by themselves.
        """
        weight, source = weight_name(name, module), self.source
        tensors = source.parameters.get(weight) or {self.named(weight): Place(weight)}
        experts = {place.expert for place in tensors.values()}
        if None not in experts and len(experts) != module.maps:
            raise HubError(
                f"{source.path}: {weight!r} has {len(experts)} experts, but {module.maps} in "
                f"{self.update.path}"
            )
        for target, place in tensors.items():
            if place.expert is not None:
                yield target, module.expert(place.expert, part=place.part, parts=place.parts), False
            elif module.maps == 1 or module.kernel:
                yield target, module, self.update.fan_in_fan_out
            else:
                # The shape tells how they are stored, or where inputs and outputs are as many, the type.
                square = module.shape[-1] == module.shape[-2]
                yield target, module, not square or has_transposed_experts(source) != place.transposed
        if "bias" in module.parts:
            yield self.named(f"{name}.bias"), module, False

    def unchanged(self, name: str) -> _Change:
        """A tensor of the base as it is, in float32 where bitsandbytes quantised it."""
        source = self.source
        if bitsandbytes_parts(source, name):
            shape = read_bitsandbytes(source, name).shape
            return _Change(Stored("float32", shape, lambda: read_bitsandbytes(source, name).dequantised()))
        info = source.info(name)
        return _Change(Stored(info.dtype, info.shape, partial(source.read, name)))

    def _replacement(self, name: str) -> _Change:
        source, target, tensor = self.source, self.named(name), self.update.full[name]
        if target not in source and target != name:
            raise HubError(f"{source.path}: has no {target!r}; merge into the model with its head instead")
        before = source.info(target) if target in source else tensor
        if before.shape != tensor.shape:
            raise HubError(
                f"{self.update.path}: {name!r} has shape {tensor.shape}, but {before.shape} in {source.path}"
            )
        return _Change(replace(tensor, dtype=before.dtype))

    def _original(self, target: str, name: str) -> _Change:
        source = self.source
        if target in source:
            return self.unchanged(target)
        if target == HEAD and source.tied_embedding is not None:
            return self.unchanged(source.tied_embedding)
        close = close_names(target, source.places)
        raise HubError(
            f"{source.path}: has no {target!r}, which {self.update.path} adapts as {name!r}{close}"
        )


def weight_name(name: str, module: AdapterModule) -> str:
    """The parameter that a module of an adapter changes."""
    return name if module.parameter else f"{name}.weight"


def has_transposed_experts(source: OpenModel) -> bool:
    """Whether the live model holds experts as inputs by outputs."""
    configs = (source.config, *(part for part in source.config.values() if isinstance(part, Mapping)))
    return any(config.get("model_type") in _TRANSPOSED_EXPERTS for config in configs)


def _merge_shard(
    changes: Mapping[str, _Change], shard: tuple[SafetensorsFile, Path, Mapping[str, TensorInfo]]
) -> list[MergedTensor]:
    source, path, tensors = shard
    rows: list[MergedTensor] = []
    with SafetensorsWriter(path, tensors, metadata=source.metadata) as writer:
        for name in tensors:
            if name in changes:
                W, row = _become(source.path, name, changes[name])
                writer.write(name, W)
                rows.append(row)
            else:
                writer.copy(name, source)
    return rows


def _become(path: Path, name: str, change: _Change) -> tuple[Array, MergedTensor]:
    """A tensor after its change, as its dtype holds it."""
    place = f"{path}: {name!r}"
    dtype, module = change.start.dtype, change.module
    W = change.start.read()
    moved, lost = None, None
    if change.rows is not None:
        W[list(change.rows.tokens)] = rounded(change.rows.new.read(), dtype)
    if module is not None and dtype not in FLOATS:
        raise HubError(f"{place} is stored as {dtype}, into which nothing can be merged")
    if module is not None and W.ndim == 1:
        moved, lost = merged(place, W[:, None], _bias_update(module), dtype=dtype)
    elif module is not None:
        maps = oriented(place, W, module, transposed=change.transposed)
        moved, lost = merged(place, maps, module, dtype=dtype)
    elif not np.isfinite(W).all():
        raise HubError(f"{place} is replaced by what is not finite")
    return W, MergedTensor(name, dtype, moved, lost)


def _bias_update(module: AdapterModule) -> AdapterModule:
    """The bias of B as the update of a bias, a matrix of one column."""
    bias = module.parts["bias"]
    column = replace(bias, shape=(*bias.shape, 1), read=lambda: bias.read()[:, None])
    one = replace(bias, shape=(1, 1), read=lambda: np.ones((1, 1)))
    return AdapterModule({"B": column, "A": one}, alpha=module.scale)


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


def _write_index(source: OpenModel, stage: Path, written: Mapping[str, Mapping[str, TensorInfo]]) -> None:
    if source.index is None:
        return
    metadata = source.index.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("total_size"), int):
        shards = ((source.files[name].tensors, tensors) for name, tensors in written.items())
        more = sum(_bytes(after) - _bytes(before) for before, after in shards)
        metadata = {**metadata, "total_size": metadata["total_size"] + more}
    places = {tensor: name for name, tensors in written.items() for tensor in tensors}
    index = {**source.index, "metadata": metadata, "weight_map": places}
    write_json(stage / INDEX, index)


def _bytes(tensors: Mapping[str, TensorInfo]) -> int:
    return sum(info.nbytes for info in tensors.values())


def _write_config(source: OpenModel, stage: Path, *, untied: bool, widened: bool) -> None:
    """Have the copied config say that the head has its own numbers, or that nothing is quantised."""

    def changed(config: Mapping[str, Any]) -> dict[str, Any]:
        if untied:
            config = {**config, "tie_word_embeddings": False}
        if widened:
            kinds = {key: "float32" for key in ("dtype", "torch_dtype") if key in config}
            config = {**config, **kinds}
            config.pop("quantization_config", None)
        return dict(config)

    config = changed(source.config)
    if isinstance(config.get("text_config"), dict):
        config["text_config"] = changed(config["text_config"])
    write_json(stage / "config.json", config)
