"""What is usually done wrong, and other ways to be right."""

import numpy as np

from lora_np.grading import alternative, mistake


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


@alternative("place by place")
def attention_weights(q, k):
    weights = np.zeros((len(q), len(q)))
    for i in range(len(q)):
        scores = k[: i + 1] @ q[i] / np.sqrt(q.shape[1])
        weights[i, : i + 1] = np.exp(scores - np.logaddexp.reduce(scores))
    return weights
