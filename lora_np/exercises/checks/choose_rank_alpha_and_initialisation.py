"""Laws of *Choose rank, alpha and initialisation*."""

from __future__ import annotations

import numpy as np

from lora_np.checks import Array
from lora_np.exercises.asking import Answer
from lora_np.exercises.drawing import Draw
from lora_np.exercises.laws import at_most, exactly, law, orthonormal, parts, real_array, same
from lora_np.exercises.samples import independent, scale


def alpha_for_rank_lora(draw: Draw, answer: Answer) -> None:
    alpha, r, new = draw.number("alpha", 1, 64), draw.whole("r", 1, 64), draw.whole("r_new", 1, 64)
    same("the new alpha", answer(alpha, r, new, "lora"), alpha * new / r)


def alpha_for_rank_rslora(draw: Draw, answer: Answer) -> None:
    alpha, r, new = draw.number("alpha", 1, 64), draw.whole("r", 1, 64), draw.whole("r_new", 1, 64)
    same("the new alpha", answer(alpha, r, new, "rslora"), alpha * np.sqrt(new / r))


def started(draw: Draw, answer: Answer) -> tuple[Array, ...]:
    d, k = draw.sizes("dk", high=4)
    r, alpha = draw.whole("r", 1, min(d, k)), draw.number("alpha", 1, 32)
    W0 = scale(draw) * draw.array("W0", d, k)
    W, B, A = parts("W B A", answer(W0, r, alpha), (d, k), (d, r), (r, k))
    return W0, W, B, A, np.array(alpha / r)


def pissa_start_same(draw: Draw, answer: Answer) -> None:
    W0, W, B, A, s = started(draw, answer)
    same("W + (alpha / r) B A", W + s * B @ A, W0)


def pissa_start_strongest(draw: Draw, answer: Answer) -> None:
    W0, _, B, A, s = started(draw, answer)
    least, size = np.linalg.norm(np.linalg.svdvals(W0)[len(A) :]), np.linalg.norm(W0)
    left = np.linalg.norm(W0 - s * B @ A)
    at_most("the norm of W0 - (alpha / r) B A", float(left), float(least), size=float(size))


def pissa_start_balanced(draw: Draw, answer: Answer) -> None:
    W0, _, B, A, s = started(draw, answer)
    same("B^T B", B.T @ B, A @ A.T, size=float(np.linalg.norm(W0) / s), why="that is A A^T")


def started_by_qr(draw: Draw, answer: Answer) -> tuple[Array, ...]:
    d, k = draw.sizes("dk", high=4)
    r, W0 = draw.whole("r", 1, min(d, k)), independent(draw, "W0", d, k)
    return W0, *parts("W B A", answer(W0, r), (d, k), (d, r), (r, k))


def olora_start_same(draw: Draw, answer: Answer) -> None:
    W0, W, B, A = started_by_qr(draw, answer)
    same("W + B A", W + B @ A, W0)


def olora_start_qr(draw: Draw, answer: Answer) -> None:
    W0, W, B, A = started_by_qr(draw, answer)
    r = len(A)
    orthonormal("B", B)
    same("the first r columns of B A", (B @ A)[:, :r], W0[:, :r])
    same("B^T W", B.T @ W, np.zeros_like(A), size=float(np.abs(W0).max()), why="what is frozen is the rest")


def row_by_row(draw: Draw, answer: Answer) -> tuple[Array, Array, Array]:
    d, k, r = draw.sizes("dkr", high=4)
    W0, A, B = draw.array("W0", d, k), draw.array("A", r, k), draw.array("B", d, r)
    m, alpha, unit = draw.array("m", d, low=1), draw.number("alpha", 1, 16), scale(draw)
    V = W0 + alpha / r * B @ A
    draw.assume((np.linalg.norm(V, axis=1) > 0.1).all())
    return real_array("W", answer(unit * W0, A, unit * B, m, alpha), (d, k)), V, m


def dora_weight_lengths(draw: Draw, answer: Answer) -> None:
    W, _, m = row_by_row(draw, answer)
    same("the lengths of the rows", np.linalg.norm(W, axis=1), m)


def dora_weight_directions(draw: Draw, answer: Answer) -> None:
    W, V, _ = row_by_row(draw, answer)
    lengths = np.linalg.norm(W, axis=1, keepdims=True)
    law(lengths.all(), "a row of zeros has no direction")
    same(
        "the rows, divided by their lengths",
        W / lengths,
        V / np.linalg.norm(V, axis=1, keepdims=True),
        size=1,
    )


def swept(draw: Draw, answer: Answer, ranks: list[int]) -> None:
    n, seeds = draw.whole("n", 1, len(ranks)), draw.whole("seeds", 2, 5)
    losses, best = draw.array("losses", n, seeds), draw.whole("best", 0, n - 1)
    spread = np.round(losses - losses.mean(axis=1, keepdims=True), 3)
    error = spread[best].std(ddof=1) / np.sqrt(seeds)
    draw.assume(error == 0 or error > 0.1)
    distance = np.array([draw.pick(f"distance {i}", (0.9, 1.1, 1.3, 0.5)) for i in range(n)])
    distance[best] = 0  # of the means from the best one, in standard errors
    near = distance < 1 if error else distance == 0
    right = min(rank for rank, is_near in zip(ranks[:n], near, strict=True) if is_near)
    losses = scale(draw) * (spread + 10 + ((error or 1) * distance)[:, None])
    exactly("the rank", answer(ranks[:n], losses), right)


def smallest_good_rank_error(draw: Draw, answer: Answer) -> None:
    swept(draw, answer, [1, 2, 4, 8])


def smallest_good_rank_order(draw: Draw, answer: Answer) -> None:
    swept(draw, answer, draw.pick("ranks", ([8, 4, 2], [4, 16, 8], [2, 1, 64])))
