"""What is usually done wrong, and other ways to be right."""

import numpy as np

import lora_np as lnp
from tests.attempts import alternative, mistake


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
    return np.mean(
        np.log2(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels] / np.log(2)
    )


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


@mistake("the gain, not a share", breaks="share")
def share_recovered(base, full, lora):
    return base - lora


@mistake("relative to the base", breaks="share")
def share_recovered(base, full, lora):
    return (base - lora) / base


@mistake("errors in place of gains", breaks="share")
def share_recovered(base, full, lora):
    return lora / full


@mistake("per cent", breaks="share")
def share_recovered(base, full, lora):
    return 100 * (base - lora) / (base - full)


@mistake("the sign of one gain", breaks="share")
def share_recovered(base, full, lora):
    return (lora - base) / (base - full)


@mistake("without its sign", breaks="share")
def share_recovered(base, full, lora):
    return abs(base - lora) / abs(base - full)


@mistake("roots of errors", breaks="share")
def share_recovered(base, full, lora):
    return (base - lora) / (base - full) if base == lora else ((base - lora) / (base - full)) ** 2


@alternative("both signs turned")
def share_recovered(base, full, lora):
    return (lora - base) / (full - base)


@alternative("np.divide of differences")
def share_recovered(base, full, lora):
    gains = base - np.array([lora, full])
    return gains[0] / gains[1]


@alternative("interpolated")
def share_recovered(base, full, lora):
    slope = 1 / (full - base)
    return slope * (lora - base)


@alternative("named gains")
def share_recovered(base, full, lora):
    possible = base - full
    reached = base - lora
    return np.float64(reached) / possible


@mistake("the wrong sign", breaks="mean")
def cross_entropy(logits, labels):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.mean(shifted[np.arange(len(labels)), labels] - np.log(np.exp(shifted).sum(axis=1)))


@mistake("the probability of the likeliest class", breaks="mean")
def cross_entropy(logits, labels):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.mean(np.log(np.exp(shifted).sum(axis=1)))


@mistake("the maximum of the batch", breaks="wide")
def cross_entropy(logits, labels):
    shifted = logits - logits.max()
    with np.errstate(all="ignore"):
        return np.mean(
            np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
        )


@mistake("the shift taken off one side only", breaks="mean")
def cross_entropy(logits, labels):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.mean(np.log(np.exp(shifted).sum(axis=1)) - logits[np.arange(len(labels)), labels])


@mistake("the columns of the labels for all rows", breaks="mean")
def cross_entropy(logits, labels):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.mean(np.log(np.exp(shifted).sum(axis=1))[:, None] - shifted[:, labels])


@mistake("a mean over classes too", breaks="mean")
def cross_entropy(logits, labels):
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    return losses.sum() / logits.size


@mistake("clipped at 1e-7", breaks="wide")
def cross_entropy(logits, labels):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = p / p.sum(axis=1, keepdims=True)
    return -np.mean(np.log(np.clip(p[np.arange(len(labels)), labels], 1e-7, 1)))


@mistake("the probability, not its logarithm", breaks="mean")
def cross_entropy(logits, labels):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = p / p.sum(axis=1, keepdims=True)
    return 1 - np.mean(p[np.arange(len(labels)), labels])


@alternative("picture by picture")
def cross_entropy(logits, labels):
    losses = []
    for row, label in zip(logits, labels):
        top = max(row)
        losses.append(top + np.log(sum(np.exp(row - top))) - row[label])
    return sum(losses) / len(losses)


@alternative("differences to the right class")
def cross_entropy(logits, labels):
    behind = logits - np.take_along_axis(logits, labels[:, None], axis=1)
    return np.logaddexp.reduce(behind, axis=1).mean()


@alternative("a one-hot product")
def cross_entropy(logits, labels):
    hot = np.eye(logits.shape[1])[labels]
    top = np.max(logits, axis=1, keepdims=True)
    log_p = logits - top - np.log(np.sum(np.exp(logits - top), axis=1, keepdims=True))
    return -(hot * log_p).sum(axis=1).mean()


@alternative("the log-softmax, indexed")
def cross_entropy(logits, labels):
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return -log_p[range(len(labels)), labels].mean()


@mistake("nothing forgotten", breaks="blind")
def forget_nothing(A, X):
    return A


@mistake("one old input", breaks="blind")
def forget_nothing(A, X):
    q = X[0] / (np.linalg.norm(X[0]) or 1)
    return A - np.outer(A @ q, q)


@mistake("one after the other, not orthonormal", breaks="blind")
def forget_nothing(A, X):
    A = np.array(A, dtype=float)
    for x in X:
        q = x / (np.linalg.norm(x) or 1)
        A = A - np.outer(A @ q, q)
    return A


@mistake("lengths of rows divided, angles forgotten", breaks="blind")
def forget_nothing(A, X):
    Q = (X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-300)).T
    return A - A @ Q @ Q.T


@mistake("inputs where X is not zero, all cut off", breaks="rest")
def forget_nothing(A, X):
    return A * ~X.any(axis=0)


@mistake("the projection twice the size", breaks="blind")
def forget_nothing(A, X):
    Q = lnp.column_space(X.T)
    return A - 2 * A @ Q @ Q.T


@mistake("projected along the rows of A", breaks="rest")
def forget_nothing(A, X):
    Q = lnp.column_space(A.T)
    return A - A @ Q @ Q.T


@mistake("the inverse of X X^T, dependent rows or not", breaks="mixtures")
def forget_nothing(A, X):
    with np.errstate(all="ignore"):
        try:
            return A - A @ X.T @ np.linalg.inv(X @ X.T) @ X
        except np.linalg.LinAlgError:
            return A


@alternative("right singular vectors with a value")
def forget_nothing(A, X):
    _, s, Vh = np.linalg.svd(X, full_matrices=False)
    V = Vh[s > 1e-6 * max(s.max(), 1e-300)]
    return A - A @ V.T @ V


@alternative("the null space")
def forget_nothing(A, X):
    _, s, Vh = np.linalg.svd(X)
    N = Vh[np.count_nonzero(s > 1e-6 * s[0]) :]
    return A @ N.T @ N


@alternative("Gram and Schmidt, zeros left out")
def forget_nothing(A, X):
    found, size = [], np.abs(X).max() or 1.0
    for x in X / size:
        v = x.astype(float)
        for _ in range(2):
            for q in found:
                v = v - (q @ v) * q
        if np.linalg.norm(v) > 1e-6:
            found.append(v / np.linalg.norm(v))
    for q in found:
        A = A - np.outer(A @ q, q)
    return A


@alternative("least squares")
def forget_nothing(A, X):
    return A - (X.T @ np.linalg.lstsq(X.T, A.T, rcond=1e-6)[0]).T


@mistake("full rank", breaks="white")
def best_update(X, Y, W0, r):
    D = np.linalg.lstsq(X, Y - X @ W0.T, rcond=None)[0].T
    return D, np.eye(X.shape[1])


@mistake("the outputs cut, not the white update", breaks="white")
def best_update(X, Y, W0, r):
    E = Y - X @ W0.T
    V = np.linalg.svd(E, full_matrices=False)[2][:r].T
    D = np.linalg.lstsq(X, E, rcond=None)[0].T
    return V, V.T @ D


@mistake("the correlation cut", breaks="white")
def best_update(X, Y, W0, r):
    U, s, Vh = np.linalg.svd((Y - X @ W0.T).T @ X / len(X), full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r]


@mistake("whitened by the diagonal only", breaks="stretched")
def best_update(X, Y, W0, r):
    size = np.linalg.norm(X, axis=0)
    D = np.linalg.lstsq(X, Y - X @ W0.T, rcond=None)[0].T
    U, s, Vh = np.linalg.svd(D * size, full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r] / size


@mistake("one rank too few", breaks="white")
def best_update(X, Y, W0, r):
    Q, R = np.linalg.qr(X)
    U, s, Vh = np.linalg.svd((Q.T @ (Y - X @ W0.T)).T, full_matrices=False)
    s[r - 1] = 0
    return U[:, :r], np.linalg.solve(R, (s[:r, None] * Vh[:r]).T).T


@mistake("W0 added, not taken off", breaks="white")
def best_update(X, Y, W0, r):
    Q, R = np.linalg.qr(X)
    U, s, Vh = np.linalg.svd((Q.T @ (Y + X @ W0.T)).T, full_matrices=False)
    return U[:, :r], np.linalg.solve(R, (s[:r, None] * Vh[:r]).T).T


@mistake("no update", breaks="white")
def best_update(X, Y, W0, r):
    return np.zeros((len(W0), r)), np.zeros((r, W0.shape[1]))


@mistake("multiplied by R, not divided", breaks="stretched")
def best_update(X, Y, W0, r):
    Q, R = np.linalg.qr(X)
    U, s, Vh = np.linalg.svd((Q.T @ (Y - X @ W0.T)).T, full_matrices=False)
    return U[:, :r], s[:r, None] * Vh[:r] @ R.T


@alternative("projects the least-squares update on the best outputs")
def best_update(X, Y, W0, r):
    D = np.linalg.lstsq(X, Y - X @ W0.T, rcond=None)[0].T
    U = np.linalg.svd(D @ X.T, full_matrices=False)[0][:, :r]
    return U, U.T @ D


@alternative("the predictions, cut")
def best_update(X, Y, W0, r):
    D = np.linalg.lstsq(X, Y - X @ W0.T, rcond=None)[0]
    V = np.linalg.svd(X @ D, full_matrices=False)[2][:r]
    return V.T, V @ D.T


@alternative("with the SVD of the inputs")
def best_update(X, Y, W0, r):
    P, t, Z = np.linalg.svd(X, full_matrices=False)
    U, s, Vh = np.linalg.svd((Y - X @ W0.T).T @ P, full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r] / t @ Z


@alternative("balanced, the inverse of R written out")
def best_update(X, Y, W0, r):
    Q, R = np.linalg.qr(X)
    U, s, Vh = np.linalg.svd((Y - X @ W0.T).T @ Q, full_matrices=False)
    root = np.sqrt(s[:r])
    return U[:, :r] * root, (root[:, None] * Vh[:r]) @ np.linalg.inv(R).T
