"""Laws of *Adapt a real model*."""

from __future__ import annotations

import numpy as np

from lora_np.checks import Array
from lora_np.exercises.asking import Answer
from lora_np.exercises.drawing import Draw
from lora_np.exercises.laws import at_most, parts, real_array, same
from lora_np.exercises.samples import mirror, scale, spectrum, turned
from lora_np.linalg import optimal_losses


def share_recovered_share(draw: Draw, answer: Answer) -> None:
    unit, full, gain = scale(draw), draw.number("full", 1, 5), draw.number("gain", 1, 5)
    lora = draw.number("lora", 0, 10)
    right = (full + gain - lora) / gain
    same("the share", answer(unit * (full + gain), unit * full, unit * lora), right, size=1)


def loss_of(draw: Draw, answer: Answer, reach: float, tolerance: float) -> None:
    n, classes = draw.sizes("n classes", high=4)
    logits = reach * draw.array("logits", n, classes)
    labels = np.array([int(draw.whole(f"label {i}", 0, classes - 1)) for i in range(n)])
    shifted = logits - logits.max(axis=1, keepdims=True)
    right = np.mean(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(n), labels])
    same("the loss", answer(logits, labels), right, size=1, tolerance=tolerance)


def cross_entropy_mean(draw: Draw, answer: Answer) -> None:
    loss_of(draw, answer, 1.0, 1e-4)


def cross_entropy_wide(draw: Draw, answer: Answer) -> None:
    loss_of(draw, answer, draw.pick("reach", (1000.0, 200.0)), 2e-3)


def seen(draw: Draw, mixtures: bool) -> tuple[Array, Array]:
    """Inputs, as rows, and directions at right angles to all of them, as columns."""
    k = draw.whole("k", 2, 5)
    known = draw.whole("known", 1, min(k - 1, 3))
    turn = mirror(draw.array("directions", k))
    mix = turned(draw, "mix", known, known, 1 + spectrum(draw, "sizes", known, low=0, high=1))
    X = scale(draw) * mix @ turn[:known]
    if mixtures:
        more = draw.whole("more", 0, k - known - 1) if k - known > 1 else 0
        X = np.concatenate([draw.array("amounts", more, known) @ X, X])
    return X, turn[known:].T


def forget(draw: Draw, answer: Answer, mixtures: bool = False) -> tuple[Array, Array, Array, Array]:
    X, free = seen(draw, mixtures)
    A = draw.array("A", draw.whole("r", 1, 3), X.shape[1])
    return A, real_array("the new A", answer(A, X), A.shape), X, free


def forget_nothing_blind(draw: Draw, answer: Answer) -> None:
    A, got, X, _ = forget(draw, answer)
    size = float(np.abs(X).max() * np.abs(A).max())
    same("A X^T", got @ X.T, np.zeros((len(A), len(X))), size=size, why="the update must say nothing there")


def forget_nothing_rest(draw: Draw, answer: Answer) -> None:
    A, got, _, free = forget(draw, answer)
    same("A x for x at right angles to all old inputs", got @ free, A @ free, size=float(np.abs(A).max()))


def forget_nothing_mixtures(draw: Draw, answer: Answer) -> None:
    A, got, X, free = forget(draw, answer, mixtures=True)
    same("A X^T", got @ X.T, np.zeros((len(A), len(X))), size=float(np.abs(X).max() * np.abs(A).max()))
    same("A x for x at right angles to all old inputs", got @ free, A @ free, size=float(np.abs(A).max()))


def updated(draw: Draw, answer: Answer, stretch: float) -> None:
    d, k = draw.sizes("dk", high=3)
    n, r = draw.whole("n", k, 6), draw.whole("r", 1, min(d, k))
    s = np.sort(draw.array("sizes", k, low=1, high=stretch))[::-1]
    X, Y, W0 = turned(draw, "X", n, k, s), draw.array("Y", n, d), draw.array("W0", d, k)
    B, A = parts("B A", answer(X, Y, W0, r), (d, r), (r, k))
    losses = optimal_losses(X, Y, W0=W0)
    loss = float(np.mean(np.square(Y - X @ (W0 + B @ A).T)))
    at_most("the loss", loss, float(losses[r]), size=float(losses[0]))


def best_update_white(draw: Draw, answer: Answer) -> None:
    updated(draw, answer, 1)


def best_update_stretched(draw: Draw, answer: Answer) -> None:
    updated(draw, answer, 20)
