"""Whether two adapters do the same thing: as maps, not as factors."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lora_np.adapters.peft_format import Module, Stored, load
from lora_np.adapters.steps import finite, norm
from lora_np.checks import number
from lora_np.hub import HubError
from lora_np.linalg import svd_of_product
from lora_np.table import Table
from lora_np.work import each


@dataclass(frozen=True)
class Difference:
    """How two adapters differ.

    Parameters
    ----------
    same : bool
        Whether no relative difference is above the tolerance.
    table : Table
        For each module or parameter the relative difference ``||dW1 - dW2|| / max(||dW1||, ||dW2||)``, 1 if
        only one of the adapters has it, and for updates the cosine of the angle between them.
    """

    same: bool
    table: Table

    def __str__(self) -> str:
        return str(self.table)


def diff(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    tolerance: float = 1e-5,
    jobs: int = 1,
    progress: bool = False,
) -> Difference:
    """Compare what two adapters do to each module, through thin QRs that never form B A.

    B A is the same map as (B M) (M^-1 A), at any rank and alpha, so factors are not compared.

    Parameters
    ----------
    first, second : path
    tolerance : float
        The relative difference up to which two updates are the same; by default some float32 rounding.
    jobs : int
        How many modules to work on at a time.
    progress : bool
        Show a bar, if standard error is a terminal.

    Returns
    -------
    Difference

    Raises
    ------
    HubError
        If an adapter is damaged, or not finite.

    Examples
    --------
    >>> import tempfile, lora_np as lnp
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> A, B = np.ones((1, 3)), np.ones((2, 1))
    >>> for name, factor in [("a", 1.0), ("b", 2.0)]:
    ...     module = Module.of(A=factor * A, B=B, alpha=1 / factor)
    ...     lnp.adapters.save(lnp.adapters.Adapter({"q": module}), folder / name)
    >>> diff(folder / "a", folder / "b").same
    True
    """
    tolerance = number("tolerance", tolerance, minimum=0)
    one, two = load(first), load(second)
    names = list(dict.fromkeys((*one, *two)))
    work = [
        (f"{first} and {second}: {name!r}", one.modules.get(name), two.modules.get(name)) for name in names
    ]
    found = each(_compare, work, jobs=jobs, progress=progress, label="diff")
    rows = [_Row(name, *result) for name, results in zip(names, found, strict=True) for result in results]
    for name in dict.fromkeys((*one.full, *two.full)):
        apart = _relative(name, one.full.get(name), two.full.get(name))
        rows.append(_Row(name, "in full", apart, None))
    largest = max(row.apart for row in rows)
    same = largest <= tolerance
    verdict = "the same" if same else "different"
    notes = [f"{verdict}: the largest relative difference is {largest:.3g}, the tolerance {tolerance:g}"]
    columns = ["module", "what", "relative difference", "cosine"]
    table = Table(columns, rows, title=f"{first} and {second}", notes=notes)
    return Difference(same, table)


class _Row(NamedTuple):
    name: str
    what: str
    apart: float
    cosine: float | None


def _compare(work: tuple[str, Module | None, Module | None]) -> list[tuple[str, float, float | None]]:
    place, one, two = work
    if one is None or two is None:
        return [("update", 1.0, None)]
    if (one.shape, one.embedding) != (two.shape, two.embedding):
        return [("shape", 1.0, None)]
    apart, cosine = finite(place, lambda: _updates(one, two))
    rows = [("update", apart, cosine)]
    for part in ("magnitude", "bias"):
        if part in one.parts or part in two.parts:
            weights = (one.scaling, two.scaling) if part == "bias" else (1.0, 1.0)
            rows.append((part, _relative(place, one.parts.get(part), two.parts.get(part), *weights), None))
    return rows


def _updates(one: Module, two: Module) -> tuple[float, float | None]:
    """The relative difference of two updates, and the cosine between them."""
    (B1, A1), (B2, A2) = one.factors(), two.factors()
    A1, A2 = A1 * A1.dtype.type(one.scaling), A2 * A2.dtype.type(two.scaling)
    norm1, norm2 = (norm(svd_of_product(B, A).s) for B, A in ((B1, A1), (B2, A2)))
    if not (norm1 and norm2):
        return float(norm1 != norm2), None
    if np.array_equal(B1, B2) and np.array_equal(A1, A2):
        return 0.0, 1.0  # without the rounding errors of the SVD
    apart = svd_of_product(np.hstack([B1, -B2]), np.vstack([A1, A2])).s
    cosine = float(np.sum((B1.T @ B2).astype(np.float64) * (A1 @ A2.T)) / (norm1 * norm2))
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
