"""Sliders for notebooks: a hand on the rank. Where ipywidgets is absent, a static figure instead."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_np._checks import Array, matrix, whole_number
from lora_np.accounting import break_even_rank, count_full, count_lora
from lora_np.linalg import SVD, rank_errors, truncated_svd

__all__ = ["rank_slider"]


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
    TypeError, ValueError
        If ``M`` is not a finite real matrix or a rank is out of range.

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
    """Picture and text in one piece, so that they never disagree on the screen."""
    from lora_np.plots.lessons import grey_png

    low, high = np.quantile(cut.M, [0.005, 0.995])
    picture = b64encode(grey_png(cut.at(rank), low=low, high=high)).decode("ascii")
    text = cut.text(rank)
    return (
        f'<figure style="margin: 0"><figcaption aria-live="polite">{text}</figcaption>'
        f'<img alt="The matrix as a picture, {text}" style="width: 24em; max-width: 100%" '
        f'src="data:image/png;base64,{picture}"></figure>'
    )


def _static(cut: _Cut, largest: int) -> Any:
    from matplotlib.figure import Figure

    from lora_np.plots.lessons import gallery

    ranks = sorted({int(r) for r in np.rint(np.geomspace(1, largest, 4))})
    headings = {r: f"r = {r}, error {cut.errors[r]:.1%}" for r in ranks}
    # Not a pyplot figure: a notebook would show that one twice, as a value and as an open figure.
    return gallery({headings[r]: cut.at(r) for r in ranks}, figure=Figure())
