"""What is usually done wrong, and other ways to be right: what a step costs, one alpha, how much fits."""

import numpy as np

from lora_np.grading import alternative, mistake


@mistake("no gradient for the layer before", breaks="full")
def step_multiplications(d, k, r):
    return d * k + 3 * r * (d + k) if r else 2 * d * k


@mistake("the gradient of the frozen matrix as well", breaks="lora")
def step_multiplications(d, k, r):
    return 3 * d * k + 3 * r * (d + k)


@mistake("A and B as if merged", breaks="lora")
def step_multiplications(d, k, r):
    return 2 * d * k + r * (d + k) if r else 3 * d * k


@alternative("row by row of the lesson's table")
def step_multiplications(d, k, r):
    if r == 0:
        return d * k + d * k + d * k
    forward, of_b, of_a, back = d * k + r * k + d * r, d * r, d * r + r * k, d * k + r * k
    return forward + of_b + of_a + back


@mistake("the other way round", breaks="same")
def one_alpha(B, own, alpha):
    return B * (alpha / own)


@mistake("the rank divided out once more", breaks="same")
def one_alpha(B, own, alpha):
    return B * (own / alpha / B.shape[1])


@mistake("nothing to be done", breaks="same")
def one_alpha(B, own, alpha):
    return B


@mistake("the difference of the alphas", breaks="same")
def one_alpha(B, own, alpha):
    return B * (own - alpha)


@alternative("through the scales")
def one_alpha(B, own, alpha):
    r = B.shape[1]
    return (own / r) * np.asarray(B) / (alpha / r)


@alternative("entry by entry")
def one_alpha(B, own, alpha):
    return [[own * number / alpha for number in row] for row in B.tolist()]


@mistake("rounded down", breaks="smallest")
def rank_for_bits(bits, shapes, per_number):
    return bits // (per_number * sum(d + k for d, k in shapes))


@mistake("always one more", breaks="smallest")
def rank_for_bits(bits, shapes, per_number):
    return bits // (per_number * sum(d + k for d, k in shapes)) + 1


@mistake("full matrices", breaks="smallest")
def rank_for_bits(bits, shapes, per_number):
    return -(-bits // (per_number * sum(d * k for d, k in shapes)))


@alternative("rounded up in floating point")
def rank_for_bits(bits, shapes, per_number):
    return int(np.ceil(bits / (per_number * sum(d + k for d, k in shapes))))


@alternative("counted up")
def rank_for_bits(bits, shapes, per_number):
    rank = 0
    while rank * per_number * sum(sum(shape) for shape in shapes) < bits:
        rank += 1
    return rank
