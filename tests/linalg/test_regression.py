"""Reduced-rank regression against its competitors: random ones, trained ones, and the naive
truncated SVD.
"""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from lora_np.linalg import optimal_losses, reduced_rank_regression, truncated_svd
from tests.drawing import examples, few


def problem(seed, *, n=60, d=6, k=8, noise=0.3, white=False):
    """Inputs, targets and a frozen weight; the inputs are correlated and of very different
    sizes.
    """
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, k))
    if white:
        X = np.linalg.qr(X)[0] * np.sqrt(n)
    else:
        X = X @ (np.linalg.qr(rng.normal(size=(k, k)))[0] * np.logspace(0, -2, k))
    W0 = rng.normal(size=(d, k))
    Y = X @ rng.normal(size=(d, k)).T + noise * rng.normal(size=(n, d))
    return X, Y, W0


def mse(X, Y, W):
    return np.mean(np.square(Y - X @ W.T))


def objective(X, Y, W0, D, ridge):
    return np.square(Y - X @ (W0 + D).T).sum() / len(X) + ridge * np.square(D).sum()


@given(st.integers(0, 10**6), st.integers(1, 6), st.sampled_from([0.0, 0.01, 1.0]))
@settings(max_examples=examples(40), deadline=None)
def test_no_random_competitor_of_the_same_rank_is_better(seed, rank, ridge):
    X, Y, W0 = problem(seed)
    B, A = reduced_rank_regression(X, Y, rank=rank, W0=W0, ridge=ridge)
    best = objective(X, Y, W0, B @ A, ridge)
    rng = np.random.default_rng(seed)
    for size in (1e-3, 1e-1, 1.0):
        B2 = B + size * rng.normal(size=B.shape)
        A2 = A + size * rng.normal(size=A.shape)
        assert objective(X, Y, W0, B2 @ A2, ridge) >= best * (1 - 1e-12)


@pytest.mark.parametrize(("ridge", "rank"), few(product([0.0, 0.1], [1, 3, 6]), 3))
def test_alternating_least_squares_arrives_at_it_and_never_below(rank, ridge):
    X, Y, W0 = problem(7)
    n, k = X.shape
    best = objective(
        X, Y, W0, np.matmul(*reduced_rank_regression(X, Y, rank=rank, W0=W0, ridge=ridge)), ridge
    )
    C = X.T @ X / n + ridge * np.eye(k)
    G = (Y - X @ W0.T).T @ X / n
    A = np.random.default_rng(0).normal(size=(rank, k))
    for _ in range(3000):
        B = np.linalg.solve(A @ C @ A.T, A @ G.T).T
        A = np.linalg.solve(B.T @ B, B.T @ G) @ np.linalg.inv(C)
        assert objective(X, Y, W0, B @ A, ridge) >= best * (1 - 1e-10)
    assert objective(X, Y, W0, B @ A, ridge) == pytest.approx(best, rel=1e-6)


def test_gradient_descent_on_both_factors_comes_down_to_it():
    X, Y, W0 = problem(3)
    X = X / X.std(axis=0)
    best = mse(X, Y, W0 + np.matmul(*reduced_rank_regression(X, Y, rank=2, W0=W0)))
    rng = np.random.default_rng(0)
    B, A = np.zeros((6, 2)), rng.normal(size=(2, 8)) / 3
    for _ in range(8000):
        G = 2 * (X @ (W0 + B @ A).T - Y).T @ X / Y.size
        B, A = B - 0.1 * G @ A.T, A - 0.1 * B.T @ G
    loss = mse(X, Y, W0 + B @ A)
    assert best * (1 - 1e-12) <= loss <= best * (1 + 1e-3)


@pytest.mark.parametrize("ridge", [0.0, 0.05])
def test_the_curve_is_the_error_of_each_explicit_optimum(ridge):
    X, Y, W0 = problem(1)
    X_new, Y_new, _ = problem(2)
    seen = optimal_losses(X, Y, W0=W0, ridge=ridge)
    unseen = optimal_losses(X, Y, W0=W0, ridge=ridge, validation=(X_new, Y_new))
    assert seen[0] == pytest.approx(mse(X, Y, W0))
    assert unseen[0] == pytest.approx(mse(X_new, Y_new, W0))
    for rank in range(1, 7):
        W = W0 + np.matmul(*reduced_rank_regression(X, Y, rank=rank, W0=W0, ridge=ridge))
        assert seen[rank] == pytest.approx(mse(X, Y, W), rel=1e-9)
        assert unseen[rank] == pytest.approx(mse(X_new, Y_new, W), rel=1e-9)
    if not ridge:
        assert all(more <= less for less, more in pairwise(seen))


def test_the_full_optimum_is_least_squares():
    X, Y, W0 = problem(4)
    B, A = reduced_rank_regression(X, Y, W0=W0)
    np.testing.assert_allclose(
        W0 + B @ A, np.linalg.lstsq(X, Y, rcond=None)[0].T, rtol=1e-9, atol=1e-10
    )


def test_the_full_optimum_with_ridge_solves_the_normal_equations():
    X, Y, _ = problem(4)
    B, A = reduced_rank_regression(X, Y, ridge=0.3)
    C = X.T @ X / len(X) + 0.3 * np.eye(X.shape[1])
    np.testing.assert_allclose(B @ A, np.linalg.solve(C, X.T @ Y / len(X)).T, rtol=1e-9, atol=1e-10)


def test_optima_are_nested_and_b_is_orthonormal():
    X, Y, W0 = problem(5)
    B, A = reduced_rank_regression(X, Y, W0=W0)
    np.testing.assert_allclose(B.T @ B, np.eye(6), atol=1e-12)
    B2, A2 = reduced_rank_regression(X, Y, rank=2, W0=W0)
    np.testing.assert_array_equal(B2, B[:, :2])
    np.testing.assert_array_equal(A2, A[:2])


def test_truncating_the_full_update_is_optimal_for_white_inputs_only():
    def ratio(white):
        X, Y, W0 = problem(11, noise=0.0, white=white)
        full = np.matmul(*reduced_rank_regression(X, Y, W0=W0))
        U, s, Vh = truncated_svd(full, rank=2)
        return mse(X, Y, W0 + (U * s) @ Vh) / optimal_losses(X, Y, W0=W0)[2]

    assert ratio(white=True) == pytest.approx(1, rel=1e-10)
    assert ratio(white=False) > 1.2


@pytest.mark.parametrize("n", [3, 8, 40])
def test_inputs_that_miss_directions_get_the_smallest_exact_update(n):
    rng = np.random.default_rng(n)
    X = rng.normal(size=(n, 3)) @ rng.normal(size=(3, 8))
    Y = X @ rng.normal(size=(6, 8)).T
    B, A = reduced_rank_regression(X, Y)
    assert mse(X, Y, B @ A) < 1e-20
    assert (B.shape, A.shape) == ((6, 6), (6, 8))
    U, _, Vh = np.linalg.svd(X)
    np.testing.assert_allclose(A @ Vh[3:].T, 0, atol=1e-10)
    # what no input can predict does not change the choice: U's first columns are white inputs
    Y += rng.normal(size=Y.shape)
    expected = np.pad(optimal_losses(U[:, :3], Y)[:4], (0, 3), "edge")
    np.testing.assert_allclose(optimal_losses(X, Y), expected, rtol=1e-9, atol=1e-20)


def test_an_ill_conditioned_input_keeps_its_digits():
    # As many as lstsq: forming X^T X, or dividing twice by the singular values, would square the
    # condition.
    for condition in (1e5, 1e9, 1e12):
        ours, theirs = [], []
        for seed in range(10):
            rng = np.random.default_rng(seed)
            U, V = (
                np.linalg.qr(rng.normal(size=(60, 8)))[0],
                np.linalg.qr(rng.normal(size=(8, 8)))[0],
            )
            X, D = (U * np.geomspace(1, 1 / condition, 8)) @ V.T, rng.normal(size=(6, 8))
            Y = X @ D.T
            ours.append(np.abs(np.matmul(*reduced_rank_regression(X, Y)) - D).max())
            theirs.append(np.abs(np.linalg.lstsq(X, Y, rcond=None)[0].T - D).max())
        assert np.median(ours) <= 10 * np.median(theirs)


@pytest.mark.parametrize(
    ("x_scale", "y_scale"), [(1e160, 1e160), (1e-310, 1e-310), (1e150, 1e-150), (1e-150, 1e150)]
)
def test_huge_and_tiny_data_scale_the_update(x_scale, y_scale):
    X, Y, _ = problem(10)
    B, A = reduced_rank_regression(X, Y, rank=2)
    B2, A2 = reduced_rank_regression(X * x_scale, Y * y_scale, rank=2)
    rounding = 1e-9 if min(x_scale, y_scale) > 1e-300 else 1e-6  # tiny numbers have fewer digits
    np.testing.assert_allclose(B2 @ A2 / (y_scale / x_scale), B @ A, rtol=rounding, atol=rounding)
    if y_scale < 1e155:
        losses = optimal_losses(X * x_scale, Y * y_scale)
        np.testing.assert_allclose(losses, optimal_losses(X, Y) * y_scale**2, rtol=1e-6)


@pytest.mark.parametrize(
    ("x_scale", "y_scale", "what"), [(1e-200, 1e200, "the update"), (1, 1e160, "a loss")]
)
def test_what_overflows_is_refused(x_scale, y_scale, what):
    X, Y, _ = problem(10)
    function = reduced_rank_regression if what == "the update" else optimal_losses
    with pytest.raises(
        np.linalg.LinAlgError, match=f"{what} overflows float64: divide Y and W0 by a power of two"
    ):
        function(X * x_scale, Y * y_scale)
    with pytest.raises(np.linalg.LinAlgError, match=r"Y - X @ W0.T overflows"):
        function(np.full((3, 2), 1e200), np.ones((3, 2)), W0=np.full((2, 2), 1e200))


def test_float32_stays_float32_and_close_to_float64():
    X, Y, W0 = problem(8)
    B, A = reduced_rank_regression(
        *(a.astype(np.float32) for a in (X, Y)), rank=2, W0=W0.astype(np.float32)
    )
    B64, A64 = reduced_rank_regression(X, Y, rank=2, W0=W0)
    assert B.dtype == A.dtype == np.float32
    np.testing.assert_allclose(B @ A, B64 @ A64, rtol=1e-3, atol=1e-4)


def test_the_callers_arrays_are_left_alone():
    arrays = problem(9)
    before = [a.copy() for a in arrays]
    optimal_losses(arrays[0], arrays[1], W0=arrays[2], ridge=0.1)
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rank": 0}, ValueError, r"rank must be between 1 and min\(d, k\) = 6, got 0"),
        ({"rank": 7}, ValueError, r"between 1 and min\(d, k\) = 6, got 7"),
        ({"rank": 1.5}, TypeError, "rank must be a whole number, got 1.5"),
        ({"rank": True}, TypeError, "boolean"),
        ({"ridge": -1.0}, ValueError, "ridge must be at least 0, got -1.0"),
        ({"ridge": "much"}, TypeError, "ridge must be a number, got 'much'"),
        ({"W0": np.ones((8, 6))}, ValueError, r"W0 must have shape \(d, k\) = \(6, 8\)"),
        ({"X": np.ones((59, 8))}, ValueError, "X and Y must have as many rows"),
        ({"X": np.full((60, 8), np.nan)}, ValueError, r"X must be finite, got nan at \(0, 0\)"),
        ({"Y": np.ones(60)}, ValueError, "Y must be a matrix"),
        ({"Y": np.ones((60, 6), dtype=complex)}, TypeError, "Y must hold real numbers"),
    ],
)
def test_bad_input_is_named(change, error, message):
    X, Y, W0 = problem(0)
    with pytest.raises(error, match=message):
        reduced_rank_regression(**({"X": X, "Y": Y, "W0": W0, "rank": 2} | change))


def test_held_out_data_of_another_shape_is_refused():
    X, Y, W0 = problem(0)
    with pytest.raises(ValueError, match=r"W0 must have shape \(d, k\) = \(6, 3\)"):
        optimal_losses(X, Y, W0=W0, validation=(np.ones((2, 3)), np.ones((2, 6))))
