"""Merge an adapter into a model in a GGUF file: tensors that it changes are written anew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lora_np.adapters.adapter import Adapter
from lora_np.adapters.base_models import check_base
from lora_np.adapters.base_weights import Merging
from lora_np.adapters.formats import Written, load
from lora_np.checks import Array, Rng, StrPath, choice, generator
from lora_np.files import FileError, errors_at, replacing, write_text
from lora_np.hub import SafetensorsFile, TensorInfo, gguf
from lora_np.models import GGUFModel, OpenModel, names_for, open_gguf, row_order
from lora_np.quantise import LAYOUTS, Blocks, quantise

ENOUGH = 0.9  # the least share of an update that rounding should leave
ENCODED = [kind for kind, layout in LAYOUTS.items() if layout.encode]
OFFER = "take --dtype Q8_0, which keeps small updates"
HEADINGS = ("kind", "tensors", "parameters", "update / weight", "share kept")


class MergedKind(NamedTuple):
    """What a merge wrote in one kind of blocks.

    Parameters
    ----------
    kind : str
        Of the tensors that were written anew.
    tensors, parameters : int
        How many.
    update : float
        The norm of the update, relative to that of the weights.
    share_kept : float
        ``<Q - W0, dW> / <dW, dW>`` of the update dW and what was written, Q: 1 if rounding lost
        nothing of it.
    """

    kind: str
    tensors: int
    parameters: int
    update: float
    share_kept: float


def merge_gguf(
    base: StrPath,
    adapter: Adapter | StrPath,
    out: StrPath,
    *,
    dtype: str | None = None,
    rounding: str = "nearest",
    rng: np.random.Generator | int = 0,
    modelfile: bool = False,
    any_base: bool = False,
    force: bool = False,
) -> Written[MergedKind]:
    """Write a GGUF file in which every adapted weight is ``W0 + scale * B A``.

    Parameters
    ----------
    base : path
        A GGUF file with a model.
    adapter : path or Adapter
        Of any format that `load` reads.
    out : path
        The file to write. Metadata, vocabulary, chat template and tensors that the adapter does not
        change are copied byte for byte.
    dtype : str, optional
        The kind of blocks for the matrices that change, such as "Q8_0"; by default each keeps its
        own. Vectors keep theirs.
    rounding : {"nearest", "random"}
        How codes are rounded. Nearest rounding takes a small update back; random rounding keeps it
        on average, with noise.
    rng : Generator or int
        Randomness for random rounding.
    modelfile : bool
        Whether to write ``Modelfile`` next to ``out``, from which Ollama makes a model.
    any_base : bool
        Whether to continue if the adapter is for another kind of base.
    force : bool
        Whether to replace an existing GGUF file at ``out``, and a Modelfile.

    Returns
    -------
    Written
        For each kind how much of the update is left after rounding.

    Raises
    ------
    FileError
        If base and adapter do not fit, a tensor that changes has a kind that cannot be written, a
        result is not finite, or the target exists.
    ValueError
        If an option is not known.

    See Also
    --------
    merge : The same for directories of safetensors.

    Examples
    --------
    >>> import tempfile
    >>> from lora_np.adapters import AdapterModule
    >>> folder = Path(tempfile.mkdtemp())
    >>> embedding = {"token_embd.weight": TensorInfo("F32", (3, 32))}
    >>> sizes = {"embedding_length": 32, "feed_forward_length": 32, "block_count": 0,
    ...     "attention.head_count": 1, "attention.layer_norm_rms_epsilon": 1e-5}
    >>> metadata = {f"llama.{key}": value for key, value in sizes.items()}
    >>> gguf.write(embedding, lambda name: np.zeros((3, 32)), folder / "base.gguf",
    ...     metadata={"general.architecture": "llama", **metadata})
    >>> A, B = np.ones((1, 3)), np.ones((32, 1))
    >>> module = AdapterModule.of(A=A, B=B, alpha=2, embedding=True)
    >>> merge_gguf(folder / "base.gguf", Adapter({"model.embed_tokens": module}),
    ...     folder / "new.gguf").rows[0].share_kept
    1.0
    >>> gguf.open(folder / "new.gguf").read("token_embd.weight")[0, 0]
    np.float32(2.0)
    """
    choice("rounding", rounding, ("nearest", "random"))
    if dtype is not None:
        choice("dtype", dtype, ENCODED)
    source, out = open_gguf(base), Path(out)
    update = load(adapter, base=base)
    unsure = () if any_base else check_base(source.config, base, update)
    merging = Merging(as_checkpoint(source), update)
    changed = {place_of(name, source): name for name in merging.changes}
    before = {name: merging.source.tied.get(name, name) for name in merging.changes}
    file, tensors = source.file, dict(source.file.tensors)
    for place, name in changed.items():
        info = file.info(source.names[before[name]][0])
        kind = dtype if dtype and len(info.shape) == 2 else info.dtype
        tensors[place] = TensorInfo(kind, info.shape)
        if kind not in ENCODED:
            raise FileError(f"{base}: {place!r} is {kind}, which is only read: {OFFER}")
        if info.shape[-1] % LAYOUTS[kind].entries:
            why = f"has rows of {info.shape[-1]}, no whole blocks of {kind}"
            raise FileError(f"{base}: {place!r} {why}: {OFFER}")
    metadata: dict[str, Any] = {key: file.packed(key) for key in file.metadata}
    if alignment := file.metadata.get("general.alignment"):
        metadata["general.alignment"] = alignment
    if dtype:
        metadata.pop("general.file_type", None)  # without it, llama.cpp counts the kinds
    draws = generator(rng)
    sums: dict[str, list[Array]] = {}

    def merged(place: str) -> Array | Blocks | gguf.GGUFFile:
        if place not in changed:
            return file
        name, kind = changed[place], tensors[place].dtype
        W = merging.changes[name].result(f"{base}: {name!r}")[0]
        W0 = np.asarray(source.read(before[name]))
        order = row_order(source.config, name, len(W))
        if order is not None:  # from transformers' order to the file's
            W, W0 = (M[np.argsort(order)] for M in (W, W0))
        with errors_at(f"{base}: {name!r}"):
            Q = in_kind(kind, W, draws if rounding == "random" else None)
        dW, kept = W - W0, np.asarray(Q) - W0
        squares = [np.vdot(W0, W0), np.vdot(dW, dW), np.vdot(kept, dW)]
        sums.setdefault(kind, []).append(np.array([1, W.size, *squares]))
        return Q

    recipe = out.with_name("Modelfile")
    if modelfile and recipe.exists() and not force:
        raise FileError(f"{recipe} already exists; pass force=True (--force)")
    inputs = [base, *([update.path] if update.path else [])]
    with replacing(out, force=force, check=partial(gguf.open, out), inputs=inputs) as stage:
        gguf.write(tensors, merged, stage, metadata=metadata)
    if modelfile:
        write_text(recipe, f"FROM ./{out.name}\n")
    rows = [row_of(kind, total) for kind, total in sums.items()]
    share = row_of("all", [one for total in sums.values() for one in total]).share_kept
    notes = [f"share of the update kept: {share:.2f}", *unsure]
    if share < ENOUGH:
        notes.append(
            f"rounding takes much of the update back: {OFFER}, or --rounding random --seed 0"
        )
    notes.append(f"llama.cpp: llama-cli -m {out}; LM Studio: lms import {out}")
    if modelfile:
        notes.append(f"Ollama: ollama create {out.stem.lower()} -f {recipe}")
    return Written(f"{base} + {update}", tuple(rows), tuple(notes), HEADINGS, out)


@dataclass(frozen=True)
class Restored(SafetensorsFile):
    """The tensors of a GGUF file as a checkpoint would have them, in float32."""

    model: GGUFModel

    def read(self, name: str) -> Array:
        """Read one tensor, for the caller to change."""
        return np.array(self.model.read(name))


def as_checkpoint(source: GGUFModel) -> OpenModel:
    """Describe a model in a GGUF file like one in a directory."""
    path, shapes = source.file.path, source.file.tensors
    infos = {name: TensorInfo("float32", shapes[at[0]].shape) for name, at in source.names.items()}
    places = dict.fromkeys(infos, path.name)
    return OpenModel(
        path, {path.name: Restored(path, infos, {}, source)}, places, source.config, None
    )


def place_of(name: str, source: GGUFModel) -> str:
    """Name a tensor as the file does, also one that it lacks: a head that is no longer tied."""
    if name in source.names:
        return source.names[name][0]
    module, _, part = name.rpartition(".")
    return f"{names_for('llama_cpp', module, source.config['model_type'])[0]}.{part}"


def in_kind(kind: str, W: Array, rng: Rng) -> Array | Blocks:
    """Encode W in blocks of a kind; at random if ``rng`` is given and the kind has codes."""
    if kind == "F32":
        return W
    Q = quantise(W, kind, rng=rng if kind.startswith("Q") else None)
    assert isinstance(Q, Blocks)
    return Q


def row_of(kind: str, terms: Iterable[Array]) -> MergedKind:
    """Add up tensors, entries, and products of weights, updates and what was kept of those."""
    tensors, entries, weight, update, kept = np.sum([np.zeros(5), *terms], axis=0).tolist()
    relative = (update / weight) ** 0.5 if weight else float("inf")
    return MergedKind(kind, int(tensors), int(entries), relative, kept / update if update else 1.0)
