"""The difference of two checkpoints as a LoRA."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from lora_np.adapters import config as settings
from lora_np.adapters.bases import check_pair
from lora_np.adapters.peft_format import Adapter, AdapterModule, Stored, replacing_adapter, stored, write
from lora_np.adapters.ranks import Goal, allocate_bytes, rank_for_loss
from lora_np.adapters.steps import finite, put_factors, taken
from lora_np.adapters.weights import BLOCK
from lora_np.checks import Array
from lora_np.hub import FLOATS, HubError, ModelDirectory, directory, module_path, open_model
from lora_np.linalg import SVD, truncated_svd
from lora_np.table import Shown, Table
from lora_np.work import each

# A checkpoint does not say which matrices are embeddings or stored transposed; names and the model's type do.
_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|embed_positions|embed_in|wte|wpe|shared|\w+_embeddings)$")
_CONV1D_MODELS = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")
_CONV1D = re.compile(r"(^|\.)(c_attn|q_attn|c_proj|c_fc)$")
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
class ExtractResult(Shown):
    """What `extract` wrote.

    Parameters
    ----------
    path : Path
        The new adapter.
    tensors : tuple of ExtractedTensor
        All that differ.
    only_in_base : tuple of str
        Tensors that the tuned checkpoint lacks.
    title : str
        Of the table.
    """

    path: Path
    tensors: tuple[ExtractedTensor, ...]
    only_in_base: tuple[str, ...]
    title: str

    @property
    def table(self) -> Table:
        """One row for each tensor."""
        notes = []
        if any(tensor.kept == "not kept" for tensor in self.tensors):
            notes.append(
                "not kept: differs, but cannot carry a LoRA; save_others=True (--save-others) keeps it"
            )
        if self.only_in_base:
            notes.append(f"only in the base: {', '.join(self.only_in_base)}")
        columns = ["tensor", "kept as", "rank", "norm", "relative error"]
        return Table(columns, self.tensors, title=self.title, notes=notes)


def extract(
    base: str | os.PathLike[str],
    tuned: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    rank: int | None = None,
    energy: float | None = None,
    bytes: int | None = None,
    save_others: bool = False,
    any_base: bool = False,
    jobs: int = 1,
    force: bool = False,
    progress: bool = False,
) -> ExtractResult:
    """Write the best low-rank adapter that leads from one checkpoint to another.

    Exactly one of ``rank``, ``energy`` and ``bytes`` says how good or how large it is to be.

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
    bytes : int
        The size of ``adapter_model.safetensors``, shared out so that the summed squared error becomes least.
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
    goal = Goal.of(rank=rank, energy=energy, bytes=bytes)
    before, after = open_model(directory(base)), open_model(directory(tuned))
    if not any_base:
        check_pair(before, after)
    named = before.naming(after.places)
    pairs = [_Pair(before, after, named(name), name) for name in after.places]
    matrices = [pair for pair in pairs if pair.is_matrix]
    others = [pair for pair in pairs if not pair.is_matrix]
    if len(pairs) == sum(pair.base not in before for pair in pairs):
        raise HubError(f"{tuned}: has no tensor in common with {base}")
    with (
        replacing_adapter(out, force=force, inputs=[base, tuned]) as stage,
        TemporaryDirectory(dir=stage) as parts,
    ):
        differing = each(_differs, others, jobs=jobs, progress=progress, label="compare")
        others = [pair for pair, differs in zip(others, differing, strict=True) if differs]
        in_full = {pair.module for pair in others} - {""} if save_others else set()
        matrices = [pair for pair in matrices if pair.module not in in_full]
        work = [(pair, Path(parts, str(i)), goal) for i, pair in enumerate(matrices)]
        found = each(_decompose, work, jobs=jobs, progress=progress, label="extract")
        differences = {
            pair.module: _Difference(pair, path, *result)
            for (pair, path, _), result in zip(work, found, strict=True)
            if result is not None
        }
        if not differences:
            raise HubError(f"{tuned}: no weight matrix differs from that of {base}")
        adapter = _adapter(differences, {}, _saved(after, in_full))
        ranks = _ranks(adapter, differences, goal)
        adapter = _adapter(differences, ranks, adapter.full)
        write(adapter, stage)
    lacking = sorted({*before.places} - {pair.base for pair in pairs})
    rows = [
        ExtractedTensor(d.pair.name, "LoRA", ranks[name], d.norm, d.error(ranks[name]))
        for name, d in differences.items()
    ]
    rows += [ExtractedTensor(p.name, "in full" if p.module in in_full else "not kept") for p in others]
    return ExtractResult(Path(out), tuple(rows), tuple(lacking), f"{tuned} - {base}")


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
    def is_matrix(self) -> bool:
        """Whether the difference can be a LoRA's."""
        if self.base not in self.before or not self.name.endswith(".weight"):
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
class _Difference:
    """A matrix that differs, its leading singular triplets put aside."""

    pair: _Pair
    path: Path
    s: Array
    missing: float  # the squared norm of what those leave

    def module(self, rank: int | None) -> AdapterModule:
        """The first ``rank`` directions as a module of scaling 1."""
        info = self.pair.after.info(self.pair.name)
        rank = len(self.s) if rank is None else rank
        d, k = reversed(info.shape) if self.pair.embedding or self.pair.fan_in_fan_out else info.shape
        parts = {
            "A": taken(self.path, "A", info.dtype, (rank, k)),
            "B": taken(self.path, "B", info.dtype, (d, rank)),
        }
        return AdapterModule(parts, alpha=float(rank), embedding=self.pair.embedding)

    @property
    def norm(self) -> float:
        return float((self.missing + np.square(self.s).sum()) ** 0.5)

    def error(self, rank: int) -> float:
        """The relative error that ``rank`` directions leave."""
        return float((self.missing + np.square(self.s[rank:]).sum()) ** 0.5) / self.norm


def _differs(pair: _Pair) -> bool:
    if pair.base not in pair.before or pair.before.info(pair.base).shape != pair.after.info(pair.name).shape:
        return True
    return not np.array_equal(pair.before.read(pair.base), pair.after.read(pair.name))


def _decompose(work: tuple[_Pair, Path, Goal]) -> tuple[Array, float] | None:
    """Put a difference's leading factors aside: its singular values, and what they miss; None if zero."""
    pair, path, goal = work
    D = pair.difference()
    if not D.any():
        return None
    place = f"{pair.after.path}: the change of {pair.name!r}"
    itemsize = pair.after.info(pair.name).nbytes // D.size
    (U, s, Vh), missing = finite(place, lambda: _leading(D, goal, itemsize))
    put_factors(U, s, Vh, path)
    return s.astype(np.float64), missing


def _leading(D: Array, goal: Goal, itemsize: int) -> tuple[SVD, float]:
    """As many singular triplets as the goal needs, or may need, and the squared norm of what they leave."""
    full = min(D.shape)
    if goal.rank is not None:
        return _truncated(D, min(goal.rank, full))
    if goal.bytes is not None:
        return _truncated(D, min(full, max(1, goal.bytes // (itemsize * sum(D.shape)))))
    share = goal.lost_energy
    assert share is not None
    rank = min(_FIRST_RANK, full)
    while True:
        found, missing = _truncated(D, rank)
        s = found.s.astype(np.float64)
        enough = rank_for_loss(s, share, missing)
        if enough or rank == full:
            break
        # Would even the largest rank of the search do, if no singular value fell from here on?
        most = full // _SEARCHED
        short = missing - share * (missing + np.square(s).sum()) - (most - rank) * s[-1] ** 2
        rank = full if 2 * rank > most or short > 0 else 2 * rank
        del found
    rank = enough or full
    missing += float(np.square(s[rank:]).sum())
    return SVD(found.U[:, :rank], found.s[:rank], found.Vh[:rank]), missing


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


def _ranks(adapter: Adapter, differences: Mapping[str, _Difference], goal: Goal) -> dict[str, int]:
    spectra = {name: difference.s for name, difference in differences.items()}
    if goal.bytes is not None:
        return allocate_bytes(adapter, spectra, goal.bytes)
    return {name: goal.rank_of(difference.s, difference.missing) for name, difference in differences.items()}


def _adapter(
    differences: Mapping[str, _Difference], ranks: Mapping[str, int], full: Mapping[str, Stored]
) -> Adapter:
    """The adapter with these ranks, or with all that was put aside where none is given."""
    modules = {
        name: difference.module(ranks.get(name))
        for name, difference in differences.items()
        if ranks.get(name) != 0
    }
    raw: dict[str, Any] = {
        **settings.FRESH,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": any(difference.pair.fan_in_fan_out for difference in differences.values()),
        "modules_to_save": sorted({name.rpartition(".")[0] for name in full}) or None,
    }
    return Adapter(modules, full, settings.with_targets(raw, modules))


def _saved(after: ModelDirectory, modules: set[str]) -> dict[str, Stored]:
    """All parameters of these modules: PEFT reads a module that is saved in full as a whole."""
    return {
        path: stored(after.files[file], name, after.info(name))
        for name, file in after.places.items()
        if (path := module_path(name, after.config)).rpartition(".")[0] in modules
    }
