"""Laws of *Cut the SVD*."""

from __future__ import annotations

import numpy as np

from lora_np.checks import Array
from lora_np.exercises.asking import Answer
from lora_np.exercises.drawing import Draw
from lora_np.exercises.laws import at_most, exactly, law, orthonormal, parts, real_array, same
from lora_np.exercises.samples import scale, spectrum, turned


def matrix_and_rank(draw: Draw) -> tuple[Array, int, float]:
    """Any matrix, a rank, and the least error at that rank."""
    d, k = draw.sizes("dk", high=4)
    M, r = scale(draw) * draw.array("M", d, k), draw.whole("r", 1, min(d, k))
    return M, int(r), float(np.linalg.norm(np.linalg.svdvals(M)[r:]))


def cut_closest(draw: Draw, answer: Answer) -> None:
    M, r, least = matrix_and_rank(draw)
    got = real_array("the approximation", answer(M, r), M.shape)
    rank = int(np.count_nonzero(np.linalg.svdvals(got) > 1e-4 * np.linalg.norm(M)))
    law(rank <= r, f"an approximation of rank {r} has at most {r} parts, but its rank is {rank}")
    at_most("the error", float(np.linalg.norm(M - got)), least, size=float(np.linalg.norm(M)))


def relative_errors(draw: Draw, answer: Answer) -> tuple[Array, Array]:
    d, k = draw.sizes("dk", high=4)
    M = scale(draw) * draw.array("M", d, k)
    draw.assume(M.any())
    s = np.linalg.svdvals(M)
    right = np.array([np.linalg.norm(s[r:]) for r in range(len(s) + 1)]) / np.linalg.norm(s)
    return real_array("the errors", answer(M), right.shape), right


def error_curve_ends(draw: Draw, answer: Answer) -> None:
    got, _ = relative_errors(draw, answer)
    same("the first error", got[0], 1.0)
    same("the last error", got[-1], 0.0, size=10)  # a root makes rounding errors large


def error_curve_squares(draw: Draw, answer: Answer) -> None:
    got, right = relative_errors(draw, answer)
    same("errors", got, right, size=10)


def smallest_rank_share(draw: Draw, answer: Answer) -> None:
    d, k = draw.sizes("dk", high=4)
    M, share = scale(draw) * draw.array("M", d, k), draw.number("share", 0.01, 0.99)
    draw.assume(M.any())
    kept = np.cumsum(np.square(np.linalg.svdvals(M))) / np.square(M).sum()
    draw.assume(np.abs(kept - share).min() > 1e-3)
    exactly("the rank", answer(M, share), 1 + int(np.argmax(kept >= share)))


def smallest_rank_all(draw: Draw, answer: Answer) -> None:
    d, k = draw.sizes("dk", high=4)
    M = np.zeros((d, k))
    np.fill_diagonal(M, np.rint(draw.array("diagonal", min(d, k))))  # nothing is rounded here
    draw.assume(M.any())
    exactly("the rank", answer(scale(draw) * M, 1.0), int(np.count_nonzero(M)))


def balanced_factors_closest(draw: Draw, answer: Answer) -> None:
    M, r, least = matrix_and_rank(draw)
    B, A = parts("B A", answer(M, r), (len(M), r), (r, M.shape[1]))
    at_most("the error of B @ A", float(np.linalg.norm(M - B @ A)), least, size=float(np.linalg.norm(M)))


def balanced_factors_balanced(draw: Draw, answer: Answer) -> None:
    M, r, _ = matrix_and_rank(draw)
    B, A = parts("B A", answer(M, r), (len(M), r), (r, M.shape[1]))
    same("B^T B", B.T @ B, A @ A.T, size=float(np.linalg.norm(M)), why="that is A A^T")


def with_top_directions(draw: Draw, answer: Answer) -> tuple[Array, Array, int]:
    r = draw.whole("r", 1, 3)
    d, k = draw.whole("d", r, 5), draw.whole("k", r, 5)
    s = np.append(
        2 + spectrum(draw, "s", r, low=0, high=1), draw.array("rest", min(d, k) - r, low=0, high=0.9)
    )
    M = scale(draw) * turned(draw, "M", d, k, s)
    return M, real_array("Q", answer(M, r), (d, r)), int(r)


def top_directions_orthonormal(draw: Draw, answer: Answer) -> None:
    orthonormal("Q", with_top_directions(draw, answer)[1])


def top_directions_span(draw: Draw, answer: Answer) -> None:
    M, Q, r = with_top_directions(draw, answer)
    s = np.linalg.svdvals(M)
    lost = float(np.linalg.norm(M - Q @ (Q.T @ M)))
    at_most("what Q Q^T M loses of M", lost, float(np.linalg.norm(s[r:])), size=float(s[0]))
