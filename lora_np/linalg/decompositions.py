"""Compute four decompositions in readable code; for large matrices, use NumPy, which is faster.

Each is backward stable: the factors are exact for a matrix that differs from ``M`` only by
rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lora_np.checks import Array, ArrayLike, matrix
from lora_np.linalg.spectrum import SVD, binary_unit, restored, well_scaled

SWEEPS = 60  # a limit; about ten sweeps usually suffice, and no observed case needed more than 16


@np.errstate(under="ignore")
def lu(M: ArrayLike) -> tuple[Array, Array, Array]:
    """Return ``order``, L and U with ``M[order] = L @ U``, by elimination with partial pivoting.

    Parameters
    ----------
    M : array_like of shape (d, k)
        Finite real numbers.

    Returns
    -------
    order : ndarray of int, shape (d,)
        The order in which the rows of ``M`` were used.
    L : ndarray of shape (d, min(d, k))
        A unit lower trapezoidal matrix without entries above 1 in absolute value.
    U : ndarray of shape (min(d, k), k)
        An upper trapezoidal matrix.

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
    qr : Decompose a matrix with orthonormal columns.

    Notes
    -----
    Cost: ``d k m - (d + k) m^2 / 2 + m^3 / 3`` multiplications with m = min(d, k), a third of n^3
    for a square matrix. Guarantee: the rounding error is a modest multiple of eps times the largest
    entry met on the way. Failure mode: that entry can grow as ``2**(m - 1)`` (in Wilkinson's
    example; never in practice). And small pivots do not measure the rank: see `row_echelon`.

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
            continue  # column j is already zero from row j on
        L[j + 1 :, j] = U[j + 1 :, j] / U[j, j]
        U[j + 1 :, j:] -= np.outer(L[j + 1 :, j], U[j, j:])
        U[j + 1 :, j] = 0
    return order, L, restored("U", U[:m], unit)


def qr(M: ArrayLike) -> tuple[Array, Array]:
    """Return Q and R with ``M = Q @ R``, computed by Householder reflections.

    Parameters
    ----------
    M : array_like of shape (d, k)
        Finite real numbers.

    Returns
    -------
    Q : ndarray of shape (d, min(d, k))
        Orthonormal columns.
    R : ndarray of shape (min(d, k), k)
        Upper trapezoidal.

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
    lu : Decompose a matrix without orthonormal columns.

    Notes
    -----
    Cost: ``2 d k^2 - 2 k^3 / 3`` operations for R where d >= k, and as many again for Q. Guarantee:
    Q is orthonormal to rounding for every M, because reflections are. Gram-Schmidt, which is
    shorter, loses this for nearly dependent columns. Failure mode: the diagonal of R can hide a
    small singular value; pivoting hides it less.

    References
    ----------
    A. S. Householder, "Unitary triangularization of a nonsymmetric matrix", 1958.

    Examples
    --------
    >>> Q, R = qr([[3.0, 5.0], [4.0, 0.0]])
    >>> R
    array([[-5., -3.],
           [ 0.,  4.]])
    """
    Q, R, _ = _triangular(M, pivoting=False)
    return Q, R


def qr_pivoted(M: ArrayLike) -> tuple[Array, Array, Array]:
    """Return Q, R and ``order`` with ``M[:, order] = Q @ R``, by QR with column pivoting.

    Each step takes the column with the largest remainder.

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
        The order in which the columns of ``M`` were taken.

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
    qr : Decompose a matrix without pivoting.

    Notes
    -----
    Cost: 1.5 times the cost of `qr`, because of the column norms. They are recomputed at every
    step; LAPACK updates them, which is cheaper but needs a guard against cancellation. Guarantee:
    ``|R[j, j]|`` is at least as large as every entry of the columns that are left, so a zero means
    that all of them are spanned. In practice it follows the singular values within a small factor.
    Failure mode: on Kahan's matrix the last entry of the diagonal is larger than the smallest
    singular value, by a factor that grows exponentially with the size.

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
    return _triangular(M, pivoting=True)


@np.errstate(under="ignore")
def svd(M: ArrayLike) -> SVD:
    """Return the SVD ``M = (U * s) @ Vh``, computed by one-sided Jacobi rotations.

    Pairs of columns are rotated until all columns are orthogonal. The final columns are ``U * s``,
    and the product of the rotations is ``V``.

    Parameters
    ----------
    M : array_like of shape (d, k)
        Finite real numbers.

    Returns
    -------
    SVD
        A named tuple of ``U`` (d, m), ``s`` (m,) descending, and ``Vh`` (m, k), m = min(d, k).

    Raises
    ------
    TypeError
        If ``M`` does not hold real numbers.
    ValueError
        If ``M`` is not a finite matrix.
    numpy.linalg.LinAlgError
        If the norm of ``M`` overflows, or the columns are not orthogonal after 60 sweeps, which has
        not been observed.

    See Also
    --------
    truncated_svd : Compute an SVD by LAPACK, for large matrices.

    Notes
    -----
    Cost: about ten sweeps of ``6 max(d, k) m^2`` operations, several times LAPACK's.
    Guarantee: if M is a well-conditioned matrix with scaled columns, even the smallest singular
    values have nearly all digits. LAPACK's bidiagonalisation only guarantees an error of eps times
    the largest singular value. Failure mode: convergence is proved for small angles in a fixed
    order, without a bound on the sweeps.

    References
    ----------
    M. R. Hestenes, "Inversion of matrices by biorthogonalization and related results", 1958.
    J. Demmel, K. Veselic, "Jacobi's method is more accurate than QR", 1992.

    Examples
    --------
    >>> svd([[0.0, 2.0], [3.0, 0.0]]).s
    array([3., 2.])
    """
    M = matrix("M", M)
    if M.shape[0] < M.shape[1]:
        V, s, Uh = svd(M.T)
        return SVD(Uh.T, s, V.T)
    unit = binary_unit(M)
    columns = M / M.dtype.type(unit)  # (d, k)
    V = np.eye(M.shape[1], dtype=M.dtype)
    for _ in range(SWEEPS):
        if not _sweep(columns, V):
            break
    else:
        raise np.linalg.LinAlgError(f"Jacobi rotations did not converge in {SWEEPS} sweeps")
    s = np.linalg.norm(columns, axis=0)
    order = np.argsort(-s, kind="stable")
    s = s[order]
    return SVD(_directions(columns[:, order], s), restored("the norm of M", s, unit), V[:, order].T)


@np.errstate(under="ignore")
def _triangular(M: ArrayLike, *, pivoting: bool) -> tuple[Array, Array, Array]:
    """Return Q, R and the order of the columns, computed by Householder reflections."""
    unit, R = well_scaled(np.array(matrix("M", M)))  # scaled, so that squared norms do not overflow
    order = np.arange(R.shape[1])
    mirrors = []
    for j in range(min(R.shape)):
        if pivoting:
            best = j + int(np.argmax(np.square(R[j:, j:]).sum(axis=0)))
            R[:, [j, best]] = R[:, [best, j]]
            order[[j, best]] = order[[best, j]]
        mirrors.append(_mirror(R[j:, j]))
        _reflect(R[j:, j:], mirrors[-1])
        R[j + 1 :, j] = 0
    return _product(mirrors, len(R)), restored("R", R[: len(mirrors)], unit), order


def _mirror(x: Array) -> Array:
    """Return the unit vector v whose reflection maps x to the first axis; zero if x is zero.

    The reflection is ``I - 2 v v^T``.
    """
    size = np.abs(x).max()
    if size == 0:
        return np.zeros_like(x)
    v: Array = x / size  # scaled, so that squares neither overflow nor underflow
    v[0] += np.copysign(np.linalg.norm(v), v[0])  # an addend of equal sign avoids cancellation
    v /= np.linalg.norm(v)
    return v


def _reflect(X: Array, v: Array) -> None:
    X -= np.outer(2 * v, v @ X)


def _product(mirrors: list[Array], d: int) -> Array:
    """Return the product of all m reflections, truncated to its first m columns."""
    Q = np.eye(d, len(mirrors), dtype=mirrors[0].dtype)
    for j in reversed(range(len(mirrors))):
        _reflect(Q[j:, j:], mirrors[j])
    return Q


def _sweep(columns: Array, V: Array) -> bool:
    """Do one Jacobi sweep over all pairs of columns in place; return whether any was rotated."""
    k = columns.shape[1]
    # bounds the rounding error of the inner product of orthogonal columns, relative to their norms
    tolerance = 2 * len(columns) * np.finfo(columns.dtype).eps
    smallest = _smallest(columns.dtype)
    rotated = False
    for p in range(k):
        for q in range(p + 1, k):
            x, y = columns[:, p], columns[:, q]
            xx, yy, xy = x @ x, y @ y, x @ y
            if min(xx, yy) <= smallest**2 or abs(xy) <= tolerance * np.sqrt(xx) * np.sqrt(yy):
                continue
            rotated = True
            # t is the tangent of the rotation's angle. Of the roots of t^2 + 2 zeta t - 1 = 0,
            # take the smaller in magnitude, so that the angle is at most 45 degrees.
            zeta = (yy - xx) / (2 * xy)
            t = np.copysign(1, zeta) / (abs(zeta) + np.hypot(1, zeta))
            cosine = 1 / np.hypot(1, t)
            turn = cosine * np.array([[1, t], [-t, 1]], dtype=columns.dtype)
            columns[:, [p, q]] = columns[:, [p, q]] @ turn
            V[:, [p, q]] = V[:, [p, q]] @ turn
    return rotated


def _directions(columns: Array, s: Array) -> Array:
    """Divide the columns by their lengths s; replace negligible columns to complete the basis."""
    good = int(np.count_nonzero(s > _smallest(columns.dtype)))
    U = columns[:, :good] / s[:good]
    if good < len(s):
        d = len(columns)
        basis, _ = qr(np.concatenate([U, np.eye(d, dtype=U.dtype)], axis=1))
        U = np.concatenate([U, basis[:, good : len(s)]], axis=1)
    return U


def _smallest(dtype: np.dtype[Any]) -> float:
    """Return the length below which a column counts as zero, because its squares underflow."""
    limits = np.finfo(dtype)
    return float(np.sqrt(limits.tiny) / limits.eps)
