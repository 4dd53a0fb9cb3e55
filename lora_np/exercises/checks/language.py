"""Laws of the lessons on language models."""

from __future__ import annotations

import numpy as np

from lora_np.exercises.asking import Answer
from lora_np.exercises.drawing import Draw
from lora_np.exercises.laws import TOLERANCE, parts, real_array, same

# Adapt a language model


def bits_and_perplexity(draw: Draw, answer: Answer, key: str) -> None:
    n = draw.whole("n", 1, 5)
    least = -5 if key == "ignored" else 0  # a label drawn below zero does not count
    nats, labels = draw.array("nats", n, low=0), np.rint(draw.array("labels", n, low=least, high=9))
    counts = labels >= 0
    draw.assume(counts.any())
    answered = answer(nats, np.where(counts, labels, -100).astype(int))
    bits, perplexity = parts("bits perplexity", answered, (), ())
    mean = float(np.mean(nats[counts]))
    if key != "perplexity":
        same("bits", bits, mean / np.log(2), size=1)
    if key != "bits":
        same("perplexity", perplexity, np.exp(mean))


def attention_weights(draw: Draw, answer: Answer, key: str) -> None:
    reach = draw.pick("reach", (1000.0, 200.0)) if key == "wide" else 1.0
    n, d = draw.sizes("nd", high=4)
    q, k = reach * draw.array("q", n, d), draw.array("k", n, d)
    right = np.zeros((n, n))
    for i in range(n):
        scores = k[: i + 1] @ q[i] / np.sqrt(d)
        exponentials = np.exp(scores - scores.max())
        right[i, : i + 1] = exponentials / exponentials.sum()
    weights = real_array("the matrix of weights", answer(q, k), (n, n))
    if key == "past":
        same("the weights of later places", np.triu(weights, 1), np.zeros(weights.shape))
        same("the sum of each row", weights.sum(axis=1), np.ones(len(weights)))
    else:
        same("the weights", weights, right, tolerance=2e-3 if key == "wide" else TOLERANCE)


# Ask whether a LoRA is enough


def bits_per_number(draw: Draw, answer: Answer, key: str) -> None:
    n, classes = draw.whole("n", 1, 5), draw.whole("classes", 2, 96)
    d, k, r = draw.sizes("dkr")
    losses = draw.array("losses", n, low=0, high=5.0 if key == "bits" else 0.0)
    right = (n * np.log2(classes) - losses.sum() / np.log(2)) / (r * (d + k))
    same("the bits for each number", answer(losses, classes, d, k, r), right, size=1)


def fair_shares(draw: Draw, answer: Answer, key: str) -> None:
    seeds = draw.whole("seeds", 1, 4) if key == "seeds" else 1
    contestants, rates = draw.sizes("contestants rates", high=4)
    base = draw.number("base", 7, 10)
    validation = draw.array("validation", contestants, rates, low=0, high=10)
    test = draw.array("test", contestants, rates, seeds, low=0, high=10)
    loss = np.array([test[i, list(row).index(min(row))].mean() for i, row in enumerate(validation)])
    draw.assume(base - loss[0] > 0.5)
    right = (base - loss) / (base - loss[0])
    same("the shares", answer(base, validation, test), right, size=20)
