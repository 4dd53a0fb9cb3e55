"""Figures of one lesson only, and of the tour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_np.checks import Array
from lora_np.plots import ACCENT, CYCLE, FULL, GRID, INK, LORA, MUTED, OPTIMUM, SKY, axes, label_line, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def columns_in_plane(matrices: Mapping[str, Array], *, figure: Figure | None = None) -> Figure:
    """Columns of 2 x k matrices as arrows, over the outputs ``M @ x`` of many random x as dots.

    Parameters
    ----------
    matrices : mapping of str to ndarray of shape (2, k)
        Heading and matrix, a panel each.
    figure : Figure, optional
        Where to draw; by default a new pyplot figure.

    Returns
    -------
    Figure
        What was drawn on.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> len(columns_in_plane({"rank 2": np.eye(2), "rank 1": np.ones((2, 2))}, figure=Figure()).axes)
    2
    """
    figure = sheet(figure, 3.3 * len(matrices), 3.5)
    rng = np.random.default_rng(0)
    reach = 1.25 * max(float(np.abs(M).max()) for M in matrices.values())
    for ax, (heading, M) in zip(
        figure.subplots(1, len(matrices), squeeze=False)[0], matrices.items(), strict=True
    ):
        axes(ax).grid(True, color=GRID, linewidth=0.8)
        ax.plot(*(M @ rng.normal(scale=1.2, size=(M.shape[1], 600))), ".", color=SKY, markersize=3, alpha=0.6)
        for j, column in enumerate(M.T):
            arrow = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", column, xytext=(0, 0), arrowprops=arrow)
            side, right = ("left", 4) if column[0] >= 0 else ("right", -4)
            ax.annotate(
                f"column {j}", column,
                xytext=(right, 8 if column[1] >= 0 else -8), textcoords="offset points", ha=side, va="center",
                color=INK, fontsize=9, bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1},
            )  # fmt: skip
        ax.set_xlim(-reach, reach)
        ax.set_ylim(-reach, reach)
        ax.set_aspect("equal")
        ax.set_title(heading, fontsize=10, color=INK)
        ax.set_xlabel("first entry")
    figure.axes[0].set_ylabel("second entry")
    return figure


def columns_on_line(
    M: Array, approximations: Mapping[str, Array], *, figure: Figure | None = None, width: float = 9.0
) -> Figure:
    """Columns of ``M`` as arrows, and how far each has to move onto the line of a rank-one approximation.

    Parameters
    ----------
    M : ndarray of shape (2, k)
        The matrix.
    approximations : mapping of str to ndarray of shape (2, k)
        Heading and a matrix of rank one, a panel each.
    figure : Figure, optional
        Where to draw; by default a new pyplot figure.
    width : float
        Inches.

    Returns
    -------
    Figure
        What was drawn on.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> figure = columns_on_line(np.eye(2), {"the first": np.diag([1.0, 0.0])}, figure=Figure())
    >>> figure.axes[0].get_title()
    'the first'
    """
    panels = len(approximations)
    points = np.concatenate([M, *approximations.values(), np.zeros((2, 1))], axis=1)
    low, high = points.min(axis=1), points.max(axis=1)
    margin = 0.16 * float(np.max(high - low))
    low, high = low - margin, high + margin
    wide, tall = high - low
    figure = sheet(figure, width, width / panels * tall / wide + 0.5)
    grid = figure.subplots(1, panels, squeeze=False, sharex=True, sharey=True)[0]
    for ax, (heading, near) in zip(grid, approximations.items(), strict=True):
        axes(ax).grid(True, color=GRID, linewidth=0.8)
        direction = near[:, int(np.argmax(np.square(near).sum(axis=0)))]
        ax.axline((0, 0), tuple(direction), color=LORA, linewidth=1.4, alpha=0.45)
        for j, (column, moved) in enumerate(zip(M.T, near.T, strict=True)):
            arrow = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", column, xytext=(0, 0), arrowprops=arrow)
            way = np.stack([column, moved], axis=1)
            ax.plot(*way, color=CYCLE[4], linewidth=2, linestyle=(0, (2, 1.2)), zorder=4)
            ax.plot(*moved, "o", color=LORA, markersize=7, markeredgecolor="white", zorder=5)
            if distance := float(np.linalg.norm(column - moved).round(9)):
                ax.annotate(
                    f"{distance:.3g}", (column + moved) / 2,
                    ha="center", va="center", color=INK, fontsize=9,
                    bbox={"facecolor": "white", "linewidth": 0, "pad": 1}, zorder=6,
                )  # fmt: skip
            below = column[1] < low[1] + tall / 2
            ax.annotate(
                f"column {j}", column,
                xytext=(0, -7 if below else 7), textcoords="offset points",
                ha="center", va="top" if below else "bottom", color=INK, fontsize=9,
            )  # fmt: skip
        ax.set_xlim(low[0], high[0])
        ax.set_ylim(low[1], high[1])
        ax.set_aspect("equal")
        ax.set_title(heading, fontsize=10, color=INK)
        ax.set_xlabel("first entry")
    grid[0].set_ylabel("second entry")
    return figure


def rank_one_errors(M: Array, *, ax: Axes | None = None) -> Axes:
    """``||M - c b a^T||`` over all directions of b and a in the plane, each with its best factor c.

    Parameters
    ----------
    M : ndarray of shape (2, 2)
        The matrix.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        What was drawn on.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = rank_one_errors(np.array([[2.0, 1.0], [1.0, 2.0]]), ax=Figure().add_subplot())
    >>> ax.get_xlabel()
    'direction of a, in degrees'
    """
    ax = axes(ax, size=(5.4, 4.2))
    ax.grid(False)
    degrees = np.arange(0, 180.5, 0.5)
    directions = np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
    # For unit vectors the best c is b^T M a, and what is left of ||M||^2 is ||M||^2 - c^2.
    best = directions.T @ M @ directions
    errors = np.sqrt(np.maximum(np.sum(np.square(M)) - np.square(best), 0))
    shown = ax.contourf(degrees, degrees, errors, levels=16, cmap="cividis")
    row, column = np.unravel_index(np.argmin(errors), errors.shape)
    ax.plot(degrees[column], degrees[row], "o", color="white", markeredgecolor=INK, markersize=9)
    ax.annotate(
        f"smallest: {errors.min():.3g}",
        (degrees[column], degrees[row]),
        xytext=(9, 0), textcoords="offset points", color="white", fontsize=10, va="center",
    )  # fmt: skip
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(range(0, 181, 45))
    ax.set_aspect("equal")
    ax.set_xlabel("direction of a, in degrees")
    ax.set_ylabel("direction of b, in degrees")
    bar = ax.figure.colorbar(shown, ax=ax, fraction=0.05, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=9, color=MUTED)
    bar.set_label("error $\\|M - c\\,b\\,a^T\\|$")
    return ax


def factor_areas(
    d: int, k: int, *, ranks: Iterable[int], figure: Figure | None = None, width: float = 8.0
) -> Figure:
    """A full update and its factors as rectangles on one scale: their areas are the numbers to train.

    Parameters
    ----------
    d, k : int
        Rows and columns of the update.
    ranks : iterable of int
        A pair of factors for each.
    figure : Figure, optional
        Where to draw; by default a new pyplot figure.
    width : float
        Inches.

    Returns
    -------
    Figure
        What was drawn on.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> figure = factor_areas(4, 5, ranks=[1], figure=Figure())
    >>> [text.get_text() for text in figure.axes[0].texts][-1]
    'r = 1: 4 + 5 = 9'
    """
    from matplotlib.patches import Rectangle

    ranks = list(ranks)
    gap = 0.1 * k
    total = k + sum(4 * gap + r + k for r in ranks)
    figure = sheet(figure, width, width * (1.16 * d) / total)
    ax = figure.subplots()
    ax.set_xlim(0, total)
    ax.set_ylim(1.16 * d, 0)
    ax.set_aspect("equal")
    ax.set_axis_off()

    def block(x: float, rows: int, columns: int, color: str) -> None:
        ax.add_patch(Rectangle((x, 0), columns, rows, color=color, linewidth=0))

    def write(x: float, y: float, text: str, color: str, **how: Any) -> None:
        ax.text(x, y, text, **{"color": color, "fontsize": 9, "ha": "center", "va": "center", **how})

    block(0, d, k, FULL)
    write(k / 2, d / 2, f"$\\Delta W$\n{d} x {k}", "white", fontsize=11)
    write(k / 2, 1.08 * d, f"full: {d * k:,}", INK, fontsize=10)
    left = float(k)
    for r in ranks:
        left += 3 * gap
        block(left, d, r, LORA)
        write(left - 0.5 * gap, d / 2, f"B: {d} x {r}", LORA, rotation=90)
        middle = left + (r + gap + k) / 2
        left += r + gap
        block(left, r, k, LORA)
        write(left + k / 2, r + 0.07 * d, f"A: {r} x {k}", LORA)
        write(middle, 1.08 * d, f"r = {r}: {d * r:,} + {r * k:,} = {r * (d + k):,}", INK, fontsize=10)
        left += k
    return figure


def memory_by_cause(
    causes: Sequence[str], methods: Mapping[str, Sequence[int]], *, ax: Axes | None = None
) -> Axes:
    """What training needs in memory: a stacked bar for each method, a colour for each cause.

    Parameters
    ----------
    causes : sequence of str
        What the bytes are for, in the order of stacking.
    methods : mapping of str to sequence of int
        From a method to its bytes, one for each cause.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        What was drawn on.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> methods = {"full": [14e9, 14e9, 6e9], "LoRA": [14e9, 2e8, 7e9]}
    >>> ax = memory_by_cause(["weights", "gradients", "activations"], methods, ax=Figure().add_subplot())
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['LoRA', 'full']
    """
    ax = axes(ax, size=(6.8, 1.5 + 0.6 * len(methods)))
    sizes = (
        np.array([list(values) for values in methods.values()], dtype=np.float64) / 1e9
    )  # (methods, causes)
    places = np.arange(len(methods))[::-1]
    left = np.zeros(len(methods))
    for column, cause in enumerate(causes):
        ax.barh(
            places, sizes[:, column], left=left, height=0.6, color=_CAUSES[column % len(_CAUSES)],
            edgecolor="white", linewidth=0.4, label=cause,
        )  # fmt: skip
        left += sizes[:, column]
    for place, total in zip(places, left, strict=True):
        label_line(ax, total, place, f"{total:,.1f} GB", INK)
    order = np.argsort(places)
    names = list(methods)
    ax.set_yticks(places[order], [names[index] for index in order])
    ax.tick_params(left=False)
    ax.grid(True, axis="x", color=GRID, linewidth=0.8)
    ax.grid(False, axis="y")
    ax.set_xlim(0, 1.16 * left.max())
    ax.set_xlabel("memory to train [GB = 10⁹ bytes]")
    ax.legend(
        loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=len(causes), frameon=False, fontsize=9,
        handlelength=1.0, columnspacing=1.4,
    )  # fmt: skip
    return ax


_CAUSES = (MUTED, CYCLE[0], CYCLE[1], CYCLE[3], CYCLE[5], CYCLE[2])


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

    Returns
    -------
    Axes
        What was drawn on.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = error_against_rank(np.array([1.0, 0.3, 0.1]), trained={1: 0.31}, ax=Figure().add_subplot())
    >>> ax.get_xlabel()
    'rank of the update'
    """
    ax = axes(ax)
    trained = trained or {}
    # Rank 0 has no place on a logarithmic axis; the base is a separate line.
    last = max([24, *(2 * r for r in trained)])
    ranks = np.arange(1, min(len(optimum) - 1, last) + 1)
    ax.axhline(optimum[0], color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    label_line(ax, ranks[-1], optimum[0], "W0 alone", INK, ha="right", xytext=(0, 7))
    ax.plot(ranks, optimum[ranks], color=OPTIMUM, linewidth=3, zorder=2)
    ax.annotate(
        "best possible at each rank",
        (ranks[0], optimum[ranks[0]]),
        xytext=(12, 8), textcoords="offset points", color="#a06f00", fontsize=9,
    )  # fmt: skip
    if full is not None:
        ax.axhline(full, color=FULL, linewidth=1.2, zorder=1)
    for rank, error in trained.items():
        ax.plot(rank, error, "o", color=LORA, markersize=8, markeredgecolor="white", zorder=3)
        label_line(ax, rank, error, f"r = {rank}", LORA, xytext=(0, 13), ha="center")
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks := [r for r in (1, 2, 4, 8, 16, 32, 64) if r <= ranks[-1]], [str(r) for r in ticks])
    ax.set_xlabel("rank of the update")
    ax.set_ylabel("mean squared error, held out")
    low = min(float(optimum.min()), *trained.values(), *([] if full is None else [full]))
    gap = float(optimum[0]) - low
    ax.set_ylim(low - 0.12 * gap, float(optimum[0]) + 0.12 * gap)
    if full is not None:
        label_line(ax, ax.get_xlim()[1], full, "full update", FULL)
    return ax


NEAR = 0.15  # labels of points that are closer than this may touch each other


def old_and_new(
    groups: Mapping[str, Mapping[str, tuple[float, float]]],
    *,
    labels: tuple[str, str] = ("accuracy on the old task", "accuracy on the new task"),
    ax: Axes | None = None,
) -> Axes:
    """Models by their accuracy on the old task and on the new one: the best place is at the upper right.

    Parameters
    ----------
    groups : mapping of str to mapping of str to (float, float)
        For each kind of model, by the name of each, its shares on the old and on the new task. Members of a
        group are joined in their order.
    labels : (str, str)
        Of the two axes.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        What was drawn on.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> groups = {"base": {"not adapted": (0.97, 0.1)}, "LoRA": {"r = 1": (0.5, 0.8), "r = 8": (0.2, 0.98)}}
    >>> ax = old_and_new(groups, ax=Figure().add_subplot())
    >>> [text.get_text() for text in ax.texts]
    ['not adapted', 'r = 1', 'r = 8']
    """
    from matplotlib.ticker import PercentFormatter

    ax = axes(ax, size=(6.4, 4.4))
    ax.grid(True, color=GRID, linewidth=0.8)
    points = [point for members in groups.values() for point in members.values()]
    styles = zip((INK, FULL, LORA, SKY, ACCENT), "Dsov*", strict=True)
    for (group, members), (color, marker) in zip(groups.items(), styles, strict=False):
        olds, news = zip(*members.values(), strict=True)
        ax.plot(olds, news, color=color, linewidth=1, alpha=0.4, zorder=1)
        size = 14 if marker == "*" else 8
        ax.plot(olds, news, marker, color=color, markersize=size, markeredgecolor="white", label=group)
        for name, (old, new) in members.items():
            above = all(height <= new for place, height in points if abs(place - old) < NEAR)
            label_line(ax, old, new, name, color, xytext=(0, 10 if above else -11), ha="center")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    ax.set_xlim(0, 1.05)
    ax.set_ylim(0, 1.08)
    for ticks in (ax.set_xticks, ax.set_yticks):
        ticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    ax.legend(frameon=False, fontsize=9, loc="lower left")
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    return ax


def loss_map(
    losses: Array,
    *,
    alphas: Sequence[float],
    rates: Sequence[float],
    start: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Loss at each alpha and learning rate as a map, the number in its tile: bright is low.

    Parameters
    ----------
    losses : ndarray of shape (len(alphas), len(rates))
        What is not finite has diverged.
    alphas, rates : sequence of float
        In rising order; drawn at equal distances.
    start : float, optional
        The loss before training; anything above it has the same colour.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        What was drawn on.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = loss_map(np.array([[0.2, 0.1]]), alphas=[8], rates=[1e-3, 1e-2], ax=Figure().add_subplot())
    >>> [text.get_text() for text in ax.texts]
    ['0.200', '0.100']
    """
    ax = axes(ax, size=(6.8, 4.0))
    ax.grid(False)
    losses = np.asarray(losses, dtype=np.float64)
    finite = losses[np.isfinite(losses)]
    low, high = float(finite.min()), float(finite.max()) if start is None else start
    shown = np.where(np.isfinite(losses), losses, np.inf)
    ax.imshow(np.minimum(shown, high), cmap="cividis_r", vmin=low, vmax=high, aspect="auto", origin="lower")
    for (row, column), loss in np.ndenumerate(losses):
        text = f"{loss:.3f}" if np.isfinite(loss) else "diverged"
        color = "white" if not loss < (low + high) / 2 else INK
        ax.text(column, row, text, ha="center", va="center", fontsize=9, color=color)
    ax.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    ax.set_yticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("learning rate")
    ax.set_ylabel("alpha")
    return ax


def similarity_heatmap(grid: Array, *, names: tuple[str, str] = ("A1", "A2"), ax: Axes | None = None) -> Axes:
    """The grid of phi(A1, A2, i, j), as in figure 3 of the LoRA paper: dark where the subspaces are shared.

    Parameters
    ----------
    grid : ndarray of shape (I, J)
        As from `lora_np.linalg.similarity_grid`: phi at (i, j) is entry [i - 1, j - 1].
    names : (str, str)
        Of the two matrices.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        What was drawn on.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = similarity_heatmap(np.eye(3), names=("r = 8", "r = 64"), ax=Figure().add_subplot())
    >>> ax.get_xlabel()
    'top j directions of r = 64'
    """
    from matplotlib.ticker import MaxNLocator

    ax = axes(ax, size=(5.2, 4.2))
    ax.grid(False)
    rows, columns = grid.shape
    shown = ax.imshow(
        grid, cmap="cividis_r", vmin=0, vmax=1, aspect="auto", interpolation="nearest", origin="lower",
        extent=(0.5, columns + 0.5, 0.5, rows + 0.5),
    )  # fmt: skip
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    bar = ax.figure.colorbar(shown, ax=ax, fraction=0.05, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=9, color=MUTED)
    bar.set_label("similarity $\\phi(i, j)$")
    ax.set_xlabel(f"top j directions of {names[1]}")
    ax.set_ylabel(f"top i directions of {names[0]}")
    return ax
