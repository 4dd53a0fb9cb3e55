"""Columns in the plane and the line that a rank-one matrix lays them on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lora_np.checks import Array
from lora_np.plots.style import CYCLE, INK, LORA, axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def columns_on_line(
    M: Array, approximations: Mapping[str, Array], *, figure: Figure | None = None, width: float = 9.0
) -> Figure:
    """Columns of ``M`` as arrows, and how far each has to move onto the line of a rank-one approximation.

    Parameters
    ----------
    M : ndarray of shape (2, k)
    approximations : mapping of str to ndarray of shape (2, k)
        Heading and a matrix of rank one, a panel each.
    figure : Figure, optional
        Where to draw; by default a new pyplot figure.
    width : float
        Inches.

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
    if figure is None:
        import matplotlib.pyplot as plt

        figure = plt.figure()
    wide, tall = high - low
    figure.set_size_inches(width, width / panels * tall / wide + 0.5)
    figure.set_layout_engine("constrained")
    grid = figure.subplots(1, panels, squeeze=False, sharex=True, sharey=True)[0]
    for ax, (heading, near) in zip(grid, approximations.items(), strict=True):
        axes(ax).grid(True, color="#e6e6e6", linewidth=0.8)
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
