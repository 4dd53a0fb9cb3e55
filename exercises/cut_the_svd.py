"""What is usually done wrong, and other ways to be right."""

import numpy as np

import lora_np as lnp
from lora_np.grading import alternative, mistake


@mistake("forgets the singular values", breaks="closest")
def cut(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return U[:, :r] @ Vh[:r]


@mistake("keeps the weakest parts", breaks="closest")
def cut(M, r):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return (U[:, -r:] * s[-r:]) @ Vh[-r:]


@mistake("one part too many", breaks="closest")
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
    return np.array([np.sqrt(squares[r:].sum() / squares.sum()) for r in range(1, len(squares) + 1)])


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
