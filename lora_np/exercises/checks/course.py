"""Laws of the lessons on the best update, the cost of a step, other programs, and what fits."""

from __future__ import annotations

import numpy as np

from lora_np.exercises.asking import Answer, Claims
from lora_np.exercises.drawing import Draw
from lora_np.exercises.laws import exactly, law, parts, same, whole


def frozen_a_least(draw: Draw, answer: Answer) -> None:
    d, k, r = draw.sizes("dkr", high=4)
    n, r = draw.whole("n", k, 2 * k), min(r, k)
    X, Y, W0, A = (draw.array(*part) for part in [("X", n, k), ("Y", n, d), ("W0", d, k), ("A", r, k)])
    s = np.linalg.svdvals(X @ A.T)
    draw.assume(s[-1] > 0.1 * s[0] > 0)
    same("B", answer(X, Y, W0, A), np.linalg.lstsq(X @ A.T, Y - X @ W0.T)[0].T)


def step_multiplications(draw: Draw, answer: Answer, key: str) -> None:
    d, k, r = draw.sizes("dkr", high=5000)
    right = 3 * d * k if key == "full" else 2 * d * k + 3 * r * (d + k)
    exactly("the count", answer(d, k, 0 if key == "full" else r), right)


def one_alpha(draw: Draw, answer: Answer, key: str) -> Claims:
    d, k = draw.sizes("dk", high=3)
    alpha, modules = draw.whole("alpha", 1, 9), []
    for i in range(draw.whole("n", 1, 2)):
        r, own = draw.whole(f"r{i}", 1, 3), draw.whole(f"alpha{i}", 1, 9)
        modules.append((draw.array(f"B{i}", d, r), draw.array(f"A{i}", r, k), own))
    answered = answer(modules, alpha)
    fits = isinstance(answered, list | tuple) and len(answered) == len(modules)
    law(fits, f"the answer is a list of {len(modules)} pairs, one for each module")
    pairs = [parts("B A", pair, B.shape, A.shape) for pair, (B, A, _) in zip(answered, modules, strict=True)]
    updates = [alpha * B @ A for B, A in pairs], [own * B @ A for B, A, own in modules]
    yield "same", lambda: [same("the update", *two, size=9.0) for two in zip(*updates, strict=True)]
    yield "kept", lambda: [same("A", new[1], old[1]) for new, old in zip(pairs, modules, strict=True)]


def rank_for_bits(draw: Draw, answer: Answer, key: str) -> Claims:
    shapes = [(draw.whole(f"d{i}", 1, 9), draw.whole(f"k{i}", 1, 9)) for i in range(draw.whole("n", 1, 3))]
    one = draw.whole("per_number", 1, 3)
    room = one * sum(d + k for d, k in shapes)
    bits = draw.whole("rank", 0, 9) * room + draw.whole("more", 0, room - 1)
    r = whole("the rank", answer(bits, shapes, one))
    yield "enough", lambda: law(r * room >= bits, f"rank {r} holds {r * room} bits, of {bits}")
    yield "smallest", lambda: law((r - 1) * room < bits and r >= 0, f"rank {r - 1} holds {bits} bits as well")
