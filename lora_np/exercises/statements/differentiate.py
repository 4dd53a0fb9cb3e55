"""Exercises of *Differentiate*."""

from __future__ import annotations

import numpy as np

from lora_np.checks import Array
from lora_np.exercises.asking import Answer, Exercise
from lora_np.exercises.laws import parts, real_array, same
from lora_np.exercises.samples import sizes

Generator = np.random.Generator


def check_matmul_gradients(answer: Answer, rng: Generator) -> None:
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


matmul_gradients = Exercise(
    title="The derivative of a product",
    points=1,
    statement="""\
$Y = ab$ is a step in the computation of a loss, and `g` is the gradient of the loss with respect to $Y$. Return the gradients with
respect to `a` ($n \\times k$) and `b` ($k \\times m$).""",
    stub='''\
def matmul_gradients(g, a, b):
    """The gradients of a and b, where g is the gradient of a @ b."""
    ...
''',
    hints=(
        "A gradient has the shape of what it belongs to. There are not many ways to multiply `g` and `b` into an $n \\times k$ matrix.",
        "$g\\,b^T$ and $a^T g$.",
    ),
    check=check_matmul_gradients,
)


def check_slope(answer: Answer, rng: Generator) -> None:
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


slope = Exercise(
    title="Slopes by moving",
    points=2,
    statement="""\
`f` takes an array like `x`, of any shape, and returns a number. Return its gradient at `x`, an array of the shape of `x`, without any
calculus: move one entry a little up and a little down, and see how `f` changes.

Take the difference of both sides: for a polynomial of degree two that is exact, but for rounding.""",
    stub='''\
def slope(f, x):
    """The gradient of f at x, by central differences."""
    ...
''',
    hints=(
        "`np.ndindex(x.shape)` visits all places, however many axes there are. Move a copy, not `x`.",
        "`(f(up) - f(down)) / (2 * step)` with a step of `1e-4`.",
    ),
    check=check_slope,
)


def check_unbroadcast(answer: Answer, rng: Generator) -> None:
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


unbroadcast = Exercise(
    title="Broadcasting, backwards",
    points=2,
    statement="""\
NumPy repeats a bias of shape $(k,)$ for each of $d$ rows. Backwards, the gradients of all the copies must be added up. In general:
an array of this `shape` was broadcast to the shape of `g`. Return its gradient.

Axes may have been added in front, and axes of size one may have been stretched.""",
    stub='''\
def unbroadcast(g, shape):
    """The gradient of an array of this shape that was broadcast to the shape of g."""
    ...
''',
    hints=(
        "First the axes that were added in front: there are `g.ndim - len(shape)` of them.",
        "Then `g.sum(axis=..., keepdims=True)` over the axes where `shape` has a 1.",
    ),
    check=check_unbroadcast,
    forbids=("lora_np.autograd.engine.unbroadcast",),
)


def check_backward(answer: Answer, rng: Generator) -> None:
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


backward = Exercise(
    title="Walk the graph backwards",
    points=3,
    statement="""\
A computation makes numbers $0, 1, \\dots, n - 1$, one after the other. Number $i$ is computed from the numbers in `parents[i]`, all
of them earlier, and `slopes[i]` lists the derivative of number $i$ by each of them.

Return the derivative of the **last** number by each of the $n$ numbers. This is what `loss.backward()` does.""",
    stub='''\
def backward(parents, slopes):
    """The derivative of the last number by each number, as a list of the same length."""
    ...
''',
    hints=(
        "Start with 1 for the last number and 0 for all others. Visit the numbers from the last to the first.",
        "When number `i` is visited, its gradient is complete. Each parent gets `gradient[i] * slope` **added**: it may have other "
        "children.",
    ),
    check=check_backward,
)


def check_swish_rule(answer: Answer, rng: Generator) -> None:
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


swish_gradient = Exercise(
    title="Another row for the table",
    points=1,
    statement="""\
Swish is $y = x\\,\\sigma(x)$ with $\\sigma(x) = 1 / (1 + e^{-x})$, entry by entry. From `g`, the gradient with respect to $y$, return
the gradient with respect to `x`.""",
    stub='''\
def swish_gradient(g, x):
    """The gradient of x, where g is the gradient of x * sigmoid(x)."""
    ...
''',
    hints=(
        "The product rule, and $\\sigma' = \\sigma\\,(1 - \\sigma)$.",
        "$g\\,(\\sigma + x\\,\\sigma\\,(1 - \\sigma))$",
    ),
    check=check_swish_rule,
)

TITLE = "Differentiate"
EXERCISES = (matmul_gradients, swish_gradient, slope, unbroadcast, backward)
