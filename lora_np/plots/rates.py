"""Figures of settings: where on the map of alpha and learning rate training works, and at which rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lora_np.checks import Array
from lora_np.plots.style import CYCLE, INK, MUTED, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
        The loss before training: what is above it is as dark as it is.
    ax : Axes, optional
        Where to draw; by default a new figure.

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


def errors_against_rate(
    curves: Mapping[str, Mapping[float, Sequence[float]]],
    *,
    start: float | None = None,
    ylabel: str = "mean squared error, held out",
    ax: Axes | None = None,
) -> Axes:
    """Error against the learning rate, the median over seeds, a line for each method.

    Parameters
    ----------
    curves : mapping of str to mapping of float to sequence of float
        For each name the errors of all seeds at each rate.
    start : float, optional
        The error before training.
    ylabel : str
    ax : Axes, optional
        Where to draw; by default a new figure.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> curves = {"lora": {1e-3: [0.3, 0.32], 1e-2: [0.2, 0.21]}}
    >>> errors_against_rate(curves, ax=Figure().add_subplot()).get_xscale()
    'log'
    """
    ax = axes(ax, size=(6.8, 4.0))
    if start is not None:
        ax.axhline(start, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), label="before training")
    for i, ((name, errors), color) in enumerate(zip(curves.items(), CYCLE, strict=False)):
        rates = sorted(errors)
        middle = [float(np.median(errors[rate])) for rate in rates]
        ax.plot(rates, middle, "osD^vP*"[i] + "-", color=color, linewidth=1.6, markersize=5, label=name)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.legend(frameon=False, fontsize=9, ncols=2)
    ax.set_xlabel("learning rate")
    ax.set_ylabel(ylabel)
    return ax
