"""Reduce the rank of an adapter, replacing each module's update with its best approximation."""

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
    """The rank of one module before and after resizing, and the error of its update.

    Parameters
    ----------
    name : str
        The path of the module.
    rank_before, rank : int
        The old and the new rank; a rank of 0 means that the module was left out.
    error : float
        The relative error of the update, in the Frobenius norm.
    """

    name: str
    rank_before: int
    rank: int
    error: float


@dataclass(frozen=True, repr=False)
class ResizeResult(Written[ResizedModule]):
    """The result of `resize`: each module's ranks and error, and the new adapter's path and size.

    Parameters
    ----------
    title : str
        The title of the table.
    rows : tuple of ResizedModule
        All modules of the old adapter.
    notes : tuple of str
        The modules that were left out, and an explanation of the errors.
    headings : tuple of str
        The headings of the columns.
    path : Path
        The new adapter.
    bytes : int
        The size of the file with the weights.
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
    """Reduce the ranks of an adapter, replacing each update with its best low-rank approximation.

    Pass exactly one of ``rank``, ``energy``, ``tolerance``, ``budget`` and ``total_rank``.

    Parameters
    ----------
    adapter : path or Adapter
        An adapter in any format that `load` reads, or its result.
    out : path
        The directory to make, or a file that ends in ``.gguf``.
    rank : int
        The same rank for every module; modules of a smaller rank keep theirs.
    energy : float
        The share of its squared norm that each module keeps.
    tolerance : float
        The largest relative error of each module, in the Frobenius norm.
    budget : int or str
        The largest size of ``adapter_model.safetensors``, such as ``"10 MB"``. It is allocated
        among the modules so that the total squared error is small; modules may be left out.
    total_rank : int
        The sum of all ranks, allocated in the same way as ``budget``.
    grams : mapping of str to array_like of shape (k, k), optional
        The Gram matrix ``X.T @ X`` of the inputs X of each module, as `lora_np.language.grams`
        computes it. Norms and errors then refer to the outputs ``dW x`` instead of the weights.
    portable : bool
        Whether to write the portable form that `convert` makes, in which every module is padded to
        the largest rank. ``budget`` then limits the size of the padded adapter.
    jobs : int
        The number of modules to work on at a time.
    force : bool
        Whether to replace an existing adapter at ``out``, but never ``adapter`` itself. A directory
        that contains anything else is refused; a README.md is kept.
    progress : bool
        Whether to show a progress bar, if standard error is a terminal.

    Returns
    -------
    ResizeResult
        The old and the new rank of each module, and its relative error.

    Raises
    ------
    FileError
        If the adapter is damaged or not finite.
    TypeError
        If an option has the wrong type.
    ValueError
        If an option is out of range, or the target exists.

    See Also
    --------
    combine : Combine several adapters into one.

    Notes
    -----
    Unless ``portable`` is set, scales do not change, and modules that keep their rank are copied
    bit for bit. With DoRA, magnitudes are kept and directions are approximated.

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
        grams = grams and {**grams}  # compute the values of a lazy mapping only once
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
            "left out, because they have no effect or the budget is better spent elsewhere: "
            f"{', '.join(gone)}"
        )
    notes += remarks
    if before.has_magnitudes:
        notes.append("DoRA: magnitudes are kept; errors refer to the updates of the directions")
    if grams is not None:
        notes.append("errors refer to the outputs on the given inputs")
    headings = ("module", "rank before", "rank", "relative error")
    return ResizeResult(
        f"Resized {adapter}", tuple(records), tuple(notes), headings, Path(out), size, together
    )


def _decomposed(
    grams: Grams | None, work: tuple[str, AdapterModule, Path]
) -> tuple[AdapterModule, Spectrum]:
    """Write balanced factors from a module's SVD to files; return the new module and spectrum."""
    name, module, path = work
    B, A = module.factors()
    svd = directions(name, B, A, root_of(name, grams, A.shape[-1]))
    ordered = balanced(svd, path, **{part: module.parts[part].dtype for part in "BA"})
    return module.with_factors(**ordered), Spectrum.of(svd.s, module.scale)
