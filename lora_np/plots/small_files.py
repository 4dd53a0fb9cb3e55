"""Figures of adapters made small: what each byte buys, and what rounding leaves of an update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lora_np.checks import Array
from lora_np.plots.style import ACCENT, CYCLE, INK, axes, label_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def error_against_bytes(
    curves: Mapping[str, tuple[Array, Array]],
    *,
    trained: Mapping[int, tuple[int, float]] | None = None,
    base: float | None = None,
    ylabel: str = "mean squared error, held out",
    ax: Axes | None = None,
) -> Axes:
    """Error of a model against the size of its adapter's file, a line for each way to make the file small.

    Parameters
    ----------
    curves : mapping of str to (ndarray, ndarray)
        Name, sizes in bytes and errors.
    trained : mapping of int to (int, float), optional
        Rank, size and error of adapters that were trained at their rank, as dots.
    base : float, optional
        Error without any adapter.
    ylabel : str
    ax : Axes, optional
        Where to draw; by default a new figure.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> curves = {"cut": (np.array([1e3, 2e3]), np.array([0.2, 0.1]))}
    >>> ax = error_against_bytes(curves, trained={1: (1_000, 0.15)}, base=0.3, ax=Figure().add_subplot())
    >>> ax.get_xlabel()
    'size of the file in kB'
    """
    ax = axes(ax, size=(6.8, 4.0))
    if base is not None:
        ax.axhline(base, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        last = max(float(np.max(sizes)) for sizes, _ in curves.values()) / 1e3
        label_line(ax, last, base, "no adapter", INK, xytext=(0, 7), ha="right")
    for (name, (sizes, errors)), color in zip(curves.items(), CYCLE, strict=False):
        ax.plot(np.asarray(sizes) / 1e3, errors, "o-", color=color, linewidth=1.8, markersize=4, label=name)
    if trained:
        places, heights = zip(*trained.values(), strict=True)
        ax.plot(np.array(places) / 1e3, heights, "D", color=ACCENT, markersize=7, markeredgecolor="white",
                label="trained at its rank", zorder=3)  # fmt: skip
    for rank, (size, error) in (trained or {}).items():
        label_line(ax, size / 1e3, error, f"r = {rank}", ACCENT, xytext=(0, -12), ha="center")
    ax.legend(frameon=False, fontsize=9)
    ax.set_xlim(left=0)
    ax.set_xlabel("size of the file in kB")
    ax.set_ylabel(ylabel)
    return ax


def rounding_against_strength(
    strengths: Array, errors: Mapping[str, Array], *, ax: Axes | None = None
) -> Axes:
    """Share of an update that rounding destroys, against its strength, a line for each number format.

    Parameters
    ----------
    strengths : ndarray of shape (n,)
        Factors of the update.
    errors : mapping of str to ndarray of shape (n,)
        Name of the format, and relative errors of the merged update.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> strengths = np.array([1.0, 0.1])
    >>> ax = rounding_against_strength(strengths, {"BF16": 0.01 / strengths}, ax=Figure().add_subplot())
    >>> ax.get_ylabel()
    'share of the update lost by rounding'
    """
    from matplotlib.ticker import PercentFormatter

    ax = axes(ax)
    for (name, lost), color in zip(errors.items(), CYCLE, strict=False):
        ax.plot(strengths, lost, "o-", color=color, linewidth=1.8, markersize=4)
        last = int(np.argmin(strengths))
        label_line(ax, strengths[last], lost[last], name, color)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    ax.invert_xaxis()  # from left to right the update becomes weaker
    ax.set_xlabel("strength of the update, as a multiple of the trained one")
    ax.set_ylabel("share of the update lost by rounding")
    return ax
