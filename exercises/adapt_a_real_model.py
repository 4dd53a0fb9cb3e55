"""What is usually done wrong, and other ways to be right."""

import numpy as np

import lora_np as lnp
from lora_np.grading import alternative, mistake


@mistake("a ratio of errors", breaks="share")
def share_recovered(base, full, lora):
    return full / lora


@mistake("upside down", breaks="share")
def share_recovered(base, full, lora):
    return (base - full) / (base - lora) if base != lora else 1.0


@mistake("what is missing", breaks="share")
def share_recovered(base, full, lora):
    return (lora - full) / (base - full)


@mistake("never above 1", breaks="share")
def share_recovered(base, full, lora):
    return min(1.0, max(0.0, (base - lora) / (base - full)))


@mistake("overflows", breaks="wide")
def cross_entropy(logits, labels):
    with np.errstate(all="ignore"):
        return np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels])


@mistake("the sum of the batch", breaks="mean")
def cross_entropy(logits, labels):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.sum(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels])


@mistake("a loss for each picture", breaks="mean")
def cross_entropy(logits, labels):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]


@mistake("bits", breaks="mean")
def cross_entropy(logits, labels):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.mean(np.log2(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels] / np.log(2))


@mistake("the logarithm of the mean", breaks="mean")
def cross_entropy(logits, labels):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = shifted[np.arange(len(labels)), labels] / shifted.sum(axis=1)
    return -np.log(np.mean(p))


@mistake("keeps what it should lose", breaks="blind")
def forget_nothing(A, X):
    Q = lnp.column_space(X.T)
    return A @ Q @ Q.T


@mistake("directions that are not orthonormal", breaks="blind")
def forget_nothing(A, X):
    return A - A @ X.T @ X


@mistake("one direction too many, from dependent rows", breaks="mixtures")
def forget_nothing(A, X):
    Q, _ = np.linalg.qr(X.T)
    return A - A @ Q @ Q.T


@mistake("forgets everything", breaks="rest")
def forget_nothing(A, X):
    return 0 * A


@mistake("only the mean of the old inputs", breaks="blind")
def forget_nothing(A, X):
    q = X.mean(axis=0) / np.linalg.norm(X.mean(axis=0))
    return A - np.outer(A @ q, q)


@mistake("cuts the least-squares update", breaks="stretched")
def best_update(X, Y, W0, r):
    update = np.linalg.lstsq(X, Y - X @ W0.T)[0].T
    return lnp.low_rank_factors(update, rank=r)


@mistake("as if W0 were not there", breaks="white")
def best_update(X, Y, W0, r):
    Q, R = np.linalg.qr(X)
    U, s, Vh = np.linalg.svd((Q.T @ Y).T, full_matrices=False)
    return U[:, :r], np.linalg.solve(R, (s[:r, None] * Vh[:r]).T).T


@mistake("does not turn back", breaks="white")
def best_update(X, Y, W0, r):
    Q, R = np.linalg.qr(X)
    U, s, Vh = np.linalg.svd((Q.T @ (Y - X @ W0.T)).T, full_matrices=False)
    return U[:, :r], s[:r, None] * Vh[:r]


@mistake("turns back with R in place of its transpose", breaks="stretched")
def best_update(X, Y, W0, r):
    Q, R = np.linalg.qr(X)
    U, s, Vh = np.linalg.svd((Q.T @ (Y - X @ W0.T)).T, full_matrices=False)
    return U[:, :r], np.linalg.solve(R.T, (s[:r, None] * Vh[:r]).T).T


@mistake("the weakest directions", breaks="white")
def best_update(X, Y, W0, r):
    Q, R = np.linalg.qr(X)
    U, s, Vh = np.linalg.svd((Q.T @ (Y - X @ W0.T)).T, full_matrices=False)
    return U[:, -r:], np.linalg.solve(R, (s[-r:, None] * Vh[-r:]).T).T


@mistake("the softmax first, then its logarithm", breaks="wide")
def cross_entropy(logits, labels):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = p / p.sum(axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        return -np.mean(np.log(p[np.arange(len(labels)), labels]))


@alternative("what is left of the gain")
def share_recovered(base, full, lora):
    return 1 - (lora - full) / (base - full)


@alternative("NumPy's logaddexp")
def cross_entropy(logits, labels):
    return np.mean(np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(labels)), labels])


@alternative("the pseudo-inverse")
def forget_nothing(A, X):
    return A - A @ np.linalg.pinv(X, rcond=1e-6) @ X


@alternative("whitened by eigenvectors")
def best_update(X, Y, W0, r):
    values, V = np.linalg.eigh(X.T @ X)
    root, inverse = V * np.sqrt(values) @ V.T, V / np.sqrt(values) @ V.T
    D = np.linalg.lstsq(X, Y - X @ W0.T, rcond=None)[0].T
    U, s, Vh = np.linalg.svd(D @ root, full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r] @ inverse
