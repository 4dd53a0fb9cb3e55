"""A computation as a graph, with what flows forward and what flows back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lora_np.plots import INK, MUTED, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BACKWARD = "#9c4679"  # the purple of the palette, dark enough for text
BOX = (0.56, 0.3)  # of a column, so that half of it is left for the arrows
ROW = 0.74  # height of a row, with a line of text below its box
BEND = 0.3  # of an arrow around the boxes between its ends


def computation_graph(
    steps: Mapping[str, tuple[str, Sequence[str]]],
    *,
    values: Mapping[str, float],
    gradients: Mapping[str, float] | None = None,
    slopes: Mapping[tuple[str, str], float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Steps as boxes from left to right: values in ink, and in purple what flows back from the last step.

    Parameters
    ----------
    steps : mapping of str to (str, sequence of str)
        For each step, in the order of computation: its name, its formula and the names of its inputs. An
        input that is not a step is a leaf.
    values : mapping of str to float
        Of every leaf and step.
    gradients : mapping of str to float, optional
        Of leaves and steps, written below their boxes.
    slopes : mapping of (str, str) to float, optional
        Of an input and a step: written at the arrow between them.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        What was drawn on.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> steps = {"p": ("w x", ["w", "x"]), "L": ("p^2", ["p"])}
    >>> values = {"w": 3, "x": 2, "p": 6, "L": 36}
    >>> ax = computation_graph(steps, values=values, gradients={"p": 12}, ax=Figure().add_subplot())
    >>> [text.get_text() for text in ax.texts if text.get_text().startswith("gradient")]
    ['gradient 12']
    """
    places = {name: (column, ROW * row) for name, (column, row) in layout(steps).items()}
    right = max(x for x, _ in places.values()) + 0.4
    low, high = min(y for _, y in places.values()) - 0.36, max(y for _, y in places.values()) + 0.24
    ax = axes(ax, size=(1.7 * (right + 0.4), 1.7 * (high - low)))
    ax.set_axis_off()
    ax.set_aspect("equal")
    ax.set_xlim(-0.4, right)
    ax.set_ylim(low, high)
    for step, (_, inputs) in steps.items():
        for leaf in dict.fromkeys(inputs):
            _arrow(ax, places[leaf], places[step], (slopes or {}).get((leaf, step)))
    for name, place in places.items():
        heading = f"{name} = {steps[name][0]}" if name in steps else name
        _box(ax, place, heading, values[name], is_leaf=name not in steps)
        if gradients and name in gradients:
            below = (place[0], place[1] - BOX[1] / 2 - 0.04)
            ax.annotate(f"gradient {_signed(gradients[name])}", below, ha="center", va="top",
                        color=BACKWARD, fontsize=10)  # fmt: skip
    return ax


def layout(steps: Mapping[str, tuple[str, Sequence[str]]]) -> dict[str, tuple[float, float]]:
    """A step is to the right of its inputs, a leaf just left of the first step that uses it; rows centred.

    Examples
    --------
    >>> layout({"p": ("w x", ["w", "x"]), "e": ("p - y", ["p", "y"])})
    {'w': (0, 0.5), 'x': (0, -0.5), 'p': (1, 0.5), 'y': (1, -0.5), 'e': (2, 0.0)}
    """
    column: dict[str, int] = {}
    for step, (_, inputs) in steps.items():
        column[step] = 1 + max((column.get(name, 0) for name in inputs), default=-1)
    names = list(dict.fromkeys(name for step, (_, inputs) in steps.items() for name in (*inputs, step)))
    for name in names:
        if name not in steps:
            column[name] = min(column[step] for step, (_, inputs) in steps.items() if name in inputs) - 1
    places: dict[str, tuple[float, float]] = {}
    for x in sorted(set(column.values())):
        here = [name for name in names if column[name] == x]
        places.update({name: (x, (len(here) - 1) / 2 - row) for row, name in enumerate(here)})
    return places


def _box(ax: Axes, place: tuple[float, float], heading: str, value: float, *, is_leaf: bool) -> None:
    from matplotlib.patches import FancyBboxPatch

    (x, y), (width, height) = place, BOX
    corner = (x - width / 2, y - height / 2)
    face = "#eef4f9" if is_leaf else "white"
    box = FancyBboxPatch(corner, width, height, boxstyle="round,pad=0,rounding_size=0.06", zorder=2)
    box.set(facecolor=face, edgecolor=MUTED, linewidth=1.2)
    ax.add_patch(box)
    ax.text(x, y + 0.07, heading, ha="center", va="center", color=INK, fontsize=10)
    ax.text(x, y - 0.07, _signed(value), ha="center", va="center", color=INK, fontsize=11, fontweight="bold")


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], slope: float | None) -> None:
    """From the right side of one box to the left side of another, around the boxes between them."""
    tail, head = (start[0] + BOX[0] / 2, start[1]), (end[0] - BOX[0] / 2, end[1])
    bend = BEND if end[0] - start[0] > 1 else 0.0
    ax.annotate(
        "", head, xytext=tail,
        arrowprops={"arrowstyle": "-|>", "color": MUTED, "linewidth": 1.4, "shrinkA": 1, "shrinkB": 1,
                    "connectionstyle": f"arc3,rad={-bend}"},
    )  # fmt: skip
    if slope is not None:
        # An arc of matplotlib is a parabola: its middle is half as far away as its control point.
        across, up = head[0] - tail[0], head[1] - tail[1]
        middle = ((tail[0] + head[0] - bend * up) / 2, (tail[1] + head[1] + bend * across) / 2)
        ax.annotate(
            f"× {_signed(slope)}", middle,
            ha="center", va="center", color=BACKWARD, fontsize=10,
            bbox={"facecolor": "white", "linewidth": 0, "pad": 1}, zorder=3,
        )  # fmt: skip


def _signed(number: float) -> str:
    return f"{number:g}".replace("-", "−")
