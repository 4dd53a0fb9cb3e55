"""Matrices as pictures: side by side, as tiles, with what each approximation lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lora_np.checks import Array
from lora_np.plots.style import INK, MUTED, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MANY = 100  # matrices with more entries than this are shown without their numbers


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

    Returns
    -------
    Figure
        The figure with the drawing.

    See Also
    --------
    gallery : Pictures instead of numbers.

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
    figure = sheet(figure, width, width * tall / wide + 0.4)
    widths = [M.shape[1] for M in matrices.values()]
    grid = figure.subplots(1, len(matrices), squeeze=False, width_ratios=widths)[0]
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


def gallery(
    images: Mapping[str, Array], *, stacked: bool = False, figure: Figure | None = None, width: float = 8.0
) -> Figure:
    """Images side by side, or under each other, each on its own grey scale.

    Parameters
    ----------
    images : mapping of str to ndarray
        Heading and image.
    stacked : bool
        Under each other, which suits wide ones.
    figure : Figure, optional
        Where to draw; by default a new pyplot figure.
    width : float
        Inches.

    Returns
    -------
    Figure
        The figure with the drawing.

    See Also
    --------
    compression : Of one picture at several ranks.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> len(gallery({"stripes": np.ones((4, 1)) * [0, 1, 0, 1]}, figure=Figure()).axes)
    1
    """
    ratios = [image.shape[1] / image.shape[0] for image in images.values()]
    if stacked:
        figure = sheet(figure, width, sum(width / ratio + 0.3 for ratio in ratios))
        grid = figure.subplots(len(images), squeeze=False)
    else:
        figure = sheet(figure, width, width / sum(ratios) + 0.3)
        grid = figure.subplots(1, len(images), squeeze=False, width_ratios=ratios)
    for ax, (heading, image) in zip(grid.flat, images.items(), strict=True):
        ax.imshow(image, cmap="gray")
        ax.set_title(heading, fontsize=9, color=INK)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_color(MUTED)  # a frame, so that white has an end
    return figure


def compression(
    image: Array, approximations: Mapping[str, Array], *, figure: Figure | None = None, width: float = 9.0
) -> Figure:
    """An image and its low-rank approximations side by side; below each, what it lacks, on one scale.

    Parameters
    ----------
    image : ndarray of shape (d, k)
        In grey.
    approximations : mapping of str to ndarray
        Heading (rank, size, error) and approximation.
    figure : Figure, optional
        Where to draw; by default a new pyplot figure.
    width : float
        Inches.

    Returns
    -------
    Figure
        The figure with the drawing.

    See Also
    --------
    gallery : Any pictures.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> len(compression(np.eye(4), {"r = 1": np.zeros((4, 4))}, figure=Figure()).axes)
    4
    """
    columns = 1 + len(approximations)
    height = 2 * width / columns * image.shape[0] / image.shape[1] + 0.35
    figure = sheet(figure, width, height, w_pad=0.02, h_pad=0.02)
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
