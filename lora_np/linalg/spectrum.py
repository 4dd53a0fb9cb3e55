"""Compute singular values without overflow or underflow, and sums over them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lora_np.checks import Array, overflow_allowed


class SVD(NamedTuple):
    """A singular value decomposition ``M = (U * s) @ Vh``.

    Parameters
    ----------
    U : ndarray of shape (d, r)
        The left singular vectors, in orthonormal columns.
    s : ndarray of shape (r,)
        The singular values, descending.
    Vh : ndarray of shape (r, k)
        The right singular vectors, in orthonormal rows.

    Examples
    --------
    >>> U, s, Vh = SVD(np.eye(2), np.array([3.0, 1.0]), np.eye(2))
    >>> (U * s) @ Vh
    array([[3., 0.],
           [0., 1.]])
    """

    U: Array
    s: Array
    Vh: Array

    def significant(self) -> SVD:
        """Return the SVD without directions that rounding alone can cause; keep at least one."""
        smallest = max(len(self.U), self.Vh.shape[1]) * np.finfo(self.s.dtype).eps
        count = max(1, np.count_nonzero(self.s > self.s[0] * smallest))
        return SVD(self.U[:, :count], self.s[:count], self.Vh[:count])


def exponent(M: Array) -> int:
    """Return the exponent of the largest power of two up to ``max|M|``; 0 for a zero matrix."""
    largest = max(M.max(), -M.min())
    return int(np.frexp(largest)[1]) - 1 if largest > 0 else 0


def binary_unit(M: Array) -> float:
    """Return the largest power of two up to ``max|M|``; 1 for a zero matrix."""
    return float(np.ldexp(1.0, exponent(M)))


def well_scaled(M: Array) -> tuple[float, Array]:
    """Return ``(unit, M / unit)``, so that fourth powers of entries neither overflow nor underflow.

    The unit is a `binary_unit`; for usual matrices it is 1, and M is not copied.
    """
    unit = binary_unit(M)
    info = np.finfo(M.dtype)
    if info.tiny**0.25 < unit < info.max**0.25:
        return 1.0, M
    return unit, M / M.dtype.type(unit)


def scaled_svd(M: Array) -> tuple[float, SVD]:
    """Return ``unit`` and the SVD of ``M / unit``, as the norm of ``M`` may overflow."""
    unit, M = well_scaled(M)
    return unit, SVD(*np.linalg.svd(M, full_matrices=False))


def restored(what: str, x: Array, unit: float, *, divide: str = "M") -> Array:
    """Return ``unit * x`` in the dtype of x; raise an error with advice if it overflows."""
    with overflow_allowed():
        result = (x * np.float64(unit)).astype(x.dtype)
    if not np.isfinite(result).all():
        raise np.linalg.LinAlgError(
            f"{what} overflows {x.dtype}: divide {divide} by a power of two first"
        )
    return result


def singular_values(M: Array) -> tuple[float, Array]:
    """Return a power of two ``unit`` and the singular values of ``M / unit``, largest first."""
    unit, M = well_scaled(M)
    return unit, np.linalg.svdvals(M).astype(np.float64)


def tail_sums(x: Array) -> Array:
    """Return ``sum(x[r:])`` for every r, added from the end so that short tails are accurate."""
    return np.append(np.cumsum(x[::-1])[::-1], 0.0)
