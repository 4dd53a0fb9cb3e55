"""Compute best rank-r approximations, their errors and factors, and sufficient ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from lora_np.checks import Array, ArrayLike, choice, guided, matrix, number, real, whole_number
from lora_np.linalg import decompositions
from lora_np.linalg.spectrum import SVD, restored, singular_values, tail_sums, well_scaled

Norm = Literal["fro", "spectral", "nuclear"]

SMALL = 200  # up to this min(d, k), the full SVD is fast enough

# By default, a sufficient rank keeps this share of the squared norm.
ENOUGH = 0.99
# extra directions beyond the rank, which widen the spectral gap and so speed up convergence
OVERSAMPLING = 12


@guided()
def truncated_svd(M: ArrayLike, *, rank: int, tolerance: float = 1e-6) -> SVD:
    """Return the SVD truncated to ``rank``, which is the best approximation of that rank.

    Above 200 rows and columns, an SVD of low rank is computed by iteration, up to ``tolerance`` and
    always from the same random subspace.

    Parameters
    ----------
    M : array_like of shape (d, k)
        Finite real numbers.
    rank : int
        ``1 <= rank <= min(d, k)``.
    tolerance : float
        The iteration ends when its error ``||M - (U * s) @ Vh||_F`` is estimated to exceed the
        smallest possible error by at most this fraction, or by rounding. If the iteration would
        cost as much as a full SVD, the full SVD is computed instead.

    Returns
    -------
    SVD
        A named tuple of ``U`` (d, rank), ``s`` (rank,) descending, and ``Vh`` (rank, k).

    Raises
    ------
    TypeError
        If ``M`` does not hold real numbers.
    ValueError
        If ``M`` is not a finite matrix, or an option is out of range.
    numpy.linalg.LinAlgError
        If the norm of ``M`` overflows.

    See Also
    --------
    low_rank_factors : Return the approximation as two factors.

    Notes
    -----
    Signs of paired singular vectors are arbitrary. One iteration costs ``4 d k (rank + 12)``
    operations, the full SVD about ``10 d k min(d, k)``. LAPACK, called through NumPy, works in
    float64: a full SVD needs about 18 times the memory of a float32 matrix, and 8 times the memory
    of a float64 matrix.

    References
    ----------
    C. Eckart, G. Young, "The approximation of one matrix by another of lower rank", 1936. G. Golub,
    F. Luk, M. Overton, "A block Lanczos method for computing the singular values and corresponding
    singular vectors of a matrix", 1981. N. Halko, P.-G. Martinsson, J. Tropp, "Finding structure
    with randomness", 2011. C. Musco, C. Musco, "Randomized block Krylov methods for stronger and
    faster approximate SVD", 2015.

    Examples
    --------
    >>> truncated_svd(np.diag([1.0, 5.0, 3.0]), rank=2).s
    array([5., 3.])
    """
    unit, M = well_scaled(matrix("M", M))
    rank = _rank(rank, M)
    tolerance = number("tolerance", tolerance, open_minimum=True)
    large = min(M.shape) > SMALL and 2 * (rank + OVERSAMPLING) <= min(M.shape)
    F = _iterate(M, rank, tolerance) if large else None
    U, s, Vh = F or np.linalg.svd(M, full_matrices=False)
    return SVD(U[:, :rank], restored("the norm of M", s[:rank], unit), Vh[:rank])


@guided()
def low_rank_factors(
    M: ArrayLike, *, rank: int, method: Literal["svd", "qr", "lu"] = "svd"
) -> tuple[Array, Array]:
    """Return factors B and A of a rank-r approximation ``B @ A`` of M: the best one by default.

    They are then the best in the Frobenius and in the spectral norm; `truncated_svd` states the
    accuracy for large matrices. Other decompositions can be truncated too, but are never better.

    Parameters
    ----------
    M : array_like of shape (d, k)
        Finite real numbers.
    rank : int
        ``1 <= rank <= min(d, k)``.
    method : {"svd", "qr", "lu"}
        The decomposition to truncate: the SVD, or, for comparison and for small matrices,
        `linalg.lu` or a `linalg.qr` that takes the longest column first.

    Returns
    -------
    B : ndarray of shape (d, rank)
        For the SVD ``U * sqrt(s)``: orthogonal columns.
    A : ndarray of shape (rank, k)
        For the SVD ``sqrt(s) * Vh``: orthogonal rows, as long as the columns of B.

    Raises
    ------
    TypeError
        If ``M`` does not hold real numbers.
    ValueError
        If ``M`` is not a finite matrix, ``rank`` is out of range or the method is not known.
    numpy.linalg.LinAlgError
        If the norm of ``M`` overflows.

    See Also
    --------
    truncated_svd : Return singular values and vectors.

    Notes
    -----
    Signs of paired columns are arbitrary; only the product is unique (and only if ``s[rank - 1] >
    s[rank]``).

    References
    ----------
    C. Eckart, G. Young, "The approximation of one matrix by another of lower rank", 1936.

    Examples
    --------
    >>> B, A = low_rank_factors(np.outer([1.0, 2.0], [3.0, 4.0, 5.0]), rank=1)
    >>> B.shape, A.shape
    ((2, 1), (1, 3))
    """
    M = matrix("M", M)
    rank = _rank(rank, M)
    choice("method", method, ("svd", "qr", "lu"))
    if method == "qr":
        Q, R, order = decompositions.qr_pivoted(M)
        return Q[:, :rank], R[:rank, np.argsort(order)]
    if method == "lu":
        order, L, U = decompositions.lu(M)
        return L[np.argsort(order), :rank], U[:rank]
    U, s, Vh = truncated_svd(M, rank=rank)
    root = np.sqrt(s)
    return U * root, root[:, None] * Vh


def rank_errors(M: ArrayLike, *, norm: Norm = "fro", relative: bool = False) -> Array:
    """Return the errors ``||M - M_r||`` of the best approximations of rank r = 0 to min(d, k).

    No approximation is formed: the errors are sums over the truncated singular values.

    Parameters
    ----------
    M : array_like of shape (d, k)
        Finite real numbers.
    norm : {"fro", "spectral", "nuclear"}
        The norm: ``sqrt(sum s**2)``, ``max s`` or ``sum s`` over the truncated singular values.
    relative : bool
        Divide by ``||M||`` in the same norm. A zero matrix has errors of 0.

    Returns
    -------
    ndarray of shape (min(d, k) + 1,)
        The errors, which fall from ``||M||`` (or 1) to 0.

    Raises
    ------
    TypeError
        If ``M`` does not hold real numbers.
    ValueError
        If ``M`` is not a finite matrix or the norm is not known.
    numpy.linalg.LinAlgError
        If the norm of ``M`` overflows.

    See Also
    --------
    rank_for_error : Find the smallest rank within a tolerance.

    References
    ----------
    C. Eckart, G. Young, "The approximation of one matrix by another of lower rank", 1936.
    L. Mirsky, "Symmetric gauge functions and unitarily invariant norms", 1960.

    Examples
    --------
    >>> rank_errors(np.diag([3.0, 4.0]))
    array([5., 3., 0.])
    >>> rank_errors(np.diag([3.0, 4.0]), norm="nuclear")
    array([7., 3., 0.])
    """
    choice("norm", norm, _TAIL_NORMS)
    M = matrix("M", M)
    unit, s = singular_values(M)
    errors = _TAIL_NORMS[norm](s)
    if relative:
        errors, unit = errors / (errors[0] or 1.0), 1.0
    return restored("the norm of M", errors.astype(M.dtype), unit)


def rank_for_error(M: ArrayLike, *, tolerance: float = 0.01, norm: Norm = "fro") -> int:
    """Return the smallest rank r with ``||M - M_r|| <= tolerance * ||M||``.

    Parameters
    ----------
    M : array_like of shape (d, k)
        Finite real numbers.
    tolerance : float
        The relative error, between 0 and 1.
    norm : {"fro", "spectral", "nuclear"}
        The norm, as in `rank_errors`.

    Returns
    -------
    int
        The rank, between 0 and ``min(d, k)``.

    Raises
    ------
    TypeError
        If ``M`` does not hold real numbers.
    ValueError
        If ``M`` is not a finite matrix, or an option is out of range.

    See Also
    --------
    rank_errors : Return the errors of all ranks.

    Examples
    --------
    >>> rank_for_error(np.diag([1.0, 0.1, 0.001]))
    2
    """
    return rank_within(rank_errors(M, norm=norm, relative=True), tolerance=tolerance)


def rank_for_energy(M: ArrayLike, *, energy: float = ENOUGH) -> int:
    """Return the smallest rank whose best approximation keeps a share ``energy`` of ``||M||_F^2``.

    Parameters
    ----------
    M : array_like of shape (d, k)
        Finite real numbers.
    energy : float
        The share to keep, between 0 and 1.

    Returns
    -------
    int
        The rank, between 0 and ``min(d, k)``.

    Raises
    ------
    TypeError
        If ``M`` does not hold real numbers.
    ValueError
        If ``M`` is not a finite matrix or ``energy`` is out of range.

    See Also
    --------
    energy : Return the shares of all ranks.

    Examples
    --------
    >>> rank_for_energy(np.diag([3.0, 1.0, 1.0]), energy=0.9)
    2
    """
    energy = number("energy", energy, maximum=1)
    return rank_within(rank_errors(M, relative=True), tolerance=(1 - energy) ** 0.5)


def rank_within(errors: ArrayLike, *, tolerance: float) -> int:
    """Return the first rank whose relative error is at most ``tolerance``.

    Keeping a share of the squared norm means a relative Frobenius error of at most ``sqrt(1 -
    share)``.

    Parameters
    ----------
    errors : array_like of shape (n,)
        Relative errors of ranks 0, 1, ..., as from `rank_errors`.
    tolerance : float
        The relative error, between 0 and 1.

    Returns
    -------
    int
        The rank; 0 if rank 0 is within the tolerance, as for a zero matrix, or if no rank is.

    Raises
    ------
    TypeError
        If ``tolerance`` is not a number, or ``errors`` is a masked array.
    ValueError
        If ``tolerance`` is out of range.

    See Also
    --------
    rank_for_error, rank_for_energy : Find the rank for a matrix.

    Notes
    -----
    An error that exceeds the tolerance by no more than rounding (``4 sqrt(n) eps`` of the dtype of
    ``errors``) is within it. So the answer does not depend on how the singular values were
    computed, even where a rank meets the tolerance exactly.

    Examples
    --------
    >>> rank_within([1.0, 0.1, 0.01, 0.0], tolerance=0.05)
    2
    """
    errors = real("errors", errors)
    tolerance = number("tolerance", tolerance, maximum=1)
    rounding = 4 * errors.size**0.5 * float(np.finfo(errors.dtype).eps)
    return int(np.argmax(errors <= tolerance + rounding))


def svd_of_product(B: ArrayLike, A: ArrayLike) -> SVD:
    """Return the SVD of ``B @ A`` without forming the product.

    It is computed from two thin QR decompositions and one small SVD.

    Parameters
    ----------
    B : array_like of shape (d, r)
        Finite real numbers.
    A : array_like of shape (r, k)
        Finite real numbers.

    Returns
    -------
    SVD
        A named tuple of ``U`` (d, m), ``s`` (m,) and ``Vh`` (m, k) with m = min(d, r, k).

    Raises
    ------
    TypeError
        If ``B`` or ``A`` does not hold real numbers.
    ValueError
        If ``B`` or ``A`` is not a finite matrix, or the shapes do not fit.
    numpy.linalg.LinAlgError
        If the product overflows.

    See Also
    --------
    truncated_svd : Return the SVD of any matrix.

    Notes
    -----
    Costs ``O((d + k) r^2)`` operations instead of ``O(d k min(d, k))``: an update can be inspected
    without ever forming a d x k matrix.

    Examples
    --------
    >>> svd_of_product([[3.0], [4.0]], [[0.0, 2.0]]).s
    array([10.])
    """
    B, A = matrix("B", B), matrix("A", A)
    if B.shape[1] != A.shape[0]:
        raise ValueError(
            f"B must have as many columns as A has rows, got shapes {B.shape} and {A.shape}"
        )
    (of_B, B), (of_A, A) = well_scaled(B), well_scaled(A)
    Qb, Rb = np.linalg.qr(B)
    Qa, Ra = np.linalg.qr(A.T)
    U, s, Vh = np.linalg.svd(Rb @ Ra.T, full_matrices=False)
    return SVD(Qb @ U, restored("B @ A", s, of_B * of_A, divide="B or A"), Vh @ Qa.T)


# Functions from the singular values to the errors at ranks 0, 1, ... in each norm. By Mirsky's
# theorem, the least error is the norm of the dropped singular values.
_TAIL_NORMS: dict[str, Callable[[Array], Array]] = {
    "fro": lambda s: np.sqrt(tail_sums(np.square(s))),
    "spectral": lambda s: np.append(s, 0.0),
    "nuclear": tail_sums,
}


def _rank(rank: int, M: Array) -> int:
    return whole_number("rank", rank, maximum=min(M.shape), top="min(d, k)")


def _iterate(M: Array, rank: int, tolerance: float) -> SVD | None:
    """Return the truncated SVD by block Golub-Kahan iteration; None if a full SVD is as cheap.

    Invariants: ``M.T @ Q = P @ T`` exactly, and ``M @ P = Q @ T.T`` except for the part outside Q.
    So the SVD of the small ``T`` gives the best approximation within Q, and the part outside gives
    an estimate of its error.
    """
    width = rank + OVERSAMPLING
    total = float(np.vdot(M, M))
    rounding = float(np.finfo(M.dtype).eps)
    hidden = (10 * rounding) ** 2 * total  # the squared error that rounding alone can cause
    sketch = np.random.default_rng(0).standard_normal((M.shape[1], width))
    Q = np.linalg.qr(M @ sketch.astype(M.dtype))[0]
    P, T = np.linalg.qr(M.T @ Q)
    for _ in range(min(M.shape) // (2 * width)):
        image = M @ P[:, -width:]
        fresh, outside = _orthonormal_beyond(Q, image)
        V, s, Uh = np.linalg.svd(T.astype(np.float64))
        residuals = np.square(outside @ V[-width:, :rank]).sum(axis=0) - hidden
        # Take the larger of two lower bounds on the squared error: cancellation spoils the first
        # if the error is small, and the second counts only the error within Q.
        kept, rest = np.square(s[:rank]).sum(), np.square(s[rank:]).sum()
        squared_error = max(total * (1 - 100 * rounding) - kept, rest)
        # If the squared error exceeds its optimum by the share ``tolerance``, the error exceeds its
        # optimum by only half that share; the other half is a margin.
        if _missing_energy(s, residuals, rank) <= tolerance * squared_error + hidden:
            U, Vh = Q @ Uh[:rank].T.astype(M.dtype), V[:, :rank].T.astype(M.dtype) @ P.T
            return SVD(U, s[:rank].astype(M.dtype), Vh)
        Q = np.concatenate([Q, fresh], axis=1)
        P, T = _grow(P, T, outside, M.T @ fresh)
    return None


def _orthonormal_beyond(Q: Array, X: Array) -> tuple[Array, Array]:
    """Return an orthonormal basis F of the part of X outside the span of Q, and ``C = F.T @ X``."""
    F, C = np.linalg.qr(X - Q @ (Q.T @ X))
    # Orthogonalise again, because rounding errors along Q dominate after one pass if little of X is
    # left. Two passes are enough (Kahan).
    overlap = Q.T @ F
    F -= Q @ overlap
    # a large overlap means that subtracting it spoilt F's orthonormality
    if np.abs(overlap).max() > np.sqrt(np.finfo(F.dtype).eps):
        F, again = np.linalg.qr(F)
        C = again @ C
    return F, C


def _grow(P: Array, T: Array, outside: Array, image: Array) -> tuple[Array, Array]:
    """Extend the factorisation ``P @ T = M.T @ Q`` by the block ``image = M.T @ fresh``."""
    fresh, corner = _orthonormal_beyond(P, image)
    m, width = T.shape[0], outside.shape[0]
    grown = np.zeros((m + width, m + width), dtype=T.dtype)
    grown[:m, :m] = T
    grown[m - width : m, m:] = outside.T
    grown[m:, m:] = corner
    return np.concatenate([P, fresh], axis=1), grown


def _missing_energy(s: Array, residuals: Array, rank: int) -> float:
    """Estimate ``sum(sigma[:rank]**2) - sum(s[:rank]**2)`` by perturbation.

    ``s[i]**2`` would be an eigenvalue of M M^T without its coupling to the part outside Q, whose
    squared length is ``s[i]**2 * residuals[i]``. To second order, the coupling adds its square
    divided by the gap to the spectrum outside. The upper end of that spectrum is replaced by the
    last value of the first block, which determines convergence.
    """
    squares = np.square(s[:rank])
    gaps = squares - np.square(s[rank + OVERSAMPLING - 1])
    coupling = squares * np.maximum(residuals, 0.0)
    missing = np.divide(coupling, gaps, out=np.where(coupling > 0, np.inf, 0.0), where=gaps > 0)
    return float(missing.sum())
