"""Exercises of *Adapt a real model*."""

from __future__ import annotations

from typing import Any

import numpy as np

from lora_np.exercises.old_laws import law, parts, real_array, same
from lora_np.exercises.old_samples import of_rank, sizes
from lora_np.linalg import optimal_losses

Generator = np.random.Generator


def check_share_recovered(answer: Any, rng: Generator) -> None:
    full = float(rng.uniform(0.5, 1))
    base = full + float(rng.uniform(0.3, 2))
    same("A LoRA as good as the full update recovers all: 1", "the share", answer(base, full, full), 1.0)
    same("A LoRA that changes nothing recovers nothing", "the share", answer(base, full, base), 0.0)
    for share in (float(rng.uniform(0.2, 0.9)), 1.1, -0.2):
        lora = base - share * (base - full)
        same(
            "The share is the gain of LoRA over the gain of the full update",
            "the share",
            answer(base, full, lora),
            share,
        )


def check_cross_entropy(answer: Any, rng: Generator) -> None:
    n, classes = sizes(rng, 2, 3, 8)
    logits, labels = 2 * rng.normal(size=(n, classes)), rng.integers(0, classes, n)
    even = np.zeros((n, classes))
    same(
        "A model that knows nothing pays the logarithm of the number of classes",
        "the loss",
        answer(even, labels),
        np.log(classes),
    )
    right = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(n), labels])
    same(
        "The loss is the mean of minus the logarithm of the probability of the right class",
        "the loss",
        answer(logits, labels),
        right,
    )
    shift = 1000.0 * rng.choice([-1, 1], (n, 1))
    same(
        "Adding a number to a row of logits does not change the loss, however large it is",
        "the loss",
        answer(logits + shift, labels),
        right,
    )


def check_forget_nothing(answer: Any, rng: Generator) -> None:
    k = int(rng.integers(6, 12))
    r, known = int(rng.integers(1, 4)), int(rng.integers(2, 5))
    A, X = rng.normal(size=(r, k)), of_rank(rng, known + 1, k, known)  # one input is a mixture of others
    got = real_array("the new A", answer(A, X), (r, k))
    same("On the old inputs the update must say nothing", "A x", got @ X.T, np.zeros((r, known + 1)), size=1)
    new = rng.normal(size=k)
    new -= np.linalg.pinv(X) @ (X @ new)
    same("On inputs at right angles to all old ones the update stays what it was", "A x", got @ new, A @ new)


def check_best_update(answer: Any, rng: Generator) -> None:
    d, k = sizes(rng, 2, 4, 7)
    r, n = int(rng.integers(1, min(d, k))), 80
    X = rng.normal(size=(n, k)) * np.geomspace(1, 30, k)
    W0 = rng.normal(size=(d, k))
    Y = X @ (W0 + rng.normal(size=(d, k))).T + 0.1 * rng.normal(size=(n, d))
    B, A = parts(["B", "A"], answer(X, Y, W0, r))
    B, A = real_array("B", B, (d, r)), real_array("A", A, (r, k))
    loss = float(np.mean(np.square(Y - X @ (W0 + B @ A).T)))
    losses = optimal_losses(X, Y, W0=W0)
    law(
        "An update is better than none",
        loss < losses[0],
        f"the loss is {loss:.4g}, without update {losses[0]:.4g}",
    )
    law(
        "No B A of rank r has a smaller loss than the SVD, cut where the inputs are white",
        loss <= losses[r] * (1 + 1e-6),
        f"at r = {r} the loss is {loss:.6g}, the least possible {losses[r]:.6g}",
    )
