"""Figures of training: losses against steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_np._checks import Array
from lora_np.plots.style import LORA, MUTED, axes, label_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def training_curve(
    loss: Array | None,
    *,
    validation: tuple[Array, Array] | None = None,
    label: str = "",
    label_shift: float = 0.0,
    color: str = LORA,
    ax: Axes | None = None,
) -> Axes:
    """Loss against steps on a logarithmic scale: each batch as a faint line, held-out loss as a strong one.

    Parameters
    ----------
    loss : ndarray of shape (steps,) or None
        Training loss at each step; None to show held-out loss alone.
    validation : (ndarray, ndarray), optional
        Steps and held-out losses.
    label : str
        Written beside the last value.
    label_shift : float
        Moves the label up, in points, where lines end close together.
    color : str
        Of both lines.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> ax = training_curve(np.geomspace(1, 0.1, 50), label="r = 8", ax=Figure().add_subplot())
    >>> ax.get_yscale()
    'log'
    """
    ax = axes(ax)
    held_out = validation is not None and len(validation[0]) > 0
    if loss is not None:
        ax.plot(loss, color=color, linewidth=0.8 if held_out else 1.6, alpha=0.3 if held_out else 1.0)
        x, y = len(loss) - 1, loss[-1]
    if validation is not None and held_out:
        ax.plot(*validation, color=color, linewidth=1.8)
        x, y = validation[0][-1], validation[1][-1]
    if loss is not None and held_out:
        note = "strong: held-out data; faint: training batches"
        ax.annotate(
            note, (0.99, 0.97), xycoords="axes fraction", ha="right", va="top", color=MUTED, fontsize=8
        )
    if label:
        label_line(ax, x, y, label, color, xytext=(5, label_shift))
    ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel("mean squared error")
    return ax
