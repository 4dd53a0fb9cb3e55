"""Check the lessons on derivatives, training, adapting and choosing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lora_np import nn
from lora_np.checks import Array
from lora_np.exercises.checks.matrices import as_typed
from lora_np.exercises.inputs import Draw
from lora_np.exercises.laws import (
    TOLERANCE,
    at_most,
    closest,
    exactly,
    law,
    orthonormal,
    parts,
    real_array,
    same,
)
from lora_np.exercises.samples import (
    independent,
    mirror,
    rank_and_sides,
    scale,
    spectrum,
    terms,
    with_singular_values,
)
from lora_np.exercises.testing import Answer, literal
from lora_np.exercises.values import Source, Value
from lora_np.linalg import optimal_losses

# Checks of the lesson "Differentiate"


def matmul_gradients_gradients(draw: Draw, answer: Answer) -> None:
    n, k, m = draw.sizes("nkm", high=4)
    g, a, b = scale(draw) * draw.array("g", n, m), draw.array("a", n, k), draw.array("b", k, m)
    of_a, of_b = parts("a b", answer(g, a, b), (n, k), (k, m))
    same("the gradient of a", of_a, g @ b.T, size=terms(g, b.T))
    same("the gradient of b", of_b, a.T @ g, size=terms(a.T, g))


def sum_gradients(draw: Draw, answer: Answer, key: str) -> None:
    shape = draw.sizes("nm", high=4)
    g, a, b = (draw.array(name, *shape) for name in "gab")
    total, of_a, of_b = parts("sum a b", answer(g, a, b), *3 * [g.shape])
    same("a + b", total, a + b, size=10)
    same("the gradient of a", of_a, g)
    same("the gradient of b", of_b, g)


def swish_gradient_rule(draw: Draw, answer: Answer) -> None:
    shape = draw.sizes("uvw"[: draw.whole("axes", 1, 3)], high=3)
    g, x = (
        draw.array("g", *shape),
        draw.pick("width", (1.0, 1.0, 10.0, 1000.0)) * draw.array("x", *shape),
    )
    sigma = (1 + np.tanh(x / 2)) / 2
    same("the gradient", answer(g, x), g * (sigma + x * sigma * (1 - sigma)), size=np.abs(g).max())


def slope(draw: Draw, answer: Answer, key: str) -> None:
    shape = draw.sizes("uvw"[: draw.whole("axes", 1, 3)], high=3)
    x, c = as_typed(draw.array("x", *shape)), draw.array("c", *shape)
    factors = literal(c)
    linear = Source(f"lambda x: float(np.sum({factors} * x))")
    if key == "linear":
        same("the slope", answer(linear, x), c, tolerance=1e-6, size=5)
    square = Source(f"lambda x: float(np.sum({factors} * x * (np.roll(x, 1) + x)))")
    right = 2 * c * x + c * np.roll(x, 1) + np.roll(np.ravel(c * x), -1).reshape(x.shape)
    why = "exact, for a polynomial of degree two"
    if key == "square":
        same("the slope", answer(square, x), right, tolerance=1e-7, size=1, why=why)


def unbroadcast(draw: Draw, answer: Answer, key: str) -> None:
    ones = key == "ones"
    axes = draw.pick("axes", (1, 2, 3, 3, 3)) if ones else draw.whole("axes", 0, 3)
    front = draw.pick("front", (0, 0, 1, axes)) if ones else draw.whole("front", 0, axes)
    full = draw.sizes("abc"[:axes], high=3)
    shape = tuple(
        draw.pick(f"stretch {i}", (int(n), 1)) if ones else int(n) for i, n in enumerate(full)
    )
    g = draw.array("g", *full)
    right = g.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)
    right = right.sum(axis=tuple(range(front)))
    same("the gradient", answer(g, shape[front:]), right, size=np.abs(g).max(initial=0))


def backward(draw: Draw, answer: Answer, key: str) -> None:
    """Check gradients in a random graph of numbers, which may be a chain or repeat parents."""
    repeats = key == "repeats"
    # in a deep graph, an answer that follows each path separately exceeds the limit on steps
    deep = key == "paths" and draw.effort > 0.5 and draw.pick("deep", (False, False, False, True))
    parents: list[list[int]] = []
    slopes: list[list[float]] = []
    for i in range(20 if deep else draw.whole("n", 1, 5)):
        count = draw.whole(f"parents of {i}", min(i, 1), 3 if repeats and i else min(i, 3))
        own = [int(draw.whole(f"parent {j} of {i}", 0, i - 1)) for j in range(count)]
        own = [i - 1] * bool(i) if key == "chain" else own
        own = list(range(max(0, i - 2), i)) if deep else own
        parents.append(own if repeats else sorted(set(own)))
        slopes.append([draw.number(f"slope {j} of {i}") for j in range(len(parents[-1]))])
    right = [*[0.0] * (len(parents) - 1), 1.0]
    size = list(right)
    for i in reversed(range(len(parents))):
        for p, slope in zip(parents[i], slopes[i], strict=True):
            right[p] += right[i] * slope
            size[p] += size[i] * abs(slope)
    answered = answer(parents, slopes, steps=40_000 if deep else None)
    got = real_array("the gradients", answered, (len(parents),))
    same("the gradients", got, right, size=max(size))


# Checks of the lesson "Train h = W0 x + BAx"


# a Hadamard matrix: its columns are orthogonal, and each entry is 1 or -1
WHITE = np.array([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])


def layer(draw: Draw) -> tuple[Array, ...]:
    n, d, k, r = draw.sizes("ndkr", high=4)
    return (
        draw.array("x", n, k),
        draw.array("W0", d, k),
        draw.array("A", r, k),
        draw.array("B", d, r),
    )


def forward(x: Array, W0: Array, A: Array, B: Array, alpha: float) -> tuple[Array, Array]:
    """Compute a layer's output h, and the sums of the absolute values of its terms."""
    s, of = alpha / len(A), np.abs
    return x @ (W0 + s * B @ A).T, of(x) @ (of(W0) + s * of(B) @ of(A)).T


def lora_forward_sum(draw: Draw, answer: Callable[..., Value]) -> None:
    x, W0, A, B = layer(draw)
    x, alpha = scale(draw) * x, draw.number("alpha", 1, 32)
    right, sizes = forward(x, W0, A, B, alpha)
    same("h", answer(x, W0, A, B, alpha), right, size=float(sizes.max()))


def lora_start(draw: Draw, answer: Callable[..., Value], key: str) -> None:
    r, rng = draw.whole("r", 1, 4), draw.whole("rng", 0, 100)
    d, k = int(draw.whole("d", r, 8)), int(draw.whole("k", r + 1, 8))
    # use large matrices, whose statistics hardly depend on chance
    if key != "zero":
        d, k = draw.pick("shape", ((200, 1600), (1600, 200))) if key == "moves" else (40, 40)
    A, B = parts("A B", answer(d, k, r, rng), (r, k), (d, r))
    if key == "zero":
        same("B A", B @ A, np.zeros((d, k)))
    if key == "moves":
        moving = A if A.any() else B
        law(moving.any(), "if A and B are both zero, nothing ever moves")
        rank = np.linalg.matrix_rank(moving)
        law(rank == r, f"r is {r}, but the factor that is not zero has rank {rank}")
        told = "its entries must be random: few zeros, and as many below zero as above"
        law(abs(np.sign(moving).mean()) < 0.4 and (moving != 0).mean() > 0.9, told)
        law(moving.any(axis=0).all(), "a column of zeros never moves anything")
        wanted, spread = moving.shape[1] ** -0.5, float(moving.std())
        told = f"its entries must have a standard deviation of about {wanted:.2g}"
        law(0.45 < spread / wanted < 1.25, f"{told}, got {spread:.2g}")
    if key == "rng":
        starts = (parts("A B", answer(d, k, r, n), (r, k), (d, r)) for n in range(rng, rng + 4))
        same_start = [all(map(np.array_equal, (A, B), start)) for start in starts]
        law(same_start[0], "the same rng must give the same start")
        law(not any(same_start[1:]), "another rng must give another start")


def lora_gradients(draw: Draw, answer: Answer, key: str) -> None:
    x, W0, A, B = layer(draw)
    y, alpha = draw.array("y", len(x), len(W0)), draw.number("alpha", 1, 32)
    s, (h, sizes) = alpha / len(A), forward(x, W0, A, B, alpha)
    e = 2 * (h - y) / y.size
    of_A, of_B = parts("dA dB", answer(x, y, W0, A, B, alpha), A.shape, B.shape)
    why = "the loss is the mean of all squared errors"
    G = s * (sizes + np.abs(y)).T @ np.abs(x) / y.size
    size_A, size_B = (1e-3 + float(n.max()) for n in (np.abs(B).T @ G, G @ np.abs(A).T))
    if key == "of_A":
        same("the gradient of A", of_A, s * B.T @ e.T @ x, size=size_A, why=why)
    if key == "of_B":
        same("the gradient of B", of_B, s * e.T @ x @ A.T, size=size_B, why=why)


def regression(draw: Draw, stretched: bool) -> tuple[Array, Array, Array, int, Array]:
    """Draw inputs, targets, W0 and a rank; also return the lowest possible loss at every rank."""
    # draw mostly ranks of at least 2, because a rank-1 update often comes close to the best loss
    least = draw.pick("least", (2, 1, 2, 2))
    d, k = draw.sizes("dk", low=least, high=3)
    r = draw.whole("r", least, min(d, k))
    n = 4 if k == 3 else draw.pick("inputs", (2, 4))
    x = WHITE[:n, :k] @ mirror(draw.array("turn", k, low=-1, high=1))
    x = x * (draw.array("stretch", k, low=0.8, high=1.25) if stretched else 1)
    y, W0 = draw.array("y", n, d, low=-3, high=3), draw.array("W0", d, k, low=-1, high=1)
    losses = optimal_losses(x, y, W0=W0)
    draw.assume(losses[0] - losses[r] > 0.1 * losses[0])
    return x, y, W0, r, losses


def near_best(loss: float, initial: float, best: float) -> None:
    enough = best + 0.02 * (initial - best)
    law(
        loss <= enough,
        f"the loss is {loss:.4f}, and must be at most {enough:.4f}; the best is {best:.4f}",
    )


def train_lora(draw: Draw, answer: Answer, key: str) -> None:
    x, y, W0, r, losses = regression(draw, stretched=True)
    B, A = parts("B A", answer(x, y, W0, r), (len(W0), r), (r, W0.shape[1]))
    loss = float(np.mean(np.square(x @ (W0 + B @ A).T - y)))
    if key == "lower":
        law(loss < losses[0], f"from {losses[0]:.4f} the loss came to {loss:.4f}")
    if key == "best":
        near_best(loss, losses[0], losses[r])


# Checks of the lesson "Adapt a real model"


def share_recovered_share(draw: Draw, answer: Answer) -> None:
    unit, full, gain = scale(draw), draw.number("full", 1, 5), draw.number("gain", 1, 5)
    lora = draw.number("lora", 0, 10)
    right = (full + gain - lora) / gain
    same("the share", answer(unit * (full + gain), unit * full, unit * lora), right, size=1)


def reach_and_tolerance(draw: Draw, key: str) -> tuple[float, float]:
    """Draw a factor by which to scale inputs, and return it with the tolerance that it needs."""
    return (draw.pick("reach", (1000.0, 200.0)), 2e-3) if key == "wide" else (1.0, TOLERANCE)


def cross_entropy(draw: Draw, answer: Answer, key: str) -> None:
    reach, tolerance = reach_and_tolerance(draw, key)
    n, classes = draw.sizes("n classes", high=4)
    logits = reach * draw.array("logits", n, classes)
    labels = np.array([int(draw.whole(f"label {i}", 0, classes - 1)) for i in range(n)])
    right = nn.cross_entropy(logits, labels)
    same("the loss", answer(logits, labels), right, size=1, tolerance=tolerance)


def forget_nothing(draw: Draw, answer: Answer, key: str) -> None:
    k = draw.whole("k", 2, 5)
    known = draw.whole("known", 1, min(k - 1, 3))
    turn = mirror(draw.array("directions", k))
    mix = with_singular_values(
        draw, "mix", known, known, 1 + spectrum(draw, "sizes", known, low=0, high=1)
    )
    # each column of `free` is orthogonal to all inputs in X
    X, free = scale(draw) * mix @ turn[:known], turn[known:].T
    if key == "mixtures":
        more = draw.whole("more", 0, k - known - 1) if k - known > 1 else 0
        X = np.concatenate([draw.array("amounts", more, known) @ X, X])
    A = draw.array("A", draw.whole("r", 1, 3), k)
    got, size = real_array("the new A", answer(A, X), A.shape), float(np.abs(A).max())
    if key != "rest":
        why, of_both = "the update must be zero there", size * float(np.abs(X).max())
        same("A X^T", got @ X.T, np.zeros((len(A), len(X))), size=of_both, why=why)
    if key != "blind":
        same("A x for x orthogonal to all old inputs", got @ free, A @ free, size=size)


def best_update(draw: Draw, answer: Answer, key: str) -> None:
    r, d, k = rank_and_sides(draw)
    n = draw.whole("n", k, 7)
    s = np.sort(draw.array("sizes", k, low=1, high=1 if key == "white" else 20))[::-1]
    X, W0, Y = (
        with_singular_values(draw, "X", n, k, s),
        draw.array("W0", d, k),
        draw.array("Y", n, d),
    )
    B, A = parts("B A", answer(X, Y, W0, r), (d, r), (r, k))
    losses = optimal_losses(X, Y, W0=W0)
    loss = float(np.mean(np.square(Y - X @ (W0 + B @ A).T)))
    at_most("the loss", loss, float(losses[r]), size=float(losses[0]))


def frozen_a_least(draw: Draw, answer: Answer) -> None:
    r, d, k = rank_and_sides(draw)
    n = draw.whole("n", r, 6)
    X, A = (
        with_singular_values(
            draw, name, side, k, draw.array(f"sizes of {name}", min(side, k), low=1, high=2)
        )
        for name, side in (("X", n), ("A", r))
    )
    W0, Y = draw.array("W0", d, k), draw.array("Y", n, d)
    draw.assume(np.linalg.cond(X @ A.T) < 10)
    same("B", answer(X, Y, W0, A), np.linalg.lstsq(X @ A.T, Y - X @ W0.T)[0].T, size=1.0)


# Checks of the lesson "A prompt is an update of rank one"


def kl_divergence(draw: Draw, answer: Answer, key: str) -> None:
    n = draw.whole("n", 1, 5)
    p = draw.array("p", n, low=key == "nats", high=9)
    q = draw.array("q", n, low=1, high=9)
    i = draw.whole("smallest", 0, n - 1)
    p[i] *= draw.pick("factor of p", (1, 1e-4))
    if draw.pick("small q", (False, True)):
        q[i] = 2e-14 * q.sum()  # the exercise allows entries of q down to 1e-14
    draw.assume(p.any())
    p, q = p / p.sum(), q / q.sum()
    same("the divergence", answer(p, q), p @ np.log(np.where(p > 0, p, q) / q), size=1)


def prompt_update(draw: Draw, answer: Answer, key: str) -> None:
    d, k = draw.sizes("dk", high=4)
    W, z, wanted = draw.array("W", d, k), scale(draw) * draw.array("z", k), draw.array("wanted", k)
    draw.assume(z.any())
    wanted *= np.abs(z).max()
    B, A = parts("B A", answer(W, z, wanted), (d, 1), (1, k))
    right = np.outer(W @ (wanted - z), z) / (z @ z)
    inputs = z[:, None] if key == "same" else np.eye(k) - np.outer(z, z) / (z @ z)
    same(
        "what B A adds",
        B @ (A @ inputs),
        right @ inputs,
        size=float(np.abs(W).sum() * np.abs(inputs).max()),
    )


# Checks of the lesson "Adapt a language model"


def bits_and_perplexity(draw: Draw, answer: Answer, key: str) -> None:
    n = draw.whole("n", 1, 5)
    least = -5 if key == "ignored" else 0  # labels below zero are not in the loss
    nats, labels = draw.array("nats", n, low=0), np.rint(draw.array("labels", n, low=least, high=9))
    counts = labels >= 0
    draw.assume(counts.any())
    answered = answer(nats, np.where(counts, labels, -100).astype(np.int64))
    bits, perplexity = parts("bits perplexity", answered, (), ())
    mean = float(np.mean(nats[counts]))
    if key != "perplexity":
        same("bits", bits, mean / np.log(2), size=1)
    if key != "bits":
        same("perplexity", perplexity, np.exp(mean))


def attention_weights(draw: Draw, answer: Answer, key: str) -> None:
    reach, tolerance = reach_and_tolerance(draw, key)
    n, d = draw.sizes("nd", high=4)
    q, k = reach * draw.array("q", n, d), draw.array("k", n, d)
    right = nn.softmax(np.where(np.tri(n, dtype=bool), q @ k.T / np.sqrt(d), -np.inf))
    weights = real_array("the matrix of weights", answer(q, k), (n, n))
    if key == "past":
        same("the weights of later positions", np.triu(weights, 1), np.zeros(weights.shape))
        same("the sum of each row", weights.sum(axis=1), np.ones(len(weights)))
    if key != "past":
        same("the weights", weights, right, tolerance=tolerance)


# Checks of the lesson "Ask whether a LoRA is enough"


def bits_per_parameter(draw: Draw, answer: Answer, key: str) -> None:
    n, classes = draw.whole("n", 1, 5), draw.whole("classes", 2, 96)
    d, k, r = draw.sizes("dkr")
    losses = draw.array("losses", n, low=0, high=5.0 if key == "bits" else 0.0)
    right = (n * np.log2(classes) - losses.sum() / np.log(2)) / (r * (d + k))
    same("the bits per parameter", answer(losses, classes, d, k, r), right, size=1)


def fair_shares(draw: Draw, answer: Answer, key: str) -> None:
    seeds = draw.whole("seeds", 1, 4) if key == "seeds" else 1
    contestants, rates = draw.sizes("contestants rates", high=4)
    base = draw.number("base", 7, 10)
    validation = draw.array("validation", contestants, rates, low=0, high=10)
    test = draw.array("test", contestants, rates, seeds, low=0, high=10)
    loss = np.array([test[i, list(row).index(min(row))].mean() for i, row in enumerate(validation)])
    draw.assume(base - loss[0] > 0.5)
    right = (base - loss) / (base - loss[0])
    same("the shares", answer(base, validation, test), right, size=20)


# Checks of the lesson "Choose rank, alpha and initialisation"


def alpha_for_rank(draw: Draw, answer: Answer, key: str) -> None:
    alpha, r, new = draw.number("alpha", 1, 64), draw.whole("r", 1, 64), draw.whole("r_new", 1, 64)
    times = new / r if key == "lora" else np.sqrt(new / r)
    same("the new alpha", answer(alpha, r, new, key), alpha * times)


def pissa_start(draw: Draw, answer: Answer, key: str) -> None:
    (r, d, k), alpha = rank_and_sides(draw), draw.number("alpha", 1, 32)
    W0, s = scale(draw) * draw.array("W0", d, k), alpha / r
    W, B, A = parts("W B A", answer(W0, r, alpha), (d, k), (d, r), (r, k))
    if key == "same":
        same("W + (alpha / r) B A", W + s * B @ A, W0)
    if key == "strongest":
        closest("the norm of W0 - (alpha / r) B A", W0, s * B @ A, r)
    if key == "balanced":
        same("B^T B", B.T @ B, A @ A.T, size=float(np.linalg.norm(W0) / s), why="that is A A^T")


def olora_start(draw: Draw, answer: Answer, key: str) -> None:
    r, d, k = rank_and_sides(draw)
    W0 = independent(draw, "W0", d, k)
    W, B, A = parts("W B A", answer(W0, r), (d, k), (d, r), (r, k))
    if key == "same":
        same("W + B A", W + B @ A, W0)
    if key == "qr":
        orthonormal("B", B)
        same("the first r columns of B A", (B @ A)[:, :r], W0[:, :r])
        size, why = float(np.abs(W0).max()), "the frozen weight is the rest"
        same("B^T W", B.T @ W, np.zeros_like(A), size=size, why=why)


def dora_weight(draw: Draw, answer: Answer, key: str) -> None:
    d, k, r = draw.sizes("dkr", high=4)
    W0, A, B = draw.array("W0", d, k), draw.array("A", r, k), draw.array("B", d, r)
    m, alpha, unit = draw.array("m", d, low=1), draw.number("alpha", 1, 16), scale(draw)
    V, sums = (one.T for one in forward(np.eye(k), W0, A, B, alpha))
    sizes = np.linalg.norm(V, axis=1, keepdims=True)
    draw.assume((sizes > 0.01 * np.linalg.norm(sums, axis=1, keepdims=True)).all())
    W = real_array("W", answer(unit * W0, A, unit * B, m, alpha), (d, k))
    lengths = np.linalg.norm(W, axis=1, keepdims=True)
    if key == "lengths":
        same("the lengths of the rows", lengths[:, 0], m)
    if key == "directions":
        law(lengths.all(), "a row of zeros has no direction")
        same("the rows, divided by their lengths", W / lengths, V / sizes, size=1)


def smallest_good_rank(draw: Draw, answer: Answer, key: str) -> None:
    ranks = (
        draw.pick("ranks", ([8, 4, 2], [4, 16, 8], [2, 1, 64])) if key == "order" else [1, 2, 4, 8]
    )
    n, seeds = draw.whole("n", 1, len(ranks)), draw.whole("seeds", 2, 5)
    losses, best = draw.array("losses", n, seeds), draw.whole("best", 0, n - 1)
    spread = np.round(losses - losses.mean(axis=1, keepdims=True), 3)
    error = spread[best].std(ddof=1) / np.sqrt(seeds)
    draw.assume(error == 0 or error > 0.1)
    # the distance of each mean loss from the best one, in standard errors (absolute if these are 0)
    distance = np.array([draw.pick(f"distance {i}", (0.9, 1.1, 1.3, 0.5)) for i in range(n)])
    distance[best] = 0
    near = distance < 1 if error else distance == 0
    right = min(rank for rank, is_near in zip(ranks[:n], near, strict=True) if is_near)
    losses = scale(draw) * (spread + 10 + ((error or 1) * distance)[:, None])
    # in a tie, the mean losses of two ranks are exactly one standard error apart
    if n > 1 and draw.pick("tie", (False, False, False, True)):
        losses = np.full((n, 4), 9.0)
        losses[best], losses[best - 1] = (4, 0, 0, 0), 2
        right = min(ranks[best], ranks[:n][best - 1])
    exactly("the rank", answer(ranks[:n], losses), right)
