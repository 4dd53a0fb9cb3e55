"""Merge an adapter into a GGUF file: only tensors that it changes are written anew, if the base is
one, and all if it is a directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lora_np import hub
from lora_np.adapters.adapter import Adapter
from lora_np.adapters.base_models import check_base
from lora_np.adapters.base_weights import Merging
from lora_np.adapters.formats import Written, load
from lora_np.checks import Array, Rng, StrPath, choice, generator
from lora_np.files import FileError, errors_at, open_regular, read_json, replacing, write_text
from lora_np.hub import SafetensorsFile, TensorInfo, directory, gguf
from lora_np.models import (
    GGUFModel,
    OpenModel,
    Place,
    as_stored,
    check_complete,
    gguf_settings,
    names_for,
    open_gguf,
    open_model,
    vocabulary_metadata,
)
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
        A GGUF file with a model, or the directory of one whose family llama.cpp's names are known
        for.
    adapter : path or Adapter
        Of any format that `load` reads.
    out : path
        The file to write. Metadata, vocabulary, chat template and tensors that the adapter does not
        change are copied byte for byte from a file; from a directory all are written anew.
    dtype : str, optional
        The kind of blocks for the matrices that are written, such as "Q8_0"; by default each keeps
        its own in a file, and those of a directory become F16. Vectors keep theirs, or become F32.
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
        result is not finite, or the target exists; or if a file of llama.cpp cannot say what the
        model in a directory computes, or how its vocabulary cuts texts.
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
    >>> shapes = {"token_embd.weight": (3, 32), "output_norm.weight": (32,)}
    >>> sizes = {"embedding_length": 32, "feed_forward_length": 32, "block_count": 0,
    ...     "attention.head_count": 1, "attention.layer_norm_rms_epsilon": 1e-5}
    >>> metadata = {f"llama.{key}": value for key, value in sizes.items()}
    >>> gguf.write({name: TensorInfo("F32", shapes[name]) for name in shapes},
    ...     lambda name: np.zeros(shapes[name]), folder / "base.gguf",
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
    out = Path(out)
    start = from_file(base, dtype) if Path(base).suffix == ".gguf" else from_directory(base)
    source, update = start.source, load(adapter, base=base)
    unsure = () if any_base else check_base(source.config, base, update)
    merging = Merging(source, update)
    if merging.vocabulary:
        why = "has other tokens: merge it into a directory first, with its tokenizer"
        raise FileError(f"{update} {why}")
    parameters = parameters_of(merging, whole=start.file is None)
    tensors, places = dict(start.tensors), {}
    for name in parameters:
        shape = shape_of(merging, parameters[name])
        theirs = tensors_for(name, source.config["model_type"])
        for part, place in enumerate(theirs):
            size = (*shape[:-2], shape[-2] // len(theirs), shape[-1]) if len(theirs) > 1 else shape
            places[place] = name, part, len(theirs)
            tensors[place] = TensorInfo(kind_of(start, place, size, dtype), size)
    draws = generator(rng)
    sums: dict[str, Array] = {}

    def weight(place: str, *, adapted: bool) -> Array:
        name, part, parts = places[place]

        def read(tensor: str) -> Array:
            change = merging.changes.get(tensor) if adapted else None
            change = change or merging.unchanged(source.tied.get(tensor, tensor))
            wide = replace(change.start, dtype="float32", read=change.start.single)
            return replace(change, start=wide).result(f"{base}: {tensor!r}")[0]

        W = as_stored(source.config, name, source.assembled(parameters[name], read))
        return W if parts == 1 else np.split(W, parts, axis=-2)[part]

    def merged(place: str) -> Array | Blocks | gguf.GGUFFile:
        if place not in places:
            return start.file or start.factors[place]
        kind, W = tensors[place].dtype, weight(place, adapted=True)
        with errors_at(f"{base}: {places[place][0]!r}"):
            Q = in_kind(kind, W, draws if rounding == "random" else None)
        if not merging.changes.keys().isdisjoint(parameters[places[place][0]]):
            W0 = weight(place, adapted=False)
            dW, kept = W - W0, np.asarray(Q) - W0
            squares = [np.vdot(W0, W0), np.vdot(dW, dW), np.vdot(kept, dW), np.vdot(W0, dW)]
            sums[kind] = sums.get(kind, np.zeros(6)) + np.array([1, W.size, *squares])
        return Q

    recipe = out.with_name("Modelfile")
    if modelfile and recipe.exists() and not force:
        raise FileError(f"{recipe} already exists; pass force=True (--force)")
    inputs = [source.path, *([update.path] if update.path else [])]
    with replacing(out, force=force, check=partial(gguf.open, out), inputs=inputs) as stage:
        gguf.write(tensors, merged, stage, metadata=start.metadata)
    if modelfile:
        write_text(recipe, f"FROM ./{out.name}\n")
    rows = [row_of(kind, total) for kind, total in sums.items()]
    every = sum(sums.values(), np.zeros(6))
    share, (square, _, held) = row_of("all", every).share_kept, every[3:]
    notes = [f"share of the update kept: {share:.2f}", *unsure]
    if abs(held - square) < 0.1 * square:  # of another update it holds about 0
        notes.append(f"{base} seems to hold the update of {update} already")
    if share < ENOUGH:
        offer = "take --dtype F16" if "Q8_0" in sums else OFFER
        notes.append(
            f"rounding takes much of the update back: {offer}, or --rounding random --seed 0"
        )
    notes.append(f"llama.cpp: llama-cli -m {out}; LM Studio: lms import {out}")
    if modelfile:
        notes.append(f"Ollama: ollama create {out.stem.lower()} -f {recipe}")
    return Written(f"{base} + {update}", tuple(rows), tuple(notes), HEADINGS, out)


class Start(NamedTuple):
    """What a merged file is made of, apart from the weights that are computed."""

    source: OpenModel
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, Any]
    file: gguf.GGUFFile | None = None  # from which tensors are copied
    factors: Mapping[str, Array] = {}  # tensors that are no weights


def from_file(base: StrPath, dtype: str | None) -> Start:
    """Start from a model in a GGUF file, whose metadata are kept to the byte."""
    opened = open_gguf(base)
    file = opened.file
    metadata: dict[str, Any] = {key: file.packed(key) for key in file.metadata}
    if alignment := file.metadata.get("general.alignment"):
        metadata["general.alignment"] = alignment
    if dtype:
        metadata.pop("general.file_type", None)  # without it, llama.cpp counts the kinds
    return Start(as_checkpoint(opened), file.tensors, metadata, file)


def from_directory(base: StrPath) -> Start:
    """Start from a model in a directory, whose settings and vocabulary become metadata."""
    if (Path(base) / "adapter_config.json").is_file():
        raise FileError(f"{base}: an adapter, not a model: give the base first, then the adapter")
    source = open_model(directory(base))
    folder, config = source.path, source.config
    with errors_at(folder, (TypeError, ValueError)):
        metadata, factors = gguf_settings(config)
        check_complete(config, source.parameters)
    path = hub.inside(folder, "tokenizer.json")
    settings = {}
    if (folder / "tokenizer_config.json").is_file():
        settings = read_json(hub.inside(folder, "tokenizer_config.json"))
    if (folder / "chat_template.jinja").is_file():
        with open_regular(hub.inside(folder, "chat_template.jinja")) as stream:
            settings["chat_template"] = stream.read().decode()
    with errors_at(path, (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)):
        count = source.shape(source.parameters["model.embed_tokens.weight"])[0]
        metadata |= vocabulary_metadata(read_json(path), settings, count)
    for end in ("bos", "eos"):
        if isinstance(token := config.get(f"{end}_token_id"), int):
            metadata.setdefault(f"tokenizer.ggml.{end}_token_id", token)
    metadata |= {"general.name": folder.name, "general.quantization_version": 2}
    tensors = {name: TensorInfo("F32", factor.shape) for name, factor in factors.items()}
    return Start(source, tensors, metadata, factors=factors)


def parameters_of(merging: Merging, *, whole: bool) -> dict[str, Mapping[str, Place]]:
    """List the parameters to write, with their tensors in the base: all, or what changes."""
    source = merging.source
    parts = (hub.bitsandbytes_parts(source, name)[1:] for name in source.places)
    left_out = {part for tensors in parts for part in tensors}
    parameters = {
        name: places
        for name, places in source.parameters.items()
        if left_out.isdisjoint(places)
        and not name.endswith("inv_freq")  # which some checkpoints store although it is computed
        and (whole or not merging.changes.keys().isdisjoint(places))
    }
    added = {name: {name: Place(name)} for name in merging.changes if name not in source}
    return parameters | added


def shape_of(merging: Merging, places: Mapping[str, Place]) -> tuple[int, ...]:
    """Find the shape of a parameter from its tensors."""
    tensor, *others = places
    if others:
        return merging.source.shape(places)
    return merging.unchanged(merging.source.tied.get(tensor, tensor)).start.shape


def tensors_for(parameter: str, family: str) -> tuple[str, ...]:
    """Name the tensors that a parameter becomes."""
    module, _, part = parameter.rpartition(".")
    experts = names_for("llama_cpp", parameter, family)
    names = experts or names_for("llama_cpp", module, family)
    if not names:
        raise FileError(f"{parameter!r} has no place in a GGUF file of a {family} model")
    return tuple(f"{name}.{'weight' if experts else part}" for name in names)


def kind_of(start: Start, place: str, shape: tuple[int, ...], dtype: str | None) -> str:
    """Choose the kind of blocks of a tensor."""
    file, matrix = start.file, len(shape) > 1
    if file is None:
        kind = dtype or "F16"
        for wider in ("Q8_0", "F16"):  # as llama.cpp does where rows are no whole blocks
            kind = wider if shape[-1] % LAYOUTS[kind].entries else kind
        return kind if matrix and "ffn_gate_inp" not in place else "F32"
    kind = file.tensors.get(place, file.tensors["token_embd.weight"]).dtype
    kind = dtype if dtype and matrix else kind
    if kind not in ENCODED:
        raise FileError(f"{file.path}: {place!r} is {kind}, which is only read: {OFFER}")
    if shape[-1] % LAYOUTS[kind].entries:
        why = f"has rows of {shape[-1]}, no whole blocks of {kind}"
        raise FileError(f"{file.path}: {place!r} {why}: {OFFER}")
    return kind


@dataclass(frozen=True)
class Restored(SafetensorsFile):
    """The tensors of a GGUF file as a checkpoint would have them, in float32."""

    model: GGUFModel

    def read(self, name: str) -> Array:
        """Read one tensor, for the caller to change."""
        return np.array(self.model.read(name))


def as_checkpoint(source: GGUFModel) -> OpenModel:
    """Describe a model in a GGUF file like one in a directory."""
    path, infos = source.file.path, {}
    for name, parts in source.names.items():
        *stack, rows, columns = (1, 1, *source.file.tensors[parts[0]].shape)
        shape = (*stack, rows * len(parts), columns)[-len(source.file.tensors[parts[0]].shape) :]
        infos[name] = TensorInfo("float32", shape)
    places = dict.fromkeys(infos, path.name)
    return OpenModel(
        path, {path.name: Restored(path, infos, {}, source)}, places, source.config, None
    )


def in_kind(kind: str, W: Array, rng: Rng) -> Array | Blocks:
    """Encode W in blocks of a kind; at random if ``rng`` is given and the kind has codes."""
    if kind == "F32":
        return W
    Q = quantise(W.reshape(-1, W.shape[-1]), kind, rng=rng if kind.startswith("Q") else None)
    assert isinstance(Q, Blocks)
    return Blocks(kind, Q.data.reshape(*W.shape[:-1], -1), W.shape)


def row_of(kind: str, sums: Array) -> MergedKind:
    """From sums of tensors, entries, and products of weights, updates and what is left of them."""
    tensors, entries, weight, update, kept, _ = sums.tolist()
    relative = (update / weight) ** 0.5 if weight else float("inf")
    return MergedKind(kind, int(tensors), int(entries), relative, kept / update if update else 1.0)
