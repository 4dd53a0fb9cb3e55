"""What is usually done wrong, and other ways to be right."""

import numpy as np

import lora_np as lnp
from tests.attempts import alternative, mistake


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


@mistake("the weakest terms", breaks="strongest")
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
    return min(
        rank for rank, mean in zip(ranks, means) if mean <= means[best] + losses[best].std(ddof=1)
    )


@mistake("the first in the list", breaks="order")
def smallest_good_rank(ranks, losses):
    means = losses.mean(axis=1)
    best = np.argmin(means)
    limit = means[best] + losses[best].std(ddof=1) / np.sqrt(losses.shape[1])
    return next(rank for rank, mean in zip(ranks, means) if mean <= limit)


@mistake("the index, not the rank", breaks="error")
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
    return min(
        rank for rank, mean, error in zip(ranks, means, errors) if mean <= means.min() + error
    )


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


@mistake("the roots for the wrong rule", breaks="lora")
def alpha_for_rank(alpha, r, r_new, rule):
    return alpha * (np.sqrt(r_new / r) if rule == "lora" else r_new / r)


@mistake("the root for both", breaks="lora")
def alpha_for_rank(alpha, r, r_new, rule):
    return alpha * np.sqrt(r_new / r)


@mistake("twice the rank, as often advised", breaks="lora")
def alpha_for_rank(alpha, r, r_new, rule):
    return 2 * r_new


@mistake("the same for rsLoRA, as if it needed none", breaks="rslora")
def alpha_for_rank(alpha, r, r_new, rule):
    return alpha * r_new / r if rule == "lora" else alpha


@mistake("a whole ratio", breaks="lora")
def alpha_for_rank(alpha, r, r_new, rule):
    ratio = r_new // r
    return alpha * (ratio if rule == "lora" else np.sqrt(ratio))


@mistake("the difference of ranks", breaks="lora")
def alpha_for_rank(alpha, r, r_new, rule):
    return alpha + r_new - r


@mistake("alpha under the root", breaks="rslora")
def alpha_for_rank(alpha, r, r_new, rule):
    return alpha * r_new / r if rule == "lora" else np.sqrt(alpha * r_new / r)


@alternative("the scale first")
def alpha_for_rank(alpha, r, r_new, rule):
    if rule == "rslora":
        return alpha / r**0.5 * r_new**0.5
    return alpha / r * r_new


@alternative("a power for each rule")
def alpha_for_rank(alpha, r, r_new, rule):
    return alpha * (r_new / r) ** {"lora": 1, "rslora": 0.5}[rule]


@alternative("by logarithms")
def alpha_for_rank(alpha, r, r_new, rule):
    power = 1.0 if rule == "lora" else 0.5
    return np.exp(np.log(alpha) + power * (np.log(r_new) - np.log(r)))


@alternative("a function of the rank")
def alpha_for_rank(alpha, r, r_new, rule):
    size = (lambda n: n) if rule == "lora" else np.sqrt
    return alpha * size(r_new) / size(r)


@mistake("the root of the scale once more", breaks="strongest")
def pissa_start(W0, r, alpha):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    root = np.sqrt(s[:r]) * r / alpha
    B, A = U[:, :r] * root, root[:, None] * Vh[:r]
    return W0 - alpha / r * B @ A, B, A


@mistake("multiplied by alpha / r, not divided", breaks="strongest")
def pissa_start(W0, r, alpha):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    root = np.sqrt(s[:r] * alpha / r)
    B, A = U[:, :r] * root, root[:, None] * Vh[:r]
    return W0 - alpha / r * B @ A, B, A


@mistake("all singular values in B", breaks="balanced")
def pissa_start(W0, r, alpha):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    B, A = U[:, :r] * s[:r] * r / alpha, Vh[:r]
    return W0 - alpha / r * B @ A, B, A


@mistake("nothing is frozen", breaks="same")
def pissa_start(W0, r, alpha):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    root = np.sqrt(s[:r] * r / alpha)
    return np.zeros_like(W0), U[:, :r] * root, root[:, None] * Vh[:r]


@mistake("added, not taken off", breaks="same")
def pissa_start(W0, r, alpha):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    root = np.sqrt(s[:r] * r / alpha)
    B, A = U[:, :r] * root, root[:, None] * Vh[:r]
    return W0 + alpha / r * B @ A, B, A


@mistake("an ordinary start", breaks="strongest")
def pissa_start(W0, r, alpha):
    A = np.random.default_rng(0).normal(size=(r, W0.shape[1])) / np.sqrt(W0.shape[1])
    return W0, np.zeros((len(W0), r)), A


@mistake("alpha without the rank", breaks="same")
def pissa_start(W0, r, alpha):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    root = np.sqrt(s[:r] / alpha)
    B, A = U[:, :r] * root, root[:, None] * Vh[:r]
    return W0 - alpha * B @ A, B, A


@alternative("the rest from what is left")
def pissa_start(W0, r, alpha):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    S = np.diag(np.sqrt(s[:r] / (alpha / r)))
    return (U[:, r:] * s[r:]) @ Vh[r:], U[:, :r] @ S, S @ Vh[:r]


@alternative("other signs")
def pissa_start(W0, r, alpha):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    root = -np.sqrt(s[:r] * r / alpha)
    B, A = U[:, :r] * root, root[:, None] * Vh[:r]
    return W0 - (alpha / r) * (B @ A), B, A


@alternative("the SVD of W0 over the scale")
def pissa_start(W0, r, alpha):
    U, s, Vh = np.linalg.svd(W0 * (r / alpha), full_matrices=False)
    B, A = U[:, :r] * s[:r] ** 0.5, (s[:r] ** 0.5)[:, None] * Vh[:r]
    return W0 - (B * (alpha / r)) @ A, B, A


@alternative("turned")
def pissa_start(W0, r, alpha):
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(r, r)))[0]
    root = np.sqrt(s[:r] * r / alpha)
    B, A = U[:, :r] * root @ turn, turn.T @ (root[:, None] * Vh[:r])
    return W0 - alpha / r * B @ A, B, A


@mistake("Q and R whole", breaks="same")
def olora_start(W0, r):
    Q, R = np.linalg.qr(W0)
    return W0 - Q @ R, Q, R


@mistake("the QR of the transpose", breaks="qr")
def olora_start(W0, r):
    Q, R = np.linalg.qr(W0.T)
    B, A = R[:r].T, Q[:, :r].T
    return W0 - B @ A, B, A


@mistake("added, not taken off", breaks="same")
def olora_start(W0, r):
    Q, R = np.linalg.qr(W0)
    return W0 + Q[:, :r] @ R[:r], Q[:, :r], R[:r]


@mistake("A zero", breaks="qr")
def olora_start(W0, r):
    Q, R = np.linalg.qr(W0)
    return W0, Q[:, :r], np.zeros((r, W0.shape[1]))


@mistake("A explains the first columns only", breaks="qr")
def olora_start(W0, r):
    Q, R = np.linalg.qr(W0)
    A = np.zeros((r, W0.shape[1]))
    A[:, :r] = R[:r, :r]
    return W0 - Q[:, :r] @ A, Q[:, :r], A


@mistake("the first rows of W0 for A", breaks="qr")
def olora_start(W0, r):
    Q, R = np.linalg.qr(W0)
    A = np.resize(W0, (r, W0.shape[1]))
    return W0 - Q[:, :r] @ A, Q[:, :r], A


@mistake("the rest where the start is", breaks="same")
def olora_start(W0, r):
    Q, R = np.linalg.qr(W0)
    return Q[:, :r] @ R[:r], Q[:, :r], R[:r]


@alternative("the rest as the last terms")
def olora_start(W0, r):
    Q, R = np.linalg.qr(W0)
    return Q[:, r:] @ R[r:], Q[:, :r], R[:r]


@alternative("other signs")
def olora_start(W0, r):
    Q, R = np.linalg.qr(W0)
    B, A = -Q[:, :r], -R[:r]
    return W0 - B @ A, B, A


@alternative("a QR of the first columns, projected")
def olora_start(W0, r):
    B = np.linalg.qr(W0[:, :r])[0]
    A = B.T @ W0
    return W0 - B @ A, B, A


@alternative("the complete QR")
def olora_start(W0, r):
    Q, R = np.linalg.qr(W0, mode="complete")
    B, A = Q[:, :r], R[:r]
    return W0 - np.einsum("dr,rk->dk", B, A), B, A


@mistake("the row's largest entry for its length", breaks="lengths")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha / len(A) * B @ A
    return (m / np.abs(V).max(axis=1))[:, None] * V


@mistake("lengths squared", breaks="lengths")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha / len(A) * B @ A
    return (m / np.sum(V * V, axis=1))[:, None] * V


@mistake("the direction of W0 plus the update", breaks="lengths")
def dora_weight(W0, A, B, m, alpha):
    D = alpha / len(A) * B @ A
    return (m / np.linalg.norm(W0, axis=1))[:, None] * W0 + D


@mistake("the lengths as they are", breaks="lengths")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha / len(A) * B @ A
    return m[:, None] * V


@mistake("the sum of absolute values", breaks="lengths")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha / len(A) * B @ A
    return (m / np.abs(V).sum(axis=1))[:, None] * V


@mistake("lengths for signs", breaks="directions")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha / len(A) * B @ A
    return (m / np.linalg.norm(V, axis=1))[:, None] * np.abs(V)


@mistake("alpha without the rank", breaks="directions")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha * B @ A
    return (m / np.linalg.norm(V, axis=1))[:, None] * V


@mistake("without W0", breaks="lengths")
def dora_weight(W0, A, B, m, alpha):
    V = alpha / len(A) * B @ A
    with np.errstate(all="ignore"):
        return (m / np.linalg.norm(V, axis=1))[:, None] * V


@alternative("a diagonal matrix")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + (alpha / B.shape[1]) * (B @ A)
    return np.diag(m / np.sqrt(np.sum(V**2, axis=1))) @ V


@alternative("keepdims")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha * (B @ A) / len(A)
    return V / np.linalg.norm(V, axis=1, keepdims=True) * m.reshape(-1, 1)


@alternative("transposed")
def dora_weight(W0, A, B, m, alpha):
    V = (W0 + B * (alpha / len(A)) @ A).T
    return (V * m / np.linalg.norm(V, axis=0)).T


@alternative("by einsum")
def dora_weight(W0, A, B, m, alpha):
    V = W0 + alpha / len(A) * np.einsum("dr,rk->dk", B, A)
    return np.einsum("d,dk->dk", m / np.sqrt(np.einsum("dk,dk->d", V, V)), V)


@mistake("n in the denominator", breaks="error")
def smallest_good_rank(ranks, losses):
    means = losses.mean(axis=1)
    best = np.argmin(means)
    limit = means[best] + losses[best].std() / np.sqrt(losses.shape[1])
    return min(rank for rank, mean in zip(ranks, means) if mean <= limit)


@mistake("two standard errors", breaks="error")
def smallest_good_rank(ranks, losses):
    means = losses.mean(axis=1)
    best = np.argmin(means)
    limit = means[best] + 2 * losses[best].std(ddof=1) / np.sqrt(losses.shape[1])
    return min(rank for rank, mean in zip(ranks, means) if mean <= limit)


@mistake("the error of all losses together", breaks="error")
def smallest_good_rank(ranks, losses):
    means = losses.mean(axis=1)
    limit = means.min() + losses.std(ddof=1) / np.sqrt(losses.shape[1])
    return min(rank for rank, mean in zip(ranks, means) if mean <= limit)


@mistake("the root of the number of ranks", breaks="error")
def smallest_good_rank(ranks, losses):
    means = losses.mean(axis=1)
    best = np.argmin(means)
    limit = means[best] + losses[best].std(ddof=1) / np.sqrt(len(ranks))
    return min(rank for rank, mean in zip(ranks, means) if mean <= limit)


@mistake("means along the ranks", breaks="error")
def smallest_good_rank(ranks, losses):
    means = losses.mean(axis=0)
    best = np.argmin(means)
    return ranks[min(best, len(ranks) - 1)]


@mistake("the largest good rank", breaks="error")
def smallest_good_rank(ranks, losses):
    means = losses.mean(axis=1)
    best = np.argmin(means)
    limit = means[best] + losses[best].std(ddof=1) / np.sqrt(losses.shape[1])
    return max(rank for rank, mean in zip(ranks, means) if mean <= limit)


@mistake("the smallest rank", breaks="error")
def smallest_good_rank(ranks, losses):
    return min(ranks)


@mistake("divided by n, not its root", breaks="error")
def smallest_good_rank(ranks, losses):
    means = losses.mean(axis=1)
    best = np.argmin(means)
    limit = means[best] + losses[best].std(ddof=1) / losses.shape[1]
    return min(rank for rank, mean in zip(ranks, means) if mean <= limit)


@alternative("walks up the ranks")
def smallest_good_rank(ranks, losses):
    mean = {rank: np.mean(row) for rank, row in zip(ranks, losses)}
    best = min(ranks, key=mean.get)
    row = losses[list(ranks).index(best)]
    error = np.std(row, ddof=1) / len(row) ** 0.5
    sizes = sorted(ranks)
    while mean[sizes[0]] > mean[best] + error:
        sizes = sizes[1:]
    return sizes[0]


@alternative("a mask of arrays")
def smallest_good_rank(ranks, losses):
    means, ranks = losses.mean(axis=1), np.array(ranks)
    best = means.argmin()
    error = np.sqrt(losses[best].var(ddof=1) / losses.shape[1])
    return int(ranks[means - means[best] <= error].min())


@alternative("the variance by hand")
def smallest_good_rank(ranks, losses):
    n = losses.shape[1]
    means = losses.sum(axis=1) / n
    best = int(np.argmin(means))
    variance = ((losses[best] - means[best]) ** 2).sum() / (n - 1)
    return min(r for r, m in zip(ranks, means) if m <= means[best] + (variance / n) ** 0.5)


@alternative("sorted pairs")
def smallest_good_rank(ranks, losses):
    rows = sorted(zip(ranks, losses.tolist()))
    means = [np.mean(row) for _, row in rows]
    best = np.argmin(means)
    limit = means[best] + np.std(rows[best][1], ddof=1) / np.sqrt(len(rows[best][1]))
    return next(rank for (rank, _), mean in zip(rows, means) if mean <= limit)


@mistake("strictly less than the limit", breaks="error")
def smallest_good_rank(ranks, losses):
    means = losses.mean(axis=1)
    best = means.argmin()
    limit = means[best] + losses[best].std(ddof=1) / np.sqrt(losses.shape[1])
    return min([rank for rank, mean in zip(ranks, means) if mean < limit] + [ranks[best]])
