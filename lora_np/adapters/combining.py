"""Combine several adapters into one, and measure how far their updates overlap."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lora_np.adapters import spectra
from lora_np.adapters.adapter import (
    Adapter,
    AdapterModule,
    Source,
    Stored,
    TokenRows,
    check_init,
    in_memory,
)
from lora_np.adapters.base_models import check_bases
from lora_np.adapters.base_weights import Reader, on_base
from lora_np.adapters.formats import NOTHING, Findings, Written, load, new_adapter, write
from lora_np.adapters.peft_format import only_lora, targeting
from lora_np.adapters.scaling import dtype_of, made_portable
from lora_np.checks import (
    Array,
    Seed,
    StrPath,
    choice,
    generator,
    number,
    overflow_allowed,
    real,
    refuse,
)
from lora_np.files import FileError
from lora_np.hub import directory
from lora_np.linalg import SVD, principal_angles
from lora_np.lora import MERGE_METHODS, MergeMethod, WeightedUpdate
from lora_np.models import OpenModel, open_base
from lora_np.work import parallel_map

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALL = "all"  # the name of the row for all modules together
_Given = tuple[AdapterModule, float, Array | None]  # module, its adapter's weight, its Gram matrix
_Work = tuple[str, list[_Given], Path, np.random.Generator]
_Key = tuple[str, tuple[int, ...] | None]  # parameter name, its tokens if only rows are replaced
ON_CONFLICT = ("refuse", "first", "mean")


class CombinedModule(NamedTuple):
    """The combined update of one module, with its difference from the weighted sum.

    Parameters
    ----------
    name : str
        The path of the module.
    rank : int
        The rank of the combined update.
    difference : float
        The distance from the weighted sum of the updates, ``||result - sum|| / ||sum||``.
    """

    name: str
    rank: int
    difference: float


def combine(
    adapters: Sequence[Source],
    out: StrPath,
    *,
    weights: Sequence[float] | None = None,
    method: str = "sum",
    density: float | None = None,
    rank: int | None = None,
    rng: Seed = 0,
    grams: Sequence[spectra.Grams] | None = None,
    base: StrPath | None = None,
    on_conflict: str = "refuse",
    portable: bool = False,
    any_base: bool = False,
    jobs: int = 1,
    force: bool = False,
    progress: bool = False,
) -> Written[CombinedModule]:
    """Combine several adapters into one, by the weighted sum of their updates or another method.

    Parameters
    ----------
    adapters : sequence of path or Adapter
        Adapters in any format that `load` reads, or its results. Whatever the method, a single
        adapter is only multiplied by its weight, and truncated if there is a ``rank``.
    out : path
        The directory to make, or a file that ends in ``.gguf``.
    weights : sequence of float, optional
        A weight for each adapter, which may be negative; by default 1.
    method : str
        One of `lora_np.lora.MERGE_METHODS`. "sum" is exact, and the ranks add up. "svd" truncates
        the sum to its best approximation. "linear" adds the As and the Bs separately, which is
        **not** the sum of the updates: it includes products of one adapter's B with another's A.
        The table shows the error of each module.
    density : float, optional
        The share of entries to keep, for methods that drop some.
    rank : int, optional
        Truncate the result to this rank by an SVD. By default, methods that work on the whole
        update ("svd", "ties_svd", ...) truncate to the largest rank among the adapters, as in PEFT;
        others do not truncate.
    rng : Generator or int
        Randomness, for methods that drop entries at random.
    grams : sequence of mapping, optional
        For "regmean", a mapping for each adapter: ``X.T @ X`` of the inputs X of each module on
        that adapter's data, by the module's path. `lora_np.language.grams` computes them.
    base : path, optional
        The base model, which DoRA's magnitudes need, and names and rows as in `load`. The sum of
        DoRAs is a DoRA.
    on_conflict : {"refuse", "first", "mean"}
        If adapters replace the same parameter, or rows of it: raise an error, take the first
        adapter's, or take the weighted mean, which needs the same rows and shapes.
    portable : bool
        Whether to write the portable form that `convert` makes, in which every module is padded to
        the largest rank.
    any_base : bool
        Whether to continue if the adapters name different bases.
    jobs : int
        The number of modules to work on at a time.
    force : bool
        Whether to replace an existing adapter at ``out``, but never one of ``adapters``. A
        directory that contains anything else is refused; a README.md is kept.
    progress : bool
        Whether to show a progress bar, if standard error is a terminal.

    Returns
    -------
    Written
        The rank of each module, and its relative difference from the weighted sum of the updates.

    Raises
    ------
    FileError
        If the adapters do not fit each other or the method, save the same parameters, or use DoRA
        without a base; or if the result is not finite.
    TypeError
        If ``adapters`` is not a sequence of paths, or an option has the wrong type.
    ValueError
        If an option is out of range or does not apply to this method, or the target exists.

    See Also
    --------
    overlap : Measure how far adapters interfere before combining them.
    merge : Write an adapter and its base as one checkpoint.

    Notes
    -----
    Two results differ from PEFT's. Biases of B are added too, where PEFT leaves them as
    initialised. And the result never uses rank-stabilised scaling, whose factor PEFT applies twice.

    With DoRA, the method acts on the low-rank part of each new weight, ``diag(g) scale B A``, where
    g scales rows to their magnitude; the gains ``g - 1`` on the rows of ``W0`` are added up by
    weight.

    Examples
    --------
    >>> import tempfile, lora_np as lnp
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name, k in [("a", 0), ("b", 1)]:
    ...     module = AdapterModule.of(A=np.eye(2)[[k]], B=np.eye(2)[:, [k]], alpha=1)
    ...     lnp.adapters.save(Adapter({"q": module}), folder / name)
    >>> for method in ("sum", "linear"):
    ...     result = combine([folder / "a", folder / "b"], folder / method, method=method)
    ...     print(lnp.adapters.load(folder / method).delta("q").tolist())
    [[1.0, 0.0], [0.0, 1.0]]
    [[1.0, 1.0], [1.0, 1.0]]
    """
    merge_method = MERGE_METHODS[choice("method", method, MERGE_METHODS)]
    merge_method.valid_options(density=density, rank=rank, rng=rng)
    choice("on_conflict", on_conflict, ON_CONFLICT)
    weights = _weighed(adapters, weights)
    _check_grams(grams, method, len(adapters))
    known = None if base is None else open_base(base)
    loaded = [only_lora(load(path, base=known)) for path in adapters]
    check_fit(loaded, any_base=any_base)
    modules = [module for source in loaded for module in source.values()]
    if rank is None and merge_method.cut and modules:
        rank = max(module.rank for module in modules)
    if len(loaded) == 1:  # like PEFT, drop no entries of a single adapter
        merge_method, density = MERGE_METHODS["sum"], None
    parts = {part for module in modules for part in module.parts}
    bases = _bases(loaded, base, any_base=any_base) if "magnitude" in parts else {}
    with new_adapter(out, force=force, inputs=loaded) as (stage, aside):
        work = _work(_by_module(loaded, weights, grams), aside, rng)
        combine_one = partial(_combined, merge_method, (density, rank, "bias" in parts), bases)
        results = parallel_map(combine_one, work, jobs=jobs, progress=progress, label="combine")
        combined = {name: result[0] for name, result in results.items()}
        full, tokens = _replaced(loaded, weights, on_conflict)
        made = Adapter(
            combined,
            full,
            _raw(loaded, parts, combined, full, tokens),
            rows=tokens,
            pipeline=any(source.pipeline for source in loaded),
        )
        _, notes = write(made_portable(made) if portable else made, stage, base=known)
    records = tuple(
        CombinedModule(name, module.rank, error) for name, (module, error, _) in results.items()
    )
    title = " + ".join(f"{weight:g} {path}" for path, weight in zip(adapters, weights, strict=True))
    if merge_method.warning:
        notes.insert(0, f"{method!r} {merge_method.warning}")
    if not (full or tokens or any(acts for *_, acts in results.values())):
        notes.append(NOTHING)
    return Written(
        f"{method}: {title}",
        records,
        tuple(notes),
        ("module", "rank", "relative difference"),
        Path(out),
    )


def _check_sequence(adapters: Sequence[Source]) -> None:
    """Raise an error unless ``adapters`` is a sequence of paths or adapters."""
    if isinstance(adapters, (str, bytes, os.PathLike)) or not isinstance(adapters, Sequence):
        raise TypeError(f"adapters must be a sequence of paths, as in ['a', 'b'], got {adapters!r}")


def _weighed(adapters: Sequence[Source], weights: Sequence[float] | None) -> list[float]:
    """Check the adapters' weights and return them; by default each is 1."""
    _check_sequence(adapters)
    weights = [1.0] * len(adapters) if weights is None else weights
    if not len(adapters) == len(weights) > 0:
        refuse(f"each adapter needs one weight, got {len(weights)} for {len(adapters)} adapters")
    return [
        number(f"the weight of {path}", weight, minimum=float("-inf"))
        for path, weight in zip(adapters, weights, strict=True)
    ]


def _by_module(
    loaded: Sequence[Adapter], weights: Sequence[float], grams: Sequence[spectra.Grams] | None
) -> dict[str, list[_Given]]:
    """Map each module to its updates, with the weights and Gram matrices of their adapters."""
    given: dict[str, list[_Given]] = {}
    every = grams or [{}] * len(loaded)
    for source, weight, by_name in zip(loaded, weights, every, strict=True):
        for name, module in source.items():
            gram = real("a Gram matrix", by_name[name]) if name in by_name else None
            given.setdefault(name, []).append((module, weight, gram))
    return given


def _check_grams(grams: Sequence[spectra.Grams] | None, method: str, count: int) -> None:
    """Require Gram matrices for each adapter if the method is "regmean", and none otherwise."""
    if (grams is not None) != (method == "regmean") or len(grams or range(count)) != count:
        refuse(
            f"'regmean', and no other method, needs grams (--data) for each of {count} adapters,"
            f" got {len(grams or [])}"
        )


def _work(given: Mapping[str, list[_Given]], aside: Path, rng: Seed) -> dict[str, _Work]:
    """Map each module to its updates, a path for its factors, and its own random generator."""
    draws = generator(rng).spawn(len(given))
    return {
        name: (name, given[name], aside / str(i), draw)
        for i, (name, draw) in enumerate(zip(given, draws, strict=True))
    }


def _bases(loaded: Sequence[Adapter], base: StrPath | None, *, any_base: bool) -> dict[str, Reader]:
    """Return readers of the base weights, which are needed to add DoRA's magnitudes."""
    if base is None:
        raise FileError("adding DoRA's magnitudes needs the base weights: give base= (--base)")
    bases: dict[str, Reader] = {}
    model = OpenModel.at(directory(base))
    for source in loaded:
        bases |= on_base(source, model, any_base=any_base).weights
        if lacking := source.keys() - bases.keys():
            raise FileError(
                f"{base}: the weight of {min(lacking)!r} is not a single tensor, which DoRA needs"
            )
    return bases


def _combined(
    merge_method: MergeMethod,
    options: tuple[float | None, int | None, bool],
    bases: Mapping[str, Reader],
    work: _Work,
) -> tuple[AdapterModule, float, bool]:
    """Combine the updates of one module, and write its factors to temporary files.

    Returns the module, its relative difference from the weighted sum, and whether it has an effect
    beyond rounding.
    """
    density, rank, with_bias = options
    name, given, path, rng = work
    first = given[0][0]
    arrays, gain, off = {}, None, 0.0
    # suppress warnings, because a result that is not finite raises an error below
    with overflow_allowed(divide="ignore"):
        updates = [
            WeightedUpdate(*module.factors(), weight, module.scale, gram)
            for module, weight, gram in given
        ]
        if bases:
            W0 = bases[name]()
            gain, updates = _gained(W0, updates, [module for module, *_ in given])
        wanted = spectra.no_overflow(
            name, spectra.side_by_side((update.B, update.weighted) for update in updates)
        )
        s = spectra.directions(name, *wanted).s
        rank = max(1, rank // first.groups) if rank else rank
        combine_maps = partial(merge_method, density=density, rank=rank, rng=rng)
        B, A = spectra.finite(name, _by_map, combine_maps, updates)
        terms = sum(spectra.norm(x.B) * spectra.norm(x.weighted) for x in updates)
        acts = bool(B.any() and A.any() and spectra.norm(s) > 1e-6 * terms)
        exact = merge_method.exact and B.shape == wanted[0].shape
        if not exact:
            apart = spectra.side_by_side([(B, A), (-wanted[0], wanted[1])])
            off = spectra.norm(spectra.directions(name, *apart).s) / (spectra.norm(s) or 1.0)
        if gain is not None:  # DoRA multiplies rows by the gain, so divide the rows of B
            B = B / gain
            arrays["magnitude"] = (
                gain * np.linalg.norm(W0 + B @ A, axis=-1, keepdims=True)
            ).ravel()
        if with_bias:
            arrays["bias"] = _bias(given)
        arrays |= {"A": A, "B": B}
    parts, factors = {}, [weight * module.scale for module, weight, _ in given if exact]
    for part, array in arrays.items():
        kinds = {module.parts.get(part, module.parts["B"]).dtype for module, *_ in given}
        kept = spectra.no_overflow(name, array)
        parts[part] = spectra.put_aside(
            kept, path.with_suffix(f".{part}"), dtype_of(kinds, factors)
        )
    module = replace(first, parts=parts, rslora=False)
    return replace(module, alpha=float(module.rank)), off, acts or with_bias or gain is not None


def _bias(given: Sequence[_Given]) -> Array:
    """Compute the weighted sum of the biases of B (d,); a module without a bias adds nothing."""
    scaled = ((module.bias, weight * module.scale) for module, weight, _ in given)
    biases = [scale * bias for bias, scale in scaled if bias is not None]
    return sum(biases, np.zeros(given[0][0].shape[0]))


def _by_map(
    combine_maps: Callable[[list[WeightedUpdate]], tuple[Array, Array]],
    updates: list[WeightedUpdate],
) -> tuple[Array, Array]:
    """Combine the updates of one module; each matrix of a stack is combined separately."""
    if updates[0].B.ndim == 2:
        return combine_maps(updates)
    maps = range(len(updates[0].B))
    made = [combine_maps([replace(x, B=x.B[i], A=x.A[i]) for x in updates]) for i in maps]
    rank = max(len(A) for _, A in made)  # pad smaller ranks with zeros, so that the matrices stack
    B = np.stack([np.pad(B, ((0, 0), (0, rank - B.shape[1]))) for B, _ in made])
    return B, np.stack([np.pad(A, ((0, rank - len(A)), (0, 0))) for _, A in made])


def _gained(
    W0: Array, updates: Sequence[WeightedUpdate], modules: Iterable[AdapterModule]
) -> tuple[Array, list[WeightedUpdate]]:
    """Return DoRA's joint gain, ``1 + sum(weight * (g - 1))``, and each update times its gain g."""
    gains = [_gain(W0, module) for module in modules]
    gained = list(zip(updates, gains, strict=True))
    gain = np.asarray(1 + sum(update.weight * (g - 1) for update, g in gained))
    return gain, [replace(update, B=g * update.B) for update, g in gained]


def _gain(W0: Array, module: AdapterModule) -> Array:
    """Compute DoRA's gain, the factor on each row of ``W0 + scale B A`` (d, 1); 1 without DoRA."""
    if module.magnitude is None:
        return np.ones((*W0.shape[:-1], 1), W0.dtype)
    B, A = module.weighted()
    lengths = np.linalg.norm(W0 + B @ A, axis=-1, keepdims=True)
    return np.asarray(module.magnitude.reshape(*W0.shape[:-1], 1) / lengths)


def check_fit(sources: list[Adapter], *, any_base: bool) -> None:
    """Raise an error if updates cannot be added, naming the first adapter that does not fit."""
    first: dict[str, AdapterModule] = {}
    for source in sources:
        check_init(source)
        if source.fan_in_fan_out != sources[0].fan_in_fan_out:
            raise FileError(f"{source}: fan_in_fan_out is not the same as in {sources[0]}")
        for name, module in source.items():
            module.check_everywhere(source)
            before = first.setdefault(name, module)
            if before.kind != module.kind:
                raise FileError(f"{source}: {name!r} has shape {module.shape}, not {before.shape}")
    if not any_base:
        check_bases(sources)


def _replaced(
    sources: list[Adapter], weights: Sequence[float], on_conflict: str
) -> tuple[dict[str, Stored], dict[str, TokenRows]]:
    """Collect the parameters and rows that adapters replace; resolve repeats by ``on_conflict``."""
    kept: dict[_Key, Stored] = {}
    every: list[dict[_Key, Stored]] = []
    for source in sources:
        every.append({(name, None): x for name, x in source.full.items()})
        every[-1] |= {(name, x.tokens): x.new for name, x in source.rows.items()}
        shapes = {name: x.shape for (name, _), x in kept.items()}
        for (name, tokens), x in every[-1].items():
            if name not in shapes:
                kept[name, tokens] = x
            elif on_conflict != "first":
                before = kept.get((name, tokens))
                alike = before if before and before.shape == x.shape else None
                if alike and (on_conflict == "mean" or np.array_equal(alike.read(), x.read())):
                    continue
                how = f" in other rows or shape {shapes[name]}, not {x.shape}"
                how, ways = ("", "'first' or 'mean'") if alike else (how, "'first'")
                raise FileError(
                    f"{source}: replaces {name!r}, as an earlier adapter does{how}; pass "
                    f"on_conflict={ways} (--on-conflict)"
                )
    for key, x in kept.items() if on_conflict == "mean" else ():
        given = [(w, of[key].read()) for w, of in zip(weights, every, strict=True) if key in of]
        if len(given) > 1:
            with np.errstate(all="ignore"):
                mean = sum(weight * x for weight, x in given) / sum(weight for weight, _ in given)
            kept[key] = in_memory(spectra.no_overflow(key[0], mean), x.dtype)
    rows = {name: TokenRows(at, x) for (name, at), x in kept.items() if at is not None}
    full = {name: x for (name, at), x in kept.items() if at is None}
    if full and any(source.pipeline for source in sources):
        raise FileError(f"{min(full)!r} changes a bias or a norm, which cannot be combined")
    return full, rows


def _raw(
    sources: list[Adapter],
    parts: set[str],
    modules: Mapping[str, AdapterModule],
    full: Iterable[str],
    rows: Mapping[str, TokenRows],
) -> dict[str, Any]:
    """Return the first adapter's settings, changed to list all that the new adapter saves."""
    saved = {name for source in sources for name in source.raw.get("modules_to_save") or ()}
    saved = {end for end in saved if any(f".{end}." in f".{name}" for name in full)}
    biases = {source.raw.get("bias") or "none" for source in sources} - {"none"}
    tokens = {name.removesuffix(".weight"): list(x.tokens) for name, x in rows.items()}
    raw = {
        **sources[0].raw,
        "use_rslora": False,
        "use_dora": "magnitude" in parts,
        "lora_bias": "bias" in parts,
        "modules_to_save": sorted(saved) or None,
        "bias": biases.pop() if len(biases) == 1 else "all" if biases else "none",
        "trainable_token_indices": tokens or None,
    }
    return targeting(raw, modules)


class Overlapping(NamedTuple):
    """The overlap of two adapters' updates dW1 and dW2, in one module or in all modules.

    Parameters
    ----------
    first, second : str
        The adapters.
    module : str
        The path of the module, or "all".
    overlap : float
        The square root of the share of both updates, in squared norm, that lies in the other's row
        space: 0 for orthogonal row spaces, 1 for equal ones.
    cosine : float
        ``<dW1, dW2> / (||dW1|| ||dW2||)``; -1 for opposite updates.
    share_of_first, share_of_second : float
        The share of each update's squared norm that lies in the other's row space.
    inputs, outputs : float
        The smallest angle between the row spaces, and between the column spaces, in degrees.
    """

    first: str
    second: str
    module: str
    overlap: float
    cosine: float
    share_of_first: float
    share_of_second: float
    inputs: float
    outputs: float


@dataclass(frozen=True, repr=False)
class Overlap(Findings[Overlapping]):
    """The result of `overlap`: how far the updates of each pair of adapters overlap.

    Parameters
    ----------
    title : str
        The title of the table.
    rows : tuple of Overlapping
        For each pair of adapters, a row for each module that both adapt, and one for all.
    notes : tuple of str
        Further remarks.
    headings : tuple of str
        The headings of the columns.
    names : tuple of str
        The names of the adapters.
    """

    names: tuple[str, ...]

    @property
    def matrix(self) -> Array:
        """The overlap of each pair over all modules, an array of shape (adapters, adapters)."""
        overlaps = np.eye(len(self.names))
        pairs = combinations(range(len(self.names)), 2)
        for (i, j), row in zip(pairs, (row for row in self.rows if row.module == ALL), strict=True):
            overlaps[i, j] = overlaps[j, i] = row.overlap
        return overlaps

    def figure(self) -> Figure:
        """Draw the matrix as a heat map."""
        from matplotlib.figure import Figure

        from lora_np.plots import heatmap

        figure, names = Figure(figsize=(6.4, 5.2), layout="constrained"), self.names
        ax = figure.add_subplot(title="Overlap of updates")
        heatmap(
            self.matrix, rows=names, columns=names, xlabel="", ylabel="", limits=(0, 1),
            numbers=".2f", ax=ax,
        )  # fmt: skip
        return figure


def overlap(
    adapters: Sequence[Source], *, any_base: bool = False, jobs: int = 1, progress: bool = False
) -> Overlap:
    """Measure how far the updates of adapters overlap; overlapping updates may interfere.

    Parameters
    ----------
    adapters : sequence of path or Adapter
        Two or more adapters.
    any_base : bool
        Whether to continue if the adapters name different bases.
    jobs : int
        The number of modules to work on at a time.
    progress : bool
        Whether to show a progress bar, if standard error is a terminal.

    Returns
    -------
    Overlap
        The cosine, shares and angles of each pair of adapters, for each module and for all; and the
        overlap of each pair, also as a figure.

    Raises
    ------
    FileError
        If an adapter is damaged or not finite, or their bases differ.
    TypeError
        If ``adapters`` is not a sequence of paths.
    ValueError
        If there are fewer than two adapters.

    See Also
    --------
    combine : Combine several adapters into one.

    Notes
    -----
    No d x k matrix is formed. With DoRA, the updates of the directions are compared.

    Examples
    --------
    >>> e = np.eye(3)
    >>> one, other = (
    ...     Adapter({"q": AdapterModule.of(A=A, B=e[:, :1], alpha=1)}) for A in ([[1.0, 0, 0]],
    ...     [[1.0, 1, 0]])
    ... )
    >>> found = overlap([one, other])
    >>> found.matrix.round(3)
    array([[1.   , 0.707],
           [0.707, 1.   ]])
    >>> round(found.rows[-1].inputs)
    45
    """
    _check_sequence(adapters)
    if len(adapters) < 2:
        refuse(f"overlap compares two adapters or more, got {len(adapters)}")
    loaded = [only_lora(load(path)) for path in adapters]
    check_fit(loaded, any_base=any_base)
    work = {
        name: (name, [source.get(name) for source in loaded])
        for source in loaded
        for name in source
    }
    compared = parallel_map(_compared, work, jobs=jobs, progress=progress, label="compare")
    records, names = [], tuple(map(str, adapters))
    for i, j in combinations(range(len(loaded)), 2):
        both = {name: [compared[name][i, j]] for name in loaded[i] if name in loaded[j]}
        every = {**both, ALL: [pairs[i, j] for pairs in compared.values()]}
        records += [
            _row(names[i], names[j], module, np.reshape(parts, (-1, 7)))
            for module, parts in every.items()
        ]
    note = "overlap: the part in the other's row space; angles: the smallest, in degrees"
    headings = tuple(name.replace("_", " ") for name in Overlapping._fields)
    return Overlap(f"Overlap of {', '.join(names)}", tuple(records), (note,), headings, names)


def _row(first: str, second: str, module: str, parts: Array) -> Overlapping:
    """Summarise the measurements of ``_pair``, an array (modules, 7), in a row of the table."""
    inner, on_second, on_first, one, other = parts[:, :5].sum(axis=0)
    share = np.sqrt((on_second + on_first) / ((one + other) or 1.0))
    cosine = inner / (np.sqrt(one * other) or 1.0)
    measured = (share, cosine, on_second / (one or 1.0), on_first / (other or 1.0))
    return Overlapping(
        first,
        second,
        module,
        *map(float, (*measured, *np.degrees(parts[:, 5:].min(axis=0, initial=np.pi / 2)))),
    )


def _compared(work: tuple[str, list[AdapterModule | None]]) -> dict[tuple[int, int], Array]:
    """Map each pair of adapters, by index, to ``_pair`` of their updates of one module."""
    name, modules = work
    updates = [[] if module is None else _maps(name, module) for module in modules]
    return {(i, j): _pair(updates[i], updates[j]) for i, j in combinations(range(len(updates)), 2)}


def _maps(name: str, module: AdapterModule) -> list[SVD]:
    """Compute the SVD of a module's update, or of each matrix in a stack."""
    B, A = (factor.reshape(-1, *factor.shape[-2:]) for factor in module.weighted())
    return [
        SVD(*parts).significant() for parts in zip(*spectra.directions(name, B, A), strict=True)
    ]


def _pair(one: list[SVD], other: list[SVD]) -> Array:
    """Measure two updates: inner product, shared and total squared norms, and smallest angles."""
    norms = (sum(np.square(svd.s).sum() for svd in maps) for maps in (one, other))
    measured = np.array([0.0, 0.0, 0.0, *norms, np.pi / 2, np.pi / 2])
    for F, G in zip(one, other, strict=bool(one and other)):
        if not (F.s[0] and G.s[0]):
            continue  # a zero update has no directions
        shared = F.Vh @ G.Vh.T
        measured[0] += ((F.U * F.s).T @ (G.U * G.s) * shared).sum()
        measured[1] += np.square(F.s[:, None] * shared).sum()
        measured[2] += np.square(shared * G.s).sum()
        angles = principal_angles(F.Vh.T, G.Vh.T)[0], principal_angles(F.U, G.U)[0]
        measured[5:] = np.minimum(measured[5:], angles)
    return measured
