"""What is usually done wrong, and other ways to be right."""

import numpy as np

import lora_np as lnp
from tests.attempts import alternative, mistake


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


@mistake("the row of B as well as the column of A", breaks="mixes")
def column_of_product(B, A, j):
    return B[j] @ A[:, j]


@mistake("the columns of B, not mixed", breaks="mixes")
def column_of_product(B, A, j):
    return B.sum(axis=1) * A[:, j].sum()


@mistake("row j of the product", breaks="mixes")
def column_of_product(B, A, j):
    return B[j] @ A


@mistake("entries multiplied, not summed", breaks="mixes")
def column_of_product(B, A, j):
    return B * A[:, j]


@mistake("in whole numbers", breaks="mixes")
def column_of_product(B, A, j):
    return (B @ A[:, j]).astype(int)


@mistake("the whole product, then its column", breaks="mixes")
def column_of_product(B, A, j):
    return (B @ A)[:, j]


@mistake("the whole product by einsum", breaks="mixes")
def column_of_product(B, A, j):
    return np.einsum("ir,rk->ik", B, A)[:, j]


@alternative("a sum of scaled columns")
def column_of_product(B, A, j):
    total = np.zeros(len(B))
    for m in range(B.shape[1]):
        total += B[:, m] * A[m, j]
    return total


@alternative("from the left")
def column_of_product(B, A, j):
    return A.T[j] @ B.T


@alternative("by einsum")
def column_of_product(B, A, j):
    return np.einsum("ir,r->i", B, A[:, j])


@alternative("np.dot")
def column_of_product(B, A, j):
    return np.dot(B, A[:, j : j + 1]).ravel()


@mistake("the longest row, without a divisor", breaks="product")
def rank_one_factors(M):
    i = np.argmax(np.linalg.norm(M, axis=1))
    return np.ones((len(M), 1)), M[[i]]


@mistake("the row of the first entry that is not zero, the column of another", breaks="product")
def rank_one_factors(M):
    i, j = np.argwhere(M != 0)[0]
    return M[:, [j]] / M[i, j], M[[0]]


@mistake("sums of rows and columns", breaks="product")
def rank_one_factors(M):
    with np.errstate(all="ignore"):
        return M.sum(axis=1, keepdims=True) / M.sum(), M.sum(axis=0, keepdims=True)


@mistake("lengths of rows, without signs", breaks="product")
def rank_one_factors(M):
    i = np.argmax(np.linalg.norm(M, axis=1))
    return np.linalg.norm(M, axis=1, keepdims=True) / np.linalg.norm(M[i]), M[[i]]


@mistake("M itself and an identity", breaks="product")
def rank_one_factors(M):
    return M, np.eye(M.shape[1])


@mistake("the two exchanged", breaks="product")
def rank_one_factors(M):
    i, j = np.unravel_index(np.argmax(np.abs(M)), M.shape)
    return M[[i]], M[:, [j]] / M[i, j]


@mistake("an integer division", breaks="product")
def rank_one_factors(M):
    i, j = np.unravel_index(np.argmax(np.abs(M)), M.shape)
    return M[:, [j]] // M[i, j], M[[i]]


@alternative("projects each row on the longest")
def rank_one_factors(M):
    a = M[[np.argmax(np.abs(M).max(axis=1))]]
    a = a / np.abs(a).max()
    return M @ a.T / (a @ a.T), a


@alternative("the first entry that is not zero")
def rank_one_factors(M):
    i, j = next((i, j) for i in range(len(M)) for j in range(M.shape[1]) if M[i, j] != 0)
    return M[:, j : j + 1] / M[i, j], M[i : i + 1]


@alternative("balanced")
def rank_one_factors(M):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return U[:, :1] * np.sqrt(s[0]), np.sqrt(s[0]) * Vh[:1]


@alternative("least squares on the longest column")
def rank_one_factors(M):
    b = M[:, [np.abs(M).max(axis=0).argmax()]]
    b = b / np.abs(b).max()
    return b, np.linalg.lstsq(b, M, rcond=None)[0]


@mistake("columns from the end, not independent", breaks="thin")
def factors_from_columns(M):
    r = lnp.matrix_rank(M)
    B = M[:, -r:]
    return B, np.linalg.lstsq(B, M)[0]


@mistake("the truncated SVD", breaks="thin")
def factors_from_columns(M):
    return lnp.linalg.low_rank_factors(M, rank=lnp.matrix_rank(M))


@mistake("columns scaled to length one", breaks="columns")
def factors_from_columns(M):
    B = M[:, lnp.independent_columns(M)]
    B = B / np.linalg.norm(B, axis=0)
    return B, np.linalg.lstsq(B, M)[0]


@mistake("A picks, but does not mix", breaks="thin")
def factors_from_columns(M):
    columns = lnp.independent_columns(M)
    A = np.zeros((len(columns), M.shape[1]))
    A[range(len(columns)), columns] = 1
    return M[:, columns], A


@mistake("solves for the transpose", breaks="thin")
def factors_from_columns(M):
    B = M[:, lnp.independent_columns(M)]
    return B, B.T @ M


@mistake("one column too many", breaks="thin")
def factors_from_columns(M):
    columns = [*lnp.independent_columns(M), 0]
    B = M[:, columns]
    return B, np.linalg.lstsq(B, M)[0]


@mistake("independent rows", breaks="columns")
def factors_from_columns(M):
    A = M[lnp.independent_columns(M.T)]
    return np.linalg.lstsq(A.T, M.T)[0].T, A


@alternative("the normal equations")
def factors_from_columns(M):
    B = M[:, lnp.independent_columns(M)]
    B1 = B / np.linalg.norm(B, axis=0)
    A = np.linalg.solve(B1.T @ B1, B1.T @ M)
    return B, A / np.linalg.norm(B, axis=0)[:, None]


@alternative("the pseudo-inverse")
def factors_from_columns(M):
    B = M[:, lnp.independent_columns(M)]
    return B, np.linalg.pinv(B) @ M


@alternative("a QR of the columns")
def factors_from_columns(M):
    B = M[:, lnp.independent_columns(M)]
    Q, R = np.linalg.qr(B)
    return B, np.linalg.solve(R, Q.T @ M)


@alternative("independent columns from the right")
def factors_from_columns(M):
    columns = M.shape[1] - 1 - np.array(lnp.independent_columns(M[:, ::-1]))
    B = M[:, columns]
    return B, np.linalg.lstsq(B, M, rcond=None)[0]


@mistake("all entries above sigma", breaks="noise")
def noisy_rank(M, sigma):
    return lnp.matrix_rank(np.where(np.abs(M) > 3 * sigma, M, 0))


@mistake("d + k without roots", breaks="noise")
def noisy_rank(M, sigma):
    return np.count_nonzero(np.linalg.svdvals(M) > 2 * sigma * sum(M.shape))


@mistake("the root of the sum", breaks="noise")
def noisy_rank(M, sigma):
    return np.count_nonzero(np.linalg.svdvals(M) > sigma * np.sqrt(sum(M.shape)))


@mistake("a tenth of the largest", breaks="noise")
def noisy_rank(M, sigma):
    s = np.linalg.svdvals(M)
    return np.count_nonzero(s > 0.1 * s[0])


@mistake("the variance for the deviation", breaks="noise")
def noisy_rank(M, sigma):
    d, k = M.shape
    return np.count_nonzero(np.linalg.svdvals(M) > 2 * sigma**2 * (np.sqrt(d) + np.sqrt(k)))


@mistake("ten times the noise", breaks="noise")
def noisy_rank(M, sigma):
    d, k = M.shape
    return np.count_nonzero(np.linalg.svdvals(M) > 10 * sigma * (np.sqrt(d) + np.sqrt(k)))


@mistake("what the noise spoils, counted", breaks="noise")
def noisy_rank(M, sigma):
    d, k = M.shape
    return np.count_nonzero(np.linalg.svdvals(M) < 2 * sigma * (np.sqrt(d) + np.sqrt(k)))


@alternative("eigenvalues of M^T M")
def noisy_rank(M, sigma):
    d, k = M.shape
    return int((np.linalg.eigvalsh(M.T @ M) > (1.7 * sigma * (d**0.5 + k**0.5)) ** 2).sum())


@alternative("with NumPy's tolerance")
def noisy_rank(M, sigma):
    d, k = M.shape
    return np.linalg.matrix_rank(M, tol=1.5 * sigma * (np.sqrt(d) + np.sqrt(k)))


@alternative("counts down")
def noisy_rank(M, sigma):
    s = np.linalg.svd(M)[1]
    limit = 2.5 * sigma * (np.sqrt(M.shape[0]) + np.sqrt(M.shape[1]))
    rank = 0
    while rank < len(s) and s[rank] > limit:
        rank += 1
    return rank


@alternative("searches the sorted values")
def noisy_rank(M, sigma):
    s = np.linalg.svdvals(M)
    limit = 2 * sigma * (np.sqrt(M.shape[0]) + np.sqrt(M.shape[1]))
    return len(s) - int(np.searchsorted(s[::-1], limit))


@mistake("eliminates a copy of whole numbers", breaks="product")
def rank_by_elimination(M):
    U = np.array(M)
    smallest = 1e-5 * np.abs(U).max()
    row = 0
    for column in range(U.shape[1]):
        if row == len(U):
            break
        best = row + np.argmax(np.abs(U[row:, column]))
        if abs(U[best, column]) <= smallest:
            continue
        U[[row, best]] = U[[best, row]]
        for i in range(row + 1, len(U)):
            U[i] = U[i] - U[i, column] / U[row, column] * U[row]
        row += 1
    return row


@mistake("loses a row in the swap", breaks="product")
def rank_by_elimination(M):
    U = np.array(M, dtype=float)
    smallest = 1e-5 * np.abs(U).max()
    row = 0
    for column in range(U.shape[1]):
        if row == len(U):
            break
        best = row + np.argmax(np.abs(U[row:, column]))
        if abs(U[best, column]) <= smallest:
            continue
        U[row], U[best] = U[best], U[row]
        U[row + 1 :] -= np.outer(U[row + 1 :, column] / U[row, column], U[row])
        row += 1
    return row


@mistake("rows that are not zero, counted before elimination", breaks="product")
def rank_by_elimination(M):
    return int(np.abs(M).any(axis=1).sum())


@mistake("the pivot's row goes on after a column without one", breaks="pivots")
def rank_by_elimination(M):
    U = np.array(M, dtype=float)
    smallest = 1e-5 * np.abs(U).max()
    rank = 0
    for j in range(min(U.shape)):
        best = j + np.argmax(np.abs(U[j:, j]))
        if abs(U[best, j]) <= smallest:
            continue
        U[[j, best]] = U[[best, j]]
        U[j + 1 :] -= np.outer(U[j + 1 :, j] / U[j, j], U[j])
        rank += 1
    return rank


@mistake("looks for the pivot among all rows", breaks="product")
def rank_by_elimination(M):
    U = np.array(M, dtype=float)
    smallest = 1e-5 * np.abs(U).max()
    row = 0
    for column in range(U.shape[1]):
        if row == len(U):
            break
        best = np.argmax(np.abs(U[:, column]))
        if abs(U[best, column]) <= smallest:
            continue
        U[[row, best]] = U[[best, row]]
        U[row + 1 :] -= np.outer(U[row + 1 :, column] / U[row, column], U[row])
        row += 1
    return row


@mistake("compares with the largest entry of what is left", breaks="product")
def rank_by_elimination(M):
    U = np.array(M, dtype=float)
    row = 0
    for column in range(U.shape[1]):
        if row == len(U) or not U[row:].any():
            break
        smallest = 1e-5 * np.abs(U[row:]).max()
        best = row + np.argmax(np.abs(U[row:, column]))
        if abs(U[best, column]) <= smallest:
            continue
        U[[row, best]] = U[[best, row]]
        U[row + 1 :] -= np.outer(U[row + 1 :, column] / U[row, column], U[row])
        row += 1
    return row


@mistake("the smaller side", breaks="product")
def rank_by_elimination(M):
    return min(M.shape)


@alternative("all other rows at once")
def rank_by_elimination(M):
    U = np.array(M, dtype=float)
    smallest = 1e-5 * np.abs(U).max()
    left, rank = list(range(len(U))), 0
    for column in range(U.shape[1]):
        if not left:
            break
        best = max(left, key=lambda i: abs(U[i, column]))
        if abs(U[best, column]) <= smallest:
            continue
        left.remove(best)
        for i in left:
            U[i] -= U[i, column] / U[best, column] * U[best]
        rank += 1
    return rank


@alternative("of the transpose")
def rank_by_elimination(M):
    U = np.array(M.T, dtype=np.float64)
    smallest = 1e-5 * np.abs(U).max()
    row = 0
    for column in range(U.shape[1]):
        if row == len(U):
            break
        best = row + np.abs(U[row:, column]).argmax()
        if abs(U[best, column]) > smallest:
            U[[row, best]] = U[[best, row]]
            U[row + 1 :] -= U[row + 1 :, [column]] / U[row, column] * U[row]
            row += 1
    return row


@alternative("recursively")
def rank_by_elimination(M):
    def rank(U, smallest):
        if not U.size:
            return 0
        best = np.argmax(np.abs(U[:, 0]))
        if abs(U[best, 0]) <= smallest:
            return rank(U[:, 1:], smallest)
        others = np.delete(U, best, axis=0)
        return 1 + rank((others - np.outer(others[:, 0] / U[best, 0], U[best]))[:, 1:], smallest)

    M = np.asarray(M, dtype=float)
    return rank(M, 1e-5 * np.abs(M).max())


@alternative("scaled to one first")
def rank_by_elimination(M):
    largest = np.abs(M).max()
    if largest == 0:
        return 0
    U, row = np.asarray(M) / largest, 0
    for column in range(U.shape[1]):
        if row < len(U):
            best = row + int(np.argmax(np.abs(U[row:, column])))
            if abs(U[best, column]) > 1e-5:
                U[[row, best]] = U[[best, row]]
                for i in range(row + 1, len(U)):
                    U[i] = U[i] - U[i, column] / U[row, column] * U[row]
                row += 1
    return row


@mistake("all columns up to it", breaks="mixes")
def column_of_product(B, A, j):
    return (B @ A[:, : j + 1])[:, -1]


@mistake("all columns from it on", breaks="mixes")
def column_of_product(B, A, j):
    return (B @ A[:, j:])[:, 0]
