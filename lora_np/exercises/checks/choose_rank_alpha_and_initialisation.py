"""Exercises of *Choose rank, alpha and initialisation*."""

from __future__ import annotations

from typing import Any

import numpy as np

from lora_np.exercises.old_laws import law, orthonormal, parts, real_array, same, whole
from lora_np.exercises.old_samples import sizes, with_spectrum

Generator = np.random.Generator


def check_alpha_for_rank(answer: Any, rng: Generator) -> None:
    alpha, r = float(rng.integers(4, 65)), int(rng.integers(2, 9))
    r_new = r * int(rng.choice([4, 9]))
    same(
        "With LoRA, the scale is alpha / r",
        "the new alpha",
        answer(alpha, r, r_new, "lora"),
        alpha * r_new / r,
    )
    same(
        "With rsLoRA, the scale is alpha / sqrt(r)",
        "the new alpha",
        answer(alpha, r, r_new, "rslora"),
        alpha * np.sqrt(r_new / r),
    )


def check_pissa_start(answer: Any, rng: Generator) -> None:
    d, k = sizes(rng, 2, 4, 8)
    s = np.cumsum(rng.uniform(0.3, 1, min(d, k)))[::-1]
    r, alpha = int(rng.integers(1, len(s))), float(rng.uniform(3, 20))
    W0 = with_spectrum(rng, d, k, s)
    W, B, A = parts(["W", "B", "A"], answer(W0, r, alpha))
    W, B, A = real_array("W", W, (d, k)), real_array("B", B, (d, r)), real_array("A", A, (r, k))
    update = alpha / r * B @ A
    same("Training starts at W0: W + (alpha / r) B A = W0", "W + (alpha / r) B A", W + update, W0)
    error = np.linalg.norm(W0 - update)
    law(
        "PiSSA trains the strongest parts of W0 and freezes the rest",
        bool(error <= np.sqrt(np.square(s[r:]).sum()) * (1 + 1e-8)),
        f"what is frozen has norm {error:.4g}, the least possible is {np.sqrt(np.square(s[r:]).sum()):.4g}",
    )
    same("B and A have equal weight: B^T B = A A^T", "B^T B", B.T @ B, A @ A.T)


def check_olora_start(answer: Any, rng: Generator) -> None:
    d, k = sizes(rng, 2, 4, 8)
    r = int(rng.integers(1, min(d, k)))
    W0 = rng.normal(size=(d, k))
    W, B, A = parts(["W", "B", "A"], answer(W0, r))
    W, B, A = real_array("W", W, (d, k)), real_array("B", B, (d, r)), real_array("A", A, (r, k))
    same("Training starts at W0: W + B A = W0", "W + B A", W + B @ A, W0)
    orthonormal("B", B)
    same("QR explains the first r columns of W0", "B A", (B @ A)[:, :r], W0[:, :r])
    same("What is frozen is at a right angle to B", "B^T W", B.T @ W, np.zeros((r, k)), size=1)


def check_dora_weight(answer: Any, rng: Generator) -> None:
    d, k = (int(n) for n in rng.choice(np.arange(3, 9), 2, replace=False))
    r, alpha = 2, float(rng.uniform(3, 9))
    W0, A, B = rng.normal(size=(d, k)), rng.normal(size=(r, k)), rng.normal(size=(d, r))
    m = rng.uniform(1, 3, d)
    lengths = np.linalg.norm(W0, axis=1)
    same(
        "With B = 0 and m the lengths of the rows of W0, DoRA is W0",
        "W",
        answer(W0, A, 0 * B, lengths, alpha),
        W0,
    )
    W = real_array("W", answer(W0, A, B, m, alpha), (d, k))
    same("Row i of W has length m[i]", "the lengths", np.linalg.norm(W, axis=1), m)
    V = W0 + alpha / r * B @ A
    same(
        "The directions of the rows are those of W0 + (alpha / r) B A",
        "W",
        W,
        (m / np.linalg.norm(V, axis=1))[:, None] * V,
    )


def check_smallest_good_rank(answer: Any, rng: Generator) -> None:
    ranks = [1, 2, 4, 8, 16, 32]
    seeds = int(rng.integers(4, 9))
    best, good = int(rng.integers(3, 6)), int(rng.integers(1, 3))
    spread = rng.normal(size=(len(ranks), seeds))
    spread = spread - spread.mean(axis=1, keepdims=True)
    spread = spread / spread.std(axis=1, ddof=1, keepdims=True)  # so that the standard error is known
    error = 1 / np.sqrt(seeds)
    means = 10 + np.where(np.arange(len(ranks)) < good, (seeds**0.5 + 3) * error, 0.7 * error)
    means[0] += 5
    means[best] = 10
    if good > 1:
        means[good - 1] = 10 + 1.4 * error  # within a standard deviation, not within a standard error
    losses = means[:, None] + spread
    order = rng.permutation(len(ranks))
    got = whole("the rank", answer([ranks[i] for i in order], losses[order]))
    law(
        "Take the smallest rank whose mean is within one standard error of the best mean",
        got == ranks[good],
        f"it must be {ranks[good]}, got {got}",
    )
