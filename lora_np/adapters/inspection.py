"""Inspect an adapter, alone or on its base, and compare the updates of two adapters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lora_np.adapters.adapter import Adapter, AdapterModule, Source, Stored, check_init
from lora_np.adapters.base_weights import Reader, add_update, on_base, relative_to_base
from lora_np.adapters.formats import Findings, load, weights_file
from lora_np.adapters.peft_format import file_size
from lora_np.adapters.spectra import Spectrum, directions, finite, norm, side_by_side
from lora_np.adapters.values import Fault, fault_of, missing
from lora_np.checks import Array, StrPath, brief, number, printable
from lora_np.files import FileError
from lora_np.hub import TensorInfo, directory
from lora_np.linalg import (
    ENOUGH,
    amplification_factor,
    effective_rank,
    intruder_dimensions,
    stable_rank,
)
from lora_np.lora import tuner_of
from lora_np.models import OpenModel, kinds_and_layers
from lora_np.table import Table, json_text, page
from lora_np.work import parallel_map

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TOP = 10  # the number of a merged weight's leading directions to search for intruders
_LEGEND = {
    "module": "its path in the model; in the totals, kind: the last name of that path",
    "status": (
        "ok; DEAD: B A is zero, so the module has no effect; NOT FINITE: it holds NaN or infinity"
    ),
    "rank": "r, the rank in the file",
    "scale": "alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA; dW = scale * B A",
    "norm": "||dW||, the Frobenius norm; in totals, the norm of all modules together",
    "share": "the part of the adapter's squared norm",
    "effective rank": (
        "exp(entropy) of the singular values: how many directions they are spread over"
    ),
    "stable rank": (
        "||dW||^2 / s1^2: how many directions as strong as the strongest would weigh the same"
    ),
    "rank for 99 %": (
        "the smallest rank that keeps 99 % of the squared norm, as in errors and resize"
    ),
    "excess rank": "the rank beyond that",
    "relative": "||dW|| / ||W0||",
    "amplification": (
        "||dW|| / ||U^T W0 V^T||, for the directions U and V of dW (paper, section 7.3)"
    ),
    "intruders": (
        f"new directions among the {_TOP} strongest of the merged weight (arXiv 2410.21228)"
    ),
}
_STATUS = {"not finite": "NOT FINITE", "zero": "DEAD"}
_FORMATS = {"share": "{:.1%}".format}


class InspectedKind(NamedTuple):
    """Totals over the modules of one kind.

    Parameters
    ----------
    kind : str
        The name of the modules within a layer, ``"saved in full"``, ``"rows of embeddings"``, or
        ``"all"``.
    modules : int
        The number of modules, or of tensors that are saved in full or as rows.
    parameters, bytes : int
        The number of their parameters, and their size in the file.
    norm, share : float or None
        The norm of all their updates together, and its share of the adapter's squared norm.
    """

    kind: str
    modules: int
    parameters: int
    bytes: int
    norm: float | None = None
    share: float | None = None


class InspectedModule(NamedTuple):
    """The measurements of one module; fields after ``scale`` are None if the update is not finite.

    Parameters
    ----------
    name : str
        The path of the module.
    status : {"ok", "DEAD", "NOT FINITE"}
        DEAD means that the module has no effect: B A is zero.
    rank : int
        The rank r.
    scale : float
        ``alpha / r``, or ``alpha / sqrt(r)``.
    norm : float or None
        The norm of the update, ``||dW||_F``.
    share : float or None
        The module's share of the adapter's squared norm.
    effective_rank, stable_rank : float or None
        See `lora_np.linalg`.
    rank_for_99 : int or None
        The smallest rank that keeps 99 % of the module's squared norm, by
        `lora_np.linalg.rank_within`.
    excess_rank : int or None
        The rank in excess of ``rank_for_99``.
    relative : float or None
        With a base: ``||dW|| / ||W0||``.
    amplification : float or None
        With a base: the amplification factor of section 7.3 of the paper.
    intruders : int or None
        With a base: the number of new directions among the ten strongest of the merged weight.
    """

    name: str
    status: str
    rank: int
    scale: float
    norm: float | None = None
    share: float | None = None
    effective_rank: float | None = None
    stable_rank: float | None = None
    rank_for_99: int | None = None
    excess_rank: int | None = None
    relative: float | None = None
    amplification: float | None = None
    intruders: int | None = None


@dataclass(frozen=True, repr=False)
class Inspection(Findings[InspectedModule]):
    """The result of `inspect`: measurements of each module, totals, settings and spectra.

    Parameters
    ----------
    title : str
        The title of the table and the figure.
    rows : tuple of InspectedModule
        The measurements of all modules.
    notes : tuple of str
        Remarks on anything unusual.
    headings : tuple of str
        The headings of the columns; some exist only if a base is given.
    contents : mapping of str to plain values
        The adapter's base, type, task, targets and other settings; its ranks, alphas, scales and
        dtypes with their counts; and its modules, parameters and bytes.
    kinds : tuple of InspectedKind
        The totals of each kind of module.
    spectra : mapping of str to ndarray
        The singular values of each update, scale included; an empty array if it is not finite.
    """

    contents: Mapping[str, Any]
    kinds: tuple[InspectedKind, ...]
    spectra: Mapping[str, Array]

    @property
    def table(self) -> Table:
        """The measurements as a table, with one line for each module and the legend as notes."""
        lines = [row[: len(self.headings)] for row in self.rows]
        notes = [*self.notes, *(f"{name}: {meaning}" for name, meaning in self.legend.items())]
        return Table(self.headings, lines, title=self.title, notes=notes, formats=_FORMATS)

    @property
    def contents_table(self) -> Table:
        """The adapter's settings and contents as a table."""
        words = [(what, _in_words(what, content)) for what, content in self.contents.items()]
        return Table(("what", "it says"), [pair for pair in words if pair[1]], title=self.title)

    @property
    def kinds_table(self) -> Table:
        """The totals of each kind of module, of replaced parameters, and of the adapter."""
        return Table(InspectedKind._fields, self.kinds, title="Totals by kind", formats=_FORMATS)

    @property
    def legend(self) -> dict[str, str]:
        """The meaning of each column of the table."""
        return {name: _LEGEND[name] for name in self.headings}

    def to_json(self) -> str:
        """Return the title, contents, kinds, rows, legend and notes as JSON.

        ``contents`` has its own keys. ``kinds`` and ``rows`` (modules) are lists of objects; the
        keys of ``rows`` are the fields of ``InspectedModule``, and ``legend`` explains them.
        """
        keys = InspectedModule._fields[: len(self.headings)]
        content = {
            "title": self.title,
            "contents": self.contents,
            "kinds": self.kinds_table.records,
            "rows": [dict(zip(keys, row, strict=False)) for row in self.rows],
            "legend": dict(zip(keys, self.legend.values(), strict=True)),
            "notes": self.notes,
        }
        return json_text(content)

    def figure(self) -> Figure:
        """Draw the norms and spectra of all modules with `lora_np.plots.adapter_overview`."""
        from lora_np.plots import adapter_overview

        ranks = {printable(row.name): row.rank_for_99 or 0 for row in self.rows}
        spectra = {printable(name): s for name, s in self.spectra.items()}
        places = kinds_and_layers(ranks)
        return adapter_overview(spectra, ranks, places, energy=ENOUGH, title=printable(self.title))

    def to_html(self) -> str:
        """Return a self-contained HTML page with the figure and the tables."""
        return page(self.title, [self.contents_table, self.figure(), self.kinds_table, self.table])


def inspect(
    adapter: Source,
    *,
    base: StrPath | None = None,
    any_base: bool = False,
    jobs: int = 1,
    progress: bool = False,
) -> Inspection:
    """Measure each module's update: its norm and ranks and, with a base, its size relative to W0.

    Norms and spectra of a LoRA come from thin QR decompositions of B and A, without forming B A.

    Parameters
    ----------
    adapter : path or Adapter
        An adapter in any format that `load` reads, or its result.
    base : path, optional
        The base model's checkpoint, to compare with; this computes two full SVDs of each adapted
        weight.
    any_base : bool
        Whether to continue if the adapter is for another kind of base.
    jobs : int
        The number of modules to work on at a time.
    progress : bool
        Whether to show a progress bar, if standard error is a terminal.

    Returns
    -------
    Inspection
        The measurements, which flag modules that are not finite or have no effect.

    Raises
    ------
    FileError
        If the adapter is damaged, does not fit the base, or is for another kind of base.

    See Also
    --------
    diff : Compare two adapters.

    References
    ----------
    Hu et al., arXiv 2106.09685, section 7.3; Shuttleworth et al., arXiv 2410.21228 (intruder
    dimensions).

    Examples
    --------
    >>> import tempfile, lora_np as lnp
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "adapter"
    >>> module = AdapterModule.of(A=np.eye(2, 5), B=np.diag([3.0, 0.1]), alpha=2)
    >>> lnp.adapters.save(lnp.adapters.Adapter({"q": module}), path)
    >>> (q,) = inspect(path).rows
    >>> q.rank, q.rank_for_99, q.excess_rank, round(q.stable_rank, 3)
    (2, 1, 1, 1.001)
    """
    model = None if base is None else OpenModel.at(directory(base))
    opened = load(adapter, base=model, ordered=base is not None)
    opened, weights, _, unsure = on_base(opened, model, any_base=any_base)
    work = {
        name: (name, f"{adapter}: {name!r}", module, weights.get(name), opened.init)
        for name, module in sorted(opened.items(), key=lambda item: _in_order(item[0]))
    }
    measured = parallel_map(_look, work, jobs=jobs, progress=progress, label="inspect")
    total = sum(row.norm**2 for row, *_ in measured.values() if row.norm is not None) or 1.0
    records = [
        row if row.norm is None else row._replace(share=row.norm**2 / total)
        for row, *_ in measured.values()
    ]
    spectra = {name: s for name, (_, s, _) in measured.items()}
    faults = {name: fault for name, (*_, fault) in measured.items() if fault}
    notes = (*_notes(opened, faults), *(x.why for x in missing(opened, model)), *unsure)
    kinds = tuple(_totals(opened, records))
    compared = any(row.relative is not None for row in records)
    headings = tuple(_LEGEND) if compared else tuple(_LEGEND)[:-3]
    return Inspection(
        f"Adapter {adapter}", tuple(records), notes, headings, _contents(opened), kinds, spectra
    )


def _in_order(name: str) -> list[tuple[int, str]]:
    """Return a key for sorting module names, which puts layer 10 after layer 9."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in name.split(".")]


def _look(
    work: tuple[str, str, AdapterModule, Reader | None, str | None],
) -> tuple[InspectedModule, Array, Fault | None]:
    """Measure one module; return the measurements, the singular values, and the fault, if any."""
    name, place, module, weight, init = work
    row = InspectedModule(name, "NOT FINITE", module.rank, module.scale)
    fault = fault_of(name, module)
    if fault and fault.status == "not finite":
        return row, np.zeros(0), fault
    if "magnitude" in module.parts:
        fault = None  # the magnitude may change the weight even if B A is zero
    B, A = module.factors()
    spectrum = Spectrum.of(directions(place, B, A).s, module.scale)
    s = spectrum.s
    norm = float(np.linalg.norm(s))
    needed = spectrum.needed() * module.groups
    row = row._replace(
        status="DEAD" if fault else "ok",
        norm=norm,
        rank_for_99=needed,
        excess_rank=module.rank - needed,
        effective_rank=effective_rank(np.diag(s)),
        stable_rank=stable_rank(np.diag(s)),
    )
    if weight is None:
        return row, s, fault
    W0 = weight()
    W = W0.copy()
    if init is not None:
        module = relative_to_base(module, W0, init)
        norm = float(np.linalg.norm(module.delta()))
    add_update(place, W, module, dtype=W0.dtype.name)
    row = row._replace(relative=norm / (float(np.linalg.norm(W0)) or float("inf")))
    if W0.ndim == 2:  # a stack has no common singular directions to measure
        update, strongest = module.delta().reshape(W0.shape), min(module.rank, *W0.shape)
        gain = amplification_factor(W0, update, rank=strongest) if norm else None
        new = intruder_dimensions(W0, W, top=min(_TOP, *W0.shape))
        row = row._replace(amplification=gain, intruders=len(new))
    return row, s, fault


def _notes(adapter: Adapter, faults: Mapping[str, Fault]) -> list[str]:
    """Return notes on faults and on anything unusual about the adapter."""
    named: dict[Fault, list[str]] = {}
    for name, fault in faults.items():
        named.setdefault(fault, []).append(name)
    notes = [
        f"{_STATUS[fault.status]}: {', '.join(names)}: {fault.why}"
        for fault, names in named.items()
    ]
    if adapter.has_magnitudes:
        notes.append(
            "DoRA: norms and spectra describe the updates of the directions, before magnitudes"
        )
    if adapter.init:
        notes.append(
            f"{adapter.init}: norms and spectra describe B A, a part of which is from the base"
        )
    if stacks := [name for name, module in adapter.items() if module.maps > 1]:
        notes.append(
            "stacked matrices of experts or groups (norm, spectrum and ranks are of all together):"
            f" {', '.join(stacks)}"
        )
    if adapter.full:
        notes.append(f"replaced in full: {', '.join(adapter.full)}")
    for name, trained in adapter.rows.items():
        notes.append(f"rows replaced: {len(trained.tokens)} of {name}")
    return notes


def _contents(adapter: Adapter) -> dict[str, Any]:
    """Collect the adapter's settings and contents, for `Inspection.contents`."""
    raw, tensors, modules = adapter.raw, adapter.stored, adapter.values()
    parts = {part for module in modules for part in module.parts}
    kind = (
        "DoRA"
        if "magnitude" in parts
        else "MiCA"
        if raw.get("init_lora_weights") == "mica"
        else "LoRA"
    )
    kind += ", rank-stabilised" * any(module.rslora for module in modules)
    kind += ", with a bias of B" * ("bias" in parts)
    kind += ", from its invocation tokens on (aLoRA)" * any(module.alora for module in modules)
    row, init = tuner_of(raw), raw.get("init_lora_weights")
    kind += f", initialised by {init}" if isinstance(init, str) and init != "mica" else ""
    # list all tuners, because a file for an image model can contain updates by several of them
    others = {module.tuned.tuner.name for module in modules if module.tuned}
    kind = ", ".join([*sorted(others), *[kind] * any(not module.tuned for module in modules)])
    size = weights_file(adapter.path).stat().st_size if adapter.path else file_size(adapter)
    return {
        "base": raw.get("base_model_name_or_path") or None,
        "type": row.name if row else kind,
        "rank": _counts(module.rank for module in modules),
        "alpha": _counts(module.alpha for module in modules if not row),
        "scale": _counts(module.scale for module in modules if not row),
        "targets": raw.get("target_modules"),
        "target parameters": raw.get("target_parameters"),
        "left out": raw.get("exclude_modules"),
        "layers": raw.get("layers_to_transform"),
        "saved in full": raw.get("modules_to_save"),
        "trained tokens": raw.get("trainable_token_indices"),
        "modules": len(adapter),
        "parameters": sum(tensor.size for tensor in tensors),
        "dtype": _counts(tensor.dtype for tensor in tensors),
        "bytes": size,
    }


def _in_words(what: str, content: Any) -> str | None:
    """Format an entry as text, with long lists of names summarised; falsy if it is empty."""
    if what == "base" and content is None:
        return "not named"
    if what in ("rank", "alpha", "scale", "dtype"):
        often = "{} ({} times)" if len(content) > 1 else "{}"
        content = ", ".join(often.format(*item) for item in content.items())
    if isinstance(content, list):
        names = list(map(str, content))
        few = (
            names
            if len(names) <= 12
            else dict.fromkeys(kind for kind, _ in kinds_and_layers(names).values())
        )
        content = ", ".join(few) + f" ({len(names)} names)" * (len(few) < len(names))
    return f"{content:,}" if isinstance(content, int) else content and brief(str(content), 400)


def _counts(values: Iterable[object]) -> dict[str, int]:
    """Count each value, most frequent first; the keys are strings, as JSON requires."""
    texts = (f"{value:g}" if isinstance(value, float) else str(value) for value in values)
    return dict(Counter(texts).most_common())


def _totals(adapter: Adapter, records: Sequence[InspectedModule]) -> Iterator[InspectedKind]:
    """Yield the totals of each kind of module, of replaced parameters, and of the adapter."""
    kinds = kinds_and_layers(row.name for row in records)
    for kind in dict.fromkeys(kind for kind, _ in kinds.values()):
        members = [row for row in records if kinds[row.name][0] == kind]
        yield _total(
            kind, members, [part for row in members for part in adapter[row.name].parts.values()]
        )
    trained = [rows.new for rows in adapter.rows.values()]
    for kind, replaced in (
        ("saved in full", [*adapter.full.values()]),
        ("rows of embeddings", trained),
    ):
        if replaced:
            yield _total(kind, [], replaced)
    yield _total("all", records, adapter.stored)


def _total(
    kind: str, records: Sequence[InspectedModule], tensors: Sequence[Stored]
) -> InspectedKind:
    numbers = sum(tensor.size for tensor in tensors)
    nbytes = sum(TensorInfo(tensor.dtype, tensor.shape).nbytes for tensor in tensors)
    if not records:
        return InspectedKind(kind, len(tensors), numbers, nbytes)
    # modules that are not finite have no norm and no share, so count them as 0
    norm = sum((row.norm or 0.0) ** 2 for row in records) ** 0.5
    share = sum(row.share or 0.0 for row in records)
    return InspectedKind(kind, len(records), numbers, nbytes, norm, share)


class ComparedPart(NamedTuple):
    """The comparison of a module or parameter in two adapters.

    Parameters
    ----------
    name : str
        The path of the module or parameter, or the name of a setting.
    what : str
        The part that is compared: ``"update"``, ``"shape"``, ``"magnitude"``, ``"bias"``, ``"in
        full"``, ``"rows"`` or ``"alora"``.
    difference : float
        ``||dW1 - dW2|| / max(||dW1||, ||dW2||)``; 1 if only one of the adapters has the part, or
        the shapes differ.
    cosine : float or None
        The cosine of the angle between two updates.
    """

    name: str
    what: str
    difference: float
    cosine: float | None = None


@dataclass(frozen=True, repr=False)
class Difference(Findings[ComparedPart]):
    """The result of `diff`: a comparison of each module, and whether the adapters agree.

    Parameters
    ----------
    title : str
        The title of the table.
    rows : tuple of ComparedPart
        The modules, then the parameters that are replaced in full or in some rows.
    notes : tuple of str
        The verdict.
    headings : tuple of str
        The headings of the columns.
    largest : float
        The largest relative difference.
    same : bool
        Whether the largest difference is within the tolerance.
    """

    largest: float
    same: bool


def diff(
    first: Source,
    second: Source,
    *,
    tolerance: float = 1e-5,
    base: StrPath | None = None,
    jobs: int = 1,
    progress: bool = False,
) -> Difference:
    """Compare the updates of two adapters, module by module.

    Factors are not compared, since B A is the same update as (B M) (M^-1 A), at any rank and alpha.
    Norms of a LoRA come from thin QR decompositions of its factors, without forming B A.

    Parameters
    ----------
    first, second : path or Adapter
        Adapters in any format that `load` reads, or its results.
    tolerance : float
        The largest relative difference at which two updates count as the same; the default allows
        for rounding in float32.
    base : path, optional
        The base model of both adapters, which some tuners need: see `lora_np.lora.TUNERS`. PiSSA
        and OLoRA need it too, unless both adapters have the same ranks and scales.
    jobs : int
        The number of modules to work on at a time.
    progress : bool
        Whether to show a progress bar, if standard error is a terminal.

    Returns
    -------
    Difference
        A row for each module and each replaced parameter; ``same`` is the verdict, ``largest`` the
        largest relative difference.

    Raises
    ------
    FileError
        If an adapter is damaged, not finite, or needs the base.

    See Also
    --------
    inspect : Inspect one adapter.

    Examples
    --------
    >>> import tempfile, lora_np as lnp
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> A, B = np.ones((1, 3)), np.ones((2, 1))
    >>> for name, factor in [("a", 1.0), ("b", 2.0)]:
    ...     module = AdapterModule.of(A=factor * A, B=B, alpha=1 / factor)
    ...     lnp.adapters.save(lnp.adapters.Adapter({"q": module}), folder / name)
    >>> diff(folder / "a", folder / "b").same
    True
    """
    tolerance = number("tolerance", tolerance, maximum=1, open_maximum=True)
    model = None if base is None else OpenModel.at(directory(base))
    loaded = [load(source, base=model) for source in (first, second)]
    known = [on_base(source, model) for source in loaded]
    one, two = (x.adapter for x in known)
    # without the base, the initial B A of PiSSA and similar methods cancels in the difference only
    # if both adapters have equal settings
    if model is None and (one.init, one.ranks_and_alphas) != (two.init, two.ranks_and_alphas):
        for source in loaded:
            check_init(source)
    both = f"{first} and {second}"
    work = {
        name: (
            f"{both}: {name!r}",
            [(x.adapter.get(name), x.weights.get(name), x.adapter.init) for x in known],
        )
        for name in (*one, *two)
    }
    compared = parallel_map(_compare, work, jobs=jobs, progress=progress, label="diff")
    parts = [
        ComparedPart(name, *result) for name, results in compared.items() for result in results
    ]
    setting = "alora_invocation_tokens"
    if (one.raw.get(setting) or None) != (two.raw.get(setting) or None):
        parts.append(ComparedPart(setting, "alora", 1.0))
    mine, theirs = map(_replaced, (one, two))
    for key in dict.fromkeys((*mine, *theirs)):
        name, what, _ = key
        parts.append(ComparedPart(name, what, _relative(name, mine.get(key), theirs.get(key))))
    largest = max(part.difference for part in parts)
    same = largest <= tolerance
    note = (
        f"{'the same' if same else 'different'}: the largest relative difference is {largest:.3g},"
        f" the tolerance {tolerance:g}"
    )
    headings = ("module", "what", "relative difference", "cosine")
    return Difference(both, tuple(parts), (note,), headings, largest, same)


def _replaced(adapter: Adapter) -> dict[tuple[str, str, tuple[int, ...]], Stored]:
    """Collect the tensors that replace whole parameters or rows, by parameter and tokens."""
    rows = {
        (name, "rows", (*sorted(tokens),)): new.seen(
            partial(np.take, indices=np.argsort(tokens), axis=0)
        )
        for name, (tokens, new) in adapter.rows.items()
    }
    return {(name, "in full", ()): new for name, new in adapter.full.items()} | rows


def _compare(
    work: tuple[str, list[tuple[AdapterModule | None, Reader | None, str | None]]],
) -> list[tuple[str, float, float | None]]:
    """Compare a module in two adapters; return each part's relative difference and cosine."""
    place, sides = work
    one, two = (
        relative_to_base(module, weight(), init) if module and weight and init else module
        for module, weight, init in sides
    )
    if one is None or two is None:
        return [("update", 1.0, None)]
    if one.kind != two.kind:
        return [("shape", 1.0, None)]
    apart, cosine = finite(place, _updates, place, one, two)
    parts = [("update", apart, cosine)]
    for part in ("magnitude", "bias"):
        if part in one.parts or part in two.parts:
            weights = (one.scale, two.scale) if part == "bias" else (1.0, 1.0)
            parts.append(
                (part, _relative(place, one.parts.get(part), two.parts.get(part), *weights), None)
            )
    return parts


def _updates(place: str, one: AdapterModule, two: AdapterModule) -> tuple[float, float | None]:
    """Compute the relative difference and the cosine of two updates; no cosine if one is zero."""
    (B1, A1), (B2, A2) = one.weighted(), two.weighted()
    norm1, norm2 = (norm(directions(place, B, A).s) for B, A in ((B1, A1), (B2, A2)))
    if not (norm1 and norm2):
        return float(norm1 != norm2), None
    if np.array_equal(B1, B2) and np.array_equal(A1, A2):
        return 0.0, 1.0  # return exact values; the SVD below has rounding errors
    apart = directions(place, *side_by_side([(B1, A1), (-B2, A2)])).s
    products = (B1.swapaxes(-1, -2) @ B2).astype(np.float64) * (A1 @ A2.swapaxes(-1, -2))
    cosine = float(np.sum(products) / (norm1 * norm2))
    return norm(apart) / max(norm1, norm2), cosine


def _relative(
    place: str, one: Stored | None, two: Stored | None, w1: float = 1.0, w2: float = 1.0
) -> float:
    if one is None or two is None or one.shape != two.shape:
        return 1.0
    x, y = w1 * one.read().astype(np.float64), w2 * two.read().astype(np.float64)
    largest = max(float(np.linalg.norm(x)), float(np.linalg.norm(y)))
    if not np.isfinite(largest):
        raise FileError(f"{place} contains values that are not finite")
    return float(np.linalg.norm(x - y)) / (largest or 1.0)
