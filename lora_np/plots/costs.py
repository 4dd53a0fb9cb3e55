"""What LoRA costs: parameters against rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lora_np.checks import Array
from lora_np.plots.style import ACCENT, FULL, LORA, MUTED, axes, label_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def parameters_against_rank(
    ranks: Array,
    parameters: Array,
    *,
    full: int,
    break_even: int,
    chosen: Sequence[int] = (),
    ax: Axes | None = None,
) -> Axes:
    """Parameters of a LoRA against its rank, next to the full update's, with the break-even rank.

    Parameters
    ----------
    ranks, parameters : ndarray of shape (n,)
        Ranks in rising order, and what each costs.
    full : int
        Parameters of the full update.
    break_even : int
        The largest rank that costs less.
    chosen : sequence of int
        Ranks to mark with their counts; each must be in ``ranks``.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        What was drawn on.

    See Also
    --------
    error_with_spread : What each rank reaches.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ranks = np.arange(1, 81)
    >>> ax = parameters_against_rank(
    ...     ranks, 220 * ranks, full=12_000, break_even=54, chosen=[8, 20], ax=Figure().add_subplot()
    ... )
    >>> ax.get_xlabel()
    'rank r'
    """
    ax = axes(ax)
    ranks, parameters = np.asarray(ranks), np.asarray(parameters)
    saves = parameters < full
    ax.fill_between(ranks, parameters, full, where=saves.tolist(), color=LORA, alpha=0.08, linewidth=0)
    ax.axhline(full, color=FULL, linewidth=1.8)
    ax.plot(ranks, parameters, color=LORA, linewidth=1.8)
    crossing = float(np.interp(full, parameters, ranks))
    ax.axvline(crossing, color=MUTED, linewidth=1, linestyle=":")
    last = ranks[-1]
    label_line(ax, last, full, f"full: {full:,}", FULL)
    label_line(ax, last, parameters[-1], "LoRA", LORA)
    label_line(ax, crossing, 0, f"break-even r = {break_even:,}", MUTED, va="bottom", xytext=(4, 4))
    for rank in chosen:
        count = int(parameters[np.flatnonzero(ranks == rank)[0]])
        ax.plot(rank, count, "o", color=ACCENT, markersize=6)
        label_line(ax, rank, count, f"r = {rank}: {count:,}", ACCENT, xytext=(8, -6))
    ax.set_ylim(bottom=0)
    ax.set_xlim(0, last)
    ax.set_xlabel("rank r")
    ax.set_ylabel("trainable parameters")
    ax.yaxis.set_major_formatter("{x:,.0f}")
    return ax
