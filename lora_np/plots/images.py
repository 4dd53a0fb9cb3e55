"""Images beside one another, on one scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lora_np.checks import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def strips(
    images: Mapping[str, Array],
    *,
    errors: Mapping[str, Array] | None = None,
    figure: Figure | None = None,
    width: float = 7.5,
) -> Figure:
    """Images under each other with a heading each, and below them signed error maps on one symmetric scale.

    Parameters
    ----------
    images : mapping of str to ndarray
        Heading and image; all on the grey scale of the first.
    errors : mapping of str to ndarray, optional
        Heading and signed error; blue is too low, red too high, white is right.
    figure : Figure, optional
        Where to draw; by default a new pyplot figure.
    width : float
        Inches.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> len(strips({"truth": np.eye(4)}, errors={"error": np.eye(4)}, figure=Figure()).axes)
    3
    """
    errors = errors or {}
    panels = [*images.values(), *errors.values()]
    height = sum(0.9 * width * panel.shape[0] / panel.shape[1] + 0.24 for panel in panels)
    if figure is None:
        import matplotlib.pyplot as plt

        figure = plt.figure()
    figure.set_size_inches(width, height)
    figure.set_layout_engine("constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    first = next(iter(images.values()))
    low, high = np.quantile(first, [0.005, 0.995])
    for ax, (heading, image) in zip(grid, images.items(), strict=False):
        ax.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        ax.set_title(heading, fontsize=9, loc="left", pad=3)
    limit = max((float(np.quantile(np.abs(e), 0.995)) for e in errors.values()), default=1.0)
    for ax, (heading, error) in zip(grid[len(images) :], errors.items(), strict=True):
        shown = ax.imshow(error, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        ax.set_title(heading, fontsize=9, loc="left", pad=3)
    for ax in grid:
        ax.set_axis_off()
    if errors:
        bar = figure.colorbar(shown, ax=list(grid[len(images) :]), fraction=0.03, pad=0.01)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)
    return figure
