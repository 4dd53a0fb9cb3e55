"""Solutions, and what is usually done wrong."""

import numpy as np

import lora_np as lnp
from lora_np.grading import mistake


def column_of_product(B, A, j):
    return B @ A[:, j]


@mistake("a row of A in place of its column", breaks="A call ends without an error")
def column_of_product(B, A, j):
    return B @ A[j]


@mistake("the product with a row, not a column", breaks="Column j of B A mixes the columns of B")
def column_of_product(B, A, j):
    return (B @ A)[:, -1 - j]


@mistake("a matrix with one column", breaks="The shape of the column")
def column_of_product(B, A, j):
    return B @ A[:, [j]]


@mistake("one column of B only", breaks="Column j of B A mixes the columns of B")
def column_of_product(B, A, j):
    return B[:, 0] * A[0, j]


def rank_one_factors(M):
    i, j = np.unravel_index(np.argmax(np.abs(M)), M.shape)
    return M[:, [j]] / M[i, j], M[[i]]


@mistake("trusts the first row", breaks="b holds NaN or infinity")
def rank_one_factors(M):
    with np.errstate(all="ignore"):
        return M[:, [0]] / M[0, 0], M[[0]]


@mistake("no scale", breaks="A matrix of rank one is a column times a row")
def rank_one_factors(M):
    i, j = np.unravel_index(np.argmax(np.abs(M)), M.shape)
    return M[:, [j]], M[[i]]


@mistake("vectors in place of a column and a row", breaks="The shape of b")
def rank_one_factors(M):
    i, j = np.unravel_index(np.argmax(np.abs(M)), M.shape)
    return M[:, j] / M[i, j], M[i]


@mistake("all of the first singular value twice", breaks="A matrix of rank one is a column times a row")
def rank_one_factors(M):
    U, s, Vh = np.linalg.svd(M)
    return s[0] * U[:, :1], s[0] * Vh[:1]


def factors_from_columns(M):
    B = M[:, lnp.independent_columns(M)]
    return B, np.linalg.lstsq(B, M)[0]


@mistake("M and the identity", breaks="The thin factors of a matrix of rank r have r columns")
def factors_from_columns(M):
    return M, np.eye(M.shape[1])


@mistake(
    "the first columns, independent or not", breaks="Every matrix of rank r is a product of two thin ones"
)
def factors_from_columns(M):
    B = M[:, : lnp.matrix_rank(M)]
    return B, np.linalg.lstsq(B, M)[0]


@mistake("directions that are no columns of M", breaks="B is made of columns of M")
def factors_from_columns(M):
    B = lnp.column_space(M)
    return B, B.T @ M


@mistake("A transposed", breaks="The shape of A")
def factors_from_columns(M):
    B = M[:, lnp.independent_columns(M)]
    return B, np.linalg.lstsq(B, M)[0].T


def noisy_rank(M, sigma):
    d, k = M.shape
    return np.count_nonzero(np.linalg.svdvals(M) > 2 * sigma * (np.sqrt(d) + np.sqrt(k)))


@mistake("asks for the rank of the data", breaks="Noise has no singular value above")
def noisy_rank(M, sigma):
    return lnp.matrix_rank(M)


@mistake("the size of an entry for the size of the noise", breaks="Noise has no singular value above")
def noisy_rank(M, sigma):
    return np.count_nonzero(np.linalg.svdvals(M) > sigma)


@mistake("a thousandth of the largest", breaks="Noise has no singular value above")
def noisy_rank(M, sigma):
    s = np.linalg.svdvals(M)
    return np.count_nonzero(s > 0.001 * s[0])


@mistake("stops one early", breaks="Noise has no singular value above")
def noisy_rank(M, sigma):
    d, k = M.shape
    return np.count_nonzero(np.linalg.svdvals(M) > 2 * sigma * (np.sqrt(d) + np.sqrt(k))) - 1


def rank_by_elimination(M):
    U = np.array(M, dtype=float)
    smallest = 1e-9 * np.abs(U).max()
    row = 0
    for column in range(U.shape[1]):
        if row == len(U):
            break
        best = row + np.argmax(np.abs(U[row:, column]))
        if abs(U[best, column]) <= smallest:
            continue
        U[[row, best]] = U[[best, row]]
        U[row + 1 :] -= np.outer(U[row + 1 :, column] / U[row, column], U[row])
        row += 1
    return row


@mistake("hands in NumPy's", breaks="numpy.linalg.matrix_rank is not allowed")
def rank_by_elimination(M):
    return np.linalg.matrix_rank(M)


@mistake("hands in the package's", breaks="is not allowed")
def rank_by_elimination(M):
    return lnp.matrix_rank(M)


@mistake("rounding errors count", breaks="The rank of B A is r")
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


@mistake("gives up at a column without a pivot", breaks="A column of zeros does not change the rank")
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


@mistake("never swaps rows", breaks="The order of the rows does not change the rank")
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


@mistake("a tolerance that knows nothing of the matrix", breaks="Scaling does not change the rank")
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
