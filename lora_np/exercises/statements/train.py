"""Exercises of *Train h = W0 x + BAx*."""

from __future__ import annotations

import numpy as np

from lora_np.checks import Array
from lora_np.exercises.asking import SVD, Answer, Exercise
from lora_np.exercises.laws import law, parts, real_array, same
from lora_np.exercises.samples import of_rank
from lora_np.linalg import optimal_losses

Generator = np.random.Generator


def distinct(rng: Generator, count: int, low: int, high: int) -> list[int]:
    return [int(n) for n in rng.choice(np.arange(low, high + 1), count, replace=False)]


def check_lora_forward(answer: Answer, rng: Generator) -> None:
    n, d, k = distinct(rng, 3, 3, 8)
    r = 2
    x, W0 = rng.normal(size=(n, k)), rng.normal(size=(d, k))
    A, B, alpha = rng.normal(size=(r, k)), rng.normal(size=(d, r)), float(rng.uniform(3, 20))
    same("With B = 0 the model is what it was", "h", answer(x, W0, A, 0 * B, alpha), x @ W0.T)
    h = real_array("h", answer(x, W0, A, B, alpha), (n, d))
    same("h = W0 x + (alpha / r) B A x", "h", h, x @ (W0 + alpha / r * B @ A).T)


lora_forward = Exercise(
    title="Forward",
    points=1,
    statement="""\
Return $h = W_0 x + \\frac{\\alpha}{r} B A x$ for a batch: each row of `x` ($n \\times k$) is one input, each row of the result
($n \\times d$) one output. The rank $r$ is what the shapes of `A` and `B` say.""",
    stub='''\
def lora_forward(x, W0, A, B, alpha):
    """h (n, d) for inputs x (n, k), W0 (d, k), A (r, k) and B (d, r)."""
    ...
''',
    hints=(
        "A row $x^T$ becomes $x^T W^T$: with rows, matrices act from the right, transposed.",
        "`x @ W0.T` plus the scale times `x @ A.T @ B.T`.",
    ),
    check=check_lora_forward,
)


def check_lora_start(answer: Answer, rng: Generator) -> None:
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


def start_of(answer: Answer, d: int, k: int, r: int, number: int) -> tuple[Array, Array]:
    A, B = parts(["A", "B"], answer(d, k, r, number))
    return real_array("A", A, (r, k)), real_array("B", B, (d, r))


lora_start = Exercise(
    title="A start that can move",
    points=1,
    statement="""\
Return `A` ($r \\times k$) and `B` ($d \\times r$) to start with. Training must begin exactly at $W_0$, and it must be able to leave.
Randomness comes from the whole number `rng`: the same number, the same start.""",
    stub='''\
def lora_start(d, k, r, rng):
    """A (r, k) and B (d, r) for the first step of training."""
    ...
''',
    hints=(
        "The gradient of $A$ has a factor $B$ in it, the gradient of $B$ a factor $A$. So one of them must not be zero.",
        "`np.random.default_rng(rng).normal(size=(r, k))`, divided by the root of `k`, and zeros.",
    ),
    check=check_lora_start,
)


def check_lora_gradients(answer: Answer, rng: Generator) -> None:
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


lora_gradients = Exercise(
    title="Backward",
    points=2,
    statement="""\
The loss is the mean of $(h - y)^2$ over all $n\\,d$ entries, with $h = W_0 x + \\frac{\\alpha}{r} B A x$. Return its gradients with
respect to `A` and `B`: by hand, or with `lora_np.Tensor`.""",
    stub='''\
def lora_gradients(x, y, W0, A, B, alpha):
    """The gradients of A (r, k) and B (d, r) of the mean squared error."""
    ...
''',
    hints=(
        "With $e = \\partial L / \\partial h = 2 (h - y) / (n d)$, the gradient of $\\Delta W$ is $e^T x$. Then it is the derivative of a product.",
        "$\\frac{\\alpha}{r} B^T e^T x$ and $\\frac{\\alpha}{r} e^T x A^T$. Or: make Tensors of `A` and `B`, compute the loss with NumPy, "
        "`loss.backward()`, and return their `.grad`.",
    ),
    check=check_lora_gradients,
)


def check_train_lora(answer: Answer, rng: Generator) -> None:
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


train_lora = Exercise(
    title="Train",
    points=3,
    statement="""\
Train `B` ($d \\times r$) and `A` ($r \\times k$) so that $h = W_0 x + BAx$ fits: the mean squared error must come within 2 % of the
best possible at rank `r`. `x` is $60 \\times k$, about white, and `d` and `k` are below 10.

Write the loop yourself, or use `lora_np.inject` and `lora_np.fit`. Closed forms (least squares, SVD) are not allowed.""",
    stub='''\
def train_lora(x, y, W0, r):
    """B (d, r) and A (r, k), trained so that x @ (W0 + B @ A).T is close to y."""
    ...
''',
    hints=(
        "Start as in *A start that can move*, take gradients as in *Backward*, and step against them. How many steps until the loss no "
        "longer falls?",
        "Plain gradient descent at a rate of 0.2 needs a few thousand steps here, Adam a few hundred: "
        "`lnp.fit(lnp.inject(lnp.Linear(W0), rank=r, rng=rng), x, y, steps=600, progress=False).model`.",
    ),
    check=check_train_lora,
    forbids=(
        *SVD,
        "numpy.linalg.lstsq",
        "numpy.linalg.solve",
        "numpy.linalg.inv",
        "numpy.linalg.eigh",
        "numpy.linalg.qr",
        "lora_np.reduced_rank_regression",
    ),
)

TITLE = "Train h = W0 x + BAx"
EXERCISES = (lora_forward, lora_start, lora_gradients, train_lora)
