"""Compute the rank by elimination or from singular values, and stable and effective ranks."""

from __future__ import annotations

import numpy as np

from lora_np.checks import Array, ArrayLike, matrix, number
from lora_np.linalg.lowrank import rank_errors
from lora_np.linalg.spectrum import restored, scaled_svd, singular_values, well_scaled


def row_echelon(M: ArrayLike, *, tolerance: float | None = None) -> tuple[Array, list[int]]:
    """Return the row echelon form of a matrix and its pivot columns, by partial pivoting.

    Parameters
    ----------
    M : array_like of shape (d, k)
        Finite real numbers.
    tolerance : float, optional
        A column whose candidates are all at most this large has no pivot.
        By default ``max(d, k) * eps`` times the largest sum of a row's absolute values.

    Returns
    -------
    form : ndarray of shape (d, k)
        The row echelon form, zero below a staircase; its nonzero rows span the row space of ``M``.
    pivots : list of int
        The column of the first nonzero entry of each nonzero row. ``len(pivots)`` is the rank found
        by elimination.

    Raises
    ------
    TypeError
        If ``M`` does not hold real numbers.
    ValueError
        If ``M`` is not a finite matrix, or ``tolerance`` is negative.
    numpy.linalg.LinAlgError
        If the form overflows.

    See Also
    --------
    independent_columns : Return only the pivot columns.

    Notes
    -----
    In exact arithmetic this *is* the rank. In floating point it can be badly wrong: no pivot of a
    triangular matrix with ones on the diagonal and -1 above it is ever small, yet at size 50 its
    smallest singular value is about 1e-15. Trust `matrix_rank`.

    Examples
    --------
    >>> form, pivots = row_echelon([[1, 2, 3], [2, 4, 8], [3, 6, 11]])
    >>> form
    array([[ 3.        ,  6.        , 11.        ],
           [ 0.        ,  0.        ,  0.66666667],
           [ 0.        ,  0.        ,  0.        ]])
    >>> pivots
    [0, 2]
    """
    unit, form = well_scaled(np.array(matrix("M", M)))
    d, k = form.shape
    if tolerance is None:
        tolerance = unit * float(
            max(d, k) * np.finfo(form.dtype).eps * np.abs(form).sum(axis=1).max()
        )
    tolerance = number("tolerance", tolerance) / unit
    pivots: list[int] = []
    for column in range(k):
        row = len(pivots)
        if row == d:
            break
        best = row + int(np.argmax(np.abs(form[row:, column])))
        if abs(form[best, column]) <= tolerance:
            form[row:, column] = 0
            continue
        form[[row, best]] = form[[best, row]]
        factors = form[row + 1 :, column] / form[row, column]
        form[row + 1 :, column:] -= np.outer(factors, form[row, column:])
        form[row + 1 :, column] = 0
        pivots.append(column)
    return restored("the form", form, unit), pivots


def independent_columns(M: ArrayLike, *, tolerance: float | None = None) -> list[int]:
    """Return the indices of the leftmost independent columns, which span all other columns.

    None of these columns is a linear combination of earlier columns. They are the pivot columns of
    `row_echelon`, and ``M[:, independent_columns(M)]`` is a basis of the column space.

    Parameters
    ----------
    M : array_like of shape (d, k)
        Finite real numbers.
    tolerance : float, optional
        As in `row_echelon`.

    Returns
    -------
    list of int
        The indices of the columns, in rising order.

    Raises
    ------
    TypeError
        If ``M`` does not hold real numbers.
    ValueError
        If ``M`` is not a finite matrix, or ``tolerance`` is negative.
    numpy.linalg.LinAlgError
        If the form overflows.

    See Also
    --------
    row_echelon : Return the row echelon form as well.

    Examples
    --------
    The second column is twice the first:

    >>> independent_columns([[1, 2, 0], [2, 4, 1], [3, 6, 0]])
    [0, 2]
    """
    return row_echelon(M, tolerance=tolerance)[1]


def column_space(M: ArrayLike, *, tolerance: float | None = None) -> Array:
    """Return an orthonormal basis of the column space: the leading left singular vectors.

    Parameters
    ----------
    M : array_like of shape (d, k)
        Finite real numbers.
    tolerance : float, optional
        As in `matrix_rank`.

    Returns
    -------
    ndarray of shape (d, rank)
        The basis, in the dtype of ``M``.

    Raises
    ------
    TypeError
        If ``M`` does not hold real numbers.
    ValueError
        If ``M`` is not a finite matrix, or ``tolerance`` is negative.

    See Also
    --------
    independent_columns : Find a basis that consists of columns of the matrix.

    Examples
    --------
    >>> basis = column_space([[3, 6], [4, 8]])
    >>> abs(basis)
    array([[0.6],
           [0.8]])
    """
    M = matrix("M", M)
    unit, (U, s, _) = scaled_svd(M)
    return U[:, : _count(unit, s, M, tolerance)]


def matrix_rank(M: ArrayLike, *, tolerance: float | None = None) -> int:
    """Return the rank, the number of singular values above ``tolerance``.

    Parameters
    ----------
    M : array_like of shape (d, k)
        Finite real numbers.
    tolerance : float, optional
        By default ``max(d, k) * eps * s[0]``, as in `numpy.linalg.matrix_rank`: the size to which
        rounding can raise a singular value of zero. Measured data usually have much larger noise,
        and so full rank; use `rank_for_error` or `effective_rank` for them.

    Returns
    -------
    int
        The rank, between 0 and ``min(d, k)``.

    Raises
    ------
    TypeError
        If ``M`` does not hold real numbers.
    ValueError
        If ``M`` is not a finite matrix, or ``tolerance`` is negative.

    See Also
    --------
    rank_for_error : Find a rank of measured data.

    Examples
    --------
    >>> product = np.outer([1.0, 2.0, 3.0], [4.0, 5.0])
    >>> matrix_rank(product)
    1
    >>> matrix_rank(product + 1e-9 * np.eye(3, 2))
    2
    """
    M = matrix("M", M)
    unit, s = singular_values(M)  # s is scaled by 1 / unit, because the norm of M may overflow
    return _count(unit, s, M, tolerance)


def stable_rank(M: ArrayLike) -> float:
    """Return the stable rank ``||M||_F^2 / ||M||_2^2``, which is at most the rank.

    It is the number of directions as strong as the strongest one that would have the same Frobenius
    norm. Unlike the rank, it hardly changes with small noise.

    Parameters
    ----------
    M : array_like of shape (d, k)
        Finite real numbers.

    Returns
    -------
    float
        From 1 to the rank; 0 for a zero matrix.

    Raises
    ------
    TypeError
        If ``M`` does not hold real numbers.
    ValueError
        If ``M`` is not a finite matrix.

    See Also
    --------
    effective_rank : Compute another soft rank.

    References
    ----------
    M. Rudelson, R. Vershynin, "Sampling from large matrices", 2007.

    Examples
    --------
    >>> stable_rank(np.diag([2.0, 1.0, 1.0]))
    1.5
    """
    _, s = singular_values(matrix("M", M))
    return float(np.sum(np.square(s / s[0]))) if s[0] > 0 else 0.0


def effective_rank(M: ArrayLike) -> float:
    """Return the effective rank ``exp(entropy(s / sum(s)))`` of the singular values s.

    It is the rank of a matrix with equal nonzero singular values and the same entropy.

    Parameters
    ----------
    M : array_like of shape (d, k)
        Finite real numbers.

    Returns
    -------
    float
        From 1 to the rank; 0 for a zero matrix.

    Raises
    ------
    TypeError
        If ``M`` does not hold real numbers.
    ValueError
        If ``M`` is not a finite matrix.

    See Also
    --------
    stable_rank : Compute another soft rank.

    References
    ----------
    O. Roy, M. Vetterli, "The effective rank: a measure of effective dimensionality", 2007.

    Examples
    --------
    >>> round(effective_rank(np.eye(3)), 12)
    3.0
    """
    _, s = singular_values(matrix("M", M))
    share = s[s > 0] / s.sum() if s[0] > 0 else s[:0]
    return float(np.exp(-np.sum(share * np.log(share)))) if share.size else 0.0


def energy(M: ArrayLike) -> Array:
    """Return the energy ``sum(s[:r]**2) / sum(s**2)`` of the best rank-r approximation for every r.

    The energy is ``1 - error**2`` for the relative Frobenius error of `rank_errors`. For a zero
    matrix, it is 1 at every rank.

    Parameters
    ----------
    M : array_like of shape (d, k)
        Finite real numbers.

    Returns
    -------
    ndarray of shape (min(d, k) + 1,)
        The shares, which rise from 0 to 1, in the dtype of ``M``.

    Raises
    ------
    TypeError
        If ``M`` does not hold real numbers.
    ValueError
        If ``M`` is not a finite matrix.

    See Also
    --------
    rank_for_energy : Find the rank that keeps a share.

    Examples
    --------
    >>> energy(np.diag([3.0, 1.0]))
    array([0. , 0.9, 1. ])
    """
    return 1 - np.square(rank_errors(M, relative=True))


def _count(unit: float, s: Array, M: Array, tolerance: float | None) -> int:
    """Count the values of ``unit * s`` above the tolerance."""
    if tolerance is None:
        limit = float(s[0] * max(M.shape) * np.finfo(M.dtype).eps)
    else:
        limit = number("tolerance", tolerance) / unit
    return int(np.count_nonzero(s > limit))
