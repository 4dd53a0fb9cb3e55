"""An adapter at other ranks: each module's update cut to its leading directions, never forming B A."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from lora_np.adapters import config as settings
from lora_np.adapters.peft_format import (
    WEIGHTS,
    Adapter,
    AdapterModule,
    load,
    replacing_adapter,
    write,
)
from lora_np.adapters.ranks import Goal, allocate, allocate_bytes
from lora_np.adapters.steps import finite, put_factors, taken
from lora_np.checks import Array
from lora_np.hub import HubError
from lora_np.linalg import svd_of_product
from lora_np.table import Shown, Table
from lora_np.work import each


class ResizedModule(NamedTuple):
    """A module at its new rank, and the relative error of that in the Frobenius norm.

    Parameters
    ----------
    name : str
        Its path.
    rank_before, rank : int
        A rank of 0 says that the module was left out.
    error : float
        Relative to the norm of the update.
    """

    name: str
    rank_before: int
    rank: int
    error: float


@dataclass(frozen=True, repr=False)
class ResizeResult(Shown):
    """What `resize` wrote.

    Parameters
    ----------
    path : Path
        The new adapter.
    source : Path
        The old one.
    modules : tuple of ResizedModule
        All of the old one's.
    bytes : int
        Size of the weights' file.
    error : float
        The relative error of all updates together.
    dora : bool
        Whether errors are those of the directions' updates.
    """

    path: Path
    source: Path
    modules: tuple[ResizedModule, ...]
    bytes: int
    error: float
    dora: bool

    @property
    def table(self) -> Table:
        """One row for each module."""
        notes = [f"{WEIGHTS}: {self.bytes:,} bytes; relative error of all together {self.error:.3g}"]
        gone = [module.name for module in self.modules if module.rank == 0]
        if gone:
            notes.append(f"left out, because the budget serves better elsewhere: {', '.join(gone)}")
        if self.dora:
            notes.append("DoRA: magnitudes are kept; errors are those of the directions' updates")
        columns = ["module", "rank before", "rank", "relative error"]
        return Table(columns, self.modules, title=f"Resized {self.source}", notes=notes)


def resize(
    adapter: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    rank: int | None = None,
    energy: float | None = None,
    error: float | None = None,
    bytes: int | None = None,
    total_rank: int | None = None,
    jobs: int = 1,
    force: bool = False,
    progress: bool = False,
) -> ResizeResult:
    """Write the adapter at other ranks, each module the best approximation of its rank.

    Exactly one of ``rank``, ``energy``, ``error``, ``bytes`` and ``total_rank`` says what is wanted.

    Parameters
    ----------
    adapter : path
        A directory as PEFT writes it.
    out : path
        The directory to make.
    rank : int
        The same rank everywhere; modules that have less keep theirs.
    energy : float
        The share of its squared norm that each module keeps.
    error : float
        The relative error in the Frobenius norm that each module may have.
    bytes : int
        The size that ``adapter_model.safetensors`` may have. It is shared out among all modules so that the
        summed squared error becomes small (see `allocate_bytes`); modules may come to nothing.
    total_rank : int
        The sum of all ranks, shared out likewise.
    jobs : int
        How many modules to work on at a time.
    force : bool
        Whether to replace an existing adapter at ``out``, even ``adapter`` itself. A directory that holds
        anything else is refused; a README.md stays.
    progress : bool
        Show a bar, if standard error is a terminal.

    Returns
    -------
    ResizeResult
        For each module the rank before and after, and the relative error.

    Raises
    ------
    HubError
        If the adapter is damaged or not finite, or the target exists.
    TypeError
        If an option is of another kind.
    ValueError
        If an option is out of range.

    See Also
    --------
    combine : Several adapters in one.

    Notes
    -----
    Scalings stay as they are, and modules that keep their rank are copied bit by bit. With DoRA, magnitudes
    are kept and directions approximated.

    Examples
    --------
    >>> import tempfile, lora_np as lnp
    >>> folder = Path(tempfile.mkdtemp())
    >>> B, A = np.diag([2.0, 1.0, 0.1]), np.eye(3, 5)
    >>> lnp.adapters.save(lnp.adapters.Adapter({"q": AdapterModule.of(A=A, B=B, alpha=3)}), folder / "big")
    >>> result = resize(folder / "big", folder / "small", error=0.1)
    >>> result.modules[0].rank_before, result.modules[0].rank
    (3, 2)
    """
    goal = Goal.of(rank=rank, energy=energy, error=error, bytes=bytes, total_rank=total_rank)
    before = load(adapter)
    with (
        replacing_adapter(out, force=force, inputs=[adapter], in_place=True) as stage,
        TemporaryDirectory(dir=stage) as parts,
    ):
        work = [(name, module, Path(parts, str(i))) for i, (name, module) in enumerate(before.items())]
        spectra = dict(
            zip(before, each(_decompose, work, jobs=jobs, progress=progress, label="decompose"), strict=True)
        )
        ranks = _ranks(before, spectra, goal)
        modules = {
            name: module if ranks[name] == module.rank else _cut(module, path, ranks[name])
            for name, module, path in work
            if ranks[name] > 0
        }
        if not modules:
            raise HubError(f"{adapter}: every module is zero, so there is nothing to keep")
        raw = before.raw if len(modules) == len(before) else settings.with_targets(before.raw, modules)
        write(replace(before, modules=modules, raw=raw), stage)
        size = (stage / WEIGHTS).stat().st_size
    return ResizeResult(
        Path(out),
        Path(adapter),
        tuple(
            ResizedModule(name, module.rank, ranks[name], relative_error(spectra[name], ranks[name]))
            for name, module in before.items()
        ),
        size,
        _total_error(spectra, ranks),
        any("magnitude" in module.parts for module in before.values()),
    )


def _decompose(item: tuple[str, AdapterModule, Path]) -> Array:
    """Put the balanced factors of B A aside, in full; return the singular values of the update."""
    name, module, path = item
    U, s, Vh = finite(name, svd_of_product, *module.factors())
    put_factors(U, s, Vh, path)
    strengths: Array = abs(module.scale) * s.astype(np.float64)
    return strengths


def _cut(module: AdapterModule, path: Path, rank: int) -> AdapterModule:
    d, k = module.shape
    return module.with_factors(
        B=taken(path, "B", module.parts["B"].dtype, (d, rank)),
        A=taken(path, "A", module.parts["A"].dtype, (rank, k)),
    )


def _ranks(adapter: Adapter, spectra: dict[str, Array], goal: Goal) -> dict[str, int]:
    if goal.total_rank is None and goal.bytes is None:
        return {name: goal.rank_of(s) for name, s in spectra.items()}
    # A magnitude or a bias does something without any direction, and PEFT knows no rank of 0.
    at_least = {name: int(len(module.parts) > 2) for name, module in adapter.items()}
    if goal.total_rank is not None:
        return allocate(
            spectra, dict.fromkeys(spectra, 1), goal.total_rank, at_least=at_least, name="total_rank"
        )
    assert goal.bytes is not None
    return allocate_bytes(adapter, spectra, goal.bytes, at_least=at_least)


def relative_error(s: Array, rank: int) -> float:
    squares = np.square(s)
    return float((squares[rank:].sum() / (squares.sum() or 1.0)) ** 0.5)


def _total_error(spectra: dict[str, Array], ranks: dict[str, int]) -> float:
    lost = total = 0.0
    for name, s in spectra.items():
        lost += float(np.square(s[ranks[name] :]).sum())
        total += float(np.square(s).sum())
    return float((lost / (total or 1)) ** 0.5)
