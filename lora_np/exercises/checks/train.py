"""Exercises of *Train h = W0 x + BAx*."""

from __future__ import annotations

from typing import Any

import numpy as np

from lora_np.checks import Array
from lora_np.exercises.old_laws import law, parts, real_array, same
from lora_np.exercises.old_samples import of_rank
from lora_np.linalg import optimal_losses

Generator = np.random.Generator


def distinct(rng: Generator, count: int, low: int, high: int) -> list[int]:
    return [int(n) for n in rng.choice(np.arange(low, high + 1), count, replace=False)]


def check_lora_forward(answer: Any, rng: Generator) -> None:
    n, d, k = distinct(rng, 3, 3, 8)
    r = 2
    x, W0 = rng.normal(size=(n, k)), rng.normal(size=(d, k))
    A, B, alpha = rng.normal(size=(r, k)), rng.normal(size=(d, r)), float(rng.uniform(3, 20))
    same("With B = 0 the model is what it was", "h", answer(x, W0, A, 0 * B, alpha), x @ W0.T)
    h = real_array("h", answer(x, W0, A, B, alpha), (n, d))
    same("h = W0 x + (alpha / r) B A x", "h", h, x @ (W0 + alpha / r * B @ A).T)


def check_lora_start(answer: Any, rng: Generator) -> None:
    d, k = distinct(rng, 2, 12, 30)
    r, number = int(rng.integers(2, 6)), int(rng.integers(1000))
    A, B = start_of(answer, d, k, r, number)
    same("Training starts at W0: B A is zero", "B A", B @ A, np.zeros((d, k)))
    moving = A if A.any() else B.T
    law("If A and B are both zero, nothing ever moves", bool(moving.any()), "both are zero")
    rank = int(np.linalg.matrix_rank(moving))
    law(
        "Random numbers break the symmetry",
        rank == r,
        f"r is {r}, the factor that is not zero has rank {rank}",
    )
    again, other = start_of(answer, d, k, r, number), start_of(answer, d, k, r, number + 1)
    law("The same rng gives the same start", np.array_equal(A, again[0]) and np.array_equal(B, again[1]))
    differs = not (np.array_equal(A, other[0]) and np.array_equal(B, other[1]))
    law("Another rng gives another start", differs, f"rng {number} and {number + 1} give the same")


def start_of(answer: Any, d: int, k: int, r: int, number: int) -> tuple[Array, Array]:
    A, B = parts(["A", "B"], answer(d, k, r, number))
    return real_array("A", A, (r, k)), real_array("B", B, (d, r))


def check_lora_gradients(answer: Any, rng: Generator) -> None:
    n, d, k = distinct(rng, 3, 3, 7)
    r, alpha = 2, float(rng.uniform(3, 9))
    x, y, W0 = rng.normal(size=(n, k)), rng.normal(size=(n, d)), rng.normal(size=(d, k))
    A, B = rng.normal(size=(r, k)), rng.normal(size=(d, r))
    dA, dB = parts(["the gradient of A", "the gradient of B"], answer(x, y, W0, A, B, alpha))
    gradients = {
        "A": real_array("the gradient of A", dA, (r, k)),
        "B": real_array("the gradient of B", dB, (d, r)),
    }

    def loss(A: Array, B: Array) -> float:
        return float(np.mean(np.square(x @ (W0 + alpha / r * B @ A).T - y)))

    step = 1e-5
    for name, gradient in gradients.items():
        v = rng.normal(size=gradient.shape)
        vA, vB = (v, 0 * B) if name == "A" else (0 * A, v)
        change = (loss(A + step * vA, B + step * vB) - loss(A - step * vA, B - step * vB)) / (2 * step)
        same(
            f"A small change of {name} changes the loss by <gradient, change>",
            f"<gradient of {name}, change>",
            np.sum(gradient * v),
            change,
            tolerance=1e-5,
            why="the loss is the mean of all squared errors",
        )


def check_train_lora(answer: Any, rng: Generator) -> None:
    d, k = distinct(rng, 2, 5, 8)
    r, n = 2, 60
    x, W0 = rng.normal(size=(n, k)), rng.normal(size=(d, k))
    y = x @ (W0 + of_rank(rng, d, k, r)).T + 0.3 * rng.normal(size=(n, d))
    B, A = parts(["B", "A"], answer(x, y, W0, r))
    B, A = real_array("B", B, (d, r)), real_array("A", A, (r, k))
    start, best = (float(optimal_losses(x, y, W0=W0)[i]) for i in (0, r))
    loss = float(np.mean(np.square(x @ (W0 + B @ A).T - y)))
    law("Training lowers the loss", loss < (1 - 1e-6) * start, f"from {start:.4f} it came to {loss:.4f}")
    law(
        "Gradient descent comes within 2 % of the best B A of its rank",
        loss <= 1.02 * best,
        f"the loss is {loss:.4f}, the best possible {best:.4f}",
    )
