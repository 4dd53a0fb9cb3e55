"""Laws of *Train h = W0 x + BAx*."""

from __future__ import annotations

import numpy as np

from lora_np.checks import Array
from lora_np.exercises.asking import Answer
from lora_np.exercises.drawing import Draw
from lora_np.exercises.laws import law, parts, same
from lora_np.exercises.samples import scale
from lora_np.linalg import optimal_losses

WHITE = np.array([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])  # columns at right angles


def layer(draw: Draw) -> tuple[Array, ...]:
    n, d, k, r = draw.sizes("ndkr", high=4)
    return draw.array("x", n, k), draw.array("W0", d, k), draw.array("A", r, k), draw.array("B", d, r)


def lora_forward_sum(draw: Draw, answer: Answer) -> None:
    x, W0, A, B = layer(draw)
    x, alpha = scale(draw) * x, draw.number("alpha", 1, 32)
    right = x @ (W0 + alpha / len(A) * B @ A).T
    same("h", answer(x, W0, A, B, alpha), right, size=float(np.abs(x).max()))


def start_of(draw: Draw, answer: Answer) -> tuple[Array, Array, tuple[int, ...]]:
    r = draw.whole("r", 1, 3)
    d, k, rng = draw.whole("d", r, 8), draw.whole("k", r, 8), draw.whole("rng", 0, 100)
    A, B = parts("A B", answer(d, k, r, rng), (r, k), (d, r))
    return A, B, (d, k, r, rng)


def lora_start_zero(draw: Draw, answer: Answer) -> None:
    A, B, (d, k, _, _) = start_of(draw, answer)
    same("B A", B @ A, np.zeros((d, k)))


def lora_start_moves(draw: Draw, answer: Answer) -> None:
    A, B, (_, _, r, _) = start_of(draw, answer)
    moving = A if A.any() else B
    law(moving.any(), "if A and B are both zero, nothing ever moves")
    rank = np.linalg.matrix_rank(moving)
    law(rank == r, f"r is {r}, but the factor that is not zero has rank {rank}")


def lora_start_rng(draw: Draw, answer: Answer) -> None:
    A, B, (d, k, r, rng) = start_of(draw, answer)
    again = answer(d, k, r, rng)
    law(np.array_equal(A, again[0]) and np.array_equal(B, again[1]), "the same rng must give the same start")
    other = answer(d, k, r, rng + 1)
    same_A, same_B = np.array_equal(A, other[0]), np.array_equal(B, other[1])
    law(
        not (same_A and same_B), f"another rng must give another start, but {rng} and {rng + 1} give the same"
    )


def gradients(draw: Draw, answer: Answer) -> tuple[Array, ...]:
    x, W0, A, B = layer(draw)
    y, alpha = draw.array("y", len(x), len(W0)), draw.number("alpha", 1, 32)
    s = alpha / len(A)
    e = 2 * (x @ (W0 + s * B @ A).T - y) / y.size
    got = parts("dA dB", answer(x, y, W0, A, B, alpha), A.shape, B.shape)
    return *got, s * B.T @ e.T @ x, s * e.T @ x @ A.T, np.abs(e).max() * s


def lora_gradients_of_A(draw: Draw, answer: Answer) -> None:
    got, _, right, _, size = gradients(draw, answer)
    same("the gradient of A", got, right, size=float(size), why="the loss is the mean of all squared errors")


def lora_gradients_of_B(draw: Draw, answer: Answer) -> None:
    _, got, _, right, size = gradients(draw, answer)
    same("the gradient of B", got, right, size=float(size), why="the loss is the mean of all squared errors")


def trained(draw: Draw, answer: Answer) -> tuple[float, float, float]:
    """The losses without update, after training, and of the best update."""
    d, k = draw.sizes("dk", high=3)
    r = draw.whole("r", 1, min(d, k))
    n = 4 if k == 3 else draw.pick("inputs", (2, 4))
    x = WHITE[:n, :k] * draw.array("stretch", k, low=0.8, high=1.25)
    y, W0 = draw.array("y", n, d, low=-3, high=3), draw.array("W0", d, k, low=-1, high=1)
    losses = optimal_losses(x, y, W0=W0)
    draw.assume(losses[0] - losses[r] > 0.1 * losses[0])
    B, A = parts("B A", answer(x, y, W0, r), (d, r), (r, k))
    return float(losses[0]), float(np.mean(np.square(x @ (W0 + B @ A).T - y))), float(losses[r])


def train_lora_lower(draw: Draw, answer: Answer) -> None:
    start, loss, _ = trained(draw, answer)
    law(loss < start, f"from {start:.4f} the loss came to {loss:.4f}")


def train_lora_best(draw: Draw, answer: Answer) -> None:
    start, loss, best = trained(draw, answer)
    enough = best + 0.02 * (start - best)
    law(loss <= enough, f"the loss is {loss:.4f}, and must be at most {enough:.4f}; the best is {best:.4f}")
