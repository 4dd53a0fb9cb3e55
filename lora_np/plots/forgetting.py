"""A figure of what adapted models have learned and what they still know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lora_np.plots.style import ACCENT, FULL, INK, LORA, SKY, axes, label_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NEAR = 0.15  # labels of points that are closer than this may touch each other


def old_and_new(
    groups: Mapping[str, Mapping[str, tuple[float, float]]],
    *,
    labels: tuple[str, str] = ("accuracy on the old task", "accuracy on the new task"),
    ax: Axes | None = None,
) -> Axes:
    """Models by their accuracy on the old task and on the new one: the best place is at the upper right.

    Parameters
    ----------
    groups : mapping of str to mapping of str to (float, float)
        For each kind of model, by the name of each, its shares on the old and on the new task. Members of a
        group are joined in their order.
    labels : (str, str)
        Of the two axes.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> groups = {"base": {"not adapted": (0.97, 0.1)}, "LoRA": {"r = 1": (0.5, 0.8), "r = 8": (0.2, 0.98)}}
    >>> ax = old_and_new(groups, ax=Figure().add_subplot())
    >>> [text.get_text() for text in ax.texts]
    ['not adapted', 'r = 1', 'r = 8']
    """
    from matplotlib.ticker import PercentFormatter

    ax = axes(ax, size=(6.4, 4.4))
    ax.grid(True, color="#e6e6e6", linewidth=0.8)
    points = [point for members in groups.values() for point in members.values()]
    styles = zip((INK, FULL, LORA, SKY, ACCENT), "Dsov*", strict=True)
    for (group, members), (color, marker) in zip(groups.items(), styles, strict=False):
        olds, news = zip(*members.values(), strict=True)
        ax.plot(olds, news, color=color, linewidth=1, alpha=0.4, zorder=1)
        size = 14 if marker == "*" else 8
        ax.plot(olds, news, marker, color=color, markersize=size, markeredgecolor="white", label=group)
        for name, (old, new) in members.items():
            above = all(height <= new for place, height in points if abs(place - old) < NEAR)
            label_line(ax, old, new, name, color, xytext=(0, 10 if above else -11), ha="center")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    ax.set_xlim(0, 1.05)
    ax.set_ylim(0, 1.08)
    for ticks in (ax.set_xticks, ax.set_yticks):
        ticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    ax.legend(frameon=False, fontsize=9, loc="lower left")
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    return ax
