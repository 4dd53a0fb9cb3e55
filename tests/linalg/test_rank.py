"""Rank: what elimination says, what singular values say, and where they disagree."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from lora_np.linalg import (
    column_space,
    effective_rank,
    energy,
    independent_columns,
    matrix_rank,
    row_echelon,
    stable_rank,
)
from tests.drawing import every, examples

FUNCTIONS = [
    column_space,
    effective_rank,
    energy,
    independent_columns,
    matrix_rank,
    row_echelon,
    stable_rank,
]


def integers_of_rank(rank, d, k, seed):
    """Small integers, so that elimination meets exact zeros in exact arithmetic."""
    rng = np.random.default_rng(seed)
    return rng.integers(-3, 4, size=(d, rank)) @ rng.integers(-3, 4, size=(rank, k))


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 7), st.integers(1, 7))
@settings(max_examples=examples(60), deadline=None)
def test_elimination_and_singular_values_agree_on_small_integers(seed, rank, d, k):
    M = integers_of_rank(rank, d, k, seed)
    assert len(independent_columns(M)) == matrix_rank(M) == np.linalg.matrix_rank(M)


@given(st.integers(0, 10**6), st.integers(1, 4))
@settings(max_examples=examples(40), deadline=None)
def test_the_rank_of_a_product_is_at_most_that_of_its_factors(seed, inner):
    rng = np.random.default_rng(seed)
    A, B = rng.integers(-2, 3, size=(6, inner)), rng.integers(-2, 3, size=(inner, 5))
    assert matrix_rank(A @ B) <= min(matrix_rank(A), matrix_rank(B))


def test_row_echelon_is_a_staircase_with_the_same_row_space(shape, example):
    M = example("deficient", *shape)
    form, pivots = row_echelon(M)
    steps = [int(np.flatnonzero(row)[0]) for row in form if row.any()]
    assert steps == pivots == sorted(pivots)
    assert not form[len(pivots) :].any()
    assert matrix_rank(np.vstack([M, form])) == matrix_rank(M) == len(pivots)


@given(st.integers(0, 10**6), st.integers(1, 4))
@settings(max_examples=examples(40), deadline=None)
def test_independent_columns_span_each_column_from_the_left(seed, rank):
    M = integers_of_rank(rank, 6, 7, seed)
    chosen = independent_columns(M)
    assert matrix_rank(M[:, chosen] if chosen else M) == len(chosen)
    for column in range(M.shape[1]):
        grows = (
            np.linalg.matrix_rank(M[:, : column + 1]) > np.linalg.matrix_rank(M[:, :column])
            if column
            else M[:, 0].any()
        )
        assert (column in chosen) == grows


@every("kind", ["random", "deficient", "repeated", "zero"])
def test_column_space(kind, shape, example):
    M = example(kind, *shape)
    rank = np.linalg.matrix_rank(M)
    basis = column_space(M)
    assert basis.shape == (shape[0], rank)
    np.testing.assert_allclose(basis.T @ basis, np.eye(rank), atol=1e-13)
    np.testing.assert_allclose(basis @ (basis.T @ M), M, atol=1e-12 * max(1, np.abs(M).max()))


def test_elimination_is_fooled_where_singular_values_are_not():
    n = 60
    M = np.eye(n) - np.triu(np.ones((n, n)), 1)
    assert len(independent_columns(M)) == n
    assert matrix_rank(M) == n - 1


def test_noise_makes_every_matrix_full_rank_but_hardly_moves_the_soft_ranks(example):
    M = example("deficient", 30, 20)
    noisy = M + 1e-6 * np.random.default_rng(1).normal(size=M.shape)
    assert matrix_rank(M) == 10
    assert matrix_rank(noisy) == 20
    assert matrix_rank(noisy, tolerance=1e-3) == 10
    assert stable_rank(noisy) == pytest.approx(stable_rank(M), rel=1e-5)
    assert effective_rank(noisy) == pytest.approx(effective_rank(M), rel=1e-4)


@every("kind", ["random", "deficient", "graded", "zero"])
def test_matrix_rank_equals_numpys(kind, shape, example):
    M = example(kind, *shape)
    assert matrix_rank(M) == np.linalg.matrix_rank(M)
    assert matrix_rank(M.astype(np.float32)) == np.linalg.matrix_rank(M.astype(np.float32))
    assert matrix_rank(M, tolerance=1e-6) == np.linalg.matrix_rank(M, tol=1e-6)


@given(st.integers(0, 10**6))
@settings(max_examples=examples(40), deadline=None)
def test_soft_ranks_lie_between_one_and_the_rank(seed):
    M = integers_of_rank(3, 6, 5, seed)
    rank = matrix_rank(M)
    for soft in (stable_rank(M), effective_rank(M)):
        assert min(rank, 1) - 1e-9 <= soft <= rank + 1e-9
    assert stable_rank(M) <= effective_rank(M) + 1e-9 or rank == 0


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_soft_ranks_and_energy_do_not_depend_on_scale(scale):
    M = np.diag([2.0, 1.0, 1.0, 0.0])
    assert stable_rank(scale * M) == pytest.approx(1.5)
    share = np.array([0.5, 0.25, 0.25])
    assert effective_rank(scale * M) == pytest.approx(np.exp(-np.sum(share * np.log(share))))
    np.testing.assert_allclose(energy(scale * M), [0, 4 / 6, 5 / 6, 1, 1], rtol=1e-15)


def test_an_even_spectrum_has_its_rank_as_soft_rank():
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(9, 4)))[0]
    assert stable_rank(Q) == pytest.approx(4)
    assert effective_rank(Q) == pytest.approx(4)


def test_a_zero_matrix_has_rank_zero_of_every_kind():
    M = np.zeros((3, 2))
    assert matrix_rank(M) == stable_rank(M) == effective_rank(M) == 0
    assert independent_columns(M) == []
    np.testing.assert_array_equal(energy(M), 1)


@pytest.mark.parametrize(
    ("M", "dtype"),
    [
        (np.float16([[1, 2]]), np.float32),
        (np.float32([[1, 2]]), np.float32),
        ([[1, 2]], np.float64),
    ],
)
def test_precision_of_the_result(M, dtype):
    for function in (column_space, energy, lambda M: row_echelon(M)[0]):
        assert function(M).dtype == dtype


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("M", "error", "message"),
    [
        ([[1.0, np.nan]], ValueError, r"M must be finite, got nan at \(0, 1\)"),
        ([[1.0], [-np.inf]], ValueError, r"M must be finite, got -inf at \(1, 0\)"),
        ([], ValueError, r"M must be a matrix \(2 axes\), got shape \(0,\)"),
        ([[]], ValueError, r"M must not be empty, got shape \(1, 0\)"),
        (np.ones((2, 2, 2)), ValueError, r"got shape \(2, 2, 2\)"),
        (1.0, ValueError, r"M must be a matrix \(2 axes\), got shape \(\)"),
        (np.ma.masked_equal(np.eye(2), 0), TypeError, "M must not be a masked array"),
        (np.ones((2, 2), dtype=complex), TypeError, "real numbers, got dtype complex128"),
        ([["a"]], TypeError, "real numbers, got dtype <U1"),
    ],
)
def test_bad_input_is_named(function, M, error, message):
    with pytest.raises(error, match=message):
        function(M)


@pytest.mark.parametrize("function", [matrix_rank, column_space, row_echelon, independent_columns])
@pytest.mark.parametrize("tolerance", [-1.0, np.nan, np.inf])
def test_a_tolerance_out_of_range_is_refused(function, tolerance):
    with pytest.raises(ValueError, match=r"tolerance must be (at least 0|finite)"):
        function(np.eye(2), tolerance=tolerance)
