"""Figures of the linear algebra: spectra, what each rank keeps and loses, and what two subspaces share."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from lora_np.checks import Array
from lora_np.plots.style import ACCENT, CYCLE, INK, MUTED, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


ROUNDING = 1e-13  # relative errors below this say nothing


def singular_spectrum(
    spectra: Mapping[str, Array], *, rank: int | None = None, ax: Axes | None = None
) -> Axes:
    """Singular values, the largest first, on a logarithmic scale: where a line falls off, its rank ends.

    Parameters
    ----------
    spectra : mapping of str to ndarray
        Name and descending singular values of each matrix. Zeros have no place on the scale.
    rank : int, optional
        Shade the values that a matrix of this rank keeps.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = singular_spectrum({"W0": np.array([3.0, 1.0, 0.1])}, rank=1, ax=Figure().add_subplot())
    >>> ax.get_yscale()
    'log'
    """
    ax = axes(ax)
    if rank is not None:
        ax.axvspan(0.5, rank + 0.5, color=ACCENT, alpha=0.12, linewidth=0)
        ax.annotate(
            f"kept at r = {rank}",
            (rank + 0.5, 1), xycoords=("data", "axes fraction"),
            xytext=(5, -4), textcoords="offset points", color=ACCENT, fontsize=9, va="top",
        )  # fmt: skip
    lines = {name: (np.arange(1, len(s) + 1), np.asarray(s)) for name, s in spectra.items()}
    _draw(ax, lines, logarithmic=True)
    ax.set_xlabel("index i")
    ax.set_ylabel("singular value $\\sigma_i$")
    return ax


def rank_error_curves(
    curves: Mapping[str, Array],
    *,
    tolerance: float | None = None,
    logarithmic: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Relative error against rank, a line for each matrix or method, with the smallest ranks that are enough.

    Parameters
    ----------
    curves : mapping of str to ndarray
        Name and relative errors at rank 0, 1, ...
    tolerance : float, optional
        Draw this error, and mark on each line the smallest rank that meets it.
    logarithmic : bool
        Scale of the errors. On a logarithmic one, what is rounding beside the first is left out.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> curves = {"photograph": np.array([1.0, 0.2, 0.05, 0.0])}
    >>> ax = rank_error_curves(curves, tolerance=0.1, ax=Figure().add_subplot())
    >>> ax.get_xlabel()
    'rank r'
    """
    ax = axes(ax)
    lines = {}
    for name, errors in curves.items():
        shown = errors > (ROUNDING * errors[0] if logarithmic else -1)
        lines[name] = (np.flatnonzero(shown), errors[shown])
    if tolerance is not None:
        lines = _with_ranks(
            ax, lines, {name: errors <= tolerance for name, errors in curves.items()}, tolerance
        )
    _draw(ax, lines, logarithmic=logarithmic)
    ax.set_xlabel("rank r")
    ax.set_ylabel("relative error $\\|M - M_r\\| / \\|M\\|$")
    return ax


def energy_curves(curves: Mapping[str, Array], *, share: float | None = None, ax: Axes | None = None) -> Axes:
    """Share of the squared singular values that the best matrix of each rank keeps.

    Parameters
    ----------
    curves : mapping of str to ndarray
        Name and shares at rank 0, 1, ..., as from `lora_np.linalg.energy`.
    share : float, optional
        Draw this share, and mark on each line the smallest rank that keeps it.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = energy_curves({"W0": np.array([0.0, 0.9, 1.0])}, share=0.9, ax=Figure().add_subplot())
    >>> ax.get_ylabel()
    'energy kept'
    """
    from matplotlib.ticker import PercentFormatter

    ax = axes(ax)
    # Rank 0 keeps nothing, and has no place on a logarithmic axis.
    lines = {name: (np.arange(1, len(kept)), kept[1:]) for name, kept in curves.items()}
    if share is not None:
        lines = _with_ranks(ax, lines, {name: kept >= share for name, kept in curves.items()}, share)
    _draw(ax, lines, logarithmic=False)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:.0f}")
    ax.set_ylim(0, 1.03)
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set_xlabel("rank r")
    ax.set_ylabel("energy kept")
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


def compression(
    image: Array, approximations: Mapping[str, Array], *, figure: Figure | None = None, width: float = 9.0
) -> Figure:
    """An image and its low-rank approximations side by side; below each, what it lacks, on one scale.

    Parameters
    ----------
    image : ndarray of shape (d, k)
    approximations : mapping of str to ndarray
        Heading (rank, size, error) and approximation.
    figure : Figure, optional
        Where to draw; by default a new pyplot figure.
    width : float
        Inches.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> len(compression(np.eye(4), {"r = 1": np.zeros((4, 4))}, figure=Figure()).axes)
    4
    """
    if figure is None:
        import matplotlib.pyplot as plt

        figure = plt.figure()
    columns = 1 + len(approximations)
    figure.set_size_inches(width, 2 * width / columns * image.shape[0] / image.shape[1] + 0.35)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02)
    grid = figure.subplots(2, columns, squeeze=False)
    low, high = np.quantile(image, [0.005, 0.995])
    lacks = {heading: image - approximation for heading, approximation in approximations.items()}
    limit = max((float(np.quantile(np.abs(lack), 0.99)) for lack in lacks.values()), default=1.0)
    for ax, (heading, shown) in zip(grid[0], {"original": image, **approximations}.items(), strict=True):
        ax.imshow(shown, cmap="gray", vmin=low, vmax=high)
        ax.set_title(heading, fontsize=9, color=INK)
    for ax, lack in zip(grid[1, 1:], lacks.values(), strict=True):
        ax.imshow(lack, cmap="RdBu_r", vmin=-limit, vmax=limit)
    grid[1, 0].text(
        1, 0.5, "what each lacks:\nred too dark,\nblue too bright",
        transform=grid[1, 0].transAxes, ha="right", va="center", fontsize=9, color=MUTED,
    )  # fmt: skip
    for ax in grid.flat:
        ax.set_axis_off()
    return figure


def _draw(ax: Axes, lines: Mapping[str, tuple[Array, Array]], *, logarithmic: bool) -> None:
    """Lines, each with its name where it is farthest from the others, on the side away from the nearest."""
    from matplotlib.patheffects import withStroke

    scale = np.log if logarithmic else np.asarray
    if logarithmic:
        ax.set_yscale("log")
        lines = {name: (x[y > 0], y[y > 0]) for name, (x, y) in lines.items() if (y > 0).any()}
    for (name, (x, y)), color in zip(lines.items(), cycle(CYCLE), strict=False):
        ax.plot(x, y, color=color, linewidth=1.8, marker="o" if len(x) <= 40 else "", markersize=3.5)
        others = [np.interp(x, *line) for other, line in lines.items() if other != name]
        gaps = scale(y) - scale(np.array(others)) if others else np.ones((1, len(x)))
        margin = len(x) // 10
        place = margin + int(np.argmax(np.abs(gaps).min(axis=0)[margin : len(x) - margin]))
        above = gaps[np.argmin(np.abs(gaps[:, place])), place] >= 0
        right = above == (y[-1] < y[0])  # the free corner beside a falling line is at its upper right
        ax.annotate(
            name, (x[place], y[place]),
            xytext=(5 if right else -5, 4 if above else -4), textcoords="offset points",
            ha="left" if right else "right", va="bottom" if above else "top", color=color, fontsize=9,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )  # fmt: skip


def _with_ranks(
    ax: Axes, lines: Mapping[str, tuple[Array, Array]], enough: Mapping[str, Array], level: float
) -> dict[str, tuple[Array, Array]]:
    """The lines renamed with the first rank that is good enough, which is marked at ``level``."""
    ax.axhline(level, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    named = {}
    for name, line in lines.items():
        if not enough[name].any():
            named[name] = line
            continue
        rank = int(np.argmax(enough[name]))
        ax.plot(rank, level, "o", color=ACCENT, markersize=6, markeredgecolor="white", zorder=3)
        named[f"{name}: r = {rank}"] = line
    return named
