"""An adapter at other ranks: each module's update cut to its leading directions, never forming B A."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lora_np.adapters.findings import Findings
from lora_np.adapters.module import AdapterModule
from lora_np.adapters.peft_format import WEIGHTS, load, write
from lora_np.adapters.ranks import Goal, Spectrum, cut, total_error
from lora_np.adapters.steps import balanced, directions, each_of, new_adapter


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
class ResizeResult(Findings[ResizedModule]):
    """What `resize` wrote.

    Parameters
    ----------
    title : str
        Of the table.
    rows : tuple of ResizedModule
        All modules of the old adapter.
    notes : tuple of str
        What was left out, and what errors are those of.
    path : Path
        The new adapter.
    bytes : int
        Size of the weights' file.
    error : float
        The relative error of all updates together.
    """

    path: Path
    bytes: int
    error: float
    headings = ("module", "rank before", "rank", "relative error")


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
        summed squared error becomes small (see ``allocate_bytes``); modules may come to nothing.
    total_rank : int
        The sum of all ranks, shared out likewise.
    jobs : int
        How many modules to work on at a time.
    force : bool
        Whether to replace an existing adapter at ``out``, though not ``adapter`` itself. A directory that
        holds anything else is refused; a README.md stays.
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
    >>> import tempfile, lora_np as lnp, numpy as np
    >>> folder = Path(tempfile.mkdtemp())
    >>> B, A = np.diag([2.0, 1.0, 0.1]), np.eye(3, 5)
    >>> lnp.adapters.save(lnp.adapters.Adapter({"q": AdapterModule.of(A=A, B=B, alpha=3)}), folder / "big")
    >>> result = resize(folder / "big", folder / "small", error=0.1)
    >>> result.rows[0].rank_before, result.rows[0].rank
    (3, 2)
    """
    goal = Goal.of(rank=rank, energy=energy, error=error, bytes=bytes, total_rank=total_rank)
    before = load(adapter)
    with new_adapter(out, force=force, inputs=[adapter]) as (stage, aside):
        modules = before.modules
        work = {name: (name, modules[name], aside / str(i)) for i, name in enumerate(modules)}
        found = each_of(_decompose, work, jobs=jobs, progress=progress, label="decompose")
        ordered = {name: module for name, (module, _) in found.items()}
        spectra = {name: spectrum for name, (_, spectrum) in found.items()}
        ranks = goal.ranks(before, spectra)
        write(cut(before, ordered, ranks), stage)
        size = (stage / WEIGHTS).stat().st_size
    rows = [
        ResizedModule(name, module.rank, ranks[name] * module.groups, spectra[name].error(ranks[name]))
        for name, module in before.modules.items()
    ]
    together = total_error(spectra.values(), ranks.values())
    notes = [f"{WEIGHTS}: {size:,} bytes; relative error of all together {together:.3g}"]
    if gone := [row.name for row in rows if row.rank == 0]:
        notes.append(
            f"left out, because they do nothing or the budget serves better elsewhere: {', '.join(gone)}"
        )
    if any("magnitude" in module.parts for module in before.modules.values()):
        notes.append("DoRA: magnitudes are kept; errors are those of the directions' updates")
    return ResizeResult(f"Resized {adapter}", tuple(rows), tuple(notes), Path(out), size, together)


def _decompose(work: tuple[str, AdapterModule, Path]) -> tuple[AdapterModule, Spectrum]:
    """The module with its directions in order, put aside, and the singular values of its update."""
    name, module, path = work
    found = directions(name, *module.factors())
    parts = module.parts
    ordered = module.with_factors(**balanced(found, path, B=parts["B"].dtype, A=parts["A"].dtype))
    return ordered, Spectrum.of(found.s, module.scale)
