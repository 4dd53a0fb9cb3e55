"""The difference of two checkpoints as a LoRA."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lora_np.adapters import config as settings
from lora_np.adapters.bases import check_pair
from lora_np.adapters.findings import Findings
from lora_np.adapters.merging import has_transposed_experts
from lora_np.adapters.module import AdapterModule, Stored
from lora_np.adapters.peft_format import Adapter, stored, targeting, write
from lora_np.adapters.ranks import Goal, Spectrum, cut
from lora_np.adapters.steps import balanced, each_of, finite, new_adapter
from lora_np.adapters.weights import BLOCK
from lora_np.checks import Array
from lora_np.hub import (
    FLOATS,
    HEAD,
    HubError,
    ModelDirectory,
    directory,
    fused_names,
    module_path,
    open_model,
)
from lora_np.linalg import SVD, truncated_svd

# A checkpoint does not say which matrices are embeddings or stored transposed; names and the model's type do.
_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|embed_positions|embed_in|wte|wpe|shared|\w+_embeddings)$")
_CONV1D_MODELS = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")
_CONV1D = re.compile(r"(^|\.)(c_attn|q_attn|c_proj|c_fc)$")
_ROUTERS = ("router", "gate")
_FIRST_RANK = 16  # of the search for the rank that keeps enough energy
_SEARCHED = 8  # it ends at an eighth of the full rank: beyond, the whole SVD is sooner there


class ExtractedTensor(NamedTuple):
    """A tensor that differs, and what became of the difference.

    Parameters
    ----------
    name : str
        In the tuned checkpoint.
    kept : {"LoRA", "in full", "not kept"}
        As what.
    rank : int or None
        Of the LoRA.
    norm, error : float or None
        The norm of the difference, and the relative error that the rank leaves; None outside of LoRA.
    """

    name: str
    kept: str
    rank: int | None = None
    norm: float | None = None
    error: float | None = None


@dataclass(frozen=True, repr=False)
class ExtractResult(Findings):
    """What `extract` wrote.

    Parameters
    ----------
    title : str
        Of the table.
    rows : tuple of ExtractedTensor
        All tensors that differ.
    notes : tuple of str
        What was not kept, and what only the base has.
    path : Path
        The new adapter.
    """

    rows: tuple[ExtractedTensor, ...]
    path: Path
    headings = ("tensor", "kept as", "rank", "norm", "relative error")


def extract(
    base: str | os.PathLike[str],
    tuned: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    rank: int | None = None,
    energy: float | None = None,
    error: float | None = None,
    bytes: int | None = None,
    total_rank: int | None = None,
    save_others: bool = False,
    any_base: bool = False,
    jobs: int = 1,
    force: bool = False,
    progress: bool = False,
) -> ExtractResult:
    """Write the best low-rank adapter that leads from one checkpoint to another.

    Exactly one of ``rank``, ``energy``, ``error``, ``bytes`` and ``total_rank`` says what is wanted.

    Parameters
    ----------
    base, tuned : path
        Directories of the same model, each in one file or in shards.
    out : path
        The directory to make.
    rank : int
        The same rank everywhere; less where a matrix is smaller.
    energy : float
        The share of its squared norm that each difference keeps.
    error : float
        The relative error in the Frobenius norm that each difference may have.
    bytes : int
        The size that ``adapter_model.safetensors`` may have, shared out as in `resize`.
    total_rank : int
        The sum of all ranks, shared out likewise.
    save_others : bool
        Keep what differs but can not carry a LoRA (norms, biases, convolutions) as PEFT's
        ``modules_to_save``. Either way the table lists it.
    any_base : bool
        Whether to go on where the configs are of different models, or the names of modules cannot be told.
    jobs : int
        How many matrices to work on at a time.
    force : bool
        Whether to replace an existing adapter at ``out``. A directory that holds anything else is refused;
        a README.md stays.
    progress : bool
        Show a bar, if standard error is a terminal.

    Returns
    -------
    ExtractResult
        For each tensor that differs its rank, the norm of the difference, and the relative error left.

    Raises
    ------
    HubError
        If the checkpoints are equal or do not belong together, hold what is not finite, or the target exists.
    TypeError
        If an option is of another kind.
    ValueError
        If an option is out of range.

    See Also
    --------
    merge : The reverse.

    Notes
    -----
    One matrix at a time is in memory, in float32 and up to 8 times over. Where the goal needs more than about
    an eighth of a matrix's rank, only LAPACK's whole SVD finds the directions: it works in float64, and takes
    some 20 times the matrix in float32.

    Embeddings are known by their names (``embed_tokens``, ``wte``, ...), GPT-2's transposed layers by the
    model's type in the tuned checkpoint's config.

    Examples
    --------
    >>> import tempfile, lora_np as lnp
    >>> from lora_np.hub import safetensors
    >>> folder = Path(tempfile.mkdtemp())
    >>> update = np.outer([1, 0, 0, 0], [0, 3, 4, 0])
    >>> for name, weight in [("base", np.eye(4)), ("tuned", np.eye(4) + update)]:
    ...     (folder / name).mkdir()
    ...     safetensors.save({"q.weight": weight}, folder / name / "model.safetensors")
    >>> result = extract(folder / "base", folder / "tuned", folder / "adapter", rank=1)
    >>> lnp.adapters.load(folder / "adapter").delta("q")[0].round(6)
    array([0., 3., 4., 0.])
    """
    goal = Goal.of(rank=rank, energy=energy, error=error, bytes=bytes, total_rank=total_rank)
    before, after = open_model(directory(base)), open_model(directory(tuned))
    if not any_base:
        check_pair(before, after)
    named = before.naming(after.places)
    stacks = [stack for name in after.parameters if (stack := _Stack(before, after, name)).is_one]
    stacked = {name for stack in stacks for name in after.parameters[stack.name]}
    pairs = [_Pair(before, after, named(name), name) for name in after.places if name not in stacked]
    if not any(pair.base in before for pair in pairs):
        raise HubError(f"{tuned}: has no tensor in common with {base}")
    options: dict[str, Any] = {"jobs": jobs, "progress": progress}
    with new_adapter(out, force=force, inputs=[base, tuned]) as (stage, aside):
        candidates = {pair.name: pair for pair in pairs if not pair.is_matrix}
        differing = each_of(_differs, candidates, **options, label="compare")
        others = [pair for name, pair in candidates.items() if differing[name]]
        in_full = {pair.module for pair in others} - {""} if save_others else set()
        changing: list[_Pair | _Stack] = [*(pair for pair in pairs if pair.is_matrix), *stacks]
        work = {
            pair.path: (pair, aside / str(i), goal)
            for i, pair in enumerate(changing)
            if pair.module not in in_full
        }
        decomposed = each_of(_decompose, work, **options, label="extract")
        found = {name: result for name, result in decomposed.items() if result is not None}
        if not found:
            raise HubError(f"{tuned}: no weight matrix differs from that of {base}")
        spectra = {name: spectrum for name, (_, spectrum) in found.items()}
        modules = {name: module for name, (module, _) in found.items()}
        shared = _shared_head(after, modules)
        raw: dict[str, Any] = {
            **settings.FRESH,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": any(
                pair.fan_in_fan_out for name in found if isinstance(pair := work[name][0], _Pair)
            ),
            "modules_to_save": sorted(in_full) or None,
        }
        whole = Adapter(modules, _saved(after, in_full), targeting(raw, modules))
        ranks = goal.ranks(whole, spectra)
        write(_with_head(cut(whole, whole, ranks), shared), stage)
    rows = [
        ExtractedTensor(work[name][0].name, "LoRA", ranks[name], x.norm, x.error(ranks[name]))
        for name, x in spectra.items()
    ]
    rows += [ExtractedTensor(p.name, "in full" if p.module in in_full else "not kept") for p in others]
    notes = []
    if any(row.kept == "not kept" for row in rows):
        notes.append("not kept: differs, but cannot carry a LoRA; save_others=True (--save-others) keeps it")
    taken = {pair.base for pair in pairs} | {
        each for stack in stacks for each in before.parameters[stack.name]
    }
    if lacking := sorted({*before.places} - taken):
        notes.append(f"only in the base: {', '.join(lacking)}")
    return ExtractResult(f"{tuned} - {base}", tuple(rows), tuple(notes), Path(out))


@dataclass(frozen=True)
class _Pair:
    """One tensor in both checkpoints."""

    before: ModelDirectory
    after: ModelDirectory
    base: str  # its name in the base
    name: str  # and in the tuned checkpoint

    @property
    def module(self) -> str:
        """Its path in the live model, which is what PEFT goes by."""
        return module_path(self.name, self.after.config).rpartition(".")[0]

    @property
    def path(self) -> str:
        """What the adapter calls it.

        PEFT takes some names of modules for those of fused experts, and routers may give more than a product:
        those are named by their parameter.
        """
        last = self.module.rpartition(".")[2]
        fused = fused_names(str(self.after.config.get("model_type"))) or {}
        return f"{self.module}.weight" if last in fused or last in _ROUTERS else self.module

    @property
    def is_matrix(self) -> bool:
        """Whether the difference can be a LoRA's."""
        known = self.base in self.before and self.name not in self.after.unread
        if not known or not self.name.endswith(".weight"):
            return False
        infos = (self.before.info(self.base), self.after.info(self.name))
        same = infos[0].shape == infos[1].shape
        return (
            same and len(infos[0].shape) == 2 and infos[0].size > 0 and all(i.dtype in FLOATS for i in infos)
        )

    @property
    def embedding(self) -> bool:
        return _EMBEDDING.search(self.module) is not None

    @property
    def fan_in_fan_out(self) -> bool:
        conv1d = self.after.config.get("model_type") in _CONV1D_MODELS
        return conv1d and _CONV1D.search(self.module) is not None

    def difference(self) -> Array:
        """Tuned minus base, outputs by inputs, in float32 or better."""
        D = self.after.read(self.name)
        D = D.astype(np.float64 if D.dtype == np.float64 else np.float32, copy=False)
        D -= self.before.read(self.base)
        return D.T if self.embedding or self.fan_in_fan_out else D


@dataclass(frozen=True)
class _Stack:
    """The experts of a layer, which are one parameter of the live model, in both checkpoints."""

    before: ModelDirectory
    after: ModelDirectory
    name: str  # of the parameter

    fan_in_fan_out = False

    @property
    def module(self) -> str:
        """Its name: PEFT adapts the parameter."""
        return self.name

    path = module

    @property
    def is_one(self) -> bool:
        """Whether it is one, of the same shape in both."""
        if self.name not in self.before.parameters or self.name.endswith(".weight"):
            return False
        infos = [
            source.info(name) for source in (self.before, self.after) for name in source.parameters[self.name]
        ]
        shapes = [source.shape(self.name) for source in (self.before, self.after)]
        floats = all(info.dtype in FLOATS for info in infos)
        return floats and len(shapes[0]) == 3 and shapes[0] == shapes[1] and 0 not in shapes[0]

    def differences(self) -> Iterator[Array]:
        """Tuned minus base for each expert, outputs by inputs, in float32 or better."""
        both = (_experts(source, self.name) for source in (self.after, self.before))
        for after, before in zip(*both, strict=True):
            yield after.astype(np.float64 if after.dtype == np.float64 else np.float32) - before


def _experts(source: ModelDirectory, parameter: str) -> Iterator[Array]:
    """The matrix of each expert, outputs by inputs."""
    places = source.parameters[parameter]
    (name, first), *_ = places.items()
    if first.expert is None:
        transposed = has_transposed_experts(source) != first.transposed
        for W in source.read(name):
            yield W.T if transposed else W
        return
    found = {(place.expert, place.part): name for name, place in places.items()}
    for expert in range(len(found) // first.parts):
        yield np.concatenate([source.read(found[expert, part]) for part in range(first.parts)])


def _shared_head(source: ModelDirectory, modules: Mapping[str, AdapterModule]) -> tuple[str, str] | None:
    """The embedding that has changed and the head that shares its numbers: PEFT adapts each by itself."""
    path = module_path(source.tied_embedding or "", source.config).removesuffix(".weight")
    return (path, HEAD.removesuffix(".weight")) if path in modules else None


def _with_head(adapter: Adapter, shared: tuple[str, str] | None) -> Adapter:
    """``adapter`` with the embedding's update on the head as well."""
    if shared is None or shared[0] not in adapter:
        return adapter
    module, (A, B) = adapter[shared[0]], (adapter[shared[0]].parts[part] for part in "AB")
    head = replace(module, embedding=False, parts={"A": _turned(B), "B": _turned(A)})
    modules = {**adapter.modules, shared[1]: head}
    return replace(adapter, modules=modules, raw=targeting(adapter.raw, modules))


def _turned(part: Stored) -> Stored:
    return Stored(part.dtype, part.shape[::-1], lambda: part.read().T)


def _differs(pair: _Pair) -> bool:
    if pair.base not in pair.before or pair.before.info(pair.base).shape != pair.after.info(pair.name).shape:
        return True
    return not np.array_equal(pair.before.read(pair.base), pair.after.read(pair.name))


def _decompose(work: tuple[_Pair | _Stack, Path, Goal]) -> tuple[AdapterModule, Spectrum] | None:
    """A module of a difference's leading directions, put aside, and its spectrum; None if it is zero."""
    pair, path, goal = work
    if isinstance(pair, _Stack):
        return _decompose_stack(pair, path, goal)
    D = pair.difference()
    if not D.any():
        return None
    place = f"{pair.after.path}: the change of {pair.name!r}"
    info = pair.after.info(pair.name)
    found, missing = finite(place, lambda: _leading(D, goal, info.nbytes // D.size))
    parts = balanced(found, path, B=info.dtype, A=info.dtype)
    alpha = float(len(found.s))  # of scale 1
    module = AdapterModule(parts, alpha, embedding=pair.embedding, parameter=pair.path != pair.module)
    return module, Spectrum(found.s.astype(np.float64), missing, D.dtype.name)


def _decompose_stack(stack: _Stack, path: Path, goal: Goal) -> tuple[AdapterModule, Spectrum] | None:
    """The same of experts, all of which have as many directions."""
    info = stack.after.info(next(iter(stack.after.parameters[stack.name])))
    experts, *shape = stack.after.shape(stack.name)
    rank = min(shape)
    if goal.share is None:
        each = info.nbytes // prod(info.shape) * experts * sum(shape)
        rank = min(rank, max(1, goal.rank or goal.total_rank or (goal.bytes or 0) // each))
    found, missing = [], 0.0
    for expert, D in enumerate(stack.differences()):
        place = f"{stack.after.path}: the change of expert {expert} of {stack.name!r}"
        part, left = finite(place, lambda D=D: _truncated(D, rank))
        found.append(part)
        missing += left
    whole = SVD(*map(np.stack, zip(*found, strict=True)))
    if not whole.s.any():
        return None
    spectrum = replace(Spectrum.of(whole.s, 1.0), missing=missing)
    if goal.share is not None:
        kept = min(rank, spectrum.needed(goal.share))
        whole = SVD(whole.U[..., :kept], whole.s[..., :kept], whole.Vh[..., :kept, :])
        spectrum = Spectrum(spectrum.s[:kept], spectrum.left(kept), spectrum.dtype)
    parts = balanced(whole, path, B=info.dtype, A=info.dtype)
    return AdapterModule(parts, float(whole.s.shape[-1]), parameter=True), spectrum


def _leading(D: Array, goal: Goal, itemsize: int) -> tuple[SVD, float]:
    """As many singular triplets as the goal needs, or may need, and the squared norm of what they leave."""
    full = min(D.shape)
    if goal.share is None:
        most = goal.rank or goal.total_rank or (goal.bytes or 0) // (itemsize * sum(D.shape))
        return _truncated(D, min(full, max(1, most)))
    rank = min(_FIRST_RANK, full)
    while True:
        found, missing = _truncated(D, rank)
        spectrum = Spectrum(found.s.astype(np.float64), missing, D.dtype.name)
        enough = spectrum.needed(goal.share)
        if enough <= rank or rank == full:
            break
        # Would even the largest rank of the search do, if no singular value fell from here on?
        most = full // _SEARCHED
        short = missing - (1 - goal.share) * spectrum.left(0) - (most - rank) * spectrum.s[-1] ** 2
        rank = full if 2 * rank > most or short > 0 else 2 * rank
        del found
    rank = min(enough, full)
    return SVD(found.U[:, :rank], found.s[:rank], found.Vh[:rank]), spectrum.left(rank)


def _truncated(D: Array, rank: int) -> tuple[SVD, float]:
    found = truncated_svd(D, rank=rank)
    return found, _squared_distance(D, *found)


def _squared_distance(D: Array, U: Array, s: Array, Vh: Array) -> float:
    """``||D - U s Vh||^2``, some rows at a time. (||D||^2 - ||s||^2 would lose half of the digits.)"""
    if len(D) < D.shape[1]:
        return _squared_distance(D.T, Vh.T, s, U.T)
    step = max(1, BLOCK // D.shape[1])
    blocks = (slice(start, start + step) for start in range(0, len(D), step))
    return sum(float(np.linalg.norm(D[rows] - (U[rows] * s) @ Vh)) ** 2 for rows in blocks)


def _saved(after: ModelDirectory, modules: set[str]) -> dict[str, Stored]:
    """All parameters of these modules: PEFT reads a module that is saved in full as a whole."""
    return {
        path: stored(after.files[file], name, after.info(name))
        for name, file in after.places.items()
        if (path := module_path(name, after.config)).rpartition(".")[0] in modules
    }
