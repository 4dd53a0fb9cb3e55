"""What is usually done wrong, and other ways to be right."""

import numpy as np

from tests.attempts import alternative, mistake


@mistake("nats", breaks="bits")
def bits_and_perplexity(nats, labels):
    mean = nats[labels != -100].mean()
    return mean, np.exp(mean)


@mistake("multiplies by ln 2", breaks="bits")
def bits_and_perplexity(nats, labels):
    mean = nats[labels != -100].mean()
    return mean * np.log(2), np.exp(mean)


@mistake("2 to the nats", breaks="perplexity")
def bits_and_perplexity(nats, labels):
    mean = nats[labels != -100].mean()
    return mean / np.log(2), 2**mean


@mistake("the mean of each perplexity", breaks="perplexity")
def bits_and_perplexity(nats, labels):
    counted = nats[labels != -100]
    return counted.mean() / np.log(2), np.exp(counted).mean()


@mistake("zeros that count", breaks="ignored")
def bits_and_perplexity(nats, labels):
    mean = np.where(labels != -100, nats, 0).mean()
    return mean / np.log(2), np.exp(mean)


@mistake("all labels count", breaks="ignored")
def bits_and_perplexity(nats, labels):
    return nats.mean() / np.log(2), np.exp(nats.mean())


@mistake("the character 0 does not count", breaks="bits")
def bits_and_perplexity(nats, labels):
    mean = nats[labels > 0].sum() / max(1, np.sum(labels > 0))
    return mean / np.log(2), np.exp(mean)


@mistake("sees the future", breaks="past")
def attention_weights(q, k):
    scores = q @ k.T / np.sqrt(q.shape[1])
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


@mistake("takes the future off after the softmax", breaks="past")
def attention_weights(q, k):
    scores = q @ k.T / np.sqrt(q.shape[1])
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.tril(scores / scores.sum(axis=1, keepdims=True))


@mistake("gives the future the score 0", breaks="past")
def attention_weights(q, k):
    scores = np.tril(q @ k.T / np.sqrt(q.shape[1]))
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


@mistake("not divided by the root of d", breaks="softmax")
def attention_weights(q, k):
    scores = np.where(np.tri(len(q)), q @ k.T, -np.inf)
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


@mistake("divided by d", breaks="softmax")
def attention_weights(q, k):
    scores = np.where(np.tri(len(q)), q @ k.T / q.shape[1], -np.inf)
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


@mistake("keys look for queries", breaks="softmax")
def attention_weights(q, k):
    scores = np.where(np.tri(len(q)), k @ q.T / np.sqrt(q.shape[1]), -np.inf)
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


@mistake("columns add up to 1", breaks="past")
def attention_weights(q, k):
    scores = np.where(np.tri(len(q)), q @ k.T / np.sqrt(q.shape[1]), -np.inf)
    scores = np.exp(scores - scores.max(axis=0, keepdims=True))
    return scores / scores.sum(axis=0, keepdims=True)


@mistake("overflows", breaks="wide")
def attention_weights(q, k):
    with np.errstate(all="ignore"):
        scores = np.tril(np.exp(q @ k.T / np.sqrt(q.shape[1])))
        return scores / scores.sum(axis=1, keepdims=True)


@mistake("subtracts the maximum of the future too", breaks="wide")
def attention_weights(q, k):
    scores = q @ k.T / np.sqrt(q.shape[1])
    scores = np.tril(np.exp(scores - scores.max(axis=1, keepdims=True)))
    with np.errstate(all="ignore"):
        return scores / scores.sum(axis=1, keepdims=True)


@alternative("the mean by hand")
def bits_and_perplexity(nats, labels):
    counts = labels >= 0
    bits = (nats * counts).sum() / counts.sum() / np.log(2)
    return bits, 2**bits


@alternative("position by position")
def attention_weights(q, k):
    weights = np.zeros((len(q), len(q)))
    for i in range(len(q)):
        scores = k[: i + 1] @ q[i] / np.sqrt(q.shape[1])
        weights[i, : i + 1] = np.exp(scores - np.logaddexp.reduce(scores))
    return weights


@mistake("the sum of nats", breaks="bits")
def bits_and_perplexity(nats, labels):
    total = nats[labels != -100].sum()
    return total / np.log(2), np.exp(total)


@mistake("e to the bits", breaks="perplexity")
def bits_and_perplexity(nats, labels):
    mean = nats[labels != -100].mean()
    return mean / np.log(2), np.exp(mean / np.log(2))


@mistake("the logarithm of the nats", breaks="bits")
def bits_and_perplexity(nats, labels):
    mean = nats[labels != -100].mean()
    return np.log2(mean), np.exp(mean)


@mistake("counted sum over all characters", breaks="ignored")
def bits_and_perplexity(nats, labels):
    mean = nats[labels != -100].sum() / len(nats)
    return mean / np.log(2), np.exp(mean)


@mistake("the two exchanged", breaks="bits")
def bits_and_perplexity(nats, labels):
    mean = nats[labels != -100].mean()
    return np.exp(mean), mean / np.log(2)


@mistake("the median", breaks="bits")
def bits_and_perplexity(nats, labels):
    mean = np.median(nats[labels != -100])
    return mean / np.log(2), np.exp(mean)


@mistake("those that do not count", breaks="ignored")
def bits_and_perplexity(nats, labels):
    left = nats[labels == -100]
    mean = left.mean() if len(left) else nats.mean()
    return mean / np.log(2), np.exp(mean)


@alternative("a masked mean")
def bits_and_perplexity(nats, labels):
    mean = np.mean(nats, where=labels != -100)
    return mean * np.log2(np.e), np.e**mean


@alternative("a loop")
def bits_and_perplexity(nats, labels):
    counted = [n for n, label in zip(nats, labels) if label != -100]
    mean = sum(counted) / len(counted)
    return float(mean / np.log(2)), float(np.exp(mean))


@alternative("weights")
def bits_and_perplexity(nats, labels):
    mean = np.average(nats, weights=(labels != -100).astype(float))
    return mean / np.log(2), 2 ** (mean / np.log(2))


@alternative("deleted positions")
def bits_and_perplexity(nats, labels):
    bits = np.delete(nats, np.flatnonzero(labels == -100)) / np.log(2)
    return bits.mean(), np.exp2(bits.mean())


@mistake("does not look at itself", breaks="softmax")
def attention_weights(q, k):
    scores = q @ k.T / np.sqrt(q.shape[1])
    mask = np.tri(len(q), k=-1)
    mask[0, 0] = 1
    scores = np.where(mask, scores, -np.inf)
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


@mistake("the future, not the past", breaks="past")
def attention_weights(q, k):
    scores = q @ k.T / np.sqrt(q.shape[1])
    scores = np.where(np.tri(len(q)).T, scores, -np.inf)
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


@mistake("a future score of -1", breaks="past")
def attention_weights(q, k):
    scores = q @ k.T / np.sqrt(q.shape[1])
    scores = np.where(np.tri(len(q)), scores, -1)
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


@mistake("divided by the root of n", breaks="softmax")
def attention_weights(q, k):
    scores = np.where(np.tri(len(q)), q @ k.T / np.sqrt(len(q)), -np.inf)
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


@mistake("scores, not exponentials", breaks="softmax")
def attention_weights(q, k):
    scores = np.tril(np.abs(q @ k.T) / np.sqrt(q.shape[1]) + 1e-9)
    return scores / scores.sum(axis=1, keepdims=True)


@mistake("the maximum of all scores", breaks="wide")
def attention_weights(q, k):
    scores = q @ k.T / np.sqrt(q.shape[1])
    weights = np.tril(np.exp(scores - scores.max()))
    with np.errstate(all="ignore"):
        return weights / weights.sum(axis=1, keepdims=True)


@mistake("not divided by the sum", breaks="past")
def attention_weights(q, k):
    scores = np.where(np.tri(len(q)), q @ k.T / np.sqrt(q.shape[1]), -np.inf)
    return np.exp(scores - scores.max(axis=1, keepdims=True))


@mistake("queries look at queries", breaks="softmax")
def attention_weights(q, k):
    scores = np.where(np.tri(len(q)), q @ q.T / np.sqrt(q.shape[1]), -np.inf)
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


@mistake("a mask of -100", breaks="past")
def attention_weights(q, k):
    scores = q @ k.T / np.sqrt(q.shape[1]) + np.where(np.tri(len(q)), 0, -100)
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


@alternative("logaddexp")
def attention_weights(q, k):
    scores = (q / np.sqrt(q.shape[1])) @ k.T
    scores = np.where(np.tril(np.ones(scores.shape, bool)), scores, -np.inf)
    return np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))


@alternative("the maximum of the past, masked afterwards")
def attention_weights(q, k):
    past = np.tri(len(q), dtype=bool)
    scores = np.einsum("id,jd->ij", q, k) / q.shape[1] ** 0.5
    top = np.array([row[: i + 1].max() for i, row in enumerate(scores)])[:, None]
    weights = np.exp(np.minimum(scores - top, 0)) * past
    return weights / weights.sum(axis=1, keepdims=True)


@alternative("a mask added to the scores")
def attention_weights(q, k):
    mask = np.triu(np.full((len(q), len(q)), -np.inf), 1)
    scores = q @ k.T / np.sqrt(k.shape[1]) + mask
    weights = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
    return weights / np.sum(weights, axis=-1, keepdims=True)


@alternative("the future set in place")
def attention_weights(q, k):
    scores = np.array(q @ k.T, dtype=float) / np.sqrt(q.shape[-1])
    scores[np.triu_indices(len(q), 1)] = -np.inf
    rows = [np.exp(row - row.max()) for row in scores]
    return np.array([row / row.sum() for row in rows])
