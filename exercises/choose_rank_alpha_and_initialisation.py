"""What is usually done wrong, and other ways to be right."""

import numpy as np

import lora_np as lnp
from lora_np.grading import alternative, mistake


@mistake("the same alpha", breaks="lora")
def alpha_for_rank(alpha, r, r_new, rule):
    return alpha


@mistake("upside down", breaks="lora")
def alpha_for_rank(alpha, r, r_new, rule):
    return alpha * (r / r_new if rule == "lora" else np.sqrt(r / r_new))


@mistake("one rule for both", breaks="rslora")
def alpha_for_rank(alpha, r, r_new, rule):
    return alpha * r_new / r


@mistake("the scale, not alpha", breaks="lora")
def alpha_for_rank(alpha, r, r_new, rule):
    return alpha / r if rule == "lora" else alpha / np.sqrt(r)


@mistake("freezes all of W0", breaks="same")
def pissa_start(W0, r, alpha):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    root = np.sqrt(s[:r] * r / alpha)
    return W0, U[:, :r] * root, root[:, None] * Vh[:r]


@mistake("forgets the scale in the factors", breaks="strongest")
def pissa_start(W0, r, alpha):
    B, A = lnp.low_rank_factors(W0, rank=r)
    return W0 - alpha / r * B @ A, B, A


@mistake("forgets the scale in the rest", breaks="same")
def pissa_start(W0, r, alpha):
    B, A = lnp.low_rank_factors(W0, rank=r)
    return W0 - B @ A, B, A


@mistake("the weakest parts", breaks="strongest")
def pissa_start(W0, r, alpha):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    root = np.sqrt(s[-r:] * r / alpha)
    B, A = U[:, -r:] * root, root[:, None] * Vh[-r:]
    return W0 - alpha / r * B @ A, B, A


@mistake("the scale in B alone", breaks="balanced")
def pissa_start(W0, r, alpha):
    B, A = lnp.low_rank_factors(W0, rank=r)
    return W0 - B @ A, B * r / alpha, A


@mistake("freezes all of W0", breaks="same")
def olora_start(W0, r):
    Q, R = np.linalg.qr(W0)
    return W0, Q[:, :r], R[:r]


@mistake("columns of R", breaks="same")
def olora_start(W0, r):
    Q, R = np.linalg.qr(W0)
    return W0, Q[:, :r], R[:, :r]


@mistake("columns of W0", breaks="qr")
def olora_start(W0, r):
    A = np.eye(r, W0.shape[1])
    return W0 - W0[:, :r] @ A, W0[:, :r], A


@mistake("the SVD", breaks="qr")
def olora_start(W0, r):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    B, A = U[:, :r], s[:r, None] * Vh[:r]
    return W0 - B @ A, B, A


@mistake("the last columns of Q", breaks="qr")
def olora_start(W0, r):
    Q, R = np.linalg.qr(W0)
    return W0 - Q[:, -r:] @ R[-r:], Q[:, -r:], R[-r:]


@mistake("lengths of columns", breaks="lengths")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha / len(A) * B @ A
    return (m / np.linalg.norm(V, axis=0))[:, None] * V


@mistake("the length of the whole matrix", breaks="lengths")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha / len(A) * B @ A
    return m[:, None] * V / np.linalg.norm(V)


@mistake("lengths of W0", breaks="lengths")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha / len(A) * B @ A
    return (m / np.linalg.norm(W0, axis=1))[:, None] * V


@mistake("no magnitude", breaks="lengths")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha / len(A) * B @ A
    return V / np.linalg.norm(V, axis=1, keepdims=True)


@mistake("no scale", breaks="directions")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + B @ A
    return (m / np.linalg.norm(V, axis=1))[:, None] * V


@mistake("the lowest mean", breaks="error")
def smallest_good_rank(ranks, losses):
    return ranks[np.argmin(losses.mean(axis=1))]


@mistake("the lowest single loss", breaks="error")
def smallest_good_rank(ranks, losses):
    return ranks[np.argmin(losses.min(axis=1))]


@mistake("a standard deviation", breaks="error")
def smallest_good_rank(ranks, losses):
    means = losses.mean(axis=1)
    best = np.argmin(means)
    return min(rank for rank, mean in zip(ranks, means) if mean <= means[best] + losses[best].std(ddof=1))


@mistake("the first in the list", breaks="order")
def smallest_good_rank(ranks, losses):
    means = losses.mean(axis=1)
    best = np.argmin(means)
    limit = means[best] + losses[best].std(ddof=1) / np.sqrt(losses.shape[1])
    return next(rank for rank, mean in zip(ranks, means) if mean <= limit)


@mistake("the place, not the rank", breaks="error")
def smallest_good_rank(ranks, losses):
    means = losses.mean(axis=1)
    best = np.argmin(means)
    limit = means[best] + losses[best].std(ddof=1) / np.sqrt(losses.shape[1])
    return min(i for i, mean in enumerate(means) if mean <= limit)


@mistake("alpha over two", breaks="same")
def pissa_start(W0, r, alpha):
    B, A = lnp.low_rank_factors(W0, rank=r)
    half = np.sqrt(alpha / r)
    return W0 - alpha / 2 * B @ A / half**2, B / half, A / half


@mistake("alpha over two", breaks="directions")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha / 2 * B @ A
    return (m / np.linalg.norm(V, axis=1))[:, None] * V


@mistake("each rank its own standard error", breaks="error")
def smallest_good_rank(ranks, losses):
    means = losses.mean(axis=1)
    errors = losses.std(axis=1, ddof=1) / np.sqrt(losses.shape[1])
    return min(rank for rank, mean, error in zip(ranks, means, errors) if mean <= means.min() + error)


@alternative("factors of W0, divided by the root of the scale")
def pissa_start(W0, r, alpha):
    B, A = lnp.low_rank_factors(W0, rank=r)
    half = np.sqrt(alpha / r)
    return W0 - B @ A, B / half, A / half


@alternative("row by row")
def dora_weight(W0, A, B, m, alpha):
    W = []
    for i in range(len(W0)):
        v = W0[i] + alpha / len(A) * B[i] @ A
        W.append(m[i] * v / np.sqrt(v @ v))
    return W


@alternative("sorted by rank first")
def smallest_good_rank(ranks, losses):
    means = np.mean(losses, axis=1)
    best = losses[np.argmin(means)]
    error = np.sqrt(np.sum(np.square(best - best.mean())) / (len(best) - 1) / len(best))
    return next(ranks[i] for i in np.argsort(ranks) if means[i] <= means.min() + error)
