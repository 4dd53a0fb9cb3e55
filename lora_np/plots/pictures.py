"""Draw matrices as tiles, images, approximations and heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lora_np.checks import Array, arrays, real, refuse
from lora_np.plots.style import INK, MUTED, axes, signed, sized_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def matrix_tiles(
    matrices: Mapping[str, Array],
    *,
    between: Sequence[str] = (),
    figure: Figure | None = None,
    width: float = 7.5,
) -> Figure:
    """Draw matrices side by side in equal tiles: blue below zero, white at zero, orange above.

    Parameters
    ----------
    matrices : mapping of str to ndarray
        From a heading to a matrix with few entries, which are written in the tiles.
    between : sequence of str
        Signs between neighbours, such as ``["times", "="]``; none by default.
    figure : Figure, optional
        The figure to draw in; by default a new pyplot figure.
    width : float
        The width of the figure in inches.

    Returns
    -------
    Figure
        The figure with the drawing.

    See Also
    --------
    gallery : Draw images without numbers.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> b, a = np.array([[1.0], [2.0]]), np.array([[3.0, 4.0]])
    >>> figure = matrix_tiles({"B": b, "A": a, "B A": b @ a}, between="·=", figure=Figure())
    >>> [ax.get_title() for ax in figure.axes]
    ['B', 'A', 'B A']
    """
    matrices = arrays(matrices) or refuse("matrix_tiles needs at least one matrix, got none")
    heights, widths = zip(*(M.shape for M in matrices.values()), strict=True)
    gap, tall = 0.16 * max(widths), max(heights)
    wide = sum(widths) + gap * len(widths)
    figure = sized_figure(figure, width, width * tall / wide + 0.4)
    grid = figure.subplots(1, len(matrices), squeeze=False, width_ratios=widths)[0]
    limit = max(np.abs(M).max() for M in matrices.values())
    for ax, (heading, M) in zip(grid, matrices.items(), strict=True):
        # every panel has the height of the tallest matrix, so that all tiles have the same size
        ax.imshow(M, cmap=signed(), vmin=-1.5 * limit, vmax=1.5 * limit, interpolation="nearest")
        ax.set_ylim((M.shape[0] + tall) / 2 - 0.5, (M.shape[0] - tall) / 2 - 0.5)
        ax.set_axis_off()
        ax.set_title(heading, fontsize=10, color=INK, y=(tall + M.shape[0]) / (2 * tall))
        for (i, j), entry in np.ndenumerate(M):
            ax.text(j, i, f"{entry:g}", ha="center", va="center", fontsize=10, color=INK)
    for ax, sign in zip(grid, between, strict=False):
        ax.annotate(sign, (1, 0.5), xycoords="axes fraction",
        xytext=(0.5 * gap * 72 * width / wide, 0),
                    textcoords="offset points", ha="center", va="center", fontsize=16,
                    color=INK)  # fmt: skip
    return figure


def gallery(
    images: Mapping[str, Array],
    *,
    stacked: bool = False,
    figure: Figure | None = None,
    width: float = 8.0,
) -> Figure:
    """Draw images side by side or one below the other, each on its own grey scale.

    Parameters
    ----------
    images : mapping of str to ndarray
        From a heading to an image.
    stacked : bool
        Draw the images under each other, which is better for wide ones.
    figure : Figure, optional
        The figure to draw in; by default a new pyplot figure.
    width : float
        The width of the figure in inches.

    Returns
    -------
    Figure
        The figure with the drawing.

    See Also
    --------
    image_approximations : Draw approximations of one image.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> len(gallery({"stripes": np.ones((4, 1)) * [0, 1, 0, 1]}, figure=Figure()).axes)
    1
    """
    images = arrays(images) or refuse("gallery needs at least one image, got none")
    ratios = [image.shape[1] / image.shape[0] for image in images.values()]
    if stacked:
        figure = sized_figure(figure, width, sum(width / ratio + 0.3 for ratio in ratios))
        grid = figure.subplots(len(images), squeeze=False)
    else:
        figure = sized_figure(figure, width, width / sum(ratios) + 0.3)
        grid = figure.subplots(1, len(images), squeeze=False, width_ratios=ratios)
    for ax, (heading, image) in zip(grid.flat, images.items(), strict=True):
        ax.imshow(image, cmap="gray")
        ax.set_title(heading, fontsize=9, color=INK)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_color(MUTED)  # a frame shows the edges of a white image
    return figure


def image_approximations(
    image: Array,
    approximations: Mapping[str, Array],
    *,
    figure: Figure | None = None,
    width: float = 9.0,
) -> Figure:
    """Draw an image and its low-rank approximations on the same grey scale, above the residuals.

    Parameters
    ----------
    image : ndarray of shape (d, k)
        The image, in grey values.
    approximations : mapping of str to ndarray
        From a heading (rank, size, error) to an approximation.
    figure : Figure, optional
        The figure to draw in; by default a new pyplot figure.
    width : float
        The width of the figure in inches.

    Returns
    -------
    Figure
        The figure with the drawing.

    See Also
    --------
    gallery : Draw any images.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> len(image_approximations(np.eye(4), {"r = 1": np.zeros((4, 4))}, figure=Figure()).axes)
    4
    """
    image, approximations = real("image", image), arrays(approximations)
    columns = 1 + len(approximations)
    height = 2 * width / columns * image.shape[0] / image.shape[1] + 0.35
    figure = sized_figure(figure, width, height, w_pad=0.02, h_pad=0.02)
    grid = figure.subplots(2, columns, squeeze=False)
    low, high = np.quantile(image, [0.005, 0.995])
    lacks = [image - approximation for approximation in approximations.values()]
    limit = max((np.quantile(np.abs(lack), 0.99) for lack in lacks), default=1.0)
    for ax, (heading, shown) in zip(
        grid[0], {"original": image, **approximations}.items(), strict=True
    ):
        ax.imshow(shown, cmap="gray", vmin=low, vmax=high)
        ax.set_title(heading, fontsize=9, color=INK)
    for ax, lack in zip(grid[1, 1:], lacks, strict=True):
        ax.imshow(lack, cmap=signed(), vmin=-limit, vmax=limit)
    grid[1, 0].text(
        1, 0.5, "what each lacks:\norange too dark,\nblue too bright",
        transform=grid[1, 0].transAxes, ha="right", va="center", fontsize=9, color=MUTED,
    )  # fmt: skip
    for ax in grid.flat:
        ax.set_axis_off()
    return figure


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
    """Draw a matrix as a heat map, with the first row at the bottom; low values are bright.

    Parameters
    ----------
    values : ndarray of shape (n, m)
        The matrix; values that are not finite are left out.
    xlabel, ylabel : str
        The quantities that change along a row, and along a column.
    rows, columns : array_like of shape (n,) and (m,), optional
        The values of these quantities, evenly spaced, or names; by default 1, 2, 3, ...
    label : str
        The quantity that is drawn, for the colour bar.
    limits : (float, float), optional
        The values that are brightest and darkest; by default the least and the largest.
    numbers : str
        A format such as ``".3f"``: write each value into its tile instead of drawing a colour bar.
        Rows and columns then need not be evenly spaced.
    ax : Axes, optional
        The axes to draw in; by default the axes of a new figure.

    Returns
    -------
    Axes
        The axes with the drawing.

    See Also
    --------
    lines : Draw curves.

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
    values = real("values", values)
    finite = values[np.isfinite(values)]
    if limits is None:
        limits = (finite.min(), finite.max()) if finite.size else (0, 1)
    low, high = limits
    y, x = (
        np.arange(1, n + 1) if given is None else np.asarray(given)
        for n, given in zip(values.shape, (rows, columns), strict=True)
    )
    named = numbers or "U" in x.dtype.kind + y.dtype.kind
    extent = None if named else (*edges(x), *edges(y))
    image = ax.imshow(values, cmap="cividis_r", vmin=low, vmax=high, aspect="auto",
    interpolation="nearest",
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
    return places[0] - half, places[-1] + half
