"""Several adapters in one: the weighted sum of their updates, or another of `lora_np.lora.WAYS`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lora_np.adapters import resizing
from lora_np.adapters.adapter import Adapter, AdapterModule, Source, check_start, held
from lora_np.adapters.bases import check_bases
from lora_np.adapters.checking import strength_notes
from lora_np.adapters.formats import load, new_adapter, write
from lora_np.adapters.merging import Merging, on_base
from lora_np.adapters.peft_format import only_lora, targeting
from lora_np.adapters.results import Written
from lora_np.adapters.scaling import made_portable
from lora_np.checks import Array, StrPath, choice, generator, number, shown
from lora_np.hub import HubError, directory
from lora_np.lora import WAYS, Term, Way
from lora_np.models import open_model
from lora_np.work import each_of

SAVED = ("refuse", "first", "mean", "sum")


class CombinedModule(NamedTuple):
    """A module of the result, and its relative difference from the weighted sum of the updates.

    Parameters
    ----------
    name : str
        Its path.
    rank : int
        Of the result.
    difference : float
        ``||result - sum|| / ||sum||``.
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
    rng: np.random.Generator | int = 0,
    grams: Sequence[resizing.Grams] | None = None,
    base: StrPath | None = None,
    saved: str = "refuse",
    portable: bool = False,
    any_base: bool = False,
    jobs: int = 1,
    force: bool = False,
    progress: bool = False,
) -> Written[CombinedModule]:
    """Write one adapter for several: the weighted sum of their updates, or what another method makes of them.

    Parameters
    ----------
    adapters : sequence of path or Adapter
        In any format that `load` reads, or its results. One alone is left as it is, whatever the method.
    out : path
        The directory to make, or a file that ends in ``.gguf``.
    weights : sequence of float, optional
        One for each adapter; may be negative; by default 1.
    method : str
        One of `lora_np.lora.WAYS`. "sum" is exact, and the ranks add up. "svd" truncates that: the best of
        its rank. "linear" adds the As and the Bs separately, which is **not** the sum of the updates: it
        includes products of one adapter's B with another's A. The table says how far off each one is.
    density : float, optional
        For methods that drop entries: the share that stays.
    rank : int, optional
        Cut the result to this rank by an SVD. By default the largest rank among the adapters for methods
        that work on the whole update ("svd", "ties_svd", ...), as in PEFT; others are not cut.
    rng : Generator or int
        For methods that drop entries at random.
    grams : sequence of mapping, optional
        For "regmean": for each adapter, ``X.T @ X`` of the inputs X of each module on that adapter's data,
        by the module's path. `lora_np.language.grams` computes them.
    base : path, optional
        The base model, without which DoRA's magnitudes have no weighted sum. The sum of DoRAs is a DoRA.
    saved : {"refuse", "first", "mean", "sum"}
        What to do if adapters save the same parameters in full: keep the first's, or their mean by weight,
        or, with a base, add up what each of them changes, as the updates are.
    portable : bool
        Write it as ``convert --to portable`` does, every module padded to the largest rank.
    any_base : bool
        Whether to continue if the adapters name different bases.
    jobs : int
        How many modules to work on at a time.
    force : bool
        Whether to replace an existing adapter at ``out``, though none of ``adapters``. A directory that
        holds anything else is refused; a README.md stays.
    progress : bool
        Show a bar, if standard error is a terminal.

    Returns
    -------
    Written
        For each module its rank and the relative difference from the weighted sum of the updates.

    Raises
    ------
    HubError
        If the adapters do not fit each other or the method, save the same parameters, or use DoRA without a
        base; if the result is not finite; or if the target exists.
    TypeError
        If ``adapters`` are not a sequence of paths, or an option is of another kind.
    ValueError
        If an option is out of range or not for this method.

    See Also
    --------
    overlap : What the adapters have in common, before they are combined.
    merge : An adapter and its base in one checkpoint.

    Notes
    -----
    Unlike in PEFT, which leaves them as initialised, biases of B are added as well; and the result never uses
    rank-stabilised scaling, whose factor PEFT applies again to a sum that already has it.

    With DoRA, the rule acts on the low-rank part of each new weight, ``diag(g) scale B A``, where g brings
    rows to their magnitude; the gains ``g - 1`` on the rows of ``W0`` are added up by weight.

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
    way = WAYS[choice("method", method, WAYS)]
    way.checked(density=density, rank=rank, rng=rng)
    choice("saved", saved, SAVED)
    if isinstance(adapters, (str, bytes, os.PathLike)) or not isinstance(adapters, Sequence):
        raise TypeError(f"adapters must be a sequence of paths, as in ['a', 'b'], got {adapters!r}")
    weights = [1.0] * len(adapters) if weights is None else weights
    if not len(adapters) == len(weights) > 0:
        raise ValueError(f"each adapter needs one weight, got {len(weights)} for {len(adapters)} adapters")
    if (grams is not None) != way.inputs or (grams is not None and len(grams) != len(adapters)):
        raise ValueError(f"'regmean' alone takes grams, and needs them for each adapter, got {shown(grams)}")
    if saved == "sum" and base is None:
        raise ValueError("saved='sum' adds up changes of the base, and so needs base= (--base)")
    loaded = [only_lora(load(path)) for path in adapters]
    pairs = zip(adapters, weights, strict=True)
    weights = [number(f"the weight of {path}", weight, minimum=float("-inf")) for path, weight in pairs]
    check_fit(loaded, any_base=any_base)
    modules = [module for source in loaded for module in source.values()]
    if rank is None and way.cut:
        rank = max(module.rank for module in modules)
    way = way if len(loaded) > 1 else WAYS["sum"]
    parts = {part for module in modules for part in module.parts}
    bases: dict[str, Callable[[], Array]] = {}
    if "magnitude" in parts:
        if base is None:
            raise HubError("DoRA's magnitudes have no weighted sum without the base: give it (base=, --base)")
        for source in loaded:
            bases |= on_base(source, base, any_base=any_base).weights
            if lacking := source.keys() - bases.keys():
                raise HubError(f"{base}: the weight of {min(lacking)!r} is not one tensor, as DoRA needs it")
    given: dict[str, list[tuple[AdapterModule, float, Any]]] = {}
    for source, weight, seen in zip(loaded, weights, grams or [{}] * len(loaded), strict=True):
        for name, module in source.items():
            given.setdefault(name, []).append((module, weight, seen.get(name)))
    draws = generator(rng).spawn(len(given))
    with new_adapter(out, force=force, inputs=loaded) as (stage, aside):
        options = [{"density": density, "rank": rank, "rng": draw} for draw in draws]
        work = {name: (name, given[name], aside / str(i), options[i]) for i, name in enumerate(given)}
        combined_by = partial(_combined, way, "bias" in parts, bases)
        results = each_of(combined_by, work, jobs=jobs, progress=progress, label="combine")
        combined = {name: module for name, (module, _) in results.items()}
        full, tokens = _replaced(loaded, weights, saved, base)
        made = Adapter(combined, full, _raw(loaded, parts, combined), rows=tokens)
        made = made_portable(made) if portable else made
        write(made, stage)
    rows = tuple(CombinedModule(name, module.rank, error) for name, (module, error) in results.items())
    title = " + ".join(f"{weight:g} {path}" for path, weight in zip(adapters, weights, strict=True))
    notes = (*([f"{method!r} {way.warning}"] if way.warning else []), *strength_notes(made, out))
    headings = ("module", "rank", "relative difference")
    return Written(f"{method}: {title}", rows, notes, headings, Path(out))


def _combined(
    way: Way, with_bias: bool, bases: Mapping[str, Callable[[], Array]], work: tuple[Any, ...]
) -> tuple[AdapterModule, float]:
    """The combined module, stored on disk, and how far it is from the weighted sum of the updates."""
    name, given, path, options = work
    first: AdapterModule = given[0][0]
    arrays, gain, off = {}, None, 0.0
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what is not finite is refused
        factors = ((*module.factors(), weight, module.scale, gram) for module, weight, gram in given)
        terms = [Term(*each) for each in factors]
        if bases:
            W0 = bases[name]()
            gains = [_gain(W0, module) for module, *_ in given]
            gain = 1 + sum(term.weight * (g - 1) for term, g in zip(terms, gains, strict=True))
            terms = [term._replace(B=g * term.B) for term, g in zip(terms, gains, strict=True)]
        wanted = resizing.no_overflow(name, resizing.side_by_side((term.B, term.weighted) for term in terms))
        s = resizing.directions(name, *wanted).s
        if options["rank"]:
            options["rank"] = max(1, options["rank"] // first.groups)
        B, A = resizing.finite(name, _by_map, way, terms, options)
        if not way.exact or B.shape != wanted[0].shape:
            apart = resizing.side_by_side([(B, A), (-wanted[0], wanted[1])])
            off = resizing.norm(resizing.directions(name, *apart).s) / (resizing.norm(s) or 1.0)
        if gain is not None:
            B = B / gain
            arrays["magnitude"] = (gain * np.linalg.norm(W0 + B @ A, axis=-1, keepdims=True)).ravel()
        if with_bias:  # a module without one adds nothing
            scaled = ((module.bias, weight * module.scale) for module, weight, _ in given)
            biases = [scale * bias for bias, scale in scaled if bias is not None]
            arrays["bias"] = sum(biases, np.zeros(first.shape[0]))
        arrays |= {"A": A, "B": B}
    parts = {}
    for part, array in arrays.items():
        dtype = first.parts.get(part, first.parts["B"]).dtype
        kept = resizing.no_overflow(name, array)
        parts[part] = resizing.put_aside(kept, path.with_suffix(f".{part}"), dtype)
    module = replace(first, parts=parts, rslora=False)
    return replace(module, alpha=float(module.rank)), off


def _by_map(way: Way, terms: list[Term], options: dict[str, Any]) -> tuple[Array, Array]:
    """What a way makes of the terms, or of each of their stacked maps."""
    if terms[0].B.ndim == 2:
        return way(terms, **options)
    maps = range(len(terms[0].B))
    made = [way([term._replace(B=term.B[i], A=term.A[i]) for term in terms], **options) for i in maps]
    rank = max(len(A) for _, A in made)  # zeros fill up the others
    B = np.stack([np.pad(B, ((0, 0), (0, rank - B.shape[1]))) for B, _ in made])
    return B, np.stack([np.pad(A, ((0, rank - len(A)), (0, 0))) for _, A in made])


def _gain(W0: Array, module: AdapterModule) -> Array:
    """What DoRA multiplies each row of ``W0 + scale B A`` by; 1 without magnitudes."""
    if module.magnitude is None:
        return np.ones((*W0.shape[:-1], 1), W0.dtype)
    B, A = module.weighted()
    lengths = np.linalg.norm(W0 + B @ A, axis=-1, keepdims=True)
    gain: Array = module.magnitude.reshape(*W0.shape[:-1], 1) / lengths
    return gain


def check_fit(sources: list[Adapter], *, any_base: bool) -> None:
    """Refuse adapters whose updates cannot be added: each is compared with those before it."""
    first: dict[str, AdapterModule] = {}
    for source in sources:
        check_start(source)
        if source.fan_in_fan_out != sources[0].fan_in_fan_out:
            raise HubError(f"{source}: fan_in_fan_out differs from that of {sources[0]}")
        for name, module in source.items():
            before = first.setdefault(name, module)
            if before.kind != module.kind:
                raise HubError(f"{source}: {name!r} is of shape {module.shape}, not {before.shape}")
    if not any_base:
        check_bases(sources)


def _replaced(
    sources: list[Adapter], weights: Sequence[float], saved: str, base: StrPath | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters, and rows of embeddings, that the adapters replace; where several do, as ``saved`` says."""
    full: dict[str, Any] = {}
    rows: dict[str, Any] = {}
    for kept, kind in ((full, "full"), (rows, "rows")):
        for source in sources:
            for name, new in getattr(source, kind).items():
                if name in (full | rows) and (saved == "refuse" or (kind == "rows" and saved != "first")):
                    raise HubError(
                        f"{source}: replaces {name!r}, as an adapter before it does; saved= (--saved) says "
                        "which: 'first', or of whole parameters 'mean', or with a base 'sum'"
                    )
                kept.setdefault(name, new)
    merging = Merging(open_model(directory(base or "")), sources[0]) if saved == "sum" else None
    for name in full if saved in ("mean", "sum") else ():
        given = [(w, x.full[name].read()) for x, w in zip(sources, weights, strict=True) if name in x.full]
        start, whole = np.zeros(()), sum(weight for weight, _ in given)
        if merging is not None:
            target = merging.named(name)
            start, whole = merging.unchanged(merging.source.tied.get(target, target)).start.read(), 1.0
        elif len(given) == 1:
            continue
        with np.errstate(all="ignore"):
            mixed = start + sum(weight * (x - start) for weight, x in given) / whole
        full[name] = held(resizing.no_overflow(name, mixed), full[name].dtype)
    return full, rows


def _raw(sources: list[Adapter], parts: set[str], modules: Mapping[str, AdapterModule]) -> dict[str, Any]:
    """The settings of the first adapter, with what the others save in full."""
    saved = sorted({name for source in sources for name in source.raw.get("modules_to_save") or ()})
    biases = {source.raw.get("bias") or "none" for source in sources} - {"none"}
    rows = [item for source in sources for item in source.rows.items()]
    tokens = {name.removesuffix(".weight"): list(each.tokens) for name, each in rows}
    raw = {
        **sources[0].raw,
        "use_rslora": False,
        "use_dora": "magnitude" in parts,
        "lora_bias": "bias" in parts,
        "modules_to_save": saved or None,
        "bias": biases.pop() if len(biases) == 1 else "all" if biases else "none",
        "trainable_token_indices": tokens or None,
    }
    return targeting(resizing.largest_rank(raw, modules), modules)
