"""Random questions: shapes and matrices that no answer can know beforehand."""

from __future__ import annotations

import numpy as np

from lora_np.checks import Array


def sizes(rng: np.random.Generator, count: int, low: int = 2, high: int = 7) -> list[int]:
    """``count`` whole numbers from ``low`` to ``high``.

    Examples
    --------
    >>> len(sizes(np.random.default_rng(0), 3))
    3
    """
    return [int(n) for n in rng.integers(low, high + 1, count)]


def of_rank(rng: np.random.Generator, d: int, k: int, rank: int) -> Array:
    """A d x k matrix with singular values between 1 and 2, and zeros after ``rank``.

    Examples
    --------
    >>> int(np.linalg.matrix_rank(of_rank(np.random.default_rng(0), 4, 5, 2)))
    2
    """
    return with_spectrum(rng, d, k, np.sort(rng.uniform(1, 2, rank))[::-1])


def with_spectrum(rng: np.random.Generator, d: int, k: int, s: Array) -> Array:
    """A d x k matrix with these singular values, and zeros after them.

    Examples
    --------
    >>> M = with_spectrum(np.random.default_rng(0), 4, 5, np.array([3.0, 1.0]))
    >>> np.linalg.svdvals(M).round(6)[:2]
    array([3., 1.])
    """
    U = np.linalg.qr(rng.normal(size=(d, len(s))))[0]
    V = np.linalg.qr(rng.normal(size=(k, len(s))))[0]
    product: Array = (U * s) @ V.T
    return product
