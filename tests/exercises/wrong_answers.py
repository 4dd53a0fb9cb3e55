# Wrong answers to the exercises, to be parsed, not run: every answer that the checks accept is a finding.
# Their authors read only the exercises' statements, before the checks met these answers; they are not students.
# ruff: noqa: B007, B905, C416, F811, F821, F841, NPY002, RET503, RUF059
import numpy as np


@wrong("forgot the factor alpha / r")
def lora_forward(x, W0, A, B, alpha):
    return x @ W0.T + x @ A.T @ B.T


@wrong("took r from the wrong axis of A")
def lora_forward(x, W0, A, B, alpha):
    r = A.shape[1]
    return x @ W0.T + alpha / r * x @ A.T @ B.T


@wrong("did not transpose")
def lora_forward(x, W0, A, B, alpha):
    return x @ W0 + alpha / A.shape[0] * x @ A @ B


@wrong("divides whole numbers")
def lora_forward(x, W0, A, B, alpha):
    r = A.shape[0]
    return x @ W0.T + (alpha // r) * (x @ A.T @ B.T)


@wrong("the factor scales W0 as well")
def lora_forward(x, W0, A, B, alpha):
    return alpha / B.shape[1] * x @ (W0 + B @ A).T


@wrong("takes the numerical rank of B for r: a B of zeros has rank 0")
def lora_forward(x, W0, A, B, alpha):
    r = np.linalg.matrix_rank(B)
    return x @ W0.T + alpha / r * x @ A.T @ B.T


@wrong("changes W0 in place")
def lora_forward(x, W0, A, B, alpha):
    delta = alpha / A.shape[0] * B @ A
    for i in range(W0.shape[0]):
        W0[i] = W0[i] + delta[i]
    return x @ W0.T


@wrong("")
def lora_forward(x, W0, A, B, alpha):
    r = A.shape[0]
    x @ W0.T + alpha / r * x @ A.T @ B.T


@wrong("a vector is expected for x: only the first row")
def lora_forward(x, W0, A, B, alpha):
    v = x[0]
    return (W0 @ v + alpha / A.shape[0] * B @ A @ v)[None]


@wrong("r is min(d, k): the largest rank, not that of the factors")
def lora_forward(x, W0, A, B, alpha):
    return x @ W0.T + alpha / min(W0.shape) * x @ A.T @ B.T


@wrong("A is zero too, so nothing can ever move")
def lora_start(d, k, r, rng):
    return np.zeros((r, k)), np.zeros((d, r))


@wrong("both are random, so the layer does not begin at W0")
def lora_start(d, k, r, rng):
    rng = np.random.default_rng(rng)
    A = rng.normal(size=(r, k)) / np.sqrt(k)
    B = rng.normal(size=(d, r)) / np.sqrt(r)
    return A, B


@wrong("returns B before A")
def lora_start(d, k, r, rng):
    rng = np.random.default_rng(rng)
    return np.zeros((d, r)), rng.normal(size=(r, k)) / np.sqrt(k)


@wrong("divides by k, not by its root")
def lora_start(d, k, r, rng):
    return np.random.default_rng(rng).normal(0, 1 / k, (r, k)), np.zeros((d, r))


@wrong("ignores the seed")
def lora_start(d, k, r, rng):
    A = np.random.randn(r, k) / np.sqrt(k)
    return A, np.zeros((d, r))


@wrong("all rows of A are alike, so A is as good as one row")
def lora_start(d, k, r, rng):
    row = np.random.default_rng(rng).normal(size=k) / np.sqrt(k)
    return np.tile(row, (r, 1)), np.zeros((d, r))


@wrong("scales by the root of r in place of that of k")
def lora_start(d, k, r, rng):
    rng = np.random.default_rng(rng)
    return rng.standard_normal((r, k)) / r**0.5, np.zeros((d, r))


@wrong("uses the same seed whatever is asked for")
def lora_start(d, k, r, rng):
    rng = np.random.default_rng(0)
    return rng.normal(scale=k**-0.5, size=(r, k)), np.zeros((d, r))


@wrong("B is made tiny instead of zero")
def lora_start(d, k, r, rng):
    g = np.random.default_rng(rng)
    return g.normal(size=(r, k)) / np.sqrt(k), 1e-6 * g.normal(size=(d, r))


@wrong("not done yet")
def lora_start(d, k, r, rng):
    raise NotImplementedError


@wrong("takes rng for a generator")
def lora_start(d, k, r, rng):
    return rng.normal(size=(r, k)) / np.sqrt(k), np.zeros((d, r))


@wrong("a constant A: nothing is random, and all rows are alike")
def lora_start(d, k, r, rng):
    return np.full((r, k), 1 / np.sqrt(k)), np.zeros((d, r))


@wrong("takes row j of A")
def column_of_product(B, A, j):
    return B @ A[j]


@wrong("returns a matrix with one column")
def column_of_product(B, A, j):
    return B @ A[:, [j]]


@wrong("computes the other columns too")
def column_of_product(B, A, j):
    return (B @ A)[:, j]


@wrong("takes row j")
def column_of_product(B, A, j):
    return B[j] @ A


@wrong("counts columns from 1")
def column_of_product(B, A, j):
    return B @ A[:, j - 1]


@wrong("uses only the first column of B, right for rank one")
def column_of_product(B, A, j):
    return B[:, 0] * A[0, j]


@wrong("")
def column_of_product(B, A):
    return B @ A[:, 0]


@wrong("takes A as square: turns it")
def column_of_product(B, A, j):
    return B @ A.T[:, j]


@wrong("takes the first row and column, which may be zero")
def rank_one_factors(M):
    b = M[:, :1]
    a = M[:1] / M[0, 0]
    return b, a


@wrong("forgot to divide by the entry where they meet")
def rank_one_factors(M):
    i, j = np.argwhere(M)[0]
    return M[:, [j]], M[[i], :]


@wrong("returns vectors, not a column and a row")
def rank_one_factors(M):
    U, s, Vh = np.linalg.svd(M)
    return U[:, 0] * s[0], Vh[0]


@wrong("returns row and column in the wrong order")
def rank_one_factors(M):
    i, j = np.unravel_index(np.argmax(np.abs(M)), M.shape)
    return M[i : i + 1] / M[i, j], M[:, j : j + 1]


@wrong("forgot the singular value")
def rank_one_factors(M):
    U, s, Vh = np.linalg.svd(M)
    return U[:, :1], Vh[:1]


@wrong("looks for the largest entry, so a matrix without a positive one fails")
def rank_one_factors(M):
    i, j = np.unravel_index(np.argmax(M), M.shape)
    return M[:, [j]] / M[i, j], M[[i]]


@wrong("takes the sums of rows and columns, which may cancel")
def rank_one_factors(M):
    b = M.sum(axis=1, keepdims=True)
    a = M.sum(axis=0, keepdims=True) / M.sum()
    return b, a


@wrong("")
def rank_one_factors(M):
    b, a = M[:, 0], M[0]
    print(b, a)


@wrong("takes the first r columns, which may be dependent")
def factors_from_columns(M):
    r = np.linalg.matrix_rank(M)
    B = M[:, :r]
    return B, np.linalg.lstsq(B, M, rcond=None)[0]


@wrong("keeps all columns, also the dependent ones")
def factors_from_columns(M):
    return M, np.eye(M.shape[1])


@wrong("the columns are singular vectors, not columns of M")
def factors_from_columns(M):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    r = np.linalg.matrix_rank(M)
    return U[:, :r] * s[:r], Vh[:r]


@wrong("inverts B, which is square only at full rank")
def factors_from_columns(M):
    B = M[:, lora_np.independent_columns(M)]
    return B, np.linalg.inv(B) @ M


@wrong("drops a column only if it is a multiple of another")
def factors_from_columns(M):
    keep = []
    for j in range(M.shape[1]):
        if not any(np.linalg.matrix_rank(M[:, [i, j]]) < 2 for i in keep):
            keep.append(j)
    B = M[:, keep]
    return B, np.linalg.pinv(B) @ M


@wrong("projects with the transpose, as if the columns were orthonormal")
def factors_from_columns(M):
    B = M[:, lora_np.independent_columns(M)]
    return B, B.T @ M


@wrong("works for rank one and for full rank only")
def factors_from_columns(M):
    r = np.linalg.matrix_rank(M)
    if r == min(M.shape):
        B = M[:, lora_np.independent_columns(M)]
        return B, np.linalg.pinv(B) @ M
    j = np.argmax(np.linalg.norm(M, axis=0))
    B = M[:, [j]]
    return B, B.T @ M / np.sum(B**2)


@wrong("the dependent columns get no coefficients")
def factors_from_columns(M):
    keep = lora_np.independent_columns(M)
    A = np.zeros((len(keep), M.shape[1]))
    A[np.arange(len(keep)), keep] = 1
    return M[:, keep], A


@wrong("compares with sigma, not with the largest singular value of the noise")
def noisy_rank(M, sigma):
    return int(np.sum(np.linalg.svd(M, compute_uv=False) > sigma))


@wrong("takes sqrt(d + k) for sqrt(d) + sqrt(k)")
def noisy_rank(M, sigma):
    d, k = M.shape
    s = np.linalg.svd(M)[1]
    return int(np.sum(s > sigma * np.sqrt(d + k)))


@wrong("squares the singular values, but not the threshold")
def noisy_rank(M, sigma):
    d, k = M.shape
    values = np.linalg.eigvalsh(M.T @ M)
    return int((values > 2 * sigma * (np.sqrt(d) + np.sqrt(k))).sum())


@wrong("counts the rank with the usual tolerance")
def noisy_rank(M, sigma):
    return np.linalg.matrix_rank(M)


@wrong("forgot the 1.1: noise at the threshold is counted sometimes")
def noisy_rank(M, sigma):
    d, k = M.shape
    s = np.linalg.svd(M, compute_uv=False)
    return int(np.sum(s > sigma * (d**0.5 + k**0.5)))


@wrong("cuts at the largest gap, which may lie between two values that count")
def noisy_rank(M, sigma):
    s = np.linalg.svd(M, compute_uv=False)
    return int(np.argmax(s[:-1] / s[1:])) + 1


@wrong("makes the threshold relative to the largest singular value")
def noisy_rank(M, sigma):
    s = np.linalg.svd(M, compute_uv=False)
    return int(np.sum(s / s[0] > 0.1))


@wrong("three times the noise is asked for, but noise can lower a value too")
def noisy_rank(M, sigma):
    noise = sigma * (np.sqrt(M.shape[0]) + np.sqrt(M.shape[1]))
    return sum(1 for s in np.linalg.svd(M)[1] if s > 3 * noise)


@wrong("the noise of a square matrix")
def noisy_rank(M, sigma):
    s = np.linalg.svd(M, compute_uv=False)
    return int(np.sum(s > 1.2 * sigma * 2 * np.sqrt(min(M.shape))))


@wrong("counts at least one")
def noisy_rank(M, sigma):
    d, k = M.shape
    s = np.linalg.svd(M, compute_uv=False)
    return max(1, int((s > 1.3 * sigma * (d**0.5 + k**0.5)).sum()))


@wrong("does not look for another row when the pivot is zero")
def rank_by_elimination(M):
    M = np.array(M, float)
    rank = 0
    for j in range(min(M.shape)):
        if M[j, j] != 0:
            M[j + 1 :] -= np.outer(M[j + 1 :, j] / M[j, j], M[j])
            rank += 1
    return rank


@wrong("compares with zero exactly")
def rank_by_elimination(M):
    M = np.array(M, float)
    rank = 0
    for j in range(M.shape[1]):
        rows = [i for i in range(rank, len(M)) if M[i, j] != 0]
        if not rows:
            continue
        M[[rank, rows[0]]] = M[[rows[0], rank]]
        for i in range(rank + 1, len(M)):
            M[i] -= M[i, j] / M[rank, j] * M[rank]
        rank += 1
    return rank


@wrong("moves on to the next row also where a column has no pivot")
def rank_by_elimination(M):
    M = np.array(M, dtype=float)
    tol = 1e-5 * np.abs(M).max()
    rank = 0
    for j in range(min(M.shape)):
        i = j + np.argmax(np.abs(M[j:, j]))
        if abs(M[i, j]) <= tol:
            continue
        M[[j, i]] = M[[i, j]]
        M[j + 1 :] -= np.outer(M[j + 1 :, j] / M[j, j], M[j])
        rank += 1
    return rank


@wrong("changes M in place")
def rank_by_elimination(M):
    tol = 1e-5 * np.abs(M).max()
    rank = 0
    for j in range(M.shape[1]):
        if rank == M.shape[0]:
            break
        i = rank + np.argmax(np.abs(M[rank:, j]))
        if abs(M[i, j]) > tol:
            M[[rank, i]] = M[[i, rank]]
            M[rank + 1 :] = M[rank + 1 :] - np.outer(M[rank + 1 :, j] / M[rank, j], M[rank])
            rank += 1
    return rank


@wrong("the tolerance is absolute, not relative to the largest entry")
def rank_by_elimination(M):
    M = np.array(M, float)
    rank = 0
    for j in range(M.shape[1]):
        if rank == len(M):
            break
        i = rank + np.abs(M[rank:, j]).argmax()
        if abs(M[i, j]) < 1e-5:
            continue
        M[[rank, i]] = M[[i, rank]]
        M[rank + 1 :] -= np.outer(M[rank + 1 :, j] / M[rank, j], M[rank])
        rank += 1
    return rank


@wrong("counts nonzero rows of M itself")
def rank_by_elimination(M):
    return int(np.sum(np.any(np.abs(M) > 1e-5 * np.abs(M).max(), axis=1)))


@wrong("")
def rank_by_elimination(M):
    M = M.copy()
    rank = 0
    for j in range(M.shape[1]):
        pivot = M[rank:, j].argmax()
        M[rank], M[pivot] = M[pivot], M[rank]
        if M[rank, j] > 1e-5:
            rank = +1
    return rank


@wrong("a function that is not allowed here")
def rank_by_elimination(M):
    return int(np.linalg.matrix_rank(M, tol=1e-5 * np.abs(M).max()))


@wrong("scales the tolerance by M's largest entry, signs not aside")
def rank_by_elimination(M):
    M = np.array(M, float)
    tolerance = 1e-5 * M.max()
    rank = 0
    for j in range(M.shape[1]):
        if rank == len(M):
            break
        i = rank + np.argmax(np.abs(M[rank:, j]))
        if abs(M[i, j]) <= tolerance:
            continue
        M[[rank, i]] = M[[i, rank]]
        M[rank + 1 :] -= np.outer(M[rank + 1 :, j] / M[rank, j], M[rank])
        rank += 1
    return rank


@wrong("the pivot is the largest number, so a column of negative ones has none")
def rank_by_elimination(M):
    M = np.array(M, float)
    tolerance = 1e-5 * np.abs(M).max()
    rank = 0
    for j in range(M.shape[1]):
        if rank == len(M):
            break
        i = rank + np.argmax(M[rank:, j])
        if M[i, j] <= tolerance:
            continue
        M[[rank, i]] = M[[i, rank]]
        M[rank + 1 :] -= np.outer(M[rank + 1 :, j] / M[rank, j], M[rank])
        rank += 1
    return rank


@wrong("returns the factors, not their product")
def cut(M, r):
    U, s, Vh = np.linalg.svd(M)
    return U[:, :r] * s[:r], Vh[:r]


@wrong("Vh is transposed already")
def cut(M, r):
    U, s, V = np.linalg.svd(M, full_matrices=False)
    return U[:, :r] @ np.diag(s[:r]) @ V[:, :r].T


@wrong("keeps one term too many")
def cut(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    s[r + 1 :] = 0
    return U * s @ Vh


@wrong("works only for square matrices")
def cut(M, r):
    U, s, Vh = np.linalg.svd(M)
    s[r:] = 0
    return U @ np.diag(s) @ Vh


@wrong("cuts rows and columns of M itself")
def cut(M, r):
    out = np.zeros_like(M)
    out[:r, :r] = M[:r, :r]
    return out


@wrong("forgot the singular values")
def cut(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return U[:, :r] @ Vh[:r]


@wrong("takes eigenvalues of M for its singular values, right if M is symmetric")
def cut(M, r):
    values, V = np.linalg.eigh(M)
    order = np.argsort(-np.abs(values))[:r]
    return V[:, order] * values[order] @ V[:, order].T


@wrong("the package's own function, which is not allowed here")
def cut(M, r):
    B, A = lora_np.low_rank_factors(M, r)
    return B @ A


@wrong("keeps every singular value above the r-th, and drops ties")
def cut(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    keep = np.where(s > s[min(r, len(s) - 1)], s, 0)
    return U * keep @ Vh


@wrong("starts at rank 1")
def error_curve(M):
    s = np.linalg.svd(M, compute_uv=False)
    return np.array([np.linalg.norm(s[r:]) for r in range(1, len(s) + 1)]) / np.linalg.norm(s)


@wrong("leaves out the error of the full rank, zero")
def error_curve(M):
    s = np.linalg.svd(M, compute_uv=False)
    return np.sqrt(np.cumsum(s[::-1] ** 2)[::-1]) / np.linalg.norm(M)


@wrong("forgot the root")
def error_curve(M):
    s2 = np.linalg.svd(M, compute_uv=False) ** 2
    return 1 - np.append(0, np.cumsum(s2)) / s2.sum()


@wrong("uses the spectral norm")
def error_curve(M):
    s = np.linalg.svd(M, compute_uv=False)
    return np.append(s, 0) / s[0]


@wrong("adds singular values without squaring them")
def error_curve(M):
    s = np.linalg.svd(M, compute_uv=False)
    return np.append(np.cumsum(s[::-1])[::-1], 0) / s.sum()


@wrong("returns what is kept, not what is missing")
def error_curve(M):
    s = np.linalg.svd(M, compute_uv=False)
    return np.sqrt(np.append(0, np.cumsum(s**2)) / np.sum(s**2))


@wrong("errors are not relative")
def error_curve(M):
    s = np.linalg.svd(M, compute_uv=False)
    return np.array([np.sqrt((s[r:] ** 2).sum()) for r in range(len(s) + 1)])


@wrong("takes errors below a tenth for rounding")
def error_curve(M):
    s = np.linalg.svd(M, compute_uv=False)
    kept = np.append(0, np.cumsum(s**2)) / (s**2).sum()
    return np.array([float(np.sqrt(1 - x)) if x < 0.99 else 0.0 for x in kept])


@wrong("as many errors as the matrix has columns")
def error_curve(M):
    s = np.zeros(M.shape[1])
    v = np.linalg.svd(M, compute_uv=False)
    s[: len(v)] = v
    return np.append(np.sqrt(np.cumsum(s[::-1] ** 2))[::-1], 0) / np.linalg.norm(M)


@wrong("more than the share, where at least the share is meant")
def smallest_rank(M, share):
    s = np.linalg.svd(M, compute_uv=False)
    e = np.cumsum(s**2) / np.sum(s**2)
    return int(np.sum(e <= share)) + 1


@wrong("did not square the singular values")
def smallest_rank(M, share):
    s = np.linalg.svd(M, compute_uv=False)
    return int(np.searchsorted(np.cumsum(s) / s.sum(), share - 1e-12)) + 1


@wrong("off by one: returns an index, not a rank")
def smallest_rank(M, share):
    s = np.linalg.svd(M, compute_uv=False)
    return int(np.argmax(np.cumsum(s**2) >= (share - 1e-12) * np.sum(s**2)))


@wrong("counts the singular values that each hold the share of the energy")
def smallest_rank(M, share):
    s2 = np.linalg.svd(M, compute_uv=False) ** 2
    return max(1, int(np.sum(s2 / s2.sum() >= 1 - share)))


@wrong("takes the share of the norm, not of its square")
def smallest_rank(M, share):
    s = np.linalg.svd(M, compute_uv=False)
    for r in range(1, len(s) + 1):
        if np.linalg.norm(s[:r]) / np.linalg.norm(s) >= share - 1e-12:
            return r


@wrong("returns None for share = 1, as the loop ends before the full rank")
def smallest_rank(M, share):
    s = np.linalg.svd(M, compute_uv=False)
    for r in range(1, len(s)):
        if (s[:r] ** 2).sum() >= share * (s**2).sum():
            return r


@wrong("returns the share itself")
def smallest_rank(M, share):
    s = np.linalg.svd(M, compute_uv=False)
    e = np.cumsum(s**2) / np.sum(s**2)
    return e[e >= share - 1e-12][0]


@wrong("rounds the share times the number of values")
def smallest_rank(M, share):
    return int(np.ceil(share * np.linalg.matrix_rank(M)))


@wrong("multiplies both factors by s, not by its root")
def balanced_factors(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return U[:, :r] * s[:r], s[:r, None] * Vh[:r]


@wrong("puts all of s into B: not balanced")
def balanced_factors(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r]


@wrong("multiplies the columns of Vh instead of its rows")
def balanced_factors(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    root = np.sqrt(s)
    return (U * root)[:, :r], (Vh * root)[:r]


@wrong("returns A before B")
def balanced_factors(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    root = np.diag(np.sqrt(s[:r]))
    return root @ Vh[:r], U[:, :r] @ root


@wrong("balances only the norms of the two factors")
def balanced_factors(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    B, A = U[:, :r] * s[:r], Vh[:r]
    c = np.sqrt(np.linalg.norm(A) / np.linalg.norm(B))
    return B * c, A / c


@wrong("takes the root twice")
def balanced_factors(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    root = s[:r] ** 0.25
    return U[:, :r] * root, root[:, None] * Vh[:r]


@wrong("one step only: the directions are not there yet")
def top_directions(M, r):
    Q = np.random.default_rng(0).normal(size=(M.shape[0], r))
    return np.linalg.qr(M @ (M.T @ Q))[0]


@wrong("right singular vectors, not left ones")
def top_directions(M, r):
    Q = np.random.default_rng(0).normal(size=(M.shape[1], r))
    for _ in range(100):
        Q = np.linalg.qr(M.T @ (M @ Q))[0]
    return Q


@wrong("does not orthogonalise on the way: all columns turn to the first direction")
def top_directions(M, r):
    Q = np.random.default_rng(0).normal(size=(M.shape[0], r))
    for _ in range(60):
        Q = M @ (M.T @ Q)
        Q /= np.linalg.norm(Q)
    return np.linalg.qr(Q)[0]


@wrong("only normalises the columns")
def top_directions(M, r):
    Q = np.random.default_rng(0).normal(size=(M.shape[0], r))
    for _ in range(50):
        Q = M @ (M.T @ Q)
        Q = Q / np.linalg.norm(Q, axis=0)
    return Q


@wrong("starts from ones: misses directions orthogonal to them")
def top_directions(M, r):
    Q = np.eye(M.shape[0])[:, :r]
    for _ in range(50):
        Q, _ = np.linalg.qr(M @ M.T @ Q)
    return Q


@wrong("QR of M takes its first columns, not its strongest directions")
def top_directions(M, r):
    return np.linalg.qr(M)[0][:, :r]


@wrong("too few steps when the next singular value is near to half of the r-th")
def top_directions(M, r):
    Q = np.random.default_rng(1).normal(size=(M.shape[0], r))
    for _ in range(3):
        Q = np.linalg.qr(M @ (M.T @ Q))[0]
    return Q


@wrong("the longest columns of M, made orthonormal")
def top_directions(M, r):
    order = np.argsort(-np.linalg.norm(M, axis=0))[:r]
    return np.linalg.qr(M[:, order])[0]


@wrong("a while loop that never ends, as the signs of QR may change at each step")
def top_directions(M, r):
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(len(M), r)))[0]
    old = np.zeros_like(Q)
    while not np.array_equal(Q, old):
        old = Q
        Q = -np.linalg.qr(M @ (M.T @ Q))[0]
    return Q


@wrong("multiplies where it should add")
def lora_count(d, k, r):
    return d * r * k


@wrong("counts W0 as well")
def lora_count(d, k, r):
    return d * k + r * (d + k)


@wrong("forgot r for one factor")
def lora_count(d, k, r):
    return d * r + k


@wrong("prints instead of returning")
def lora_count(d, k, r):
    print(d * r + r * k)


@wrong("right only for square matrices")
def lora_count(d, k, r):
    return 2 * d * r


@wrong("the size of the product")
def lora_count(d, k, r):
    return (np.ones((d, r)) @ np.ones((r, k))).size


@wrong("squares r")
def lora_count(d, k, r):
    return (d + k) * r**2


@wrong("as many as, where fewer is meant")
def last_rank_that_saves(d, k):
    return d * k // (d + k)


@wrong("always subtracts one, also if nothing divides")
def last_rank_that_saves(d, k):
    return d * k // (d + k) - 1


@wrong("right for square matrices only")
def last_rank_that_saves(d, k):
    return (d - 1) // 2


@wrong("returns a float")
def last_rank_that_saves(d, k):
    return max(0, d * k / (d + k) - 1)


@wrong("the first rank that saves no more")
def last_rank_that_saves(d, k):
    r = 1
    while r * (d + k) < d * k:
        r += 1
    return r


@wrong("one less only if d and k are equal")
def last_rank_that_saves(d, k):
    r = d * k // (d + k)
    return r - 1 if d == k and r > 0 else r


@wrong("solves the equation for squares: the root of d k")
def last_rank_that_saves(d, k):
    return max(0, int((d * k) ** 0.5 / 2) - (d == k))


@wrong("divides for each matrix and takes the least")
def affordable_rank(shapes, budget):
    return min(budget // (d + k) for d, k in shapes)


@wrong("rounds to the nearest rank")
def affordable_rank(shapes, budget):
    return round(budget / sum(d + k for d, k in shapes))


@wrong("counts d k for each matrix")
def affordable_rank(shapes, budget):
    return budget // sum(d * k for d, k in shapes)


@wrong("less than the budget, where at most is meant")
def affordable_rank(shapes, budget):
    r = 0
    while (r + 1) * sum(d + k for d, k in shapes) < budget:
        r += 1
    return r


@wrong("at least rank 1")
def affordable_rank(shapes, budget):
    return max(1, budget // sum(d + k for d, k in shapes))


@wrong("gives each matrix an equal part of the budget")
def affordable_rank(shapes, budget):
    part = budget // len(shapes)
    return min(part // (d + k) for d, k in shapes)


@wrong("never more than the smallest side, although only the budget limits the rank")
def affordable_rank(shapes, budget):
    r = budget // sum(d + k for d, k in shapes)
    return min(r, min(min(d, k) for d, k in shapes))


@wrong("spends the budget matrix by matrix, with a rank of its own for each")
def affordable_rank(shapes, budget):
    rank = 0
    for d, k in shapes:
        rank = budget // (d + k)
        budget -= rank * (d + k)
    return rank


@wrong("an endless loop if the budget is large: r is never raised")
def affordable_rank(shapes, budget):
    r = 0
    while (r + 1) * sum(d + k for d, k in shapes) <= budget:
        r + 1
    return r


@wrong("all four matrices are taken as square")
def attention_count(layers, d, d_kv, targets, r):
    return layers * len(targets) * 2 * d * r


@wrong("forgot the layers")
def attention_count(layers, d, d_kv, targets, r):
    return sum(r * (d + (d if t in "qo" else d_kv)) for t in targets)


@wrong("the output matrix as narrow as k and v")
def attention_count(layers, d, d_kv, targets, r):
    n = 0
    for t in targets:
        if t == "q":
            n += r * 2 * d
        else:
            n += r * (d + d_kv)
    return layers * n


@wrong("counts full matrices")
def attention_count(layers, d, d_kv, targets, r):
    sizes = {"q": d * d, "k": d_kv * d, "v": d_kv * d, "o": d * d}
    return layers * r * sum(sizes[t] for t in targets)


@wrong("k and v are taken as d_kv x d_kv")
def attention_count(layers, d, d_kv, targets, r):
    rows = {"q": d, "o": d, "k": d_kv, "v": d_kv}
    return layers * sum(2 * r * rows[t] for t in targets)


@wrong("ignores the targets")
def attention_count(layers, d, d_kv, targets, r):
    return layers * r * (2 * (d + d) + 2 * (d + d_kv))


@wrong("always q and v, as in the paper")
def attention_count(layers, d, d_kv, targets, r):
    return layers * r * (3 * d + d_kv)


@wrong("asks only for q and v by name; everything else is square")
def attention_count(layers, d, d_kv, targets, r):
    total = 0
    for t in targets:
        total += r * (d + (d_kv if t == "v" else d))
    return layers * total


@wrong("forgot the gradient")
def training_bytes(base, trained):
    return 2 * base + 12 * trained


@wrong("Adam has one moment")
def training_bytes(base, trained):
    return 2 * base + 4 * 3 * trained


@wrong("the trained parameters are counted in bfloat16")
def training_bytes(base, trained):
    return 2 * base + 2 * 4 * trained


@wrong("the base gets gradients as well")
def training_bytes(base, trained):
    return 4 * base + 16 * trained


@wrong("the trained parameters are taken as part of the base")
def training_bytes(base, trained):
    return 2 * (base - trained) + 16 * trained


@wrong("returns gigabytes")
def training_bytes(base, trained):
    return (2 * base + 16 * trained) / 1e9


@wrong("returns a string")
def training_bytes(base, trained):
    return f"{2 * base + 16 * trained} bytes"


@wrong("thinks of Adam's moments in bfloat16")
def training_bytes(base, trained):
    return base * 2 + trained * (4 + 4 + 2 + 2)


@wrong("divides by n, not by all entries")
def lora_gradients(x, y, W0, A, B, alpha):
    s = alpha / len(A)
    g = 2 * (x @ W0.T + s * x @ A.T @ B.T - y) / len(x)
    return s * B.T @ g.T @ x, s * g.T @ x @ A.T


@wrong("forgot the 2")
def lora_gradients(x, y, W0, A, B, alpha):
    s = alpha / len(A)
    g = (x @ W0.T + s * x @ A.T @ B.T - y) / y.size
    return s * B.T @ g.T @ x, s * g.T @ x @ A.T


@wrong("forgot alpha / r on the way back")
def lora_gradients(x, y, W0, A, B, alpha):
    s = alpha / len(A)
    g = 2 * (x @ W0.T + s * x @ A.T @ B.T - y) / y.size
    return B.T @ g.T @ x, g.T @ x @ A.T


@wrong("returns the gradient of B first")
def lora_gradients(x, y, W0, A, B, alpha):
    s = alpha / len(A)
    g = 2 * (x @ (W0 + s * B @ A).T - y) / y.size
    return s * g.T @ x @ A.T, s * B.T @ g.T @ x


@wrong("the sign of the error is turned")
def lora_gradients(x, y, W0, A, B, alpha):
    s = alpha / len(A)
    g = 2 * (y - x @ (W0 + s * B @ A).T) / y.size
    return s * B.T @ g.T @ x, s * g.T @ x @ A.T


@wrong("alpha for alpha / r, right at rank one")
def lora_gradients(x, y, W0, A, B, alpha):
    e = 2 / y.size * (x @ (W0 + alpha * B @ A).T - y)
    return alpha * B.T @ e.T @ x, alpha * e.T @ (x @ A.T)


@wrong("backward twice, so that the gradients are doubled")
def lora_gradients(x, y, W0, A, B, alpha):
    A, B = lora_np.Tensor(A), lora_np.Tensor(B)
    for _ in range(2):
        e = x @ W0.T + alpha / A.shape[0] * (x @ A.T @ B.T) - y
        (e * e).mean().backward()
    return A.grad, B.grad


@wrong("the gradients come out transposed")
def lora_gradients(x, y, W0, A, B, alpha):
    s = alpha / len(A)
    e = 2 / y.size * (x @ (W0 + s * B @ A).T - y)
    return (s * B.T @ e.T @ x).T, (s * e.T @ x @ A.T).T


@wrong("uses the gradient at W0, as if B A were still zero")
def lora_gradients(x, y, W0, A, B, alpha):
    s = alpha / len(A)
    e = 2 / y.size * (x @ W0.T - y)
    return s * B.T @ e.T @ x, s * e.T @ x @ A.T


@wrong("both start at zero, so nothing moves")
def train_lora(x, y, W0, r):
    d, k = W0.shape
    B, A = np.zeros((d, r)), np.zeros((r, k))
    for _ in range(2000):
        e = 2 * (x @ (W0 + B @ A).T - y) / y.size
        gA, gB = B.T @ e.T @ x, e.T @ x @ A.T
        A, B = A - 0.1 * gA, B - 0.1 * gB
    return B, A


@wrong("forgot W0")
def train_lora(x, y, W0, r):
    d, k = W0.shape
    rng = np.random.default_rng(0)
    B, A = np.zeros((d, r)), rng.normal(size=(r, k)) / np.sqrt(k)
    for _ in range(2000):
        e = 2 * (x @ (B @ A).T - y) / y.size
        A, B = A - 0.05 * B.T @ e.T @ x, B - 0.05 * e.T @ x @ A.T
    return B, A


@wrong("climbs instead of falling")
def train_lora(x, y, W0, r):
    d, k = W0.shape
    B, A = np.zeros((d, r)), np.random.default_rng(0).normal(size=(r, k))
    for _ in range(100):
        e = 2 * (x @ (W0 + B @ A).T - y) / y.size
        A, B = A + 0.01 * B.T @ e.T @ x, B + 0.01 * e.T @ x @ A.T
    return B, A


@wrong("stops after ten steps")
def train_lora(x, y, W0, r):
    d, k = W0.shape
    B, A = np.zeros((d, r)), np.random.default_rng(0).normal(size=(r, k))
    for _ in range(10):
        e = 2 * (x @ (W0 + B @ A).T - y) / y.size
        gA, gB = B.T @ e.T @ x, e.T @ x @ A.T
        A, B = A - 0.01 * gA, B - 0.01 * gB
    return B, A


@wrong("trains only B")
def train_lora(x, y, W0, r):
    d, k = W0.shape
    B, A = np.zeros((d, r)), np.random.default_rng(0).normal(size=(r, k)) / k**0.5
    for _ in range(5000):
        e = 2 * (x @ (W0 + B @ A).T - y) / y.size
        B = B - 0.1 * e.T @ x @ A.T
    return B, A


@wrong("a closed form")
def train_lora(x, y, W0, r):
    D = np.linalg.lstsq(x, y - x @ W0.T, rcond=None)[0].T
    U, s, Vh = np.linalg.svd(D, full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r]


@wrong("returns what was trained in the wrong order")
def train_lora(x, y, W0, r):
    d, k = W0.shape
    B, A = np.zeros((d, r)), np.random.default_rng(0).normal(size=(r, k)) / k**0.5
    for _ in range(3000):
        D = 2 / y.size * (x @ (W0 + B @ A).T - y).T @ x
        B, A = B - 0.1 * D @ A.T, A - 0.1 * B.T @ D
    return A, B


@wrong("a learning rate that diverges")
def train_lora(x, y, W0, r):
    d, k = W0.shape
    B, A = np.zeros((d, r)), np.random.default_rng(0).normal(size=(r, k)) / k**0.5
    for _ in range(500):
        D = 2 / y.size * (x @ (W0 + B @ A).T - y).T @ x
        B, A = B - 10 * D @ A.T, A - 10 * B.T @ D
    return B, A


@wrong("all rows of A alike: the rank stays one")
def train_lora(x, y, W0, r):
    d, k = W0.shape
    B, A = np.zeros((d, r)), np.ones((r, k)) / k**0.5
    for _ in range(5000):
        D = 2 / y.size * (x @ (W0 + B @ A).T - y).T @ x
        B, A = B - 0.1 * D @ A.T, A - 0.1 * B.T @ D
    return B, A


@wrong("averages over all positions, also those with -100")
def bits_and_perplexity(nats, labels):
    mean = nats.mean()
    return mean / np.log(2), np.exp(mean)


@wrong("multiplies by ln 2")
def bits_and_perplexity(nats, labels):
    mean = nats[labels != -100].mean()
    return mean * np.log(2), np.exp(mean)


@wrong("the perplexity is 2 to the nats")
def bits_and_perplexity(nats, labels):
    mean = nats[labels != -100].mean()
    return mean / np.log(2), 2**mean


@wrong("character 0 does not count either")
def bits_and_perplexity(nats, labels):
    mean = nats[labels > 0].mean()
    return mean / np.log(2), np.exp(mean)


@wrong("divides by the number of all characters")
def bits_and_perplexity(nats, labels):
    bits = np.sum(nats * (labels >= 0)) / len(nats) / np.log(2)
    return bits, 2**bits


@wrong("mean of the perplexities, not perplexity of the mean")
def bits_and_perplexity(nats, labels):
    n = nats[labels != -100]
    return np.mean(n) / np.log(2), np.mean(np.exp(n))


@wrong("takes the logarithm of the losses again")
def bits_and_perplexity(nats, labels):
    n = nats[labels != -100]
    return -np.mean(np.log2(n)), np.exp(np.mean(n))


@wrong("returns one number")
def bits_and_perplexity(nats, labels):
    return float(np.mean(nats[labels != -100]) / np.log(2))


@wrong("takes -100 for a prompt at the front only")
def bits_and_perplexity(nats, labels):
    n = nats[(labels != -100).argmax() :]
    return np.mean(n) / np.log(2), np.exp(np.mean(n))


@wrong("overflows at scores of 1,000")
def attention_weights(q, k):
    e = np.exp(q @ k.T / np.sqrt(q.shape[1]))
    e = np.tril(e)
    return e / e.sum(axis=1, keepdims=True)


@wrong("no mask")
def attention_weights(q, k):
    s = q @ k.T / np.sqrt(q.shape[1])
    e = np.exp(s - s.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@wrong("masks after dividing, so rows do not add up to 1")
def attention_weights(q, k):
    s = q @ k.T / np.sqrt(q.shape[1])
    e = np.exp(s - s.max(axis=1, keepdims=True))
    return np.tril(e / e.sum(axis=1, keepdims=True))


@wrong("divides by d, not by its root")
def attention_weights(q, k):
    s = q @ k.T / q.shape[1]
    s[np.triu_indices(len(s), 1)] = -np.inf
    e = np.exp(s - s.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@wrong("a position may not look at itself")
def attention_weights(q, k):
    s = q @ k.T / np.sqrt(q.shape[1])
    s[np.triu_indices(len(s), 0)] = -1e9
    e = np.exp(s - s.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@wrong("subtracts the largest of all scores, so a row far below it underflows to 0 / 0")
def attention_weights(q, k):
    s = q @ k.T / np.sqrt(q.shape[1])
    e = np.tril(np.exp(s - s.max()))
    return e / e.sum(axis=1, keepdims=True)


@wrong("the row's maximum includes later positions, which may be much larger")
def attention_weights(q, k):
    s = q @ k.T / q.shape[1] ** 0.5
    e = np.tril(np.exp(s - s.max(axis=1, keepdims=True)))
    return e / e.sum(axis=1, keepdims=True)


@wrong("masked scores are set to zero before exp, which gives weight")
def attention_weights(q, k):
    s = np.tril(q @ k.T / np.sqrt(q.shape[1]))
    e = np.exp(s - s.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@wrong("sums along the wrong axis")
def attention_weights(q, k):
    s = q @ k.T / np.sqrt(q.shape[1])
    s = np.where(np.tri(len(s)) > 0, s, -np.inf)
    e = np.exp(s - s.max(axis=1, keepdims=True))
    return e / e.sum(axis=0)


@wrong("keys look at queries")
def attention_weights(q, k):
    s = k @ q.T / np.sqrt(q.shape[1])
    s = np.where(np.tri(len(s)) > 0, s, -np.inf)
    e = np.exp(s - s.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@wrong("clips large scores")
def attention_weights(q, k):
    s = np.clip(q @ k.T / np.sqrt(q.shape[1]), -50, 50)
    e = np.tril(np.exp(s))
    return e / e.sum(axis=1, keepdims=True)


@wrong("takes the last query for all positions")
def attention_weights(q, k):
    s = k @ q[-1] / np.sqrt(q.shape[1])
    W = np.tril(np.tile(np.exp(s - s.max()), (len(q), 1)))
    return W / W.sum(axis=1, keepdims=True)


@wrong("A and B are mixed up")
def peft_tensors(adapters):
    out = {}
    for path, (A, B) in adapters.items():
        out[f"base_model.model.{path}.lora_A.weight"] = A
        out[f"base_model.model.{path}.lora_B.weight"] = B
    return out


@wrong("one model too many in the prefix")
def peft_tensors(adapters):
    out = {}
    for path, (B, A) in adapters.items():
        out["base_model.model.model." + path + ".lora_A.weight"] = A
        out["base_model.model.model." + path + ".lora_B.weight"] = B
    return out


@wrong("returns after the first layer")
def peft_tensors(adapters):
    for path, (B, A) in adapters.items():
        key = f"base_model.model.{path}"
        return {key + ".lora_A.weight": A, key + ".lora_B.weight": B}


@wrong("stores the factors transposed")
def peft_tensors(adapters):
    out = {}
    for path, (B, A) in adapters.items():
        out[f"base_model.model.{path}.lora_A.weight"] = A.T
        out[f"base_model.model.{path}.lora_B.weight"] = B.T
    return out


@wrong("forgot .weight")
def peft_tensors(adapters):
    return {
        f"base_model.model.{path}.lora_{x}": M
        for path, (B, A) in adapters.items()
        for x, M in (("A", A), ("B", B))
    }


@wrong("strips layers that start with model")
def peft_tensors(adapters):
    out = {}
    for path, (B, A) in adapters.items():
        path = path.removeprefix("model.")
        out[f"base_model.model.{path}.lora_A.weight"] = A
        out[f"base_model.model.{path}.lora_B.weight"] = B
    return out


@wrong("only the last name of the path")
def peft_tensors(adapters):
    out = {}
    for path, pair in adapters.items():
        for letter, M in zip("BA", pair):
            out["base_model.model." + path.split(".")[-1] + f".lora_{letter}.weight"] = M
    return out


@wrong("returns a list of keys and arrays, not a dict")
def peft_tensors(adapters):
    out = []
    for path, (B, A) in adapters.items():
        out.append((f"base_model.model.{path}.lora_A.weight", A))
        out.append((f"base_model.model.{path}.lora_B.weight", B))
    return out


@wrong("keeps the first columns and rows of the factors")
def resize_adapter(B, A, r):
    return B[:, :r], A[:r]


@wrong("truncates the two factors separately")
def resize_adapter(B, A, r):
    U, s, _ = np.linalg.svd(B, full_matrices=False)
    _, t, Vh = np.linalg.svd(A, full_matrices=False)
    return U[:, :r] * s[:r], t[:r, None] * Vh[:r]


@wrong("forgot to transpose R of A")
def resize_adapter(B, A, r):
    Qb, Rb = np.linalg.qr(B)
    Qa, Ra = np.linalg.qr(A.T)
    U, s, Vh = np.linalg.svd(Rb @ Ra)
    return Qb @ U[:, :r] * s[:r], Vh[:r] @ Qa.T


@wrong("computes the product")
def resize_adapter(B, A, r):
    U, s, Vh = np.linalg.svd(B @ A, full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r]


@wrong("keeps the pairs of column and row with the largest norms")
def resize_adapter(B, A, r):
    size = np.linalg.norm(B, axis=0) * np.linalg.norm(A, axis=1)
    keep = np.argsort(-size)[:r]
    return B[:, keep], A[keep]


@wrong("QR of A, not of its transpose")
def resize_adapter(B, A, r):
    Qb, Rb = np.linalg.qr(B)
    Qa, Ra = np.linalg.qr(A)
    U, s, Vh = np.linalg.svd(Rb @ Qa)
    return Qb @ U[:, :r] * s[:r], Vh[:r] @ Ra


@wrong("the singular values are in both factors")
def resize_adapter(B, A, r):
    Qb, Rb = np.linalg.qr(B)
    Qa, Ra = np.linalg.qr(A.T)
    U, s, Vh = np.linalg.svd(Rb @ Ra.T)
    return Qb @ (U[:, :r] * s[:r]), (s[:r, None] * Vh[:r]) @ Qa.T


@wrong("orthonormalises only B, and truncates what it gets without rotating back")
def resize_adapter(B, A, r):
    Q, R = np.linalg.qr(B)
    return Q[:, :r], (R @ A)[:r]


@wrong("")
def resize_adapter(B, A, r):
    Q, R = np.linalg.qr(B)
    P, S = np.linalg.qr(A.T)
    U, s, Vh = np.linalg.svd(R @ S.T)
    return Q @ U[:, :r] * s[:r], Vh[:r] @ Q.T


@wrong("multiplies entry by entry the rows of B")
def rank_one_terms(B, A):
    return np.array([np.outer(B[i], A[i]) for i in range(len(A))])


@wrong("returns their sum")
def rank_one_terms(B, A):
    return sum(np.outer(b, a) for b, a in zip(B.T, A))


@wrong("the term number is the last axis")
def rank_one_terms(B, A):
    return np.einsum("dr,rk->dkr", B, A)


@wrong("each term is transposed")
def rank_one_terms(B, A):
    return np.stack([np.outer(a, b) for b, a in zip(B.T, A)])


@wrong("partial sums, not the terms")
def rank_one_terms(B, A):
    return np.stack([B[:, : i + 1] @ A[: i + 1] for i in range(A.shape[0])])


@wrong("a matrix for each row of B")
def rank_one_terms(B, A):
    return B[:, :, None] * A[None, :, :]


@wrong("terms of the SVD of the product")
def rank_one_terms(B, A):
    U, s, Vh = np.linalg.svd(B @ A)
    return np.stack([s[i] * np.outer(U[:, i], Vh[i]) for i in range(A.shape[0])])


@wrong("lists of lists, and the terms are added up")
def rank_one_terms(B, A):
    return [[float(b @ a) for a in A.T] for b in B]


@wrong("keeps the first r rows of Q")
def cut_qr(M, r):
    Q, R = np.linalg.qr(M)
    return Q[:r], R[:r]


@wrong("cuts R in both directions")
def cut_qr(M, r):
    Q, R = np.linalg.qr(M)
    return Q[:, :r], R[:r, :r]


@wrong("the SVD, which is a different decomposition")
def cut_qr(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r]


@wrong("columns of R")
def cut_qr(M, r):
    Q, R = np.linalg.qr(M)
    return Q[:, :r], R[:, :r]


@wrong("returns the product")
def cut_qr(M, r):
    Q, R = np.linalg.qr(M)
    return Q[:, :r] @ R[:r]


@wrong("keeps the terms with the largest rows of R instead of the first ones")
def cut_qr(M, r):
    Q, R = np.linalg.qr(M)
    keep = np.argsort(-np.linalg.norm(R, axis=1))[:r]
    return Q[:, keep], R[keep]


@wrong("QR of the transpose")
def cut_qr(M, r):
    Q, R = np.linalg.qr(M.T)
    return R.T[:, :r], Q.T[:r]


@wrong("Q's columns with the largest rows first: sorted")
def cut_qr(M, r):
    Q, R = np.linalg.qr(M)
    order = np.argsort(-np.abs(np.diag(R)))[:r]
    return Q[:, order], R[order]


@wrong("changes M in place")
def lu_factors(M):
    n = len(M)
    L = np.eye(n)
    for j in range(n):
        for i in range(j + 1, n):
            L[i, j] = M[i, j] / M[j, j]
            M[i] -= L[i, j] * M[j]
    return L, M


@wrong("swaps rows for the largest pivot")
def lu_factors(M):
    U = np.array(M, float)
    n = len(U)
    L = np.eye(n)
    for j in range(n):
        p = j + np.argmax(np.abs(U[j:, j]))
        U[[j, p]] = U[[p, j]]
        for i in range(j + 1, n):
            L[i, j] = U[i, j] / U[j, j]
            U[i] -= L[i, j] * U[j]
    return L, U


@wrong("the signs of L are turned")
def lu_factors(M):
    U = np.array(M, float)
    L = np.eye(len(U))
    for j in range(len(U)):
        for i in range(j + 1, len(U)):
            f = -U[i, j] / U[j, j]
            L[i, j] = f
            U[i] += f * U[j]
    return L, U


@wrong("works in whole numbers when M holds whole numbers")
def lu_factors(M):
    U = M.copy()
    L = np.eye(len(U), dtype=M.dtype)
    for j in range(len(U)):
        for i in range(j + 1, len(U)):
            L[i, j] = U[i, j] / U[j, j]
            U[i] = U[i] - L[i, j] * U[j]
    return L, U


@wrong("takes the multipliers from M, not from what elimination has left")
def lu_factors(M):
    U = np.array(M, float)
    L = np.eye(len(U))
    for j in range(len(U)):
        for i in range(j + 1, len(U)):
            L[i, j] = M[i, j] / M[j, j]
            U[i] -= L[i, j] * U[j]
    return L, U


@wrong("Cholesky, right if M is symmetric, and then L has no ones")
def lu_factors(M):
    L = np.linalg.cholesky(M)
    return L, L.T


@wrong("forgot the ones on the diagonal of L")
def lu_factors(M):
    U = np.array(M, float)
    L = np.zeros_like(U)
    for j in range(len(U) - 1):
        L[j + 1 :, j] = U[j + 1 :, j] / U[j, j]
        U[j + 1 :] -= np.outer(L[j + 1 :, j], U[j])
    return L, U


@wrong("divides the pivots out of U, so that the ones are on its diagonal")
def lu_factors(M):
    U = np.array(M, float)
    n = len(U)
    L = np.zeros((n, n))
    for j in range(n):
        L[j:, j] = U[j:, j]
        U[j] = U[j] / U[j, j]
        for i in range(j + 1, n):
            U[i] -= L[i, j] * U[j]
    return L, U


@wrong("eliminates only below the first pivot")
def lu_factors(M):
    U = np.array(M, float)
    L = np.eye(len(U))
    for i in range(1, len(U)):
        L[i, 0] = U[i, 0] / U[0, 0]
        U[i] -= L[i, 0] * U[0]
    return L, U


@wrong("L and U in one matrix")
def lu_factors(M):
    U = np.array(M, float)
    for j in range(len(U)):
        for i in range(j + 1, len(U)):
            U[i, j] /= U[j, j]
            U[i, j + 1 :] -= U[i, j] * U[j, j + 1 :]
    return U


@wrong("only normalises")
def gram_schmidt(M):
    return M / np.linalg.norm(M, axis=0)


@wrong("subtracts only the previous column's part")
def gram_schmidt(M):
    Q = np.array(M, float)
    for j in range(Q.shape[1]):
        if j > 0:
            Q[:, j] -= Q[:, j - 1] @ Q[:, j] * Q[:, j - 1]
        Q[:, j] /= np.linalg.norm(Q[:, j])
    return Q


@wrong("does not normalise")
def gram_schmidt(M):
    Q = np.array(M, float)
    for j in range(Q.shape[1]):
        for i in range(j):
            Q[:, j] -= (Q[:, i] @ Q[:, j]) / (Q[:, i] @ Q[:, i]) * Q[:, i]
    return Q


@wrong("projects on the columns of M, which are not orthogonal")
def gram_schmidt(M):
    Q = np.array(M, float)
    for j in range(M.shape[1]):
        for i in range(j):
            Q[:, j] -= (M[:, i] @ M[:, j]) / (M[:, i] @ M[:, i]) * M[:, i]
    return Q / np.linalg.norm(Q, axis=0)


@wrong("works on rows")
def gram_schmidt(M):
    Q = np.array(M, float)
    for i in range(len(Q)):
        for j in range(i):
            Q[i] -= (Q[j] @ Q[i]) * Q[j]
        Q[i] /= np.linalg.norm(Q[i])
    return Q


@wrong("starts from the last column")
def gram_schmidt(M):
    Q = np.array(M, float)
    n = Q.shape[1]
    for j in reversed(range(n)):
        for i in range(j + 1, n):
            Q[:, j] -= (Q[:, i] @ Q[:, j]) * Q[:, i]
        Q[:, j] /= np.linalg.norm(Q[:, j])
    return Q


@wrong("orthonormal and of the same span in all, but not column by column")
def gram_schmidt(M):
    return np.linalg.svd(M, full_matrices=False)[0]


@wrong("divides by the sum of the entries, not by the length")
def gram_schmidt(M):
    Q = np.array(M, float)
    for j in range(Q.shape[1]):
        for i in range(j):
            Q[:, j] -= (Q[:, i] @ Q[:, j]) * Q[:, i]
        Q[:, j] /= np.abs(Q[:, j]).sum()
    return Q


@wrong("a ready-made decomposition")
def gram_schmidt(M):
    return np.linalg.qr(M)[0]


@wrong("subtracts only the parts of the first two directions, right for three columns")
def gram_schmidt(M):
    Q = np.array(M, float)
    for j in range(Q.shape[1]):
        for i in range(min(j, 2)):
            Q[:, j] -= (Q[:, i] @ Q[:, j]) * Q[:, i]
        Q[:, j] /= np.linalg.norm(Q[:, j])
    return Q


@wrong("smallest first, as eigh gives them")
def svd_by_eigenvectors(M):
    values, V = np.linalg.eigh(M.T @ M)
    s = np.sqrt(values)
    return M @ V / s, s, V.T


@wrong("forgot the root")
def svd_by_eigenvectors(M):
    values, V = np.linalg.eigh(M.T @ M)
    values, V = values[::-1], V[:, ::-1]
    return M @ V / values, values, V.T


@wrong("returns V, not its transpose")
def svd_by_eigenvectors(M):
    values, V = np.linalg.eigh(M.T @ M)
    s, V = np.sqrt(values[::-1]), V[:, ::-1]
    return M @ V / s, s, V


@wrong("U by its own eigenvectors, so its signs do not fit those of V")
def svd_by_eigenvectors(M):
    values, V = np.linalg.eigh(M.T @ M)
    U = np.linalg.eigh(M @ M.T)[1][:, ::-1][:, : M.shape[1]]
    return U, np.sqrt(values[::-1]), V[:, ::-1].T


@wrong("reverses the rows of V, not its columns")
def svd_by_eigenvectors(M):
    values, V = np.linalg.eigh(M.T @ M)
    s, V = np.sqrt(values[::-1]), V[::-1]
    return M @ V / s, s, V.T


@wrong("returns s as a diagonal matrix")
def svd_by_eigenvectors(M):
    values, V = np.linalg.eigh(M.T @ M)
    s, V = np.sqrt(values[::-1]), V[:, ::-1]
    return M @ V / s, np.diag(s), V.T


@wrong("U keeps its lengths")
def svd_by_eigenvectors(M):
    values, V = np.linalg.eigh(M.T @ M)
    V = V[:, ::-1]
    return M @ V, np.sqrt(values[::-1]), V.T


@wrong("full U: all eigenvectors of M M^T")
def svd_by_eigenvectors(M):
    values, V = np.linalg.eigh(M.T @ M)
    U = np.linalg.eigh(M @ M.T)[1]
    return U[:, ::-1], np.sqrt(values[::-1]), V[:, ::-1].T


@wrong("the SVD itself")
def svd_by_eigenvectors(M):
    return np.linalg.svd(M, full_matrices=False)


@wrong("forgot to subtract what W0 gives")
def frozen_a(X, Y, W0, A):
    return np.linalg.lstsq(X @ A.T, Y, rcond=None)[0].T


@wrong("returns B transposed")
def frozen_a(X, Y, W0, A):
    return np.linalg.lstsq(X @ A.T, Y - X @ W0.T, rcond=None)[0]


@wrong("divides the full update by A, which ignores the inputs unless they are white")
def frozen_a(X, Y, W0, A):
    D = np.linalg.lstsq(X, Y - X @ W0.T, rcond=None)[0].T
    return D @ np.linalg.pinv(A)


@wrong("inverts, so it works only when n is r")
def frozen_a(X, Y, W0, A):
    return (np.linalg.inv(X @ A.T) @ (Y - X @ W0.T)).T


@wrong("forgot the inverse in the normal equations")
def frozen_a(X, Y, W0, A):
    Z = X @ A.T
    return (Y - X @ W0.T).T @ Z


@wrong("W0 is not transposed")
def frozen_a(X, Y, W0, A):
    Z = X @ A.T
    E = Y - X @ W0
    return E.T @ Z @ np.linalg.inv(Z.T @ Z)


@wrong("one coefficient for each row of A on its own, as if they were orthogonal")
def frozen_a(X, Y, W0, A):
    Z = X @ A.T
    E = Y - X @ W0.T
    return np.stack([E.T @ z / (z @ z) for z in Z.T], axis=1)


@wrong("few steps of gradient descent, not the best")
def frozen_a(X, Y, W0, A):
    Z, E = X @ A.T, Y - X @ W0.T
    B = np.zeros((Y.shape[1], len(A)))
    for _ in range(20):
        B -= 0.01 * (Z @ B.T - E).T @ Z / len(X)
    return B


@wrong("fits the means only, right if all examples are alike")
def frozen_a(X, Y, W0, A):
    z, e = (X @ A.T).mean(axis=0), (Y - X @ W0.T).mean(axis=0)
    return np.outer(e, z) / (z @ z)


@wrong("truncates the least-squares update, right only for white inputs")
def best_update(X, Y, W0, r):
    D = np.linalg.lstsq(X, Y - X @ W0.T, rcond=None)[0].T
    U, s, Vh = np.linalg.svd(D, full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r]


@wrong("forgot W0")
def best_update(X, Y, W0, r):
    Q, R = np.linalg.qr(X)
    U, s, Vh = np.linalg.svd(Y.T @ Q, full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r] @ np.linalg.inv(R).T


@wrong("does not turn back")
def best_update(X, Y, W0, r):
    Q, R = np.linalg.qr(X)
    U, s, Vh = np.linalg.svd((Y - X @ W0.T).T @ Q, full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r]


@wrong("turns back with R in place of its inverse")
def best_update(X, Y, W0, r):
    Q, R = np.linalg.qr(X)
    U, s, Vh = np.linalg.svd((Y - X @ W0.T).T @ Q, full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r] @ R


@wrong("divides each input by its standard deviation: not white if inputs are correlated")
def best_update(X, Y, W0, r):
    std = np.sqrt((X**2).mean(axis=0))
    D = np.linalg.lstsq(X / std, Y - X @ W0.T, rcond=None)[0].T
    U, s, Vh = np.linalg.svd(D, full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r] / std


@wrong("subtracts the mean of the inputs, but the layer has no bias")
def best_update(X, Y, W0, r):
    E = Y - X @ W0.T
    C = np.cov(X.T)
    w, V = np.linalg.eigh(C)
    root, back = V * np.sqrt(w) @ V.T, V / np.sqrt(w) @ V.T
    D = np.linalg.lstsq(X, E, rcond=None)[0].T
    U, s, Vh = np.linalg.svd(D @ root, full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r] @ back


@wrong("the inverse of R is not transposed")
def best_update(X, Y, W0, r):
    Q, R = np.linalg.qr(X)
    U, s, Vh = np.linalg.svd((Y - X @ W0.T).T @ Q, full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r] @ np.linalg.inv(R)


@wrong("whitens with the covariance, not with its root")
def best_update(X, Y, W0, r):
    C = X.T @ X / len(X)
    D = np.linalg.lstsq(X, Y - X @ W0.T, rcond=None)[0].T
    U, s, Vh = np.linalg.svd(D @ C, full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r] @ np.linalg.inv(C)


@wrong("the rank is cut on the inputs, not on the outputs they explain")
def best_update(X, Y, W0, r):
    Vh = np.linalg.svd(X, full_matrices=False)[2][:r]
    B = np.linalg.lstsq(X @ Vh.T, Y - X @ W0.T, rcond=None)[0].T
    return B, Vh


@wrong("divides by the smaller dimension as well")
def chance_similarity(k, i, j):
    return min(i, j) / k


@wrong("forgot that the denominator is min(i, j)")
def chance_similarity(k, i, j):
    return i * j / k


@wrong("the mean of both dimensions")
def chance_similarity(k, i, j):
    return (i + j) / (2 * k)


@wrong("right if i = j only")
def chance_similarity(k, i, j):
    return i / k


@wrong("whole numbers")
def chance_similarity(k, i, j):
    return max(i, j) // k


@wrong("one random draw is not the average")
def chance_similarity(k, i, j):
    rng = np.random.default_rng(0)
    V1 = np.linalg.qr(rng.normal(size=(k, i)))[0]
    V2 = np.linalg.qr(rng.normal(size=(k, j)))[0]
    return np.linalg.norm(V1.T @ V2) ** 2 / min(i, j)


@wrong("random directions that are not orthogonal to each other")
def chance_similarity(k, i, j):
    return 1 - (1 - 1 / k) ** max(i, j)


@wrong("forgot the square")
def similarity(A1, A2, i, j):
    V1, V2 = np.linalg.svd(A1)[2][:i], np.linalg.svd(A2)[2][:j]
    return np.linalg.norm(V1 @ V2.T) / min(i, j)


@wrong("left singular vectors")
def similarity(A1, A2, i, j):
    U1, U2 = np.linalg.svd(A1)[0][:, :i], np.linalg.svd(A2)[0][:, :j]
    return np.linalg.norm(U1.T @ U2) ** 2 / min(i, j)


@wrong("columns of Vh, which is transposed already")
def similarity(A1, A2, i, j):
    V1, V2 = np.linalg.svd(A1)[2][:, :i], np.linalg.svd(A2)[2][:, :j]
    return np.linalg.norm(V1.T @ V2) ** 2 / min(i, j)


@wrong("divides by the larger")
def similarity(A1, A2, i, j):
    V1, V2 = np.linalg.svd(A1)[2][:i], np.linalg.svd(A2)[2][:j]
    return np.sum((V1 @ V2.T) ** 2) / max(i, j)


@wrong("the spectral norm")
def similarity(A1, A2, i, j):
    V1, V2 = np.linalg.svd(A1)[2][:i], np.linalg.svd(A2)[2][:j]
    return np.linalg.norm(V1 @ V2.T, 2) ** 2 / min(i, j)


@wrong("rows of A in place of singular vectors")
def similarity(A1, A2, i, j):
    V1 = A1[:i] / np.linalg.norm(A1[:i], axis=1, keepdims=True)
    V2 = A2[:j] / np.linalg.norm(A2[:j], axis=1, keepdims=True)
    return np.sum((V1 @ V2.T) ** 2) / min(i, j)


@wrong("the same pairs only: vector 1 with 1, 2 with 2")
def similarity(A1, A2, i, j):
    n = min(i, j)
    V1, V2 = np.linalg.svd(A1)[2][:n], np.linalg.svd(A2)[2][:n]
    return np.sum(np.sum(V1 * V2, axis=1) ** 2) / n


@wrong("absolute values in place of squares")
def similarity(A1, A2, i, j):
    V1, V2 = np.linalg.svd(A1)[2][:i], np.linalg.svd(A2)[2][:j]
    return np.abs(V1 @ V2.T).sum() / min(i, j)


@wrong("cosines are squared twice")
def similarity(A1, A2, i, j):
    V1, V2 = np.linalg.svd(A1)[2][:i], np.linalg.svd(A2)[2][:j]
    return np.sum(((V1 @ V2.T) ** 2) ** 2) / min(i, j)


@wrong("upside down")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(dW)
    return np.linalg.norm(U[:, :r].T @ W0 @ Vh[:r].T) / np.linalg.norm(dW)


@wrong("the norm of all of W0")
def amplification(W0, dW, r):
    return np.linalg.norm(dW) / np.linalg.norm(W0)


@wrong("directions of W0 instead of those of the update")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(W0)
    return np.linalg.norm(dW) / np.linalg.norm(U[:, :r].T @ W0 @ Vh[:r].T)


@wrong("forgot to transpose Vh")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(dW)
    return np.linalg.norm(dW) / np.linalg.norm(U[:, :r].T @ W0 @ Vh[:, :r])


@wrong("truncates dW to its top r values: not the whole norm")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(dW, full_matrices=False)
    return np.linalg.norm(s[:r]) / np.linalg.norm(U[:, :r].T @ W0 @ Vh[:r].T)


@wrong("spectral norms")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(dW, full_matrices=False)
    return np.linalg.norm(dW, 2) / np.linalg.norm(U[:, :r].T @ W0 @ Vh[:r].T, 2)


@wrong("projects W0 on one side only")
def amplification(W0, dW, r):
    U = np.linalg.svd(dW, full_matrices=False)[0][:, :r]
    return np.linalg.norm(dW) / np.linalg.norm(U.T @ W0)


@wrong("adds up only the diagonal of U^T W0 V")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(dW, full_matrices=False)
    d = [U[:, i] @ W0 @ Vh[i] for i in range(r)]
    return np.linalg.norm(dW) / np.linalg.norm(d)


@wrong("sums of singular values in place of norms")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(dW, full_matrices=False)
    return s[:r].sum() / np.abs(np.diag(U[:, :r].T @ W0 @ Vh[:r].T)).sum()


@wrong("forgot the absolute value")
def intruders(W0, W, top, threshold):
    U0, U = np.linalg.svd(W0)[0], np.linalg.svd(W)[0]
    return [i for i in range(top) if (U0.T @ U[:, i]).max() < threshold]


@wrong("any, where every is meant")
def intruders(W0, W, top, threshold):
    cos = np.abs(np.linalg.svd(W0)[0].T @ np.linalg.svd(W)[0])
    return [i for i in range(top) if (cos[:, i] < threshold).any()]


@wrong("compares only with the vector of the same number")
def intruders(W0, W, top, threshold):
    U0, U = np.linalg.svd(W0)[0], np.linalg.svd(W)[0]
    return [i for i in range(top) if abs(U0[:, i] @ U[:, i]) < threshold]


@wrong("compares only with the top vectors of W0")
def intruders(W0, W, top, threshold):
    U0, U = np.linalg.svd(W0)[0][:, :top], np.linalg.svd(W)[0][:, :top]
    cos = np.abs(U0.T @ U)
    return np.flatnonzero(cos.max(axis=0) < threshold).tolist()


@wrong("right singular vectors")
def intruders(W0, W, top, threshold):
    cos = np.abs(np.linalg.svd(W)[2][:top] @ np.linalg.svd(W0)[2].T)
    return [i for i in range(top) if np.all(cos[i] < threshold)]


@wrong("the maximum along the wrong axis: finds vectors of W0")
def intruders(W0, W, top, threshold):
    cos = np.abs(np.linalg.svd(W0)[0].T @ np.linalg.svd(W)[0][:, :top])
    return np.where(cos.max(axis=1) < threshold)[0].tolist()


@wrong("counted from 1")
def intruders(W0, W, top, threshold):
    cos = np.abs(np.linalg.svd(W0)[0].T @ np.linalg.svd(W)[0])
    return [i + 1 for i in range(top) if cos[:, i].max() < threshold]


@wrong("leaves out the last left singular vector of W0")
def intruders(W0, W, top, threshold):
    U0 = np.linalg.svd(W0, full_matrices=False)[0][:, :-1]
    U = np.linalg.svd(W, full_matrices=False)[0]
    return [i for i in range(top) if np.all(np.abs(U0.T @ U[:, i]) < threshold)]


@wrong("returns how many")
def intruders(W0, W, top, threshold):
    cos = np.abs(np.linalg.svd(W0)[0].T @ np.linalg.svd(W)[0][:, :top])
    return int(np.sum(cos.max(axis=0) < threshold))


@wrong("the comparison is turned: returns those that are no intruders")
def intruders(W0, W, top, threshold):
    cosines = np.abs(np.linalg.svd(W0)[0].T @ np.linalg.svd(W)[0][:, :top])
    return [i for i in range(top) if cosines[:, i].max() > threshold]


@wrong("all of W's vectors, not just the top ones")
def intruders(W0, W, top, threshold):
    cosines = np.abs(np.linalg.svd(W0)[0].T @ np.linalg.svd(W)[0])
    return np.flatnonzero(cosines.max(axis=0) < threshold).tolist()


@wrong("not transposed")
def matmul_gradients(g, a, b):
    return g @ b, a @ g


@wrong("wrong order of the factors")
def matmul_gradients(g, a, b):
    return b.T @ g, g @ a.T


@wrong("entry by entry, as for numbers")
def matmul_gradients(g, a, b):
    return g * b, g * a


@wrong("g is forgotten")
def matmul_gradients(g, a, b):
    one = np.ones((a.shape[0], b.shape[1]))
    return one @ b.T, a.T @ one


@wrong("returned in the wrong order")
def matmul_gradients(g, a, b):
    return a.T @ g, g @ b.T


@wrong("the gradient of b comes out transposed")
def matmul_gradients(g, a, b):
    return g @ b.T, g.T @ a


@wrong("averages over the rows of the batch")
def matmul_gradients(g, a, b):
    return g @ b.T, a.T @ g / len(a)


@wrong("forgot the second part of the product rule")
def swish_gradient(g, x):
    s = 1 / (1 + np.exp(-x))
    return g * x * s * (1 - s)


@wrong("only the sigmoid")
def swish_gradient(g, x):
    return g / (1 + np.exp(-x))


@wrong("forgot g")
def swish_gradient(g, x):
    s = 1 / (1 + np.exp(-x))
    return s + x * s * (1 - s)


@wrong("overflows for x below about -700: e^1000 / e^1000")
def swish_gradient(g, x):
    e = np.exp(-x)
    return g * (1 + e + x * e) / (1 + e) ** 2


@wrong("the sign in the exponent")
def swish_gradient(g, x):
    s = 1 / (1 + np.exp(x))
    return g * (s + x * s * (1 - s))


@wrong("squares the sigmoid once too often")
def swish_gradient(g, x):
    s = 1 / (1 + np.exp(-x))
    return g * s * (1 + x - x * s * s)


@wrong("treats swish as ReLU away from zero")
def swish_gradient(g, x):
    s = 1 / (1 + np.exp(-x))
    d = s + x * s * (1 - s)
    return g * np.where(x > 3, 1.0, np.where(x < -3, 0.0, d))


@wrong("clips the slope to 0 ... 1, but it goes a little beyond both")
def swish_gradient(g, x):
    s = 1 / (1 + np.exp(-x))
    return g * np.clip(s + x * s * (1 - s), 0, 1)


@wrong("")
def swish_gradient(x, g):
    s = 1 / (1 + np.exp(-x))
    return g * (s + x * s * (1 - s))


@wrong("one-sided difference")
def slope(f, x):
    out = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        y = np.array(x, float)
        y[i] += 1e-3
        out[i] = (f(y) - f(x)) / 1e-3
    return out


@wrong("divides by h, not by 2 h")
def slope(f, x):
    x = np.array(x, float)
    out = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        h = np.zeros_like(x)
        h[i] = 1e-4
        out[i] = (f(x + h) - f(x - h)) / 1e-4
    return out


@wrong("changes x and does not put it back")
def slope(f, x):
    out = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        x[i] += 1e-4
        up = f(x)
        x[i] -= 2e-4
        out[i] = (up - f(x)) / 2e-4
    return out


@wrong("moves all entries at once")
def slope(f, x):
    h = 1e-5
    return (f(x + h) - f(x - h)) / (2 * h) * np.ones(x.shape)


@wrong("right for vectors only")
def slope(f, x):
    out = np.zeros(len(x))
    for i in range(len(x)):
        e = np.zeros(len(x))
        e[i] = 1e-5
        out[i] = (f(x + e) - f(x - e)) / 2e-5
    return out


@wrong("the step is so small that rounding is all that is left")
def slope(f, x):
    out = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        e = np.zeros(x.shape)
        e[i] = 1e-14
        out[i] = (f(x + e) - f(x - e)) / 2e-14
    return out


@wrong("keeps float32, which is too coarse")
def slope(f, x):
    x = np.asarray(x, np.float32)
    out = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        e = np.zeros_like(x)
        e[i] = 1e-5
        out[i] = (f(x + e) - f(x - e)) / 2e-5
    return out


@wrong("the step is rounded away where x holds whole numbers")
def slope(f, x):
    out = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += 1e-4
        down[i] -= 1e-4
        out[i] = (f(up) - f(down)) / 2e-4
    return out


@wrong("gives f one entry in place of the whole array")
def slope(f, x):
    h = 1e-6
    return np.array([(f(v + h) - f(v - h)) / (2 * h) for v in x])


@wrong("a number by hand: the gradient of the sum of squares")
def slope(f, x):
    return 2 * x


@wrong("sums only over added axes")
def unbroadcast(g, shape):
    while g.ndim > len(shape):
        g = g.sum(axis=0)
    return g


@wrong("the mean, not the sum")
def unbroadcast(g, shape):
    while g.ndim > len(shape):
        g = g.mean(axis=0)
    for i, n in enumerate(shape):
        if n == 1:
            g = g.mean(axis=i, keepdims=True)
    return g


@wrong("the stretched axes disappear")
def unbroadcast(g, shape):
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    return g.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1))


@wrong("takes one copy")
def unbroadcast(g, shape):
    g = g[(0,) * (g.ndim - len(shape))]
    return g[tuple(slice(0, n) for n in shape)]


@wrong("sums from the back")
def unbroadcast(g, shape):
    while g.ndim > len(shape):
        g = g.sum(axis=-1)
    for i, n in enumerate(shape):
        if n == 1:
            g = g.sum(axis=i, keepdims=True)
    return g


@wrong("at most one axis may have been added")
def unbroadcast(g, shape):
    if g.ndim > len(shape):
        g = g.sum(axis=0)
    for i, n in enumerate(shape):
        if n == 1 and g.shape[i] > 1:
            g = g.sum(axis=i, keepdims=True)
    return g


@wrong("only the first stretched axis")
def unbroadcast(g, shape):
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    if 1 in shape:
        g = g.sum(axis=shape.index(1), keepdims=True)
    return g


@wrong("reshapes to fit, and adds up the wrong entries")
def unbroadcast(g, shape):
    n = int(np.prod(shape))
    return g.reshape(n, -1).sum(axis=1).reshape(shape)


@wrong("broadcasts once more instead of adding up")
def unbroadcast(g, shape):
    return np.broadcast_to(g, shape)


@wrong("only the last path is kept")
def backward(parents, slopes):
    grad = [0.0] * len(parents)
    grad[-1] = 1.0
    for i in reversed(range(len(parents))):
        for p, s in zip(parents[i], slopes[i]):
            grad[p] = grad[i] * s
    return grad


@wrong("goes forward")
def backward(parents, slopes):
    grad = [0.0] * len(parents)
    grad[-1] = 1.0
    for i in range(len(parents)):
        for p, s in zip(parents[i], slopes[i]):
            grad[p] += grad[i] * s
    return grad


@wrong("forgot to start with 1")
def backward(parents, slopes):
    grad = [0.0] * len(parents)
    for i in range(len(parents) - 1, -1, -1):
        for p, s in zip(parents[i], slopes[i]):
            grad[p] += grad[i] * s
    return grad


@wrong("adds slopes, not products along the path")
def backward(parents, slopes):
    grad = [0.0] * len(parents)
    grad[-1] = 1.0
    for i in reversed(range(len(parents))):
        for p, s in zip(parents[i], slopes[i]):
            grad[p] += s
    return grad


@wrong("a dict keeps one of two uses, as in x times x")
def backward(parents, slopes):
    n = len(parents)
    grad = [0.0] * n
    grad[n - 1] = 1.0
    for i in reversed(range(n)):
        for p, s in dict(zip(parents[i], slopes[i])).items():
            grad[p] += grad[i] * s
    return grad


@wrong("follows every path: takes for ever when each number is used twice")
def backward(parents, slopes):
    grad = [0.0] * len(parents)

    def visit(i, g):
        grad[i] += g
        for p, s in zip(parents[i], slopes[i]):
            visit(p, g * s)

    visit(len(parents) - 1, 1.0)
    return grad


@wrong("stops at the direct parents of the last number")
def backward(parents, slopes):
    grad = [0.0] * len(parents)
    grad[-1] = 1.0
    for p, s in zip(parents[-1], slopes[-1]):
        grad[p] += s
    return grad


@wrong("ends before the first two numbers")
def backward(parents, slopes):
    n = len(parents)
    grad = np.zeros(n)
    grad[-1] = 1
    for i in range(n - 1, 1, -1):
        for p, s in zip(parents[i], slopes[i]):
            grad[p] += s * grad[i]
    return list(grad)


@wrong("starts at the first number")
def backward(parents, slopes):
    grad = [0.0] * len(parents)
    grad[0] = 1.0
    for i in range(len(parents)):
        for p, s in zip(parents[i], slopes[i]):
            grad[i] += s * grad[p]
    return grad


@wrong("takes the slope of the first parent for all")
def backward(parents, slopes):
    grad = [0.0] * len(parents)
    grad[-1] = 1.0
    for i in reversed(range(len(parents))):
        for p in parents[i]:
            grad[p] += grad[i] * slopes[i][0]
    return grad


@wrong("upside down")
def alpha_for_rank(alpha, r, r_new, rule):
    if rule == "lora":
        return alpha * r / r_new
    return alpha * (r / r_new) ** 0.5


@wrong("the same for both rules")
def alpha_for_rank(alpha, r, r_new, rule):
    return alpha * r_new / r


@wrong("returns the scale")
def alpha_for_rank(alpha, r, r_new, rule):
    return alpha / r if rule == "lora" else alpha / np.sqrt(r)


@wrong("squares for rslora")
def alpha_for_rank(alpha, r, r_new, rule):
    p = {"lora": 1, "rslora": 2}[rule]
    return alpha * (r_new / r) ** p


@wrong("whole numbers")
def alpha_for_rank(alpha, r, r_new, rule):
    ratio = r_new // r
    return alpha * ratio if rule == "lora" else alpha * ratio**0.5


@wrong("compares the rule with a name of the wrong case, so lora is never met")
def alpha_for_rank(alpha, r, r_new, rule):
    if rule == "LoRA":
        return alpha / r * r_new
    return alpha / np.sqrt(r) * np.sqrt(r_new)


@wrong("changes between the rules as well")
def alpha_for_rank(alpha, r, r_new, rule):
    if rule == "rslora":
        return alpha / r * np.sqrt(r_new)
    return alpha / r * r_new


@wrong("upside down")
def one_alpha(B, own, alpha):
    return B * alpha / own


@wrong("takes r into account, which cancels")
def one_alpha(B, own, alpha):
    return B * own / (alpha * B.shape[1])


@wrong("shares the factor between B and A")
def one_alpha(B, own, alpha):
    return B * np.sqrt(own / alpha)


@wrong("changes B in place")
def one_alpha(B, own, alpha):
    B *= own / alpha
    return B


@wrong("subtracts")
def one_alpha(B, own, alpha):
    return B - (alpha - own)


@wrong("whole-number division")
def one_alpha(B, own, alpha):
    return B * own // alpha


@wrong("does nothing when the program's alpha is the smaller one")
def one_alpha(B, own, alpha):
    return B * min(1.0, own / alpha)


@wrong("rounds the ratio to one digit")
def one_alpha(B, own, alpha):
    return B * round(own / alpha, 1)


@wrong("divides by the largest entry, not by the largest magnitude")
def nearest_levels(w, levels):
    scale = w.max()
    return np.abs(w[:, None] / scale - levels).argmin(axis=1), scale


@wrong("rounds down to the level below")
def nearest_levels(w, levels):
    scale = np.abs(w).max()
    if scale == 0:
        return np.full(len(w), int(np.argmin(np.abs(levels)))), 0.0
    return np.searchsorted(levels, w / scale, side="right") - 1, scale


@wrong("the level above, as searchsorted gives it")
def nearest_levels(w, levels):
    scale = np.max(np.abs(w))
    return np.searchsorted(levels, w / (scale or 1)), scale


@wrong("forgot the scale")
def nearest_levels(w, levels):
    return np.abs(w[:, None] - levels).argmin(axis=1), np.abs(w).max()


@wrong("takes the levels as evenly spaced")
def nearest_levels(w, levels):
    scale = np.abs(w).max()
    u = w / scale if scale else w
    return np.rint((u + 1) / 2 * (len(levels) - 1)).astype(int), scale


@wrong("returns the levels, not their indices")
def nearest_levels(w, levels):
    scale = np.abs(w).max()
    u = w / scale if scale > 0 else w
    return levels[np.argmin(np.abs(u[:, None] - levels), axis=1)], scale


@wrong("the scale of a zero block is 1")
def nearest_levels(w, levels):
    scale = np.abs(w).max()
    if scale == 0:
        scale = 1.0
    return np.argmin(np.abs(w[:, None] / scale - levels), axis=1), scale


@wrong("the index of the nearest entry for each level")
def nearest_levels(w, levels):
    scale = np.abs(w).max() or 1.0
    return np.argmin(np.abs(w[:, None] / scale - levels), axis=0), scale


@wrong("negative entries are quantised by their magnitude")
def nearest_levels(w, levels):
    scale = np.abs(w).max()
    u = np.abs(w) / (scale or 1)
    return np.abs(u[:, None] - levels).argmin(axis=1), scale


@wrong("takes the distance of the first two levels for all")
def nearest_levels(w, levels):
    scale = np.abs(w).max()
    u = w / scale if scale else w
    i = np.clip(np.searchsorted(levels, u), 0, len(levels) - 1)
    return np.where(levels[i] - u > 0.5 * (levels[1] - levels[0]), i - 1, i), scale


@wrong("forgot the scales")
def read_in_blocks(codes, scales, levels, size):
    return levels[codes]


@wrong("the last block must be full")
def read_in_blocks(codes, scales, levels, size):
    return (levels[codes].reshape(-1, size) * scales[:, None]).ravel()


@wrong("scales take turns")
def read_in_blocks(codes, scales, levels, size):
    return levels[codes] * scales[np.arange(len(codes)) % len(scales)]


@wrong("takes size for the number of blocks")
def read_in_blocks(codes, scales, levels, size):
    per = -(-len(codes) // size)
    return levels[codes] * np.repeat(scales, per)[: len(codes)]


@wrong("the codes are taken as the levels")
def read_in_blocks(codes, scales, levels, size):
    return codes * np.repeat(scales, size)[: len(codes)]


@wrong("leaves out the shorter last block")
def read_in_blocks(codes, scales, levels, size):
    out = []
    for b in range(len(codes) // size):
        out.extend(levels[codes[b * size : (b + 1) * size]] * scales[b])
    return np.array(out)


@wrong("divides by the scale")
def read_in_blocks(codes, scales, levels, size):
    return levels[codes] / scales[np.arange(len(codes)) // size]


@wrong("the block changes one entry too late")
def read_in_blocks(codes, scales, levels, size):
    return levels[codes] * scales[[max(0, (i - 1) // size) for i in range(len(codes))]]


@wrong("forgot to undo alpha / r")
def repair(W, Q, r, alpha):
    U, s, Vh = np.linalg.svd(W - Q, full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r]


@wrong("multiplies by alpha / r instead of dividing")
def repair(W, Q, r, alpha):
    U, s, Vh = np.linalg.svd(W - Q, full_matrices=False)
    return U[:, :r] * s[:r] * alpha / r, Vh[:r]


@wrong("the sign")
def repair(W, Q, r, alpha):
    U, s, Vh = np.linalg.svd(Q - W, full_matrices=False)
    return U[:, :r] * s[:r] * r / alpha, Vh[:r]


@wrong("approximates W, not what is missing")
def repair(W, Q, r, alpha):
    U, s, Vh = np.linalg.svd(W, full_matrices=False)
    return U[:, :r] * s[:r] * r / alpha, Vh[:r]


@wrong("divides both factors")
def repair(W, Q, r, alpha):
    U, s, Vh = np.linalg.svd(W - Q, full_matrices=False)
    return U[:, :r] * s[:r] * r / alpha, Vh[:r] * r / alpha


@wrong("divides by alpha only, right at rank one")
def repair(W, Q, r, alpha):
    U, s, Vh = np.linalg.svd((W - Q) / alpha, full_matrices=False)
    return U[:, :r] @ np.diag(s[:r]), Vh[:r]


@wrong("the largest rank-one part only, whatever r is")
def repair(W, Q, r, alpha):
    U, s, Vh = np.linalg.svd(W - Q, full_matrices=False)
    B, A = np.zeros((len(W), r)), np.zeros((r, W.shape[1]))
    B[:, 0], A[0] = U[:, 0] * s[0] * r / alpha, Vh[0]
    return B, A


@wrong("zero times minus infinity is nan")
def kl_divergence(p, q):
    return np.sum(p * (np.log(p) - np.log(q)))


@wrong("q from p")
def kl_divergence(p, q):
    return np.sum(q * (np.log(q) - np.log(p)))


@wrong("clips at 1e-3, which matters for small probabilities")
def kl_divergence(p, q):
    p, q = np.clip(p, 1e-3, 1), np.clip(q, 1e-3, 1)
    return np.sum(p * np.log(p / q))


@wrong("bits")
def kl_divergence(p, q):
    keep = p > 0
    return np.sum(p[keep] * np.log2(p[keep] / q[keep]))


@wrong("the mean")
def kl_divergence(p, q):
    keep = p > 0
    return np.mean(p[keep] * np.log(p[keep] / q[keep]))


@wrong("cross-entropy: forgot the entropy of p")
def kl_divergence(p, q):
    return -np.sum(p * np.log(q))


@wrong("drops the zeros of p, and lets q add up to 1 again")
def kl_divergence(p, q):
    keep = p > 0
    q = q[keep] / q[keep].sum()
    return np.sum(p[keep] * np.log(p[keep] / q))


@wrong("absolute values, as if each summand were a distance")
def kl_divergence(p, q):
    return sum(abs(a * np.log(a / b)) for a, b in zip(p, q) if a > 0)


@wrong("drops probabilities under a thousandth")
def kl_divergence(p, q):
    keep = p > 1e-3
    return np.sum(p[keep] * (np.log(p[keep]) - np.log(q[keep])))


@wrong("symmetric: the mean of both directions")
def kl_divergence(p, q):
    p = np.maximum(p, 1e-300)
    return 0.5 * np.sum((p - q) * (np.log(p) - np.log(q)))


@wrong("forgot to divide by the square of the length of z")
def prompt_update(W, z, wanted):
    return (W @ (wanted - z))[:, None], z[None]


@wrong("divides by the length, not by its square")
def prompt_update(W, z, wanted):
    return (W @ (wanted - z))[:, None], z[None] / np.linalg.norm(z)


@wrong("forgot to subtract what W gives already")
def prompt_update(W, z, wanted):
    return (W @ wanted)[:, None], z[None] / (z @ z)


@wrong("vectors in place of a column and a row")
def prompt_update(W, z, wanted):
    return W @ (wanted - z), z / (z @ z)


@wrong("the row is a pseudo-inverse of wanted")
def prompt_update(W, z, wanted):
    return (W @ (wanted - z)).reshape(-1, 1), wanted.reshape(1, -1) / (wanted @ z)


@wrong("gives wanted itself, without W: right if W is the identity")
def prompt_update(W, z, wanted):
    return (wanted - W @ z)[:, None], z[None] / (z @ z)


@wrong("uses one entry of z only, so orthogonal inputs change")
def prompt_update(W, z, wanted):
    i = np.argmax(np.abs(z))
    A = np.zeros((1, len(z)))
    A[0, i] = 1 / z[i]
    return (W @ (wanted - z))[:, None], A


@wrong("A sums the entries of the input, right for z of ones")
def prompt_update(W, z, wanted):
    return (W @ (wanted - z))[:, None], np.ones((1, len(z))) / z.sum()


@wrong("forgets that W is there: B A alone gives what is wanted")
def prompt_update(W, z, wanted):
    return (W @ wanted)[:, None] / (z @ z), z[None] * 1.0


@wrong("adds factors: needs equal ranks and is not the sum of the products")
def combine_adapters(adapters, weights):
    B = sum(w * a / A.shape[0] * B for (B, A, a), w in zip(adapters, weights))
    A = sum(A for B, A, a in adapters)
    return B, A


@wrong("roots of the weights, which may be negative")
def combine_adapters(adapters, weights):
    Bs, As = [], []
    for (B, A, alpha), w in zip(adapters, weights):
        c = np.sqrt(w * alpha / len(A))
        Bs.append(c * B)
        As.append(c * A)
    return np.hstack(Bs), np.vstack(As)


@wrong("forgot the division by r")
def combine_adapters(adapters, weights):
    B = np.hstack([w * alpha * B for (B, A, alpha), w in zip(adapters, weights)])
    return B, np.vstack([A for _, A, _ in adapters])


@wrong("weights both factors, so that signs cancel")
def combine_adapters(adapters, weights):
    B = np.hstack([w * alpha / len(A) * B for (B, A, alpha), w in zip(adapters, weights)])
    return B, np.vstack([w * A for (_, A, _), w in zip(adapters, weights)])


@wrong("divides by the rank of all together")
def combine_adapters(adapters, weights):
    R = sum(len(A) for _, A, _ in adapters)
    B = np.hstack([w * alpha / R * B for (B, A, alpha), w in zip(adapters, weights)])
    return B, np.vstack([A for _, A, _ in adapters])


@wrong("computes the d x k matrix")
def combine_adapters(adapters, weights):
    D = sum(w * alpha / len(A) * B @ A for (B, A, alpha), w in zip(adapters, weights))
    R = sum(len(A) for _, A, _ in adapters)
    U, s, Vh = np.linalg.svd(D, full_matrices=False)
    return U[:, :R] * s[:R], Vh[:R]


@wrong("forgot the weights")
def combine_adapters(adapters, weights):
    B = np.concatenate([alpha / B.shape[1] * B for B, A, alpha in adapters], axis=1)
    return B, np.concatenate([A for B, A, alpha in adapters])


@wrong("the weights are shared out so that they add up to 1")
def combine_adapters(adapters, weights):
    t = sum(weights) or 1
    B = np.hstack([w / t * a / len(A) * B for (B, A, a), w in zip(adapters, weights)])
    return B, np.vstack([A for _, A, _ in adapters])


@wrong("takes the alpha of the first for all")
def combine_adapters(adapters, weights):
    alpha = adapters[0][2]
    B = np.hstack([w * alpha / len(A) * B for (B, A, _), w in zip(adapters, weights)])
    return B, np.vstack([A for _, A, _ in adapters])


@wrong("pads the smaller rank with zeros and adds")
def combine_adapters(adapters, weights):
    R = max(len(A) for _, A, _ in adapters)
    B = sum(
        w * a / len(A) * np.pad(B, ((0, 0), (0, R - len(A))))
        for (B, A, a), w in zip(adapters, weights)
    )
    return B, sum(np.pad(A, ((0, R - len(A)), (0, 0))) for _, A, _ in adapters)


@wrong("drops the bits without rounding")
def to_bfloat16(x):
    return (x.view(np.uint32) & 0xFFFF0000).view(np.float32)


@wrong("rounds halfway cases up always")
def to_bfloat16(x):
    bits = x.view(np.uint32) + np.uint32(0x8000)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


@wrong("rounds halfway cases down always")
def to_bfloat16(x):
    bits = x.view(np.uint32) + np.uint32(0x7FFF)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


@wrong("float16 has another split of the bits, and a smaller range")
def to_bfloat16(x):
    return x.astype(np.float16).astype(np.float32)


@wrong("changes x through the view")
def to_bfloat16(x):
    bits = x.view(np.uint32)
    bits += ((bits >> 16) & 1) + np.uint32(0x7FFF)
    bits &= np.uint32(0xFFFF0000)
    return x


@wrong("loses the sign")
def to_bfloat16(x):
    bits = np.abs(x).view(np.uint32)
    bits = bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


@wrong("rounds to eight significant bits by np.round of the mantissa with 7 bits")
def to_bfloat16(x):
    m, e = np.frexp(x)
    return np.ldexp(np.rint(m * 128) / 128, e).astype(np.float32)


@wrong("returns the upper bits as whole numbers")
def to_bfloat16(x):
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


@wrong("even is taken from the dropped bits")
def to_bfloat16(x):
    bits = x.view(np.uint32)
    bits = bits + np.uint32(0x7FFF) + (bits & 1)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


@wrong("one element at a time, right for vectors only")
def to_bfloat16(x):
    out = []
    for v in x:
        b = int(np.float32(v).view(np.uint32))
        b = (b + 0x7FFF + ((b >> 16) & 1)) & 0xFFFF0000
        out.append(np.uint32(b).view(np.float32))
    return np.array(out)


@wrong("rounds to eight decimal digits")
def to_bfloat16(x):
    return np.round(x, 8).astype(np.float32)


@wrong("numbers below one are rounded to multiples of 1/128, as if their exponent were 0")
def to_bfloat16(x):
    e = np.maximum(np.floor(np.log2(np.abs(x) + 1e-45)), 0)
    unit = 2.0 ** (e - 7)
    return (np.rint(x / unit) * unit).astype(np.float32)


@wrong("upside down")
def share_recovered(base, full, lora):
    return (base - full) / (base - lora)


@wrong("the ratio of the errors")
def share_recovered(base, full, lora):
    return full / lora


@wrong("what is left, not what is gained")
def share_recovered(base, full, lora):
    return (lora - full) / (base - full)


@wrong("clipped to 0 ... 1")
def share_recovered(base, full, lora):
    return min(1, max(0, (base - lora) / (base - full)))


@wrong("divides by the base")
def share_recovered(base, full, lora):
    return (base - lora) / base


@wrong("per cent")
def share_recovered(base, full, lora):
    return 100 * (base - lora) / (base - full)


@wrong("rounds to two digits")
def share_recovered(base, full, lora):
    return round((base - lora) / (base - full), 2)


@wrong("compares LoRA with full fine-tuning only")
def share_recovered(base, full, lora):
    return 1 - (lora - full) / full


@wrong("forgot the gradient for the layer before")
def step_multiplications(d, k, r):
    return 2 * d * k if r == 0 else d * k + 2 * r * (d + k)


@wrong("LoRA still computes the gradient of W0")
def step_multiplications(d, k, r):
    return 3 * d * k + 3 * r * (d + k)


@wrong("only the LoRA's own products")
def step_multiplications(d, k, r):
    return 3 * d * k if r == 0 else 3 * r * (d + k)


@wrong("the way back does not pass through W0")
def step_multiplications(d, k, r):
    if r == 0:
        return 3 * d * k
    return d * k + 3 * r * (d + k)


@wrong("forgot the case of r = 0")
def step_multiplications(d, k, r):
    return 2 * d * k + 3 * r * (d + k)


@wrong("forward only")
def step_multiplications(d, k, r):
    return d * k + r * (d + k)


@wrong("forms B A first")
def step_multiplications(d, k, r):
    return 3 * d * k if r == 0 else 2 * d * k + 3 * d * k * r


@wrong("right at rank one only: one of the products is counted without r")
def step_multiplications(d, k, r):
    return 3 * d * k if not r else 2 * (d * k + (r + 1) * (d + k)) - (d + k)


@wrong("counts additions as well")
def step_multiplications(d, k, r):
    return 2 * (3 * d * k if r == 0 else 2 * d * k + 3 * r * (d + k))


@wrong("overflows")
def cross_entropy(logits, labels):
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return -np.mean(np.log(p[np.arange(len(labels)), labels]))


@wrong("the logarithm of a probability that has become 0")
def cross_entropy(logits, labels):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    return -np.log(p[np.arange(len(labels)), labels]).mean()


@wrong("clips the probability, so a loss never exceeds 27.6")
def cross_entropy(logits, labels):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    return -np.log(np.clip(p[range(len(labels)), labels], 1e-12, 1)).mean()


@wrong("sums over the batch")
def cross_entropy(logits, labels):
    z = logits - logits.max(axis=1, keepdims=True)
    logp = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return -logp[np.arange(len(labels)), labels].sum()


@wrong("picks columns, not one entry for each row")
def cross_entropy(logits, labels):
    z = logits - logits.max(axis=1, keepdims=True)
    logp = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return -logp[:, labels].mean()


@wrong("softmax over the batch")
def cross_entropy(logits, labels):
    z = logits - logits.max(axis=0)
    logp = z - np.log(np.exp(z).sum(axis=0))
    return -logp[np.arange(len(labels)), labels].mean()


@wrong("subtracts the maximum of the whole batch: a row far below it underflows")
def cross_entropy(logits, labels):
    z = logits - logits.max()
    logp = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return -logp[np.arange(len(labels)), labels].mean()


@wrong("bits, not nats")
def cross_entropy(logits, labels):
    z = logits - logits.max(axis=1, keepdims=True)
    logp = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return -logp[np.arange(len(labels)), labels].mean() / np.log(2)


@wrong("the sign")
def cross_entropy(logits, labels):
    z = logits - logits.max(axis=1, keepdims=True)
    logp = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return np.mean([row[c] for row, c in zip(logp, labels)])


@wrong("logarithm of the mean probability")
def cross_entropy(logits, labels):
    z = logits - logits.max(axis=1, keepdims=True)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    return -np.log(np.mean(p[np.arange(len(labels)), labels]))


@wrong("adds a small number inside of the logarithm")
def cross_entropy(logits, labels):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    return -np.mean(np.log(p[np.arange(len(labels)), labels] + 1e-3))


@wrong("clips the logits at 100")
def cross_entropy(logits, labels):
    z = np.clip(logits, -100, 100)
    logp = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return -logp[np.arange(len(labels)), labels].mean()


@wrong("the classes are counted from 1")
def cross_entropy(logits, labels):
    z = logits - logits.max(axis=1, keepdims=True)
    logp = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return -logp[np.arange(len(labels)), labels - 1].mean()


@wrong("rows of X must be orthonormal")
def forget_nothing(A, X):
    return A - A @ X.T @ X


@wrong("inverts X X^T, which fails when rows depend on each other")
def forget_nothing(A, X):
    return A - A @ X.T @ np.linalg.inv(X @ X.T) @ X


@wrong("keeps only what X sees")
def forget_nothing(A, X):
    return A @ np.linalg.pinv(X) @ X


@wrong("removes one row after the other, as if they were orthogonal")
def forget_nothing(A, X):
    A = A.copy()
    for x in X:
        A = A - np.outer(A @ x, x) / (x @ x)
    return A


@wrong("projects the rows of A on orthonormal columns, not rows")
def forget_nothing(A, X):
    Q = np.linalg.qr(X)[0]
    return A - Q @ Q.T @ A


@wrong("QR of a deficient X.T keeps directions that X does not have")
def forget_nothing(A, X):
    Q = np.linalg.qr(X.T)[0]
    return A - A @ Q @ Q.T


@wrong("zero outputs, but also for every other input")
def forget_nothing(A, X):
    return np.zeros_like(A)


@wrong("a small ridge, so that the output is small, not exactly zero")
def forget_nothing(A, X):
    G = X @ X.T + 0.01 * np.eye(len(X))
    return A - A @ X.T @ np.linalg.solve(G, X)


@wrong("all right singular vectors, also those of singular value zero")
def forget_nothing(A, X):
    V = np.linalg.svd(X, full_matrices=False)[2]
    return A - A @ V.T @ V


@wrong("only the mean of the inputs is forgotten")
def forget_nothing(A, X):
    m = X.mean(axis=0)
    return A - np.outer(A @ m, m) / (m @ m)


@wrong("sets to zero the columns of A where any row of X is not zero")
def forget_nothing(A, X):
    A = A.copy()
    A[:, np.any(X != 0, axis=0)] = 0
    return A


@wrong("takes the rows of X as independent")
def forget_nothing(A, X):
    Vh = np.linalg.svd(X)[2]
    N = Vh[len(X) :]
    return A @ N.T @ N


@wrong("forgot to undo alpha / r in the factors")
def pissa_start(W0, r, alpha):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    B, A = U[:, :r] * np.sqrt(s[:r]), np.sqrt(s[:r])[:, None] * Vh[:r]
    return W0 - B @ A, B, A


@wrong("subtracts B A without alpha / r: together they are not W0")
def pissa_start(W0, r, alpha):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    c = np.sqrt(s[:r] * r / alpha)
    B, A = U[:, :r] * c, c[:, None] * Vh[:r]
    return W0 - B @ A, B, A


@wrong("all of r / alpha in B: not balanced")
def pissa_start(W0, r, alpha):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    c = np.sqrt(s[:r])
    B, A = U[:, :r] * c * r / alpha, c[:, None] * Vh[:r]
    return W0 - alpha / r * B @ A, B, A


@wrong("leaves W0 as it is")
def pissa_start(W0, r, alpha):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    c = np.sqrt(s[:r] * r / alpha)
    return W0, U[:, :r] * c, c[:, None] * Vh[:r]


@wrong("the weakest directions")
def pissa_start(W0, r, alpha):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    c = np.sqrt(s[-r:] * r / alpha)
    B, A = U[:, -r:] * c, c[:, None] * Vh[-r:]
    return W0 - alpha / r * B @ A, B, A


@wrong("returned in the order W, A, B")
def pissa_start(W0, r, alpha):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    c = np.sqrt(s[:r] * r / alpha)
    B, A = U[:, :r] * c, c[:, None] * Vh[:r]
    return W0 - alpha / r * B @ A, A, B


@wrong("root of alpha only, right at rank one")
def pissa_start(W0, r, alpha):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    c = np.sqrt(s[:r] / alpha)
    B, A = U[:, :r] * c, c[:, None] * Vh[:r]
    return W0 - alpha * B @ A, B, A


@wrong("the best approximation of rank 1")
def pissa_start(W0, r, alpha):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    s = s * r / alpha
    B, A = np.zeros((len(W0), r)), np.zeros((r, W0.shape[1]))
    B[:, 0], A[0] = U[:, 0] * s[0] ** 0.5, Vh[0] * s[0] ** 0.5
    return W0 - alpha / r * B @ A, B, A


@wrong("rows of Q")
def olora_start(W0, r):
    Q, R = np.linalg.qr(W0)
    B, A = Q[:r].T, R[:r]
    return W0 - B @ A, B, A


@wrong("leaves W0 as it is")
def olora_start(W0, r):
    Q, R = np.linalg.qr(W0)
    return W0, Q[:, :r], R[:r]


@wrong("the SVD instead of QR")
def olora_start(W0, r):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    B, A = U[:, :r], s[:r, None] * Vh[:r]
    return W0 - B @ A, B, A


@wrong("the last columns and rows")
def olora_start(W0, r):
    Q, R = np.linalg.qr(W0)
    B, A = Q[:, -r:], R[-r:]
    return W0 - B @ A, B, A


@wrong("QR of the transpose")
def olora_start(W0, r):
    Q, R = np.linalg.qr(W0.T)
    B, A = R.T[:, :r], Q.T[:r]
    return W0 - B @ A, B, A


@wrong("the upper left corner of R")
def olora_start(W0, r):
    Q, R = np.linalg.qr(W0)
    B, A = Q[:, :r], np.zeros((r, W0.shape[1]))
    A[:, :r] = R[:r, :r]
    return W0 - B @ A, B, A


@wrong("returns B first")
def olora_start(W0, r):
    Q, R = np.linalg.qr(W0)
    B, A = Q[:, :r], R[:r]
    return B, A, W0 - B @ A


@wrong("columns of W0 that are only normalised")
def olora_start(W0, r):
    B = W0[:, :r] / np.linalg.norm(W0[:, :r], axis=0)
    A = np.linalg.pinv(B) @ W0
    return W0 - B @ A, B, A


@wrong("lengths of columns")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha / len(A) * B @ A
    return m[:, None] * V / np.linalg.norm(V, axis=0)


@wrong("the lengths of W0, not of V")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha / len(A) * B @ A
    return m[:, None] * V / np.linalg.norm(W0, axis=1, keepdims=True)


@wrong("forgot alpha / r")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + B @ A
    return m[:, None] * V / np.linalg.norm(V, axis=1, keepdims=True)


@wrong("m multiplies columns")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha / len(A) * B @ A
    return m * (V / np.linalg.norm(V, axis=1, keepdims=True))


@wrong("divides by the norm of the whole matrix")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha / len(A) * B @ A
    return m[:, None] * V / np.linalg.norm(V)


@wrong("forgot to normalise")
def dora_weight(W0, A, B, m, alpha):
    return np.diag(m) @ (W0 + alpha / len(A) * B @ A)


@wrong("only the update is normalised")
def dora_weight(W0, A, B, m, alpha):
    D = alpha / A.shape[0] * B @ A
    return W0 + m[:, None] * D / np.linalg.norm(D, axis=1, keepdims=True)


@wrong("the sum of the magnitudes for the length")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha / A.shape[0] * B @ A
    return m[:, None] * V / np.abs(V).sum(axis=1, keepdims=True)


@wrong("m is added, not multiplied")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha / len(A) * B @ A
    return m[:, None] + V / np.linalg.norm(V, axis=1, keepdims=True)


@wrong("nats, not bits")
def bits_per_parameter(losses, classes, d, k, r):
    return np.sum(np.log(classes) - losses) / (r * (d + k))


@wrong("a loss above chance counts as zero")
def bits_per_parameter(losses, classes, d, k, r):
    bits = np.maximum(0, np.log(classes) - losses) / np.log(2)
    return bits.sum() / (r * (d + k))


@wrong("the mean over labels, not the sum")
def bits_per_parameter(losses, classes, d, k, r):
    return np.mean(np.log2(classes) - losses / np.log(2)) / (r * (d + k))


@wrong("parameters of the full matrix")
def bits_per_parameter(losses, classes, d, k, r):
    return np.sum(np.log2(classes) - losses / np.log(2)) / (d * k)


@wrong("converts only one of the two to bits")
def bits_per_parameter(losses, classes, d, k, r):
    return np.sum(np.log2(classes) - losses) / (r * (d + k))


@wrong("what is left, not what is held")
def bits_per_parameter(losses, classes, d, k, r):
    return np.sum(losses) / np.log(2) / (r * (d + k))


@wrong("subtracts chance once, not for each label")
def bits_per_parameter(losses, classes, d, k, r):
    return (np.log(classes) - np.sum(losses)) / np.log(2) / (r * (d + k))


@wrong("counts right labels as known, all others as unknown")
def bits_per_parameter(losses, classes, d, k, r):
    known = np.sum(losses < np.log(2))
    return known * np.log2(classes) / (r * (d + k))


@wrong("takes the classes for bits")
def bits_per_parameter(losses, classes, d, k, r):
    return np.sum(classes - np.asarray(losses) / np.log(2)) / (r * (d + k))


@wrong("bits per label, not per parameter")
def bits_per_parameter(losses, classes, d, k, r):
    return np.mean(np.log2(classes) - np.asarray(losses) / np.log(2))


@wrong("rounds down")
def rank_for_bits(bits, shapes, per_parameter):
    return int(bits / per_parameter) // sum(d + k for d, k in shapes)


@wrong("always one more")
def rank_for_bits(bits, shapes, per_parameter):
    return int(bits // (per_parameter * sum(d + k for d, k in shapes))) + 1


@wrong("rounds to the nearest")
def rank_for_bits(bits, shapes, per_parameter):
    return round(bits / (per_parameter * sum(d + k for d, k in shapes)))


@wrong("d k parameters")
def rank_for_bits(bits, shapes, per_parameter):
    return int(np.ceil(bits / (per_parameter * sum(d * k for d, k in shapes))))


@wrong("never more than a matrix allows")
def rank_for_bits(bits, shapes, per_parameter):
    r = int(np.ceil(bits / (per_parameter * sum(d + k for d, k in shapes))))
    return min(r, min(min(s) for s in shapes))


@wrong("only the first matrix")
def rank_for_bits(bits, shapes, per_parameter):
    d, k = shapes[0]
    return int(np.ceil(bits / per_parameter / (d + k)))


@wrong("at least rank 1")
def rank_for_bits(bits, shapes, per_parameter):
    return max(1, int(np.ceil(bits / (per_parameter * sum(map(sum, shapes))))))


@wrong("bits divided by the parameters of each matrix, and added up")
def rank_for_bits(bits, shapes, per_parameter):
    return int(sum(np.ceil(bits / (per_parameter * (d + k)) / len(shapes)) for d, k in shapes))


@wrong("multiplies by the bits per parameter")
def rank_for_bits(bits, shapes, per_parameter):
    return int(np.ceil(bits * per_parameter / sum(d + k for d, k in shapes)))


@wrong("a margin for safety, so that an exact fit takes a rank more")
def rank_for_bits(bits, shapes, per_parameter):
    return int(np.ceil(bits / (per_parameter * sum(d + k for d, k in shapes)) + 1e-3))


@wrong("the largest shape only")
def rank_for_bits(bits, shapes, per_parameter):
    return int(-(-bits // (per_parameter * max(d + k for d, k in shapes))))


@wrong("ddof is 0 by default")
def smallest_good_rank(ranks, losses):
    mean = losses.mean(axis=1)
    best = mean.argmin()
    limit = mean[best] + losses[best].std() / np.sqrt(losses.shape[1])
    return min(r for r, m in zip(ranks, mean) if m <= limit)


@wrong("a standard deviation, not a standard error")
def smallest_good_rank(ranks, losses):
    mean = losses.mean(axis=1)
    best = mean.argmin()
    limit = mean[best] + losses[best].std(ddof=1)
    return min(r for r, m in zip(ranks, mean) if m <= limit)


@wrong("the first in the list, not the smallest")
def smallest_good_rank(ranks, losses):
    mean = losses.mean(axis=1)
    best = mean.argmin()
    limit = mean[best] + losses[best].std(ddof=1) / np.sqrt(losses.shape[1])
    return ranks[int(np.argmax(mean <= limit))]


@wrong("the best rank")
def smallest_good_rank(ranks, losses):
    return ranks[losses.mean(axis=1).argmin()]


@wrong("returns the index")
def smallest_good_rank(ranks, losses):
    mean = losses.mean(axis=1)
    best = mean.argmin()
    limit = mean[best] + losses[best].std(ddof=1) / np.sqrt(losses.shape[1])
    return int(np.flatnonzero(mean <= limit)[0])


@wrong("less than the limit, which the best itself does not meet if its seeds agree")
def smallest_good_rank(ranks, losses):
    mean = losses.mean(axis=1)
    best = mean.argmin()
    limit = mean[best] + losses[best].std(ddof=1) / np.sqrt(losses.shape[1])
    return min(r for r, m in zip(ranks, mean) if m < limit)


@wrong("each rank's own standard error")
def smallest_good_rank(ranks, losses):
    mean = losses.mean(axis=1)
    se = losses.std(axis=1, ddof=1) / np.sqrt(losses.shape[1])
    return min(r for r, m, e in zip(ranks, mean, se) if m - e <= mean.min())


@wrong("statistics over ranks instead of seeds")
def smallest_good_rank(ranks, losses):
    mean = losses.mean(axis=1)
    se = mean.std(ddof=1) / np.sqrt(len(mean))
    return min(r for r, m in zip(ranks, mean) if m <= mean.min() + se)


@wrong("the root of the number of ranks")
def smallest_good_rank(ranks, losses):
    mean = losses.mean(axis=1)
    best = mean.argmin()
    limit = mean[best] + losses[best].std(ddof=1) / np.sqrt(len(ranks))
    return min(r for r, m in zip(ranks, mean) if m <= limit)


@wrong("the smallest rank with a single seed below the limit")
def smallest_good_rank(ranks, losses):
    mean = losses.mean(axis=1)
    best = mean.argmin()
    limit = mean[best] + losses[best].std(ddof=1) / np.sqrt(losses.shape[1])
    return min(r for r, row in zip(ranks, losses) if row.min() <= limit)


@wrong("the smallest rank whose best seed equals the best loss of all")
def smallest_good_rank(ranks, losses):
    best = losses.min()
    return min(r for r, row in zip(ranks, losses) if row.min() <= best + losses.std(ddof=1))


@wrong("takes ranks as sorted: the limit is that of the last row")
def smallest_good_rank(ranks, losses):
    mean = losses.mean(axis=1)
    limit = mean.min() + losses[-1].std(ddof=1) / np.sqrt(losses.shape[1])
    return min(r for r, m in zip(ranks, mean) if m <= limit)


@wrong("chooses the rate on the test text")
def fair_shares(base, validation, test):
    best = test.mean(axis=2).min(axis=1)
    return (base - best) / (base - best[0])


@wrong("one learning rate for all: that of the full update")
def fair_shares(base, validation, test):
    loss = test[:, validation[0].argmin()].mean(axis=1)
    return (base - loss) / (base - loss[0])


@wrong("the last rate that is best")
def fair_shares(base, validation, test):
    i = validation.shape[1] - 1 - validation[:, ::-1].argmin(axis=1)
    loss = test[np.arange(len(test)), i].mean(axis=1)
    return (base - loss) / (base - loss[0])


@wrong("gains on the validation text")
def fair_shares(base, validation, test):
    best = validation.min(axis=1)
    return (base - best) / (base - best[0])


@wrong("the best seed, not the mean")
def fair_shares(base, validation, test):
    i = validation.argmin(axis=1)
    loss = test[np.arange(len(test)), i].min(axis=1)
    return (base - loss) / (base - loss[0])


@wrong("one rate for all: the best on average")
def fair_shares(base, validation, test):
    loss = test[:, validation.mean(axis=0).argmin()].mean(axis=1)
    return (base - loss) / (base - loss[0])


@wrong("mean over all rates")
def fair_shares(base, validation, test):
    loss = test.mean(axis=(1, 2))
    return (base - loss) / (base - loss[0])


@wrong("losses, not gains")
def fair_shares(base, validation, test):
    loss = test[np.arange(len(test)), validation.argmin(axis=1)].mean(axis=1)
    return loss[0] / loss


@wrong("clipped to at most 1")
def fair_shares(base, validation, test):
    loss = test[np.arange(len(test)), validation.argmin(axis=1)].mean(axis=1)
    return np.minimum(1, (base - loss) / (base - loss[0]))


@wrong("the median of the seeds, the mean only for two")
def fair_shares(base, validation, test):
    loss = np.median(test[np.arange(len(test)), validation.argmin(axis=1)], axis=1)
    return (base - loss) / (base - loss[0])


@wrong("leaves out the full update")
def fair_shares(base, validation, test):
    loss = test[np.arange(len(test)), validation.argmin(axis=1)].mean(axis=1)
    return (base - loss[1:]) / (base - loss[0])


@wrong("divides by the largest gain, which need not be the full update's")
def fair_shares(base, validation, test):
    loss = test[np.arange(len(test)), validation.argmin(axis=1)].mean(axis=1)
    gain = base - loss
    return gain / gain.max()


@wrong("the gain is the drop in per cent of each method's own loss")
def fair_shares(base, validation, test):
    loss = test[np.arange(len(test)), validation.argmin(axis=1)].mean(axis=1)
    gain = (base - loss) / loss
    return gain / gain[0]


@wrong("raises, as argmin along axis 0 gives one index for each rate")
def fair_shares(base, validation, test):
    best = validation.argmin(axis=0)
    loss = test[np.arange(len(test)), best[: len(test)]].mean(axis=1)
    return (base - loss) / (base - loss[0])


@wrong("the share of the mean gain")
def fair_shares(base, validation, test):
    loss = test[np.arange(len(test)), validation.argmin(axis=1)].mean(axis=1)
    gain = base - loss
    return gain / gain.mean()


@wrong("the second gradient of a difference has the wrong sign")
def project_tensor(expression, arrays):
    class Tensor:
        made = 0

        def __init__(self, data, parents=()):
            self.data, self.grad, self.parents = np.asarray(data), None, parents
            Tensor.made += 1
            self.number = Tensor.made

        @property
        def T(self):
            return Tensor(self.data.T, [(self, lambda g: g.T)])

        def binary(self, other, data, of_self, of_other):
            parents = [(self, of_self)]
            if isinstance(other, Tensor):
                parents.append((other, of_other))
            return Tensor(data, parents)

        def __add__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data + o, lambda g: g, lambda g: g)

        def __sub__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data - o, lambda g: g, lambda g: g)

        def __mul__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data * o, lambda g: g * o, lambda g: g * self.data)

        def __matmul__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data @ o, lambda g: g @ o.T, lambda g: self.data.T @ g)

        def mean(self):
            n, shape = self.data.size, self.data.shape
            return Tensor(self.data.mean(), [(self, lambda g: g * np.ones(shape) / n)])

        def backward(self):
            self.grad, waiting = np.ones(self.data.shape), [self]
            while waiting:
                one = max(waiting, key=lambda t: t.number)
                waiting.remove(one)
                for parent, back in one.parents:
                    if parent not in waiting:
                        waiting.append(parent)
                    part = back(one.grad)
                    parent.grad = part if parent.grad is None else parent.grad + part

    t = [Tensor(array) for array in arrays]
    result = eval(expression, {"t": t})
    result.backward()
    return result.data, [one.grad for one in t]


@wrong("keeps only the last part of a gradient")
def project_tensor(expression, arrays):
    class Tensor:
        made = 0

        def __init__(self, data, parents=()):
            self.data, self.grad, self.parents = np.asarray(data), None, parents
            Tensor.made += 1
            self.number = Tensor.made

        @property
        def T(self):
            return Tensor(self.data.T, [(self, lambda g: g.T)])

        def binary(self, other, data, of_self, of_other):
            parents = [(self, of_self)]
            if isinstance(other, Tensor):
                parents.append((other, of_other))
            return Tensor(data, parents)

        def __add__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data + o, lambda g: g, lambda g: g)

        def __sub__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data - o, lambda g: g, lambda g: -g)

        def __mul__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data * o, lambda g: g * o, lambda g: g * self.data)

        def __matmul__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data @ o, lambda g: g @ o.T, lambda g: self.data.T @ g)

        def mean(self):
            n, shape = self.data.size, self.data.shape
            return Tensor(self.data.mean(), [(self, lambda g: g * np.ones(shape) / n)])

        def backward(self):
            self.grad, waiting = np.ones(self.data.shape), [self]
            while waiting:
                one = max(waiting, key=lambda t: t.number)
                waiting.remove(one)
                for parent, back in one.parents:
                    if parent not in waiting:
                        waiting.append(parent)
                    part = back(one.grad)
                    parent.grad = part

    t = [Tensor(array) for array in arrays]
    result = eval(expression, {"t": t})
    result.backward()
    return result.data, [one.grad for one in t]


@wrong("the gradient of the mean is not divided by the number of entries")
def project_tensor(expression, arrays):
    class Tensor:
        made = 0

        def __init__(self, data, parents=()):
            self.data, self.grad, self.parents = np.asarray(data), None, parents
            Tensor.made += 1
            self.number = Tensor.made

        @property
        def T(self):
            return Tensor(self.data.T, [(self, lambda g: g.T)])

        def binary(self, other, data, of_self, of_other):
            parents = [(self, of_self)]
            if isinstance(other, Tensor):
                parents.append((other, of_other))
            return Tensor(data, parents)

        def __add__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data + o, lambda g: g, lambda g: g)

        def __sub__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data - o, lambda g: g, lambda g: -g)

        def __mul__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data * o, lambda g: g * o, lambda g: g * self.data)

        def __matmul__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data @ o, lambda g: g @ o.T, lambda g: self.data.T @ g)

        def mean(self):
            n, shape = self.data.size, self.data.shape
            return Tensor(self.data.mean(), [(self, lambda g: g * np.ones(shape))])

        def backward(self):
            self.grad, waiting = np.ones(self.data.shape), [self]
            while waiting:
                one = max(waiting, key=lambda t: t.number)
                waiting.remove(one)
                for parent, back in one.parents:
                    if parent not in waiting:
                        waiting.append(parent)
                    part = back(one.grad)
                    parent.grad = part if parent.grad is None else parent.grad + part

    t = [Tensor(array) for array in arrays]
    result = eval(expression, {"t": t})
    result.backward()
    return result.data, [one.grad for one in t]


@wrong("the mean divides by the number of rows")
def project_tensor(expression, arrays):
    class Tensor:
        made = 0

        def __init__(self, data, parents=()):
            self.data, self.grad, self.parents = np.asarray(data), None, parents
            Tensor.made += 1
            self.number = Tensor.made

        @property
        def T(self):
            return Tensor(self.data.T, [(self, lambda g: g.T)])

        def binary(self, other, data, of_self, of_other):
            parents = [(self, of_self)]
            if isinstance(other, Tensor):
                parents.append((other, of_other))
            return Tensor(data, parents)

        def __add__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data + o, lambda g: g, lambda g: g)

        def __sub__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data - o, lambda g: g, lambda g: -g)

        def __mul__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data * o, lambda g: g * o, lambda g: g * self.data)

        def __matmul__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data @ o, lambda g: g @ o.T, lambda g: self.data.T @ g)

        def mean(self):
            n, shape = len(self.data), self.data.shape
            return Tensor(self.data.mean(), [(self, lambda g: g * np.ones(shape) / n)])

        def backward(self):
            self.grad, waiting = np.ones(self.data.shape), [self]
            while waiting:
                one = max(waiting, key=lambda t: t.number)
                waiting.remove(one)
                for parent, back in one.parents:
                    if parent not in waiting:
                        waiting.append(parent)
                    part = back(one.grad)
                    parent.grad = part if parent.grad is None else parent.grad + part

    t = [Tensor(array) for array in arrays]
    result = eval(expression, {"t": t})
    result.backward()
    return result.data, [one.grad for one in t]


@wrong("visits the oldest Tensor first")
def project_tensor(expression, arrays):
    class Tensor:
        made = 0

        def __init__(self, data, parents=()):
            self.data, self.grad, self.parents = np.asarray(data), None, parents
            Tensor.made += 1
            self.number = Tensor.made

        @property
        def T(self):
            return Tensor(self.data.T, [(self, lambda g: g.T)])

        def binary(self, other, data, of_self, of_other):
            parents = [(self, of_self)]
            if isinstance(other, Tensor):
                parents.append((other, of_other))
            return Tensor(data, parents)

        def __add__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data + o, lambda g: g, lambda g: g)

        def __sub__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data - o, lambda g: g, lambda g: -g)

        def __mul__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data * o, lambda g: g * o, lambda g: g * self.data)

        def __matmul__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data @ o, lambda g: g @ o.T, lambda g: self.data.T @ g)

        def mean(self):
            n, shape = self.data.size, self.data.shape
            return Tensor(self.data.mean(), [(self, lambda g: g * np.ones(shape) / n)])

        def backward(self):
            self.grad, waiting = np.ones(self.data.shape), [self]
            while waiting:
                one = min(waiting, key=lambda t: t.number)
                waiting.remove(one)
                for parent, back in one.parents:
                    if parent not in waiting:
                        waiting.append(parent)
                    part = back(one.grad)
                    parent.grad = part if parent.grad is None else parent.grad + part

    t = [Tensor(array) for array in arrays]
    result = eval(expression, {"t": t})
    result.backward()
    return result.data, [one.grad for one in t]


@wrong("a Tensor that is used twice waits twice, and sends its gradient twice")
def project_tensor(expression, arrays):
    class Tensor:
        made = 0

        def __init__(self, data, parents=()):
            self.data, self.grad, self.parents = np.asarray(data), None, parents
            Tensor.made += 1
            self.number = Tensor.made

        @property
        def T(self):
            return Tensor(self.data.T, [(self, lambda g: g.T)])

        def binary(self, other, data, of_self, of_other):
            parents = [(self, of_self)]
            if isinstance(other, Tensor):
                parents.append((other, of_other))
            return Tensor(data, parents)

        def __add__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data + o, lambda g: g, lambda g: g)

        def __sub__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data - o, lambda g: g, lambda g: -g)

        def __mul__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data * o, lambda g: g * o, lambda g: g * self.data)

        def __matmul__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data @ o, lambda g: g @ o.T, lambda g: self.data.T @ g)

        def mean(self):
            n, shape = self.data.size, self.data.shape
            return Tensor(self.data.mean(), [(self, lambda g: g * np.ones(shape) / n)])

        def backward(self):
            self.grad, waiting = np.ones(self.data.shape), [self]
            while waiting:
                one = max(waiting, key=lambda t: t.number)
                waiting.remove(one)
                for parent, back in one.parents:
                    waiting.append(parent)
                    part = back(one.grad)
                    parent.grad = part if parent.grad is None else parent.grad + part

    t = [Tensor(array) for array in arrays]
    result = eval(expression, {"t": t})
    result.backward()
    return result.data, [one.grad for one in t]


@wrong("first come, first served: a Tensor may be visited before all that used it")
def project_tensor(expression, arrays):
    class Tensor:
        made = 0

        def __init__(self, data, parents=()):
            self.data, self.grad, self.parents = np.asarray(data), None, parents
            Tensor.made += 1
            self.number = Tensor.made

        @property
        def T(self):
            return Tensor(self.data.T, [(self, lambda g: g.T)])

        def binary(self, other, data, of_self, of_other):
            parents = [(self, of_self)]
            if isinstance(other, Tensor):
                parents.append((other, of_other))
            return Tensor(data, parents)

        def __add__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data + o, lambda g: g, lambda g: g)

        def __sub__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data - o, lambda g: g, lambda g: -g)

        def __mul__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data * o, lambda g: g * o, lambda g: g * self.data)

        def __matmul__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data @ o, lambda g: g @ o.T, lambda g: self.data.T @ g)

        def mean(self):
            n, shape = self.data.size, self.data.shape
            return Tensor(self.data.mean(), [(self, lambda g: g * np.ones(shape) / n)])

        def backward(self):
            self.grad, waiting = np.ones(self.data.shape), [self]
            while waiting:
                one = waiting[0]
                waiting.remove(one)
                for parent, back in one.parents:
                    if parent not in waiting:
                        waiting.append(parent)
                    part = back(one.grad)
                    parent.grad = part if parent.grad is None else parent.grad + part

    t = [Tensor(array) for array in arrays]
    result = eval(expression, {"t": t})
    result.backward()
    return result.data, [one.grad for one in t]


@wrong("both factors of a product of matrices are taken as square")
def project_tensor(expression, arrays):
    class Tensor:
        made = 0

        def __init__(self, data, parents=()):
            self.data, self.grad, self.parents = np.asarray(data), None, parents
            Tensor.made += 1
            self.number = Tensor.made

        @property
        def T(self):
            return Tensor(self.data.T, [(self, lambda g: g.T)])

        def binary(self, other, data, of_self, of_other):
            parents = [(self, of_self)]
            if isinstance(other, Tensor):
                parents.append((other, of_other))
            return Tensor(data, parents)

        def __add__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data + o, lambda g: g, lambda g: g)

        def __sub__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data - o, lambda g: g, lambda g: -g)

        def __mul__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data * o, lambda g: g * o, lambda g: g * self.data)

        def __matmul__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data @ o, lambda g: o.T @ g, lambda g: g @ self.data.T)

        def mean(self):
            n, shape = self.data.size, self.data.shape
            return Tensor(self.data.mean(), [(self, lambda g: g * np.ones(shape) / n)])

        def backward(self):
            self.grad, waiting = np.ones(self.data.shape), [self]
            while waiting:
                one = max(waiting, key=lambda t: t.number)
                waiting.remove(one)
                for parent, back in one.parents:
                    if parent not in waiting:
                        waiting.append(parent)
                    part = back(one.grad)
                    parent.grad = part if parent.grad is None else parent.grad + part

    t = [Tensor(array) for array in arrays]
    result = eval(expression, {"t": t})
    result.backward()
    return result.data, [one.grad for one in t]


@wrong("constants are not allowed")
def project_tensor(expression, arrays):
    class Tensor:
        made = 0

        def __init__(self, data, parents=()):
            self.data, self.grad, self.parents = np.asarray(data), None, parents
            Tensor.made += 1
            self.number = Tensor.made

        @property
        def T(self):
            return Tensor(self.data.T, [(self, lambda g: g.T)])

        def binary(self, other, data, of_self, of_other):
            parents = [(self, of_self)]
            parents.append((other, of_other))
            return Tensor(data, parents)

        def __add__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data + o, lambda g: g, lambda g: g)

        def __sub__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data - o, lambda g: g, lambda g: -g)

        def __mul__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data * o, lambda g: g * o, lambda g: g * self.data)

        def __matmul__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data @ o, lambda g: g @ o.T, lambda g: self.data.T @ g)

        def mean(self):
            n, shape = self.data.size, self.data.shape
            return Tensor(self.data.mean(), [(self, lambda g: g * np.ones(shape) / n)])

        def backward(self):
            self.grad, waiting = np.ones(self.data.shape), [self]
            while waiting:
                one = max(waiting, key=lambda t: t.number)
                waiting.remove(one)
                for parent, back in one.parents:
                    if parent not in waiting:
                        waiting.append(parent)
                    part = back(one.grad)
                    parent.grad = part if parent.grad is None else parent.grad + part

    t = [Tensor(array) for array in arrays]
    result = eval(expression, {"t": t})
    result.backward()
    return result.data, [one.grad for one in t]


@wrong("the gradient is changed in place, and one that two Tensors share with it")
def project_tensor(expression, arrays):
    class Tensor:
        made = 0

        def __init__(self, data, parents=()):
            self.data, self.grad, self.parents = np.asarray(data), None, parents
            Tensor.made += 1
            self.number = Tensor.made

        @property
        def T(self):
            return Tensor(self.data.T, [(self, lambda g: g.T)])

        def binary(self, other, data, of_self, of_other):
            parents = [(self, of_self)]
            if isinstance(other, Tensor):
                parents.append((other, of_other))
            return Tensor(data, parents)

        def __add__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data + o, lambda g: g, lambda g: g)

        def __sub__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data - o, lambda g: g, lambda g: -g)

        def __mul__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data * o, lambda g: g * o, lambda g: g * self.data)

        def __matmul__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data @ o, lambda g: g @ o.T, lambda g: self.data.T @ g)

        def mean(self):
            n, shape = self.data.size, self.data.shape
            return Tensor(self.data.mean(), [(self, lambda g: g * np.ones(shape) / n)])

        def backward(self):
            self.grad, waiting = np.ones(self.data.shape), [self]
            while waiting:
                one = max(waiting, key=lambda t: t.number)
                waiting.remove(one)
                for parent, back in one.parents:
                    if parent not in waiting:
                        waiting.append(parent)
                    part = back(one.grad)
                    if parent.grad is None:
                        parent.grad = part
                    else:
                        parent.grad += part

    t = [Tensor(array) for array in arrays]
    result = eval(expression, {"t": t})
    result.backward()
    return result.data, [one.grad for one in t]


@wrong("the derivative of t * t is taken as t: one side only")
def project_tensor(expression, arrays):
    class Tensor:
        made = 0

        def __init__(self, data, parents=()):
            self.data, self.grad, self.parents = np.asarray(data), None, parents
            Tensor.made += 1
            self.number = Tensor.made

        @property
        def T(self):
            return Tensor(self.data.T, [(self, lambda g: g.T)])

        def binary(self, other, data, of_self, of_other):
            parents = [(self, of_self)]
            if isinstance(other, Tensor):
                parents.append((other, of_other))
            return Tensor(data, parents)

        def __add__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data + o, lambda g: g, lambda g: g)

        def __sub__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data - o, lambda g: g, lambda g: -g)

        def __mul__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(
                other,
                self.data * o,
                lambda g: g * o,
                lambda g: g * (0 if other is self else self.data),
            )

        def __matmul__(self, other):
            o = other.data if isinstance(other, Tensor) else other
            return self.binary(other, self.data @ o, lambda g: g @ o.T, lambda g: self.data.T @ g)

        def mean(self):
            n, shape = self.data.size, self.data.shape
            return Tensor(self.data.mean(), [(self, lambda g: g * np.ones(shape) / n)])

        def backward(self):
            self.grad, waiting = np.ones(self.data.shape), [self]
            while waiting:
                one = max(waiting, key=lambda t: t.number)
                waiting.remove(one)
                for parent, back in one.parents:
                    if parent not in waiting:
                        waiting.append(parent)
                    part = back(one.grad)
                    parent.grad = part if parent.grad is None else parent.grad + part

    t = [Tensor(array) for array in arrays]
    result = eval(expression, {"t": t})
    result.backward()
    return result.data, [one.grad for one in t]


@wrong("W is not transposed")
def project_linear(x, y, W):
    class Linear:
        def __init__(self, W):
            self.W = W

        def __call__(self, x, rng=None):
            return x @ self.W

    layer = Linear(Tensor(W))
    e = layer(Tensor(x)) - y
    (e * e).mean().backward()
    return layer(Tensor(x)).data, layer.W.grad


@wrong("a new Tensor each time, so W gets no gradient")
def project_linear(x, y, W):
    class Linear:
        def __init__(self, W):
            self.W = W

        def __call__(self, x, rng=None):
            return x @ Tensor(self.W.data.T)

    layer = Linear(Tensor(W))
    e = layer(Tensor(x)) - y
    (e * e).mean().backward()
    return layer(Tensor(x)).data, layer.W.grad


@wrong("inputs as columns")
def project_linear(x, y, W):
    class Linear:
        def __init__(self, W):
            self.W = W

        def __call__(self, x, rng=None):
            return self.W @ x

    layer = Linear(Tensor(W))
    e = layer(Tensor(x)) - y
    (e * e).mean().backward()
    return layer(Tensor(x)).data, layer.W.grad


@wrong("returns a plain array")
def project_linear(x, y, W):
    class Linear:
        def __init__(self, W):
            self.W = W

        def __call__(self, x, rng=None):
            return x.data @ self.W.data.T

    layer = Linear(Tensor(W))
    e = layer(Tensor(x)) - y
    (e * e).mean().backward()
    return layer(Tensor(x)).data, layer.W.grad


@wrong("adds up row by row and forgets all inputs but the first")
def project_linear(x, y, W):
    class Linear:
        def __init__(self, W):
            self.W = W

        def __call__(self, x, rng=None):
            return Tensor(x.data[:1]) @ self.W.T

    layer = Linear(Tensor(W))
    e = layer(Tensor(x)) - y
    (e * e).mean().backward()
    return layer(Tensor(x)).data, layer.W.grad


@wrong("W is turned for good, so the second call differs")
def project_linear(x, y, W):
    class Linear:
        def __init__(self, W):
            self.W = W

        def __call__(self, x, rng=None):
            self.W = self.W.T
            return x @ self.W

    layer = Linear(Tensor(W))
    e = layer(Tensor(x)) - y
    (e * e).mean().backward()
    return layer(Tensor(x)).data, layer.W.grad


@wrong("prints")
def project_linear(x, y, W):
    class Linear:
        def __init__(self, W):
            self.W = W

        def __call__(self, x, rng=None):
            print(x @ self.W.T)

    layer = Linear(Tensor(W))
    e = layer(Tensor(x)) - y
    (e * e).mean().backward()
    return layer(Tensor(x)).data, layer.W.grad


@wrong("divides by the number of inputs")
def project_linear(x, y, W):
    class Linear:
        def __init__(self, W):
            self.W = W

        def __call__(self, x, rng=None):
            return x @ self.W.T * (1 / x.data.shape[1])

    layer = Linear(Tensor(W))
    e = layer(Tensor(x)) - y
    (e * e).mean().backward()
    return layer(Tensor(x)).data, layer.W.grad


@wrong("alpha without r")
def project_lora(x, W0, rank, alpha, rng, A, B):
    class LoRA:
        def __init__(self, base, A, B, alpha):
            self.base, self.A, self.B, self.alpha = base, A, B, alpha

        def __call__(self, x, rng=None):
            r, k = self.A.data.shape
            return self.base(x) + x @ self.A.T @ self.B.T * self.alpha

    def adapted(layer, rank, alpha, rng):
        d, k = layer.W.shape
        rng = np.random.default_rng(rng)
        A = Tensor(rng.normal(size=(rank, k)) / np.sqrt(k))
        return LoRA(layer, A, Tensor(np.zeros((d, rank))), alpha)

    layer = adapted(Linear(W0), rank, alpha, rng)
    start = layer.A.data.copy(), layer.B.data.copy()
    layer.A.data[...], layer.B.data[...] = A, B
    return *start, layer(Tensor(x)).data


@wrong("divides by k")
def project_lora(x, W0, rank, alpha, rng, A, B):
    class LoRA:
        def __init__(self, base, A, B, alpha):
            self.base, self.A, self.B, self.alpha = base, A, B, alpha

        def __call__(self, x, rng=None):
            r, k = self.A.data.shape
            return self.base(x) + x @ self.A.T @ self.B.T * (self.alpha / k)

    def adapted(layer, rank, alpha, rng):
        d, k = layer.W.shape
        rng = np.random.default_rng(rng)
        A = Tensor(rng.normal(size=(rank, k)) / np.sqrt(k))
        return LoRA(layer, A, Tensor(np.zeros((d, rank))), alpha)

    layer = adapted(Linear(W0), rank, alpha, rng)
    start = layer.A.data.copy(), layer.B.data.copy()
    layer.A.data[...], layer.B.data[...] = A, B
    return *start, layer(Tensor(x)).data


@wrong("the base is forgotten")
def project_lora(x, W0, rank, alpha, rng, A, B):
    class LoRA:
        def __init__(self, base, A, B, alpha):
            self.base, self.A, self.B, self.alpha = base, A, B, alpha

        def __call__(self, x, rng=None):
            r, k = self.A.data.shape
            return x @ self.A.T @ self.B.T * (self.alpha / r)

    def adapted(layer, rank, alpha, rng):
        d, k = layer.W.shape
        rng = np.random.default_rng(rng)
        A = Tensor(rng.normal(size=(rank, k)) / np.sqrt(k))
        return LoRA(layer, A, Tensor(np.zeros((d, rank))), alpha)

    layer = adapted(Linear(W0), rank, alpha, rng)
    start = layer.A.data.copy(), layer.B.data.copy()
    layer.A.data[...], layer.B.data[...] = A, B
    return *start, layer(Tensor(x)).data


@wrong("A has the size of normal numbers of size one")
def project_lora(x, W0, rank, alpha, rng, A, B):
    class LoRA:
        def __init__(self, base, A, B, alpha):
            self.base, self.A, self.B, self.alpha = base, A, B, alpha

        def __call__(self, x, rng=None):
            r, k = self.A.data.shape
            return self.base(x) + x @ self.A.T @ self.B.T * (self.alpha / r)

    def adapted(layer, rank, alpha, rng):
        d, k = layer.W.shape
        rng = np.random.default_rng(rng)
        A = Tensor(rng.normal(size=(rank, k)))
        return LoRA(layer, A, Tensor(np.zeros((d, rank))), alpha)

    layer = adapted(Linear(W0), rank, alpha, rng)
    start = layer.A.data.copy(), layer.B.data.copy()
    layer.A.data[...], layer.B.data[...] = A, B
    return *start, layer(Tensor(x)).data


@wrong("divides by k, not by its root")
def project_lora(x, W0, rank, alpha, rng, A, B):
    class LoRA:
        def __init__(self, base, A, B, alpha):
            self.base, self.A, self.B, self.alpha = base, A, B, alpha

        def __call__(self, x, rng=None):
            r, k = self.A.data.shape
            return self.base(x) + x @ self.A.T @ self.B.T * (self.alpha / r)

    def adapted(layer, rank, alpha, rng):
        d, k = layer.W.shape
        rng = np.random.default_rng(rng)
        A = Tensor(rng.normal(size=(rank, k)) / k)
        return LoRA(layer, A, Tensor(np.zeros((d, rank))), alpha)

    layer = adapted(Linear(W0), rank, alpha, rng)
    start = layer.A.data.copy(), layer.B.data.copy()
    layer.A.data[...], layer.B.data[...] = A, B
    return *start, layer(Tensor(x)).data


@wrong("B is random as well")
def project_lora(x, W0, rank, alpha, rng, A, B):
    class LoRA:
        def __init__(self, base, A, B, alpha):
            self.base, self.A, self.B, self.alpha = base, A, B, alpha

        def __call__(self, x, rng=None):
            r, k = self.A.data.shape
            return self.base(x) + x @ self.A.T @ self.B.T * (self.alpha / r)

    def adapted(layer, rank, alpha, rng):
        d, k = layer.W.shape
        rng = np.random.default_rng(rng)
        A = Tensor(rng.normal(size=(rank, k)) / np.sqrt(k))
        return LoRA(layer, A, Tensor(rng.normal(size=(d, rank))), alpha)

    layer = adapted(Linear(W0), rank, alpha, rng)
    start = layer.A.data.copy(), layer.B.data.copy()
    layer.A.data[...], layer.B.data[...] = A, B
    return *start, layer(Tensor(x)).data


@wrong("A is zero as well")
def project_lora(x, W0, rank, alpha, rng, A, B):
    class LoRA:
        def __init__(self, base, A, B, alpha):
            self.base, self.A, self.B, self.alpha = base, A, B, alpha

        def __call__(self, x, rng=None):
            r, k = self.A.data.shape
            return self.base(x) + x @ self.A.T @ self.B.T * (self.alpha / r)

    def adapted(layer, rank, alpha, rng):
        d, k = layer.W.shape
        rng = np.random.default_rng(rng)
        A = Tensor(np.zeros((rank, k)))
        return LoRA(layer, A, Tensor(np.zeros((d, rank))), alpha)

    layer = adapted(Linear(W0), rank, alpha, rng)
    start = layer.A.data.copy(), layer.B.data.copy()
    layer.A.data[...], layer.B.data[...] = A, B
    return *start, layer(Tensor(x)).data


@wrong("the root of d in place of that of k")
def project_lora(x, W0, rank, alpha, rng, A, B):
    class LoRA:
        def __init__(self, base, A, B, alpha):
            self.base, self.A, self.B, self.alpha = base, A, B, alpha

        def __call__(self, x, rng=None):
            r, k = self.A.data.shape
            return self.base(x) + x @ self.A.T @ self.B.T * (self.alpha / r)

    def adapted(layer, rank, alpha, rng):
        d, k = layer.W.shape
        rng = np.random.default_rng(rng)
        A = Tensor(rng.normal(size=(rank, k)) / np.sqrt(d))
        return LoRA(layer, A, Tensor(np.zeros((d, rank))), alpha)

    layer = adapted(Linear(W0), rank, alpha, rng)
    start = layer.A.data.copy(), layer.B.data.copy()
    layer.A.data[...], layer.B.data[...] = A, B
    return *start, layer(Tensor(x)).data


@wrong("not the seed that was asked for")
def project_lora(x, W0, rank, alpha, rng, A, B):
    class LoRA:
        def __init__(self, base, A, B, alpha):
            self.base, self.A, self.B, self.alpha = base, A, B, alpha

        def __call__(self, x, rng=None):
            r, k = self.A.data.shape
            return self.base(x) + x @ self.A.T @ self.B.T * (self.alpha / r)

    def adapted(layer, rank, alpha, rng):
        d, k = layer.W.shape
        rng = np.random.default_rng()
        A = Tensor(rng.normal(size=(rank, k)) / np.sqrt(k))
        return LoRA(layer, A, Tensor(np.zeros((d, rank))), alpha)

    layer = adapted(Linear(W0), rank, alpha, rng)
    start = layer.A.data.copy(), layer.B.data.copy()
    layer.A.data[...], layer.B.data[...] = A, B
    return *start, layer(Tensor(x)).data


@wrong("the base is scaled too")
def project_lora(x, W0, rank, alpha, rng, A, B):
    class LoRA:
        def __init__(self, base, A, B, alpha):
            self.base, self.A, self.B, self.alpha = base, A, B, alpha

        def __call__(self, x, rng=None):
            r, k = self.A.data.shape
            return (self.base(x) + x @ self.A.T @ self.B.T) * (self.alpha / r)

    def adapted(layer, rank, alpha, rng):
        d, k = layer.W.shape
        rng = np.random.default_rng(rng)
        A = Tensor(rng.normal(size=(rank, k)) / np.sqrt(k))
        return LoRA(layer, A, Tensor(np.zeros((d, rank))), alpha)

    layer = adapted(Linear(W0), rank, alpha, rng)
    start = layer.A.data.copy(), layer.B.data.copy()
    layer.A.data[...], layer.B.data[...] = A, B
    return *start, layer(Tensor(x)).data


@wrong("whole-number division of alpha by r")
def project_lora(x, W0, rank, alpha, rng, A, B):
    class LoRA:
        def __init__(self, base, A, B, alpha):
            self.base, self.A, self.B, self.alpha = base, A, B, alpha

        def __call__(self, x, rng=None):
            r, k = self.A.data.shape
            return self.base(x) + x @ self.A.T @ self.B.T * (self.alpha // r)

    def adapted(layer, rank, alpha, rng):
        d, k = layer.W.shape
        rng = np.random.default_rng(rng)
        A = Tensor(rng.normal(size=(rank, k)) / np.sqrt(k))
        return LoRA(layer, A, Tensor(np.zeros((d, rank))), alpha)

    layer = adapted(Linear(W0), rank, alpha, rng)
    start = layer.A.data.copy(), layer.B.data.copy()
    layer.A.data[...], layer.B.data[...] = A, B
    return *start, layer(Tensor(x)).data


@wrong("the rank is taken from min(d, k)")
def project_lora(x, W0, rank, alpha, rng, A, B):
    class LoRA:
        def __init__(self, base, A, B, alpha):
            self.base, self.A, self.B, self.alpha = base, A, B, alpha

        def __call__(self, x, rng=None):
            r, k = self.A.data.shape
            return self.base(x) + x @ self.A.T @ self.B.T * (self.alpha / min(self.base.W.shape))

    def adapted(layer, rank, alpha, rng):
        d, k = layer.W.shape
        rng = np.random.default_rng(rng)
        A = Tensor(rng.normal(size=(rank, k)) / np.sqrt(k))
        return LoRA(layer, A, Tensor(np.zeros((d, rank))), alpha)

    layer = adapted(Linear(W0), rank, alpha, rng)
    start = layer.A.data.copy(), layer.B.data.copy()
    layer.A.data[...], layer.B.data[...] = A, B
    return *start, layer(Tensor(x)).data


@wrong("a Tensor that is met twice is listed twice")
def project_training(x, y, W0, rank, steps, lr):
    def parameters(model):
        found = []

        def visit(one):
            if isinstance(one, Tensor):
                found.append(one)
            elif isinstance(one, (list, tuple)):
                for part in one:
                    visit(part)
            elif hasattr(one, "__dict__"):
                visit(list(vars(one).values()))

        visit(model)
        return found

    def train(model, x, y, steps=300, lr=0.1):
        for _ in range(steps):
            e = model(Tensor(x)) - y
            (e * e).mean().backward()
            for t in parameters(model):
                t.data = t.data - lr * t.grad
                t.grad = None
        return model

    layer = adapted(Linear(W0), rank, rank, 0)
    layer = train(layer, x, y, steps, lr)
    found = parameters([layer, [Linear(Tensor(W0))], layer])
    return len(found), W0 + layer.B.data @ layer.A.data


@wrong("does not look into lists in lists")
def project_training(x, y, W0, rank, steps, lr):
    def parameters(model):
        found = []

        def visit(one):
            if isinstance(one, Tensor):
                if not any(one is t for t in found):
                    found.append(one)
            elif isinstance(one, (list, tuple)):
                for part in one:
                    if not isinstance(part, list):
                        visit(part)
            elif hasattr(one, "__dict__"):
                visit(list(vars(one).values()))

        visit(model)
        return found

    def train(model, x, y, steps=300, lr=0.1):
        for _ in range(steps):
            e = model(Tensor(x)) - y
            (e * e).mean().backward()
            for t in parameters(model):
                t.data = t.data - lr * t.grad
                t.grad = None
        return model

    layer = adapted(Linear(W0), rank, rank, 0)
    layer = train(layer, x, y, steps, lr)
    found = parameters([layer, [Linear(Tensor(W0))], layer])
    return len(found), W0 + layer.B.data @ layer.A.data


@wrong("the gradients are not set back")
def project_training(x, y, W0, rank, steps, lr):
    def parameters(model):
        found = []

        def visit(one):
            if isinstance(one, Tensor):
                if not any(one is t for t in found):
                    found.append(one)
            elif isinstance(one, (list, tuple)):
                for part in one:
                    visit(part)
            elif hasattr(one, "__dict__"):
                visit(list(vars(one).values()))

        visit(model)
        return found

    def train(model, x, y, steps=300, lr=0.1):
        for _ in range(steps):
            e = model(Tensor(x)) - y
            (e * e).mean().backward()
            for t in parameters(model):
                t.data = t.data - lr * t.grad
        return model

    layer = adapted(Linear(W0), rank, rank, 0)
    layer = train(layer, x, y, steps, lr)
    found = parameters([layer, [Linear(Tensor(W0))], layer])
    return len(found), W0 + layer.B.data @ layer.A.data


@wrong("forgot to return the model")
def project_training(x, y, W0, rank, steps, lr):
    def parameters(model):
        found = []

        def visit(one):
            if isinstance(one, Tensor):
                if not any(one is t for t in found):
                    found.append(one)
            elif isinstance(one, (list, tuple)):
                for part in one:
                    visit(part)
            elif hasattr(one, "__dict__"):
                visit(list(vars(one).values()))

        visit(model)
        return found

    def train(model, x, y, steps=300, lr=0.1):
        for _ in range(steps):
            e = model(Tensor(x)) - y
            (e * e).mean().backward()
            for t in parameters(model):
                t.data = t.data - lr * t.grad
                t.grad = None

    layer = adapted(Linear(W0), rank, rank, 0)
    layer = train(layer, x, y, steps, lr)
    found = parameters([layer, [Linear(Tensor(W0))], layer])
    return len(found), W0 + layer.B.data @ layer.A.data


@wrong("climbs")
def project_training(x, y, W0, rank, steps, lr):
    def parameters(model):
        found = []

        def visit(one):
            if isinstance(one, Tensor):
                if not any(one is t for t in found):
                    found.append(one)
            elif isinstance(one, (list, tuple)):
                for part in one:
                    visit(part)
            elif hasattr(one, "__dict__"):
                visit(list(vars(one).values()))

        visit(model)
        return found

    def train(model, x, y, steps=300, lr=0.1):
        for _ in range(steps):
            e = model(Tensor(x)) - y
            (e * e).mean().backward()
            for t in parameters(model):
                t.data = t.data + lr * t.grad
                t.grad = None
        return model

    layer = adapted(Linear(W0), rank, rank, 0)
    layer = train(layer, x, y, steps, lr)
    found = parameters([layer, [Linear(Tensor(W0))], layer])
    return len(found), W0 + layer.B.data @ layer.A.data


@wrong("one step only")
def project_training(x, y, W0, rank, steps, lr):
    def parameters(model):
        found = []

        def visit(one):
            if isinstance(one, Tensor):
                if not any(one is t for t in found):
                    found.append(one)
            elif isinstance(one, (list, tuple)):
                for part in one:
                    visit(part)
            elif hasattr(one, "__dict__"):
                visit(list(vars(one).values()))

        visit(model)
        return found

    def train(model, x, y, steps=300, lr=0.1):
        for _ in range(1):
            e = model(Tensor(x)) - y
            (e * e).mean().backward()
            for t in parameters(model):
                t.data = t.data - lr * t.grad
                t.grad = None
        return model

    layer = adapted(Linear(W0), rank, rank, 0)
    layer = train(layer, x, y, steps, lr)
    found = parameters([layer, [Linear(Tensor(W0))], layer])
    return len(found), W0 + layer.B.data @ layer.A.data


@wrong("a learning rate of its own")
def project_training(x, y, W0, rank, steps, lr):
    def parameters(model):
        found = []

        def visit(one):
            if isinstance(one, Tensor):
                if not any(one is t for t in found):
                    found.append(one)
            elif isinstance(one, (list, tuple)):
                for part in one:
                    visit(part)
            elif hasattr(one, "__dict__"):
                visit(list(vars(one).values()))

        visit(model)
        return found

    def train(model, x, y, steps=300, lr=0.1):
        for _ in range(steps):
            e = model(Tensor(x)) - y
            (e * e).mean().backward()
            for t in parameters(model):
                t.data = t.data - 0.1 * t.grad
                t.grad = None
        return model

    layer = adapted(Linear(W0), rank, rank, 0)
    layer = train(layer, x, y, steps, lr)
    found = parameters([layer, [Linear(Tensor(W0))], layer])
    return len(found), W0 + layer.B.data @ layer.A.data


@wrong("trains only the first parameter")
def project_training(x, y, W0, rank, steps, lr):
    def parameters(model):
        found = []

        def visit(one):
            if isinstance(one, Tensor):
                if not any(one is t for t in found):
                    found.append(one)
            elif isinstance(one, (list, tuple)):
                for part in one:
                    visit(part)
            elif hasattr(one, "__dict__"):
                visit(list(vars(one).values()))

        visit(model)
        return found

    def train(model, x, y, steps=300, lr=0.1):
        for _ in range(steps):
            e = model(Tensor(x)) - y
            (e * e).mean().backward()
            for t in parameters(model)[:1]:
                t.data = t.data - lr * t.grad
                t.grad = None
        return model

    layer = adapted(Linear(W0), rank, rank, 0)
    layer = train(layer, x, y, steps, lr)
    found = parameters([layer, [Linear(Tensor(W0))], layer])
    return len(found), W0 + layer.B.data @ layer.A.data


@wrong("the number of steps is fixed")
def project_training(x, y, W0, rank, steps, lr):
    def parameters(model):
        found = []

        def visit(one):
            if isinstance(one, Tensor):
                if not any(one is t for t in found):
                    found.append(one)
            elif isinstance(one, (list, tuple)):
                for part in one:
                    visit(part)
            elif hasattr(one, "__dict__"):
                visit(list(vars(one).values()))

        visit(model)
        return found

    def train(model, x, y, steps=300, lr=0.1):
        for _ in range(300):
            e = model(Tensor(x)) - y
            (e * e).mean().backward()
            for t in parameters(model):
                t.data = t.data - lr * t.grad
                t.grad = None
        return model

    layer = adapted(Linear(W0), rank, rank, 0)
    layer = train(layer, x, y, steps, lr)
    found = parameters([layer, [Linear(Tensor(W0))], layer])
    return len(found), W0 + layer.B.data @ layer.A.data


@wrong("sets back only the gradient that was moved last")
def project_training(x, y, W0, rank, steps, lr):
    def parameters(model):
        found = []

        def visit(one):
            if isinstance(one, Tensor):
                if not any(one is t for t in found):
                    found.append(one)
            elif isinstance(one, (list, tuple)):
                for part in one:
                    visit(part)
            elif hasattr(one, "__dict__"):
                visit(list(vars(one).values()))

        visit(model)
        return found

    def train(model, x, y, steps=300, lr=0.1):
        for _ in range(steps):
            e = model(Tensor(x)) - y
            (e * e).mean().backward()
            for t in parameters(model):
                t.data = t.data - lr * t.grad
            t.grad = None
        return model

    layer = adapted(Linear(W0), rank, rank, 0)
    layer = train(layer, x, y, steps, lr)
    found = parameters([layer, [Linear(Tensor(W0))], layer])
    return len(found), W0 + layer.B.data @ layer.A.data


@wrong("finds only A and B, by name")
def project_training(x, y, W0, rank, steps, lr):
    def parameters(model):
        found = []

        def visit(one):
            if isinstance(one, Tensor):
                if not any(one is t for t in found):
                    found.append(one)
            elif isinstance(one, (list, tuple)):
                for part in one:
                    visit(part)
            elif hasattr(one, "__dict__"):
                visit([one.__dict__.get(name) for name in ("A", "B")])

        visit(model)
        return found

    def train(model, x, y, steps=300, lr=0.1):
        for _ in range(steps):
            e = model(Tensor(x)) - y
            (e * e).mean().backward()
            for t in parameters(model):
                t.data = t.data - lr * t.grad
                t.grad = None
        return model

    layer = adapted(Linear(W0), rank, rank, 0)
    layer = train(layer, x, y, steps, lr)
    found = parameters([layer, [Linear(Tensor(W0))], layer])
    return len(found), W0 + layer.B.data @ layer.A.data


@wrong("stops as soon as the loss is above one")
def project_training(x, y, W0, rank, steps, lr):
    def parameters(model):
        found = []

        def visit(one):
            if isinstance(one, Tensor):
                if not any(one is t for t in found):
                    found.append(one)
            elif isinstance(one, (list, tuple)):
                for part in one:
                    visit(part)
            elif hasattr(one, "__dict__"):
                visit(list(vars(one).values()))

        visit(model)
        return found

    def train(model, x, y, steps=300, lr=0.1):
        for _ in range(steps):
            e = model(Tensor(x)) - y
            loss = (e * e).mean()
            if loss.data > 1.0:
                break
            loss.backward()
            for t in parameters(model):
                t.data = t.data - lr * t.grad
                t.grad = None
        return model

    layer = adapted(Linear(W0), rank, rank, 0)
    layer = train(layer, x, y, steps, lr)
    found = parameters([layer, [Linear(Tensor(W0))], layer])
    return len(found), W0 + layer.B.data @ layer.A.data


@wrong("returned in the wrong order")
def project_counting(shapes, rank):
    def count(layers):
        trained, frozen = 0, 0
        for layer in layers:
            trained += layer.A.data.size + layer.B.data.size
            frozen += layer.base.W.size
        return frozen, trained

    return count([adapted(Linear(np.zeros(shape)), rank, rank, 0) for shape in shapes])


@wrong("all parameters for the frozen ones")
def project_counting(shapes, rank):
    def count(layers):
        trained, frozen = 0, 0
        for layer in layers:
            trained += layer.A.data.size + layer.B.data.size
            frozen += layer.base.W.size + layer.A.data.size + layer.B.data.size
        return trained, frozen

    return count([adapted(Linear(np.zeros(shape)), rank, rank, 0) for shape in shapes])


@wrong("the last layer only")
def project_counting(shapes, rank):
    def count(layers):
        trained, frozen = 0, 0
        for layer in layers:
            trained = layer.A.data.size + layer.B.data.size
            frozen = layer.base.W.size
        return trained, frozen

    return count([adapted(Linear(np.zeros(shape)), rank, rank, 0) for shape in shapes])


@wrong("multiplies")
def project_counting(shapes, rank):
    def count(layers):
        trained, frozen = 0, 0
        for layer in layers:
            trained += layer.A.data.size * layer.B.data.size
            frozen += layer.base.W.size
        return trained, frozen

    return count([adapted(Linear(np.zeros(shape)), rank, rank, 0) for shape in shapes])


@wrong("returns after the first layer")
def project_counting(shapes, rank):
    def count(layers):
        trained, frozen = 0, 0
        for layer in layers:
            trained += layer.A.data.size + layer.B.data.size
            frozen += layer.base.W.size
            return trained, frozen

    return count([adapted(Linear(np.zeros(shape)), rank, rank, 0) for shape in shapes])


@wrong("the number of Tensors, not of their entries")
def project_counting(shapes, rank):
    def count(layers):
        trained, frozen = 0, 0
        for layer in layers:
            trained += 2
            frozen += 1
        return trained, frozen

    return count([adapted(Linear(np.zeros(shape)), rank, rank, 0) for shape in shapes])


@wrong("counts rows only")
def project_counting(shapes, rank):
    def count(layers):
        trained, frozen = 0, 0
        for layer in layers:
            trained += len(layer.A.data) + len(layer.B.data)
            frozen += len(layer.base.W)
        return trained, frozen

    return count([adapted(Linear(np.zeros(shape)), rank, rank, 0) for shape in shapes])


@wrong("trainable ones only")
def project_counting(shapes, rank):
    def count(layers):
        trained, frozen = 0, 0
        for layer in layers:
            trained += layer.A.data.size + layer.B.data.size
            frozen += layer.base.W.size
        return trained

    return count([adapted(Linear(np.zeros(shape)), rank, rank, 0) for shape in shapes])


@wrong("the length in big-endian order")
def project_adapter(layers):
    import json

    def adapter_file(layers):
        header, body = {}, b""
        for path, layer in layers.items():
            for letter, factor in (("A", layer.A), ("B", layer.B)):
                array = np.ascontiguousarray(factor.data, "<f4")
                span = [len(body), len(body) + array.nbytes]
                key = f"base_model.model.{path}.lora_{letter}.weight"
                shape = list(array.shape)
                header[key] = {"dtype": "F32", "shape": shape, "data_offsets": span}
                body += array.tobytes()
        head = json.dumps(header).encode()
        first = next(iter(layers.values()))
        config = {
            "peft_type": "LORA",
            "r": first.A.data.shape[0],
            "lora_alpha": first.alpha,
            "target_modules": sorted({path.split(".")[-1] for path in layers}),
        }
        return config, len(head).to_bytes(8, "big") + head + body

    made = {
        path: LoRA(Linear(B @ A), Tensor(A), Tensor(B), alpha)
        for path, (B, A, alpha) in layers.items()
    }
    config, content = adapter_file(made)
    return config, np.frombuffer(content, np.uint8)


@wrong("the length takes 4 bytes")
def project_adapter(layers):
    import json

    def adapter_file(layers):
        header, body = {}, b""
        for path, layer in layers.items():
            for letter, factor in (("A", layer.A), ("B", layer.B)):
                array = np.ascontiguousarray(factor.data, "<f4")
                span = [len(body), len(body) + array.nbytes]
                key = f"base_model.model.{path}.lora_{letter}.weight"
                shape = list(array.shape)
                header[key] = {"dtype": "F32", "shape": shape, "data_offsets": span}
                body += array.tobytes()
        head = json.dumps(header).encode()
        first = next(iter(layers.values()))
        config = {
            "peft_type": "LORA",
            "r": first.A.data.shape[0],
            "lora_alpha": first.alpha,
            "target_modules": sorted({path.split(".")[-1] for path in layers}),
        }
        return config, len(head).to_bytes(4, "little") + head + body

    made = {
        path: LoRA(Linear(B @ A), Tensor(A), Tensor(B), alpha)
        for path, (B, A, alpha) in layers.items()
    }
    config, content = adapter_file(made)
    return config, np.frombuffer(content, np.uint8)


@wrong("offsets counted from the start of the file")
def project_adapter(layers):
    import json

    def adapter_file(layers):
        header, body = {}, b""
        for path, layer in layers.items():
            for letter, factor in (("A", layer.A), ("B", layer.B)):
                array = np.ascontiguousarray(factor.data, "<f4")
                span = [len(body), len(body) + array.nbytes]
                key = f"base_model.model.{path}.lora_{letter}.weight"
                shape = list(array.shape)
                header[key] = {"dtype": "F32", "shape": shape, "data_offsets": span}
                body += array.tobytes()
        head = json.dumps(header).encode()
        for entry in header.values():
            entry["data_offsets"] = [8 + len(head) + o for o in entry["data_offsets"]]
        head = json.dumps(header).encode()
        first = next(iter(layers.values()))
        config = {
            "peft_type": "LORA",
            "r": first.A.data.shape[0],
            "lora_alpha": first.alpha,
            "target_modules": sorted({path.split(".")[-1] for path in layers}),
        }
        return config, len(head).to_bytes(8, "little") + head + body

    made = {
        path: LoRA(Linear(B @ A), Tensor(A), Tensor(B), alpha)
        for path, (B, A, alpha) in layers.items()
    }
    config, content = adapter_file(made)
    return config, np.frombuffer(content, np.uint8)


@wrong("float64 under the name of F32")
def project_adapter(layers):
    import json

    def adapter_file(layers):
        header, body = {}, b""
        for path, layer in layers.items():
            for letter, factor in (("A", layer.A), ("B", layer.B)):
                array = np.ascontiguousarray(factor.data, "<f8")
                span = [len(body), len(body) + array.nbytes]
                key = f"base_model.model.{path}.lora_{letter}.weight"
                shape = list(array.shape)
                header[key] = {"dtype": "F32", "shape": shape, "data_offsets": span}
                body += array.tobytes()
        head = json.dumps(header).encode()
        first = next(iter(layers.values()))
        config = {
            "peft_type": "LORA",
            "r": first.A.data.shape[0],
            "lora_alpha": first.alpha,
            "target_modules": sorted({path.split(".")[-1] for path in layers}),
        }
        return config, len(head).to_bytes(8, "little") + head + body

    made = {
        path: LoRA(Linear(B @ A), Tensor(A), Tensor(B), alpha)
        for path, (B, A, alpha) in layers.items()
    }
    config, content = adapter_file(made)
    return config, np.frombuffer(content, np.uint8)


@wrong("offsets in numbers, not in bytes")
def project_adapter(layers):
    import json

    def adapter_file(layers):
        header, body = {}, b""
        for path, layer in layers.items():
            for letter, factor in (("A", layer.A), ("B", layer.B)):
                array = np.ascontiguousarray(factor.data, "<f4")
                span = [len(body) // 4, len(body) // 4 + array.size]
                key = f"base_model.model.{path}.lora_{letter}.weight"
                shape = list(array.shape)
                header[key] = {"dtype": "F32", "shape": shape, "data_offsets": span}
                body += array.tobytes()
        head = json.dumps(header).encode()
        first = next(iter(layers.values()))
        config = {
            "peft_type": "LORA",
            "r": first.A.data.shape[0],
            "lora_alpha": first.alpha,
            "target_modules": sorted({path.split(".")[-1] for path in layers}),
        }
        return config, len(head).to_bytes(8, "little") + head + body

    made = {
        path: LoRA(Linear(B @ A), Tensor(A), Tensor(B), alpha)
        for path, (B, A, alpha) in layers.items()
    }
    config, content = adapter_file(made)
    return config, np.frombuffer(content, np.uint8)


@wrong("whole paths as target_modules")
def project_adapter(layers):
    import json

    def adapter_file(layers):
        header, body = {}, b""
        for path, layer in layers.items():
            for letter, factor in (("A", layer.A), ("B", layer.B)):
                array = np.ascontiguousarray(factor.data, "<f4")
                span = [len(body), len(body) + array.nbytes]
                key = f"base_model.model.{path}.lora_{letter}.weight"
                shape = list(array.shape)
                header[key] = {"dtype": "F32", "shape": shape, "data_offsets": span}
                body += array.tobytes()
        head = json.dumps(header).encode()
        first = next(iter(layers.values()))
        config = {
            "peft_type": "LORA",
            "r": first.A.data.shape[0],
            "lora_alpha": first.alpha,
            "target_modules": sorted({path for path in layers}),
        }
        return config, len(head).to_bytes(8, "little") + head + body

    made = {
        path: LoRA(Linear(B @ A), Tensor(A), Tensor(B), alpha)
        for path, (B, A, alpha) in layers.items()
    }
    config, content = adapter_file(made)
    return config, np.frombuffer(content, np.uint8)


@wrong("the last parts repeat, one for each layer")
def project_adapter(layers):
    import json

    def adapter_file(layers):
        header, body = {}, b""
        for path, layer in layers.items():
            for letter, factor in (("A", layer.A), ("B", layer.B)):
                array = np.ascontiguousarray(factor.data, "<f4")
                span = [len(body), len(body) + array.nbytes]
                key = f"base_model.model.{path}.lora_{letter}.weight"
                shape = list(array.shape)
                header[key] = {"dtype": "F32", "shape": shape, "data_offsets": span}
                body += array.tobytes()
        head = json.dumps(header).encode()
        first = next(iter(layers.values()))
        config = {
            "peft_type": "LORA",
            "r": first.A.data.shape[0],
            "lora_alpha": first.alpha,
            "target_modules": sorted([path.split(".")[-1] for path in layers]),
        }
        return config, len(head).to_bytes(8, "little") + head + body

    made = {
        path: LoRA(Linear(B @ A), Tensor(A), Tensor(B), alpha)
        for path, (B, A, alpha) in layers.items()
    }
    config, content = adapter_file(made)
    return config, np.frombuffer(content, np.uint8)


@wrong("last parts in the order of the layers, not sorted")
def project_adapter(layers):
    import json

    def adapter_file(layers):
        header, body = {}, b""
        for path, layer in layers.items():
            for letter, factor in (("A", layer.A), ("B", layer.B)):
                array = np.ascontiguousarray(factor.data, "<f4")
                span = [len(body), len(body) + array.nbytes]
                key = f"base_model.model.{path}.lora_{letter}.weight"
                shape = list(array.shape)
                header[key] = {"dtype": "F32", "shape": shape, "data_offsets": span}
                body += array.tobytes()
        head = json.dumps(header).encode()
        first = next(iter(layers.values()))
        config = {
            "peft_type": "LORA",
            "r": first.A.data.shape[0],
            "lora_alpha": first.alpha,
            "target_modules": list(dict.fromkeys(path.split(".")[-1] for path in layers)),
        }
        return config, len(head).to_bytes(8, "little") + head + body

    made = {
        path: LoRA(Linear(B @ A), Tensor(A), Tensor(B), alpha)
        for path, (B, A, alpha) in layers.items()
    }
    config, content = adapter_file(made)
    return config, np.frombuffer(content, np.uint8)


@wrong("alpha under the name of alpha")
def project_adapter(layers):
    import json

    def adapter_file(layers):
        header, body = {}, b""
        for path, layer in layers.items():
            for letter, factor in (("A", layer.A), ("B", layer.B)):
                array = np.ascontiguousarray(factor.data, "<f4")
                span = [len(body), len(body) + array.nbytes]
                key = f"base_model.model.{path}.lora_{letter}.weight"
                shape = list(array.shape)
                header[key] = {"dtype": "F32", "shape": shape, "data_offsets": span}
                body += array.tobytes()
        head = json.dumps(header).encode()
        first = next(iter(layers.values()))
        config = {
            "peft_type": "LORA",
            "r": first.A.data.shape[0],
            "alpha": first.alpha,
            "target_modules": sorted({path.split(".")[-1] for path in layers}),
        }
        return config, len(head).to_bytes(8, "little") + head + body

    made = {
        path: LoRA(Linear(B @ A), Tensor(A), Tensor(B), alpha)
        for path, (B, A, alpha) in layers.items()
    }
    config, content = adapter_file(made)
    return config, np.frombuffer(content, np.uint8)


@wrong("factors transposed, shape as it was")
def project_adapter(layers):
    import json

    def adapter_file(layers):
        header, body = {}, b""
        for path, layer in layers.items():
            for letter, factor in (("A", layer.A), ("B", layer.B)):
                array = np.ascontiguousarray(factor.data, "<f4")
                span = [len(body), len(body) + array.nbytes]
                key = f"base_model.model.{path}.lora_{letter}.weight"
                shape = list(array.shape)
                header[key] = {"dtype": "F32", "shape": shape, "data_offsets": span}
                body += array.T.tobytes()
        head = json.dumps(header).encode()
        first = next(iter(layers.values()))
        config = {
            "peft_type": "LORA",
            "r": first.A.data.shape[0],
            "lora_alpha": first.alpha,
            "target_modules": sorted({path.split(".")[-1] for path in layers}),
        }
        return config, len(head).to_bytes(8, "little") + head + body

    made = {
        path: LoRA(Linear(B @ A), Tensor(A), Tensor(B), alpha)
        for path, (B, A, alpha) in layers.items()
    }
    config, content = adapter_file(made)
    return config, np.frombuffer(content, np.uint8)


@wrong("A and B under each other's names")
def project_adapter(layers):
    import json

    def adapter_file(layers):
        header, body = {}, b""
        for path, layer in layers.items():
            for letter, factor in (("A", layer.B), ("B", layer.A)):
                array = np.ascontiguousarray(factor.data, "<f4")
                span = [len(body), len(body) + array.nbytes]
                key = f"base_model.model.{path}.lora_{letter}.weight"
                shape = list(array.shape)
                header[key] = {"dtype": "F32", "shape": shape, "data_offsets": span}
                body += array.tobytes()
        head = json.dumps(header).encode()
        first = next(iter(layers.values()))
        config = {
            "peft_type": "LORA",
            "r": first.A.data.shape[0],
            "lora_alpha": first.alpha,
            "target_modules": sorted({path.split(".")[-1] for path in layers}),
        }
        return config, len(head).to_bytes(8, "little") + head + body

    made = {
        path: LoRA(Linear(B @ A), Tensor(A), Tensor(B), alpha)
        for path, (B, A, alpha) in layers.items()
    }
    config, content = adapter_file(made)
    return config, np.frombuffer(content, np.uint8)


@wrong("the end is the length, not a position")
def project_adapter(layers):
    import json

    def adapter_file(layers):
        header, body = {}, b""
        for path, layer in layers.items():
            for letter, factor in (("A", layer.A), ("B", layer.B)):
                array = np.ascontiguousarray(factor.data, "<f4")
                span = [len(body), array.nbytes]
                key = f"base_model.model.{path}.lora_{letter}.weight"
                shape = list(array.shape)
                header[key] = {"dtype": "F32", "shape": shape, "data_offsets": span}
                body += array.tobytes()
        head = json.dumps(header).encode()
        first = next(iter(layers.values()))
        config = {
            "peft_type": "LORA",
            "r": first.A.data.shape[0],
            "lora_alpha": first.alpha,
            "target_modules": sorted({path.split(".")[-1] for path in layers}),
        }
        return config, len(head).to_bytes(8, "little") + head + body

    made = {
        path: LoRA(Linear(B @ A), Tensor(A), Tensor(B), alpha)
        for path, (B, A, alpha) in layers.items()
    }
    config, content = adapter_file(made)
    return config, np.frombuffer(content, np.uint8)


@wrong("the header without its length")
def project_adapter(layers):
    import json

    def adapter_file(layers):
        header, body = {}, b""
        for path, layer in layers.items():
            for letter, factor in (("A", layer.A), ("B", layer.B)):
                array = np.ascontiguousarray(factor.data, "<f4")
                span = [len(body), len(body) + array.nbytes]
                key = f"base_model.model.{path}.lora_{letter}.weight"
                shape = list(array.shape)
                header[key] = {"dtype": "F32", "shape": shape, "data_offsets": span}
                body += array.tobytes()
        head = json.dumps(header).encode()
        first = next(iter(layers.values()))
        config = {
            "peft_type": "LORA",
            "r": first.A.data.shape[0],
            "lora_alpha": first.alpha,
            "target_modules": sorted({path.split(".")[-1] for path in layers}),
        }
        return config, head + body

    made = {
        path: LoRA(Linear(B @ A), Tensor(A), Tensor(B), alpha)
        for path, (B, A, alpha) in layers.items()
    }
    config, content = adapter_file(made)
    return config, np.frombuffer(content, np.uint8)


@wrong("forgot the prefix base_model")
def project_adapter(layers):
    import json

    def adapter_file(layers):
        header, body = {}, b""
        for path, layer in layers.items():
            for letter, factor in (("A", layer.A), ("B", layer.B)):
                array = np.ascontiguousarray(factor.data, "<f4")
                span = [len(body), len(body) + array.nbytes]
                key = f"{path}.lora_{letter}.weight"
                shape = list(array.shape)
                header[key] = {"dtype": "F32", "shape": shape, "data_offsets": span}
                body += array.tobytes()
        head = json.dumps(header).encode()
        first = next(iter(layers.values()))
        config = {
            "peft_type": "LORA",
            "r": first.A.data.shape[0],
            "lora_alpha": first.alpha,
            "target_modules": sorted({path.split(".")[-1] for path in layers}),
        }
        return config, len(head).to_bytes(8, "little") + head + body

    made = {
        path: LoRA(Linear(B @ A), Tensor(A), Tensor(B), alpha)
        for path, (B, A, alpha) in layers.items()
    }
    config, content = adapter_file(made)
    return config, np.frombuffer(content, np.uint8)


@wrong("the scale is folded into B, and alpha stays")
def project_adapter(layers):
    import json

    def adapter_file(layers):
        header, body = {}, b""
        for path, layer in layers.items():
            for letter, factor in (
                ("A", layer.A),
                ("B", Tensor(layer.alpha / len(layer.A.data) * layer.B.data)),
            ):
                array = np.ascontiguousarray(factor.data, "<f4")
                span = [len(body), len(body) + array.nbytes]
                key = f"base_model.model.{path}.lora_{letter}.weight"
                shape = list(array.shape)
                header[key] = {"dtype": "F32", "shape": shape, "data_offsets": span}
                body += array.tobytes()
        head = json.dumps(header).encode()
        first = next(iter(layers.values()))
        config = {
            "peft_type": "LORA",
            "r": first.A.data.shape[0],
            "lora_alpha": first.alpha,
            "target_modules": sorted({path.split(".")[-1] for path in layers}),
        }
        return config, len(head).to_bytes(8, "little") + head + body

    made = {
        path: LoRA(Linear(B @ A), Tensor(A), Tensor(B), alpha)
        for path, (B, A, alpha) in layers.items()
    }
    config, content = adapter_file(made)
    return config, np.frombuffer(content, np.uint8)


@wrong("bytes column by column when the array is held that way")
def project_adapter(layers):
    import json

    def adapter_file(layers):
        header, body = {}, b""
        for path, layer in layers.items():
            for letter, factor in (("A", layer.A), ("B", layer.B)):
                array = factor.data.astype("<f4")
                span = [len(body), len(body) + array.nbytes]
                key = f"base_model.model.{path}.lora_{letter}.weight"
                shape = list(array.shape)
                header[key] = {"dtype": "F32", "shape": shape, "data_offsets": span}
                body += array.tobytes("A")
        head = json.dumps(header).encode()
        first = next(iter(layers.values()))
        config = {
            "peft_type": "LORA",
            "r": first.A.data.shape[0],
            "lora_alpha": first.alpha,
            "target_modules": sorted({path.split(".")[-1] for path in layers}),
        }
        return config, len(head).to_bytes(8, "little") + head + body

    made = {
        path: LoRA(Linear(B @ A), Tensor(A), Tensor(B), alpha)
        for path, (B, A, alpha) in layers.items()
    }
    config, content = adapter_file(made)
    return config, np.frombuffer(content, np.uint8)


@wrong("counts layers of one shape once")
def affordable_rank(shapes, budget):
    return budget // sum(d + k for d, k in set(shapes))


@wrong("counts layers of one shape once")
def rank_for_bits(bits, shapes, per_parameter):
    return -(-bits // (per_parameter * sum(d + k for d, k in set(shapes))))


@wrong("raises q to 1e-13")
def kl_divergence(p, q):
    some = p > 0
    return np.sum(p[some] * np.log(p[some] / np.maximum(q[some], 1e-13)))
