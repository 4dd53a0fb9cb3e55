"""Reduce the rank of an adapter: each module's best approximation, without forming B A."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from lora_np.adapters.adapter import AdapterModule, Source, check_init
from lora_np.adapters.formats import Written, load, new_adapter, weights_file, write
from lora_np.adapters.peft_format import only_lora
from lora_np.adapters.spectra import Goal, Grams, Spectrum, balanced, cut, directions, root_of
from lora_np.checks import StrPath
from lora_np.work import parallel_map


class ResizedModule(NamedTuple):
    """A module at its new rank, and the relative error of that in the Frobenius norm.

    Parameters
    ----------
    name : str
        Its path.
    rank_before, rank : int
        A rank of 0 means that the module was left out.
    error : float
        Relative to the norm of the update.
    """

    name: str
    rank_before: int
    rank: int
    error: float


@dataclass(frozen=True, repr=False)
class ResizeResult(Written[ResizedModule]):
    """The result of `resize`.

    Parameters
    ----------
    title : str
        Of the table.
    rows : tuple of ResizedModule
        All modules of the old adapter.
    notes : tuple of str
        What was left out, and what the errors refer to.
    headings : tuple of str
        Of the columns.
    path : Path
        The new adapter.
    bytes : int
        Size of the weights' file.
    error : float
        The relative error of all updates together.
    """

    bytes: int
    error: float


def resize(
    adapter: Source,
    out: StrPath,
    *,
    rank: int | None = None,
    energy: float | None = None,
    tolerance: float | None = None,
    budget: int | str | None = None,
    total_rank: int | None = None,
    grams: Grams | None = None,
    portable: bool = False,
    jobs: int = 1,
    force: bool = False,
    progress: bool = False,
) -> ResizeResult:
    """Write the adapter at other ranks, each module the best approximation of its rank.

    Pass exactly one of ``rank``, ``energy``, ``tolerance``, ``budget`` and ``total_rank``.

    Parameters
    ----------
    adapter : path or Adapter
        In any format that `load` reads, or its result.
    out : path
        The directory to make, or a file that ends in ``.gguf``.
    rank : int
        The same rank everywhere; modules of a smaller rank keep theirs.
    energy : float
        The share of its squared norm that each module keeps.
    tolerance : float
        The relative error in the Frobenius norm that each module may have.
    budget : int or str
        The size that ``adapter_model.safetensors`` may have, such as ``"10 MB"``. It is shared out
        among all modules so that the total squared error is small; modules may be left out.
    total_rank : int
        The sum of all ranks, shared out likewise.
    grams : mapping of str to array_like of shape (k, k), optional
        For each module ``X.T @ X`` of its inputs X, as `lora_np.language.grams` computes them.
        Norms and errors are then those of the outputs ``dW x`` instead of the weights.
    portable : bool
        Write it as ``convert --to portable`` does, every module padded to the largest rank, which
        ``budget`` then counts.
    jobs : int
        How many modules to work on at a time.
    force : bool
        Whether to replace an existing adapter at ``out``, though not ``adapter`` itself. A
        directory that holds anything else is refused; a README.md stays.
    progress : bool
        Show a bar, if standard error is a terminal.

    Returns
    -------
    ResizeResult
        For each module the rank before and after, and the relative error.

    Raises
    ------
    FileError
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
    Unless it is to be portable, scalings stay as they are, and modules that keep their rank are
    copied bit for bit. With DoRA, magnitudes are kept and directions approximated.

    Examples
    --------
    >>> import tempfile, lora_np as lnp, numpy as np
    >>> folder = Path(tempfile.mkdtemp())
    >>> B, A = np.diag([2.0, 1.0, 0.1]), np.eye(3, 5)
    >>> lnp.adapters.save(lnp.adapters.Adapter({"q": AdapterModule.of(A=A, B=B, alpha=3)}),
    ...     folder / "big")
    >>> result = resize(folder / "big", folder / "small", tolerance=0.1)
    >>> result.rows[0].rank_before, result.rows[0].rank
    (3, 2)
    """
    goal = Goal.of(
        out, rank=rank, energy=energy, tolerance=tolerance, budget=budget, total_rank=total_rank
    )
    before = only_lora(load(adapter))
    check_init(before)
    with new_adapter(out, force=force, inputs=[before]) as (stage, aside):
        grams = grams and {**grams}  # computed by now, if they were not
        work = {
            name: (name, module, aside / str(i)) for i, (name, module) in enumerate(before.items())
        }
        decomposed = parallel_map(
            partial(_decomposed, grams), work, jobs=jobs, progress=progress, label="decompose"
        )
        ordered = {name: module for name, (module, _) in decomposed.items()}
        spectra = {name: spectrum for name, (_, spectrum) in decomposed.items()}
        ranks = goal.ranks(before, spectra, ordered, portable=portable)
        after = cut(before, ordered, ranks, portable=portable)
        _, remarks = write(after, stage)
        file = weights_file(stage)
        size = file.stat().st_size
    records = [
        ResizedModule(
            name, module.rank, ranks[name] * module.groups, spectra[name].error(ranks[name])
        )
        for name, module in before.modules.items()
    ]
    norm = sum(spectrum.left(0) for spectrum in spectra.values())
    together = (
        sum(spectrum.left(ranks[name]) for name, spectrum in spectra.items()) / (norm or 1.0)
    ) ** 0.5
    notes = [f"{file.name}: {size:,} bytes; relative error of all together {together:.3g}"]
    if gone := [row.name for row in records if row.rank == 0]:
        notes.append(
            "left out, because they do nothing or the budget serves better elsewhere: "
            f"{', '.join(gone)}"
        )
    notes += remarks
    if before.has_magnitudes:
        notes.append("DoRA: magnitudes are kept; errors are those of the directions' updates")
    if grams is not None:
        notes.append("errors are those of the outputs on the inputs that were given")
    headings = ("module", "rank before", "rank", "relative error")
    return ResizeResult(
        f"Resized {adapter}", tuple(records), tuple(notes), headings, Path(out), size, together
    )


def _decomposed(
    grams: Grams | None, work: tuple[str, AdapterModule, Path]
) -> tuple[AdapterModule, Spectrum]:
    """Store a module with its directions in order, and measure its singular values."""
    name, module, path = work
    B, A = module.factors()
    svd = directions(name, B, A, root_of(name, grams, A.shape[-1]))
    ordered = balanced(svd, path, **{part: module.parts[part].dtype for part in "BA"})
    return module.with_factors(**ordered), Spectrum.of(svd.s, module.scale)
