"""Count the parameters of one adapted matrix: ``r (d + k)`` instead of ``d k``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lora_np.checks import whole_number, whole_numbers
from lora_np.table import Cell, Shown, Table


def count_full(d: int, k: int) -> int:
    """Count ``d k``, the parameters of a full update of a d x k matrix.

    Parameters
    ----------
    d, k : int
        Rows (outputs) and columns (inputs) of the matrix.

    Returns
    -------
    int
        The number of parameters.

    Raises
    ------
    TypeError
        If ``d`` or ``k`` is not a whole number.
    ValueError
        If ``d`` or ``k`` is below 1.

    Examples
    --------
    >>> count_full(100, 120)
    12000
    """
    return whole_number("d", d) * whole_number("k", k)


def count_lora(d: int, k: int, rank: int, *, dora: bool = False) -> int:
    """Count ``r (d + k)``, the parameters of B (d x r) and A (r x k); DoRA adds ``d`` magnitudes.

    The count is the same whether the update is written B A or A B; only the shapes differ. An
    embedding costs the same as a linear layer: ``count_lora(width, vocabulary, rank=r)``.

    Parameters
    ----------
    d, k : int
        Rows (outputs) and columns (inputs) of the adapted matrix.
    rank : int
        The rank r, at least 1. A rank above ``min(d, k)`` is counted, but no update has a higher
        rank.
    dora : bool
        Count DoRA's magnitude vector as well.

    Returns
    -------
    int
        The number of parameters.

    Raises
    ------
    TypeError
        If ``d``, ``k`` or ``rank`` is not a whole number.
    ValueError
        If one of them is below 1.

    References
    ----------
    E. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685, section
    4.1. S.-Y. Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", arXiv 2402.09353, section
    4.1.

    Examples
    --------
    >>> count_lora(100, 120, rank=20), count_lora(100, 120, rank=8)
    (4400, 1760)
    >>> count_lora(100, 120, rank=8, dora=True)
    1860
    """
    d, k = whole_number("d", d), whole_number("k", k)
    return pair_size(d, k, whole_number("rank", rank)) + (d if dora else 0)


def pair_size(d: int, k: int, rank: int) -> int:
    """Compute ``r (d + k)`` without checking the sizes."""
    return rank * (d + k)


def ratio(d: int, k: int, rank: int) -> float:
    """Divide ``d k`` by ``r (d + k)``: the factor by which LoRA reduces trainable parameters.

    Parameters
    ----------
    d : int
        Rows (outputs) of the adapted matrix.
    k : int
        Columns (inputs) of the adapted matrix.
    rank : int
        The rank r, at least 1.

    Returns
    -------
    float
        The parameters of a full update divided by the parameters of LoRA; below 1 if LoRA has more.

    Examples
    --------
    >>> round(ratio(100, 120, rank=8), 2)
    6.82
    """
    return count_full(d, k) / count_lora(d, k, rank=rank)


def break_even_rank(d: int, k: int) -> int:
    """Find the largest rank at which LoRA has fewer parameters than a full update; 0 if none.

    Parameters
    ----------
    d : int
        Rows (outputs) of the matrix.
    k : int
        Columns (inputs) of the matrix.

    Returns
    -------
    int
        The largest ``r`` with ``r (d + k) < d k``.

    Raises
    ------
    TypeError
        If ``d`` or ``k`` is not a whole number.
    ValueError
        If ``d`` or ``k`` is below 1.

    Examples
    --------
    >>> break_even_rank(100, 120), break_even_rank(100, 100), break_even_rank(1, 100)
    (54, 49, 0)
    """
    return (count_full(d, k) - 1) // count_lora(d, k, rank=1)


def rank_for_budget(d: int, k: int, *, budget: int) -> int:
    """Find the largest rank with at most ``budget`` parameters; 0 if not even rank 1 fits.

    Parameters
    ----------
    d, k : int
        Rows and columns of the adapted matrix.
    budget : int
        The largest number of parameters.

    Returns
    -------
    int
        The rank.

    Raises
    ------
    TypeError
        If an argument is not a whole number.
    ValueError
        If ``budget`` is negative, or another argument below 1.

    Examples
    --------
    >>> rank_for_budget(100, 120, budget=2_000)
    9
    """
    return whole_number("budget", budget, minimum=0) // count_lora(d, k, rank=1)


@dataclass(frozen=True, repr=False)
class MatrixCount(Shown):
    """The parameters of updates of one matrix, counted by `count_matrix`.

    Parameters
    ----------
    counts : mapping of int to int
        The parameters of the update by rank, with DoRA's magnitudes if requested.
    table : Table
        The full update and each rank; the notes give the break-even rank.
    """

    counts: Mapping[int, int]
    table: Table


def count_matrix(
    d: int, k: int, *, rank: int | Iterable[int] = (), dora: bool = False
) -> MatrixCount:
    """Compare the parameters of LoRA at each rank with the parameters of a full update.

    Parameters
    ----------
    d, k : int
        Rows and columns of the adapted matrix.
    rank : int or iterable of int
        The ranks to count; the order is kept.
    dora : bool
        Count DoRA's magnitude vector as well.

    Returns
    -------
    MatrixCount
        The parameters of each update, which print as a table.

    Raises
    ------
    TypeError
        If a size or rank is not a whole number.
    ValueError
        If a size or rank is below 1.

    See Also
    --------
    count_model : Count a LoRA on a whole model.

    Examples
    --------
    >>> count_matrix(100, 120, rank=[20, 8])
    100 x 120
    update  rank  trainable  % of full  reduction    base   total
    ------  ----  ---------  ---------  ---------  ------  ------
    full             12,000     100.00       1.00  12,000  12,000
    LoRA      20      4,400      36.67       2.73  12,000  16,400
    LoRA       8      1,760      14.67       6.82  12,000  13,760
    Break-even: LoRA has fewer parameters than a full update up to rank 54.
    """
    full, most, name = count_full(d, k), break_even_rank(d, k), "DoRA" if dora else "LoRA"
    fewer = f"LoRA has fewer parameters than a full update up to rank {most:,}."
    notes = [f"Break-even: {fewer if most else 'no rank has fewer parameters than a full update.'}"]
    counts = {r: count_lora(d, k, r, dora=dora) for r in whole_numbers("rank", rank)}
    lines: list[tuple[Cell, ...]] = [("full", None, full, 100.0, 1.0, full, full)]
    for r, count in counts.items():
        lines.append((name, r, count, 100 * count / full, full / count, full, full + count))
        if r > min(d, k):
            limit = f"above min(d, k) = {min(d, k)}: no update has a higher rank."
            notes.append(f"Rank {r} is {limit}")
    columns = ("update", "rank", "trainable", "% of full", "reduction", "base", "total")
    formats = dict.fromkeys(("% of full", "reduction"), "{:,.2f}".format)
    table = Table(columns, lines, title=f"{d:,} x {k:,}", notes=notes, formats=formats)
    return MatrixCount(counts, table)
