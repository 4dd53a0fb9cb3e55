"""What is usually done wrong, and other ways to be right."""

import numpy as np

from tests.attempts import alternative, mistake


@mistake("each term transposed", breaks="terms")
def rank_one_terms(B, A):
    return np.stack([np.outer(A[i], B[:, i]) for i in range(len(A))])


@mistake("partial sums instead of terms", breaks="terms")
def rank_one_terms(B, A):
    return np.stack([B[:, : i + 1] @ A[: i + 1] for i in range(len(A))])


@mistake("the product, shared evenly", breaks="terms")
def rank_one_terms(B, A):
    return np.stack([B @ A / len(A)] * len(A))


@mistake("the sum", breaks="terms")
def rank_one_terms(B, A):
    return B @ A


@mistake("columns of R in place of rows", breaks="first")
def cut_qr(M, r):
    Q, R = np.linalg.qr(M)
    return Q[:, :r], R[:, :r]


@mistake("the last terms", breaks="first")
def cut_qr(M, r):
    Q, R = np.linalg.qr(M)
    return Q[:, -r:], R[-r:]


@mistake("columns of M, not of Q", breaks="first")
def cut_qr(M, r):
    return M[:, :r], np.linalg.qr(M)[1][:r]


@mistake("nothing beyond the first r columns", breaks="angle")
def cut_qr(M, r):
    Q, R = np.linalg.qr(M)
    R[:, r:] = 0
    return Q[:, :r], R[:r]


@mistake("the SVD", breaks="first")
def cut_qr(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return U[:, :r], s[:r, None] * Vh[:r]


@mistake("works on M itself", breaks="triangles")
def lu_factors(M):
    U = M
    L = np.eye(len(U))
    for j in range(len(U)):
        L[j + 1 :, j] = U[j + 1 :, j] / U[j, j]
        U[j + 1 :] -= np.outer(L[j + 1 :, j], U[j])
    return L, U


@mistake("the factors with the wrong sign", breaks="product")
def lu_factors(M):
    U = np.array(M)
    L = np.eye(len(U))
    for j in range(len(U)):
        L[j + 1 :, j] = -U[j + 1 :, j] / U[j, j]
        U[j + 1 :] += np.outer(L[j + 1 :, j], U[j])
    return L, U


@mistake("the pivots in L", breaks="triangles")
def lu_factors(M):
    U = np.array(M)
    L = np.eye(len(U))
    for j in range(len(U)):
        L[j:, j] = U[j:, j]
        U[j] /= U[j, j]
        U[j + 1 :] -= np.outer(L[j + 1 :, j], U[j])
    return L, U


@mistake("only the first column", breaks="triangles")
def lu_factors(M):
    U = np.array(M)
    L = np.eye(len(U))
    L[1:, 0] = U[1:, 0] / U[0, 0]
    U[1:] -= np.outer(L[1:, 0], U[0])
    return L, U


@mistake("hands in NumPy's", breaks="orthonormal")
def gram_schmidt(M):
    return np.linalg.qr(M)[0]


@mistake("orthogonal, but not of length one", breaks="orthonormal")
def gram_schmidt(M):
    Q = np.array(M)
    for j in range(Q.shape[1]):
        for i in range(j):
            Q[:, j] -= (Q[:, i] @ Q[:, j]) / (Q[:, i] @ Q[:, i]) * Q[:, i]
    return Q


@mistake("of length one, but not orthogonal", breaks="orthonormal")
def gram_schmidt(M):
    return M / np.linalg.norm(M, axis=0)


@mistake("the amount in a direction, without its length", breaks="orthonormal")
def gram_schmidt(M):
    Q = np.array(M)
    for j in range(Q.shape[1]):
        for i in range(j):
            Q[:, j] -= (Q[:, i] @ Q[:, j]) * Q[:, i]
    return Q / np.linalg.norm(Q, axis=0)


@mistake("starts with the last column", breaks="span")
def gram_schmidt(M):
    Q = np.array(M)[:, ::-1].copy()
    for j in range(Q.shape[1]):
        for i in range(j):
            Q[:, j] -= (Q[:, i] @ Q[:, j]) * Q[:, i]
        Q[:, j] /= np.linalg.norm(Q[:, j])
    return Q[:, ::-1]


@mistake("hands in NumPy's", breaks="values")
def svd_by_eigenvectors(M):
    return np.linalg.svd(M, full_matrices=False)


@mistake("the smallest first", breaks="values")
def svd_by_eigenvectors(M):
    values, V = np.linalg.eigh(M.T @ M)
    s = np.sqrt(values)
    return M @ V / s, s, V.T


@mistake("eigenvalues without the root", breaks="values")
def svd_by_eigenvectors(M):
    values, V = np.linalg.eigh(M.T @ M)
    s, V = values[::-1], V[:, ::-1]
    return M @ V / s, s, V.T


@mistake("V in place of its transpose", breaks="product")
def svd_by_eigenvectors(M):
    values, V = np.linalg.eigh(M.T @ M)
    s, V = np.sqrt(values[::-1]), V[:, ::-1]
    return M @ V / s, s, V


@mistake("columns of U that are not of length one", breaks="vectors")
def svd_by_eigenvectors(M):
    values, V = np.linalg.eigh(M.T @ M)
    s, V = np.sqrt(values[::-1]), V[:, ::-1]
    return M @ V, s, V.T


@mistake("swaps rows, and forgets the permutation", breaks="product")
def lu_factors(M):
    U = np.array(M, dtype=float)
    L = np.eye(len(U))
    for j in range(len(U)):
        best = j + np.argmax(np.abs(U[j:, j]))
        U[[j, best]] = U[[best, j]]
        L[[j, best], :j] = L[[best, j], :j]
        L[j + 1 :, j] = U[j + 1 :, j] / U[j, j]
        U[j + 1 :] -= np.outer(L[j + 1 :, j], U[j])
    return L, U


@alternative("all at once")
def rank_one_terms(B, A):
    return B.T[:, :, None] * A[:, None, :]


@alternative("other signs")
def cut_qr(M, r):
    Q, R = np.linalg.qr(M)
    return -Q[:, :r], -R[:r]


@alternative("entry by entry")
def lu_factors(M):
    n = len(M)
    L, U = np.eye(n), np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            rest = M[i, j] - L[i, :i] @ U[:i, j] if i <= j else M[i, j] - L[i, :j] @ U[:j, j]
            if i <= j:
                U[i, j] = rest
            else:
                L[i, j] = rest / U[j, j]
    return L, U


@alternative("with projections, and twice")
def gram_schmidt(M):
    Q = np.zeros(M.shape)
    for j in range(M.shape[1]):
        v = M[:, j] - Q @ (Q.T @ M[:, j])
        v = v - Q @ (Q.T @ v)
        Q[:, j] = -v / np.linalg.norm(v)
    return Q


@alternative("sorted by hand, lengths for singular values")
def svd_by_eigenvectors(M):
    values, V = np.linalg.eigh(M.T @ M)
    V = V[:, np.argsort(-values)]
    s = np.linalg.norm(M @ V, axis=0)
    return M @ V / s, s, V.T


@mistake("the first term of all, for each", breaks="terms")
def rank_one_terms(B, A):
    return np.stack([np.outer(B[:, 0], A[0]) for _ in range(len(A))])


@mistake("rows of B", breaks="terms")
def rank_one_terms(B, A):
    return np.stack([np.outer(B[i % len(B)], A[:, i % A.shape[1]]) for i in range(len(A))])


@mistake("one below the other", breaks="terms")
def rank_one_terms(B, A):
    return np.concatenate([np.outer(B[:, i], A[i]) for i in range(len(A))])


@mistake("terms along the last axis", breaks="terms")
def rank_one_terms(B, A):
    return np.stack([np.outer(B[:, i], A[i]) for i in range(len(A))], axis=-1)


@mistake("in the order from the last to the first", breaks="terms")
def rank_one_terms(B, A):
    return np.stack([np.outer(B[:, -1 - i], A[-1 - i]) for i in range(len(A))])


@mistake("sums in place of products", breaks="terms")
def rank_one_terms(B, A):
    return np.stack([np.add.outer(B[:, i], A[i]) for i in range(len(A))])


@alternative("by einsum")
def rank_one_terms(B, A):
    return np.einsum("ir,rj->rij", B, A)


@alternative("products of a column and a row")
def rank_one_terms(B, A):
    return [B[:, [i]] @ A[[i]] for i in range(len(A))]


@alternative("batched products")
def rank_one_terms(B, A):
    return np.matmul(B.T[:, :, None], A[:, None, :])


@alternative("entry by entry")
def rank_one_terms(B, A):
    return np.array([[[b * a for a in row] for b in column] for column, row in zip(B.T, A)])


@mistake("all of it", breaks="first")
def cut_qr(M, r):
    return np.linalg.qr(M)


@mistake("one term too few", breaks="first")
def cut_qr(M, r):
    Q, R = np.linalg.qr(M)
    R = R[:r].copy()
    R[-1] = 0
    return Q[:, :r], R


@mistake("columns of length one, not orthogonal", breaks="angle")
def cut_qr(M, r):
    B = M[:, :r] / np.linalg.norm(M[:, :r], axis=0)
    return B, np.linalg.lstsq(B, M, rcond=None)[0]


@mistake("rows of Q", breaks="first")
def cut_qr(M, r):
    Q, R = np.linalg.qr(M)
    return Q[:r].T[: len(M)], R[:r]


@mistake("R scaled to a diagonal of ones", breaks="angle")
def cut_qr(M, r):
    Q, R = np.linalg.qr(M)
    return Q[:, :r] * np.diag(R)[:r], R[:r] / np.diag(R)[:r, None]


@mistake("the QR of the transpose", breaks="first")
def cut_qr(M, r):
    Q, R = np.linalg.qr(M.T)
    return R[:r].T, Q[:, :r].T


@mistake("what is left out", breaks="first")
def cut_qr(M, r):
    Q, R = np.linalg.qr(M)
    return Q[:, r:], R[r:]


@alternative("a QR of the first columns")
def cut_qr(M, r):
    Q = np.linalg.qr(M[:, :r])[0]
    return Q, Q.T @ M


@alternative("turned between the factors")
def cut_qr(M, r):
    Q, R = np.linalg.qr(M)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(r, r)))[0]
    return Q[:, :r] @ turn, turn.T @ R[:r]


@alternative("by Gram and Schmidt")
def cut_qr(M, r):
    columns = []
    for j in range(r):
        v = M[:, j]
        for _ in range(2):
            for q in columns:
                v = v - (q @ v) * q
        columns.append(v / np.linalg.norm(v))
    B = np.array(columns).T
    return B, B.T @ M


@alternative("the complete QR, cut")
def cut_qr(M, r):
    Q, R = np.linalg.qr(M, mode="complete")
    return Q[:, :r], R[:r, :]


@mistake("L without the ones", breaks="triangles")
def lu_factors(M):
    U = np.array(M, dtype=float)
    L = np.zeros(U.shape)
    for j in range(len(U)):
        L[j + 1 :, j] = U[j + 1 :, j] / U[j, j]
        U[j + 1 :] -= np.outer(L[j + 1 :, j], U[j])
    return L, U


@mistake("the two exchanged", breaks="triangles")
def lu_factors(M):
    U = np.array(M, dtype=float)
    L = np.eye(len(U))
    for j in range(len(U)):
        L[j + 1 :, j] = U[j + 1 :, j] / U[j, j]
        U[j + 1 :] -= np.outer(L[j + 1 :, j], U[j])
    return U, L


@mistake("eliminates a copy of whole numbers", breaks="product")
def lu_factors(M):
    U = np.array(M)
    L = np.eye(len(U))
    for j in range(len(U)):
        L[j + 1 :, j] = U[j + 1 :, j] / U[j, j]
        U[j + 1 :] = U[j + 1 :] - np.outer(L[j + 1 :, j], U[j])
    return L, U


@mistake("the multipliers of the matrix as it was", breaks="triangles")
def lu_factors(M):
    U = np.array(M, dtype=float)
    L = np.eye(len(U))
    for j in range(len(U)):
        L[j + 1 :, j] = M[j + 1 :, j] / M[j, j] if M[j, j] else 0
        U[j + 1 :] -= np.outer(L[j + 1 :, j], U[j])
    return L, U


@mistake("the inverse of L", breaks="product")
def lu_factors(M):
    U = np.array(M, dtype=float)
    L = np.eye(len(U))
    for j in range(len(U)):
        factor = U[j + 1 :, j] / U[j, j]
        U[j + 1 :] -= np.outer(factor, U[j])
        L[j + 1 :] -= np.outer(factor, L[j])
    return L, U


@mistake("triangles of M itself", breaks="product")
def lu_factors(M):
    return np.tril(M, -1) + np.eye(len(M)), np.triu(M)


@mistake("ones on the diagonal of U instead", breaks="triangles")
def lu_factors(M):
    U = np.array(M, dtype=float)
    L = np.eye(len(U))
    for j in range(len(U)):
        L[j + 1 :, j] = U[j + 1 :, j] / U[j, j]
        U[j + 1 :] -= np.outer(L[j + 1 :, j], U[j])
    return L * np.diag(U), U / np.diag(U)[:, None]


@alternative("row by row")
def lu_factors(M):
    U, L = np.array(M, dtype=float), np.identity(len(M))
    for i in range(len(U)):
        for j in range(i):
            L[i, j] = U[i, j] / U[j, j]
            U[i, j:] -= L[i, j] * U[j, j:]
            U[i, j] = 0
    return L, U


@alternative("in lists")
def lu_factors(M):
    U = [[float(n) for n in row] for row in M]
    L = [[float(i == j) for j in range(len(U))] for i in range(len(U))]
    for j in range(len(U)):
        for i in range(j + 1, len(U)):
            L[i][j] = U[i][j] / U[j][j]
            U[i] = [u - L[i][j] * p for u, p in zip(U[i], U[j])]
    return L, U


@alternative("recursively")
def lu_factors(M):
    M = np.asarray(M, dtype=float)
    if len(M) == 1:
        return np.ones((1, 1)), M
    column = M[1:, 0] / M[0, 0]
    L, U = lu_factors(M[1:, 1:] - np.outer(column, M[0, 1:]))
    lower = np.block([[np.ones((1, 1)), np.zeros((1, len(L)))], [column[:, None], L]])
    return lower, np.block([[M[:1, :1], M[:1, 1:]], [np.zeros((len(L), 1)), U]])


@alternative("with the triangle cleaned at the end")
def lu_factors(M):
    U = M.astype(float)
    L = np.eye(M.shape[0])
    for j in range(M.shape[0] - 1):
        for i in range(j + 1, M.shape[0]):
            L[i, j] = U[i, j] / U[j, j]
            U[i, :] = U[i, :] - L[i, j] * U[j, :]
    return L, np.triu(U)


@mistake("takes only the last direction away", breaks="orthonormal")
def gram_schmidt(M):
    Q = np.array(M, dtype=float)
    for j in range(Q.shape[1]):
        if j:
            Q[:, j] -= (Q[:, j - 1] @ Q[:, j]) * Q[:, j - 1]
        Q[:, j] /= np.linalg.norm(Q[:, j])
    return Q


@mistake("adds what it should take away", breaks="orthonormal")
def gram_schmidt(M):
    Q = np.array(M, dtype=float)
    for j in range(Q.shape[1]):
        for i in range(j):
            Q[:, j] += (Q[:, i] @ Q[:, j]) * Q[:, i]
        Q[:, j] /= np.linalg.norm(Q[:, j])
    return Q


@mistake("rows in place of columns", breaks="orthonormal")
def gram_schmidt(M):
    Q = np.array(M, dtype=float)
    for j in range(min(Q.shape)):
        for i in range(j):
            Q[j] -= (Q[i] @ Q[j]) * Q[i]
        Q[j] /= np.linalg.norm(Q[j])
    return Q


@mistake("divides by the sum", breaks="orthonormal")
def gram_schmidt(M):
    Q = np.array(M, dtype=float)
    for j in range(Q.shape[1]):
        for i in range(j):
            Q[:, j] -= (Q[:, i] @ Q[:, j]) * Q[:, i]
        Q[:, j] /= np.abs(Q[:, j]).sum()
    return Q


@mistake("an identity", breaks="span")
def gram_schmidt(M):
    return np.eye(*M.shape)


@mistake("amounts of the column of M, of directions of M", breaks="orthonormal")
def gram_schmidt(M):
    Q = np.array(M, dtype=float)
    for j in range(Q.shape[1]):
        for i in range(j):
            Q[:, j] -= (M[:, i] @ M[:, j]) / (M[:, i] @ M[:, i]) * M[:, i]
        Q[:, j] /= np.linalg.norm(Q[:, j])
    return Q


@mistake("forgets the first column", breaks="orthonormal")
def gram_schmidt(M):
    Q = np.array(M, dtype=float)
    for j in range(1, Q.shape[1]):
        for i in range(j):
            Q[:, j] -= (Q[:, i] @ Q[:, j]) * Q[:, i]
        Q[:, j] /= np.linalg.norm(Q[:, j])
    return Q


@mistake("in the order of length", breaks="span")
def gram_schmidt(M):
    order = np.argsort(-np.linalg.norm(M, axis=0), kind="stable")
    Q = np.array(M, dtype=float)[:, order]
    for j in range(Q.shape[1]):
        for i in range(j):
            Q[:, j] -= (Q[:, i] @ Q[:, j]) * Q[:, i]
        Q[:, j] /= np.linalg.norm(Q[:, j])
    return Q


@alternative("takes each direction from all later columns")
def gram_schmidt(M):
    Q = M.astype(float)
    for i in range(Q.shape[1]):
        Q[:, i] = Q[:, i] / np.sqrt(Q[:, i] @ Q[:, i])
        for j in range(i + 1, Q.shape[1]):
            Q[:, j] = Q[:, j] - (Q[:, i] @ Q[:, j]) * Q[:, i]
    return Q


@alternative("a list of vectors")
def gram_schmidt(M):
    found = []
    for v in M.T:
        v = v.astype(float)
        for q in found * 2:
            v = v - (v @ q) * q
        found.append(v / np.linalg.norm(v))
    return np.column_stack(found)


@alternative("without dividing before the end")
def gram_schmidt(M):
    Q = np.array(M, dtype=float)
    for j in range(Q.shape[1]):
        for _ in range(2):
            for i in range(j):
                Q[:, j] -= (Q[:, i] @ Q[:, j]) / (Q[:, i] @ Q[:, i]) * Q[:, i]
    return Q / np.linalg.norm(Q, axis=0)


@alternative("Householder's mirrors")
def gram_schmidt(M):
    d, k = M.shape
    R, Q = np.array(M, dtype=float), np.eye(d)
    for j in range(k):
        v = R[j:, j].copy()
        v[0] += np.copysign(np.linalg.norm(v), v[0])
        v /= np.linalg.norm(v)
        R[j:] -= 2 * np.outer(v, v @ R[j:])
        Q[:, j:] -= 2 * np.outer(Q[:, j:] @ v, v)
    return Q[:, :k]


@mistake("the eigenvectors of M M^T cut, signs not matched", breaks="product")
def svd_by_eigenvectors(M):
    values, V = np.linalg.eigh(M.T @ M)
    U = np.linalg.eigh(M @ M.T)[1][:, ::-1][:, : M.shape[1]]
    return U, np.sqrt(values[::-1]), V[:, ::-1].T


@mistake("eigenvalues turned around, eigenvectors not", breaks="vectors")
def svd_by_eigenvectors(M):
    values, V = np.linalg.eigh(M.T @ M)
    s = np.sqrt(values[::-1])
    return M @ V / s, s, V.T


@mistake("eigenvectors as rows", breaks="vectors")
def svd_by_eigenvectors(M):
    values, V = np.linalg.eigh(M.T @ M)
    s, V = np.sqrt(values[::-1]), V[::-1]
    return M @ V.T / s, s, V


@mistake("divided by the eigenvalues", breaks="vectors")
def svd_by_eigenvectors(M):
    values, V = np.linalg.eigh(M.T @ M)
    values, V = values[::-1], V[:, ::-1]
    return M @ V / values, np.sqrt(values), V.T


@mistake("the roots of rows, not of columns", breaks="vectors")
def svd_by_eigenvectors(M):
    values, V = np.linalg.eigh(M.T @ M)
    s, V = np.sqrt(values[::-1]), V[:, ::-1]
    return M @ V.T / s, s, V.T


@mistake("S as a matrix", breaks="values")
def svd_by_eigenvectors(M):
    values, V = np.linalg.eigh(M.T @ M)
    s, V = np.sqrt(values[::-1]), V[:, ::-1]
    return M @ V / s, np.diag(s), V.T


@mistake("eigenvalues of the wrong product", breaks="vectors")
def svd_by_eigenvectors(M):
    k = M.shape[1]
    values, U = np.linalg.eigh(M @ M.T)
    s, U = np.sqrt(np.abs(values[::-1][:k])), U[:, ::-1][:, :k]
    return U, s, U.T @ M


@alternative("the other product, its last vectors left out")
def svd_by_eigenvectors(M):
    k = M.shape[1]
    values, U = np.linalg.eigh(M @ M.T)
    U = U[:, ::-1][:, :k]
    s = np.linalg.norm(U.T @ M, axis=1)
    return U, s, U.T @ M / s[:, None]


@alternative("other signs")
def svd_by_eigenvectors(M):
    values, V = np.linalg.eigh(M.T @ M)
    s, V = np.sqrt(values[::-1]), -V[:, ::-1]
    return M @ V / s, s, V.T


@alternative("flipped")
def svd_by_eigenvectors(M):
    values, V = np.linalg.eigh(np.dot(M.T, M))
    s = np.flip(values) ** 0.5
    Vh = np.flip(V, axis=1).T
    return np.dot(M, Vh.T) @ np.diag(1 / s), s, Vh


@alternative("pair by pair")
def svd_by_eigenvectors(M):
    pairs = sorted(zip(*(lambda w, V: (w, V.T))(*np.linalg.eigh(M.T @ M))), key=lambda p: -p[0])
    s = [np.sqrt(value) for value, _ in pairs]
    return np.column_stack([M @ v / n for (_, v), n in zip(pairs, s)]), s, [v for _, v in pairs]
