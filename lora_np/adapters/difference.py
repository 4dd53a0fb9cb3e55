"""Whether two adapters do the same: as maps, not as factors."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lora_np.adapters.adapter import Adapter, AdapterModule, Stored
from lora_np.adapters.as_lora import on_base
from lora_np.adapters.formats import load
from lora_np.adapters.resizing import directions, finite, norm, side_by_side
from lora_np.adapters.results import Findings
from lora_np.checks import number
from lora_np.hub import HubError
from lora_np.work import each_of


class ComparedPart(NamedTuple):
    """A module or a parameter in both adapters.

    Parameters
    ----------
    name : str
        Its path.
    what : str
        ``"update"``, ``"shape"``, ``"magnitude"``, ``"bias"``, ``"in full"`` or ``"rows"``.
    difference : float
        ``||dW1 - dW2|| / max(||dW1||, ||dW2||)``; 1 if only one of the adapters has it.
    cosine : float or None
        Of the angle between two updates.
    """

    name: str
    what: str
    difference: float
    cosine: float | None = None


@dataclass(frozen=True, repr=False)
class Difference(Findings[ComparedPart]):
    """How two adapters differ.

    Parameters
    ----------
    title : str
        Of the table.
    rows : tuple of ComparedPart
        Modules, then parameters that are replaced in full.
    notes : tuple of str
        The verdict.
    headings : tuple of str
        Of the columns.
    largest : float
        The largest relative difference.
    same : bool
        Whether that is within the tolerance.
    """

    largest: float
    same: bool


def diff(
    first: Adapter | str | os.PathLike[str],
    second: Adapter | str | os.PathLike[str],
    *,
    tolerance: float = 1e-5,
    base: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    progress: bool = False,
) -> Difference:
    """Compare what two adapters do to each module, through thin QRs that never form B A.

    B A is the same map as (B M) (M^-1 A), at any rank and alpha, so factors are not compared.

    Parameters
    ----------
    first, second : path or Adapter
        Directories as PEFT writes them, or results of `load`.
    tolerance : float
        The relative difference up to which two updates count as the same; by default some float32 rounding.
    base : path, optional
        The base model of both, where what an adapter does depends on it: see `lora_np.lora.MAPS`.
    jobs : int
        How many modules to work on at a time.
    progress : bool
        Show a bar, if standard error is a terminal.

    Returns
    -------
    Difference
        Part by part; `Difference.same` is the verdict.

    Raises
    ------
    HubError
        If an adapter is damaged, or not finite.

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
    tolerance = number("tolerance", tolerance, minimum=0, maximum=1, open_maximum=True)
    one, two = (on_base(load(each, base=base), base).adapter for each in (first, second))
    work = {
        name: (f"{first} and {second}: {name!r}", one.modules.get(name), two.modules.get(name))
        for name in (*one, *two)
    }
    found = each_of(_compare, work, jobs=jobs, progress=progress, label="diff")
    parts = [ComparedPart(name, *result) for name, results in found.items() for result in results]
    parts += [
        ComparedPart(name, "in full", _relative(name, one.full.get(name), two.full.get(name)))
        for name in dict.fromkeys((*one.full, *two.full))
    ]
    for name in dict.fromkeys((*one.rows, *two.rows)):
        mine, theirs = one.rows.get(name), two.rows.get(name)
        apart = 1.0
        if mine and theirs and mine.tokens == theirs.tokens:
            apart = _relative(name, mine.new, theirs.new)
        parts.append(ComparedPart(name, "rows", apart))
    largest = max(part.difference for part in parts)
    same = largest <= tolerance
    verdict = "the same" if same else "different"
    note = f"{verdict}: the largest relative difference is {largest:.3g}, the tolerance {tolerance:g}"
    headings = ("module", "what", "relative difference", "cosine")
    return Difference(f"{first} and {second}", tuple(parts), (note,), headings, largest, same)


def _compare(
    work: tuple[str, AdapterModule | None, AdapterModule | None],
) -> list[tuple[str, float, float | None]]:
    place, one, two = work
    if one is None or two is None:
        return [("update", 1.0, None)]
    if one.kind != two.kind:
        return [("shape", 1.0, None)]
    apart, cosine = finite(place, _updates, place, one, two)
    rows = [("update", apart, cosine)]
    for part in ("magnitude", "bias"):
        if part in one.parts or part in two.parts:
            weights = (one.scale, two.scale) if part == "bias" else (1.0, 1.0)
            rows.append((part, _relative(place, one.parts.get(part), two.parts.get(part), *weights), None))
    return rows


def _updates(place: str, one: AdapterModule, two: AdapterModule) -> tuple[float, float | None]:
    """The relative difference of two updates, and the cosine between them."""
    (B1, A1), (B2, A2) = one.weighted(), two.weighted()
    norm1, norm2 = (norm(directions(place, B, A).s) for B, A in ((B1, A1), (B2, A2)))
    if not (norm1 and norm2):
        return float(norm1 != norm2), None
    if np.array_equal(B1, B2) and np.array_equal(A1, A2):
        return 0.0, 1.0  # without the rounding errors of the SVD
    apart = directions(place, *side_by_side([(B1, A1), (-B2, A2)])).s
    products = (B1.swapaxes(-1, -2) @ B2).astype(np.float64) * (A1 @ A2.swapaxes(-1, -2))
    cosine = float(np.sum(products) / (norm1 * norm2))
    return norm(apart) / max(norm1, norm2), cosine


def _relative(
    place: str, one: Stored | None, two: Stored | None, weight1: float = 1.0, weight2: float = 1.0
) -> float:
    if one is None or two is None or one.shape != two.shape:
        return 1.0
    x, y = weight1 * one.read().astype(np.float64), weight2 * two.read().astype(np.float64)
    largest = max(float(np.linalg.norm(x)), float(np.linalg.norm(y)))
    if not np.isfinite(largest):
        raise HubError(f"{place} holds what is not finite")
    return float(np.linalg.norm(x - y)) / (largest or 1.0)
