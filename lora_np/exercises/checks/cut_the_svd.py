"""Exercises of *Cut the SVD*."""

from __future__ import annotations

from typing import Any

import numpy as np

from lora_np.exercises.old_laws import law, orthonormal, parts, real_array, same, whole
from lora_np.exercises.old_samples import sizes, with_spectrum

Generator = np.random.Generator


def random_spectrum(rng: Generator, m: int) -> np.ndarray:
    return np.cumsum(rng.uniform(0.3, 1, m))[::-1]


def check_cut(answer: Any, rng: Generator) -> None:
    d, k = sizes(rng, 2, 3, 8)
    s = random_spectrum(rng, min(d, k))
    M = with_spectrum(rng, d, k, s)
    for r in (1, len(s) - 1):
        got = real_array("the approximation", answer(M, r), (d, k))
        rank = np.linalg.matrix_rank(got, tol=1e-8)
        law(
            "An approximation of rank r has r parts at most", bool(rank <= r), f"r is {r}, its rank is {rank}"
        )
        error, least = np.linalg.norm(M - got), np.sqrt(np.square(s[r:]).sum())
        law(
            "No matrix of rank r is closer than the first r parts of the SVD",
            bool(error <= least * (1 + 1e-8)),
            f"at r = {r} the error is {error:.6g}, the least possible {least:.6g}",
        )


def check_error_curve(answer: Any, rng: Generator) -> None:
    d, k = sizes(rng, 2, 2, 7)
    s = random_spectrum(rng, min(d, k))
    M = with_spectrum(rng, d, k, s)
    right = np.sqrt(np.append(np.cumsum(np.square(s)[::-1])[::-1], 0) / np.square(s).sum())
    got = real_array("the errors", answer(M), (len(s) + 1,))
    same("At rank 0 all is lost: the relative error is 1", "errors[0]", got[0], 1.0)
    same("At full rank nothing is lost", "the last error", got[-1], 0.0, tolerance=1e-6, size=1)
    same(
        "The squared error at rank r is the sum of the squares of the singular values that are left out",
        "errors",
        got,
        right,
        tolerance=1e-6,
    )


def check_smallest_rank(answer: Any, rng: Generator) -> None:
    d, k = sizes(rng, 2, 5, 9)
    s = random_spectrum(rng, min(d, k))
    M = with_spectrum(rng, d, k, s)
    shares = np.cumsum(np.square(s)) / np.square(s).sum()
    for r in range(1, len(s)):
        below = shares[r - 2] if r > 1 else 0.0
        share = float((shares[r - 1] + below) / 2)
        got = whole("the rank", answer(M, share))
        name = "The energy kept is the share of the squares of the singular values"
        detail = f"to keep {share:.4f} of the energy takes rank {r}, got {got}"
        law(name, got == r, detail)


def check_balanced_factors(answer: Any, rng: Generator) -> None:
    d, k = sizes(rng, 2, 3, 8)
    s = random_spectrum(rng, min(d, k))
    r = int(rng.integers(1, len(s)))
    M = 3 * with_spectrum(rng, d, k, s)
    B, A = parts(["B", "A"], answer(M, r))
    B, A = real_array("B", B, (d, r)), real_array("A", A, (r, k))
    error, least = np.linalg.norm(M - B @ A), 3 * np.sqrt(np.square(s[r:]).sum())
    law(
        "No product of rank r is closer than the SVD, cut",
        bool(error <= least * (1 + 1e-8)),
        f"the error of B @ A is {error:.6g}, the least possible {least:.6g}",
    )
    same("Balanced factors share the singular values evenly: B^T B = A A^T", "B^T B", B.T @ B, A @ A.T)


def check_top_directions(answer: Any, rng: Generator) -> None:
    d, k = (int(n) for n in rng.choice(np.arange(12, 26), 2, replace=False))
    r = int(rng.integers(2, 5))
    s = np.concatenate([np.linspace(3, 2, r), np.linspace(0.8, 0.1, min(d, k) - r)])
    M = 100 * with_spectrum(rng, d, k, s)
    Q = real_array("Q", answer(M, r), (d, r))
    orthonormal("Q", Q)
    kept, most = np.square(Q.T @ M).sum(), 1e4 * np.square(s[:r]).sum()
    law(
        "The top r directions keep as much of M as any r directions can",
        bool(kept >= most * (1 - 1e-6)),
        f"Q^T M keeps {kept / most:.6f} of the most that is possible",
    )
