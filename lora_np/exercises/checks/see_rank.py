"""Laws of *See rank*."""

from __future__ import annotations

import numpy as np

from lora_np.checks import Array
from lora_np.exercises.asking import Answer
from lora_np.exercises.drawing import Draw
from lora_np.exercises.laws import exactly, law, parts, same
from lora_np.exercises.samples import scale, turned
from lora_np.linalg import row_echelon


def column_of_product_mixes(draw: Draw, answer: Answer) -> None:
    large = draw.effort > 0.5 and draw.pick("large", (False, True))  # enough to see what else is computed
    d, r, k = draw.sizes("drk")
    if large:
        d, k = draw.whole("many rows", 40, 60), draw.whole("many columns", 80, 100)
    B, A, j = draw.array("B", d, r), draw.array("A", r, k), draw.whole("j", 0, k - 1)
    same("the column", answer(B, A, j, within=max(20_000, 4 * d * k)), B @ A[:, j])


def rank_one_factors_product(draw: Draw, answer: Answer) -> None:
    d, k = draw.sizes("dk")
    M = scale(draw) * np.outer(draw.array("column", d), draw.array("row", k))
    draw.assume(M.any())
    b, a = parts("b a", answer(M), (d, 1), (1, k))
    same("b @ a", b @ a, M)


def of_low_rank(draw: Draw) -> Array:
    d, k, r = draw.sizes("dkr")
    return draw.array("B", d, r) @ draw.array("A", r, k)


def factors_from_columns_thin(draw: Draw, answer: Answer) -> None:
    M = of_low_rank(draw)
    draw.assume(M.any())
    r = int(np.linalg.matrix_rank(M))
    B, A = parts("B A", answer(M), (len(M), r), (r, M.shape[1]))
    same("B @ A", B @ A, M)


def factors_from_columns_columns(draw: Draw, answer: Answer) -> None:
    M = of_low_rank(draw)
    draw.assume(M.any())
    B, _ = parts("B A", answer(M), (len(M), int(np.linalg.matrix_rank(M))), (None, None))
    for j, column in enumerate(B.T):
        found = np.isclose(M, column[:, None], rtol=1e-4, atol=1e-4 * np.abs(M).max()).all(axis=0).any()
        law(found, f"column {j} of B is not a column of M")


def noisy(draw: Draw, noise: float) -> tuple[Array, float, int]:
    d, k = draw.sizes("dk", 1, 6)
    most = min(d, k)
    r, sigma = draw.whole("r", 0, most), scale(draw) * draw.pick("sigma", (1.0, 0.1, 3.0))
    loud = 3.3 + draw.array("signal", r, low=0, high=40)
    M = turned(draw, "M", d, k, sigma * (np.sqrt(d) + np.sqrt(k)) * np.array([*loud, *[noise] * (most - r)]))
    return M, sigma, int(r)


def noisy_rank_noise(draw: Draw, answer: Answer) -> None:
    M, sigma, r = noisy(draw, draw.pick("noise", (1.1, 0.7)))
    exactly("the rank", answer(M, sigma), r)


def noisy_rank_signal(draw: Draw, answer: Answer) -> None:
    M, sigma, r = noisy(draw, 0.0)
    draw.assume(r > 0)
    exactly("the rank", answer(M, sigma), r)


def rank_by_elimination_product(draw: Draw, answer: Answer) -> None:
    M = of_low_rank(draw)
    exactly("the rank", answer(M), int(np.linalg.matrix_rank(M)))


def rank_by_elimination_pivots(draw: Draw, answer: Answer) -> None:
    d, k, r = draw.sizes("dkr", high=4)
    A = draw.array("A", r, k, low=-1, high=1)
    A[:, : draw.whole("hollow", 0, k - 1)] = 0
    M = np.rint(draw.array("B", d, r, low=-1, high=1)) @ np.rint(A)
    exactly("the rank", answer(M), int(np.linalg.matrix_rank(M)))


def rank_by_elimination_rounding(draw: Draw, answer: Answer) -> None:
    d, k = draw.sizes("dk", 1, 5)
    if draw.pick("threshold", (False, True)):
        sizes = [draw.pick(f"size {i}", (-1.0, 0.0, 7e-6, 1.4e-5)) for i in range(min(d, k) - 1)]
        M = np.zeros((d, k))
        np.fill_diagonal(M, [-1.0, *sizes])
        M = scale(draw) * M[:: draw.pick("order", (-1, 1))]
        exactly("the rank", answer(M), int(np.count_nonzero(np.abs(M) > 1e-5 * np.abs(M).max())))
    else:
        r, faint = draw.whole("r", 1, min(d, k)), draw.pick("faint", (0.0, 1e-7, 1e-3))
        s = [*np.linspace(2, 1, r), *[faint] * (min(d, k) - r)]
        M = scale(draw) * turned(draw, "M", d, k, s)
        large = row_echelon(M, tolerance=0.1 * np.abs(M).max())[1]
        draw.assume(len(large) == r)  # small pivots spread errors
        exactly("the rank", answer(M), min(d, k) if faint == 1e-3 else int(r))
