"""Add sliders, and figures that are updated during training, to notebooks."""

from __future__ import annotations

import io
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from itertools import product
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_np.checks import Array

if TYPE_CHECKING:
    from ipywidgets import VBox
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    Picture = Array | Figure

STATIC = 4  # largest number of pictures in the figure shown if ipywidgets is missing
WIDE = 3  # a picture with width / height above this is shown in a wider size, or stacked


def sliders(
    show: Callable[..., tuple[Picture, str]],
    *,
    limits: tuple[float, float] = (0.0, 1.0),
    **stops: Sequence[float],
) -> VBox | Figure:
    """Show a picture and its caption, with a slider for each argument of ``show``.

    Parameters
    ----------
    show : callable
        ``show(name=value, ...)`` returns a picture and its caption. The picture is a matrix, which
        is shown in grey, or a matplotlib Figure. It is called once for each combination of values
        that the reader chooses.
    limits : (float, float)
        The entries of a matrix that are shown as black and as white.
    **stops : sequence
        The values of each slider, by the name of the argument. The middle one is shown first.

    Returns
    -------
    ipywidgets.VBox or matplotlib.figure.Figure
        The sliders with the picture. Without ipywidgets, a figure of up to four matrices, or the
        Figure for the middle values. A notebook shows either as the last value of a cell.

    Raises
    ------
    ValueError
        If there is no slider, or a slider has no value.

    Examples
    --------
    >>> from lora_np.datasets import photograph
    >>> small = photograph()[::8, ::8]
    >>> view = sliders(lambda rows: (small[:rows], f"{rows} rows"), rows=[8, 16, 32])
    """
    if not stops or not all(len(values) for values in stops.values()):
        raise ValueError(f"each slider needs a value to stop at, got {stops}")
    middle = {name: values[len(values) // 2] for name, values in stops.items()}

    @cache
    def shown(*values: float) -> tuple[Picture, str]:
        return show(**dict(zip(stops, values, strict=True)))

    try:
        import ipywidgets
    except ImportError:
        return _static(shown, list(product(*stops.values())), tuple(middle.values()))
    handles = [
        ipywidgets.SelectionSlider(
            options=[(f"{value:g}", value) for value in values],
            value=middle[name],
            description=name.replace("_", " "),
            layout={"width": "24em"},
        )
        for name, values in stops.items()
    ]

    def html() -> str:
        return _html(*shown(*(handle.value for handle in handles)), limits)

    view = ipywidgets.HTML(html())
    for handle in handles:
        handle.observe(lambda change: setattr(view, "value", html()), names="value")
    return ipywidgets.VBox([*handles, view])


def _html(picture: Picture, caption: str, limits: tuple[float, float]) -> str:
    """Render a picture and its caption as one HTML fragment, so that both change together."""
    stream = io.BytesIO()
    if isinstance(picture, np.ndarray):
        from PIL import Image

        levels = np.interp(picture, limits, (0, 255)).round().astype(np.uint8)
        # use PIL, because it writes one byte per pixel and matplotlib writes four
        Image.fromarray(levels).save(stream, "png")
        width = "40em" if picture.shape[1] > WIDE * len(picture) else "24em"
    else:
        picture.savefig(stream, format="png", dpi=110)
        width = "36em"
    return (
        f'<figure style="margin: 0"><figcaption aria-live="polite">{caption}</figcaption>'
        f'<img alt="{caption}" style="width: {width}; max-width: 100%" '
        f'src="data:image/png;base64,{b64encode(stream.getvalue()).decode("ascii")}"></figure>'
    )


def _static(
    shown: Callable[..., tuple[Picture, str]],
    stops: list[tuple[float, ...]],
    middle: tuple[float, ...],
) -> Figure:
    from matplotlib.figure import Figure

    from lora_np.plots import gallery

    picture, _ = shown(*middle)
    if not isinstance(picture, np.ndarray):
        return picture
    places = dict.fromkeys(
        np.linspace(0, len(stops) - 1, min(STATIC, len(stops))).round().astype(int)
    )
    images = {
        caption: np.asarray(image) for image, caption in (shown(*stops[place]) for place in places)
    }
    # make the figure without pyplot, because a notebook would show pyplot's figure twice
    return gallery(images, stacked=picture.shape[1] > WIDE * len(picture), figure=Figure())


@contextmanager
def live_figure(
    figure: Figure, *, every: float = 0.5
) -> Iterator[Callable[[Line2D, float, float], None]]:
    """Show a figure and redraw it as its lines change: ``with live_figure(figure) as put: ...``.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure to show. At the end it is drawn once more, and stays.
    every : float
        The shortest time between two redraws, in seconds; longer if drawing would take more than a
        fifth of the time.

    Yields
    ------
    callable
        The function ``put(line, x, y)``, which adds the point (x, y) to a line, or moves the point
        at x. Outside a notebook, it changes the line, but nothing is shown.

    See Also
    --------
    lora_np.training.fit : Train a model; call ``put`` in its ``sample=``.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> figure = Figure()
    >>> (line,) = figure.add_subplot().plot([], [])
    >>> with live_figure(figure) as put:
    ...     for step, loss in [(0, 1.0), (1, 0.5), (1, 0.25)]:
    ...         put(line, step, loss)
    >>> list(line.get_ydata())
    [1.0, 0.25]
    """
    handle = None
    if "IPython" in sys.modules:
        import matplotlib.pyplot as plt

        # close the figure, because a notebook shows open figures again at the end of the cell
        plt.close(figure)
        handle = import_module("IPython.display").display(figure, display_id=True)
    due = monotonic() + every

    def put(line: Any, x: float, y: float) -> None:
        nonlocal due
        points = dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) | {x: y}
        line.set_data(list(points), list(points.values()))
        line.axes.relim()
        line.axes.autoscale_view()
        begin = monotonic()
        if handle is not None and begin >= due:
            handle.update(figure)
            due = monotonic() + max(every, 4 * (monotonic() - begin))

    try:
        yield put
    finally:
        if handle is not None:
            handle.update(figure)
