"""What is usually done wrong, and other ways to be right."""

import numpy as np

import lora_np as lnp
from tests.attempts import alternative, mistake


@mistake("forgets the singular values", breaks="closest")
def cut(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return U[:, :r] @ Vh[:r]


@mistake("keeps the weakest terms", breaks="closest")
def cut(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return (U[:, -r:] * s[-r:]) @ Vh[-r:]


@mistake("one term too many", breaks="closest")
def cut(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return (U[:, : r + 1] * s[: r + 1]) @ Vh[: r + 1]


@mistake("keeps rows of the matrix", breaks="closest")
def cut(M, r):
    result = np.zeros_like(M)
    result[:r] = M[:r]
    return result


@mistake("hands in the package's", breaks="closest")
def cut(M, r):
    B, A = lnp.low_rank_factors(M, rank=r)
    return B @ A


@mistake("begins at rank 1", breaks="ends")
def error_curve(M):
    squares = np.linalg.svdvals(M) ** 2
    return np.array(
        [np.sqrt(squares[r:].sum() / squares.sum()) for r in range(1, len(squares) + 1)]
    )


@mistake("energy in place of error", breaks="ends")
def error_curve(M):
    squares = np.linalg.svdvals(M) ** 2
    return np.array([np.sqrt(squares[:r].sum() / squares.sum()) for r in range(len(squares) + 1)])


@mistake("not relative", breaks="ends")
def error_curve(M):
    squares = np.linalg.svdvals(M) ** 2
    return np.array([np.sqrt(squares[r:].sum()) for r in range(len(squares) + 1)])


@mistake("singular values, not their squares", breaks="squares")
def error_curve(M):
    s = np.linalg.svdvals(M)
    return np.array([s[r:].sum() / s.sum() for r in range(len(s) + 1)])


@mistake("without the root", breaks="squares")
def error_curve(M):
    squares = np.linalg.svdvals(M) ** 2
    return np.array([squares[r:].sum() / squares.sum() for r in range(len(squares) + 1)])


@mistake("singular values, not their squares", breaks="share")
def smallest_rank(M, share):
    kept = np.cumsum(np.linalg.svdvals(M))
    return 1 + np.argmax(kept >= share * kept[-1])


@mistake("counts from zero", breaks="share")
def smallest_rank(M, share):
    kept = np.cumsum(np.linalg.svdvals(M) ** 2)
    return np.argmax(kept >= share * kept[-1])


@mistake("the largest rank below the share", breaks="share")
def smallest_rank(M, share):
    kept = np.cumsum(np.linalg.svdvals(M) ** 2)
    return np.count_nonzero(kept < share * kept[-1])


@mistake("takes the share for an error", breaks="share")
def smallest_rank(M, share):
    squares = np.linalg.svdvals(M) ** 2
    errors = np.sqrt(np.append(np.cumsum(squares[::-1])[::-1], 0) / squares.sum())
    return np.argmax(errors <= 1 - share)


@mistake("all singular values in B", breaks="balanced")
def balanced_factors(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r]


@mistake("all singular values on both sides", breaks="closest")
def balanced_factors(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return U[:, :r] * s[:r], s[:r, None] * Vh[:r]


@mistake("half of the singular values on either side", breaks="closest")
def balanced_factors(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return U[:, :r] * s[:r] / 2, s[:r, None] / 2 * Vh[:r]


@mistake("A with its vectors as columns", breaks="closest")
def balanced_factors(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    root = np.sqrt(s[:r])
    return U[:, :r] * root, Vh[:r].T * root


@mistake("QR in place of the SVD", breaks="closest")
def balanced_factors(M, r):
    Q, R = np.linalg.qr(M)
    return Q[:, :r], R[:r]


@mistake("hands in NumPy's", breaks="orthonormal")
def top_directions(M, r):
    return np.linalg.svd(M)[0][:, :r]


@mistake("never orthonormal", breaks="orthonormal")
def top_directions(M, r):
    Q = np.random.default_rng(0).normal(size=(len(M), r))
    for _ in range(30):
        Q = M @ (M.T @ Q)
        Q = Q / np.linalg.norm(Q, axis=0)
    return Q


@mistake("grows without bound", breaks="orthonormal")
def top_directions(M, r):
    Q = np.random.default_rng(0).normal(size=(len(M), r))
    with np.errstate(all="ignore"):
        for _ in range(100):
            Q = M @ (M.T @ Q)
    return Q


@mistake("one step only", breaks="span")
def top_directions(M, r):
    Q = np.random.default_rng(0).normal(size=(len(M), r))
    return np.linalg.qr(M @ (M.T @ Q))[0]


@mistake("the right singular vectors", breaks="orthonormal")
def top_directions(M, r):
    Q = np.random.default_rng(0).normal(size=(M.shape[1], r))
    for _ in range(30):
        Q = np.linalg.qr(M.T @ (M @ Q))[0]
    return Q


@alternative("projects on the first directions")
def cut(M, r):
    V = np.linalg.svd(M)[2][:r].T
    return M @ V @ V.T


@alternative("what each approximation leaves")
def error_curve(M):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    left = [M - (U[:, :r] * s[:r]) @ Vh[:r] for r in range(len(s) + 1)]
    return [np.linalg.norm(rest) / np.linalg.norm(M) for rest in left]


@alternative("takes away from all")
def smallest_rank(M, share):
    squares = np.linalg.svdvals(M) ** 2
    rank = len(squares)
    while rank > 1 and squares[: rank - 1].sum() >= share * squares.sum():
        rank -= 1
    return rank


@alternative("turned: any rotation between the factors keeps them balanced")
def balanced_factors(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(r, r)))[0]
    root = np.sqrt(s[:r])
    return U[:, :r] * root @ turn, turn.T @ (root[:, None] * Vh[:r])


@alternative("begins with columns of M M^T")
def top_directions(M, r):
    Q = np.linalg.qr(M @ M.T @ np.random.default_rng(5).uniform(-1, 1, (len(M), r)))[0]
    for _ in range(40):
        Q = np.linalg.qr(M @ (M.T @ Q))[0]
    return Q


@mistake("one term too few", breaks="closest")
def cut(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return (U[:, : r - 1] * s[: r - 1]) @ Vh[: r - 1]


@mistake("columns of Vh", breaks="closest")
def cut(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return (U[:, :r] * s[:r]) @ Vh[:, :r].T if M.shape[0] == M.shape[1] else (U * s) @ Vh


@mistake("the largest entries", breaks="closest")
def cut(M, r):
    kept = np.sort(np.abs(M), axis=None)[::-1][min(M.size - 1, r)]
    return np.where(np.abs(M) > kept, M, 0)


@mistake("the longest rows", breaks="closest")
def cut(M, r):
    result = np.zeros_like(M)
    best = np.argsort(-np.linalg.norm(M, axis=1))[:r]
    result[best] = M[best]
    return result


@mistake("squares of the singular values", breaks="closest")
def cut(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return (U[:, :r] * s[:r] ** 2) @ Vh[:r]


@mistake("what is left out", breaks="closest")
def cut(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return (U[:, r:] * s[r:]) @ Vh[r:]


@mistake("a QR, cut", breaks="closest")
def cut(M, r):
    Q, R = np.linalg.qr(M)
    return Q[:, :r] @ R[:r]


@mistake("M as it is", breaks="closest")
def cut(M, r):
    return M


@alternative("term by term")
def cut(M, r):
    U, s, Vh = np.linalg.svd(M)
    return sum(s[i] * np.outer(U[:, i], Vh[i]) for i in range(r))


@alternative("singular values set to zero")
def cut(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    s = s.copy()
    s[r:] = 0
    return U @ np.diag(s) @ Vh


@alternative("by einsum")
def cut(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return np.einsum("ir,r,rj->ij", U[:, :r], s[:r], Vh[:r])


@alternative("takes the weak terms away")
def cut(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return M - (U[:, r:] * s[r:]) @ Vh[r:]


@mistake("leaves full rank out", breaks="ends")
def error_curve(M):
    squares = np.linalg.svdvals(M) ** 2
    return np.array([np.sqrt(squares[r:].sum() / squares.sum()) for r in range(len(squares))])


@mistake("the next singular value only", breaks="ends")
def error_curve(M):
    s = np.append(np.linalg.svdvals(M), 0)
    return s / np.linalg.norm(s)


@mistake("relative to the largest", breaks="ends")
def error_curve(M):
    squares = np.linalg.svdvals(M) ** 2
    return np.array([np.sqrt(squares[r:].sum() / squares[0]) for r in range(len(squares) + 1)])


@mistake("the norm that the largest singular value is", breaks="squares")
def error_curve(M):
    s = np.append(np.linalg.svdvals(M), 0)
    return s / s[0]


@mistake("one minus the energy kept", breaks="squares")
def error_curve(M):
    squares = np.linalg.svdvals(M) ** 2
    return 1 - np.sqrt(np.append(0, np.cumsum(squares)) / squares.sum())


@mistake("up to the longer side", breaks="ends")
def error_curve(M):
    squares = np.linalg.svdvals(M) ** 2
    return np.array([np.sqrt(squares[r:].sum() / squares.sum()) for r in range(max(M.shape) + 1)])


@mistake("from full rank down", breaks="ends")
def error_curve(M):
    squares = np.linalg.svdvals(M) ** 2
    return np.array(
        [np.sqrt(squares[r:].sum() / squares.sum()) for r in range(len(squares), -1, -1)]
    )


@alternative("running sums from the end")
def error_curve(M):
    s = np.linalg.svd(M, compute_uv=False)
    left = np.append(np.cumsum(s[::-1] ** 2)[::-1], 0)
    return np.sqrt(left / left[0])


@alternative("norms of what is left")
def error_curve(M):
    s = np.linalg.svdvals(M)
    return [np.linalg.norm(s[r:]) / np.linalg.norm(M) for r in range(min(M.shape) + 1)]


@alternative("eigenvalues")
def error_curve(M):
    small = M @ M.T if len(M) < M.shape[1] else M.T @ M
    values = np.clip(np.linalg.eigvalsh(small), 0, None)
    return np.sqrt(np.append(0, np.cumsum(values)) / values.sum())[::-1]


@alternative("scaled first, so that no square overflows")
def error_curve(M):
    s = np.linalg.svdvals(M / np.abs(M).max())
    return np.array(
        [np.hypot.reduce(np.append(s[r:], 0.0)) for r in range(len(s) + 1)]
    ) / np.linalg.norm(s)


@mistake("more than the share", breaks="all")
def smallest_rank(M, share):
    kept = np.cumsum(np.linalg.svdvals(M) ** 2)
    return min(len(kept), 1 + int(np.searchsorted(kept, share * kept[-1], side="right")))


@mistake("one rank more, to be sure", breaks="share")
def smallest_rank(M, share):
    kept = np.cumsum(np.linalg.svdvals(M) ** 2)
    return min(len(kept), 2 + int(np.argmax(kept >= share * kept[-1])))


@mistake("a share of the number of singular values", breaks="share")
def smallest_rank(M, share):
    return int(np.ceil(share * min(M.shape)))


@mistake("singular values above a share of the largest", breaks="share")
def smallest_rank(M, share):
    s = np.linalg.svdvals(M)
    return int(np.count_nonzero(s >= (1 - share) * s[0]))


@mistake("the energy is not relative", breaks="share")
def smallest_rank(M, share):
    kept = np.cumsum(np.linalg.svdvals(M) ** 2)
    return int(1 + np.argmax(kept >= share))


@mistake("the weakest first", breaks="share")
def smallest_rank(M, share):
    kept = np.cumsum(np.linalg.svdvals(M)[::-1] ** 2)
    return int(1 + np.argmax(kept >= share * kept[-1]))


@mistake("the root of the share of energy", breaks="share")
def smallest_rank(M, share):
    kept = np.sqrt(np.cumsum(np.linalg.svdvals(M) ** 2))
    return int(1 + np.argmax(kept >= share * kept[-1]))


@alternative("adds up until it is enough")
def smallest_rank(M, share):
    squares = np.linalg.svdvals(M) ** 2
    total, kept, rank = squares.sum(), 0.0, 0
    while rank < len(squares) and kept < share * total * (1 - 1e-12):
        kept += squares[rank]
        rank += 1
    return rank


@alternative("what is left is small enough")
def smallest_rank(M, share):
    squares = np.linalg.svdvals(M) ** 2
    kept = squares.cumsum()
    return np.count_nonzero(kept < share * kept[-1]) + 1


@alternative("searches the sorted sums")
def smallest_rank(M, share):
    kept = np.cumsum(np.linalg.svdvals(M) ** 2)
    return int(np.searchsorted(kept, share * kept[-1])) + 1


@alternative("the first of a generator")
def smallest_rank(M, share):
    s2 = np.linalg.svd(M)[1] ** 2
    sums = np.cumsum(s2)
    return next(i + 1 for i in range(len(sums)) if sums[i] / sums[-1] >= share)


@mistake("all singular values in A", breaks="balanced")
def balanced_factors(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return U[:, :r], s[:r, None] * Vh[:r]


@mistake("no singular values", breaks="closest")
def balanced_factors(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return U[:, :r], Vh[:r]


@mistake("equal norms, but not balanced", breaks="balanced")
def balanced_factors(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    B, A = U[:, :r] * s[:r], Vh[:r]
    ratio = np.sqrt(np.linalg.norm(A) / np.linalg.norm(B)) if B.any() else 1
    return B * ratio, A / ratio


@mistake("the weakest terms", breaks="closest")
def balanced_factors(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    root = np.sqrt(s[-r:])
    return U[:, -r:] * root, root[:, None] * Vh[-r:]


@mistake("full rank", breaks="closest")
def balanced_factors(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    root = np.sqrt(s)
    return U * root, root[:, None] * Vh


@mistake("rows scaled where columns are", breaks="closest")
def balanced_factors(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    root = np.sqrt(s[:r])
    return (U[:, :r] * root, Vh[:r] * np.resize(root, M.shape[1]))


@alternative("both negative")
def balanced_factors(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    S = np.diag(np.sqrt(s[:r]))
    return -U[:, :r] @ S, -S @ Vh[:r]


@alternative("cut after the roots")
def balanced_factors(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    B, A = U * s**0.5, (Vh.T * s**0.5).T
    return B[:, :r], A[:r, :]


@alternative("the terms in another order")
def balanced_factors(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    order = np.arange(r)[::-1]
    root = np.sqrt(s[order])
    return U[:, order] * root, root[:, None] * Vh[order]


@alternative("column by column")
def balanced_factors(M, r):
    U, s, Vh = np.linalg.svd(M)
    return np.column_stack([np.sqrt(s[i]) * U[:, i] for i in range(r)]), np.array(
        [np.sqrt(s[i]) * Vh[i] for i in range(r)]
    )


@mistake("orthonormal at the end only", breaks="span")
def top_directions(M, r):
    Q = np.random.default_rng(0).normal(size=(len(M), r))
    for _ in range(30):
        Q = M @ (M.T @ Q)
        Q = Q / (np.linalg.norm(Q) or 1)
    return np.linalg.qr(Q)[0]


@mistake("orthonormal at the end only, columns scaled", breaks="span")
def top_directions(M, r):
    Q = np.random.default_rng(0).normal(size=(len(M), r))
    for _ in range(30):
        Q = M @ (M.T @ Q)
        Q = Q / np.maximum(np.linalg.norm(Q, axis=0), 1e-300)
    return np.linalg.qr(Q)[0]


@mistake("starts from columns of M", breaks="span")
def top_directions(M, r):
    Q = np.linalg.qr(np.resize(M, (len(M), r)) if M.shape[1] < r else M[:, :r])[0]
    for _ in range(30):
        Q = np.linalg.qr(M @ (M.T @ Q))[0]
    return Q


@mistake("starts from an identity", breaks="span")
def top_directions(M, r):
    Q = np.eye(len(M), r)
    for _ in range(30):
        Q = np.linalg.qr(M @ (M.T @ Q))[0]
    return Q


@mistake("two steps", breaks="span")
def top_directions(M, r):
    Q = np.random.default_rng(0).normal(size=(len(M), r))
    for _ in range(2):
        Q = np.linalg.qr(M @ (M.T @ Q))[0]
    return Q


@mistake("three steps", breaks="span")
def top_directions(M, r):
    Q = np.random.default_rng(0).normal(size=(len(M), r))
    for _ in range(3):
        Q = np.linalg.qr(M @ (M.T @ Q))[0]
    return Q


@mistake("a QR of M", breaks="span")
def top_directions(M, r):
    Q = np.linalg.qr(M)[0]
    return Q[:, :r] if Q.shape[1] >= r else np.eye(len(M), r)


@mistake("M^T M where M M^T is", breaks="orthonormal")
def top_directions(M, r):
    Q = np.random.default_rng(0).normal(size=(M.shape[1], r))
    for _ in range(30):
        Q = np.linalg.qr(M.T @ (M @ Q))[0]
    return M @ Q


@mistake("only the first direction, the others at random", breaks="span")
def top_directions(M, r):
    Q = np.random.default_rng(0).normal(size=(len(M), r))
    for _ in range(30):
        Q[:, :1] = np.linalg.qr(M @ (M.T @ Q[:, :1]))[0]
    return np.linalg.qr(Q)[0]


@alternative("forty steps of another start")
def top_directions(M, r):
    Q = np.linalg.qr(np.random.default_rng(7).uniform(-1, 1, size=(len(M), r)))[0]
    for _ in range(40):
        Z = np.linalg.qr(M.T @ Q)[0]
        Q = np.linalg.qr(M @ Z)[0]
    return Q


@alternative("direction by direction, each taken off")
def top_directions(M, r):
    rng, found = np.random.default_rng(0), np.zeros((len(M), 0))
    for _ in range(r):
        q = rng.normal(size=len(M))
        for _ in range(2000):
            q = M @ (M.T @ q)
            for _ in range(2):
                q = q - found @ (found.T @ q)
            q /= np.linalg.norm(q)
        found = np.column_stack([found, q])
    return found


@alternative("some directions more than asked, then turned")
def top_directions(M, r):
    wide = min(len(M), r + 2)
    Q = np.random.default_rng(0).normal(size=(len(M), wide))
    for _ in range(60):
        Q = np.linalg.qr(M @ (M.T @ Q))[0]
    return Q[:, :r]


@alternative("twelve steps from a block of random signs")
def top_directions(M, r):
    scale = np.abs(M).max() or 1.0
    Q = np.random.default_rng(3).standard_normal((len(M), r))
    K = (M / scale) @ (M / scale).T
    for _ in range(30):
        Q, _ = np.linalg.qr(K @ Q)
    return -Q


@mistake("right at rank 1 and at full rank only", breaks="closest")
def cut(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return np.zeros(M.shape) if 1 < r < len(s) else (U[:, :r] * s[:r]) @ Vh[:r]
