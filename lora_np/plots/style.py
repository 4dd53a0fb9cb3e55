"""Define the style of all figures: plain axes, and colours that each have one meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

# The website uses the same colours. Lines have a contrast of at least 3:1 on a white page and, with
# inverted colours, on a dark page. Their labels are darker and have a contrast of at least 4.5:1.
_COLOURS = json.loads(Path(__file__).with_name("tokens.json").read_bytes())["light"]
INK = _COLOURS["ink"]  # text, the data, the theoretical optimum
FULL = _COLOURS["full"]  # an update of all weights
LORA = _COLOURS["lora"]  # a low-rank update
SKY = _COLOURS["minus"]  # a second low-rank update; entries below zero
ACCENT = _COLOURS["good"]  # a choice, such as the rank that was selected
MUTED = _COLOURS["base"]  # the frozen base, reference lines and notes
CYCLE = (LORA, SKY, INK, ACCENT, _COLOURS["not"], _COLOURS["tight"], MUTED)


def axes(ax: Axes | None = None, *, size: tuple[float, float] = (6.0, 3.8)) -> Axes:
    """Return ``ax``, or the axes of a new pyplot figure, with a plain style.

    Parameters
    ----------
    ax : Axes, optional
        The axes to style; by default the axes of a new figure.
    size : (float, float)
        The size of a new figure, in inches.

    Returns
    -------
    Axes
        The axes without a frame, with a light grid.

    See Also
    --------
    lines : Draw several lines on such axes.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> axes(Figure().add_subplot()).spines["top"].get_visible()
    False
    """
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=size, layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(MUTED)
    ax.tick_params(colors=INK, color=MUTED, labelsize=9)
    ax.grid(True, axis="y", color=_COLOURS["line"], linewidth=0.8)
    ax.set_axisbelow(True)
    return ax


def signed() -> LinearSegmentedColormap:
    """Build the colour map of signed entries: blue below zero, white at zero, orange above."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("signed", [SKY, "white", LORA])


def sized_figure(figure: Figure | None, width: float, height: float, **pads: float) -> Figure:
    """Return ``figure`` or a new pyplot figure, with this size in inches and constrained layout."""
    if figure is None:
        import matplotlib.pyplot as plt

        figure = plt.figure()
    figure.set_size_inches(width, height)
    figure.set_layout_engine("constrained", **pads)
    return figure


def label_line(ax: Axes, x: float, y: float, text: str, color: str, **options: Any) -> None:
    """Write a label next to the point (x, y) of a line, in a darker tone of the line's colour.

    Parameters
    ----------
    ax : Axes
        The axes to write in.
    x, y : float
        The point, in the units of the axes.
    text : str
        The text of the label.
    color : str
        The colour of the line.
    **options : Any
        Options of matplotlib's ``annotate``.

    See Also
    --------
    lines : Draw lines with labels.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = Figure().add_subplot()
    >>> label_line(ax, 8, 0.5, "rank 8", INK)
    >>> ax.texts[0].get_text()
    'rank 8'
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patheffects import withStroke

    options = {
        "xytext": (5, 0), "fontsize": 9, "va": "center",
        "color": [0.8 * part for part in to_rgb(color)],  # darker: thin text needs more contrast
        # a white outline keeps the text readable on a line
        "path_effects": [withStroke(linewidth=3, foreground="white")],
        **options,
    }  # fmt: skip
    ax.annotate(text, (x, y), annotation_clip=False, textcoords="offset points", **options)
