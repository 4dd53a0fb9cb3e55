"""What two updates share: angles between their subspaces, and how near each direction has a relative."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_np.checks import Array
from lora_np.plots.style import CYCLE, INK, MUTED, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def subspace_angles(
    angles: Mapping[str, Array], *, chance: Array | None = None, ax: Axes | None = None
) -> Axes:
    """Principal angles in degrees, the smallest first: 0 is a shared direction, 90 is nothing in common.

    Parameters
    ----------
    angles : mapping of str to ndarray
        Name and increasing angles, in degrees.
    chance : ndarray, optional
        What random subspaces of these sizes have, drawn as a reference.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = subspace_angles({"two seeds": np.array([5.0, 80.0])}, ax=Figure().add_subplot())
    >>> ax.get_ylabel()
    'principal angle, in degrees'
    """
    ax = axes(ax)
    if chance is not None:
        _line(ax, "by chance", chance, MUTED, linestyle=(0, (4, 3)))
    for (name, line), color in zip(angles.items(), cycle(CYCLE), strict=False):
        _line(ax, name, line, color)
    ax.legend(frameon=False, fontsize=9, loc="lower right")
    ax.set_ylim(0, 93)
    ax.set_yticks(range(0, 91, 15))
    ax.set_xlabel("index of the angle")
    ax.set_ylabel("principal angle, in degrees")
    return ax


def closest_directions(
    cosines: Mapping[str, Array],
    *,
    threshold: float | None = None,
    reference: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """For each direction of a tuned weight the cosine with the closest of the base; low ones are intruders.

    Parameters
    ----------
    cosines : mapping of str to ndarray
        Name and largest absolute cosine of each leading direction.
    threshold : float, optional
        Shade what lies below: the intruders.
    reference : str, optional
        A name in ``cosines`` that is drawn as a control, in dashes.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = closest_directions({"LoRA": np.array([1.0, 0.3])}, threshold=0.6, ax=Figure().add_subplot())
    >>> ax.get_xlabel()
    'singular direction of the tuned weight'
    """
    ax = axes(ax)
    if threshold is not None:
        ax.axhspan(0, threshold, color="#f2f2f2", linewidth=0, zorder=0)
        ax.annotate(
            "intruders", (0.01, threshold), xycoords=("axes fraction", "data"),
            xytext=(0, -4), textcoords="offset points", va="top", color=MUTED, fontsize=9,
        )  # fmt: skip
    colors = cycle(CYCLE)
    for name, line in cosines.items():
        if name == reference:
            _line(ax, name, line, INK, linestyle=(0, (4, 3)))
        else:
            _line(ax, name, line, next(colors))
    ax.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 0.02))
    ax.set_ylim(0, 1.03)
    ax.set_xlabel("singular direction of the tuned weight")
    ax.set_ylabel("cosine with the closest of $W_0$")
    return ax


def _line(ax: Axes, name: str, values: Array, color: str, linestyle: Any = "-") -> None:
    """Against 1, 2, 3 ..., with whole numbers on the axis."""
    from matplotlib.ticker import MaxNLocator

    ax.plot(
        np.arange(1, len(values) + 1), values,
        label=name, color=color, linestyle=linestyle, linewidth=1.8, marker="o", markersize=3.5,
    )  # fmt: skip
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
