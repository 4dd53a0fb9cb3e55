"""A base with an adapter applied: block by block, tensor by tensor, and the whole in one
checkpoint.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from lora_np import hub, lora
from lora_np.adapters.adapter import (
    Adapter,
    AdapterModule,
    Stored,
    TokenRows,
    check_start,
    header,
    held,
)
from lora_np.adapters.base_models import check_base
from lora_np.adapters.formats import Written, load
from lora_np.adapters.scaling import parted
from lora_np.checks import Array, StrPath, close_names
from lora_np.files import FileError, replacing, write_json
from lora_np.hub import SafetensorsFile, TensorInfo, bitsandbytes_parts, directory
from lora_np.models import OpenModel, Place, open_model, untied
from lora_np.work import parallel_map

Reader = Callable[[], Array]
BLOCK = 2**20  # entries processed at a time, so that no memory for a second weight is needed


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
        A model's directory: safetensors in one file or in shards, and its config. A GGUF file is
        refused.
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
        how = (
            "language.load it, adapters.attach the adapter, lora_np.merge, and language.save the"
            " result"
        )
        raise FileError(
            f"{base}: a GGUF file, and merge reads directories of safetensors; in Python: {how}"
        )
    source, update = open_model(directory(base)), load(adapter, base=base)
    unsure = () if any_base else check_base(source.config, source.path, update)
    merging = Merging(source, update)
    quantised = {
        name: parts for name in source.places if (parts := bitsandbytes_parts(source, name))
    }
    if quantised.keys().isdisjoint(merging.weights.values()):
        quantised = {}
    changes = {**{name: merging.unchanged(name) for name in quantised}, **merging.changes}
    gone = {part for parts in quantised.values() for part in parts[1:]}
    widened = header({name: changes[name].start for name in quantised})
    added = header({name: each.start for name, each in changes.items() if name not in source})
    written = {
        name: {
            each: widened.get(each, info) for each, info in file.tensors.items() if each not in gone
        }
        for name, file in source.files.items()
    }
    written[max(source.files)] |= added
    others, left_out = _others(source)
    folders = {parent.as_posix() for name in others for parent in PurePosixPath(name).parents}
    ours = {*source.files, *others, *folders}
    inputs = [source.path, *([update.path] if update.path else [])]
    with replacing(
        out,
        force=force,
        writes=lambda name: name in ours or bool(_WEIGHTS.fullmatch(name)),
        inputs=inputs,
    ) as stage:
        shards = {name: (file, stage / name, written[name]) for name, file in source.files.items()}
        write = partial(_merge_shard, changes)
        by_shard = parallel_map(write, shards, jobs=jobs, progress=progress, label="merge")
        for name in others:
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.path / name, stage / name)
        if source.index is not None:
            write_json(stage / hub.INDEX, _index(source.index, written))
        if added or quantised:
            config = _config(source.config) if quantised else source.config
            write_json(
                stage / "config.json", untied(config) if source.tied.keys() & added else config
            )
    rows = tuple(row for rows in by_shard.values() for row in rows if row.name in merging.changes)
    rounding = max((row.rounding for row in rows if row.rounding is not None), default=0.0)
    notes = [f"largest rounding error {rounding:.3g}", *unsure]
    if added:
        notes.append(f"added: {', '.join(added)}")
    if own := sorted(source.tied.keys() & added):
        notes.append(f"with their own numbers now: {', '.join(own)} (tie_word_embeddings is false)")
    if quantised:
        notes.append(
            f"in float32 now, adapted or not: {len(quantised)} weights that bitsandbytes quantised"
        )
    if left_out:
        notes.append(
            f"not copied, because they are unmerged weights or adapters: {', '.join(left_out)}"
        )
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

    hub.safetensors.write(tensors, merged, path, metadata=source.metadata)
    return rows


def _others(source: OpenModel) -> tuple[list[str], list[str]]:
    """The base's other files: those that are copied; weights in another form, and adapters for the
    base.
    """
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
        if name.endswith((*_OTHER_WEIGHTS, ".index.json")):
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


def _config(old: Mapping[str, Any]) -> dict[str, Any]:
    """A config that says that nothing is quantised."""
    new = {
        key: _config(part) if key == "text_config" and part else part for key, part in old.items()
    }
    new |= {key: "float32" for key in ("dtype", "torch_dtype") if key in new}
    new.pop("quantization_config", None)
    return new


@dataclass(frozen=True)
class Change:
    """The change of a tensor: ``start``, with ``rows`` replaced, on which ``module`` acts."""

    start: Stored  # of the dtype that the result is to have
    module: AdapterModule | None = None
    rows: TokenRows | None = None
    transposed: bool = False  # whether it may be stored as inputs by outputs
    # the initialisation that took the module's first factors out of the weight
    began: str | None = None

    def result(
        self, place: str, dtype: str | None = None
    ) -> tuple[Array, float | None, float | None]:
        """The tensor as ``dtype`` (its own) holds it, the largest change and the largest rounding
        error.
        """
        dtype, module, W = dtype or self.start.dtype, self.module, self.start.read()
        if self.rows is not None:
            W[list(self.rows.tokens)] = hub.rounded(self.rows.new.read(), self.start.dtype)
        if module is None:
            if not np.isfinite(W).all():
                raise FileError(f"{place} is replaced by what is not finite")
            return W, None, None
        if dtype not in hub.FLOATS:
            raise FileError(f"{place} is stored as {dtype}, into which nothing can be merged")
        W = np.asarray(W, np.float64) if dtype == "float64" else W
        maps = oriented(place, W, module, transposed=self.transposed)
        if self.began:
            module = from_start(module, maps, self.began)
        return W, *add_update(place, maps, module, dtype=dtype)

    def weight(self, place: str, module: AdapterModule) -> Array:
        """The tensor before the change, in float32 or better, as the maps of ``module``: see
        `oriented`.
        """
        return oriented(place, self.start.single(), module, transposed=self.transposed)


@dataclass(frozen=True)
class Merging:
    """The tensors of a base with an adapter applied."""

    source: OpenModel
    update: Adapter

    def __post_init__(self) -> None:
        check_start(self.update, with_base=True)
        if self.update.start == "olora" and self.update.fan_in_fan_out:
            raise FileError(
                f"{self.update}: OLoRA does not turn weights back in PEFT, as fan_in_fan_out asks"
            )

    @cached_property
    def named(self) -> Callable[[str], str]:
        """From the adapter's name of a parameter to that of the tensor in the base."""
        return self.source.naming([weight_name(*item) for item in self.update.modules.items()])

    @cached_property
    def weights(self) -> dict[str, str]:
        """The tensor of each adapted module in the base."""
        return {
            name: self.named(weight_name(name, module))
            for name, module in self.update.modules.items()
        }

    def read(self, name: str) -> Array:
        """A tensor as the adapter makes it, in float64, before it is rounded."""
        if name not in self.changes:
            return self.source.read(self.source.tied.get(name, name))
        return self.changes[name].result(f"{self.source.path}: {name!r}", "float64")[0]

    @cached_property
    def changes(self) -> dict[str, Change]:
        """Every tensor that will not be the base's, by its name in the base."""
        named, tied = self.named, self.source.tied
        changes = {named(name): self._replacement(name) for name in self.update.full}
        for name, rows in self.update.rows.items():
            old = changes.get(named(name)) or self._original(named(name), name)
            shape = old.start.shape
            d, k = shape if len(shape) == 2 else (0, 0)
            if rows.new.shape[1] != k or max(rows.tokens) >= d:
                have = f"{self.source.path}: {name!r} of shape {shape} does not have the rows"
                wanted = f"up to {max(rows.tokens)}, of {rows.new.shape[1]} numbers"
                raise FileError(f"{have} that {self.update} replaces: {wanted}")
            changes[named(name)] = replace(old, rows=rows)
        adapted, began = {*self.weights.values()}, self.update.start
        own = {owner: changes[owner] for owner in adapted & changes.keys()}
        before = {owner: own.get(owner) or self.unchanged(owner) for owner in tied.values()}
        for name, module in self.update.modules.items():
            for target, part, transposed in self._targets(name, module):
                old = changes.get(target) or self._original(target, name)
                changes[target] = replace(old, module=part, transposed=transposed, began=began)
        full = {named(name): stored for name, stored in self.update.full.items()}
        whole = [
            (name, owner) for name, owner in tied.items() if {name, owner} <= full.keys() - adapted
        ]
        same = {
            name for name, owner in whole if np.array_equal(full[name].read(), full[owner].read())
        }
        # Rows, and biases, are replaced in what modules share, as PEFT ties them.
        moved = {owner for name, owner in tied.items() if name.endswith(".weight")} & (
            adapted | full.keys()
        )
        if any(
            name in changes or owner in moved for name, owner in tied.items() if name not in same
        ):
            if not self.source.can_untie:
                every = ", ".join({**before, **tied})
                why = (
                    "and models of this type have the same numbers in all of them: that cannot be"
                    " merged"
                )
                raise FileError(
                    f"{self.source.path}: {self.update} changes one of {every} alone, {why}"
                )
            return {name: before[owner] for name, owner in tied.items()} | changes
        return {name: change for name, change in changes.items() if name not in same}

    def _targets(
        self, name: str, module: AdapterModule
    ) -> Iterator[tuple[str, AdapterModule, bool]]:
        """The tensors that a module changes; what acts on each; whether it may be stored inputs by
        outputs.

        A checkpoint may hold the experts of a layer one by one, and the maps that were stacked by
        themselves.
        """
        weight, source = weight_name(name, module), self.source
        tensors = source.parameters.get(weight) or {self.weights[name]: Place(weight)}
        experts = {place.expert for place in tensors.values()}
        if None not in experts and len(experts) != module.maps:
            raise FileError(
                f"{source.path}: {name!r} has {len(experts)} experts, {self.update} {module.maps}"
            )
        for target, place in tensors.items():
            if module.tuned:
                size = self.shape(place.parameter)
                module = replace(module, tuned=module.tuned.on(size))
            if place.expert is not None:
                yield target, parted(module.expert(place.expert), place.parts)[place.part], False
                continue
            known = place.parameter in source.parameters
            turned = known and source.module_of(place.parameter).transposed
            if module.maps == 1 or module.kernel:
                # Of what no family describes the config may say it, though PEFT fits it to some
                # layer.
                yield (
                    target,
                    module,
                    turned or (source.described is None and self.update.fan_in_fan_out),
                )
            else:
                # The shape shows how they are stored, or, if inputs and outputs are equally many,
                # the type.
                yield (
                    target,
                    module,
                    module.shape[-1] != module.shape[-2] or turned != place.transposed,
                )
        if module.tuned and module.tuned.moves_bias:
            if (bias := self.named(f"{name}.bias")) in source:
                column = module.tuned.on((module.shape[0], 1))
                yield bias, replace(module, tuned=column), False
        elif "bias" in module.parts:  # adds scale * bias: the update of a matrix of one column
            trained = module.parts["bias"]
            one = Stored(trained.dtype, (1, 1), lambda: np.ones((1, 1)))
            factors = {"B": trained.seen(lambda b: b[:, None]), "A": one}
            target = self.named(f"{name}.bias")
            if target not in source and target not in source.tied:
                why = (
                    "to add the bias of B to, and PEFT cannot merge it either: train without"
                    " lora_bias"
                )
                raise FileError(f"{source.path}: has no {target!r} {why}")
            yield target, AdapterModule(factors, alpha=module.scale), False

    def shape(self, parameter: str) -> tuple[int, ...]:
        """Outputs and inputs of a linear weight, however it is stored."""
        module = self.source.module_of(parameter)
        unsure = (
            self.source.described is None and self.update.fan_in_fan_out and not module.transposed
        )
        return module.shape[::-1] if unsure else module.shape

    def unchanged(self, name: str) -> Change:
        """A tensor of the base as it is, in float32 where bitsandbytes quantised it."""
        source = self.source
        if bitsandbytes_parts(source, name):
            shape = hub.read_bitsandbytes(source, name).shape
            return Change(
                Stored("float32", shape, lambda: hub.read_bitsandbytes(source, name).dequantised())
            )
        info = source.info(name)
        return Change(Stored(info.dtype, info.shape, partial(source.read, name)))

    def _replacement(self, name: str) -> Change:
        source, target, new = self.source, self.named(name), self.update.full[name]
        if target not in source and target != name:
            raise FileError(
                f"{source.path}: has no {target!r}; merge into the model with its head instead"
            )
        old = source.info(target) if target in source else new
        if old.shape != new.shape:
            raise FileError(
                f"{self.update}: {name!r} has shape {new.shape}, but {old.shape} in {source.path}"
            )
        # its rows may be replaced, and it may be in memory
        return Change(replace(new, dtype=old.dtype, read=lambda: new.read().copy()))

    def _original(self, target: str, name: str) -> Change:
        source = self.source
        owner = target if target in source else source.tied.get(target)
        if owner is not None:
            return self.unchanged(owner)
        close = close_names(target, source.places)
        raise FileError(
            f"{source.path}: has no {target!r}, which {self.update} adapts as {name!r}{close}"
        )


def from_start(module: AdapterModule, W: Array, start: str) -> AdapterModule:
    """What a module does to ``W`` (d, k) itself, of which it started with a part: of twice the
    rank.

    ``W - s B0 A0 + s B A = W + s [B, -B0] [A; A0]``.
    """
    B0, A0 = lora.STARTS[start](W.astype(np.float64), module.rank, module.scale)
    B, A = module.factors()
    b, a = (module.parts[part].dtype for part in "BA")
    return module.with_factors(B=held(np.hstack([B, -B0]), b), A=held(np.vstack([A, A0]), a))


def weight_name(name: str, module: AdapterModule) -> str:
    """The parameter that a module of an adapter changes."""
    return name if module.parameter else f"{name}.weight"


def oriented(place: str, W: Array, module: AdapterModule, *, transposed: bool) -> Array:
    """A base weight seen as the module's maps, outputs by inputs: (d, k) or a stack of those.

    Embeddings are stored as (k, d). If ``transposed`` says that others may be too (GPT-2's Conv1D,
    the experts of gpt-oss), the shape decides if it can: a config says so for all layers, but means
    some.
    """
    if module.kernel and module.groups > 1:
        why = (
            "takes each group's inputs alone, while PEFT's update takes all: that cannot be merged"
        )
        raise FileError(f"{place}: a convolution in {module.groups} groups {why}")
    W = W[:, None] if W.ndim == 1 else W
    shape = module.shape
    swapped = shape if module.kernel else (*shape[:-2], shape[-1], shape[-2])
    transposed = module.embedding or (transposed and W.shape == swapped)
    if W.shape != (swapped if transposed else shape) and W.shape != (1, *shape):
        hint = "; it is stored transposed, which needs fan_in_fan_out" if W.shape == swapped else ""
        raise FileError(f"{place} of shape {W.shape} does not fit an update of shape {shape}{hint}")
    maps = W.reshape(len(W), -1) if module.kernel else W.reshape(W.shape[-len(shape) :])
    return maps.swapaxes(-1, -2) if transposed else maps


def add_update(place: str, W: Array, module: AdapterModule, *, dtype: str) -> tuple[float, float]:
    """Overwrite ``W``, as `oriented` gives it, with ``W0 + scale * B A`` as a file of ``dtype``
    holds it.

    Computed in a higher precision than ``dtype``. With DoRA each output's row is brought to its
    magnitude. Returns the largest change and the largest rounding error.
    """
    wide = np.dtype(np.float64 if dtype in ("float32", "float64") else np.float32)
    change = changing(module, W, wide)
    magnitude, moved, lost = module.magnitude, 0.0, 0.0
    step = max(1, BLOCK // W.shape[-1])
    # what is not finite is refused below
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for index in np.ndindex(W.shape[:-2]):
            for start in range(0, W.shape[-2], step):
                rows = (*index, slice(start, start + step))
                exact = W[rows] + change(rows)
                if magnitude is not None:  # arXiv 2402.09353; a row of zeros has no direction
                    exact *= (magnitude[rows] / np.linalg.norm(exact, axis=1))[:, None]
                stored = hub.rounded(exact, dtype)
                if not np.isfinite(stored).all():
                    raise FileError(
                        f"{place} is not finite when it is merged; its dtype is {dtype}"
                    )
                moved = max(moved, float(np.abs(stored - W[rows]).max()))
                lost = max(lost, float(np.abs(stored - exact).max()))
                W[rows] = stored
    return moved, lost


def changing(module: AdapterModule, W: Array, wide: np.dtype[Any]) -> Callable[[Any], Array]:
    """The update of the rows at an index."""
    if module.tuned:
        update = replace(module.tuned, weight=lambda: W, dtype=wide).delta()
        return lambda rows: update[rows]
    B, A = module.B.astype(wide) * wide.type(module.scale), module.A.astype(wide)
    return lambda rows: B[rows] @ A[rows[:-1]]


class Based(NamedTuple):
    """An adapter whose modules know their weights; readers of these (d, k), and of biases that are
    moved.
    """

    adapter: Adapter
    weights: Mapping[str, Reader]
    biases: Mapping[str, Callable[[], tuple[Array, Any, Any]]]
    unsure: tuple[str, ...]


def on_base(adapter: Adapter, base: StrPath | None, *, any_base: bool = False) -> Based:
    """The adapter on a base model in a directory; without one, as it is."""
    if base is None:
        return Based(adapter, {}, {}, ())
    source = open_model(directory(base))
    merging = Merging(source, adapter)
    unsure = () if any_base else check_base(source.config, base, adapter)
    weights: dict[str, Reader] = {}
    biases: dict[str, Callable[[], tuple[Array, Any, Any]]] = {}
    modules = dict(adapter.modules)
    for name, target in merging.weights.items():
        if (change := merging.changes.get(target)) is None:  # it is not one tensor
            continue
        module = change.module or modules[name]
        weights[name] = partial(change.weight, f"{base}: {name!r}", module)
        if module.tuned:
            tuned = replace(module.tuned, weight=weights[name])
            modules[name] = replace(module, tuned=tuned)
            if tuned.moves_bias and (moved := merging.changes.get(merging.named(f"{name}.bias"))):
                biases[f"{name}.bias"] = partial(
                    moved.result, f"{base}: bias of {name!r}", "float32"
                )
    return Based(replace(adapter, modules=modules), weights, biases, unsure)
