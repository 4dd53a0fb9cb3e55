from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lora_np.accounting import break_even_rank, count_full, count_lora
from lora_np.plots.counting import budget_by_kind, memory_by_cause, parameters_against_rank


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


def test_budget_bars_are_sorted_and_leave_out_what_costs_nothing(ax: Axes) -> None:
    budget_by_kind(["a", "b", "none", "c"], [10, 30, 0, 10], ax=ax)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["c", "a", "b"]
    assert [bar.get_width() for bar in ax.patches] == [10, 10, 30]
    assert "30  (60%)" in texts(ax)


def test_memory_stacks_to_the_total(ax: Axes) -> None:
    methods = {"full": [10e9, 20e9, 5e9], "LoRA": [10e9, 1e9, 6e9], "QLoRA": [3e9, 1e9, 6e9]}
    memory_by_cause(["weights", "optimizer", "activations"], methods, ax=ax)
    ends: dict[float, float] = {}
    for bar in ax.patches:
        middle = round(bar.get_y() + bar.get_height() / 2, 6)
        ends[middle] = max(ends.get(middle, 0), bar.get_x() + bar.get_width())
    assert ends == pytest.approx({2.0: 35, 1.0: 17, 0.0: 10})
    assert texts(ax) == ["35.0 GB", "17.0 GB", "10.0 GB"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["QLoRA", "LoRA", "full"]
