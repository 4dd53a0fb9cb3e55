"""What one adapted matrix costs. Nothing else in the package knows the formula ``r (d + k)``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lora_np.checks import whole_number, whole_numbers
from lora_np.table import Cell, Shown, Table


def count_full(d: int, k: int) -> int:
    """``d k``: the numbers in a full update of a d x k matrix.

    Parameters
    ----------
    d, k : int
        Rows (outputs) and columns (inputs) of the matrix.

    Returns
    -------
    int
        A number of parameters.

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
    """``r (d + k)``: the numbers in B (d x r) and A (r x k); DoRA adds one magnitude per output,
    ``d``.

    The count is the same whether the update is written B A or A B; the shapes are not. An embedding
    costs the same as a linear map: ``count_lora(width, vocabulary, rank=r)``.

    Parameters
    ----------
    d, k : int
        Rows (outputs) and columns (inputs) of the adapted matrix.
    rank : int
        At least 1. A rank above ``min(d, k)`` is counted too, although it can express nothing more.
    dora : bool
        Count DoRA's magnitude vector as well.

    Returns
    -------
    int
        A number of parameters.

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
    """``r (d + k)``, for numbers that have been checked."""
    return rank * (d + k)


def ratio(d: int, k: int, rank: int) -> float:
    """``d k / (r (d + k))``: how many times fewer numbers than a full update (below 1 means more).

    Parameters
    ----------
    d : int
        Outputs.
    k : int
        Inputs.
    rank : int
        At least 1.

    Returns
    -------
    float
        A full update's numbers over LoRA's.

    Examples
    --------
    >>> round(ratio(100, 120, rank=8), 2)
    6.82
    """
    return count_full(d, k) / count_lora(d, k, rank=rank)


def break_even_rank(d: int, k: int) -> int:
    """The largest rank with strictly fewer numbers than a full update; 0 if even rank 1 has none.

    Parameters
    ----------
    d : int
        Outputs.
    k : int
        Inputs.

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


def rank_for_budget(d: int, k: int, *, budget: int, itemsize: int = 1) -> int:
    """The largest rank that costs at most ``budget``; 0 if not even rank 1 fits.

    Parameters
    ----------
    d, k : int
        Rows and columns of the adapted matrix.
    budget : int
        A number of parameters, or of bytes if ``itemsize`` is given.
    itemsize : int
        Bytes that one number takes: 4 for float32, 2 for bfloat16; 1 counts parameters.

    Returns
    -------
    int
        A number of parameters.

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
    >>> rank_for_budget(100, 120, budget=2_000, itemsize=4)
    2
    """
    budget = whole_number("budget", budget, minimum=0)
    return budget // (whole_number("itemsize", itemsize) * count_lora(d, k, rank=1))


@dataclass(frozen=True, repr=False)
class MatrixCount(Shown):
    """One matrix at several ranks: the result of `count_matrix`.

    Parameters
    ----------
    counts : mapping of int to int
        From a rank to the numbers in its factors.
    table : Table
        A row for the full update and one for each rank; the notes give the break-even rank.
    """

    counts: Mapping[int, int]
    table: Table


def count_matrix(
    d: int, k: int, *, rank: int | Iterable[int] = (), dora: bool = False
) -> MatrixCount:
    """``d k`` against ``r (d + k)``: one matrix, for the full update and for each rank.

    Parameters
    ----------
    d, k : int
        Rows and columns of the adapted matrix.
    rank : int or iterable of int
        What to count; the order is kept.
    dora : bool
        Count DoRA's magnitude vector as well.

    Returns
    -------
    MatrixCount
        The numbers of each update, which print as a table.

    Raises
    ------
    TypeError
        If a size or rank is not a whole number.
    ValueError
        If a size or rank is below 1.

    See Also
    --------
    count_model : The same for a whole model.

    Examples
    --------
    >>> count_matrix(100, 120, rank=[20, 8])
    100 x 120
    update  rank  trainable  of full  times fewer    base   total
    ------  ----  ---------  -------  -----------  ------  ------
    full             12,000  100.00%         1.00  12,000  12,000
    LoRA      20      4,400   36.67%         2.73  12,000  16,400
    LoRA       8      1,760   14.67%         6.82  12,000  13,760
    Break-even: LoRA has fewer numbers than a full update up to rank 54.
    """
    full, most, name = count_full(d, k), break_even_rank(d, k), "DoRA" if dora else "LoRA"
    up_to = f"LoRA has fewer numbers than a full update up to rank {most:,}."
    notes = [f"Break-even: {up_to if most else 'no rank has fewer numbers than a full update.'}"]
    rows: list[tuple[Cell, ...]] = [("full", None, full, 1.0, 1.0, full, full)]
    counts = {each: count_lora(d, k, each, dora=dora) for each in whole_numbers("rank", rank)}
    for each, count in counts.items():
        rows.append((name, each, count, count / full, full / count, full, full + count))
        if each > min(d, k):
            notes.append(
                f"Rank {each} is above min(d, k) = {min(d, k)}: it can express nothing more."
            )
    columns = ("update", "rank", "trainable", "of full", "times fewer", "base", "total")
    formats = {"of full": "{:.2%}".format, "times fewer": "{:,.2f}".format}
    table = Table(columns, rows, title=f"{d:,} x {k:,}", notes=notes, formats=formats)
    return MatrixCount(counts, table)
