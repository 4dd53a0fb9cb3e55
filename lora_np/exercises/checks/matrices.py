"""Check the lessons on rank, factors, the SVD and updates."""

from __future__ import annotations

import numpy as np

from lora_np import linalg
from lora_np.checks import Array
from lora_np.exercises.inputs import Draw
from lora_np.exercises.laws import closest, exactly, law, orthonormal, parts, real_array, same
from lora_np.exercises.samples import (
    independent,
    mirror,
    rank_and_sides,
    scale,
    spectrum,
    terms,
    with_singular_values,
)
from lora_np.exercises.testing import Answer

# Checks of the lesson "See rank"


def column_of_product_mixes(draw: Draw, answer: Answer) -> None:
    shape = draw.pick("shape", ("small", "large", "wide")) if draw.effort > 0.5 else "small"
    d, r, k = draw.sizes("drk")
    # if large, an answer that computes all columns exceeds the memory limit
    if shape == "large":
        d, k = draw.whole("many rows", 40, 60), draw.whole("many columns", 300, 400)
    within, steps = max(20_000, 2 * d * k), None
    # If wide, a loop over all columns exceeds the limit on steps. Counting steps takes memory, so
    # the memory limit is higher.
    if shape == "wide":
        k = draw.whole("very many columns", 500, 600)
        within, steps = 60_000, 1_000 + 40 * d * r
    # if large, choose the middle column, so that computing all columns up to it, or all from it on,
    # also exceeds the memory limit
    low, high = (k // 2, k // 2) if shape == "large" else (0, k - 1)
    B, A, j = draw.array("B", d, r), draw.array("A", r, k), draw.whole("j", low, high)
    same(
        "the column",
        answer(B, A, j, within=within, steps=steps),
        B @ A[:, j],
        size=terms(B, A[:, j]),
    )


def rank_one_factors_product(draw: Draw, answer: Answer) -> None:
    d, k = draw.sizes("dk")
    column, row = draw.array("column", d), draw.array("row", k)
    column[: draw.pick("first row", (0, 0, 1))] = row[: draw.pick("first column", (0, 0, 1))] = 0
    M = scale(draw) * np.outer(column, row)
    draw.assume(M.any())
    b, a = parts("b a", answer(M), (d, 1), (1, k))
    same("b @ a", b @ a, M)


def of_low_rank(draw: Draw) -> Array:
    # sometimes draw integers, to catch an elimination that truncates fractions in an integer array
    whole = draw.pick("whole", (False, True))
    d, k = draw.sizes("dk", low=3 if whole else 1)
    r = draw.whole("r", 2 if whole else 1, 5)
    B, A = draw.array("B", d, r), draw.array("A", r, k)
    return as_typed(np.rint(B) @ np.rint(A) if whole else B @ A)


def as_typed(M: Array) -> Array:
    """Convert a matrix to integers, as a person would type it, if no entry has a fraction."""
    return M.astype(np.int64) if (np.rint(M) == M).all() and np.abs(M).max() < 1e6 else M


def factors_from_columns(draw: Draw, answer: Answer, key: str) -> None:
    M = of_low_rank(draw)
    r = int(np.linalg.matrix_rank(M))
    # skip M if elimination from either side of M finds a wrong rank because of rounding errors
    draw.assume(M.any() and all(len(linalg.independent_columns(N)) == r for N in (M, M[:, ::-1])))
    B, A = parts("B A", answer(M), (len(M), r), (r, M.shape[1]) if key == "thin" else (None, None))
    if key == "thin":
        same("B @ A", B @ A, M)
    for j, column in enumerate(B.T if key == "columns" else ()):
        is_column = (
            np.isclose(M, column[:, None], rtol=1e-4, atol=1e-4 * np.abs(M).max()).all(axis=0).any()
        )
        law(is_column, f"column {j} of B is not a column of M")


def noisy_rank(draw: Draw, answer: Answer, key: str) -> None:
    noise = draw.pick("noise", (1.1, 0.7)) if key == "noise" else 0.1
    d, k = draw.sizes("dk", 1, 6)
    long = draw.pick("long", ("", "", "rows", "columns")) if draw.effort > 0.2 else ""
    # a long side tells sqrt d + sqrt k from 2 sqrt(max(d, k)), which is a known mistake
    if long:
        side = draw.whole("long side", 25, 200)
        d, k = (side, k) if long == "rows" else (d, side)
    most = min(d, k)
    r, sigma = draw.whole("r", 0, most), scale(draw) * draw.pick("sigma", (1.0, 0.1, 3.0))
    # the signal's singular values in units of sigma (sqrt d + sqrt k); the threshold is 1.5 units
    loud = 2.55 + draw.array("signal", r, low=0, high=40)
    M = with_singular_values(
        draw,
        "M",
        d,
        k,
        sigma * (np.sqrt(d) + np.sqrt(k)) * np.array([*loud, *[noise] * (most - r)]),
    )
    draw.assume(r > 0 or key == "noise")
    exactly("the rank", answer(M, sigma), int(r))


def rank_by_elimination_product(draw: Draw, answer: Answer) -> None:
    M = of_low_rank(draw)
    exactly("the rank", answer(M), int(np.linalg.matrix_rank(M)))


def rank_by_elimination_pivots(draw: Draw, answer: Answer) -> None:
    d, k, r = draw.sizes("dkr", high=4)
    A = draw.array("A", r, k, low=-1, high=1)
    A[:, : draw.whole("hollow", 0, k - 1)] = 0
    M = np.rint(draw.array("B", d, r, low=-1, high=1)) @ np.rint(A) * draw.pick("unit", (1.0, 0.5))
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
        M = scale(draw) * with_singular_values(draw, "M", d, k, s)
        unit = np.abs(M).max()
        large, all_pivots = (
            linalg.row_echelon(M, tolerance=share * unit)[1] for share in (0.1, 1e-4)
        )
        # skip M if elimination has a small pivot, because small pivots magnify rounding errors
        draw.assume(faint == 1e-3 or large == all_pivots)
        exactly("the rank", answer(M), min(d, k) if faint == 1e-3 else int(r))


def true_rank_rounding(draw: Draw, answer: Answer) -> None:
    # with at least 20 columns, a relative size of 2e-15 is within the rounding errors
    k = draw.whole("k", 20, 40)
    M = np.zeros((2, k))
    M[0] = np.rint(draw.array("row", k, low=1, high=9))
    M[1, 0] = 2e-15 * np.linalg.norm(M)
    exactly("the rank", answer(M), 1)


# Checks of the lesson "Factor a matrix"


def rank_one_terms_terms(draw: Draw, answer: Answer) -> None:
    d, r, k = draw.sizes("drk", high=4)
    B, A = draw.array("B", d, r), scale(draw) * draw.array("A", r, k)
    same("the terms", answer(B, A), np.einsum("di,ik->idk", B, A))


def cut_qr(draw: Draw, answer: Answer, key: str) -> None:
    r, d, k = rank_and_sides(draw)
    M = independent(draw, "M", d, k)
    B, A = parts("B A", answer(M, r), (d, r), (r, k))
    if key == "first":
        same("the first r columns of B @ A", (B @ A)[:, :r], M[:, :r])
    if key == "angle":
        orthonormal("B", B)
        same("B^T (M - B A)", B.T @ (M - B @ A), np.zeros((r, k)), size=np.abs(M).max())


def lu_factors(draw: Draw, answer: Answer, key: str) -> None:
    """Check L and U of a matrix with large multipliers, for which pivoting would swap rows."""
    n = draw.whole("n", 1, 4)
    right_L = np.tril(draw.array("L", n, n), -1) + np.eye(n)
    right_U = np.triu(draw.array("U", n, n), 1) + np.diag(draw.array("pivots", n, low=1))
    M = scale(draw) * right_L @ right_U
    size = float((np.abs(right_L) @ np.abs(right_U)).max() / np.abs(right_U[0, 0]) * abs(M[0, 0]))
    # add 16 to the diagonal, so that no pivot is near zero
    if draw.pick("whole", (False, True)):
        M, size = as_typed(np.rint(draw.array("M", n, n)) + 16 * np.eye(n)), 30
    L, U = parts("L U", answer(M), (n, n), (n, n))
    if key == "triangles":
        same("L above its diagonal", np.triu(L, 1), np.zeros_like(L), size=1)
        same("the diagonal of L", np.diag(L), np.ones(n))
        same("U below its diagonal", np.tril(U, -1), np.zeros_like(U), size=size)
    if key == "product":
        same("L @ U", L @ U, M, size=size)


def gram_schmidt(draw: Draw, answer: Answer, key: str) -> None:
    k = draw.whole("k", 1, 4)
    M = independent(draw, "M", draw.whole("d", k, 5), k)
    Q = real_array("Q", answer(M), M.shape)
    if key == "orthonormal":
        orthonormal("Q", Q)
    for j in range(1, k + 1 if key == "span" else 1):
        basis = Q[:, :j]
        same(f"the projection of the first {j} columns", basis @ (basis.T @ M[:, :j]), M[:, :j])


def svd_by_eigenvectors(draw: Draw, answer: Answer, key: str) -> None:
    k = draw.whole("k", 1, 4)
    d, sizes = draw.whole("d", k + 1, 6), 1 + spectrum(draw, "s", k, low=0, high=1)
    M = scale(draw) * with_singular_values(draw, "M", d, k, sizes)
    U, s, Vh = parts("U s Vh", answer(M), (d, k), (k,), (k, k))
    falls = (np.diff(s) <= 1e-4 * np.abs(s).max()).all()
    if key == "values":
        law(falls, f"the largest must come first, got {s.tolist()}", compared=s)
        same("s", s, np.linalg.svdvals(M))
    if key == "vectors":
        orthonormal("U", U)
        orthonormal("Vh^T", Vh.T)
    if key == "product":
        same("(U * s) @ Vh", (U * s) @ Vh, M)


# Checks of the lesson "Cut the SVD"


def matrix_and_rank(draw: Draw) -> tuple[Array, int]:
    r, d, k = rank_and_sides(draw)
    return scale(draw) * draw.array("M", d, k), r


def cut_closest(draw: Draw, answer: Answer) -> None:
    M, r = matrix_and_rank(draw)
    got = real_array("the approximation", answer(M, r), M.shape)
    rank = int(np.count_nonzero(np.linalg.svdvals(got) > 1e-4 * np.linalg.norm(M)))
    law(rank <= r, f"an approximation of rank {r} has at most {r} terms, but its rank is {rank}")
    closest("the error", M, got, r)


def error_curve(draw: Draw, answer: Answer, key: str) -> None:
    M, _ = matrix_and_rank(draw)
    draw.assume(M.any())
    right = linalg.rank_errors(M, relative=True)
    got = real_array("the errors", answer(M), right.shape)
    if key == "ends":
        same("the first error", got[0], 1.0)
        # allow a larger error, because the square root magnifies rounding errors near 0
        same("the last error", got[-1], 0.0, size=10)
    if key == "squares":
        same("errors", got, right, size=10)


def smallest_rank_share(draw: Draw, answer: Answer) -> None:
    M, share = matrix_and_rank(draw)[0], draw.number("share", 0.01, 0.99)
    draw.assume(M.any())
    sums = [np.cumsum(np.linalg.svdvals(M) ** power) for power in (1, 2)]
    plain, kept = (total / total[-1] for total in sums)
    # sometimes choose a share that gives a different rank if singular values are not squared
    if draw.pick("between", (False, True)):
        j = draw.whole("j", 0, len(kept) - 1)
        share = float(plain[j] + kept[j]) / 2
    # the squares add up to a power of two, so that the shares have no rounding errors
    if draw.pick("tie", (False, False, True)):
        M = np.diag(draw.pick("s", ([1.0, 1], [1.0, 1, 1, 1], [3.0, 2, 1, 1, 1])))
        kept = np.cumsum(np.diag(M) ** 2) / np.sum(M**2)
        share = float(kept[draw.whole("exact", 0, len(M) - 2)])
    else:
        draw.assume(np.abs(kept - share).min() > 1e-3)
    exactly("the rank", answer(M, share), 1 + int(np.argmax(kept >= share)))


def smallest_rank_all(draw: Draw, answer: Answer) -> None:
    r, d, k = rank_and_sides(draw)
    M = np.zeros((d, k))
    # use whole numbers on the diagonal, so that rounding errors do not affect the rank
    entries = 1 + np.rint(draw.array("diagonal", r, low=0, high=4))
    np.fill_diagonal(M, [*entries, *np.zeros(min(d, k) - r)])
    size = draw.pick("scale", (1.0, 2.0**-40, 2.0**40))  # scaling by powers of two is exact
    exactly("the rank", answer(size * M, 1.0), int(r))


def balanced_factors(draw: Draw, answer: Answer, key: str) -> None:
    M, r = matrix_and_rank(draw)
    B, A = parts("B A", answer(M, r), (len(M), r), (r, M.shape[1]))
    if key == "closest":
        closest("the error of B @ A", M, B @ A, r)
    if key == "balanced":
        same("B^T B", B.T @ B, A @ A.T, size=float(np.linalg.norm(M)), why="that is A A^T")


def top_directions(draw: Draw, answer: Answer, key: str) -> None:
    r, d, k = rank_and_sides(draw)
    # limit the ratios of singular values to 5, because with larger ratios, power iteration would
    # turn all vectors towards the first direction
    s = np.cumprod(draw.array("ratios", r, low=1, high=5))[::-1]
    s = np.array([*s, *s[-1] * draw.array("rest", min(d, k) - r, low=0.3, high=0.45)])
    M = with_singular_values(draw, "M", d, k, s)
    # make the top directions orthogonal to the first columns of M and of the identity, so that an
    # iteration that starts from these columns cannot find them
    if draw.pick("last", (False, True)):
        M = np.zeros((d, k))
        np.fill_diagonal(M, s)
        M = M[::-1, ::-1]
    Q, U = real_array("Q", answer(scale(draw) * M, r), (d, r)), np.linalg.svd(M)[0][:, :r]
    if key == "orthonormal":
        orthonormal("Q", Q)
    if key == "span":
        same("Q Q^T", Q @ Q.T, U @ U.T, why="each basis of the top directions has the same")


# Checks of the lesson "Look inside an update"


def chance_similarity_share(draw: Draw, answer: Answer) -> None:
    k = draw.whole("k", 1, 500)
    i, j = draw.whole("i", 1, k), draw.whole("j", 1, k)
    same("the similarity", answer(k, i, j), max(i, j) / k)


def similarity_turned(draw: Draw, answer: Answer) -> None:
    r, k = draw.sizes("rk", high=6)
    A = with_singular_values(draw, "A", r, k, spectrum(draw, "s", min(r, k)))
    i = draw.whole("i", 1, min(r, k))
    other = scale(draw) * mirror(draw.array("turn", r)) @ A
    why = "mixing the rows of A does not change its input directions"
    same("phi", answer(A, other, i, i), 1.0, why=why)


def similarity_phi(draw: Draw, answer: Answer) -> None:
    r, k = draw.sizes("rk", high=6)
    m = min(r, k)
    A1, A2 = (
        with_singular_values(draw, name, r, k, spectrum(draw, f"s of {name}", m))
        for name in ("A1", "A2")
    )
    i, j = draw.whole("i", 1, m), draw.whole("j", 1, m)
    same(
        "phi", answer(A1, scale(draw) * A2, i, j), linalg.subspace_similarity(A1, A2, i, j), size=1
    )


def amplification(draw: Draw, answer: Answer, key: str) -> None:
    r, d, k = rank_and_sides(draw)
    dW = with_singular_values(
        draw, "dW", d, k, spectrum(draw, "s", draw.whole("rank", r, min(d, k)))
    )
    if key == "multiple":
        W0, why = (
            dW / (draw.number("times", 0.5, 8) * scale(draw)),
            "the update is a multiple of W0",
        )
        same("the factor", answer(W0, dW, r), linalg.amplification_factor(W0, dW, rank=r), why=why)
    if key == "directions":
        W0 = draw.array("W0", d, k)
        right = linalg.amplification_factor(W0, dW, rank=r)
        # skip W0 if its projection on the update's directions is nearly zero, because the factor
        # divides by the norm of the projection
        draw.assume(right < 10 * np.linalg.norm(dW))
        same("the factor", answer(W0, dW, r), right)


def places(what: str, answer: Array, right: list[int]) -> None:
    got = sorted(real_array(what, answer, (None,)).tolist())
    law(
        got == right, f"{what} must hold {right}, got {[int(n) if n == int(n) else n for n in got]}"
    )


def intruders_home(draw: Draw, answer: Answer) -> None:
    d = draw.whole("d", 1, 5)
    k = draw.whole("k", d, 5)
    order = [*draw.pick("order", ([0, 1, 2], [1, 0, 2], [2, 0, 1])), 3, 4]
    U, V, new = (mirror(draw.array(name, n)) for name, n in (("U", d), ("V", k), ("new V", k)))
    W0 = U * spectrum(draw, "s", d) @ V[:d]
    W = U[:, [i for i in order if i < d]] * -spectrum(draw, "new s", d) @ new[:d]
    places(
        "the list", answer(W0, W, draw.whole("top", 1, d), draw.number("threshold", 0.05, 0.95)), []
    )


def intruders_new(draw: Draw, answer: Answer) -> None:
    d = draw.whole("d", 1, 4)
    k, top = draw.whole("k", d, 5), draw.whole("top", 1, d)
    W0, W = (
        with_singular_values(draw, name, d, k, spectrum(draw, f"s of {name}", d)).round(3)
        for name in ("W0", "W")
    )
    # Roll the rows, because the matrix of cosines would otherwise often be symmetric. A symmetric
    # matrix would not show that an answer takes the maximum over the wrong axis.
    W = np.roll(W, 1, axis=0)
    closest = np.abs(np.linalg.svd(W0)[0].T @ np.linalg.svd(W)[0][:, :top]).max(axis=0)
    edges, i = [0.0, *np.sort(closest), 1.0], draw.whole("intruders", 0, top)
    threshold = round((edges[i] + edges[i + 1]) / 2, 2)
    draw.assume(np.abs(closest - threshold).min() > 1e-3)
    places("the list", answer(W0, W, top, threshold), np.flatnonzero(closest < threshold).tolist())
