"""Figures of training: losses against steps and ranks, and what happens on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lora_np.checks import Array
from lora_np.plots.style import CYCLE, FULL, LORA, MUTED, OPTIMUM, axes, label_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def training_curve(
    loss: Array | None,
    *,
    validation: tuple[Array, Array] | None = None,
    label: str = "",
    color: str = LORA,
    ax: Axes | None = None,
) -> Axes:
    """Loss against steps on a logarithmic scale: each batch as a faint line, held-out loss as a strong one.

    Parameters
    ----------
    loss : ndarray of shape (steps,) or None
        Training loss at each step; None to show held-out loss alone.
    validation : (ndarray, ndarray), optional
        Steps and held-out losses.
    label : str
        Written next to the last value; `label_ends` keeps the labels of several lines apart.
    color : str
        Of both lines.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        What was drawn on.

    See Also
    --------
    gap_curve : The distance to the optimum.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> ax = training_curve(np.geomspace(1, 0.1, 50), label="r = 8", ax=Figure().add_subplot())
    >>> ax.get_yscale()
    'log'
    """
    ax = axes(ax)
    held_out = validation is not None and len(validation[0]) > 0
    if loss is not None:
        ax.plot(loss, color=color, linewidth=0.8 if held_out else 1.6, alpha=0.3 if held_out else 1.0)
        x, y = len(loss) - 1, loss[-1]
    if validation is not None and held_out:
        ax.plot(*validation, color=color, linewidth=1.8)
        x, y = validation[0][-1], validation[1][-1]
    if loss is not None and held_out:
        note = "strong: held-out data; faint: training batches"
        ax.annotate(
            note, (0.99, 0.97), xycoords="axes fraction", ha="right", va="top", color=MUTED, fontsize=8
        )
    if label:
        label_line(ax, x, y, label, color)
    ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel("mean squared error")
    return ax


def gap_curve(
    gap: Array, *, label: str = "", color: str = LORA, levels: tuple[float, ...] = (), ax: Axes | None = None
) -> Axes:
    """Distance to the optimum against steps, on a logarithmic scale: a straight line is linear convergence.

    Parameters
    ----------
    gap : ndarray of shape (steps,)
        ``loss / optimum - 1`` at each step. What is zero or less, by rounding, is left out.
    label : str
        Written next to the last value; `label_ends` keeps the labels of several lines apart.
    color : str
        Of the line.
    levels : tuple of float
        Distances to mark, each with the step at which it is reached.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        What was drawn on.

    See Also
    --------
    training_curve : The loss itself.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = gap_curve(np.geomspace(10, 1e-6, 50), levels=(1e-3,), ax=Figure().add_subplot())
    >>> ax.get_ylabel()
    'loss above the optimum, as a share of it'
    """
    ax = axes(ax)
    gap = np.where(gap > 0, gap, np.nan)
    ax.plot(gap, color=color, linewidth=1.8)
    for level in levels:
        reached = np.flatnonzero(gap <= level)
        if reached.size:
            ax.plot(reached[0], gap[reached[0]], "o", color=color, markersize=5, markeredgecolor="white")
            label_line(
                ax, reached[0], gap[reached[0]], f"{level:g} at step {reached[0]}", MUTED, xytext=(7, 6)
            )
    if label:
        last = np.flatnonzero(np.isfinite(gap))[-1]
        label_line(ax, last, gap[last], label, color)
    ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel("loss above the optimum, as a share of it")
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
        What was drawn on.

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
        low, middle, high = (
            [f(errors[r]) for r in ranks] for f in (min, lambda e: float(np.median(e)), max)
        )  # fmt: skip
        ax.fill_between(ranks, low, high, color=color, alpha=0.18, linewidth=0)
        ax.plot(ranks, middle, "o-", color=color, linewidth=1.5, markersize=4, label=name)
    every_rank = sorted({r for errors in curves.values() for r in errors})
    ax.set_xscale("log", base=2)
    ax.set_xticks(every_rank, [str(r) for r in every_rank])
    ax.minorticks_off()
    ax.set_yscale("log")
    ax.legend(frameon=False, fontsize=9)
    ax.set_xlabel("rank")
    ax.set_ylabel(ylabel)
    return ax


def dynamics(
    steps: Array,
    *,
    norms: Mapping[str, Array],
    singular_values: Array,
    distances: Mapping[str, Array] | None = None,
    optimal: Array | None = None,
) -> Figure:
    """How a low-rank update grows: norms, singular values of B A, and the distance to the best subspaces.

    Parameters
    ----------
    steps : ndarray of shape (m,)
        When the rest was measured.
    norms : mapping of str to ndarray of shape (m,)
        Frobenius norms by name.
    singular_values : ndarray of shape (m, r)
        Of B A.
    distances : mapping of str to ndarray of shape (m,), optional
        From 0 (the same subspace) to 1 (orthogonal), by name.
    optimal : ndarray of shape (r,), optional
        Singular values of the best update.

    Returns
    -------
    Figure
        What was drawn on.

    See Also
    --------
    training_curve : The loss of a run.

    Examples
    --------
    >>> steps = np.arange(3)
    >>> figure = dynamics(steps, norms={"B": steps + 1.0}, singular_values=np.ones((3, 2)))
    >>> len(figure.axes)
    2
    """
    import matplotlib.pyplot as plt

    panels = 2 if distances is None else 3
    figure, places = plt.subplots(1, panels, figsize=(4.2 * panels, 3.4), layout="constrained")
    for ax in places:
        axes(ax)
        ax.set_xlabel("step")
    for (name, curve), color in zip(norms.items(), CYCLE, strict=False):
        places[0].plot(steps, np.where(curve > 0, curve, np.nan), color=color, linewidth=1.6, label=name)
    places[0].set_yscale("log")
    places[0].set_title("norms", fontsize=10, loc="left")
    places[0].legend(frameon=False, fontsize=8)
    if optimal is not None:
        for value in optimal:
            places[1].axhline(value, color=OPTIMUM, linewidth=0.8)
    places[1].plot(steps, singular_values, color=LORA, linewidth=1.3)
    places[1].set_title(
        "singular values of B A" + (" (lines: of the best update)" if optimal is not None else ""),
        fontsize=10, loc="left",
    )  # fmt: skip
    places[1].set_ylim(bottom=0)
    for (name, curve), color in zip((distances or {}).items(), (LORA, FULL), strict=False):
        places[2].plot(steps, curve, color=color, linewidth=1.6, label=name)
    if distances is not None:
        places[2].set_ylim(0, 1.02)
        places[2].set_title("distance to the best subspace", fontsize=10, loc="left")
        places[2].legend(frameon=False, fontsize=8)
    result: Figure = figure
    return result
