"""How exact a slope by finite differences is."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from lora_np.checks import Array
from lora_np.plots.style import CYCLE, MUTED, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def slope_errors(steps: Array, errors: Mapping[str, Array], *, ax: Axes | None = None) -> Axes:
    """Error of a finite difference against its step: a long step meets the bend, a short one loses digits.

    Parameters
    ----------
    steps : ndarray of shape (n,)
        Increasing.
    errors : mapping of str to ndarray of shape (n,)
        Name and relative error of each way to take the difference. Zeros have no place on the scale.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> steps = np.geomspace(1e-8, 1e-1, 8)
    >>> ax = slope_errors(steps, {"central": steps**2 + 1e-16 / steps}, ax=Figure().add_subplot())
    >>> ax.get_xscale(), ax.get_yscale()
    ('log', 'log')
    """
    ax = axes(ax)
    ax.set_xscale("log")
    ax.set_yscale("log")
    heights = {name: float(np.log(error[error > 0]).mean()) for name, error in errors.items()}
    for (name, error), color in zip(errors.items(), cycle(CYCLE), strict=False):
        shown = np.flatnonzero(error > 0)
        ax.plot(steps[shown], error[shown], color=color, linewidth=1.8)
        best = shown[np.argmin(error[shown])]
        ax.plot(steps[best], error[best], "o", color=color, markersize=6, markeredgecolor="white", zorder=3)
        middle = (best + len(steps)) // 2  # of the branch that rises to the right
        above = heights[name] == max(heights.values())
        ax.annotate(
            f"{name}\n{error[best]:.0e} at {steps[best]:.0e}", (steps[middle], error[middle]),
            xytext=(-8 if above else 8, 6 if above else 0), textcoords="offset points",
            ha="right" if above else "left", va="center", color=color, fontsize=9,
        )  # fmt: skip
    notes = [(0.01, "left", "too short:\ndigits are lost"), (0.99, "right", "too long:\nthe curve bends")]
    for x, side, text in notes:
        ax.annotate(text, (x, 0.04), xycoords="axes fraction", ha=side, va="bottom", color=MUTED, fontsize=9)
    ax.margins(y=0.12)
    ax.set_xlabel("step")
    ax.set_ylabel("relative error of the slope")
    return ax
