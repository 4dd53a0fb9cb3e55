"""Numbers over two quantities, as a map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lora_np.checks import Array
from lora_np.plots.style import INK, MUTED, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def heatmap(
    values: Array,
    *,
    xlabel: str,
    ylabel: str,
    rows: npt.ArrayLike | None = None,
    columns: npt.ArrayLike | None = None,
    label: str = "",
    limits: tuple[float, float] | None = None,
    numbers: str = "",
    ax: Axes | None = None,
) -> Axes:
    """A map of ``values``, the first row at the bottom: bright is low.

    Parameters
    ----------
    values : ndarray of shape (n, m)
        What is not finite is left out.
    xlabel, ylabel : str
        What changes along a row, and along a column.
    rows, columns : array_like of shape (n,) and (m,), optional
        The places of the rows and columns, evenly spaced, or their names; by default 1, 2, 3, ...
    label : str
        What the values are: next to the colour bar.
    limits : (float, float), optional
        The values that are brightest and darkest; by default the least and the largest.
    numbers : str
        A format such as ``".3f"``: write each value into its tile instead of drawing a colour bar; then rows
        and columns need not be evenly spaced.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        The axes with the drawing.

    See Also
    --------
    lines : One quantity at a time.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = heatmap(np.array([[0.2, 0.1]]), rows=[8], columns=[1e-3, 1e-2], numbers=".3f",
    ...              xlabel="learning rate", ylabel="alpha", ax=Figure().add_subplot())
    >>> [text.get_text() for text in ax.texts]
    ['0.200', '0.100']
    """
    ax = axes(ax, size=(6.8, 4.2))
    ax.grid(False)
    values = np.asarray(values, dtype=np.float64)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if limits is None else limits
    y, x = (
        np.arange(1, n + 1) if given is None else np.asarray(given)
        for n, given in zip(values.shape, (rows, columns), strict=True)
    )
    named = numbers or "U" in x.dtype.kind + y.dtype.kind
    extent = None if named else (*edges(x), *edges(y))
    image = ax.imshow(values, cmap="cividis_r", vmin=low, vmax=high, aspect="auto", interpolation="nearest",
                      origin="lower", extent=extent)  # fmt: skip
    if named:
        for axis, names, step in ((ax.xaxis, x, 1 + len(x) // 24), (ax.yaxis, y, 1)):
            texts = [name if isinstance(name, str) else f"{name:g}" for name in names[::step]]
            axis.set_ticks(range(0, len(names), step), texts)
        ax.tick_params(length=0)
    if numbers:
        for (row, column), value in np.ndenumerate(values):
            text = f"{value:{numbers}}" if np.isfinite(value) else ""
            color = INK if value <= (low + high) / 2 else "white"
            ax.text(column, row, text, ha="center", va="center", fontsize=9, color=color)
    else:
        bar = ax.figure.colorbar(image, ax=ax, fraction=0.05, pad=0.03, label=label)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=9, color=MUTED)
    ax.spines[:].set_visible(False)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return ax


def edges(places: Array) -> tuple[float, float]:
    half = (places[-1] - places[0]) / max(2 * (len(places) - 1), 1) or 0.5
    return float(places[0] - half), float(places[-1] + half)
