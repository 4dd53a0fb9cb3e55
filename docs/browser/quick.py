"""What `lora_np` takes minutes for in a page, where NumPy has LAPACK without fast kernels: the
updates of adapters of a high rank, measured from the Gram matrices that ``spectra.js`` computes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import js
import numpy as np
from pyodide.ffi import to_js

from lora_np.adapters import inspection, spectra, values
from lora_np.linalg import SVD, rank

HIGH = 64  # from this rank on it pays
KEPT = 6  # results, since an answer and the next one ask for the same

Array = np.ndarray[Any, Any]
gram_of, directions_of = values._gram, spectra.directions
svd_of: Callable[..., SVD] = vars(spectra)["svd_of_product"]
values_of: Callable[..., tuple[float, Array]] = vars(rank)["singular_values"]
known: OrderedDict[Any, Any] = OrderedDict()


def once(compute: Callable[..., Any], *arrays: Array) -> Any:
    """What is computed from arrays, unless it is known from a moment ago."""
    key = compute, *((one.shape, one.dtype, hash(one.tobytes())) for one in arrays)
    if key not in known:
        known[key] = compute(*arrays)
    known.move_to_end(key)
    while len(known) > KEPT:
        known.popitem(last=False)
    return known[key]


def is_high(B: Array, A: Array) -> bool:
    """Whether squares of these numbers are in the range of float64, and enough of them."""
    return B.ndim == 2 and min(*B.shape, *A.shape) >= HIGH and B.dtype == A.dtype == np.float32


def from_js(found: Any) -> Array:
    square = np.asarray(found.to_py())
    n = round(len(square) ** 0.5)
    return square.reshape(n, n)


def gram(M: Array) -> Array:
    """``M M^T`` with rows and columns of zeros up to a multiple of four."""
    r, length = M.shape
    rows = bool(M.flags.c_contiguous)
    numbers = to_js(np.ascontiguousarray(M if rows else M.T).ravel())
    return from_js(js.loraSpectra.gram(numbers, r, length, rows))


def flat(*squares: Array) -> list[Any]:
    return [to_js(square.ravel()) for square in squares]


def singular_values(B: Array, A: Array) -> Array:
    found = js.loraSpectra.values(*flat(once(gram, B.T), once(gram, A)))
    return np.asarray(found.to_py())[: min(*B.shape, *A.shape)].astype(B.dtype)


def decomposition(B: Array, A: Array) -> SVD:
    """Its directions that are of rounding alone are zero."""
    count = min(*B.shape, *A.shape)
    of_B = once(gram, B.T)
    U, M = map(from_js, js.loraSpectra.middle(*flat(of_B, once(gram, A))))
    squares, Z = np.linalg.eigh(M, UPLO="L")
    squares, Z = squares[: -count - 1 : -1], Z[:, : -count - 1 : -1]
    s = np.sqrt(np.maximum(squares, 0))
    s[squares <= len(M) * np.finfo(float).eps * squares[0]] = 0
    inverse = np.divide(1, s, out=np.zeros_like(s), where=s > 0)
    X = U.T @ Z * inverse
    r = B.shape[1]
    right = (of_B @ X * inverse)[:r]
    parts = B @ X[:r].astype(B.dtype), s.astype(B.dtype), right.T.astype(A.dtype) @ A
    return SVD(*parts)


def _gram(factor: Array) -> tuple[Array, Array]:
    if factor.ndim != 2 or len(factor) < HIGH or factor.dtype != np.float32:
        return gram_of(factor)
    found = once(gram, factor)[: len(factor), : len(factor)]
    return np.sqrt(np.diag(found)), found


def svd_of_product(B: Array, A: Array) -> SVD:
    return once(decomposition, B, A) if is_high(B, A) else svd_of(B, A)


def directions(place: str, B: Array, A: Array) -> SVD:
    """For `inspection`, which reads the singular values only."""
    if not is_high(B, A):
        return directions_of(place, B, A)
    s = spectra.finite(place, singular_values, B, A)
    return SVD(B[:, :0], s, A[:0])


def of_diagonal(M: Array) -> tuple[float, Array]:
    """Singular values, which a diagonal matrix shows."""
    diagonal = np.diagonal(M)
    if np.count_nonzero(M) > np.count_nonzero(diagonal):
        return values_of(M)
    return 1.0, np.sort(np.abs(diagonal).astype(np.float64))[::-1]


vars(values)["_gram"] = _gram
vars(spectra)["svd_of_product"] = svd_of_product
vars(inspection)["directions"] = directions
vars(rank)["singular_values"] = of_diagonal
