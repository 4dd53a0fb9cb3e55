"""Figures of the lessons: columns as arrows, matrices as tiles, factors as areas, all rank-one matrices."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_np.checks import Array
from lora_np.plots.style import ACCENT, CYCLE, FULL, INK, LORA, MUTED, OPTIMUM, SKY, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MANY = 100  # matrices with more entries than this are shown without their numbers


def columns_in_plane(matrices: Mapping[str, Array], *, figure: Figure | None = None) -> Figure:
    """Columns of 2 x k matrices as arrows, over the outputs ``M @ x`` of many random x as dots.

    Parameters
    ----------
    matrices : mapping of str to ndarray of shape (2, k)
        Heading and matrix, a panel each.
    figure : Figure, optional
        Where to draw; by default a new pyplot figure.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> len(columns_in_plane({"rank 2": np.eye(2), "rank 1": np.ones((2, 2))}, figure=Figure()).axes)
    2
    """
    figure = _sheet(figure, 3.3 * len(matrices), 3.5)
    rng = np.random.default_rng(0)
    reach = 1.25 * max(float(np.abs(M).max()) for M in matrices.values())
    for ax, (heading, M) in zip(
        figure.subplots(1, len(matrices), squeeze=False)[0], matrices.items(), strict=True
    ):
        axes(ax).grid(True, color="#e6e6e6", linewidth=0.8)
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


def matrix_tiles(
    matrices: Mapping[str, Array],
    *,
    between: Sequence[str] = (),
    figure: Figure | None = None,
    width: float = 7.5,
) -> Figure:
    """Matrices side by side, every tile of the same size: blue below zero, white at zero, red above.

    Parameters
    ----------
    matrices : mapping of str to ndarray
        Heading and matrix. Small ones are shown with their numbers.
    between : sequence of str
        Signs between neighbours, as in ``["times", "="]``; none by default.
    figure : Figure, optional
        Where to draw; by default a new pyplot figure.
    width : float
        Inches.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> b, a = np.array([[1.0], [2.0]]), np.array([[3.0, 4.0]])
    >>> figure = matrix_tiles({"B": b, "A": a, "B A": b @ a}, between="·=", figure=Figure())
    >>> [ax.get_title() for ax in figure.axes]
    ['B', 'A', 'B A']
    """
    gap = 0.16 * max(M.shape[1] for M in matrices.values())
    tall, wide = max(M.shape[0] for M in matrices.values()), sum(M.shape[1] + gap for M in matrices.values())
    figure = _sheet(figure, width, width * tall / wide + 0.4)
    grid = figure.subplots(
        1, len(matrices), squeeze=False, width_ratios=[M.shape[1] for M in matrices.values()]
    )[0]
    limit = max(float(np.abs(M).max()) for M in matrices.values())
    for ax, (heading, M) in zip(grid, matrices.items(), strict=True):
        # Every panel is as tall as the tallest matrix, so that tiles are equal and matrices centred.
        ax.imshow(M, cmap="RdBu_r", vmin=-1.5 * limit, vmax=1.5 * limit, interpolation="nearest")
        ax.set_ylim((M.shape[0] + tall) / 2 - 0.5, (M.shape[0] - tall) / 2 - 0.5)
        ax.set_axis_off()
        ax.set_title(heading, fontsize=10, color=INK, y=(tall + M.shape[0]) / (2 * tall))
        if M.size <= MANY:
            for (i, j), entry in np.ndenumerate(M):
                ax.text(j, i, f"{entry:g}", ha="center", va="center", fontsize=10, color=INK)
    for ax, sign in zip(grid, between, strict=False):
        ax.annotate(sign, (1, 0.5), xycoords="axes fraction", xytext=(0.5 * gap * 72 * width / wide, 0),
                    textcoords="offset points", ha="center", va="center", fontsize=16, color=INK)  # fmt: skip
    return figure


def gallery(images: Mapping[str, Array], *, figure: Figure | None = None, width: float = 8.0) -> Figure:
    """Images side by side, each on its own grey scale.

    Parameters
    ----------
    images : mapping of str to ndarray
        Heading and image.
    figure : Figure, optional
        Where to draw; by default a new pyplot figure.
    width : float
        Inches.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> len(gallery({"stripes": np.ones((4, 1)) * [0, 1, 0, 1]}, figure=Figure()).axes)
    1
    """
    ratios = [image.shape[1] / image.shape[0] for image in images.values()]
    figure = _sheet(figure, width, width / sum(ratios) + 0.3)
    grid = figure.subplots(1, len(images), squeeze=False, width_ratios=ratios)[0]
    for ax, (heading, image) in zip(grid, images.items(), strict=True):
        ax.imshow(image, cmap="gray")
        ax.set_title(heading, fontsize=9, color=INK)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_color(MUTED)  # a frame, so that white has an end
    return figure


def rank_one_errors(M: Array, *, ax: Axes | None = None) -> Axes:
    """``||M - c b a^T||`` over all directions of b and a in the plane, each with its best factor c.

    Parameters
    ----------
    M : ndarray of shape (2, 2)
    ax : Axes, optional
        Where to draw; by default a new figure.

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
    figure = _sheet(figure, width, width * (1.16 * d) / total)
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


def losses_against_rank(
    losses: Mapping[str, Array],
    *,
    trained: Mapping[int, float] | None = None,
    ylabel: str = "mean squared error",
    ax: Axes | None = None,
) -> Axes:
    """Loss at rank 0, 1, ... for several ways to choose an update; trained updates as dots.

    Parameters
    ----------
    losses : mapping of str to ndarray of shape (R + 1,)
        Name and losses; the first is the optimum, and drawn as such.
    trained : mapping of int to float, optional
        Losses of trained updates by their rank.
    ylabel : str
    ax : Axes, optional
        Where to draw; by default a new figure.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> curves = {"optimum": np.array([1.0, 0.2])}
    >>> ax = losses_against_rank(curves, trained={1: 0.21}, ax=Figure().add_subplot())
    >>> ax.get_ylabel()
    'mean squared error'
    """
    ax = axes(ax)
    styles = zip([OPTIMUM, FULL, ACCENT, *CYCLE], [3.0, 1.8, 1.8, *[1.8] * len(CYCLE)], strict=True)
    for (name, curve), (color, linewidth) in zip(losses.items(), styles, strict=False):
        ax.plot(np.arange(len(curve)), curve, color=color, linewidth=linewidth, label=name)
    if trained:
        ax.plot(list(trained), list(trained.values()), "o", color=LORA, markersize=6, markeredgecolor="white",
                label="trained by gradient descent", zorder=3)  # fmt: skip
    ax.legend(frameon=False, fontsize=9)
    ax.set_xlabel("rank of the update")
    ax.set_ylabel(ylabel)
    return ax


def grey_png(image: Array, *, low: float, high: float) -> bytes:
    """``image`` as a PNG file, black at ``low`` and white at ``high``: one byte a pixel before compression.

    Parameters
    ----------
    image : ndarray of shape (rows, columns)
    low, high : float
        What lies beyond them is clipped.

    Returns
    -------
    bytes

    Examples
    --------
    >>> grey_png(np.eye(2), low=0.0, high=1.0)[1:4]
    b'PNG'
    """
    from PIL import Image

    levels = np.clip((image - low) / (high - low), 0, 1) * 255
    stream = io.BytesIO()
    Image.fromarray(np.rint(levels).astype(np.uint8)).save(stream, "png")
    return stream.getvalue()


def _sheet(figure: Figure | None, width: float, height: float) -> Figure:
    if figure is None:
        import matplotlib.pyplot as plt

        figure = plt.figure()
    figure.set_size_inches(width, height)
    figure.set_layout_engine("constrained")
    return figure
