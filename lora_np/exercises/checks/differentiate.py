"""Laws of *Differentiate*."""

from __future__ import annotations

import numpy as np

from lora_np.checks import Array
from lora_np.exercises.asking import Answer
from lora_np.exercises.drawing import Draw
from lora_np.exercises.laws import parts, real_array, same
from lora_np.exercises.samples import Function, scale


def matmul_gradients_gradients(draw: Draw, answer: Answer) -> None:
    n, k, m = draw.sizes("nkm", high=4)
    g, a, b = scale(draw) * draw.array("g", n, m), draw.array("a", n, k), draw.array("b", k, m)
    of_a, of_b = parts("a b", answer(g, a, b), (n, k), (k, m))
    same("the gradient of a", of_a, g @ b.T)
    same("the gradient of b", of_b, a.T @ g)


def swish_gradient_rule(draw: Draw, answer: Answer) -> None:
    shape = draw.sizes("abc"[: draw.whole("axes", 1, 3)], high=3)
    g, x = draw.array("g", *shape), draw.pick("width", (1.0, 10.0)) * draw.array("x", *shape)
    sigma = 1 / (1 + np.exp(-x))
    same("the gradient", answer(g, x), g * (sigma + x * sigma * (1 - sigma)), size=np.abs(g).max())


def slope_linear(draw: Draw, answer: Answer) -> None:
    shape = draw.sizes("abc"[: draw.whole("axes", 1, 3)], high=3)
    x, c = draw.array("x", *shape), draw.array("c", *shape)
    f = Function("lambda x: float(np.sum(c * x))", c=c)
    same("the slope", answer(f, x), c, tolerance=1e-6, size=5)


def slope_square(draw: Draw, answer: Answer) -> None:
    shape = draw.sizes("abc"[: draw.whole("axes", 1, 2)], high=3)
    x, c = draw.array("x", *shape), draw.array("c", *shape)
    f = Function("lambda x: float(np.sum(c * x * np.roll(x, 1) + c * x * x))", c=c)
    right = 2 * c * x + c * np.roll(x, 1) + np.roll(np.ravel(c * x), -1).reshape(x.shape)
    same(
        "the slope", answer(f, x), right, tolerance=1e-7, size=1, why="exact, for a polynomial of degree two"
    )


def stretched(draw: Draw, axes: int, front: int, ones: bool) -> tuple[Array, tuple[int, ...], Array]:
    full = draw.sizes("abc"[:axes], high=3)
    shape = tuple(
        1 if ones and draw.pick(f"stretch {i}", (False, True)) else int(n) for i, n in enumerate(full)
    )
    g = draw.array("g", *full)
    right = g.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)
    return g, shape[front:], right.sum(axis=tuple(range(front)))


def unbroadcast_front(draw: Draw, answer: Answer) -> None:
    axes = draw.whole("axes", 0, 3)
    g, shape, right = stretched(draw, axes, draw.whole("front", 0, axes), ones=False)
    same("the gradient", answer(g, shape), right, size=np.abs(g).max(initial=0))


def unbroadcast_ones(draw: Draw, answer: Answer) -> None:
    axes = draw.whole("axes", 1, 3)
    g, shape, right = stretched(draw, axes, draw.whole("front", 0, axes), ones=True)
    same("the gradient", answer(g, shape), right, size=np.abs(g).max())


def walk(draw: Draw, answer: Answer, most: int, repeats: bool) -> None:
    """A graph in which each number has at most ``most`` parents, the same one twice if ``repeats``."""
    parents: list[list[int]] = []
    slopes: list[list[float]] = []
    for i in range(draw.whole("n", 1, 5)):
        count = draw.whole(f"parents of {i}", min(i, 1), min(i if not repeats else most, most) if i else 0)
        own = [int(draw.whole(f"parent {j} of {i}", 0, i - 1)) for j in range(count)]
        parents.append(own if repeats else sorted(set(own)))
        slopes.append([draw.number(f"slope {j} of {i}") for j in range(len(parents[-1]))])
    right = [*[0.0] * (len(parents) - 1), 1.0]
    size = list(right)
    for i in reversed(range(len(parents))):
        for p, slope in zip(parents[i], slopes[i], strict=True):
            right[p] += right[i] * slope
            size[p] += size[i] * abs(slope)
    got = real_array("the gradients", answer(parents, slopes), (len(parents),))
    same("the gradients", got, right, size=max(size))


def backward_chain(draw: Draw, answer: Answer) -> None:
    walk(draw, answer, 1, repeats=False)


def backward_paths(draw: Draw, answer: Answer) -> None:
    walk(draw, answer, 3, repeats=False)


def backward_repeats(draw: Draw, answer: Answer) -> None:
    walk(draw, answer, 3, repeats=True)
