"""What is usually done wrong, and other ways to be right."""

import numpy as np

from tests.attempts import alternative, mistake


@mistake("the smaller", breaks="share")
def chance_similarity(k, i, j):
    return min(i, j) / k


@mistake("not divided by the smaller", breaks="share")
def chance_similarity(k, i, j):
    return i * j / k


@mistake("cosines, not their squares", breaks="share")
def chance_similarity(k, i, j):
    return np.sqrt(max(i, j) / k)


@mistake("nothing in common", breaks="share")
def chance_similarity(k, i, j):
    return 0.0


@mistake("the product of both shares", breaks="share")
def chance_similarity(k, i, j):
    return (i / k) * (j / k) * k / i if j == k else i * j / k**2


@mistake("left singular vectors", breaks="turned")
def similarity(A1, A2, i, j):
    U1 = np.linalg.svd(A1, full_matrices=False)[0][:, :i]
    U2 = np.linalg.svd(A2, full_matrices=False)[0][:, :j]
    return np.square(U1.T @ U2).sum() / min(i, j)


@mistake("divides by the larger", breaks="phi")
def similarity(A1, A2, i, j):
    V1 = np.linalg.svd(A1, full_matrices=False)[2][:i]
    V2 = np.linalg.svd(A2, full_matrices=False)[2][:j]
    return np.square(V1 @ V2.T).sum() / max(i, j)


@mistake("the norm, not its square", breaks="phi")
def similarity(A1, A2, i, j):
    V1 = np.linalg.svd(A1, full_matrices=False)[2][:i]
    V2 = np.linalg.svd(A2, full_matrices=False)[2][:j]
    return np.sqrt(np.square(V1 @ V2.T).sum() / min(i, j))


@mistake("rows in place of singular vectors", breaks="turned")
def similarity(A1, A2, i, j):
    return np.square(A1[:i] @ A2[:j].T).sum() / min(i, j)


@mistake("pairs in order", breaks="phi")
def similarity(A1, A2, i, j):
    V1 = np.linalg.svd(A1, full_matrices=False)[2][:i]
    V2 = np.linalg.svd(A2, full_matrices=False)[2][:j]
    return np.square(np.diag(V1 @ V2.T)).sum() / min(i, j)


@mistake("all of W0", breaks="multiple")
def amplification(W0, dW, r):
    return np.linalg.norm(dW) / np.linalg.norm(W0)


@mistake("directions of W0", breaks="directions")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(W0)
    return np.linalg.norm(dW) / np.linalg.norm(U[:, :r].T @ W0 @ Vh[:r].T)


@mistake("upside down", breaks="multiple")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(dW)
    return np.linalg.norm(U[:, :r].T @ W0 @ Vh[:r].T) / np.linalg.norm(dW)


@mistake("the fine-tuned weight instead of the update", breaks="multiple")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(dW)
    return np.linalg.norm(U[:, :r].T @ (W0 + dW) @ Vh[:r].T) / np.linalg.norm(
        U[:, :r].T @ W0 @ Vh[:r].T
    )


@mistake("one side only", breaks="directions")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(dW)
    return np.linalg.norm(dW) / np.linalg.norm(U[:, :r].T @ W0)


@mistake("the same index only", breaks="home")
def intruders(W0, W, top, threshold):
    U0, U = np.linalg.svd(W0)[0][:, :top], np.linalg.svd(W)[0][:, :top]
    return [int(j) for j in np.flatnonzero(np.abs(np.sum(U0 * U, axis=0)) < threshold)]


@mistake("signs count", breaks="home")
def intruders(W0, W, top, threshold):
    U0, U = np.linalg.svd(W0)[0], np.linalg.svd(W)[0][:, :top]
    return [int(j) for j in np.flatnonzero((U0.T @ U).max(axis=0) < threshold)]


@mistake("right singular vectors", breaks="home")
def intruders(W0, W, top, threshold):
    V0, V = np.linalg.svd(W0)[2], np.linalg.svd(W)[2][:top]
    return [int(j) for j in np.flatnonzero(np.abs(V0 @ V.T).max(axis=0) < threshold)]


@mistake("those who are at home", breaks="home")
def intruders(W0, W, top, threshold):
    U0, U = np.linalg.svd(W0)[0], np.linalg.svd(W)[0][:, :top]
    return [int(j) for j in np.flatnonzero(np.abs(U0.T @ U).max(axis=0) >= threshold)]


@mistake("only against the leading ones of W0", breaks="home")
def intruders(W0, W, top, threshold):
    U0, U = np.linalg.svd(W0)[0][:, : top // 2], np.linalg.svd(W)[0][:, :top]
    return [int(j) for j in np.flatnonzero(np.abs(U0.T @ U).max(axis=0) < threshold)]


@mistake("looks at all", breaks="new")
def intruders(W0, W, top, threshold):
    U0, U = np.linalg.svd(W0)[0], np.linalg.svd(W)[0]
    return [int(j) for j in np.flatnonzero(np.abs(U0.T @ U).max(axis=0) < threshold)]


@mistake("the threshold of the lesson", breaks="new")
def intruders(W0, W, top, threshold):
    U0, U = np.linalg.svd(W0)[0], np.linalg.svd(W)[0][:, :top]
    return [int(j) for j in np.flatnonzero(np.abs(U0.T @ U).max(axis=0) < 0.6)]


@mistake("the weakest directions", breaks="directions")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(dW, full_matrices=False)
    return np.linalg.norm(dW) / np.linalg.norm(U[:, -r:].T @ W0 @ Vh[-r:].T)


@alternative("projections")
def similarity(A1, A2, i, j):
    V1, V2 = np.linalg.svd(A1)[2][:i].T, np.linalg.svd(A2)[2][:j].T
    return np.trace(V1 @ V1.T @ V2 @ V2.T) / min(i, j)


@alternative("one by one")
def intruders(W0, W, top, threshold):
    U0, U = np.linalg.svd(W0)[0], np.linalg.svd(W)[0]
    return [j for j in range(top) if all(abs(u @ U[:, j]) < threshold for u in U0.T)]


@mistake("the chance of one direction", breaks="share")
def chance_similarity(k, i, j):
    return 1 / k


@mistake("the sum of both", breaks="share")
def chance_similarity(k, i, j):
    return (i + j) / k


@mistake("the first of the two", breaks="share")
def chance_similarity(k, i, j):
    return i / k


@mistake("the second of the two", breaks="share")
def chance_similarity(k, i, j):
    return j / k


@mistake("an even chance", breaks="share")
def chance_similarity(k, i, j):
    return 0.5


@mistake("divided by the larger", breaks="share")
def chance_similarity(k, i, j):
    return i * j / k / max(i, j)


@mistake("rounded down", breaks="share")
def chance_similarity(k, i, j):
    return max(i, j) // k


@mistake("the mean of the two", breaks="share")
def chance_similarity(k, i, j):
    return (i + j) / 2 / k


@alternative("as it is derived")
def chance_similarity(k, i, j):
    return i * j / k / min(i, j)


@alternative("pair by pair")
def chance_similarity(k, i, j):
    return sum(1 / k for _ in range(i) for _ in range(j)) / min(i, j)


@alternative("sorted")
def chance_similarity(k, i, j):
    return sorted([i, j])[1] / k


@alternative("an array's largest")
def chance_similarity(k, i, j):
    return np.max([i, j]) * (1.0 / k)


@mistake("the strongest of one, all of the other", breaks="phi")
def similarity(A1, A2, i, j):
    V1 = np.linalg.svd(A1, full_matrices=False)[2][:i]
    V2 = np.linalg.svd(A2, full_matrices=False)[2]
    return np.square(V1 @ V2.T).sum() / min(i, j)


@mistake("divided by the product", breaks="turned")
def similarity(A1, A2, i, j):
    V1 = np.linalg.svd(A1, full_matrices=False)[2][:i]
    V2 = np.linalg.svd(A2, full_matrices=False)[2][:j]
    return np.square(V1 @ V2.T).sum() / (i * j)


@mistake("cosines without squares", breaks="phi")
def similarity(A1, A2, i, j):
    V1 = np.linalg.svd(A1, full_matrices=False)[2][:i]
    V2 = np.linalg.svd(A2, full_matrices=False)[2][:j]
    return np.abs(V1 @ V2.T).sum() / min(i, j)


@mistake("the largest cosine", breaks="phi")
def similarity(A1, A2, i, j):
    V1 = np.linalg.svd(A1, full_matrices=False)[2][:i]
    V2 = np.linalg.svd(A2, full_matrices=False)[2][:j]
    return np.square(V1 @ V2.T).max()


@mistake("i and j exchanged", breaks="phi")
def similarity(A1, A2, i, j):
    V1 = np.linalg.svd(A1, full_matrices=False)[2][:j]
    V2 = np.linalg.svd(A2, full_matrices=False)[2][:i]
    return np.square(V1 @ V2.T).sum() / min(i, j)


@mistake("rows of length one, not orthonormal", breaks="turned")
def similarity(A1, A2, i, j):
    V1 = A1[:i] / np.maximum(np.linalg.norm(A1[:i], axis=1, keepdims=True), 1e-300)
    V2 = A2[:j] / np.maximum(np.linalg.norm(A2[:j], axis=1, keepdims=True), 1e-300)
    return np.square(V1 @ V2.T).sum() / min(i, j)


@mistake("an orthonormal basis of rows, not the top ones", breaks="turned")
def similarity(A1, A2, i, j):
    V1 = np.linalg.qr(A1.T)[0][:, :i]
    V2 = np.linalg.qr(A2.T)[0][:, :j]
    return np.square(V1.T @ V2).sum() / min(i, j)


@mistake("the weakest directions", breaks="phi")
def similarity(A1, A2, i, j):
    V1 = np.linalg.svd(A1, full_matrices=False)[2][-i:]
    V2 = np.linalg.svd(A2, full_matrices=False)[2][-j:]
    return np.square(V1 @ V2.T).sum() / min(i, j)


@alternative("squares of singular values")
def similarity(A1, A2, i, j):
    V1, V2 = np.linalg.svd(A1)[2][:i], np.linalg.svd(A2)[2][:j]
    return (np.linalg.svdvals(V1 @ V2.T) ** 2).sum() / min(i, j)


@alternative("the norm, squared")
def similarity(A1, A2, i, j):
    V1 = np.linalg.svd(A1, full_matrices=False)[2][:i].T
    V2 = np.linalg.svd(A2, full_matrices=False)[2][:j].T
    return np.linalg.norm(V1.T @ V2, "fro") ** 2 / min(i, j)


@alternative("pair by pair")
def similarity(A1, A2, i, j):
    V1, V2 = np.linalg.svd(A1)[2], np.linalg.svd(A2)[2]
    return sum((V1[a] @ V2[b]) ** 2 for a in range(i) for b in range(j)) / min(i, j)


@alternative("the left vectors of the transposes")
def similarity(A1, A2, i, j):
    U1, U2 = np.linalg.svd(A1.T)[0][:, :i], np.linalg.svd(A2.T)[0][:, :j]
    return np.einsum("ka,kb->ab", U1, U2).ravel() @ (U1.T @ U2).ravel() / min(i, j)


@mistake("the top of W0's own spectrum", breaks="directions")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(dW)
    return np.linalg.norm(dW) / np.linalg.norm(np.linalg.svdvals(W0)[:r])


@mistake("the update's strongest values only, halved space", breaks="multiple")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(dW)
    return s[0] / np.linalg.norm(U[:, :r].T @ W0 @ Vh[:r].T)


@mistake("the update's top r only", breaks="multiple")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(dW)
    return np.linalg.norm(s[:r]) / np.linalg.norm(U[:, :r].T @ W0 @ Vh[:r].T)


@mistake("squares of norms", breaks="multiple")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(dW)
    return (np.linalg.norm(dW) / np.linalg.norm(U[:, :r].T @ W0 @ Vh[:r].T)) ** 2


@mistake("the largest singular values", breaks="multiple")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(dW)
    return np.linalg.norm(dW, 2) / np.linalg.norm(U[:, :r].T @ W0 @ Vh[:r].T, 2)


@mistake("only pairs in order", breaks="directions")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(dW)
    return np.linalg.norm(dW) / np.linalg.norm(np.diag(U[:, :r].T @ W0 @ Vh[:r].T))


@mistake("left and right exchanged", breaks="multiple")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(dW.T)
    return np.linalg.norm(dW) / np.linalg.norm(np.resize(U[:, :r].T @ W0.T, (r, r)))


@mistake("one direction", breaks="multiple")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(dW)
    return np.linalg.norm(dW) / np.linalg.norm(U[:, :1].T @ W0 @ Vh[:1].T)


@alternative("projections")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(dW, full_matrices=False)
    P, Q = U[:, :r] @ U[:, :r].T, Vh[:r].T @ Vh[:r]
    return np.linalg.norm(dW) / np.linalg.norm(P @ W0 @ Q)


@alternative("sums of squares")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(dW, full_matrices=False)
    inner = np.einsum("di,dk,ik->i" if r == 1 else "di,dk,jk->ij", U[:, :r], W0, Vh[:r])
    return np.sqrt(np.square(s).sum() / np.square(inner).sum())


@alternative("pair by pair")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(dW)
    heard = sum((U[:, i] @ W0 @ Vh[j]) ** 2 for i in range(r) for j in range(r))
    return np.linalg.norm(dW) / heard**0.5


@alternative("from the transpose")
def amplification(W0, dW, r):
    V, s, Uh = np.linalg.svd(dW.T, full_matrices=False)
    return np.linalg.norm(s) / np.linalg.norm(V[:, :r].T @ W0.T @ Uh[:r].T)


@mistake("below or equal for any", breaks="home")
def intruders(W0, W, top, threshold):
    U0, U = np.linalg.svd(W0)[0], np.linalg.svd(W)[0][:, :top]
    return [int(j) for j in np.flatnonzero(np.abs(U0.T @ U).min(axis=0) < threshold)]


@mistake("the mean cosine", breaks="home")
def intruders(W0, W, top, threshold):
    U0, U = np.linalg.svd(W0)[0], np.linalg.svd(W)[0][:, :top]
    return [int(j) for j in np.flatnonzero(np.abs(U0.T @ U).mean(axis=0) < threshold)]


@mistake("indices counted from one", breaks="new")
def intruders(W0, W, top, threshold):
    U0, U = np.linalg.svd(W0)[0], np.linalg.svd(W)[0][:, :top]
    return [int(j) + 1 for j in np.flatnonzero(np.abs(U0.T @ U).max(axis=0) < threshold)]


@mistake("how many, not which", breaks="home")
def intruders(W0, W, top, threshold):
    U0, U = np.linalg.svd(W0)[0], np.linalg.svd(W)[0][:, :top]
    return int(np.count_nonzero(np.abs(U0.T @ U).max(axis=0) < threshold))


@mistake("indices in W0", breaks="new")
def intruders(W0, W, top, threshold):
    U0, U = np.linalg.svd(W0)[0][:, :top], np.linalg.svd(W)[0]
    return [int(j) for j in np.flatnonzero(np.abs(U0.T @ U).max(axis=1) < threshold)]


@mistake("squared cosines", breaks="new")
def intruders(W0, W, top, threshold):
    U0, U = np.linalg.svd(W0)[0], np.linalg.svd(W)[0][:, :top]
    return [int(j) for j in np.flatnonzero(np.square(U0.T @ U).max(axis=0) < threshold)]


@mistake("the update's directions", breaks="home")
def intruders(W0, W, top, threshold):
    U0, U = np.linalg.svd(W0)[0], np.linalg.svd(W - W0)[0][:, :top]
    return [int(j) for j in np.flatnonzero(np.abs(U0.T @ U).max(axis=0) < threshold)]


@mistake("against the same number of W0's only", breaks="home")
def intruders(W0, W, top, threshold):
    U0, U = np.linalg.svd(W0)[0][:, :top], np.linalg.svd(W)[0][:, :top]
    return [int(j) for j in np.flatnonzero(np.abs(U0.T @ U).max(axis=0) < threshold)]


@alternative("an infinity norm")
def intruders(W0, W, top, threshold):
    cosines = np.linalg.svd(W0)[0].T @ np.linalg.svd(W)[0][:, :top]
    return [j for j in range(top) if np.linalg.norm(cosines[:, j], np.inf) < threshold]


@alternative("those that are not at home")
def intruders(W0, W, top, threshold):
    U0, U = np.linalg.svd(W0)[0], np.linalg.svd(W)[0]
    home = {j for j in range(top) for u in U0.T if not abs(u @ U[:, j]) < threshold}
    return sorted(set(range(top)) - home)


@alternative("the transposes' right vectors")
def intruders(W0, W, top, threshold):
    V0, V = np.linalg.svd(W0.T)[2], np.linalg.svd(W.T)[2][:top]
    return np.flatnonzero((np.abs(V @ V0.T) < threshold).all(axis=1)).tolist()


@alternative("as an array")
def intruders(W0, W, top, threshold):
    closest = np.max(
        np.abs(np.einsum("di,dj->ij", np.linalg.svd(W0)[0], np.linalg.svd(W)[0])), axis=0
    )
    return np.nonzero(closest[:top] < threshold)[0]
