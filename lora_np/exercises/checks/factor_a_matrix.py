"""Laws of *Factor a matrix*."""

from __future__ import annotations

import numpy as np

from lora_np.exercises.asking import Answer
from lora_np.exercises.drawing import Draw
from lora_np.exercises.laws import law, orthonormal, parts, real_array, same
from lora_np.exercises.samples import independent, scale, spectrum, turned


def rank_one_parts_parts(draw: Draw, answer: Answer) -> None:
    d, r, k = draw.sizes("drk", high=4)
    B, A = draw.array("B", d, r), scale(draw) * draw.array("A", r, k)
    same("the parts", answer(B, A), np.einsum("di,ik->idk", B, A))


def cut_qr_first(draw: Draw, answer: Answer) -> None:
    d, k = draw.sizes("dk", high=4)
    M, r = independent(draw, "M", d, k), draw.whole("r", 1, min(d, k))
    B, A = parts("B A", answer(M, r), (d, r), (r, k))
    same("the first r columns of B @ A", (B @ A)[:, :r], M[:, :r])


def cut_qr_angle(draw: Draw, answer: Answer) -> None:
    d, k = draw.sizes("dk", high=4)
    M, r = independent(draw, "M", d, k), draw.whole("r", 1, min(d, k))
    B, A = parts("B A", answer(M, r), (d, r), (r, k))
    orthonormal("B", B)
    same("B^T (M - B A)", B.T @ (M - B @ A), np.zeros((r, k)), size=np.abs(M).max())


def lu_factors_triangles(draw: Draw, answer: Answer) -> None:
    L, U, size, _ = remembered(draw, answer)
    same("L above its diagonal", np.triu(L, 1), np.zeros_like(L), size=1)
    same("the diagonal of L", np.diag(L), np.ones(len(L)))
    same("U below its diagonal", np.tril(U, -1), np.zeros_like(U), size=size)


def lu_factors_product(draw: Draw, answer: Answer) -> None:
    L, U, size, M = remembered(draw, answer)
    same("L @ U", L @ U, M, size=size)


def remembered(draw: Draw, answer: Answer) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """L and U of a matrix whose multipliers may be large: whoever swaps rows does so here."""
    n = draw.whole("n", 1, 4)
    right_L = np.tril(draw.array("L", n, n), -1) + np.eye(n)
    right_U = np.triu(draw.array("U", n, n), 1) + np.diag(draw.array("pivots", n, low=1))
    M = scale(draw) * right_L @ right_U
    L, U = parts("L U", answer(M), (n, n), (n, n))
    return L, U, float((np.abs(right_L) @ np.abs(right_U)).max() / np.abs(right_U[0, 0]) * abs(M[0, 0])), M


def gram_schmidt_orthonormal(draw: Draw, answer: Answer) -> None:
    k = draw.whole("k", 1, 4)
    d = draw.whole("d", k, 5)
    orthonormal("Q", real_array("Q", answer(independent(draw, "M", d, k)), (d, k)))


def gram_schmidt_span(draw: Draw, answer: Answer) -> None:
    k = draw.whole("k", 1, 4)
    d = draw.whole("d", k, 5)
    M = independent(draw, "M", d, k)
    Q = real_array("Q", answer(M), (d, k))
    for j in range(1, k + 1):
        basis = Q[:, :j]
        same(f"the projection of the first {j} columns", basis @ (basis.T @ M[:, :j]), M[:, :j])


def tall(draw: Draw, answer: Answer) -> tuple[np.ndarray, ...]:
    k = draw.whole("k", 1, 4)
    d, s = draw.whole("d", k + 1, 6), 1 + spectrum(draw, "s", k, low=0, high=1)
    M = scale(draw) * turned(draw, "M", d, k, s)
    return *parts("U s Vh", answer(M), (d, k), (k,), (k, k)), M


def svd_by_eigenvectors_values(draw: Draw, answer: Answer) -> None:
    _, s, _, M = tall(draw, answer)
    law((np.diff(s) <= 1e-4 * np.abs(s).max()).all(), f"the largest must come first, got {s.tolist()}")
    same("s", s, np.linalg.svdvals(M))


def svd_by_eigenvectors_vectors(draw: Draw, answer: Answer) -> None:
    U, _, Vh, _ = tall(draw, answer)
    orthonormal("U", U)
    orthonormal("Vh^T", Vh.T)


def svd_by_eigenvectors_product(draw: Draw, answer: Answer) -> None:
    U, s, Vh, M = tall(draw, answer)
    same("(U * s) @ Vh", (U * s) @ Vh, M)
