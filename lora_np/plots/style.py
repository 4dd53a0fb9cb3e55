"""Give every figure one look: a palette safe for colour blindness and grey, and quiet axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# After Okabe and Ito, each with one meaning in all figures. A line has a contrast of 3:1 on white
# and, inverted, on a dark page; its label, which is darker, has 4.5:1.
INK = "#1b1b1b"  # text, the data itself, the base model
FULL = "#d55e00"  # a full update: d k numbers
LORA = "#0072b2"  # a low-rank update
OPTIMUM = "#c98500"  # the optimum, by a theorem
ACCENT = "#009e73"  # a choice: the rank that was picked
MUTED = "#767676"  # reference lines and notes
SKY = "#3f98d6"  # a second low-rank update
GRID = "#e6e6e6"
CYCLE = (LORA, FULL, ACCENT, OPTIMUM, "#cc79a7", SKY, INK)


def axes(ax: Axes | None = None, *, size: tuple[float, float] = (6.0, 3.8)) -> Axes:
    """Return ``ax``, or the axes of a new pyplot figure, without frame and clutter.

    Parameters
    ----------
    ax : Axes, optional
        By default those of a new figure.
    size : (float, float)
        Of a new figure, in inches.

    Returns
    -------
    Axes
        With a light grid.

    See Also
    --------
    lines : Several lines on such axes.

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
    ax.grid(True, axis="y", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    return ax


def sized_figure(figure: Figure | None, width: float, height: float, **pads: float) -> Figure:
    """Size ``figure`` or a new pyplot figure, in inches, and lay it out without overlap."""
    if figure is None:
        import matplotlib.pyplot as plt

        figure = plt.figure()
    figure.set_size_inches(width, height)
    figure.set_layout_engine("constrained", **pads)
    return figure


def label_line(ax: Axes, x: float, y: float, text: str, color: str, **options: Any) -> None:
    """Write ``text`` next to (x, y) in the colour of its line, darker: a label instead of a legend.

    Parameters
    ----------
    ax : Axes
        Where to write.
    x, y : float
        In the units of the axes.
    text : str
        What to write.
    color : str
        One of the palette's.
    **options : Any
        As for matplotlib's ``annotate``.

    See Also
    --------
    lines : Lines that are labelled.

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

    place: dict[str, Any] = {"xytext": (5, 0), "fontsize": 9, "va": "center"}
    halo = [withStroke(linewidth=3, foreground="white")]  # so that a line behind it can be crossed
    darker = [0.8 * part for part in to_rgb(color)]  # thin strokes need more contrast than lines
    ax.annotate(
        text, (x, y), color=darker, path_effects=halo, annotation_clip=False,
        textcoords="offset points", **place | options,
    )  # fmt: skip
