"""Exercises of *Differentiate*."""

from __future__ import annotations

from typing import Any

import numpy as np

from lora_np.checks import Array
from lora_np.exercises.old_laws import parts, real_array, same
from lora_np.exercises.old_samples import sizes

Generator = np.random.Generator


def check_matmul_gradients(answer: Any, rng: Generator) -> None:
    n, k, m = (int(i) for i in rng.choice(np.arange(2, 8), 3, replace=False))
    a, b, g = rng.normal(size=(n, k)), rng.normal(size=(k, m)), rng.normal(size=(n, m))
    got_a, got_b = parts(["the gradient of a", "the gradient of b"], answer(g, a, b))
    got_a, got_b = (
        real_array("the gradient of a", got_a, (n, k)),
        real_array("the gradient of b", got_b, (k, m)),
    )
    da, db = rng.normal(size=(n, k)), rng.normal(size=(k, m))
    for name, got, step, change in (("a", got_a, da, da @ b), ("b", got_b, db, a @ db)):
        same(
            f"A small change of {name} changes the loss by <gradient, change>",
            f"<gradient of {name}, change>",
            np.sum(got * step),
            np.sum(g * change),
            size=1,
        )


def check_slope(answer: Any, rng: Generator) -> None:
    d, k = sizes(rng, 2, 2, 3)
    Q, c = rng.normal(size=(d * k, d * k)) * 30, rng.normal(size=(d, k))

    def f(x: Array) -> float:
        x = np.asarray(x, dtype=np.float64).ravel()
        return float(x @ Q @ x + c.ravel() @ x)

    x = rng.normal(size=(d, k))
    right = ((Q + Q.T) @ x.ravel()).reshape(d, k) + c
    same(
        "Central differences give the slope of a square exactly",
        "the slope",
        answer(f, x),
        right,
        tolerance=1e-6,
        why="f is a polynomial of degree two",
    )


def check_unbroadcast(answer: Any, rng: Generator) -> None:
    n, d, k = (int(i) for i in rng.choice(np.arange(2, 6), 3, replace=False))
    cases = [((k,), (d, k)), ((d, 1), (d, k)), ((), (d, k)), ((1, k), (n, d, k)), ((d, k), (d, k))]
    for shape, full in cases:
        g = 1 + rng.random(full)
        got = real_array("the gradient", answer(g, shape), shape)
        small = 1 + rng.random(shape)
        same(
            "Summing down is the transpose of broadcasting: <g, broadcast(v)> = <answer, v>",
            "<answer, v>",
            np.sum(got * small),
            np.sum(g * np.broadcast_to(small, full)),
            why=f"from {full} to {shape}",
        )
        # Only the true transpose keeps the place of each entry.
        v = np.zeros(shape)
        v.flat[-1] = 1.0
        same(
            "Each entry gets the gradients of its own copies",
            "the last entry",
            np.sum(got * v),
            np.sum(g * np.broadcast_to(v, full)),
        )


def check_backward(answer: Any, rng: Generator) -> None:
    n = int(rng.integers(5, 10))
    J = np.zeros((n, n))
    parents, slopes = [], []
    for i in range(n):
        own = sorted(int(p) for p in rng.choice(i, min(i, 2), replace=False)) if i else []
        own = own or ([] if i < 2 else [i - 1])
        values = [float(v) for v in rng.uniform(0.5, 2, len(own))]
        J[i, own] = values
        parents.append(own)
        slopes.append(values)
    right = np.linalg.inv(np.eye(n) - J)[-1]  # I + J + J^2 + ...: all paths
    got = real_array("the gradients", answer(parents, slopes), (n,))
    same("The last number moves with itself, one to one", "the last gradient", got[-1], 1.0)
    same("Gradients of all paths from a number to the last add up", "the gradients", got, right)


def check_swish_gradient(answer: Any, rng: Generator) -> None:
    shape = tuple(sizes(rng, int(rng.integers(1, 4)), 2, 4))
    x, g = 3 * rng.normal(size=shape), rng.normal(size=shape)

    def swish(x: Array) -> Array:
        y: Array = x / (1 + np.exp(-x))
        return y

    step = 1e-5
    right = g * (swish(x + step) - swish(x - step)) / (2 * step)
    got = real_array("the gradient", answer(g, x), shape)
    same("A gradient is linear in g: zero for zero", "the gradient", answer(0 * g, x), 0 * g)
    same("The rule agrees with central differences", "the gradient", got, right, tolerance=1e-6)
