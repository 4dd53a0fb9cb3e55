"""What adapters have in common, by which adding them up can spoil them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lora_np.adapters.adapter import Adapter, AdapterModule, Source
from lora_np.adapters.combining import check_fit
from lora_np.adapters.formats import load
from lora_np.adapters.peft_format import only_lora
from lora_np.adapters.resizing import directions
from lora_np.adapters.results import Findings
from lora_np.checks import Array
from lora_np.linalg import SVD, principal_angles
from lora_np.work import each_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALL = "all"


class Overlapping(NamedTuple):
    """Two adapters' updates dW1 and dW2 of one module, or of all.

    Parameters
    ----------
    first, second : str
        The adapters.
    module : str
        Its path, or "all".
    overlap : float
        The root of the share of both updates together, in squared norm, that acts on inputs on which the
        other one acts too: 0 for inputs at right angles, 1 for the same.
    cosine : float
        ``<dW1, dW2> / (||dW1|| ||dW2||)``: -1 for opposites.
    share_of_first, share_of_second : float
        The share of each update that acts on inputs of the other.
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
    """The result of `overlap`.

    Parameters
    ----------
    title : str
        Of the table.
    rows : tuple of Overlapping
        For each pair one for each module that both adapt, and one for all.
    notes : tuple of str
        Further remarks.
    headings : tuple of str
        Of the columns.
    names : tuple of str
        The adapters.
    """

    names: tuple[str, ...]

    @property
    def matrix(self) -> Array:
        """The overlap of each pair, over all modules, of shape (adapters, adapters)."""
        found = np.eye(len(self.names))
        pairs = combinations(range(len(self.names)), 2)
        for (i, j), row in zip(pairs, (row for row in self.rows if row.module == ALL), strict=True):
            found[i, j] = found[j, i] = row.overlap
        return found

    def figure(self) -> Figure:
        """The matrix, as a map."""
        from matplotlib.figure import Figure

        from lora_np.plots import heatmap

        figure, names = Figure(figsize=(6.4, 5.2), layout="constrained"), self.names
        ax = figure.add_subplot(title="Overlap of updates")
        how: dict[str, Any] = {"rows": names, "columns": names, "limits": (0, 1), "numbers": ".2f"}
        heatmap(self.matrix, xlabel="", ylabel="", ax=ax, **how)
        return figure


def overlap(
    adapters: Sequence[Source], *, any_base: bool = False, jobs: int = 1, progress: bool = False
) -> Overlap:
    """How far the updates of adapters meet: what `combine` may lose, told before it is done.

    Parameters
    ----------
    adapters : sequence of path or Adapter
        Two or more.
    any_base : bool
        Whether to continue if they name different bases.
    jobs : int
        How many modules to work on at a time.
    progress : bool
        Show a bar, if standard error is a terminal.

    Returns
    -------
    Overlap
        For each pair and each module cosine, shares and angles; one number for each pair; a figure.

    Raises
    ------
    HubError
        If an adapter is damaged or not finite, or they do not have the same base.
    ValueError
        If there are fewer than two.

    See Also
    --------
    combine : One adapter for all of them.

    Notes
    -----
    No d x k matrix is formed. With DoRA these are the updates of the directions.

    Examples
    --------
    >>> e = np.eye(3)
    >>> one, other = (
    ...     Adapter({"q": AdapterModule.of(A=A, B=e[:, :1], alpha=1)}) for A in ([[1.0, 0, 0]], [[1.0, 1, 0]])
    ... )
    >>> found = overlap([one, other])
    >>> found.matrix.round(3)
    array([[1.   , 0.707],
           [0.707, 1.   ]])
    >>> round(found.rows[-1].inputs)
    45
    """
    if len(adapters) < 2:
        raise ValueError(f"overlap compares two adapters or more, got {len(adapters)}")
    loaded = [only_lora(load(path)) for path in adapters]
    check_fit(loaded, any_base=any_base)
    work = {name: (name, [source.get(name) for source in loaded]) for source in loaded for name in source}
    found = each_of(_compared, work, jobs=jobs, progress=progress, label="compare")
    rows, paths = [], tuple(map(str, adapters))
    short = tuple(str(each) if isinstance(each, Adapter) else Path(each).name for each in adapters)
    names = short if len({*short}) == len(short) else paths
    for i, j in combinations(range(len(loaded)), 2):
        both = {name: [found[name][i, j]] for name in loaded[i] if name in loaded[j]}
        every = {**both, ALL: [pairs[i, j] for pairs in found.values()]}
        rows += [_row(names[i], names[j], module, np.stack(parts)) for module, parts in every.items()]
    note = "overlap: what acts on inputs on which the other one acts too; angles: the smallest, in degrees"
    headings = tuple(name.replace("_", " ") for name in Overlapping._fields)
    return Overlap(f"Overlap of {', '.join(paths)}", tuple(rows), (note,), headings, names)


def _row(first: str, second: str, module: str, parts: Array) -> Overlapping:
    """From the rows of `_pair`."""
    inner, on_second, on_first, one, other = parts[:, :5].sum(axis=0)
    share = np.sqrt((on_second + on_first) / ((one + other) or 1.0))
    cosine = inner / (np.sqrt(one * other) or 1.0)
    measured = (share, cosine, on_second / (one or 1.0), on_first / (other or 1.0))
    return Overlapping(first, second, module, *map(float, (*measured, *np.degrees(parts[:, 5:].min(axis=0)))))


def _compared(work: tuple[str, list[AdapterModule | None]]) -> dict[tuple[int, int], Array]:
    """What each two adapters do to one module, which some of them may not have."""
    name, modules = work
    found = [[] if module is None else _maps(name, module) for module in modules]
    return {(i, j): _pair(found[i], found[j]) for i, j in combinations(range(len(found)), 2)}


def _maps(name: str, module: AdapterModule) -> list[SVD]:
    """The SVD of its update, or of each one that is stacked."""
    B, A = (factor.reshape(-1, *factor.shape[-2:]) for factor in module.weighted())
    return [SVD(*parts).significant() for parts in zip(*directions(name, B, A), strict=True)]


def _pair(one: list[SVD], other: list[SVD]) -> Array:
    """Inner product, what each has on the other's inputs, norms (all squared); angles of inputs, outputs."""
    norms = (sum(np.square(each.s).sum() for each in maps) for maps in (one, other))
    found = np.array([0.0, 0.0, 0.0, *norms, np.pi / 2, np.pi / 2])
    for F, G in zip(one, other, strict=bool(one and other)):
        if not (F.s[0] and G.s[0]):
            continue  # an update that does nothing has no directions
        shared = F.Vh @ G.Vh.T
        found[0] += ((F.U * F.s).T @ (G.U * G.s) * shared).sum()
        found[1] += np.square(F.s[:, None] * shared).sum()
        found[2] += np.square(shared * G.s).sum()
        angles = principal_angles(F.Vh.T, G.Vh.T)[0], principal_angles(F.U, G.U)[0]
        found[5:] = np.minimum(found[5:], angles)
    return found
