"""Sliders for notebooks: a hand on rank, alpha and learning rate. Without ipywidgets, a static figure."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_np.accounting import break_even_rank, count_full, count_lora
from lora_np.checks import Array, matrix, whole_number
from lora_np.linalg import SVD, rank_errors, truncated_svd


def rank_slider(M: npt.ArrayLike, *, rank: int = 8, largest: int | None = None) -> Any:
    """``M`` as a picture, cut to the rank under the reader's hand, with its numbers and its error.

    Parameters
    ----------
    M : array_like of shape (d, k)
        Shown in grey.
    rank : int
        Where the slider starts: ``1 <= rank <= largest``.
    largest : int, optional
        Where the slider ends; by default the break-even rank, beyond which two factors hold more numbers
        than ``M``.

    Returns
    -------
    ipywidgets.VBox or matplotlib.figure.Figure
        A slider above a picture; without ipywidgets, a figure of a few ranks. A notebook shows either when
        it is the last value of a cell.

    Raises
    ------
    TypeError
        If ``M`` does not hold real numbers, or a rank is not a whole number.
    ValueError
        If ``M`` is not a finite matrix, or a rank is out of range.

    Examples
    --------
    >>> from lora_np.datasets import photograph
    >>> view = rank_slider(photograph()[::8, ::8], rank=4, largest=20)
    """
    M = matrix("M", M)
    if largest is None:
        largest = max(1, break_even_rank(*M.shape))
    largest = whole_number("largest", largest, maximum=min(M.shape), top="min(d, k)")
    rank = whole_number("rank", rank, maximum=largest, top="largest")
    cut = _Cut(M, truncated_svd(M, rank=largest), rank_errors(M, relative=True))
    try:
        import ipywidgets
    except ImportError:
        return _static(cut, largest)
    slider = ipywidgets.IntSlider(value=rank, min=1, max=largest, description="rank r")
    slider.layout.width = "24em"
    view = ipywidgets.HTML(_html(cut, rank))
    slider.observe(lambda change: setattr(view, "value", _html(cut, change["new"])), names="value")
    return ipywidgets.VBox([slider, view])


def picture_slider(pictures: Mapping[str, npt.ArrayLike], *, description: str = "rank r") -> Any:
    """One of several pictures at a time, with its caption, all on the grey scale of the first.

    Parameters
    ----------
    pictures : mapping of str to array_like of shape (rows, columns)
        Caption and picture, in the order of the slider.
    description : str
        What the slider moves.

    Returns
    -------
    ipywidgets.VBox or matplotlib.figure.Figure
        Without ipywidgets, a figure of up to four of them.

    Raises
    ------
    TypeError
        If a picture does not hold real numbers.
    ValueError
        If there is no picture, or one is not a finite matrix.

    Examples
    --------
    >>> view = picture_slider({"rank 0": np.zeros((4, 8)), "rank 1": np.eye(4, 8)})
    """
    images = {caption: matrix(f"picture {caption!r}", picture) for caption, picture in pictures.items()}
    if not images:
        raise ValueError("pictures must hold at least one picture, got none")
    captions = list(images)
    low, high = _grey_range(images[captions[0]])
    try:
        import ipywidgets
    except ImportError:
        from matplotlib.figure import Figure

        from lora_np.plots import strips

        places = dict.fromkeys(np.linspace(0, len(captions) - 1, min(4, len(captions))).round().astype(int))
        return strips({captions[place]: images[captions[place]] for place in places}, figure=Figure())
    slider = ipywidgets.IntSlider(value=0, min=0, max=len(captions) - 1, description=description)
    slider.layout.width = "24em"
    slider.readout = False  # the caption says it

    def show(place: int) -> str:
        caption = captions[place]
        return _figure_html(_grey(images[caption], low, high), caption, "Picture", "40em")

    view = ipywidgets.HTML(show(0))
    slider.observe(lambda change: setattr(view, "value", show(change["new"])), names="value")
    return ipywidgets.VBox([slider, view])


def training_sliders(
    train: Callable[[float, float], npt.ArrayLike],
    *,
    alphas: Sequence[float],
    rates: Sequence[float],
    optimum: float | None = None,
) -> Any:
    """A run of training at the alpha and the learning rate under the reader's hand, as a curve.

    Parameters
    ----------
    train : callable
        ``train(alpha, learning_rate)`` gives the loss of each step, or raises `FloatingPointError`.
    alphas, rates : sequence of float
        The stops of the two sliders, which start in the middle.
    optimum : float, optional
        The lowest possible loss, drawn next to the curve.

    Returns
    -------
    ipywidgets.VBox or matplotlib.figure.Figure
        Without ipywidgets, a map of the last losses.

    Raises
    ------
    ValueError
        If alphas or rates are empty.

    Examples
    --------
    >>> view = training_sliders(lambda alpha, rate: [1.0, 0.5], alphas=[8.0], rates=[1e-3, 1e-2])
    """
    if not len(alphas) or not len(rates):
        raise ValueError(f"alphas and rates must not be empty, got {list(alphas)} and {list(rates)}")

    @cache
    def losses(alpha: float, rate: float) -> Array | None:
        try:
            return np.asarray(train(alpha, rate), dtype=np.float64)
        except FloatingPointError:
            return None

    try:
        import ipywidgets
    except ImportError:
        return _training_map(losses, alphas, rates)
    alpha_slider, rate_slider = (
        ipywidgets.SelectionSlider(options=[(f"{v:g}", v) for v in values], value=values[len(values) // 2],
                                   description=name, layout={"width": "24em"})
        for name, values in (("alpha", alphas), ("rate", rates))
    )  # fmt: skip

    def show() -> str:
        alpha, rate = alpha_slider.value, rate_slider.value
        return _training_html(losses(alpha, rate), alpha, rate, optimum)

    view = ipywidgets.HTML(show())
    for slider in (alpha_slider, rate_slider):
        slider.observe(lambda change: setattr(view, "value", show()), names="value")
    return ipywidgets.VBox([alpha_slider, rate_slider, view])


@dataclass(frozen=True)
class _Cut:
    """A matrix with its decomposition, so that each rank costs one thin product."""

    M: Array  # (d, k)
    svd: SVD
    errors: Array  # (min(d, k) + 1,)  relative

    def at(self, rank: int) -> Array:
        U, s, Vh = self.svd
        picture: Array = (U[:, :rank] * s[:rank]) @ Vh[:rank]
        return picture

    def text(self, rank: int) -> str:
        d, k = self.M.shape
        return (
            f"rank {rank}: {count_lora(d, k, rank=rank):,} numbers instead of {count_full(d, k):,}, "
            f"error {self.errors[rank]:.1%}"
        )


def _html(cut: _Cut, rank: int) -> str:
    return _figure_html(
        _grey(cut.at(rank), *_grey_range(cut.M)), cut.text(rank), "The matrix as a picture", "24em"
    )


def _figure_html(png: bytes, text: str, what: str, width: str) -> str:
    """Picture and text in one piece, so that they never disagree on the screen."""
    picture = b64encode(png).decode("ascii")
    return (
        f'<figure style="margin: 0"><figcaption aria-live="polite">{text}</figcaption>'
        f'<img alt="{what}, {text}" style="width: {width}; max-width: 100%" '
        f'src="data:image/png;base64,{picture}"></figure>'
    )


def _grey_range(M: Array) -> tuple[float, float]:
    low, high = np.quantile(M, [0.005, 0.995])
    return float(low), float(high if high > low else low + 1)  # a picture of one grey is black


def _grey(image: Array, low: float, high: float) -> bytes:
    from lora_np.plots import grey_png

    return grey_png(image, low=low, high=high)


def _training_html(losses: Array | None, alpha: float, rate: float, optimum: float | None) -> str:
    from matplotlib.figure import Figure

    from lora_np.plots import OPTIMUM, label_line, training_curve

    ax = (figure := Figure(figsize=(6.0, 3.4), layout="constrained")).add_subplot()
    text = f"alpha {alpha:g}, learning rate {rate:g}: "
    if losses is None:
        text += "diverged"
        training_curve(np.array([np.nan]), ax=ax)
    else:
        text += f"loss {losses[0]:.4g} at the start, {losses[-1]:.4g} after {len(losses) - 1} steps"
        training_curve(losses, ax=ax)
        low = losses.min() if optimum is None else optimum
        ax.set_yscale("linear")
        ax.set_ylim(0.95 * low, 1.25 * losses[0])  # a run that explodes leaves at the top
    if optimum is not None:
        ax.axhline(optimum, color=OPTIMUM, linewidth=3, zorder=1)
        label_line(ax, 0, optimum, "best possible", OPTIMUM, xytext=(2, 8))
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return _figure_html(stream.getvalue(), text, "Loss against steps", "36em")


def _training_map(
    losses: Callable[[float, float], Array | None], alphas: Sequence[float], rates: Sequence[float]
) -> Any:
    from matplotlib.figure import Figure

    from lora_np.course.figures import loss_map

    runs = [[losses(alpha, rate) for rate in rates] for alpha in alphas]
    last = np.array([[np.nan if run is None else run[-1] for run in row] for row in runs])
    starts = [float(run[0]) for row in runs for run in row if run is not None]
    figure = Figure(figsize=(6.8, 4.0), layout="constrained")
    loss_map(last, alphas=alphas, rates=rates, start=max(starts, default=None), ax=figure.add_subplot())
    return figure


def _static(cut: _Cut, largest: int) -> Any:
    from matplotlib.figure import Figure

    from lora_np.plots import gallery

    ranks = sorted({int(r) for r in np.rint(np.geomspace(1, largest, 4))})
    headings = {r: f"r = {r}, error {cut.errors[r]:.1%}" for r in ranks}
    # Not a pyplot figure: a notebook would show that one twice, as a value and as an open figure.
    return gallery({headings[r]: cut.at(r) for r in ranks}, figure=Figure())
