"""Usual mistakes, and other right answers: A prompt is an update of rank one."""

import numpy as np

from tests.attempts import alternative, mistake


@mistake("the weights of the other one", breaks="nats")
def kl_divergence(p, q):
    return np.sum(q * (np.log(q) - np.log(p)))


@mistake("the loss, with what nobody can avoid", breaks="nats")
def kl_divergence(p, q):
    return -np.sum(p * np.log(q))


@mistake("zero times infinity", breaks="zeros")
def kl_divergence(p, q):
    return np.sum(p * np.log(p / q))


@alternative("by a loop")
def kl_divergence(p, q):
    total = 0.0
    for one, other in zip(p, q):
        if one > 0:
            total += one * np.log(one / other)
    return total


@alternative("the loss of q without that of p")
def kl_divergence(p, q):
    safe = np.where(p > 0, p, 1)
    return -np.sum(p * np.log(q)) + np.sum(p * np.log(safe))


@mistake("a row that makes the length of z, not one", breaks="same")
def prompt_update(W, z, wanted):
    return (W @ (wanted - z))[:, None], z[None] / np.linalg.norm(z)


@mistake("one entry of z decides", breaks="others")
def prompt_update(W, z, wanted):
    i = np.argmax(np.abs(z))
    return (W @ (wanted - z))[:, None] / z[i], np.eye(len(z))[[i]]


@mistake("the whole output", breaks="same")
def prompt_update(W, z, wanted):
    return (W @ wanted)[:, None], z[None] / (z @ z)


@alternative("another split of the same product")
def prompt_update(W, z, wanted):
    length = np.linalg.norm(z)
    return (W @ (wanted - z))[:, None] / length, z[None] / length


@alternative("by the inverse of a row")
def prompt_update(W, z, wanted):
    return (W @ wanted - W @ z)[:, None], np.linalg.pinv(z[:, None], rcond=0)


@mistake("differences of probabilities", breaks="nats")
def kl_divergence(p, q):
    return np.sum(p * (p - q))


@mistake("bits", breaks="nats")
def kl_divergence(p, q):
    some = p > 0
    return np.sum(p[some] * np.log2(p[some] / q[some]))


@mistake("a mean over the entries", breaks="nats")
def kl_divergence(p, q):
    some = p > 0
    return np.mean(p[some] * np.log(p[some] / q[some]))


@alternative("infinity times zero avoided by where=")
def kl_divergence(p, q):
    logarithms = np.log(p / q, where=p > 0, out=np.zeros(len(p)))
    return float(p @ logarithms)


@alternative("a generator, in Python's own floats")
def kl_divergence(p, q):
    return sum(float(a * np.log(a / b)) for a, b in zip(p, q) if a)


@mistake("the other sign", breaks="same")
def prompt_update(W, z, wanted):
    return (W @ (z - wanted))[:, None], z[None] / (z @ z)


@mistake("an update that responds to the wanted input", breaks="same")
def prompt_update(W, z, wanted):
    return (W @ (wanted - z))[:, None], wanted[None] / (wanted @ wanted or 1.0)


@mistake("not divided", breaks="same")
def prompt_update(W, z, wanted):
    return (W @ (wanted - z))[:, None], z[None]


@alternative("A of length one")
def prompt_update(W, z, wanted):
    direction = z / np.linalg.norm(z)
    return np.outer(W @ (wanted - z), 1 / np.linalg.norm(z)), direction.reshape(1, -1)


@alternative("a sign on both sides")
def prompt_update(W, z, wanted):
    return (W @ (z - wanted))[:, None], -z[None] / (z @ z)


@mistake("with a small number in the logarithms", breaks="nats")
def kl_divergence(p, q):
    return np.sum(p * (np.log(p + 1e-6) - np.log(q + 1e-6)))


@mistake("with a smallest probability", breaks="nats")
def kl_divergence(p, q):
    q = np.maximum(q, 1e-9)
    some = p > 0
    return np.sum(p[some] * (np.log(p[some]) - np.log(q[some])))
