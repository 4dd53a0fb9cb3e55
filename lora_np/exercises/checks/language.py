"""Laws of the lessons on language models."""

from __future__ import annotations

from functools import partial

import numpy as np

from lora_np.checks import Array
from lora_np.exercises.asking import Answer
from lora_np.exercises.drawing import Draw
from lora_np.exercises.laws import parts, real_array, same

# Adapt a language model


def measured(draw: Draw, answer: Answer, least: int = 0) -> tuple[Array, Array, float]:
    """Bits and perplexity as answered, and the mean loss; a label drawn below zero does not count."""
    n = draw.whole("n", 1, 5)
    nats, labels = draw.array("nats", n, low=0), np.rint(draw.array("labels", n, low=least, high=9))
    counts = labels >= 0
    draw.assume(counts.any())
    bits, perplexity = parts(
        "bits perplexity", answer(nats, np.where(counts, labels, -100).astype(int)), (), ()
    )
    return bits, perplexity, float(np.mean(nats[counts]))


def bits_and_perplexity_bits(draw: Draw, answer: Answer) -> None:
    bits, _, mean = measured(draw, answer)
    same("bits", bits, mean / np.log(2), size=1)


def bits_and_perplexity_perplexity(draw: Draw, answer: Answer) -> None:
    _, perplexity, mean = measured(draw, answer)
    same("perplexity", perplexity, np.exp(mean))


def bits_and_perplexity_ignored(draw: Draw, answer: Answer) -> None:
    bits, perplexity, mean = measured(draw, answer, least=-5)
    same("bits", bits, mean / np.log(2), size=1)
    same("perplexity", perplexity, np.exp(mean))


def head(draw: Draw, answer: Answer, reach: float) -> tuple[Array, Array]:
    """Weights as answered, and the right ones, row by row."""
    n, d = draw.sizes("nd", high=4)
    q, k = reach * draw.array("q", n, d), draw.array("k", n, d)
    right = np.zeros((n, n))
    for i in range(n):
        scores = k[: i + 1] @ q[i] / np.sqrt(d)
        exponentials = np.exp(scores - scores.max())
        right[i, : i + 1] = exponentials / exponentials.sum()
    return real_array("the matrix of weights", answer(q, k), (n, n)), right


def attention_weights_past(draw: Draw, answer: Answer) -> None:
    weights, _ = head(draw, answer, 1.0)
    same("the weights of later places", np.triu(weights, 1), np.zeros(weights.shape))
    same("the sum of each row", weights.sum(axis=1), np.ones(len(weights)))


def attention_weights_softmax(draw: Draw, answer: Answer) -> None:
    same("the weights", *head(draw, answer, 1.0))


def attention_weights_wide(draw: Draw, answer: Answer) -> None:
    same("the weights", *head(draw, answer, draw.pick("reach", (1000.0, 200.0))), tolerance=2e-3)


# Ask whether a LoRA is enough


def held(draw: Draw, answer: Answer, most: float) -> None:
    n, classes = draw.whole("n", 1, 5), draw.whole("classes", 2, 96)
    d, k, r = draw.sizes("dkr")
    losses = draw.array("losses", n, low=0, high=most)
    right = (n * np.log2(classes) - losses.sum() / np.log(2)) / (r * (d + k))
    same("the bits for each number", answer(losses, classes, d, k, r), right, size=1)


bits_per_number_bits = partial(held, most=5.0)
bits_per_number_numbers = partial(held, most=0.0)


def compared(draw: Draw, answer: Answer, seeds: int) -> None:
    contestants, rates = draw.sizes("contestants rates", high=4)
    base = draw.number("base", 7, 10)
    validation = draw.array("validation", contestants, rates, low=0, high=10)
    test = draw.array("test", contestants, rates, seeds, low=0, high=10)
    loss = np.array([test[i, list(row).index(min(row))].mean() for i, row in enumerate(validation)])
    draw.assume(base - loss[0] > 0.5)
    right = (base - loss) / (base - loss[0])
    same("the shares", answer(base, validation, test), right, size=20)


fair_shares_own = partial(compared, seeds=1)


def fair_shares_seeds(draw: Draw, answer: Answer) -> None:
    compared(draw, answer, draw.whole("seeds", 1, 4))
