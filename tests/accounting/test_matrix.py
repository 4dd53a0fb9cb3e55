from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from lora_np.accounting import (
    break_even_rank,
    count_full,
    count_lora,
    count_matrix,
    count_model,
    rank_for_budget,
    ratio,
)
from lora_np.models import ModelSpec, ModuleSpec

SIZES = st.integers(1, 5_000)
RANKS = st.integers(1, 6_000)


def test_the_first_page() -> None:
    assert count_full(100, 120) == 12_000
    assert count_lora(100, 120, rank=20) == 4_400
    assert count_lora(100, 120, rank=8) == 1_760
    assert break_even_rank(100, 120) == 54
    assert break_even_rank(100, 100) == 49
    assert rank_for_budget(100, 120, budget=2_000) == 9


@settings(deadline=None)
@given(d=SIZES, k=SIZES, rank=RANKS)
def test_the_count_is_that_of_two_factors_in_either_order(d: int, k: int, rank: int) -> None:
    B, A = np.broadcast_to(0.0, (d, rank)), np.broadcast_to(0.0, (rank, k))
    assert count_lora(d, k, rank=rank) == B.size + A.size == count_lora(k, d, rank=rank)
    assert count_lora(d, k, rank=rank, dora=True) == B.size + A.size + d


@settings(deadline=None)
@given(d=SIZES, k=SIZES)
def test_break_even_is_the_last_rank_that_saves(d: int, k: int) -> None:
    rank = break_even_rank(d, k)
    assert rank == 0 or count_lora(d, k, rank=rank) < count_full(d, k)
    assert count_lora(d, k, rank=rank + 1) >= count_full(d, k)
    assert rank <= min(d, k)


@settings(deadline=None)
@given(d=SIZES, k=SIZES, budget=st.integers(0, 10**7))
def test_the_budget_fits_and_one_rank_more_does_not(d: int, k: int, budget: int) -> None:
    rank = rank_for_budget(d, k, budget=budget)
    assert rank == 0 or count_lora(d, k, rank=rank) <= budget
    assert count_lora(d, k, rank=rank + 1) > budget


@settings(deadline=None)
@given(d=SIZES, k=SIZES, rank=RANKS)
def test_the_ratio_is_that_of_the_counts(d: int, k: int, rank: int) -> None:
    assert ratio(d, k, rank=rank) * count_lora(d, k, rank=rank) == pytest.approx(count_full(d, k))


def of_convolution(d_out: int, d_in: int, kernel: int, *, groups: int = 1, **options: Any) -> int:
    module = ModuleSpec(
        "conv", "convolution", (d_out, d_in // groups, kernel, kernel), groups=groups
    )
    return count_model(ModelSpec("one", (module,)), targets=["conv"], **options).trainable


def test_a_convolution_of_kernel_one_is_a_matrix() -> None:
    assert of_convolution(64, 32, 1, rank=4) == count_lora(64, 32, rank=4)
    assert of_convolution(64, 32, 3, rank=4, dora=True) == 4 * 32 * 9 + 4 * 64 + 64
    assert of_convolution(64, 32, 3, rank=4, groups=2) == 4 * 32 * 9 + 4 * 64 // 2


@pytest.mark.parametrize(
    ("rank", "error", "message"),
    [
        (0, ValueError, "rank must be at least 1, got 0"),
        (-3, ValueError, "rank must be at least 1, got -3"),
        (2.5, TypeError, "rank must be a whole number, got 2.5"),
        (8.0, TypeError, "rank must be a whole number, got 8.0"),
        (True, TypeError, "rank must be a whole number, got the boolean True"),
        ("8", TypeError, "rank must be a whole number, got '8'"),
        (None, TypeError, "rank must be a whole number, got None"),
    ],
)
def test_a_bad_rank_is_one_clear_line(rank: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        count_lora(100, 120, rank=rank)  # type: ignore[arg-type]
    assert str(caught.value) == message


@pytest.mark.parametrize(("d", "k"), [(0, 3), (3, 0), (-1, 3), (1.5, 2), (True, 2)])
def test_a_bad_shape_is_refused(d: int, k: int) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^[dk] must be"):
        count_full(d, k)
    with pytest.raises((TypeError, ValueError), match=r"^[dk] must be"):
        break_even_rank(d, k)


def test_bad_budgets_and_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="budget must be at least 0, got -1"):
        rank_for_budget(3, 4, budget=-1)
    with pytest.raises(TypeError, match="budget must be a whole number"):
        rank_for_budget(3, 4, budget=1e6)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rank must be a multiple of 2, the groups of conv, got 3"):
        of_convolution(4, 4, 3, rank=3, groups=2)


def test_numpy_integers_count_as_python_integers() -> None:
    count = count_lora(np.int64(100), np.int32(120), rank=np.int8(8))
    assert count == 1_760
    assert type(count) is int


def test_the_table_keeps_the_order_of_ranks_and_flags_high_ones() -> None:
    table = count_matrix(100, 120, rank=[20, 8, 200]).table
    assert [row["trainable"] for row in table.records] == [12_000, 4_400, 1_760, 44_000]
    assert [row["total"] for row in table.records] == [12_000, 16_400, 13_760, 56_000]
    flags = [note for note in table.notes if "above min(d, k) = 100" in note]
    assert len(flags) == 1
    assert "Rank 200" in flags[0]
