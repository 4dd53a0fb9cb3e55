"""Exercises of *See rank*."""

from __future__ import annotations

import numpy as np

from lora_np.exercises.asking import SVD, Answer, Exercise
from lora_np.exercises.laws import law, parts, real_array, same, whole
from lora_np.exercises.samples import of_rank, sizes, with_spectrum

Generator = np.random.Generator


def check_column_of_product(answer: Answer, rng: Generator) -> None:
    d, r, k = (int(n) for n in rng.choice(np.arange(2, 8), 3, replace=False))
    B, A = rng.normal(size=(d, r)), rng.normal(size=(r, k))
    for j in (0, k - 1):
        same(
            "Column j of B A mixes the columns of B, with column j of A",
            "the column",
            answer(B, A, j),
            B @ A[:, j],
        )


column_of_product = Exercise(
    title="One column of a product",
    points=1,
    statement="""\
Column $j$ of $BA$ is a mixture of the columns of $B$. How much of each, says column $j$ of $A$.

Return column `j` of `B @ A` as a vector of length $d$, **without** computing the other columns.""",
    stub='''\
def column_of_product(B, A, j):
    """Column j of B @ A, where B is (d, r) and A is (r, k)."""
    ...
''',
    hints=(
        "Take the first column of $B$ as often as the first entry of column $j$ of $A$ says. Then the second.",
        "`A[:, j]` holds the amounts. A matrix times a vector is such a mixture.",
    ),
    check=check_column_of_product,
)


def check_rank_one_factors(answer: Answer, rng: Generator) -> None:
    d, k = sizes(rng, 2, 2, 6)
    M = np.outer(rng.normal(size=d), rng.normal(size=k))
    hollow = np.outer([0.0, *rng.normal(size=d)], [0.0, *rng.normal(size=k)])
    for matrix, why in ((M, ""), (hollow, "here the first row and column of M are zero")):
        b, a = parts(["b", "a"], answer(matrix))
        b = real_array("b", b, (len(matrix), 1))
        a = real_array("a", a, (1, matrix.shape[1]))
        same("A matrix of rank one is a column times a row", "b @ a", b @ a, matrix, why=why)


rank_one_factors = Exercise(
    title="A column times a row",
    points=1,
    statement="""\
`M` has rank one, like a multiplication table. Return a column `b` of shape $(d, 1)$ and a row `a` of shape $(1, k)$ with
`b @ a` equal to `M`.

Many pairs are right. The first row or column of `M` may be zero.""",
    stub='''\
def rank_one_factors(M):
    """b (d, 1) and a (1, k) with b @ a = M, for a matrix M of rank one."""
    ...
''',
    hints=(
        "Every row of `M` is a multiple of one row. Which row can you trust not to be zero?",
        "Find the entry `M[i, j]` of largest absolute value. Row `i` can be `a`; then `b` is column `j`, divided by "
        "`M[i, j]`.",
    ),
    check=check_rank_one_factors,
)


def check_factors_from_columns(answer: Answer, rng: Generator) -> None:
    d, k = sizes(rng, 2, 3, 7)
    r = int(rng.integers(1, min(d, k)))
    B, A = rng.normal(size=(d, r)), rng.normal(size=(r, k - 1))
    late = np.concatenate([(2 * B @ A)[:, :1], B @ A], axis=1)  # column 1 brings nothing new
    for M in (B @ np.concatenate([np.eye(r), A[:, : k - r]], axis=1), late):
        got_B, got_A = parts(["B", "A"], answer(M))
        law(
            "The thin factors of a matrix of rank r have r columns and r rows",
            np.ndim(got_B) == 2 and np.shape(got_B)[1] == r,
            f"M has rank {r}, B has shape {np.shape(got_B)}",
        )
        got_B = real_array("B", got_B, (d, r))
        got_A = real_array("A", got_A, (r, M.shape[1]))
        same("Every matrix of rank r is a product of two thin ones", "B @ A", got_B @ got_A, M)
        found = [np.isclose(M, column[:, None]).all(axis=0).any() for column in got_B.T]
        law(
            "B is made of columns of M",
            all(found),
            f"column {found.index(False) if not all(found) else 0} of B is not a column of M",
        )


factors_from_columns = Exercise(
    title="Two thin factors, one made of columns",
    points=2,
    statement="""\
`M` is $d \\times k$ and has rank $r$. Return `B` ($d \\times r$), made of columns of `M` itself, and `A` ($r \\times k$) with
`B @ A` equal to `M`.

You may use `lora_np.independent_columns`.""",
    stub='''\
def factors_from_columns(M):
    """B (d, r) made of columns of M, and A (r, k), with B @ A = M and r the rank of M."""
    ...
''',
    hints=(
        "Take the independent columns as `B`. Each column of `A` says how to mix them.",
        "`A` solves `B @ A = M`, which has more equations than unknowns: `np.linalg.lstsq(B, M)[0]`.",
    ),
    check=check_factors_from_columns,
    forbids=("lora_np.low_rank_factors",),
)


def check_noisy_rank(answer: Answer, rng: Generator) -> None:
    d, k = sizes(rng, 2, 30, 60)
    r = int(rng.integers(1, 8))
    sigma = float(10 ** rng.uniform(-4, 0))
    loudest = sigma * (np.sqrt(d) + np.sqrt(k))
    signal = with_spectrum(rng, d, k, loudest * np.geomspace(50 if r > 1 else 4, 4, r))
    M = signal + sigma * rng.normal(size=(d, k))
    got = whole("the rank", answer(M, sigma))
    law(
        "Noise has no singular value above sigma (sqrt d + sqrt k), nearly",
        got == r,
        f"M is a matrix of rank {r} and noise of size {sigma:.3g}, got {got}",
    )


noisy_rank = Exercise(
    title="The rank below the noise",
    points=2,
    statement="""\
`M` was a matrix of small rank, until noise was added to each entry: normal, with standard deviation `sigma`. Now its rank is
$\\min(d, k)$. Return the rank that it had.

The largest singular value of the noise alone is close to $\\sigma\\,(\\sqrt d + \\sqrt k)$. What was there before has
singular values at least three times as large.""",
    stub='''\
def noisy_rank(M, sigma):
    """The rank of M before noise of standard deviation sigma was added to each entry."""
    ...
''',
    hints=(
        "How many singular values of `M` are too large to be noise?",
        "Count the entries of `np.linalg.svdvals(M)` above twice the size that the noise can have.",
    ),
    check=check_noisy_rank,
)


def check_rank_by_elimination(answer: Answer, rng: Generator) -> None:
    d, k = sizes(rng, 2, 2, 7)
    r = int(rng.integers(1, min(d, k) + 1))
    M = of_rank(rng, d, k, r)
    expect_rank("The rank of B A is r, if both are thin and of rank r", answer, M, r)
    expect_rank("A matrix and its transpose have the same rank", answer, M.T, r)
    expect_rank("The rank of a zero matrix is 0", answer, np.zeros((d, k)), 0)
    staircase = np.concatenate([np.zeros((d, 1)), M], axis=1)
    expect_rank("A column of zeros does not change the rank", answer, staircase, r)
    exchange = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [2.0, 4.0, 0.0]])
    expect_rank("The order of the rows does not change the rank", answer, exchange, 3)
    expect_rank("Scaling does not change the rank", answer, 1e-6 * M, r)


def expect_rank(name: str, answer: Answer, M: np.ndarray, rank: int) -> None:
    got = whole("the rank", answer(M))
    law(name, got == rank, f"it must be {rank}, got {got}")


rank_by_elimination = Exercise(
    title="Rank by elimination",
    points=3,
    statement="""\
Write the method from paper. Subtract multiples of a row from the rows below it, so that the first column becomes zero there.
Go on with the next column and the rows that are left. The number of rows that served is the rank.

Entries are floating-point numbers: what should be zero is rounding error. Count as zero what is smaller than $10^{-9}$ times the
largest entry of `M`. NumPy's SVD and ready-made ranks are not allowed.""",
    stub='''\
def rank_by_elimination(M):
    """The rank of M, by Gaussian elimination."""
    ...
''',
    hints=(
        "A pivot near zero ruins everything below. Before you eliminate, bring the row with the largest entry of "
        "this column up.",
        "Work on a copy, with `row = 0`. For each column: find the largest entry at or below `row`. If it counts as "
        "zero, go to the next column with the same `row`. Else swap, eliminate below, `row += 1`. Return `row`.",
    ),
    check=check_rank_by_elimination,
    forbids=(
        "numpy.linalg.matrix_rank",
        "lora_np.matrix_rank",
        "numpy.linalg.qr",
        "numpy.linalg.eigh",
        "numpy.linalg.eigvalsh",
        "lora_np.linalg.row_echelon",
        "lora_np.linalg.lu",
        "lora_np.linalg.qr_pivoted",
        *SVD,
    ),
)

TITLE = "See rank"
EXERCISES = (column_of_product, rank_one_factors, factors_from_columns, noisy_rank, rank_by_elimination)
