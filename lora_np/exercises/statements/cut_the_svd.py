"""Exercises of *Cut the SVD*."""

from __future__ import annotations

import numpy as np

from lora_np.exercises.asking import SVD, Answer, Exercise
from lora_np.exercises.laws import law, orthonormal, parts, real_array, same, whole
from lora_np.exercises.samples import sizes, with_spectrum

Generator = np.random.Generator
READY_MADE = (
    "lora_np.low_rank_factors",
    "lora_np.rank_errors",
    "lora_np.rank_for_error",
    "lora_np.linalg.energy",
    "lora_np.linalg.rank_for_energy",
    "lora_np.truncated_svd",
)


def random_spectrum(rng: Generator, m: int) -> np.ndarray:
    return np.cumsum(rng.uniform(0.3, 1, m))[::-1]


def check_cut(answer: Answer, rng: Generator) -> None:
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


cut = Exercise(
    title="Cut",
    points=1,
    statement="""\
Return the matrix of rank `r` that is closest to `M`. You may use `np.linalg.svd`.""",
    stub='''\
def cut(M, r):
    """The best approximation of rank r to M, of the same shape."""
    ...
''',
    hints=(
        "The SVD is a sum of parts, the strongest first. Keep the first `r`.",
        "`U, s, Vh = np.linalg.svd(M, full_matrices=False)`, then the first `r` columns of `U`, times the first `r` entries of `s`, "
        "times the first `r` rows of `Vh`.",
    ),
    check=check_cut,
    forbids=READY_MADE,
)


def check_error_curve(answer: Answer, rng: Generator) -> None:
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


error_curve = Exercise(
    title="Know every error beforehand",
    points=2,
    statement="""\
Return the relative error $\\|M - M_r\\| / \\|M\\|$ of the best approximation of rank $r$, for $r = 0, 1, \\dots, \\min(d, k)$, in the
Frobenius norm. No approximation needs to be formed: singular values are enough.""",
    stub='''\
def error_curve(M):
    """The relative errors of the best approximations of rank 0, 1, ..., min(d, k)."""
    ...
''',
    hints=(
        "At rank $r$ the first $r$ singular values are kept. What counts is the sum of the squares of the others.",
        "With `squares = np.linalg.svdvals(M) ** 2` the entries are `np.sqrt(squares[r:].sum() / squares.sum())`, for $r$ from 0 to "
        "`len(squares)` inclusive.",
    ),
    check=check_error_curve,
    forbids=READY_MADE,
)


def check_smallest_rank(answer: Answer, rng: Generator) -> None:
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


smallest_rank = Exercise(
    title="Choose a rank by energy",
    points=2,
    statement="""\
Return the smallest rank whose best approximation keeps at least this `share` of the energy of `M`. The energy is the sum of all
squared entries, which is the sum of the squares of the singular values.""",
    stub='''\
def smallest_rank(M, share):
    """The smallest rank whose best approximation of M keeps at least this share of its energy."""
    ...
''',
    hints=(
        "`np.cumsum` of the squares, divided by their sum, says what ranks 1, 2, ... keep.",
        "The first place where that is at least `share` is place 0 for rank 1. `np.argmax` of a boolean array finds the first True.",
    ),
    check=check_smallest_rank,
    forbids=READY_MADE,
)


def check_balanced_factors(answer: Answer, rng: Generator) -> None:
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


balanced_factors = Exercise(
    title="Two thin factors, of equal weight",
    points=2,
    statement="""\
Return `B` ($d \\times r$) and `A` ($r \\times k$) such that `B @ A` is the best approximation of rank `r` to `M`, and the factors
are balanced: `B.T @ B` equals `A @ A.T`.""",
    stub='''\
def balanced_factors(M, r):
    """B (d, r) and A (r, k), balanced, with B @ A the best approximation of rank r to M."""
    ...
''',
    hints=(
        "`U` and `Vh` have orthonormal columns and rows. Only where the singular values go is open.",
        "Half of each singular value to either side, in the sense of a product: its root.",
    ),
    check=check_balanced_factors,
    forbids=READY_MADE,
)


def check_top_directions(answer: Answer, rng: Generator) -> None:
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


top_directions = Exercise(
    title="The top directions without an SVD",
    points=3,
    statement="""\
Multiply random vectors by $M M^T$ again and again, and they turn towards the strongest directions of $M$. That is how the SVD of
large matrices is cut.

Return `Q` ($d \\times r$) with orthonormal columns that span the top `r` left singular vectors of `M`. The next singular value is
less than half of the $r$-th. `np.linalg.qr` is allowed, SVD and eigenvectors are not.""",
    stub='''\
def top_directions(M, r):
    """Q (d, r): an orthonormal basis of the top r left singular vectors of M."""
    ...
''',
    hints=(
        "All vectors turn towards the same strongest direction, and grow without bound. After each multiplication make the columns "
        "orthonormal again.",
        "Start with a random $d \\times r$ matrix. Thirty times: `Q = np.linalg.qr(M @ (M.T @ Q))[0]`.",
    ),
    check=check_top_directions,
    forbids=(*SVD, "numpy.linalg.eigh", "numpy.linalg.eig", "lora_np.low_rank_factors"),
)

TITLE = "Cut the SVD"
EXERCISES = (cut, error_curve, smallest_rank, balanced_factors, top_directions)
