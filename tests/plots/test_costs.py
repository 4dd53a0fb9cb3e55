from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lora_np.accounting import break_even_rank, count_full, count_lora
from lora_np.plots import parameters_against_rank


@pytest.fixture
def ax() -> Axes:
    return Figure().add_subplot()


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_the_lines_cross_just_above_the_break_even_rank(ax: Axes) -> None:
    ranks = np.arange(1, 81)
    counts = np.array([count_lora(100, 120, rank=int(rank)) for rank in ranks])
    even = break_even_rank(100, 120)
    full = count_full(100, 120)
    drawn = parameters_against_rank(ranks, counts, full=full, break_even=even, chosen=[8, 20], ax=ax)
    assert drawn is ax
    line = next(line for line in ax.lines if len(line.get_xdata()) == len(ranks))
    heights = dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
    assert heights[even] < full <= heights[even + 1]
    assert {"full: 12,000", "r = 8: 1,760", "r = 20: 4,400", "break-even r = 54"} <= set(texts(ax))


def test_a_rank_that_was_not_counted_cannot_be_marked(ax: Axes) -> None:
    with pytest.raises(IndexError):
        parameters_against_rank(np.array([1, 2]), np.array([3, 6]), full=9, break_even=2, chosen=[5], ax=ax)
