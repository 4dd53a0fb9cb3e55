"""The error of every function of linalg against 60 digits.

    python tests/linalg/accuracy.py SEEDS      the largest error found for each function, as JSON
    python tests/linalg/accuracy.py --write    write the table in docs/understand/low-rank.md: 200 seeds,
    two kernels

An error is measured as the table says, in units of eps, the rounding unit of the dtype. Each seed
draws shapes up to 8 x 6, a condition from 1 to 1e14, a scale and a dtype.
"""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from mpmath import mp

from lora_np import linalg
from lora_np.linalg.decompositions import qr_pivoted

mp.dps = 60
PAGE = Path(__file__).parents[2] / "docs" / "understand" / "low-rank.md"
KERNELS = ("Haswell", "Prescott")  # of OpenBLAS: with fused multiply-add and without
ALL = 200  # seeds

# Each function: what its error is measured against, in the notation of the docs, and how many eps
# it may be.
BOUNDS = {
    "lu": ("norm of `M[order] - L @ U`, over that of `abs(L) @ abs(U)`", 2),
    "qr": ("norm of `M - Q @ R`, over that of M; distance of `Q.T @ Q` from the identity", 50),
    "qr_pivoted": ("norm of `M[:, order] - Q @ R`, over that of M; distance of `Q.T @ Q` from the identity", 50),
    "svd": ("norm of `M - (U * s) @ Vh`, and error of s, over `s[0]`; distance from orthonormal", 100),
    "truncated_svd": ("error of s, and norm of `M - (U * s) @ Vh` beyond the smallest, over `s[0]`", 50),
    "svd_of_product": ("error of s, over the norm of B times that of A", 50),
    "low_rank_factors": ("norm of `M - B @ A` beyond the smallest, over that of M", 100),
    "rank_errors": ("error, in each norm, over that norm of M", 50),
    "rank_for_error": ("change of the tolerance that makes the rank right", 50),
    "rank_for_energy": ("change of the share that makes the rank right", 50),
    "matrix_rank": ("change of the tolerance that makes the rank right, over `s[0]`", 50),
    "row_echelon": ("distance of the rows of M from the span of the form's, over the norm of M", 200),
    "independent_columns": ("distance of the columns of M from the span of the chosen, over the norm of M", 200),
    "column_space": ("norm of the part of M outside the basis, over that of M", 50),
    "stable_rank": ("relative error", 50),
    "effective_rank": ("relative error", 200),
    "energy": ("error", 50),
    "similarity_grid": ("error, times the smaller gap: of the singular values at i or j, over the largest", 50),
    "subspace_similarity": ("as `similarity_grid`", 50),
    "principal_angles": ("error, times the smaller gap: of the singular values at the rank, over the largest", 50),
    "amplification_factor": ("relative error, times the gap, and times the share of W0's norm in the directions of dW", 50),
    "intruder_dimensions": ("change of the threshold that makes a verdict right, times the smallest gap", 50),
    "reduced_rank_regression": (
        "norm of `E - X @ (B @ A).T` beyond the smallest, over `e + norm(X) norm(A)`; relative error of the full "
        "update, over `kappa (1 + (e + kappa rest) / (norm(X) norm(D)))`", 50,
    ),
    "optimal_losses": ("error of its root, times the root of n d, over `e + norm(X) norm(A)`", 50),
}  # fmt: skip


def exact(M):
    """M in 60 digits, unless it is already."""
    if isinstance(M, mp.matrix):
        return M
    return mp.matrix(np.asarray(M, dtype=np.float64).tolist())


def norm(M):
    return mp.mnorm(M, "f")


class Exact:
    """A matrix in 60 digits, and its singular value decomposition."""

    def __init__(self, M):
        self.M = exact(M)
        self.U, s, self.Vh = mp.svd_r(self.M)
        self.s = list(s)
        self.norm = norm(self.M)

    def tail(self, r):
        return mp.sqrt(sum(x**2 for x in self.s[r:]))

    def gap(self, r, size):
        """Between the r-th singular value and the next, over the largest; infinite where nothing is
        left.
        """
        if r >= size:
            return mp.inf
        return (self.s[r - 1] - (self.s[r] if r < len(self.s) else 0)) / self.s[0]


def from_identity(Q):
    return norm(Q.T * Q - mp.eye(Q.cols))


def outside(M, basis):
    """The norm of what the columns of M have outside the span of the basis, which need not be
    orthonormal.
    """
    if basis.cols == 0:
        return norm(M)
    U, s, _ = mp.svd_r(basis)
    rank = sum(x > s[0] * mp.mpf(10) ** -40 for x in s)
    U = U[:, :rank]
    return norm(M - U * (U.T * M))


def drawn(rng, d=None, k=None, *, reach=150):
    """A matrix with a drawn condition and scale, and a drawn dtype if it is the first of its
    case.
    """
    d, k = d or int(rng.integers(1, 9)), k or int(rng.integers(1, 7))
    m = min(d, k)
    s = np.geomspace(1, 10.0 ** -rng.uniform(0, 14), m) if m > 1 else np.ones(1)
    U, V = (np.linalg.qr(rng.normal(size=(n, m)))[0] for n in (d, k))
    return (U * s) @ V.T * 10.0 ** rng.uniform(-reach, reach)


def decompositions(M, E):
    order, L, U = linalg.lu(M)
    yield "lu", residual_of_lu(E, order, L, U)
    Q, R = map(exact, linalg.qr(M))
    yield "qr", norm(E.M - Q * R) / E.norm
    yield "qr", from_identity(Q)
    Q, R, order = qr_pivoted(M)
    Q, R = exact(Q), exact(R)
    yield "qr_pivoted", norm(exact(M[:, order]) - Q * R) / E.norm
    yield "qr_pivoted", from_identity(Q)
    for name, rank in (("svd", len(E.s)), ("truncated_svd", (len(E.s) + 1) // 2)):
        found = linalg.svd(M) if name == "svd" else linalg.truncated_svd(M, rank=rank)
        U, Vh = exact(found.U), exact(found.Vh)
        yield (
            name,
            max(abs(mp.mpf(float(x)) - y) for x, y in zip(found.s, E.s, strict=False)) / E.s[0],
        )
        yield name, max(from_identity(U), from_identity(Vh.T))
        yield name, (norm(E.M - U * mp.diag(found.s.tolist()) * Vh) - E.tail(rank)) / E.s[0]


def residual_of_lu(E, order, L, U):
    L, U = exact(L), exact(U)
    size = norm(L.apply(abs) * U.apply(abs))
    permuted = mp.matrix([[E.M[int(i), j] for j in range(E.M.cols)] for i in order])
    return norm(permuted - L * U) / size


def ranks(M, E, rng):
    m = len(E.s)
    for rank in range(1, m + 1):
        B, A = map(exact, linalg.low_rank_factors(M, rank=rank))
        yield "low_rank_factors", (norm(E.M - B * A) - E.tail(rank)) / E.norm
    tails = {
        "fro": E.tail,
        "spectral": lambda r: E.s[r] if r < m else mp.mpf(0),
        "nuclear": lambda r: mp.fsum(E.s[r:]),
    }
    for name, tail in tails.items():
        found = linalg.rank_errors(M, norm=name)
        yield (
            "rank_errors",
            max(abs(mp.mpf(float(x)) - tail(r)) for r, x in enumerate(found)) / tail(0),
        )
    share = [1 - (E.tail(r) / E.norm) ** 2 for r in range(m + 1)]
    yield (
        "energy",
        max(abs(mp.mpf(float(x)) - y) for x, y in zip(linalg.energy(M), share, strict=True)),
    )
    tolerance = float(10 ** rng.uniform(-8, 0))
    rank = linalg.rank_for_error(M, tolerance=tolerance)
    yield "rank_for_error", misplaced([-E.tail(r) / E.norm for r in range(m + 1)], rank, -tolerance)
    rank = linalg.rank_for_energy(M, energy=1 - tolerance)
    yield "rank_for_energy", misplaced(share, rank, 1 - tolerance)
    limit = float(E.s[0]) * tolerance
    rank = linalg.matrix_rank(M, tolerance=limit)
    yield "matrix_rank", misplaced([-x / E.s[0] for x in E.s], rank, -limit / E.s[0])
    yield "stable_rank", abs(linalg.stable_rank(M) / sum((x / E.s[0]) ** 2 for x in E.s) - 1)
    shares = [x / mp.fsum(E.s) for x in E.s]
    yield (
        "effective_rank",
        abs(linalg.effective_rank(M) / mp.exp(-sum(p * mp.log(p) for p in shares if p)) - 1),
    )
    form, _ = linalg.row_echelon(M)
    yield "row_echelon", outside(E.M.T, exact(form).T) / E.norm
    chosen = linalg.independent_columns(M)
    yield "independent_columns", outside(E.M, exact(M[:, chosen])) / E.norm
    yield "column_space", outside(E.M, exact(linalg.column_space(M))) / E.norm


def misplaced(rising, place, limit):
    """How far the limit must move so that ``place`` is the first of the rising values that reaches
    it.
    """
    before = rising[place - 1] - limit if place else -mp.inf
    here = limit - rising[place] if place < len(rising) else -mp.inf
    return max(before, here, mp.mpf(0))


def subspaces(M, E, other, F):
    (_d, k), (_d2, _) = M.shape, other.shape
    grid = linalg.similarity_grid(M, other)
    shared = (E.Vh * F.Vh.T).apply(lambda x: x**2)
    for i in range(1, grid.shape[0] + 1):
        for j in range(1, grid.shape[1] + 1):
            phi = mp.fsum(shared[:i, :j]) / min(i, j)
            gap = min(E.gap(i, k), F.gap(j, k), mp.mpf(1))
            yield "similarity_grid", abs(float(grid[i - 1, j - 1]) - phi) * gap
            found = linalg.subspace_similarity(M, other, i, j)
            yield "subspace_similarity", abs(found - phi) * gap
    # Columns of the transposes: both have k rows.
    r1, r2 = linalg.column_space(M.T).shape[1], linalg.column_space(other.T).shape[1]
    cosines = mp.svd_r(E.Vh[:r1, :] * F.Vh[:r2, :].T, compute_uv=False)
    angles = [mp.acos(min(mp.mpf(1), c)) for c in cosines]
    found = linalg.principal_angles(M.T, other.T)
    gap = min(E.gap(r1, k), F.gap(r2, k), mp.mpf(1))
    yield (
        "principal_angles",
        max(abs(float(x) - y) for x, y in zip(found, angles, strict=True)) * gap,
    )


def updates(W0, E0, dW, E, rng):
    d, k = W0.shape
    rank = int(rng.integers(1, len(E.s) + 1))
    heard = norm(E.U[:, :rank].T * E0.M * E.Vh[:rank, :].T)
    found = linalg.amplification_factor(W0, dW, rank=rank)
    gap = min(E.gap(rank, d), E.gap(rank, k), mp.mpf(1))
    yield "amplification_factor", abs(found * heard / E.norm - 1) * gap * heard / E0.norm
    m = len(E.s)
    intruders = linalg.intruder_dimensions(W0, dW, top=m, threshold=0.6)
    cosines = (E0.U.T * E.U).apply(abs)
    gaps = [min(X.gap(r, d) for r in range(1, m + 1)) for X in (E0, E)]
    for j in range(m):
        closest = max(cosines[i, j] for i in range(m))
        wrong = (closest < 0.6) != (j in intruders)
        yield (
            "intruder_dimensions",
            abs(closest - 0.6) * min(*gaps, mp.mpf(1)) if wrong else mp.mpf(0),
        )


def products(B, A):
    E = Exact(exact(B) * exact(A))
    found = linalg.svd_of_product(B, A).s
    size = norm(exact(B)) * norm(exact(A))
    yield "svd_of_product", max(abs(float(x) - y) for x, y in zip(found, E.s, strict=False)) / size


def regressions(X, Y, W0):
    (n, k), d = X.shape, Y.shape[1]
    F = Exact(X)
    residual = exact(Y) - exact(X) * exact(W0).T
    seen = sum(s > F.s[0] * max(n, k) * np.finfo(np.float64).eps for s in F.s)
    U, Vh = F.U[:, :seen], F.Vh[:seen, :]
    P = residual.T * U  # the whitened update
    _G, gain, _Wh = mp.svd_r(P)
    gain = list(gain)
    rest = norm(residual - U * P.T)
    B, A = linalg.reduced_rank_regression(X, Y, W0=W0)
    losses = linalg.optimal_losses(X, Y, W0=W0)
    eb, ea = exact(B), exact(A)
    given = norm(exact(Y)) + F.norm * norm(exact(W0))  # what the residual is the difference of
    size = given + F.norm * norm(ea)
    for rank in range(min(d, k) + 1):
        best = mp.sqrt(rest**2 + sum(g**2 for g in gain[rank:]))
        yield "optimal_losses", abs(mp.sqrt(float(losses[rank]) * n * d) - best) / size
        if rank:
            left = norm(residual - F.M * (eb[:, :rank] * ea[:rank, :]).T)
            yield "reduced_rank_regression", (left - best) / size
    full = P * mp.diag([1 / s for s in F.s[:seen]]) * Vh
    kappa = F.s[0] / F.s[seen - 1]
    amplified = kappa * (1 + (given + kappa * rest) / (F.norm * norm(full)))
    yield "reduced_rank_regression", norm(eb * ea - full) / norm(full) / amplified


def case(seed):
    rng = np.random.default_rng([15, seed])
    dtype = [np.float64, np.float32][int(rng.integers(2))]
    reach = 150 if dtype == np.float64 else 25
    half = reach / 2

    def matrix(d=None, k=None, reach=reach):
        return drawn(rng, d, k, reach=reach).astype(dtype)

    M = matrix()
    E = Exact(M)
    yield from decompositions(M, E)
    yield from ranks(M, E, rng)
    other = matrix(None, M.shape[1])
    yield from subspaces(M, E, other, Exact(other))
    update = matrix(*M.shape, reach=3) * M.dtype.type(np.abs(M).max())
    yield from updates(M, E, update, Exact(update), rng)
    r = int(rng.integers(1, 5))
    yield from products(matrix(8, r, half), matrix(r, 6, half))
    X, W0 = matrix(8, None, half), matrix(4, None, half)
    k = min(X.shape[1], W0.shape[1])
    X, W0 = X[:, :k], W0[:, :k]
    size = np.abs(W0).max()
    Y = X @ (W0 + size * matrix(4, k, 3)).T + np.abs(X).max() * size * matrix(8, 4, 3)
    yield from regressions(X, Y, W0)


def largest(seeds):
    """For each function the largest error over these seeds, in eps of its dtype, and the seed."""
    found = dict.fromkeys(BOUNDS, (0.0, -1))
    for seed in seeds:
        rng = np.random.default_rng([15, seed])
        eps = np.finfo([np.float64, np.float32][int(rng.integers(2))]).eps
        for name, error in case(seed):
            value = float(error) / float(eps)
            found[name] = max(found[name], (value if math.isfinite(value) else math.inf, seed))
    return found


def with_kernel(kernel, seeds):
    """`largest` in a process of its own: OpenBLAS chooses its kernel once, when it is loaded."""
    environment = os.environ | {"OPENBLAS_CORETYPE": kernel, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", __file__, str(seeds)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def table(found=None):
    """The table of the docs; without what was found, that column is open."""
    rows = ["| function | error | at most, in eps | largest found |", "|---|---|---|---|"]
    for name, (measure, bound) in BOUNDS.items():
        largest_found = f"{found[name]:.2g}" if found else "([^|]*)"
        rows.append(f"| `{name}` | {measure} | {bound} | {largest_found} |")
    return "\n".join(rows)


def write():
    runs = [with_kernel(kernel, ALL) for kernel in KERNELS]
    found = {name: max(run[name][0] for run in runs) for name in BOUNDS}
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(
        re.sub(
            r"^\| function \|.*?\n(?!\|)", lambda _: table(found) + "\n", text, flags=re.M | re.S
        ),
        encoding="utf-8",
    )


if __name__ == "__main__":
    if sys.argv[1] == "--write":
        write()
    else:
        print(json.dumps(largest(range(int(sys.argv[1])))))
