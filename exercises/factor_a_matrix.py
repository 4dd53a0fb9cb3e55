"""What is usually done wrong, and other ways to be right."""

import numpy as np

from lora_np.grading import alternative, mistake


@mistake("each part transposed", breaks="parts")
def rank_one_parts(B, A):
    return np.stack([np.outer(A[i], B[:, i]) for i in range(len(A))])


@mistake("partial sums in place of parts", breaks="parts")
def rank_one_parts(B, A):
    return np.stack([B[:, : i + 1] @ A[: i + 1] for i in range(len(A))])


@mistake("the product, shared evenly", breaks="parts")
def rank_one_parts(B, A):
    return np.stack([B @ A / len(A)] * len(A))


@mistake("the sum", breaks="parts")
def rank_one_parts(B, A):
    return B @ A


@mistake("columns of R in place of rows", breaks="first")
def cut_qr(M, r):
    Q, R = np.linalg.qr(M)
    return Q[:, :r], R[:, :r]


@mistake("the last parts", breaks="first")
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


@mistake("right angles, but not of length one", breaks="orthonormal")
def gram_schmidt(M):
    Q = np.array(M)
    for j in range(Q.shape[1]):
        for i in range(j):
            Q[:, j] -= (Q[:, i] @ Q[:, j]) / (Q[:, i] @ Q[:, i]) * Q[:, i]
    return Q


@mistake("of length one, but not at right angles", breaks="orthonormal")
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
def rank_one_parts(B, A):
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
