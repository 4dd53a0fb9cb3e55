"""The best rank-r approximation: never beaten, its errors known without forming it, and fast where
it pays.
"""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from lora_np.linalg import (
    energy,
    low_rank_factors,
    lowrank,
    rank_errors,
    rank_for_energy,
    rank_for_error,
    svd_of_product,
    truncated_svd,
)
from tests.drawing import every, examples

NORMS = ["fro", "spectral", "nuclear"]
RESIDUAL_NORM = {"fro": "fro", "spectral": 2, "nuclear": "nuc"}

n = np.arange(1.0, 301)
SPECTRA = {
    "slow": n**-0.5,
    "slower": n**-0.25,
    "fast": 0.8**n,
    "graded": 10.0 ** (-n / 20),
    "low rank": 1.0 * (n <= 5),
    "ties at the cut": np.where(n <= 20, 1.0, 0.5),
    "almost ties": np.where(n <= 8, 1.0, 0.999),
    "step": np.where(n <= 8, 1.0, 0.3),
    "noise": np.linspace(2.0, 0.1, 300) ** 0.5,
}


@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([1e-4, 1e-1, 1.0]))
@settings(max_examples=examples(60), deadline=None)
def test_eckart_young_no_competitor_of_the_same_rank_is_nearer(seed, rank, size):
    rng = np.random.default_rng(seed)
    M = rng.normal(size=(6, 5))
    B, A = low_rank_factors(M, rank=rank)
    rival = (B + size * rng.normal(size=B.shape)) @ (A + size * rng.normal(size=A.shape))
    for norm in NORMS:
        best = rank_errors(M, norm=norm)[rank]
        assert np.linalg.norm(M - rival, RESIDUAL_NORM[norm]) >= best * (1 - 1e-12)


@given(st.integers(0, 10**6))
@settings(max_examples=examples(30), deadline=None)
def test_errors_do_not_change_under_orthogonal_maps(seed):
    rng = np.random.default_rng(seed)
    M = rng.normal(size=(6, 4))
    Q1, Q2 = (np.linalg.qr(rng.normal(size=(m, m)))[0] for m in M.shape)
    for norm in NORMS:
        np.testing.assert_allclose(
            rank_errors(Q1 @ M @ Q2, norm=norm), rank_errors(M, norm=norm), atol=1e-12
        )


@every("norm", NORMS)
@every("scale", [1e-200, 1.0, 1e200])
@every("kind", ["random", "deficient", "graded", "zero"])
def test_rank_errors_are_those_of_every_explicit_truncation(shape, kind, scale, norm, example):
    M = example(kind, *shape) * scale
    largest = np.abs(M).max() or 1.0
    U, s, Vh = np.linalg.svd(M / largest, full_matrices=False)
    explicit = [
        np.linalg.norm(M / largest - (U[:, :r] * s[:r]) @ Vh[:r], RESIDUAL_NORM[norm])
        for r in range(min(shape) + 1)
    ]
    errors = rank_errors(M, norm=norm)
    assert errors.shape == (min(shape) + 1,)
    np.testing.assert_allclose(errors / largest, explicit, rtol=0, atol=1e-10 * explicit[0])
    relative = rank_errors(M, norm=norm, relative=True)
    np.testing.assert_allclose(relative * explicit[0], explicit, rtol=0, atol=1e-10 * explicit[0])


def test_short_tails_keep_their_digits():
    # 1 - cumsum(s^2) would be all rounding error here.
    errors = rank_errors(np.diag([1.0, 1e-9, 1e-12]))
    np.testing.assert_allclose(errors[1:3], [np.hypot(1e-9, 1e-12), 1e-12], rtol=1e-12)


@pytest.mark.parametrize("method", ["svd", "qr", "lu"])
def test_every_cut_decomposition_is_exact_at_full_rank_and_never_beats_the_svd(
    shape, method, example
):
    M = example("random", *shape)
    best = rank_errors(M)
    for rank in range(1, min(shape) + 1):
        B, A = low_rank_factors(M, rank=rank, method=method)
        assert B.shape == (shape[0], rank)
        assert A.shape == (rank, shape[1])
        error = np.linalg.norm(M - B @ A)
        assert error >= best[rank] * (1 - 1e-12) - 1e-12
        if method == "svd" or rank == min(shape):
            assert error == pytest.approx(best[rank], rel=1e-10, abs=1e-12)


def test_pivoted_qr_is_close_to_the_best(with_spectrum):
    M = with_spectrum(0.5 ** np.arange(20), 30, 20, np.random.default_rng(0))
    best = rank_errors(M)
    for rank in range(1, 20):
        B, A = low_rank_factors(M, rank=rank, method="qr")
        assert np.linalg.norm(M - B @ A) < 4 * best[rank]


def test_factors_are_balanced(example):
    B, A = low_rank_factors(example("random", 9, 7), rank=3)
    np.testing.assert_allclose(B.T @ B, A @ A.T, atol=1e-12)


@every("dtype", [np.float64, np.float32])
@every("rank", [1, 8, 20])
@every("name", SPECTRA)
def test_the_iteration_meets_the_tolerance(name, rank, dtype, with_spectrum):
    M = with_spectrum(SPECTRA[name], 400, 300, np.random.default_rng(1)).astype(dtype)
    U, s, Vh = truncated_svd(M, rank=rank)
    assert U.dtype == s.dtype == Vh.dtype == dtype
    eps = np.finfo(dtype).eps
    U, s, Vh = (a.astype(np.float64) for a in (U, s, Vh))
    error = np.linalg.norm(M - (U * s) @ Vh)
    best = rank_errors(M.astype(np.float64))
    assert error <= best[rank] * (1 + 1e-6) + 10 * eps * best[0]
    np.testing.assert_allclose(U.T @ U, np.eye(rank), atol=100 * eps)
    np.testing.assert_allclose(Vh @ Vh.T, np.eye(rank), atol=100 * eps)
    assert (np.diff(s) <= 0).all()


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-9])
def test_the_tolerance_is_met_and_not_ignored(tolerance, with_spectrum):
    M = with_spectrum(SPECTRA["slow"], 400, 300, np.random.default_rng(2))
    _, s, _ = truncated_svd(M, rank=8, tolerance=tolerance)
    best = rank_errors(M)
    excess = np.sqrt(best[0] ** 2 - np.square(s).sum()) / best[8] - 1
    assert excess <= tolerance
    assert tolerance < 1e-8 or excess > 1e-4 * tolerance


@pytest.mark.parametrize("scale", [1e-200, 1e200])
@pytest.mark.parametrize("small", [lowrank.SMALL, 1000])
def test_huge_and_tiny_entries(small, scale, with_spectrum, monkeypatch):
    monkeypatch.setattr(lowrank, "SMALL", small)
    M = with_spectrum(SPECTRA["slow"], 400, 300, np.random.default_rng(3))
    s = truncated_svd(M * scale, rank=8).s / scale
    np.testing.assert_allclose(s, SPECTRA["slow"][:8], rtol=1e-5)


def test_a_zero_matrix_has_zero_singular_values():
    U, s, _ = truncated_svd(np.zeros((300, 250)), rank=3)
    np.testing.assert_array_equal(s, 0)
    np.testing.assert_allclose(U.T @ U, np.eye(3), atol=1e-13)


def test_iteration_gives_way_to_the_full_svd_where_that_is_as_cheap(monkeypatch, with_spectrum):
    shapes = []
    full_svd = np.linalg.svd
    monkeypatch.setattr(
        np.linalg, "svd", lambda M, **kw: shapes.append(M.shape) or full_svd(M, **kw)
    )
    M = with_spectrum(SPECTRA["noise"], 400, 300, np.random.default_rng(1))
    truncated_svd(M, rank=100)
    assert M.shape in shapes
    shapes.clear()
    truncated_svd(with_spectrum(SPECTRA["slow"], 400, 300, np.random.default_rng(1)), rank=8)
    assert shapes
    assert M.shape not in shapes


def test_results_repeat_and_another_start_agrees(with_spectrum, monkeypatch):
    M = with_spectrum(SPECTRA["slow"], 400, 300, np.random.default_rng(4))
    first, again = truncated_svd(M, rank=4), truncated_svd(M, rank=4)
    np.testing.assert_array_equal(first.U, again.U)
    seeded = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: seeded(5))
    other = truncated_svd(M, rank=4)
    assert not np.array_equal(first.U, other.U)
    np.testing.assert_allclose(first.s, other.s, rtol=1e-5)


@pytest.mark.parametrize("rank", range(1, 6))
def test_full_svd_is_lapacks_cut(rank, example):
    M = example("random", 6, 5)
    U, s, Vh = truncated_svd(M, rank=rank)
    full = np.linalg.svd(M, full_matrices=False)
    np.testing.assert_array_equal(U, full.U[:, :rank])
    np.testing.assert_array_equal(s, full.S[:rank])
    np.testing.assert_array_equal(Vh, full.Vh[:rank])


@pytest.mark.parametrize(("d", "r", "k"), [(9, 3, 7), (4, 6, 5), (1, 1, 1), (8, 8, 2)])
def test_the_svd_of_a_product_is_that_of_the_formed_product(d, r, k):
    rng = np.random.default_rng(0)
    B, A = rng.normal(size=(d, r)), rng.normal(size=(r, k))
    U, s, Vh = svd_of_product(B, A)
    m = min(d, r, k)
    assert (U.shape, s.shape, Vh.shape) == ((d, m), (m,), (m, k))
    np.testing.assert_allclose((U * s) @ Vh, B @ A, atol=1e-12)
    np.testing.assert_allclose(s, np.linalg.svdvals(B @ A)[:m], atol=1e-12)
    np.testing.assert_allclose(U.T @ U, np.eye(m), atol=1e-12)


def test_the_svd_of_a_product_in_float32():
    rng = np.random.default_rng(0)
    B, A = (
        rng.normal(size=(200, 8)).astype(np.float32),
        rng.normal(size=(8, 300)).astype(np.float32),
    )
    s = svd_of_product(B, A).s
    assert s.dtype == np.float32
    np.testing.assert_allclose(s, np.linalg.svdvals(B.astype(np.float64) @ A)[:8], rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("tolerance", [0.0, 0.01, 0.3, 1.0])
def test_rank_for_error_is_the_smallest_that_is_good_enough(norm, tolerance, with_spectrum):
    M = with_spectrum(0.5 ** np.arange(10), 12, 10, np.random.default_rng(0))
    rank = rank_for_error(M, tolerance=tolerance, norm=norm)
    errors = rank_errors(M, norm=norm, relative=True)
    assert errors[rank] <= tolerance
    assert (errors[:rank] > tolerance).all()


def test_rank_for_error_of_nothing_is_zero():
    assert rank_for_error(np.zeros((3, 4))) == rank_for_energy(np.zeros((3, 4))) == 0


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 0.999, 1.0])
def test_rank_for_energy_is_the_smallest_that_keeps_the_share(share, with_spectrum):
    M = with_spectrum(0.5 ** np.arange(10), 12, 10, np.random.default_rng(0))
    rank = rank_for_energy(M, energy=share)
    kept = energy(M)
    assert kept[rank] >= share
    assert (kept[:rank] < share).all()


def test_energy_is_one_minus_the_squared_error(example):
    M = example("random", 8, 6)
    np.testing.assert_allclose(energy(M), 1 - rank_errors(M, relative=True) ** 2, atol=1e-14)


def test_precision_is_kept(example):
    M = example("random", 6, 5)
    for dtype, result in [
        (np.float16, np.float32),
        (np.float32, np.float32),
        (np.float64, np.float64),
    ]:
        assert rank_errors(M.astype(dtype)).dtype == result
        assert low_rank_factors(M.astype(dtype), rank=2)[0].dtype == result
    assert rank_errors([[1, 2], [3, 4]]).dtype == np.float64
    big_endian = M.astype(">f8")
    np.testing.assert_array_equal(rank_errors(big_endian), rank_errors(M))


@pytest.mark.parametrize("function", [
    truncated_svd,
    *(partial(low_rank_factors, method=method) for method in ("svd", "qr", "lu")),
])  # fmt: skip
@pytest.mark.parametrize(
    ("rank", "error", "message"),
    [
        (0, ValueError, r"rank must be between 1 and min\(d, k\) = 3, got 0"),
        (4, ValueError, "got 4"),
        (-1, ValueError, "got -1"),
        (1.0, TypeError, "rank must be a whole number, got 1.0"),
        (True, TypeError, "boolean"),
        (None, TypeError, "rank must be a whole number, got None"),
    ],
)
def test_rank_out_of_range_is_refused(function, rank, error, message):
    with pytest.raises(error, match=message):
        function(np.ones((3, 4)), rank=rank)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda M: truncated_svd(M, rank=1, tolerance=0), "tolerance must be above 0, got 0"),
        (
            lambda M: low_rank_factors(M, rank=1, method="eig"),
            "method must be one of 'svd', 'qr', 'lu'",
        ),
        (lambda M: rank_errors(M, norm="frobenius"), "norm must be one of .* got 'frobenius'"),
        (
            lambda M: rank_for_error(M, tolerance=1.5),
            "tolerance must be at least 0 and at most 1, got 1.5",
        ),
        (lambda M: rank_for_error(M, tolerance=-0.1), "got -0.1"),
        (lambda M: rank_for_energy(M, energy=2), "energy must be at least 0 and at most 1, got 2"),
        (
            lambda M: svd_of_product(M, M),
            r"as many columns as A has rows, got shapes \(3, 4\) and \(3, 4\)",
        ),
        (lambda M: rank_errors(M[0]), r"M must be a matrix \(2 axes\)"),
        (lambda M: rank_errors(M * np.nan), "M must be finite"),
        (lambda M: svd_of_product(M, np.full((4, 2), np.inf)), "A must be finite"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.ones((3, 4)))


def test_types_that_are_no_numbers_are_refused():
    with pytest.raises(TypeError, match=r"tolerance must be a number, got '0\.1'"):
        rank_for_error(np.eye(2), tolerance="0.1")
    with pytest.raises(TypeError, match="real numbers, got dtype object"):
        truncated_svd(np.array([[1, None]]), rank=1)


@pytest.mark.peers
@pytest.mark.parametrize("name", ["slow", "fast"])
def test_agrees_with_scipys_iterative_svd(name, with_spectrum):
    svds = pytest.importorskip("scipy.sparse.linalg").svds
    M = with_spectrum(SPECTRA[name], 400, 300, np.random.default_rng(6))
    theirs = svds(M, k=8, random_state=0)[1][::-1]
    np.testing.assert_allclose(truncated_svd(M, rank=8, tolerance=1e-12).s, theirs, rtol=1e-9)


@pytest.mark.parametrize(("dtype", "size"), [(np.float32, 3e38), (np.float64, 1e300)])
def test_a_product_that_overflows_is_refused(dtype, size):
    B, A = np.full((4, 2), size, dtype), np.full((2, 3), size, dtype)
    with pytest.raises(
        np.linalg.LinAlgError, match=r"B @ A overflows float.*: divide B or A by a power"
    ):
        svd_of_product(np.hstack([B, -B]), np.vstack([A, A / 2]))
