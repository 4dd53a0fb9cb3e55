"""Two decompositions, written to be read. For large matrices use LAPACK, which NumPy calls.

Each is backward stable: the factors are exact for a matrix that differs from ``M`` only by rounding.
"""

from __future__ import annotations

import numpy as np

from lora_np.checks import Array, ArrayLike, matrix
from lora_np.linalg.spectrum import restored, well_scaled


def lu(M: ArrayLike) -> tuple[Array, Array, Array]:
    """``M[order] = L @ U``: elimination, recorded. Partial pivoting moves the largest candidate up.

    Parameters
    ----------
    M : array_like of shape (d, k)
        Finite real numbers.

    Returns
    -------
    order : ndarray of int, shape (d,)
        The rows of ``M`` in the order in which they were used.
    L : ndarray of shape (d, min(d, k))
        Unit lower trapezoidal, no entry above 1 in absolute value.
    U : ndarray of shape (min(d, k), k)
        Upper trapezoidal.

    Raises
    ------
    TypeError
        If ``M`` does not hold real numbers.
    ValueError
        If ``M`` is not a finite matrix.
    numpy.linalg.LinAlgError
        If ``U`` overflows.

    See Also
    --------
    qr_pivoted : With orthonormal columns.

    Notes
    -----
    Cost: ``d k m - (d + k) m^2 / 2 + m^3 / 3`` multiplications with m = min(d, k), a third of n^3 for a
    square matrix.
    Guarantee: the rounding error is a modest multiple of eps times the largest entry met on the way.
    Failure mode: that entry can grow as ``2**(m - 1)`` (in Wilkinson's example; never in practice). And small
    pivots do not measure the rank: see `row_echelon`.

    References
    ----------
    N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., 2002, chapter 9.

    Examples
    --------
    >>> order, L, U = lu([[1.0, 2.0], [4.0, 4.0]])
    >>> order
    array([1, 0])
    >>> L
    array([[1.  , 0.  ],
           [0.25, 1.  ]])
    >>> U
    array([[4., 4.],
           [0., 1.]])
    """
    unit, U = well_scaled(np.array(matrix("M", M)))
    d, k = U.shape
    m = min(d, k)
    L = np.eye(d, m, dtype=U.dtype)
    order = np.arange(d)
    for j in range(m):
        best = j + int(np.argmax(np.abs(U[j:, j])))
        U[[j, best]] = U[[best, j]]
        L[[j, best], :j] = L[[best, j], :j]
        order[[j, best]] = order[[best, j]]
        if U[j, j] == 0:
            continue  # nothing below it either
        L[j + 1 :, j] = U[j + 1 :, j] / U[j, j]
        U[j + 1 :, j:] -= np.outer(L[j + 1 :, j], U[j, j:])
        U[j + 1 :, j] = 0
    return order, L, restored("U", U[:m], unit)


def qr_pivoted(M: ArrayLike) -> tuple[Array, Array, Array]:
    """``M[:, order] = Q @ R``, each step taking the column with the most left outside the span so far.

    Parameters
    ----------
    M : array_like of shape (d, k)
        Finite real numbers.

    Returns
    -------
    Q : ndarray of shape (d, min(d, k))
        Orthonormal columns.
    R : ndarray of shape (min(d, k), k)
        Upper trapezoidal, with a diagonal that falls in absolute value.
    order : ndarray of int, shape (k,)
        The columns of ``M`` in the order in which they were taken.

    Raises
    ------
    TypeError
        If ``M`` does not hold real numbers.
    ValueError
        If ``M`` is not a finite matrix.
    numpy.linalg.LinAlgError
        If ``R`` overflows.

    See Also
    --------
    qr : Without pivoting.

    Notes
    -----
    Cost: that of `qr` and half as much again, for the column norms. They are recomputed at every step; LAPACK
    updates them, which is cheaper but needs a guard against cancellation.
    Guarantee: ``|R[j, j]|`` is at least as large as every entry of the columns that are left, so a zero means
    that all of them are spanned. In practice it follows the singular values within a small factor.
    Failure mode: on Kahan's matrix the last entry of the diagonal is larger than the smallest singular value,
    by a factor that grows exponentially with the size.

    References
    ----------
    P. Businger, G. Golub, "Linear least squares solutions by Householder transformations", 1965.
    W. Kahan, "Numerical linear algebra", 1966.

    Examples
    --------
    >>> Q, R, order = qr_pivoted([[1.0, 3.0], [0.0, 4.0]])
    >>> order
    array([1, 0])
    >>> abs(np.diag(R))
    array([5. , 0.8])
    """
    unit, R = well_scaled(np.array(matrix("M", M)))  # squared norms must not overflow
    order = np.arange(R.shape[1])
    mirrors = []
    for j in range(min(R.shape)):
        best = j + int(np.argmax(np.square(R[j:, j:]).sum(axis=0)))
        R[:, [j, best]] = R[:, [best, j]]
        order[[j, best]] = order[[best, j]]
        mirrors.append(_mirror(R[j:, j]))
        _reflect(R[j:, j:], mirrors[-1])
        R[j + 1 :, j] = 0
    return _product(mirrors, len(R)), restored("R", R[: len(mirrors)], unit), order


def _mirror(x: Array) -> Array:
    """The unit normal v of the mirror that lays x on the first axis: ``x - 2 v (v @ x) = (+-|x|, 0 ...)``."""
    size = np.abs(x).max()
    if size == 0:
        return np.zeros_like(x)
    v: Array = x / size  # so that squares neither overflow nor vanish
    v[0] += np.copysign(np.linalg.norm(v), v[0])  # away from zero: no cancellation
    v /= np.linalg.norm(v)
    return v


def _reflect(X: Array, v: Array) -> None:
    X -= np.outer(2 * v, v @ X)


def _product(mirrors: list[Array], d: int) -> Array:
    """The first columns of ``H_1 H_2 ... H_m``, where ``H_j`` leaves the first j axes alone."""
    Q = np.eye(d, len(mirrors), dtype=mirrors[0].dtype)
    for j in reversed(range(len(mirrors))):
        _reflect(Q[j:, j:], mirrors[j])
    return Q
