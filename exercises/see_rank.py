"""What is usually done wrong, and other ways to be right."""

import numpy as np

import lora_np as lnp
from lora_np.grading import alternative, mistake


@mistake("a row of A in place of its column", breaks="mixes")
def column_of_product(B, A, j):
    return B @ A[j]


@mistake("the product with a row, not a column", breaks="mixes")
def column_of_product(B, A, j):
    return (B @ A)[:, -1 - j]


@mistake("a matrix with one column", breaks="mixes")
def column_of_product(B, A, j):
    return B @ A[:, [j]]


@mistake("every column in a loop, to keep one", breaks="mixes")
def column_of_product(B, A, j):
    for column in range(A.shape[1]):
        product = B @ A[:, column]
        if column == j:
            kept = product
    return kept


@mistake("all columns in a comprehension", breaks="mixes")
def column_of_product(B, A, j):
    return [B @ column for column in A.T][j]


@mistake("all columns, number by number", breaks="mixes")
def column_of_product(B, A, j):
    B, A = B.tolist(), A.tolist()
    return [[sum(b * row[c] for b, row in zip(line, A)) for c in range(len(A[0]))][j] for line in B]


@alternative("loops over rows and over what is summed")
def column_of_product(B, A, j):
    column = []
    for i in range(B.shape[0]):
        total = 0
        for l in range(B.shape[1]):
            total = total + B[i, l] * A[l, j]
        column.append(total)
    return np.array(column)


@mistake("one column of B only", breaks="mixes")
def column_of_product(B, A, j):
    return B[:, 0] * A[0, j]


@mistake("trusts the first row", breaks="product")
def rank_one_factors(M):
    with np.errstate(all="ignore"):
        return M[:, [0]] / M[0, 0], M[[0]]


@mistake("no scale", breaks="product")
def rank_one_factors(M):
    i, j = np.unravel_index(np.argmax(np.abs(M)), M.shape)
    return M[:, [j]], M[[i]]


@mistake("vectors in place of a column and a row", breaks="product")
def rank_one_factors(M):
    i, j = np.unravel_index(np.argmax(np.abs(M)), M.shape)
    return M[:, j] / M[i, j], M[i]


@mistake("all of the first singular value twice", breaks="product")
def rank_one_factors(M):
    U, s, Vh = np.linalg.svd(M)
    return s[0] * U[:, :1], s[0] * Vh[:1]


@mistake("M and the identity", breaks="thin")
def factors_from_columns(M):
    return M, np.eye(M.shape[1])


@mistake("the first columns, independent or not", breaks="thin")
def factors_from_columns(M):
    B = M[:, : lnp.matrix_rank(M)]
    return B, np.linalg.lstsq(B, M)[0]


@mistake("directions that are no columns of M", breaks="columns")
def factors_from_columns(M):
    B = lnp.column_space(M)
    return B, B.T @ M


@mistake("A transposed", breaks="thin")
def factors_from_columns(M):
    B = M[:, lnp.independent_columns(M)]
    return B, np.linalg.lstsq(B, M)[0].T


@mistake("asks for the rank of the data", breaks="noise")
def noisy_rank(M, sigma):
    return lnp.matrix_rank(M)


@mistake("the size of an entry for the size of the noise", breaks="noise")
def noisy_rank(M, sigma):
    return np.count_nonzero(np.linalg.svdvals(M) > sigma)


@mistake("a thousandth of the largest", breaks="noise")
def noisy_rank(M, sigma):
    s = np.linalg.svdvals(M)
    return np.count_nonzero(s > 0.001 * s[0])


@mistake("four times the root of the longer side", breaks="signal")
def noisy_rank(M, sigma):
    return np.count_nonzero(np.linalg.svdvals(M) > 4 * sigma * np.sqrt(max(M.shape)))


@mistake("four times the root of the shorter side", breaks="noise")
def noisy_rank(M, sigma):
    return np.count_nonzero(np.linalg.svdvals(M) > 4 * sigma * np.sqrt(min(M.shape)))


@mistake("stops one early", breaks="noise")
def noisy_rank(M, sigma):
    d, k = M.shape
    return np.count_nonzero(np.linalg.svdvals(M) > 2 * sigma * (np.sqrt(d) + np.sqrt(k))) - 1


@mistake("hands in NumPy's", breaks="product")
def rank_by_elimination(M):
    return np.linalg.matrix_rank(M)


@mistake("hands in the package's", breaks="product")
def rank_by_elimination(M):
    return lnp.matrix_rank(M)


@mistake("rounding errors count", breaks="product")
def rank_by_elimination(M):
    U = np.array(M, dtype=float)
    row = 0
    for column in range(U.shape[1]):
        if row == len(U) or not U[row:, column].any():
            continue
        best = row + np.argmax(np.abs(U[row:, column]))
        U[[row, best]] = U[[best, row]]
        U[row + 1 :] -= np.outer(U[row + 1 :, column] / U[row, column], U[row])
        U[row + 1 :, column] = 0
        row += 1
    return row


@mistake("gives up at a column without a pivot", breaks="product")
def rank_by_elimination(M):
    U = np.array(M, dtype=float)
    smallest = 1e-9 * np.abs(U).max()
    for row in range(min(U.shape)):
        best = row + np.argmax(np.abs(U[row:, row]))
        if abs(U[best, row]) <= smallest:
            return row
        U[[row, best]] = U[[best, row]]
        U[row + 1 :] -= np.outer(U[row + 1 :, row] / U[row, row], U[row])
    return min(U.shape)


@mistake("never swaps rows", breaks="pivots")
def rank_by_elimination(M):
    U = np.array(M, dtype=float)
    smallest = 1e-9 * np.abs(U).max()
    row = 0
    for column in range(U.shape[1]):
        if row == len(U):
            break
        if abs(U[row, column]) <= smallest:
            continue
        U[row + 1 :] -= np.outer(U[row + 1 :, column] / U[row, column], U[row])
        row += 1
    return row


@mistake("a tolerance that knows nothing of the matrix", breaks="rounding")
def rank_by_elimination(M):
    U = np.array(M, dtype=float)
    row = 0
    for column in range(U.shape[1]):
        if row == len(U):
            break
        best = row + np.argmax(np.abs(U[row:, column]))
        if abs(U[best, column]) <= 1e-5:
            continue
        U[[row, best]] = U[[best, row]]
        U[row + 1 :] -= np.outer(U[row + 1 :, column] / U[row, column], U[row])
        row += 1
    return row


@mistake("the largest entry without its sign forgotten", breaks="product")
def rank_one_factors(M):
    i, j = np.unravel_index(np.argmax(M), M.shape)
    with np.errstate(all="ignore"):
        return M[:, [j]] / M[i, j], M[[i]]


@mistake("the largest entry as pivot, sign and all", breaks="pivots")
def rank_by_elimination(M):
    U = np.array(M, dtype=float)
    smallest = 1e-5 * np.abs(U).max()
    row = 0
    for column in range(U.shape[1]):
        if row == len(U):
            break
        best = row + np.argmax(U[row:, column])
        if abs(U[best, column]) <= smallest:
            continue
        U[[row, best]] = U[[best, row]]
        U[row + 1 :] -= np.outer(U[row + 1 :, column] / U[row, column], U[row])
        row += 1
    return row


@alternative("entry by entry")
def column_of_product(B, A, j):
    return [sum(B[i, m] * A[m, j] for m in range(len(A))) for i in range(len(B))]


@alternative("the first singular vectors")
def rank_one_factors(M):
    U, s, Vh = np.linalg.svd(M)
    return -s[0] * U[:, :1], -Vh[:1]


@alternative("row by row, with the largest entry of all that is left as pivot")
def rank_by_elimination(M):
    rows = [[float(n) for n in row] for row in M]
    smallest = 1e-5 * max(abs(n) for row in rows for n in row)
    rank = 0
    while rows:
        i, j = max(
            ((i, j) for i in range(len(rows)) for j in range(len(rows[0]))),
            key=lambda p: abs(rows[p[0]][p[1]]),
        )
        if abs(rows[i][j]) <= smallest:
            break
        pivot = rows.pop(i)
        rows = [[n - row[j] / pivot[j] * p for n, p in zip(row, pivot)] for row in rows]
        rank += 1
    return rank
