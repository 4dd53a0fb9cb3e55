"""Exercises of *Count parameters*."""

from __future__ import annotations

from typing import Any

import numpy as np

from lora_np.exercises.old_laws import law, whole

Generator = np.random.Generator


def expect(name: str, what: str, got: object, right: int) -> None:
    number = whole(what, got)
    law(name, number == right, f"{what} must be {right:,}, got {number:,}")


def check_lora_count(answer: Any, rng: Generator) -> None:
    d, k = (int(n) for n in rng.choice(np.arange(3, 5000), 2, replace=False))
    r = int(rng.integers(1, 65))
    expect("B is d x r and A is r x k", "the count", answer(d, k, r), d * r + r * k)


def check_last_rank_that_saves(answer: Any, rng: Generator) -> None:
    square = 2 * int(rng.integers(2, 500))
    wide = (int(rng.integers(2, 9)), int(rng.integers(100, 5000)))
    for d, k in ((square, square), wide, wide[::-1], (1, 50)):
        r = whole("the rank", answer(d, k))
        law(
            "A rank saves if r (d + k) is strictly less than d k",
            r * (d + k) < d * k,
            f"rank {r} takes {r * (d + k):,} numbers, the full update {d * k:,}",
        )
        law(
            "The next rank after the last that saves does not save",
            (r + 1) * (d + k) >= d * k,
            f"rank {r + 1} takes {(r + 1) * (d + k):,} numbers, fewer than {d * k:,}",
        )


def check_rank_within(answer: Any, rng: Generator) -> None:
    shapes = [(int(d), int(k)) for d, k in rng.integers(10, 300, (int(rng.integers(2, 5)), 2))]
    one = sum(d + k for d, k in shapes)
    r = int(rng.integers(1, 40))
    name = "One rank for all: the budget pays r (d + k) for each matrix"
    for budget, right in ((r * one + one // 2, r), (r * one, r), (r * one - 1, r - 1), (one - 1, 0)):
        expect(name, f"the rank for {budget:,} numbers", answer(shapes, budget), right)


def check_attention_count(answer: Any, rng: Generator) -> None:
    layers, heads = int(rng.integers(2, 100)), 8 * int(rng.integers(1, 5))
    groups, width = int(rng.choice([2, 4, 8])), 64 * int(rng.integers(1, 9))
    r, d = int(rng.integers(1, 65)), heads * width
    narrow = heads // groups * width
    cost = {"q": r * (d + d), "k": r * (d + narrow), "v": r * (d + narrow), "o": r * (d + d)}
    laws = {"q": "The queries are as wide as the model", "v": "Grouped keys and values are narrower"}
    for targets in (["q"], ["v"], ["k", "o"], ["q", "k", "v", "o"]):
        right = layers * sum(cost[target] for target in targets)
        name = laws.get(targets[0] if len(targets) == 1 else "", "Every target counts in every layer")
        got = answer(layers, d, narrow, targets, r)
        expect(name, f"the count for {', '.join(targets)}", got, right)


def check_training_bytes(answer: Any, rng: Generator) -> None:
    base, trained = int(rng.integers(10**6, 10**9)), int(rng.integers(10**3, 10**6))
    first = whole("the bytes", answer(base, trained))
    per_base = whole("the bytes", answer(base + 1, trained)) - first
    per_trained = whole("the bytes", answer(base, trained + 1)) - first
    law(
        "A frozen number takes its 2 bytes and nothing else",
        per_base == 2,
        f"one more frozen number adds {per_base} bytes",
    )
    law(
        "A trained number takes itself, its gradient and two moments, 4 bytes each",
        per_trained == 16,
        f"one more trained number adds {per_trained} bytes",
    )
    expect("The base and what is trained add up", "the bytes", first, 2 * base + 16 * trained)
