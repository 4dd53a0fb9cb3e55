"""A figure that updates during a training run, in JupyterLab and in the browser."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


@contextmanager
def live(figure: Figure, *, every: float = 0.5) -> Iterator[Callable[[Line2D, float, float], None]]:
    """Show a figure, and update it in place as its lines change: ``with live(figure) as put: ...``.

    ``put(line, x, y)`` gives ``line`` the height ``y`` at ``x``: a new point, or one that moves.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure to show. At the end it is drawn once more, and stays.
    every : float
        The least time between two pictures, in seconds; longer if drawing takes more than a fifth of the
        time.

    Yields
    ------
    callable
        ``put``. Outside a notebook it changes the line, and nothing is shown.

    See Also
    --------
    lora_np.training.fit : Its ``sample=`` is where to call ``put``.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> figure = Figure()
    >>> (line,) = figure.add_subplot().plot([], [])
    >>> with live(figure) as put:
    ...     for step, loss in [(0, 1.0), (1, 0.5), (1, 0.25)]:
    ...         put(line, step, loss)
    >>> list(line.get_ydata())
    [1.0, 0.25]
    """
    handle: Any = None
    if "IPython" in sys.modules:
        import matplotlib.pyplot as plt

        plt.close(figure)  # or the notebook shows it once more at the end of the cell
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
