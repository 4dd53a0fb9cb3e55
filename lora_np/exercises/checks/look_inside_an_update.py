"""Laws of *Look inside an update*."""

from __future__ import annotations

import numpy as np

from lora_np.checks import Array
from lora_np.exercises.asking import Answer
from lora_np.exercises.drawing import Draw
from lora_np.exercises.laws import law, real_array, same
from lora_np.exercises.samples import mirror, scale, spectrum, turned


def chance_similarity_share(draw: Draw, answer: Answer) -> None:
    k = draw.whole("k", 1, 500)
    i, j = draw.whole("i", 1, k), draw.whole("j", 1, k)
    same("the similarity", answer(k, i, j), max(i, j) / k)


def similarity_turned(draw: Draw, answer: Answer) -> None:
    r, k = draw.sizes("rk", high=4)
    A = turned(draw, "A", r, k, spectrum(draw, "s", min(r, k)))
    i = draw.whole("i", 1, min(r, k))
    other = scale(draw) * mirror(draw.array("turn", r)) @ A
    same(
        "phi",
        answer(A, other, i, i),
        1.0,
        why="mixing the rows of A leaves its input directions what they are",
    )


def similarity_phi(draw: Draw, answer: Answer) -> None:
    r, k = draw.sizes("rk", high=4)
    m = min(r, k)
    A1, A2 = (turned(draw, name, r, k, spectrum(draw, f"s of {name}", m)) for name in ("A1", "A2"))
    i, j = draw.whole("i", 1, m), draw.whole("j", 1, m)
    V1, V2 = (np.linalg.svd(A)[2][:n] for A, n in ((A1, i), (A2, j)))
    right = np.square(V1 @ V2.T).sum() / min(i, j)
    same("phi", answer(A1, scale(draw) * A2, i, j), right, size=1)


def update(draw: Draw) -> tuple[Array, int]:
    d, k = draw.sizes("dk", high=4)
    m = draw.whole("rank", 1, min(d, k))
    return turned(draw, "dW", d, k, spectrum(draw, "s", m)), int(draw.whole("r", 1, m))


def amplification_multiple(draw: Draw, answer: Answer) -> None:
    dW, r = update(draw)
    times = draw.number("times", 0.5, 8) * scale(draw)
    s = np.linalg.svdvals(dW)
    right = np.linalg.norm(s) / np.linalg.norm(s[:r]) * times
    same("the factor", answer(dW / times, dW, r), right, why="the update is a multiple of W0")


def amplification_directions(draw: Draw, answer: Answer) -> None:
    dW, r = update(draw)
    W0 = draw.array("W0", *dW.shape)
    U, _, Vh = np.linalg.svd(dW)
    seen = float(np.linalg.norm(U[:, :r].T @ W0 @ Vh[:r].T))
    draw.assume(seen > 0.1)
    same("the factor", answer(W0, dW, r), np.linalg.norm(dW) / seen)


def places(what: str, answer: Array, right: list[int]) -> None:
    got = sorted(real_array(what, answer, (None,)).tolist())
    law(got == right, f"{what} must hold {right}, got {[int(n) if n == int(n) else n for n in got]}")


def intruders_home(draw: Draw, answer: Answer) -> None:
    d = draw.whole("d", 1, 3)
    k = draw.whole("k", d, 4)
    order = draw.pick("order", ([0, 1, 2], [1, 0, 2], [2, 0, 1]))
    U, V, new = (mirror(draw.array(name, n)) for name, n in (("U", d), ("V", k), ("new V", k)))
    W0 = U * spectrum(draw, "s", d) @ V[:d]
    W = U[:, [i for i in order if i < d]] * -spectrum(draw, "new s", d) @ new[:d]
    places("the list", answer(W0, W, draw.whole("top", 1, d), draw.number("threshold", 0.05, 0.95)), [])


def intruders_new(draw: Draw, answer: Answer) -> None:
    d = draw.whole("d", 1, 4)
    k, top = draw.whole("k", d, 5), draw.whole("top", 1, d)
    W0, W = (turned(draw, name, d, k, spectrum(draw, f"s of {name}", d)) for name in ("W0", "W"))
    threshold = draw.number("threshold", 0.5, 0.99)
    closest = np.abs(np.linalg.svd(W0)[0].T @ np.linalg.svd(W)[0][:, :top]).max(axis=0)
    draw.assume(np.abs(closest - threshold).min() > 1e-3)
    places("the list", answer(W0, W, top, threshold), np.flatnonzero(closest < threshold).tolist())
