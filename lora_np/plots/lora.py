"""Figures of LoRA itself: what each rank can reach, and what was reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lora_np.checks import Array
from lora_np.plots.style import FULL, INK, LORA, OPTIMUM, axes, label_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def error_against_rank(
    optimum: Array,
    *,
    trained: Mapping[int, float] | None = None,
    full: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Mean squared error against rank: the best any update of that rank can do, and what training reached.

    Parameters
    ----------
    optimum : ndarray of shape (R + 1,)
        Error of the best update of rank 0, 1, ..., R; at rank 0 the frozen base alone.
    trained : mapping of int to float, optional
        Error of trained low-rank updates by their rank.
    full : float, optional
        Error of a trained full update.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = error_against_rank(np.array([1.0, 0.3, 0.1]), trained={1: 0.31}, ax=Figure().add_subplot())
    >>> ax.get_xlabel()
    'rank of the update'
    """
    ax = axes(ax)
    trained = trained or {}
    # Rank 0 has no place on a logarithmic axis; the base is a line of its own.
    last = max([24, *(2 * r for r in trained)])
    ranks = np.arange(1, min(len(optimum) - 1, last) + 1)
    ax.axhline(optimum[0], color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    label_line(ax, ranks[0], optimum[0], "W0 alone", INK, xytext=(2, 7))
    ax.plot(ranks, optimum[ranks], color=OPTIMUM, linewidth=3, zorder=2)
    ax.annotate(
        "best possible at each rank",
        (ranks[0], optimum[ranks[0]]),
        xytext=(12, 8), textcoords="offset points", color="#a06f00", fontsize=9,
    )  # fmt: skip
    if full is not None:
        ax.axhline(full, color=FULL, linewidth=1.2, zorder=1)
        label_line(ax, ranks[0], full, "full update, trained", FULL, xytext=(2, -9))
    for rank, error in trained.items():
        ax.plot(rank, error, "o", color=LORA, markersize=8, markeredgecolor="white", zorder=3)
        label_line(ax, rank, error, f"trained, r = {rank}", LORA, xytext=(0, 13), ha="center")
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks := [r for r in (1, 2, 4, 8, 16, 32, 64) if r <= ranks[-1]], [str(r) for r in ticks])
    ax.set_xlabel("rank of the update")
    ax.set_ylabel("mean squared error, held out")
    low = min(float(optimum.min()), *trained.values(), *([] if full is None else [full]))
    gap = float(optimum[0]) - low
    ax.set_ylim(low - 0.12 * gap, float(optimum[0]) + 0.12 * gap)
    return ax
