"""Extract the difference of two checkpoints as a LoRA."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lora_np.adapters.adapter import Adapter, AdapterModule, Stored, TokenRows
from lora_np.adapters.base_models import check_pair
from lora_np.adapters.base_weights import BLOCK, Merging
from lora_np.adapters.formats import Written, new_adapter, write
from lora_np.adapters.peft_format import targeting
from lora_np.adapters.spectra import Goal, Grams, Spectrum, back, balanced, cut, finite, root_of
from lora_np.checks import Array, StrPath
from lora_np.files import FileError
from lora_np.hub import FLOATS, TensorInfo, directory
from lora_np.linalg import SVD, truncated_svd
from lora_np.models import HEAD, OpenModel, Parameter, Place, fused_names, open_model, peft
from lora_np.table import Table
from lora_np.work import parallel_map

_HEAD = HEAD.removesuffix(".weight")
# The error that rounding the factors to a dtype can add, relative to the norm of the change.
_ROUNDING = {"float64": 1e-5, "float32": 1e-5, "float16": 2**-8, "bfloat16": 2**-5}
_FIRST_RANK = 16  # the first rank to try when searching for enough energy
_SEARCHED = 8  # above 1/8 of full rank, a full SVD is faster, so compute it


class ExtractedTensor(NamedTuple):
    """A tensor that differs between the checkpoints, and how its difference was saved.

    Parameters
    ----------
    name : str
        The name of the tensor in the fine-tuned model.
    kept : {"LoRA", "rows", "bias", "in full", "not kept"}
        The form in which the difference was saved.
    rank : int or None
        The rank of its LoRA.
    norm, error : float
        The norm of the difference, and the relative error that remains.
    parameters : int
        The number of parameters that were saved.
    """

    name: str
    kept: str
    rank: int | None
    norm: float
    error: float
    parameters: int


@dataclass(frozen=True, repr=False)
class Extraction(Written[ExtractedTensor]):
    """The result of `extract`: how each difference was saved, and the path of the adapter.

    Parameters
    ----------
    title : str
        The title of the table.
    rows : tuple of ExtractedTensor
        The tensors that differ.
    notes : tuple of str
        The checks that were made, and the differences that were not saved.
    headings : tuple of str
        The headings of the columns.
    path : Path
        The new adapter.
    """

    @property
    def parts(self) -> Table:
        """A table of the parameters and the share of the squared change that each form saves."""
        total = sum(row.norm**2 for row in self.rows) or 1.0
        lines = []
        for kept in dict.fromkeys(row.kept for row in self.rows):
            tensors = [row for row in self.rows if row.kept == kept]
            share = sum(row.norm**2 for row in tensors) / total
            lost = sum((row.norm * row.error) ** 2 for row in tensors) / total
            size = sum(row.parameters for row in tensors)
            lines.append((kept, len(tensors), size, share, share - lost))
        headings = ("kept as", "tensors", "parameters", "share of change", "share kept")
        percent = dict.fromkeys(headings[3:], "{:.3%}".format)
        return Table(headings, lines, title="Cost and share of each part", formats=percent)


def extract(
    base: StrPath,
    tuned: StrPath,
    out: StrPath,
    *,
    rank: int | None = None,
    energy: float | None = None,
    tolerance: float | None = None,
    budget: int | str | None = None,
    total_rank: int | None = None,
    grams: Grams | None = None,
    portable: bool = False,
    save_others: bool = False,
    any_base: bool = False,
    jobs: int = 1,
    force: bool = False,
    progress: bool = False,
) -> Extraction:
    """Extract the difference of two checkpoints as the best low-rank adapter.

    Pass exactly one of ``rank``, ``energy``, ``tolerance``, ``budget`` and ``total_rank``.

    Parameters
    ----------
    base, tuned : path
        The directories of the base and the fine-tuned model, each in one file or in shards.
    out : path
        The directory to make, or a file that ends in ``.gguf``.
    rank : int
        The same rank for every module, or less if a matrix is smaller.
    energy : float
        The share of its squared norm that each difference keeps.
    tolerance : float
        The largest relative error of each difference, in the Frobenius norm.
    budget : int or str
        The largest size of ``adapter_model.safetensors``, such as ``"10 MB"``, allocated as in
        `resize`.
    total_rank : int
        The sum of all ranks, allocated in the same way as ``budget``.
    grams : mapping of str to array_like of shape (k, k), optional
        ``X.T @ X`` of the inputs X of each module. Norms and errors then refer to the outputs, as
        in `resize`.
    portable : bool
        Whether to write the portable form that `convert` makes, in which every module is padded to
        the largest rank. ``budget`` then limits the size of the padded adapter.
    save_others : bool
        Whether to save differences that no LoRA can express, in the smallest form that PEFT
        supports: new or few tokens as rows, biases by themselves, norms and convolutions as
        ``modules_to_save``. The table lists these differences in either case.
    any_base : bool
        Whether to continue if the configs are of different models, or the module names are unknown.
    jobs : int
        The number of matrices to work on at a time.
    force : bool
        Whether to replace an existing adapter at ``out``. A directory that contains anything else
        is refused; a README.md is kept.
    progress : bool
        Whether to show a progress bar, if standard error is a terminal.

    Returns
    -------
    Extraction
        The rank of each tensor that differs, the norm of its difference, and the relative error
        that remains; ``parts`` adds up the cost of each form.

    Raises
    ------
    FileError
        If the checkpoints are equal or do not belong together, or contain values that are not
        finite.
    TypeError
        If an option has the wrong type.
    ValueError
        If an option is out of range, or the target exists.

    See Also
    --------
    merge : Merge an adapter into its base.

    Notes
    -----
    One matrix is in memory at a time, in float32, with up to 8 times its size as work space. If the
    goal needs more than about an eighth of a matrix's full rank, LAPACK computes the full SVD in
    float64, which takes about 20 times the memory of the float32 matrix.

    If lora_np knows the family of the fine-tuned model, the config determines which weights are
    embeddings or stored transposed; otherwise, names and shapes determine it.

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
    goal = Goal.of(
        out, rank=rank, energy=energy, tolerance=tolerance, budget=budget, total_rank=total_rank
    )
    before, after = open_model(directory(base)), open_model(directory(tuned))
    pairs = _compared(before, after, any_base=any_base)
    at_once = partial(parallel_map, jobs=jobs, progress=progress)
    with new_adapter(out, force=force, inputs=[base, tuned]) as (stage, aside):
        grams = grams and {**grams}  # compute the values of a lazy mapping only once
        # An embedding's changed rows are saved if a LoRA of rank `most` would be larger. If `most`
        # is None, only LoRAs are saved.
        most = (goal.value if goal.name == "rank" else 1) if save_others else None
        others = _others(pairs, most=most, jobs=jobs, progress=progress)
        saved = _Saved.of(after, pairs, others)
        able = [pair for pair in pairs if pair.carries_lora and pair.name not in saved.kept]
        found = _found(able, aside, goal, grams, at_once)
        if not found and {*saved.kept.values()} <= {"not kept"}:
            raise FileError(f"{tuned}: no weight matrix differs from that of {base}")
        idle = {} if found else _idle(able)  # a zero update, because PEFT needs at least one module
        found |= (tied := _tied_head(before, after, pairs, found))
        whole = _adapter(str(base), able, found, idle, saved)
        made, ranks = _cut(whole, found, goal, portable=portable) if found else (whole, {})
        written, remarks = write(made, stage, base=before)
        lines = {name: x.line(made.get(name), ranks[name]) for name, x in found.items()}
        promised = _promised(able, others, saved.kept, lines)
        check = partial(_check, Merging(before, written), Path(out), grams)
        at_once(check, promised, label="check")
    notes = _notes(len(promised), idle, remarks, tied, saved, pairs)
    headings = ("tensor", "kept as", "rank", "norm", "relative error", "parameters")
    records = (*lines.values(), *saved.lines(others))
    return Extraction(f"{tuned} - {base}", records, tuple(notes), headings, Path(out))


def _compared(before: OpenModel, after: OpenModel, *, any_base: bool) -> list[_Pair]:
    """Pair the parameters of two checkpoints, and check that they fit each other.

    With ``any_base``, it is enough if they have one tensor in common.
    """
    pairs = list(_pairs(before, after))
    if not any_base:
        shapes = {pair.name: (pair.old_shape, pair.new.shape) for pair in pairs if pair.is_weight}
        check_pair(before, after, shapes)
    if not any(pair.old for pair in pairs):
        raise FileError(f"{after.path}: has no tensor in common with {before.path}")
    return pairs


def _adapter(
    base: str,
    able: Iterable[_Pair],
    found: Mapping[str, _Decomposed],
    idle: Mapping[str, AdapterModule],
    saved: _Saved,
) -> Adapter:
    """Make an adapter from the LoRAs before truncation, and from the other saved parameters."""
    modules = {name: x.module for name, x in found.items()} or idle
    adapted = [pair.new.module for pair in able if pair.target in modules]
    raw = {
        **peft.FRESH,
        "base_model_name_or_path": base,
        "fan_in_fan_out": any(x.transposed and x.kind == "linear" for x in adapted),
        **saved.settings,
    }
    return Adapter(modules, saved.full, targeting(raw, modules), rows=saved.rows)


def _cut(
    whole: Adapter, found: Mapping[str, _Decomposed], goal: Goal, *, portable: bool
) -> tuple[Adapter, Mapping[str, int]]:
    """Truncate the LoRAs to the ranks that the goal needs; return the adapter and the ranks."""
    spectra = {name: x.spectrum for name, x in found.items()}
    ranks = goal.ranks(whole, spectra, whole.modules, portable=portable)
    return cut(whole, whole.modules, ranks, portable=portable), ranks


def _promised(
    able: Iterable[_Pair],
    others: Mapping[str, _Other],
    kept: Mapping[str, str],
    lines: Mapping[str, ExtractedTensor],
) -> dict[str, tuple[_Pair, float | None]]:
    """Map each saved parameter that the base has to its pair and its error, None without a LoRA."""
    adapted = ((pair, lines[pair.target]) for pair in able if pair.target in lines)
    promised = {pair.name: (pair, line.error) for pair, line in adapted if line.rank}
    whole = (x.pair for name, x in others.items() if kept[name] != "not kept")
    return promised | {pair.name: (pair, None) for pair in whole if pair.old}


def _notes(
    count: int,
    idle: Iterable[str],
    remarks: list[str],
    tied: Iterable[str],
    saved: _Saved,
    pairs: Collection[_Pair],
) -> list[str]:
    """Return notes on the checks, on unusual updates, and on differences that are not saved."""
    notes = [f"checked: base + adapter is the tuned model up to these errors (modules: {count})"]
    notes += [
        f"{name}: a zero update, since PEFT needs at least one adapted module" for name in idle
    ]
    notes += remarks
    for name in tied:
        how = "merge with lora-np merge, because PEFT's own merge would apply both updates to it"
        notes.append(f"{name} shares the embedding's weight and has the same update: {how}")
    if "not kept" in saved.kept.values():
        notes.append(
            "not kept: differs, but cannot carry a LoRA; save_others=True (--save-others) keeps it"
        )
    paired = {tensor: pair.old for pair in pairs if pair.old for tensor in pair.old.places}
    before = next(iter(paired.values())).model
    if lacking := sorted({*before.places} - paired.keys()):
        notes.append(f"only in the base: {', '.join(lacking)}")
    return notes


@dataclass(frozen=True, eq=False)
class _Pair:
    """A parameter of the fine-tuned checkpoint, and the same parameter of the base."""

    target: str  # the path of the module if PEFT adapts it, otherwise the name of the parameter
    old: Parameter | None  # the base's parameter; None if the base does not have it
    new: Parameter

    @property
    def name(self) -> str:
        """The name of the parameter in the loaded model."""
        return self.new.name

    @property
    def holder(self) -> str:
        """The path of the module that the parameter belongs to."""
        return self.new.holder

    @property
    def old_shape(self) -> tuple[int, ...] | None:
        return self.old.shape if self.old else None

    @property
    def is_weight(self) -> bool:
        """Whether the parameter is a weight matrix or a stack of them, by name and shape."""
        named, shape = self.name.endswith(".weight"), self.new.shape
        return (named and len(shape) == 2) or (not named and len(shape) == 3 and shape[0] > 1)

    @property
    def carries_lora(self) -> bool:
        """Whether a LoRA can express the difference.

        It cannot if modules other than the head share the weight, since PEFT would not adapt them.
        """
        after = self.new.model
        shared = self.name == after.table and not {*after.sharing} <= {_HEAD}
        if self.name in after.unread or shared or not self.new.module.called or not self.old:
            return False
        infos = [one.model.info(name) for one in (self.old, self.new) for name in one.places]
        alike = self.is_weight and self.old_shape == self.new.shape
        return alike and all(info.dtype in FLOATS and info.size for info in infos)

    def kept_as(self, tokens: tuple[int, ...], holders: Collection[str]) -> str:
        """Choose how to save the parameter without a LoRA: rows, bias, in full, or not at all.

        PEFT saves only whole modules, apart from rows and biases.
        """
        if tokens:
            return "rows"
        if self.name.endswith(".bias") and self.old_shape == self.new.shape:
            return "bias"
        inside = any(other.startswith(f"{self.holder}.") for other in holders)
        savable = self.holder and not inside and self.name not in self.new.model.unread
        return "in full" if savable else "not kept"

    def new_rows(self, most: int | float) -> tuple[int, ...]:
        """Return the tokens whose rows differ, if saving these rows is possible and saves space.

        Otherwise return (). The rows of an unchanged vocabulary are compared with a LoRA of rank
        ``most``, the rows of a larger one with the whole weight.
        """
        shape = self.new.shape
        if not (self.holder.endswith(peft.VOCABULARY) and self.old and len(shape) == 2):
            return ()
        W, W0 = self.new.whole(), self.old.whole()
        if W.shape[1:] != W0.shape[1:] or len(W) < len(W0):
            return ()
        known = (W[: len(W0)] != W0).any(axis=1)
        tokens = np.append(np.flatnonzero(known), np.arange(len(W0), len(W)))
        # a LoRA cannot add rows, so save the rows of a larger vocabulary unless every row differs
        fewer = len(W) if len(W) > len(W0) else most * sum(W.shape) / W.shape[1]
        return tuple(tokens.tolist()) if len(tokens) < fewer else ()

    @property
    def stored(self) -> Stored:
        """The whole parameter of the fine-tuned model."""
        return Stored(self.new.dtype, self.new.shape, self.new.whole)

    def differences(self) -> Iterator[Array]:
        """Yield fine-tuned minus base for each matrix (d, k), in float32 or better."""
        assert self.old is not None
        for W, W0 in zip(self.new.matrices(), self.old.matrices(), strict=True):
            D = W.astype(np.float64 if W.dtype == np.float64 else np.float32)
            yield np.subtract(D, W0, out=D)


def _pairs(before: OpenModel, after: OpenModel) -> Iterator[_Pair]:
    """Pair every parameter of the fine-tuned checkpoint with the same parameter of the base."""
    unread = {name: Parameter(after, name, {name: Place(name)}) for name in after.unread}
    named = before.naming(after.places)
    fused = fused_names(after.model_type) or {}
    by_tensor = {tensor: x for x in before.parameters.values() for tensor in x.places}
    for name, new in {**after.parameters, **unread}.items():
        first, module = named(new.tensor), new.module
        old = by_tensor.get(first) or before.parameters.get(name)
        # if the base does not list the parameter, look for a single tensor with its name
        alone = before.tied.get(name, first)
        places = old.places if old else {alone: Place(name)} if alone in before else None
        old = None if places is None else Parameter(before, name, places, module)
        # PEFT mistakes modules with names in `fused` for experts, so target their parameters
        whole = module.kind in ("linear", "embedding")
        whole = whole and new.holder.rpartition(".")[2] not in fused
        yield _Pair(new.holder if whole else name, old, new)


class _Other(NamedTuple):
    """A parameter that differs between the checkpoints but gets no LoRA."""

    pair: _Pair
    norm: float  # the norm of the difference
    kept: str  # the form in which the parameter is saved, or "not kept"
    tokens: tuple[int, ...]  # the tokens whose rows differ


def _others(
    pairs: Collection[_Pair], *, most: int | float | None, jobs: int, progress: bool
) -> dict[str, _Other]:
    """Map each parameter that differs but gets no LoRA to a description of how it is saved.

    Rows are saved only if they are smaller than a LoRA of rank ``most``. Without ``most``, no
    parameter is saved.
    """
    tokens = {pair.name: pair.new_rows(most) for pair in pairs} if most is not None else {}
    some = [pair for pair in pairs if not pair.carries_lora or tokens.get(pair.name)]
    work = {pair.name: pair for pair in some}
    norms = parallel_map(_norm, work, jobs=jobs, progress=progress, label="compare")
    holders, others = {pair.holder for pair in pairs}, {}
    for pair in some:
        if (norm := norms[pair.name]) is not None:
            differing = tokens.get(pair.name, ())
            kept = pair.kept_as(differing, holders) if most is not None else "not kept"
            others[pair.name] = _Other(pair, norm, kept, differing)
    return others


class _Saved(NamedTuple):
    """The parameters that an adapter saves besides its LoRAs."""

    full: Mapping[str, Stored]
    rows: Mapping[str, TokenRows]
    kept: Mapping[str, str]  # the form in which each parameter is saved, by name
    settings: Mapping[str, object]  # PEFT's settings that list these parameters

    @classmethod
    def of(cls, after: OpenModel, pairs: Iterable[_Pair], others: Mapping[str, _Other]) -> _Saved:
        """Collect the parameters to save; as in PEFT, saving a module saves all its parameters."""
        as_what = {name: other.kept for name, other in others.items()}
        in_full = {other.pair.holder for other in others.values() if other.kept == "in full"}
        replaced = [pair for pair in pairs if pair.holder in in_full]
        full = {pair.name: pair.stored for pair in replaced} | _shared(after, replaced)
        saved = sorted({name.rpartition(".")[0] for name in full})
        kept = as_what | dict.fromkeys(full, "in full")
        full |= {name: x.pair.stored for name, x in others.items() if kept[name] == "bias"}
        chosen = {name: x for name, x in others.items() if kept[name] == "rows"}
        rows = {
            name: TokenRows(
                x.tokens, x.pair.stored.seen(partial(np.take, indices=x.tokens, axis=0))
            )
            for name, x in chosen.items()
        }
        settings = {
            "modules_to_save": saved or None,
            "bias": "all" if "bias" in kept.values() else "none",
            "trainable_token_indices": {x.pair.holder: [*x.tokens] for x in chosen.values()}
            or None,
        }
        return cls(full, rows, kept, settings)

    def lines(self, others: Mapping[str, _Other]) -> Iterator[ExtractedTensor]:
        """Yield a row of the result's table for each parameter that has no LoRA."""
        for name, how in self.kept.items():
            size = self.full[name].size if name in self.full else 0
            size = self.rows[name].new.size if name in self.rows else size
            norm = others[name].norm if name in others else 0.0
            yield ExtractedTensor(name, how, None, norm, float(how == "not kept"), size)


def _shared(after: OpenModel, replaced: Iterable[_Pair]) -> dict[str, Stored]:
    """Collect the tied copies of weights saved in full, since PEFT replaces only one module."""
    whole = {x for pair in replaced for x in pair.new.places if pair.name == after.table}
    holders = {name.rpartition(".")[0] for name, owner in after.tied.items() if owner in whole}
    return {
        name: Stored(after.info(owner).dtype, after.info(owner).shape, partial(after.read, owner))
        for name, owner in after.tied.items()
        if name.rpartition(".")[0] in holders
    }


def _norm(pair: _Pair) -> float | None:
    """Compute the norm of the difference, with zeros for missing base rows; None if equal."""
    base = pair.old.matrices() if pair.old else iter(())
    squares, differs = 0.0, pair.old_shape != pair.new.shape
    for W in pair.new.matrices():
        D, W0 = W.astype(np.float64), next(base, np.zeros((0,) * W.ndim))
        common = tuple(map(slice, map(min, W.shape, W0.shape)))
        D[common] -= W0[common]
        differs = differs or not np.array_equal(W, W0)
        squares += float(np.square(D).sum())
    return squares**0.5 if differs else None


def _idle(able: Iterable[_Pair]) -> dict[str, AdapterModule]:
    """Map the path of the smallest linear layer to a zero update for it."""
    linear = [pair for pair in able if pair.new.module.kind == "linear" and pair.is_weight]
    if not linear:
        raise FileError("no weight matrix can have a LoRA, and PEFT needs one to adapt")
    pair = min(linear, key=lambda pair: sum(pair.new.shape))
    d, k = next(pair.new.matrices()).shape
    A, B = np.zeros((1, k), np.float32), np.zeros((d, 1), np.float32)
    return {pair.target: AdapterModule.of(A=A, B=B, alpha=1.0)}


class _Decomposed(NamedTuple):
    """A LoRA of one tensor's difference, not yet truncated to the goal, and its spectrum."""

    label: str
    module: AdapterModule
    spectrum: Spectrum

    def line(self, made: AdapterModule | None, rank: int) -> ExtractedTensor:
        """Return the table's row for this LoRA; ``made`` is the module truncated to ``rank``."""
        size = sum(part.size for part in made.parts.values()) if made else 0
        norm, error = self.spectrum.left(0) ** 0.5, self.spectrum.error(rank)
        return ExtractedTensor(self.label, "LoRA", rank, norm, error, size)


def _tied_head(
    before: OpenModel, after: OpenModel, pairs: Iterable[_Pair], found: Mapping[str, _Decomposed]
) -> dict[str, _Decomposed]:
    """Map a head tied to the embedding to the embedding's transposed update; {} without both."""
    table = None if HEAD in after.parameters else before.tied.get(HEAD)
    owners = (pair.target for pair in pairs if pair.old and table in pair.old.places)
    for name in (name for name in owners if name in found):
        label, module, spectrum = found[name]
        A, B = (module.parts[part].seen(np.transpose) for part in "BA")
        head = AdapterModule({"A": A, "B": B}, alpha=module.alpha)
        return {_HEAD: _Decomposed(f"{label}, as {_HEAD}", head, spectrum)}
    return {}


def _found(
    able: Sequence[_Pair],
    aside: Path,
    goal: Goal,
    grams: Grams | None,
    at_once: Callable[..., Mapping[str, _Decomposed | None]],
) -> dict[str, _Decomposed]:
    """Map the path of each module that differs to a LoRA of its difference."""
    work = {pair.target: (pair, aside / str(i), goal, grams) for i, pair in enumerate(able)}
    decomposed = at_once(_decompose, work, label="extract")
    return {name: result for name, result in decomposed.items() if result}


def _decompose(work: tuple[_Pair, Path, Goal, Grams | None]) -> _Decomposed | None:
    """Write a LoRA of a difference to temporary files; return it, or None for a zero difference."""
    pair, path, goal, grams = work
    place, dtype = f"{pair.new.model.path}: the change of {pair.name!r}", pair.new.dtype
    itemsize = TensorInfo(dtype, ()).nbytes
    stacked = len(pair.new.shape) == 3
    kept, missing, changed = [], 0.0, False
    for D in pair.differences():
        changed = changed or bool(D.any())
        if not (stacked or changed):
            return None
        seen = _seen(pair, D, grams)
        # the rank of a stack depends on all experts together, so compute all singular values
        if stacked and goal.name == "energy":
            (U, s, Vh), left = finite(place, _truncated, seen, min(D.shape))
        else:
            (U, s, Vh), left = finite(place, _leading, seen, goal, itemsize)
        kept.append(SVD(U, s, Vh if grams is None else back(U.T @ D, s)))
        missing += left
    if not changed:
        return None
    U, s, Vh = (np.stack(arrays) for arrays in zip(*kept, strict=True)) if stacked else kept[0]
    spectrum = replace(Spectrum.of(s, 1.0), missing=missing)
    parts = balanced(SVD(U, s, Vh), path, B=dtype, A=dtype)
    embedding, parameter = pair.new.module.kind == "embedding", pair.target == pair.name
    alpha = float(s.shape[-1])  # alpha = r gives a scale of 1
    module = AdapterModule(parts, alpha, embedding=embedding, parameter=parameter)
    return _Decomposed(pair.name, module, spectrum)


def _seen(pair: _Pair, D: Array, grams: Grams | None) -> Array:
    """Return ``D R^T`` for the Gram matrix ``R^T R`` of the inputs; without Gram matrices, D."""
    root = root_of(pair.target, grams, D.shape[1])
    return D if root is None else D @ root.T.astype(D.dtype)


def _check(
    adapted: Merging, out: Path, grams: Grams | None, work: tuple[_Pair, float | None]
) -> None:
    """Check that `merge` would restore the fine-tuned parameter within the promised error."""
    pair, promised = work
    old, new = pair.old, pair.new
    assert old is not None
    lost = norm = 0.0
    # a tied parameter that is changed under its own name is no longer tied, so read it by that name
    own = pair.name in old.model.tied.keys() & adapted.changes
    made_of = replace(old, places={pair.name: Place(pair.name)}) if own else old
    if promised is None:
        both = made_of.maps(adapted.read), new.maps(new.model.read)
        if not all(np.allclose(*maps, rtol=2**-7, atol=0) for maps in zip(*both, strict=True)):
            raise FileError(f"{out}: base + adapter misses the tuned {pair.name!r}")
        return
    made = made_of.matrices(adapted.read)
    for W, W0, W1 in zip(new.matrices(), old.matrices(), made, strict=True):
        lost += float(np.square(_seen(pair, W - W1, grams)).sum())
        norm += float(np.square(_seen(pair, W.astype(np.float64) - W0, grams)).sum())
    apart = (lost / norm) ** 0.5
    if not apart <= promised + _ROUNDING[new.dtype]:
        raise FileError(
            f"{out}: base + adapter misses the tuned {pair.name!r} by {apart:.3g} of its change,"
            f" not by {promised:.3g} as promised; nothing was written"
        )


def _leading(D: Array, goal: Goal, itemsize: int) -> tuple[SVD, float]:
    """Compute the singular triplets that the goal may need, and the squared truncation error."""
    full = min(D.shape)
    if goal.name != "energy":
        most = goal.value // (itemsize * sum(D.shape)) if goal.name == "budget" else goal.value
        return _truncated(D, min(full, max(1, most)))
    rank = min(_FIRST_RANK, full)
    while True:
        svd, missing = _truncated(D, rank)
        spectrum = Spectrum(svd.s.astype(np.float64), missing, D.dtype.name)
        enough = spectrum.needed(goal.value)
        if enough <= rank or rank == full:
            break
        rank = full if 2 * rank > full // _SEARCHED else 2 * rank
        del svd
    rank = min(enough, full)
    return SVD(svd.U[:, :rank], svd.s[:rank], svd.Vh[:rank]), spectrum.left(rank)


def _truncated(D: Array, rank: int) -> tuple[SVD, float]:
    """Compute the leading triplets and the squared error ``||D - U s Vh||^2``.

    The error is summed over blocks of rows, since ``||D||^2 - ||s||^2`` would lose half the digits.
    """
    svd = U, s, Vh = truncated_svd(D, rank=rank)
    if len(D) < D.shape[1]:
        D, U, Vh = D.T, Vh.T, U.T
    step = max(1, BLOCK // D.shape[1])
    blocks = (slice(first, first + step) for first in range(0, len(D), step))
    return svd, sum(float(np.linalg.norm(D[rows] - (U[rows] * s) @ Vh)) ** 2 for rows in blocks)
