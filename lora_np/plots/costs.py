"""What training costs in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_np.plots.style import CYCLE, INK, MUTED, axes, label_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def memory_by_cause(
    parts: Mapping[str, Mapping[str, int | None]], *, room: int | None = None, ax: Axes | None = None
) -> Axes:
    """Bytes by cause, stacked: a bar for each way to train, and a line where the memory ends.

    Parameters
    ----------
    parts : mapping of str to mapping of str to int
        For each way its bytes by cause; None counts as nothing.
    room : int, optional
        Bytes of the card.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        The axes with the drawing.

    See Also
    --------
    lines : Numbers along an axis.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ways = {"full": {"weights": 2 * 10**9, "gradients": 2 * 10**9}, "LoRA": {"weights": 2 * 10**9}}
    >>> ax = memory_by_cause(ways, room=24 * 10**9, ax=Figure().add_subplot())
    >>> [text.get_text() for text in ax.get_yticklabels()]
    ['full', 'LoRA']
    """
    ax = axes(ax, grid="x")
    causes = list(dict.fromkeys(cause for way in parts.values() for cause in way))
    places = np.arange(len(parts))
    ends = np.zeros(len(parts))
    for cause, color in zip(causes, (MUTED, *CYCLE), strict=False):
        sizes = np.array([way.get(cause) or 0 for way in parts.values()]) / 1e9
        ax.barh(places, sizes, 0.7, ends, color=color, label=cause)
        ends += sizes
    # full fine-tuning may need so much that the rest could not be told apart
    limit = 1.14 * max(ends) if room is None else min(1.14 * max(ends, default=1), 2 * room / 1e9)
    for place, end in zip(places, ends, strict=True):
        inside = end > 0.95 * limit
        text = f"{end:,.1f} \N{RIGHTWARDS ARROW}" if inside else f"{end:,.1f}"
        side: dict[str, Any] = {"xytext": (-4, 0), "ha": "right"} if inside else {}
        label_line(ax, min(end, limit), float(place), text, INK, **side)
    if room is not None:
        ax.axvline(room / 1e9, color=INK, linewidth=1.4, linestyle="--", zorder=0.9)
        label_line(ax, room / 1e9, -0.5, f"{room / 1e9:,.1f} GB", INK, xytext=(4, 2), va="bottom")
    ax.set_yticks(places, list(parts))
    ax.invert_yaxis()
    ax.set(xlim=(0, limit), xlabel="memory to train [GB]")
    ax.figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return ax
