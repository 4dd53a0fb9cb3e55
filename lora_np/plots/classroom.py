"""Figures for teachers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lora_np.plots.style import INK, MUTED, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


SOLVED = "#bdbdbd"  # what most have solved steps back


def class_results(
    exercises: Sequence[str],
    shares: Sequence[float],
    lessons: Sequence[str],
    *,
    students: int,
    ax: Axes | None = None,
) -> Axes:
    """The share of a class that solved each exercise; what fewer than half have solved is highlighted.

    Parameters
    ----------
    exercises : sequence of str
        Their names, in the order of the course.
    shares : sequence of float
        From 0 to 1.
    lessons : sequence of str
        The lesson of each exercise.
    students : int
        The size of the class.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        What was drawn on.

    See Also
    --------
    lines : Any lines with their names.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = class_results(["cut"], [0.5], ["3"], students=8, ax=Figure().add_subplot())
    >>> [text.get_text() for text in ax.texts]
    ['4', 'lesson 3']
    """
    ax = axes(ax, size=(6.5, 1.3 + 0.24 * len(exercises)), grid="x")
    gaps = np.cumsum([i > 0 and lessons[i] != lessons[i - 1] for i in range(len(lessons))])
    places = np.arange(len(exercises)) + 0.6 * gaps
    bars = ax.barh(places, shares, height=0.72, color=[INK if share < 0.5 else SOLVED for share in shares])
    ax.bar_label(bars, [f"{round(share * students)}" for share in shares], padding=5, fontsize=8, color=INK)
    for lesson in dict.fromkeys(lessons):
        own = [float(place) for place, name in zip(places, lessons, strict=True) if name == lesson]
        ax.text(1.13, sum(own) / len(own), f"lesson {lesson}", va="center", fontsize=8, color=MUTED)
    ax.set_yticks(places, exercises)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    label = f"students who solved it, of {students} (dark: fewer than half)"
    ax.set(xlim=(0, 1.08), ylim=(places[-1] + 0.6, -0.6), xlabel=label)
    return ax
