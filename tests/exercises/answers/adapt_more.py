"""Usual mistakes, and other right answers: what a step costs, one alpha, how much fits."""

import numpy as np

from tests.attempts import alternative, mistake


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
def rank_for_bits(bits, shapes, per_parameter):
    return bits // (per_parameter * sum(d + k for d, k in shapes))


@mistake("always one more", breaks="smallest")
def rank_for_bits(bits, shapes, per_parameter):
    return bits // (per_parameter * sum(d + k for d, k in shapes)) + 1


@mistake("full matrices", breaks="smallest")
def rank_for_bits(bits, shapes, per_parameter):
    return -(-bits // (per_parameter * sum(d * k for d, k in shapes)))


@alternative("rounded up in floating point")
def rank_for_bits(bits, shapes, per_parameter):
    return int(np.ceil(bits / (per_parameter * sum(d + k for d, k in shapes))))


@alternative("counted up")
def rank_for_bits(bits, shapes, per_parameter):
    rank = 0
    while rank * per_parameter * sum(sum(shape) for shape in shapes) < bits:
        rank += 1
    return rank


@mistake("r = 0 as a LoRA without parameters", breaks="full")
def step_multiplications(d, k, r):
    return 2 * d * k + 3 * r * (d + k)


@mistake("no way back through A and B", breaks="lora")
def step_multiplications(d, k, r):
    return 2 * d * k + 2 * r * (d + k) if r else 3 * d * k


@mistake("the product B A is formed", breaks="lora")
def step_multiplications(d, k, r):
    return 2 * d * k + d * k * r + 3 * r * (d + k) if r else 3 * d * k


@alternative("three times what is trained, twice what is frozen")
def step_multiplications(d, k, r):
    trained, frozen = (r * d + r * k, d * k) if r else (d * k, 0)
    return 3 * trained + 2 * frozen


@alternative("as a whole number of NumPy")
def step_multiplications(d, k, r):
    return np.int64(2 * d * k + 3 * r * (d + k)) if r > 0 else np.int64(3) * d * k


@alternative("a sum over the ways through a matrix")
def step_multiplications(d, k, r):
    matrices = [(d, k, 2), (d, r, 3), (r, k, 3)] if r else [(d, k, 3)]
    return sum(rows * columns * times for rows, columns, times in matrices)


@mistake("a root as in rsLoRA", breaks="same")
def one_alpha(B, own, alpha):
    return B * np.sqrt(own / alpha)


@mistake("whole numbers divided as such", breaks="same")
def one_alpha(B, own, alpha):
    return B * (own // alpha)


@alternative("divided last")
def one_alpha(B, own, alpha):
    return B * own / alpha


@alternative("a diagonal matrix")
def one_alpha(B, own, alpha):
    return B @ (np.eye(B.shape[1]) * (own / alpha))


@mistake("one number for each bit", breaks="smallest")
def rank_for_bits(bits, shapes, per_parameter):
    return -(-bits // sum(d + k for d, k in shapes))


@mistake("one matrix only", breaks="smallest")
def rank_for_bits(bits, shapes, per_parameter):
    d, k = shapes[0]
    return -(-bits // (per_parameter * (d + k)))


@mistake("at least one", breaks="smallest")
def rank_for_bits(bits, shapes, per_parameter):
    return max(1, -(-bits // (per_parameter * sum(d + k for d, k in shapes))))


@alternative("with a remainder")
def rank_for_bits(bits, shapes, per_parameter):
    rank, more = divmod(bits, per_parameter * np.sum(shapes))
    return int(rank) + bool(more)


@alternative("one less, rounded down, and one more")
def rank_for_bits(bits, shapes, per_parameter):
    return (bits - 1) // (per_parameter * sum(map(sum, shapes))) + 1
