"""Subspaces: the paper's similarity and amplification, principal angles, and intruders."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from lora_np.linalg import (
    amplification_factor,
    column_space,
    intruder_dimensions,
    principal_angles,
    similarity_grid,
    subspace_similarity,
)
from tests.drawing import examples


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=examples(50), deadline=None)
def test_phi_lies_between_zero_and_one_and_is_symmetric(seed, i, j):
    rng = np.random.default_rng(seed)
    A1, A2 = rng.normal(size=(5, 8)), rng.normal(size=(6, 8))
    phi = subspace_similarity(A1, A2, i, j)
    assert 0 <= phi <= 1
    assert phi == pytest.approx(subspace_similarity(A2, A1, j, i))


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=examples(30), deadline=None)
def test_phi_of_nested_subspaces_is_one(seed, i, j):
    A = np.random.default_rng(seed).normal(size=(5, 8))
    assert subspace_similarity(A, A, i, j) == pytest.approx(1)
    # An invertible mixture of the rows has the same row space.
    mixed = np.random.default_rng(seed + 1).normal(size=(5, 5)) @ A
    assert subspace_similarity(A, mixed, 5, j) == pytest.approx(1)


def test_phi_of_orthogonal_subspaces_is_zero():
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 6)))[0].T
    np.testing.assert_allclose(similarity_grid(Q[:3], Q[3:]), 0, atol=1e-30)


def test_the_grid_is_the_equation_of_the_paper():
    rng = np.random.default_rng(1)
    A1, A2 = rng.normal(size=(4, 9)), rng.normal(size=(6, 9))
    V1, V2 = (np.linalg.svd(A)[2].T for A in (A1, A2))
    grid = similarity_grid(A1, A2)
    assert grid.shape == (4, 6)
    for i in range(1, 5):
        for j in range(1, 7):
            phi = np.linalg.norm(V1[:, :i].T @ V2[:, :j]) ** 2 / min(i, j)
            assert grid[i - 1, j - 1] == pytest.approx(phi)
            assert subspace_similarity(A1, A2, i, j) == grid[i - 1, j - 1]


def test_random_subspaces_share_what_the_docstring_says():
    rng = np.random.default_rng(2)
    k = 40
    phi = [
        subspace_similarity(rng.normal(size=(8, k)), rng.normal(size=(4, k)), 8, 4)
        for _ in range(300)
    ]
    assert np.mean(phi) == pytest.approx(8 / k, rel=0.05)


def test_phi_is_the_mean_squared_cosine_of_the_principal_angles():
    rng = np.random.default_rng(3)
    A1, A2 = rng.normal(size=(3, 8)), rng.normal(size=(5, 8))
    cosines = np.cos(principal_angles(A1.T, A2.T))
    assert subspace_similarity(A1, A2, 3, 5) == pytest.approx(np.mean(np.square(cosines)))


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-6, 0.3, 1.5, np.pi / 2])
@pytest.mark.parametrize("order", [1, -1])
def test_principal_angles_of_two_planes(angle, order):
    plane = np.eye(5)[:, :2]
    tilted = np.array([[1, 0, 0, 0, 0], [0, np.cos(angle), 0, np.sin(angle), 0]]).T
    # Any basis of the same plane will do.
    tilted = tilted @ [[2.0, 1.0], [-1.0, 3.0]]
    np.testing.assert_allclose(
        principal_angles(*(plane, tilted)[::order]), [0, angle], rtol=1e-3, atol=1e-15
    )


def test_principal_angles_of_spaces_of_different_dimension():
    rng = np.random.default_rng(4)
    M1, M2 = rng.normal(size=(9, 2)), rng.normal(size=(9, 5))
    angles = principal_angles(M1, M2)
    assert angles.shape == (2,)
    assert (np.diff(angles) >= 0).all()
    np.testing.assert_allclose(
        np.cos(angles), np.linalg.svdvals(column_space(M1).T @ column_space(M2)), atol=1e-12
    )
    np.testing.assert_allclose(principal_angles(np.hstack([M1, M2]), M1), 0, atol=1e-7)


def test_amplification_is_the_ratio_of_the_paper():
    rng = np.random.default_rng(5)
    W0 = rng.normal(size=(20, 15))
    dW = rng.normal(size=(20, 4)) @ rng.normal(size=(4, 15))
    U, _, Vh = np.linalg.svd(dW)
    expected = np.linalg.norm(dW) / np.linalg.norm(U[:, :4].T @ W0 @ Vh[:4].T)
    assert amplification_factor(W0, dW, rank=4) == pytest.approx(expected)
    assert amplification_factor(1e200 * W0, 1e200 * dW, rank=4) == pytest.approx(expected)
    assert amplification_factor(W0, 3 * dW, rank=4) == pytest.approx(3 * expected)


def test_amplification_of_what_was_not_there_is_infinite():
    assert amplification_factor(np.diag([1.0, 0.0]), np.diag([0.0, 1.0]), rank=1) == float("inf")


def test_intruders_are_the_planted_directions(with_spectrum):
    rng = np.random.default_rng(6)
    W0 = with_spectrum(2 * 0.7 ** np.arange(30), 40, 30, rng)
    B, A = rng.normal(size=(40, 2)), rng.normal(size=(2, 30))
    update = 10 * B @ A / np.linalg.norm(B @ A)
    assert intruder_dimensions(W0, W0 + update, top=10) == [0, 1]
    assert intruder_dimensions(W0, W0) == []
    # A small change of everything turns no leading vector far.
    assert intruder_dimensions(W0, W0 + 1e-4 * rng.normal(size=W0.shape)) == []


def test_the_threshold_decides():
    W0 = np.diag([2.0, 1.0])
    c, s = np.cos(1.0), np.sin(1.0)
    rotated = np.array([[c, -s], [s, c]]) @ W0
    cosine = max(c, s)
    assert intruder_dimensions(W0, rotated, top=2, threshold=cosine + 1e-9) == [0, 1]
    assert intruder_dimensions(W0, rotated, top=2, threshold=cosine - 1e-9) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda M: similarity_grid(M, np.ones((2, 3))),
            r"as many columns, got shapes \(3, 4\) and \(2, 3\)",
        ),
        (
            lambda M: subspace_similarity(M, M, 0, 1),
            r"i must be between 1 and min\(r1, k\) = 3, got 0",
        ),
        (
            lambda M: subspace_similarity(M, M, 1, 4),
            r"j must be between 1 and min\(r2, k\) = 3, got 4",
        ),
        (
            lambda M: principal_angles(M, np.ones((2, 2))),
            r"as many rows, got shapes \(3, 4\) and \(2, 2\)",
        ),
        (lambda M: amplification_factor(M, M.T, rank=1), r"W0 and dW must agree in shape"),
        (lambda M: amplification_factor(M, 0 * M, rank=1), "dW must not be zero"),
        (
            lambda M: amplification_factor(M, M, rank=4),
            r"rank must be between 1 and min\(d, k\) = 3, got 4",
        ),
        (
            lambda M: intruder_dimensions(M, M, top=4),
            r"top must be between 1 and min\(d, k\) = 3, got 4",
        ),
        (
            lambda M: intruder_dimensions(M, M, top=1, threshold=2),
            "threshold must be .* at most 1, got 2",
        ),
        (lambda M: intruder_dimensions(M, np.full((3, 4), np.nan)), "W must be finite"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.ones((3, 4)))
