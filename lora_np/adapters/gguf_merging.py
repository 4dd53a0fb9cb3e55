"""Merge an adapter into a GGUF file, and copy the tensors that it does not change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lora_np.adapters.adapter import Adapter
from lora_np.adapters.base_models import check_base
from lora_np.adapters.base_weights import MergeLoss, Merging, losses
from lora_np.adapters.formats import Written, load
from lora_np.adapters.values import check_finite
from lora_np.checks import Array, Rng, Seed, StrPath, choice, generator
from lora_np.files import FileError, errors_at, replacing, write_text
from lora_np.hub import TensorInfo, gguf, located, rounded
from lora_np.models import Dialects, GGUFModel, as_stored, open_gguf
from lora_np.quantise import LAYOUTS, Blocks, quantise

ENCODED = [kind for kind, layout in LAYOUTS.items() if layout.encode]
_FLOATS = {"F16": "float16", "BF16": "bfloat16"}
OFFER = "take --dtype Q8_0, which keeps small updates"
HEADINGS = ("tensors", "parameters", "update / weight", "share kept", "unmoved")


class MergedKind(NamedTuple):
    """Totals over the changed tensors of one quantisation type, or over one parameter.

    Parameters
    ----------
    kind : str
        Their quantisation type, such as "Q8_0"; with ``by_module``, the name of their parameter.
    tensors, parameters : int
        The number of changed tensors and of their entries.
    update : float
        The norm of the update, relative to the norm of the weights.
    share_kept : float
        ``<Q - W0, dW> / <dW, dW>`` for the update dW and the written weights Q: 1 if rounding lost
        nothing.
    unmoved : float
        The share of entries that are equal to the base's.
    """

    kind: str
    tensors: int
    parameters: int
    update: float
    share_kept: float
    unmoved: float


def merge_gguf(
    base: StrPath,
    adapter: Adapter | StrPath,
    out: StrPath,
    *,
    dtype: str | None = None,
    rounding: str = "nearest",
    rng: Seed = 0,
    by_module: bool = False,
    modelfile: bool = False,
    any_base: bool = False,
    force: bool = False,
) -> Written[MergedKind]:
    """Merge an adapter into a GGUF file: every adapted weight becomes ``W0 + scale * B A``.

    Parameters
    ----------
    base : path
        A GGUF file with a model.
    adapter : path or Adapter
        An adapter in any format that `load` reads.
    out : path
        The file to write. Metadata, vocabulary, chat template and tensors that the adapter does not
        change are copied byte for byte.
    dtype : str, optional
        The quantisation type of the changed matrices, such as "Q8_0"; by default each matrix keeps
        its type. Vectors always keep theirs.
    rounding : {"nearest", "random"}
        How entries are rounded. Rounding to nearest loses most of a small update; random rounding
        keeps it on average, with noise; MXFP4 has only nearest.
    rng : Generator or int
        Randomness for random rounding.
    by_module : bool
        Whether to return a row for each parameter instead of a row for each quantisation type.
    modelfile : bool
        Whether to write a ``Modelfile`` for Ollama next to ``out``.
    any_base : bool
        Whether to continue if the adapter is for another kind of base.
    force : bool
        Whether to replace an existing GGUF file at ``out``, and a Modelfile.

    Returns
    -------
    Written
        For each quantisation type, the share of the update that survived rounding, and the share of
        entries that are unchanged.

    Raises
    ------
    FileError
        If the base is not a GGUF file with a model, base and adapter do not fit, a changed tensor
        has a type that cannot be written, or a result is not finite.
    ValueError
        If an option is unknown, or the target or a Modelfile exists.

    See Also
    --------
    merge : Merge into a directory of safetensors.

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
    draws = generator(rng)
    out, base = Path(out), Path(base)
    recipe = out.with_name("Modelfile")
    if modelfile and recipe.exists() and not force:
        raise ValueError(f"{recipe}: already exists; pass force=True (--force) to replace it")
    source = opened(base)
    update = load(adapter, base=source)
    unsure = () if any_base else check_base(source, update)
    merging = Merging(source, update)
    random = draws if rounding == "random" else None
    merged = MergedFile.of(merging, source, dtype, random, by_module)
    inputs = [base, *filter(None, [update.path])]
    with replacing(out, force=force, check=partial(gguf.open, out), inputs=inputs) as stage:
        metadata = metadata_of(source.file, dtype)
        try:
            gguf.write(merged.tensors, merged.read, stage, metadata=metadata)
        except FileError:
            check_finite(update)  # if the adapter is the cause, name its tensor in the error
            raise
    if modelfile:
        write_text(recipe, f"FROM ./{out.name}\n")
    records = tuple(
        MergedKind(
            name,
            one.tensors,
            one.parameters,
            (one.update / one.weight) ** 0.5 if one.weight else float("inf"),
            *one.shares,
        )
        for name, one in merged.measured.items()
    )
    kinds = {merged.tensors[place].dtype for place in merged.parts}
    wider = "F32" if kinds & _FLOATS.keys() else "F16" if "Q8_0" in kinds else None
    offer = f"take --dtype {wider}" if wider else OFFER
    notes = [
        *losses(merging, [*merged.measured.values()], offer),
        *unsure,
        f"llama.cpp: llama-cli -m {out}; LM Studio: lms import {out}",
    ]
    if modelfile:
        notes.append(f"Ollama: ollama create {out.stem.lower()} -f {recipe}")
    headings = ("parameter" if by_module else "kind", *HEADINGS)
    return Written(f"{base} + {update}", records, tuple(notes), headings, out)


def opened(base: Path) -> GGUFModel:
    """Open the model in a GGUF file; for a directory, raise an error that explains how to merge."""
    if (folder := located(base)).is_dir():
        if (folder / "adapter_config.json").is_file():
            raise FileError(
                f"{base}: an adapter, not a model: give the base first, then the adapter"
            )
        raise FileError(
            f"{base}: a directory, but the base of a .gguf file must be a .gguf file: merge into a"
            " directory, which Ollama opens (FROM ./NEW) and llama.cpp's convert_hf_to_gguf.py"
            " converts"
        )
    return open_gguf(base)


def metadata_of(file: gguf.GGUFFile, dtype: str | None) -> dict[str, Any]:
    """Copy the metadata byte for byte, without the file type if the quantisation type changes."""
    metadata = {key: file.packed(key) for key in file.metadata}
    if alignment := file.metadata.get("general.alignment"):
        metadata["general.alignment"] = alignment
    if dtype:
        # remove the file type, which may be wrong for the new dtype; llama.cpp then derives it from
        # the tensors
        metadata.pop("general.file_type", None)
    return metadata


@dataclass(frozen=True)
class MergedFile:
    """The tensors of a merged file: changed tensors are computed, unchanged tensors copied."""

    merging: Merging
    source: GGUFModel
    tensors: Mapping[str, TensorInfo]
    # Maps each changed tensor to the name of the parameter, the index of the tensor and the number
    # of tensors, because llama.cpp can split the outputs of a parameter into several tensors.
    parts: Mapping[str, tuple[str, int, int]]
    rng: Rng
    by_module: bool
    # statistics of the changed tensors written so far, by quantisation type or by parameter
    measured: dict[str, MergeLoss]

    @classmethod
    def of(
        cls, merging: Merging, source: GGUFModel, dtype: str | None, rng: Rng, by_module: bool
    ) -> MergedFile:
        """Plan the merged file: find the changed tensors, and choose their quantisation types."""
        if merging.vocabulary:
            why = "changes the vocabulary: merge it into a directory first, with its tokenizer"
            raise FileError(f"{merging.update} {why}")
        tensors, parts = dict(source.file.tensors), {}
        for name, change in merging.changes.items():
            size = change.initial.shape
            theirs = tensors_for(name, source.dialects, source.config["model_type"])
            if len(theirs) > 1:
                size = (*size[:-2], size[-2] // len(theirs), size[-1])
            for part, place in enumerate(theirs):
                parts[place] = name, part, len(theirs)
                tensors[place] = TensorInfo(kind_of(source.file, place, size, dtype), size)
        return cls(merging, source, tensors, parts, rng, by_module, {})

    def read(self, place: str) -> Array | Blocks | gguf.GGUFFile:
        """Compute a changed tensor, or return the file from which to copy an unchanged one.

        The statistics of a changed tensor are added to ``measured``.
        """
        source, change = self.source, self.merging.changes
        if place not in self.parts:
            return source.file
        kind, name = self.tensors[place].dtype, self.parts[place][0]
        initial = change[name].initial
        wide = replace(change[name], initial=replace(initial, dtype="float32", read=initial.single))
        W = self._part(place, wide.result(f"{source.path}: {name!r}")[0])
        with errors_at(f"{source.path}: {name!r}"):
            Q = in_kind(kind, W, self.rng)
        W0 = self._part(place, source.read(source.tied.get(name, name)))
        row, one = name if self.by_module else kind, MergeLoss.of(W0, W - W0, np.asarray(Q))
        self.measured[row] = MergeLoss.together([self.measured.get(row, MergeLoss()), one])
        return Q

    def _part(self, place: str, W: Array) -> Array:
        """Extract llama.cpp's tensor from a parameter, with the rows in llama.cpp's order."""
        name, part, parts = self.parts[place]
        W = as_stored(self.source.config, name, W)
        return W if parts == 1 else np.split(W, parts, axis=-2)[part]


def tensors_for(parameter: str, dialects: Dialects, family: str) -> tuple[str, ...]:
    """List llama.cpp's names for the tensors into which it splits a parameter."""
    module, _, part = parameter.rpartition(".")
    experts = dialects.names_in("llama_cpp", parameter)
    names = experts or dialects.names_in("llama_cpp", module)
    if not names:
        raise FileError(f"{parameter!r} has no place in a GGUF file of a {family} model")
    return tuple(f"{name}.{'weight' if experts else part}" for name in names)


def kind_of(file: gguf.GGUFFile, place: str, shape: tuple[int, ...], dtype: str | None) -> str:
    """Choose the quantisation type of a tensor; a new head gets the type of the embedding."""
    kind = file.tensors.get(place, file.tensors["token_embd.weight"]).dtype
    kind = dtype if dtype and len(shape) > 1 else kind
    if kind not in ENCODED:
        raise FileError(f"{file.path}: {place!r} is {kind}, which cannot be written: {OFFER}")
    if shape[-1] % LAYOUTS[kind].entries:
        why = f"has rows of {shape[-1]}, which are not whole blocks of {kind}"
        raise FileError(f"{file.path}: {place!r} {why}: {OFFER}")
    return kind


def in_kind(kind: str, W: Array, rng: Rng) -> Array | Blocks:
    """Encode W in a GGUF type, with ``rng`` rounded at random; F32 stays an array."""
    if kind == "F32":
        return W
    if rng and kind == "MXFP4":
        raise FileError(f"{kind} cannot be rounded at random: {OFFER}")
    if rng and kind in _FLOATS:
        W, rng = rounded(W, _FLOATS[kind], rng), None
    Q = quantise(W.reshape(-1, W.shape[-1]), kind, rng=rng)
    assert isinstance(Q, Blocks)
    return Blocks(kind, Q.data.reshape(*W.shape[:-1], -1), W.shape)
