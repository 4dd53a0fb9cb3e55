"""Figures of training: losses against steps, and against ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lora_np.checks import Array
from lora_np.plots.style import CYCLE, LORA, MUTED, OPTIMUM, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def training_curve(
    loss: Array, *, validation: tuple[Array, Array] | None = None, ax: Axes | None = None
) -> Axes:
    """Loss against steps on a logarithmic scale: each batch as a faint line, held-out loss as a strong one.

    Parameters
    ----------
    loss : ndarray of shape (steps,)
        Training loss at each step.
    validation : (ndarray, ndarray), optional
        Steps and held-out losses.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        The axes with the drawing.

    See Also
    --------
    lines : Any lines with their names.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> ax = training_curve(np.geomspace(1, 0.1, 50), ax=Figure().add_subplot())
    >>> ax.get_yscale()
    'log'
    """
    ax = axes(ax)
    if validation is not None and len(validation[0]):
        ax.plot(loss, color=LORA, linewidth=0.8, alpha=0.3)
        ax.plot(*validation, color=LORA, linewidth=1.8)
        note = "strong: held-out data; faint: training batches"
        ax.text(0.99, 0.97, note, transform=ax.transAxes, ha="right", va="top", color=MUTED, fontsize=8)
    else:
        ax.plot(loss, color=LORA, linewidth=1.6)
    ax.set(yscale="log", xlabel="step", ylabel="mean squared error")
    return ax


def error_with_spread(
    curves: Mapping[str, Mapping[int, Sequence[float]]],
    *,
    optimum: Mapping[int, float] | None = None,
    ylabel: str = "mean squared error",
    ax: Axes | None = None,
) -> Axes:
    """Error against rank: the median over seeds as a line, all of them as a band, next to the optimum.

    Parameters
    ----------
    curves : mapping of str to mapping of int to sequence of float
        For each name the errors of all seeds at each rank.
    optimum : mapping of int to float, optional
        The best error of each rank.
    ylabel : str
        What the errors are.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        The axes with the drawing.

    See Also
    --------
    lines : Any lines with their names.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = error_with_spread({"lora": {1: [0.5, 0.6], 2: [0.3, 0.3]}}, ax=Figure().add_subplot())
    >>> ax.get_xlabel()
    'rank'
    """
    ax = axes(ax)
    if optimum:
        ranks = sorted(optimum)
        ax.plot(ranks, [optimum[r] for r in ranks], color=OPTIMUM, linewidth=4, solid_capstyle="round",
                label="optimum of the rank")  # fmt: skip
    colors = [color for color in CYCLE if color != OPTIMUM]
    for i, (name, errors) in enumerate(curves.items()):
        color, ranks = colors[i % len(colors)], sorted(errors)
        low, middle, high = ([float(f(errors[r])) for r in ranks] for f in (np.min, np.median, np.max))
        ax.fill_between(ranks, low, high, color=color, alpha=0.18, linewidth=0)
        ax.plot(ranks, middle, "o-", color=color, linewidth=1.5, markersize=4, label=name)
    every_rank = sorted({r for errors in curves.values() for r in errors})
    ax.set_xscale("log", base=2)
    ax.set_xticks(every_rank, [str(r) for r in every_rank])
    ax.minorticks_off()
    ax.legend(frameon=False, fontsize=9)
    ax.set(yscale="log", xlabel="rank", ylabel=ylabel)
    return ax
