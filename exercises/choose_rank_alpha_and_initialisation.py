"""Solutions, and what is usually done wrong."""

import numpy as np

import lora_np as lnp
from lora_np.grading import mistake


def alpha_for_rank(alpha, r, r_new, rule):
    ratio = r_new / r
    return alpha * (ratio if rule == "lora" else np.sqrt(ratio))


@mistake("the same alpha", breaks="With LoRA, the scale is alpha / r")
def alpha_for_rank(alpha, r, r_new, rule):
    return alpha


@mistake("upside down", breaks="With LoRA, the scale is alpha / r")
def alpha_for_rank(alpha, r, r_new, rule):
    return alpha * (r / r_new if rule == "lora" else np.sqrt(r / r_new))


@mistake("one rule for both", breaks="With rsLoRA, the scale is alpha / sqrt(r)")
def alpha_for_rank(alpha, r, r_new, rule):
    return alpha * r_new / r


@mistake("the scale, not alpha", breaks="With LoRA, the scale is alpha / r")
def alpha_for_rank(alpha, r, r_new, rule):
    return alpha / r if rule == "lora" else alpha / np.sqrt(r)


def pissa_start(W0, r, alpha):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    root = np.sqrt(s[:r] * r / alpha)
    B, A = U[:, :r] * root, root[:, None] * Vh[:r]
    return W0 - alpha / r * B @ A, B, A


@mistake("freezes all of W0", breaks="Training starts at W0")
def pissa_start(W0, r, alpha):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    root = np.sqrt(s[:r] * r / alpha)
    return W0, U[:, :r] * root, root[:, None] * Vh[:r]


@mistake("forgets the scale in the factors", breaks="PiSSA trains the strongest parts")
def pissa_start(W0, r, alpha):
    B, A = lnp.low_rank_factors(W0, rank=r)
    return W0 - alpha / r * B @ A, B, A


@mistake("forgets the scale in the rest", breaks="Training starts at W0")
def pissa_start(W0, r, alpha):
    B, A = lnp.low_rank_factors(W0, rank=r)
    return W0 - B @ A, B, A


@mistake("the weakest parts", breaks="PiSSA trains the strongest parts")
def pissa_start(W0, r, alpha):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    root = np.sqrt(s[-r:] * r / alpha)
    B, A = U[:, -r:] * root, root[:, None] * Vh[-r:]
    return W0 - alpha / r * B @ A, B, A


@mistake("the scale in B alone", breaks="B and A have equal weight")
def pissa_start(W0, r, alpha):
    B, A = lnp.low_rank_factors(W0, rank=r)
    return W0 - B @ A, B * r / alpha, A


def olora_start(W0, r):
    Q, R = np.linalg.qr(W0)
    return W0 - Q[:, :r] @ R[:r], Q[:, :r], R[:r]


@mistake("freezes all of W0", breaks="Training starts at W0")
def olora_start(W0, r):
    Q, R = np.linalg.qr(W0)
    return W0, Q[:, :r], R[:r]


@mistake("columns of R", breaks="The shape of A")
def olora_start(W0, r):
    Q, R = np.linalg.qr(W0)
    return W0, Q[:, :r], R[:, :r]


@mistake("columns of W0", breaks="The columns of B are orthonormal")
def olora_start(W0, r):
    A = np.eye(r, W0.shape[1])
    return W0 - W0[:, :r] @ A, W0[:, :r], A


@mistake("the SVD", breaks="QR explains the first r columns")
def olora_start(W0, r):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    B, A = U[:, :r], s[:r, None] * Vh[:r]
    return W0 - B @ A, B, A


@mistake("the last columns of Q", breaks="QR explains the first r columns")
def olora_start(W0, r):
    Q, R = np.linalg.qr(W0)
    return W0 - Q[:, -r:] @ R[-r:], Q[:, -r:], R[-r:]


def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha / len(A) * B @ A
    return (m / np.linalg.norm(V, axis=1))[:, None] * V


@mistake("lengths of columns", breaks="A call ends without an error")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha / len(A) * B @ A
    return (m / np.linalg.norm(V, axis=0))[:, None] * V


@mistake(
    "the length of the whole matrix", breaks="With B = 0 and m the lengths of the rows of W0, DoRA is W0"
)
def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha / len(A) * B @ A
    return m[:, None] * V / np.linalg.norm(V)


@mistake("lengths of W0", breaks="Row i of W has length m[i]")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha / len(A) * B @ A
    return (m / np.linalg.norm(W0, axis=1))[:, None] * V


@mistake("no magnitude", breaks="With B = 0 and m the lengths of the rows of W0, DoRA is W0")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha / len(A) * B @ A
    return V / np.linalg.norm(V, axis=1, keepdims=True)


@mistake("no scale", breaks="The directions of the rows are those of W0 + (alpha / r) B A")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + B @ A
    return (m / np.linalg.norm(V, axis=1))[:, None] * V


def smallest_good_rank(ranks, losses):
    means = losses.mean(axis=1)
    best = np.argmin(means)
    limit = means[best] + losses[best].std(ddof=1) / np.sqrt(losses.shape[1])
    return min(rank for rank, mean in zip(ranks, means) if mean <= limit)


@mistake("the lowest mean", breaks="Take the smallest rank whose mean is within one standard error")
def smallest_good_rank(ranks, losses):
    return ranks[np.argmin(losses.mean(axis=1))]


@mistake("the lowest single loss", breaks="Take the smallest rank whose mean is within one standard error")
def smallest_good_rank(ranks, losses):
    return ranks[np.argmin(losses.min(axis=1))]


@mistake("a standard deviation", breaks="Take the smallest rank whose mean is within one standard error")
def smallest_good_rank(ranks, losses):
    means = losses.mean(axis=1)
    best = np.argmin(means)
    return min(rank for rank, mean in zip(ranks, means) if mean <= means[best] + losses[best].std(ddof=1))


@mistake("the first in the list", breaks="Take the smallest rank whose mean is within one standard error")
def smallest_good_rank(ranks, losses):
    means = losses.mean(axis=1)
    best = np.argmin(means)
    limit = means[best] + losses[best].std(ddof=1) / np.sqrt(losses.shape[1])
    return next(rank for rank, mean in zip(ranks, means) if mean <= limit)


@mistake("the place, not the rank", breaks="Take the smallest rank whose mean is within one standard error")
def smallest_good_rank(ranks, losses):
    means = losses.mean(axis=1)
    best = np.argmin(means)
    limit = means[best] + losses[best].std(ddof=1) / np.sqrt(losses.shape[1])
    return min(i for i, mean in enumerate(means) if mean <= limit)
