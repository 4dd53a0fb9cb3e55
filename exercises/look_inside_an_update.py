"""What is usually done wrong, and other ways to be right."""

import numpy as np

from lora_np.grading import alternative, mistake


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


@mistake("the tuned weight in place of the update", breaks="multiple")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(dW)
    return np.linalg.norm(U[:, :r].T @ (W0 + dW) @ Vh[:r].T) / np.linalg.norm(U[:, :r].T @ W0 @ Vh[:r].T)


@mistake("one side only", breaks="directions")
def amplification(W0, dW, r):
    U, s, Vh = np.linalg.svd(dW)
    return np.linalg.norm(dW) / np.linalg.norm(U[:, :r].T @ W0)


@mistake("the same place only", breaks="home")
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
