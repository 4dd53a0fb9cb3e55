"""Exercises of *Factor a matrix*."""

from __future__ import annotations

from typing import Any

import numpy as np

from lora_np.checks import Array
from lora_np.exercises.old_laws import law, orthonormal, parts, real_array, same
from lora_np.exercises.old_samples import of_rank, sizes, with_spectrum

Generator = np.random.Generator


def check_rank_one_parts(answer: Any, rng: Generator) -> None:
    d, r, k = (int(n) for n in rng.choice(np.arange(2, 7), 3, replace=False))
    B, A = rng.normal(size=(d, r)), rng.normal(size=(r, k))
    got = real_array("the parts", answer(B, A), (r, d, k))
    same("The parts of a product add up to it", "their sum", got.sum(axis=0), B @ A)
    for i in range(r):
        same("Part i is column i of B times row i of A", f"part {i}", got[i], np.outer(B[:, i], A[i]))


def check_lu_factors(answer: Any, rng: Generator) -> None:
    n = int(rng.integers(3, 7))
    right_L = np.tril(rng.uniform(-1, 1, (n, n)), -1) + np.eye(n)
    right_U = np.triu(rng.uniform(1, 2, (n, n)))
    M = right_L @ right_U
    L, U = parts(["L", "U"], answer(M))
    L, U = real_array("L", L, (n, n)), real_array("U", U, (n, n))
    same("L is zero above its diagonal", "L", np.triu(L, 1), np.zeros((n, n)), size=1)
    same("U is zero below its diagonal", "U", np.tril(U, -1), np.zeros((n, n)), size=1)
    same("L has ones on its diagonal", "the diagonal of L", np.diag(L), np.ones(n))
    same("Elimination, remembered, gives the matrix back", "L @ U", L @ U, M)


def check_gram_schmidt(answer: Any, rng: Generator) -> None:
    d = int(rng.integers(3, 8))
    k = int(rng.integers(2, d + 1))
    M = with_spectrum(rng, d, k, np.linspace(2, 1, k))
    Q = real_array("Q", answer(M), (d, k))
    orthonormal("Q", Q)
    for j in range(1, k + 1):
        basis = Q[:, :j]
        same(
            "The first j columns of Q span what the first j columns of M span",
            f"the projection of the first {j} columns",
            basis @ (basis.T @ M[:, :j]),
            M[:, :j],
        )


def check_cut_qr(answer: Any, rng: Generator) -> None:
    d, k = sizes(rng, 2, 4, 8)
    m = min(d, k)
    r = int(rng.integers(1, m))
    M = of_rank(rng, d, k, m)
    B, A = parts(["B", "A"], answer(M, r))
    B, A = real_array("B", B, (d, r)), real_array("A", A, (r, k))
    same("QR, cut at r, keeps the first r columns of M", "B @ A", (B @ A)[:, :r], M[:, :r])
    orthonormal("B", B)
    same(
        "What the cut leaves out is at a right angle to B",
        "B^T (M - B A)",
        B.T @ (M - B @ A),
        np.zeros((r, k)),
        size=1,
    )


def check_svd_by_eigenvectors(answer: Any, rng: Generator) -> None:
    k = int(rng.integers(2, 6))
    d = k + int(rng.integers(1, 4))
    s = np.cumsum(rng.uniform(0.3, 1, k))[::-1]
    M = with_spectrum(rng, d, k, s)
    U, got_s, Vh = parts(["U", "s", "Vh"], answer(M))
    U, Vh = real_array("U", U, (d, k)), real_array("Vh", Vh, (k, k))
    got_s = real_array("s", got_s, (k,))
    law("Singular values come largest first", bool((np.diff(got_s) <= 0).all()), f"got {brief(got_s)}")
    same("Singular values are the roots of the eigenvalues of M^T M", "s", got_s, s, tolerance=1e-6)
    check_directions(U, got_s, Vh, M)


def check_directions(U: Array, s: Array, Vh: Array, M: Array) -> None:
    orthonormal("U", U)
    orthonormal("Vh^T", Vh.T)
    same("The parts of the SVD add up to the matrix", "(U * s) @ Vh", (U * s) @ Vh, M, tolerance=1e-6)


def brief(s: Array) -> str:
    return np.array2string(s, precision=3, separator=", ")
