"""Draw curves with labels beside the lines, such as spectra and errors against rank."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from lora_np.checks import Array, arrays, plain, real
from lora_np.plots.style import ACCENT, CYCLE, FULL, MUTED, axes, label_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes


ROUNDING = 1e-13  # relative errors below this are due to rounding


def lines(
    curves: Mapping[str, Array | tuple[Array, Array]],
    *,
    xlabel: str,
    ylabel: str,
    logarithmic: str = "",
    dashed: str | None = None,
    level: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw one line for each name, and label it where it is farthest from the other lines.

    A line whose name begins with "full" has the colour of full updates.

    Parameters
    ----------
    curves : mapping of str to ndarray or (ndarray, ndarray)
        From a name to y values, at x = 1, 2, 3, ..., or to x and y values. Empty curves are left
        out.
    xlabel, ylabel : str
        The labels of the axes, with units.
    logarithmic : {"", "x", "y", "xy"}
        The axes with a logarithmic scale, on which only values above zero are drawn.
    dashed : str, optional
        The name of a curve that is a reference, drawn dashed and in a muted colour.
    level : float, optional
        A y value to draw as a line; the first point of each curve that reaches it, from above or
        below, is marked.
    ax : Axes, optional
        The axes to draw in; by default the axes of a new figure.

    Returns
    -------
    Axes
        The axes, to which points, limits or a title can be added.

    See Also
    --------
    singular_spectrum : Draw singular values against their index.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = lines({"cut": np.array([3.0, 1.0])}, xlabel="rank", ylabel="error",
    ...     ax=Figure().add_subplot())
    >>> ax.get_lines()[0].get_xdata()
    array([1, 2])
    """
    from matplotlib.ticker import MaxNLocator

    ax = axes(ax)
    given = {
        name: (plain(name, curve[0]), real(name, curve[1]))
        if isinstance(curve, tuple)
        else (np.arange(1, len(curve) + 1), real(name, curve))
        for name, curve in curves.items()
    }
    given = {name: line for name, line in given.items() if len(line[1])}
    if "x" in logarithmic:
        ax.set_xscale("log")
    elif all(np.issubdtype(x.dtype, np.integer) for x, _ in given.values()):
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    if level is not None:
        ax.axhline(level, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        given = dict(_reached(ax, name, line, level) for name, line in given.items())
    if "y" in logarithmic:
        ax.set_yscale("log")
        given = {name: (x[y > 0], y[y > 0]) for name, (x, y) in given.items() if (y > 0).any()}
    colors = cycle(CYCLE)
    for name, (x, y) in given.items():
        color = MUTED if name == dashed else FULL if name.startswith("full") else next(colors)
        style = (0, (4, 3)) if name == dashed else "-"
        marker = "o" if len(x) <= 40 else ""
        ax.plot(x, y, color=color, linestyle=style, linewidth=1.8, marker=marker, markersize=3.5)
        place, above, right = _free_place(ax, name, given)
        label_line(
            ax, x[place], y[place], name, color,
            xytext=(5 if right else -5, 4 if above else -4), ha="left" if right else "right",
            va="bottom" if above else "top",
        )  # fmt: skip
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return ax


def singular_spectrum(
    spectra: Mapping[str, Array], *, rank: int | None = None, ax: Axes | None = None
) -> Axes:
    """Draw singular values on a logarithmic scale, which makes the rank of a matrix visible.

    Parameters
    ----------
    spectra : mapping of str to ndarray
        From the name of a matrix to its descending singular values. Zeros cannot be drawn.
    rank : int, optional
        Shade the values that a matrix of this rank keeps.
    ax : Axes, optional
        The axes to draw in; by default the axes of a new figure.

    Returns
    -------
    Axes
        The axes with the drawing.

    See Also
    --------
    lines : Draw any lines with their names.

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
        label_line(
            ax, rank + 0.5, 0, f"kept at r = {rank}", ACCENT,
            xycoords=("data", "axes fraction"), xytext=(5, 4), va="bottom",
        )  # fmt: skip
    return lines(
        spectra, xlabel="index i", ylabel="singular value $\\sigma_i$", logarithmic="y", ax=ax
    )


def rank_error_curves(
    curves: Mapping[str, Array], *, tolerance: float | None = None, ax: Axes | None = None
) -> Axes:
    """Draw relative errors against rank, and mark the smallest rank that meets ``tolerance``.

    Parameters
    ----------
    curves : mapping of str to ndarray
        From a name to relative errors at rank 0, 1, ...; errors that are only rounding are left
        out.
    tolerance : float, optional
        An error to draw as a line; the smallest rank of each curve that meets it is marked.
    ax : Axes, optional
        The axes to draw in; by default the axes of a new figure.

    Returns
    -------
    Axes
        The axes with the drawing.

    See Also
    --------
    lines : Draw any lines with their names.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> curves = {"photograph": np.array([1.0, 0.2, 0.05, 0.0])}
    >>> ax = rank_error_curves(curves, tolerance=0.1, ax=Figure().add_subplot())
    >>> ax.get_xlabel()
    'rank r'
    """
    places = {
        name: (np.arange(len(errors)), np.where(errors > ROUNDING * errors[:1], errors, 0))
        for name, errors in arrays(curves).items()
    }
    ylabel = "relative error $\\|M - M_r\\| / \\|M\\|$"
    return lines(places, xlabel="rank r", ylabel=ylabel, logarithmic="y", level=tolerance, ax=ax)


def _free_place(
    ax: Axes, name: str, lines: Mapping[str, tuple[Array, Array]]
) -> tuple[int, bool, bool]:
    """Return the index of the point to label, and the label's side: above or not, right or not."""

    def unit(axis: int) -> dict[str, Array]:
        """Map the values of all lines to positions between 0 and 1 along an axis."""
        scale = np.log if (ax.get_xscale, ax.get_yscale)[axis]() == "log" else np.asarray
        places = {key: scale(line[axis]) for key, line in lines.items()}
        every = np.concatenate(list(places.values()))
        return {
            key: (place - every.min()) / (np.ptp(every) or 1.0) for key, place in places.items()
        }

    xs, ys = unit(0), unit(1)
    x, y = xs.pop(name), ys.pop(name)
    gaps, free = np.ones((1, len(x))), np.ones(len(x))
    for key, other in xs.items():
        order = np.argsort(other)
        # of two lines that coincide, label the first above and the second below
        tie = 1e-9 if list(lines).index(key) > list(lines).index(name) else -1e-9
        gaps = np.concatenate([gaps, [y - np.interp(x, other[order], ys[key][order]) + tie]])
        free = np.minimum(free, np.hypot(x[:, None] - other, y[:, None] - ys[key]).min(axis=1))
    above = np.take_along_axis(gaps, np.abs(gaps).argmin(axis=0)[None], axis=0)[0] >= 0
    # a falling line has free space at its upper right and lower left; a rising line, at its
    # upper left and lower right
    right = above == (y[-1] < y[0])
    width = 0.012 * len(name)  # the estimated width of the name, as a share of the axes
    fits = np.where(right, x + width <= 1, x >= width)
    margin = len(x) // 10
    fits[:margin] = fits[len(x) - margin :] = False
    place = int(np.argmax(np.where(fits, free, free - 2)))
    return place, bool(above[place]), bool(right[place])


def _reached(
    ax: Axes, name: str, line: tuple[Array, Array], level: float
) -> tuple[str, tuple[Array, Array]]:
    """Mark where the line first reaches ``level``; add that x to its name; return name and line."""
    x, y = line
    reached = np.flatnonzero((y <= level) if y[0] > level else (y >= level))
    if not len(reached):
        return name, line
    place = x[reached[0]]
    ax.plot(place, level, "o", color=ACCENT, markersize=6, markeredgecolor="white", zorder=3)
    return f"{name}: {place:g}", line
