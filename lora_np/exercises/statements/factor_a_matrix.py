"""Exercises of *Factor a matrix*."""

from __future__ import annotations

import numpy as np

from lora_np.checks import Array
from lora_np.exercises.asking import SVD, Answer, Exercise
from lora_np.exercises.laws import law, orthonormal, parts, real_array, same
from lora_np.exercises.samples import of_rank, sizes, with_spectrum

Generator = np.random.Generator


def check_rank_one_parts(answer: Answer, rng: Generator) -> None:
    d, r, k = (int(n) for n in rng.choice(np.arange(2, 7), 3, replace=False))
    B, A = rng.normal(size=(d, r)), rng.normal(size=(r, k))
    got = real_array("the parts", answer(B, A), (r, d, k))
    same("The parts of a product add up to it", "their sum", got.sum(axis=0), B @ A)
    for i in range(r):
        same("Part i is column i of B times row i of A", f"part {i}", got[i], np.outer(B[:, i], A[i]))


rank_one_parts = Exercise(
    title="A product is a sum",
    points=1,
    statement="""\
$BA$ is a sum of $r$ matrices of rank one: column $i$ of $B$ times row $i$ of $A$. Return them as one array of shape
$(r, d, k)$.

Whoever can read a product so can cut it: leave out parts.""",
    stub='''\
def rank_one_parts(B, A):
    """The r matrices of rank one that add up to B @ A, as an array of shape (r, d, k)."""
    ...
''',
    hints=(
        "`np.outer(u, v)` is a column times a row. You need one for each of the $r$ columns of $B$.",
        "`np.stack([...])` makes one array of a list of matrices. Part $i$ is `np.outer(B[:, i], A[i])`.",
    ),
    check=check_rank_one_parts,
)


def check_lu_factors(answer: Answer, rng: Generator) -> None:
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


lu_factors = Exercise(
    title="Elimination, remembered",
    points=2,
    statement="""\
Elimination turns a square `M` into an upper triangle `U`. Write down how many times you subtracted row $j$ from row $i$, in a
matrix `L` with ones on its diagonal, and `L @ U` is `M` again.

`M` is such that no rows need to be swapped.""",
    stub='''\
def lu_factors(M):
    """L (n, n), lower with ones on the diagonal, and U (n, n), upper, with L @ U = M."""
    ...
''',
    hints=(
        "Start with `L` as the identity and `U` as a copy of `M`. Each step makes one column of `U` zero below the diagonal.",
        "For column `j`: `L[j + 1:, j] = U[j + 1:, j] / U[j, j]`, then subtract from the rows below `j` of `U` the outer "
        "product of that and row `j` of `U`.",
    ),
    check=check_lu_factors,
    forbids=("lora_np.linalg.lu",),
)


def check_gram_schmidt(answer: Answer, rng: Generator) -> None:
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


gram_schmidt = Exercise(
    title="Right angles",
    points=2,
    statement="""\
The columns of `M` ($d \\times k$) are independent, but neither of length one nor at right angles. Return `Q` of the same shape with
orthonormal columns, such that for every $j$ the first $j$ columns of `Q` span the same space as the first $j$ columns of `M`.

Signs are free. Ready-made decompositions are not allowed.""",
    stub='''\
def gram_schmidt(M):
    """Q (d, k) with orthonormal columns, its first j spanning what the first j columns of M span."""
    ...
''',
    hints=(
        "Take the columns one by one. From each, remove what it has in the directions you have already.",
        "If `q` has length one, then `v` has `q @ v` of it, and `v - (q @ v) * q` is at a right angle to `q`. At the end divide "
        "`v` by its length.",
    ),
    check=check_gram_schmidt,
    forbids=(
        "numpy.linalg.qr",
        "numpy.linalg.cholesky",
        "numpy.linalg.eigh",
        "lora_np.linalg.qr",
        "lora_np.linalg.qr_pivoted",
        *SVD,
    ),
)


def check_cut_qr(answer: Answer, rng: Generator) -> None:
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


cut_qr = Exercise(
    title="Read a QR backwards",
    points=2,
    statement="""\
`np.linalg.qr(M)` gives `Q`, with orthonormal columns, and an upper triangle `R`. Read `Q @ R` as a sum of parts of rank one,
keep the first `r`, and return them as two thin matrices: `B` ($d \\times r$) and `A` ($r \\times k$).""",
    stub='''\
def cut_qr(M, r):
    """B (d, r) and A (r, k): the first r parts of rank one of the QR decomposition of M."""
    ...
''',
    hints=(
        "Part $i$ is column $i$ of `Q` times row $i$ of `R`.",
        "The first `r` columns of one, the first `r` rows of the other.",
    ),
    check=check_cut_qr,
)


def check_svd_by_eigenvectors(answer: Answer, rng: Generator) -> None:
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


svd_by_eigenvectors = Exercise(
    title="The SVD from eigenvectors",
    points=3,
    statement="""\
A vector $v$ that a matrix only makes longer or shorter, $K v = \\lambda v$, is an **eigenvector** of it, and $\\lambda$ its
eigenvalue. If $M = U S V^T$ then $M^T M = V S^2 V^T$, so $M^T M v_i = s_i^2 v_i$: the right singular vectors of $M$ are
eigenvectors of $M^T M$, and the squares of the singular values its eigenvalues. `np.linalg.eigh` gives both for a symmetric
matrix.

Return `U` ($d \\times k$), `s` ($k$, largest first) and `Vh` ($k \\times k$) for a tall matrix `M` of rank $k$. Signs are
free. The SVD itself is not allowed.""",
    stub='''\
def svd_by_eigenvectors(M):
    """U (d, k), s (k,) and Vh (k, k) with M = (U * s) @ Vh, for M (d, k) with d > k and rank k."""
    ...
''',
    hints=(
        "`eigh` returns the smallest eigenvalue first, and eigenvectors as columns. Turn the order around.",
        "From $M V = U S$ follows that column $i$ of $U$ is $M v_i / s_i$.",
    ),
    check=check_svd_by_eigenvectors,
    forbids=SVD,
)

TITLE = "Factor a matrix"
EXERCISES = (rank_one_parts, cut_qr, lu_factors, gram_schmidt, svd_by_eigenvectors)
