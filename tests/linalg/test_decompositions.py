"""Each decomposition written out: it multiplies back, its factors have their form, and LAPACK
agrees.
"""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from lora_np.linalg import decompositions, lu, qr, svd
from lora_np.linalg.decompositions import qr_pivoted
from tests.drawing import every, examples
from tests.linalg.conftest import SHAPES, example_of

FUNCTIONS = [lu, qr, qr_pivoted, svd]


KINDS = ["random", "deficient", "graded", "repeated", "zero", "zero_column"]
every_matrix = every("M", [
    pytest.param(example_of(kind, *shape).astype(dtype), id=f"{kind}, {shape}, {dtype}")
    for dtype in ("float64", "float32") for kind in KINDS for shape in SHAPES
])  # fmt: skip


def limit(M):
    return 10 * max(M.shape) * np.finfo(M.dtype).eps


def size(M):
    return np.linalg.norm(M.astype(np.float64), 2)


def assert_product(product, M):
    assert size(product - M) <= limit(M) * size(M)


def assert_orthonormal(Q):
    assert size(Q.T @ Q - np.eye(Q.shape[1])) <= 10 * max(Q.shape) * np.finfo(Q.dtype).eps


@every_matrix
def test_lu_multiplies_back(M):
    order, L, U = lu(M)
    m = min(M.shape)
    assert L.shape == (M.shape[0], m)
    assert U.shape == (m, M.shape[1])
    assert L.dtype == U.dtype == M.dtype
    assert_product(L @ U, M[order])
    np.testing.assert_array_equal(np.sort(order), np.arange(len(M)))
    np.testing.assert_array_equal(np.triu(L, 1), 0)
    np.testing.assert_array_equal(np.diag(L), 1)
    np.testing.assert_array_equal(np.tril(U, -1), 0)
    assert np.abs(L).max() <= 1


@every_matrix
def test_qr_multiplies_back(M):
    Q, R = qr(M)
    assert Q.shape == (M.shape[0], min(M.shape))
    assert Q.dtype == R.dtype == M.dtype
    assert_product(Q @ R, M)
    assert_orthonormal(Q)
    np.testing.assert_array_equal(np.tril(R, -1), 0)


@every_matrix
def test_pivoted_qr_multiplies_back_with_a_falling_diagonal(M):
    Q, R, order = qr_pivoted(M)
    assert Q.dtype == R.dtype == M.dtype
    assert_product(Q @ R, M[:, order])
    assert_orthonormal(Q)
    np.testing.assert_array_equal(np.sort(order), np.arange(M.shape[1]))
    np.testing.assert_array_equal(np.tril(R, -1), 0)
    diagonal = np.abs(np.diag(R))
    assert (diagonal[1:] <= diagonal[:-1] * (1 + limit(M)) + limit(M) * size(M)).all()


@every_matrix
def test_svd_multiplies_back_and_has_lapacks_values(M):
    U, s, Vh = svd(M)
    m = min(M.shape)
    assert (U.shape, s.shape, Vh.shape) == ((M.shape[0], m), (m,), (m, M.shape[1]))
    assert U.dtype == s.dtype == Vh.dtype == M.dtype
    assert_product((U * s) @ Vh, M)
    assert_orthonormal(U)
    assert_orthonormal(Vh.T)
    assert (s[1:] <= s[:-1]).all()
    assert (s >= 0).all()
    np.testing.assert_allclose(s, np.linalg.svdvals(M), rtol=0, atol=limit(M) * size(M))


@pytest.mark.parametrize("scale", [1e-200, 1e200])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_scaling_by_a_power_of_two_scales_the_result_exactly(function, scale, example):
    M = example("random", 6, 5)
    scale = 2.0 ** np.round(np.log2(scale))
    plain, scaled = function(M), function(M * scale)
    values = {lu: 2, qr: 1, qr_pivoted: 1, svd: 1}[function]
    for i, (a, b) in enumerate(zip(plain, scaled, strict=True)):
        np.testing.assert_allclose(b, a * scale if i == values else a, rtol=1e-12)


def test_columns_of_almost_nothing_still_get_orthonormal_directions():
    # Squares of 1e-170 vanish: such columns count as zero, and the basis is completed.
    M = np.diag([1.0, 1e-170, 1e-300])
    U, s, _ = svd(M)
    assert_orthonormal(U)
    assert s[0] == 1


def test_jacobi_keeps_the_digits_of_tiny_singular_values():
    # Orthogonal columns: their lengths are the exact singular values.
    rng = np.random.default_rng(0)
    lengths = np.logspace(0, -60, 8)
    M = np.linalg.qr(rng.normal(size=(8, 8)))[0] * rng.permutation(lengths)
    np.testing.assert_allclose(svd(M).s, lengths, rtol=1e-13)
    assert np.abs(np.linalg.svdvals(M) / lengths - 1).max() > 0.5


def test_more_sweeps_than_allowed_is_an_error(monkeypatch, example):
    monkeypatch.setattr(decompositions, "SWEEPS", 1)
    with pytest.raises(np.linalg.LinAlgError, match="did not converge in 1 sweeps"):
        svd(example("random", 6, 6))


def test_the_documented_failure_modes_are_real():
    n = 40
    growth = np.tril(-np.ones((n, n)), -1) + np.eye(n)
    growth[:, -1] = 1
    assert np.abs(lu(growth)[2]).max() == 2.0 ** (n - 1)

    cosine = 0.285
    sine = np.sqrt(1 - cosine**2)
    kahan = sine ** np.arange(n)[:, None] * (np.eye(n) - cosine * np.triu(np.ones((n, n)), 1))
    kahan *= 1 - 1e-13 * np.arange(n)  # break ties in favour of the order that fails
    last = abs(qr_pivoted(kahan)[1][-1, -1])
    assert last > 1000 * np.linalg.svdvals(kahan)[-1]


finite_matrices = arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    elements=st.floats(-1e3, 1e3, allow_subnormal=False),
)


@given(finite_matrices)
@settings(max_examples=examples(60), deadline=None)
def test_laws_hold_for_any_matrix(M):
    order, L, U = lu(M)
    assert_product(L @ U, M[order])
    Q, R = qr(M)
    assert_product(Q @ R, M)
    assert_orthonormal(Q)
    Q, R, order = qr_pivoted(M)
    assert_product(Q @ R, M[:, order])
    U, s, Vh = svd(M)
    assert_product((U * s) @ Vh, M)
    assert_orthonormal(U)
    assert_orthonormal(Vh.T)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_callers_matrix_is_left_alone(function, example):
    M = example("random", 5, 4)
    copy = M.copy()
    function(M)
    np.testing.assert_array_equal(M, copy)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("M", "error", "message"),
    [
        ([[np.inf, 0.0]], ValueError, r"M must be finite, got inf at \(0, 0\)"),
        (np.zeros((0, 3)), ValueError, r"M must not be empty, got shape \(0, 3\)"),
        ([1.0, 2.0], ValueError, r"M must be a matrix \(2 axes\), got shape \(2,\)"),
        ([[1j]], TypeError, "M must hold real numbers, got dtype complex128"),
        (np.array([[None]]), TypeError, "M must hold real numbers, got dtype object"),
    ],
)
def test_bad_input_is_named(function, M, error, message):
    with pytest.raises(error, match=message):
        function(M)


@pytest.mark.peers
def test_lu_and_qr_equal_lapack(shape, example):
    scipy_linalg = pytest.importorskip("scipy.linalg")
    M = example("random", *shape)
    P, L, U = scipy_linalg.lu(M)
    order, ours_L, ours_U = lu(M)
    np.testing.assert_allclose(ours_L, L, atol=1e-12)
    np.testing.assert_allclose(ours_U, U, atol=1e-12)
    np.testing.assert_array_equal(np.eye(len(M))[:, order], P)

    Q, R, order = scipy_linalg.qr(M, mode="economic", pivoting=True)
    ours_Q, ours_R, ours_order = qr_pivoted(M)
    np.testing.assert_array_equal(ours_order, order)
    signs = np.sign(np.diag(R)) * np.sign(np.diag(ours_R))
    np.testing.assert_allclose(ours_Q * signs, Q, atol=1e-12)
    np.testing.assert_allclose(signs[:, None] * ours_R, R, atol=1e-12)


@pytest.mark.peers
def test_jacobi_against_exact_arithmetic(with_spectrum):
    mpmath = pytest.importorskip("mpmath")
    mpmath.mp.dps = 60
    M = with_spectrum(np.logspace(0, -12, 6), 6, 6, np.random.default_rng(1))
    exact = sorted(
        (float(x) for x in mpmath.svd_r(mpmath.matrix(M.tolist()), compute_uv=False)), reverse=True
    )
    np.testing.assert_allclose(svd(M).s, exact, rtol=0, atol=1e-15)
