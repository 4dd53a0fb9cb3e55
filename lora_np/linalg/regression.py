"""Compute the best possible LoRA of a linear layer by reduced-rank regression, in closed form.

Given are inputs ``X`` (n, k), targets ``Y`` (n, d) and a frozen ``W0`` (d, k), which gets an update
``D = B A`` of rank r. Gradient descent on B and A minimises ``mean((Y - X (W0 + B A)^T)**2)``; this
module computes the minimum.

With ``C = X^T X / n + ridge I`` the objective is a constant plus ``||(D - D*) C^(1/2)||_F^2``,
where ``D*`` is the best update of any rank. So the best rank-r update is the truncated SVD **in
whitened coordinates**, transformed back: ``D_r = [D* C^(1/2)]_r C^(-1/2)``. It is the truncated SVD
of ``D*`` itself only if ``C`` is a multiple of the identity (white inputs).

``C`` is never formed, because that would square the condition number of X. With ``X = U S V^T`` and
the residual ``E = Y - X W0^T``, the whitened update is ``E^T U``, the residual in an orthonormal
basis of the inputs.
"""

from __future__ import annotations

import numpy as np

from lora_np.checks import Array, ArrayLike, matrix, number, overflow_allowed, whole_number
from lora_np.linalg.spectrum import exponent, restored, tail_sums


def reduced_rank_regression(
    X: ArrayLike,
    Y: ArrayLike,
    *,
    rank: int | None = None,
    W0: ArrayLike | None = None,
    ridge: float = 0.0,
) -> tuple[Array, Array]:
    """Minimise ``||Y - X (W0 + B A)^T||_F^2 / n + ridge ||B A||_F^2`` over B A of rank r.

    Parameters
    ----------
    X : array_like of shape (n, k)
        Inputs, one per row.
    Y : array_like of shape (n, d)
        Targets, one per row.
    rank : int, optional
        ``1 <= rank <= min(d, k)``. By default ``min(d, k)``: the best update of any rank.
    W0 : array_like of shape (d, k), optional
        The frozen weight that is adapted; by default zero.
    ridge : float
        A number to add to every diagonal entry of the covariance ``X^T X / n``. It shrinks the
        update, never ``W0``. If it is 0 and inputs do not span all k directions, the update ignores
        the missing ones.

    Returns
    -------
    B : ndarray of shape (d, rank)
        A factor with orthonormal columns, in the dtype of the data.
    A : ndarray of shape (rank, k)
        The other factor, in the dtype of the data.

    Raises
    ------
    TypeError
        If an array does not hold real numbers, or ``rank`` or ``ridge`` is not a number.
    ValueError
        If an array is not a finite matrix, the shapes do not fit, or ``rank`` or ``ridge`` is out
        of range.
    numpy.linalg.LinAlgError
        If the residual or the update overflows.

    See Also
    --------
    optimal_losses : Return the loss at the optimum of each rank.

    Notes
    -----
    The optima are nested: ``B[:, :r], A[:r]`` of a larger rank is the optimum of rank r, so one
    call gives them all.

    At full rank, the error of ``B @ A`` relative to its norm is at most a small multiple of ``eps *
    kappa * (1 + kappa * rho)``, as for any stable least-squares method. ``kappa`` is the condition
    number of X, and ``rho`` is the norm of the remaining residual divided by ``||X|| ||D||``. See
    :ref:`accuracy`.

    References
    ----------
    A. J. Izenman, "Reduced-rank regression for the multivariate linear model", 1975.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, D = rng.normal(size=(50, 4)), np.outer([1.0, 2.0, 3.0], [1.0, 0.0, 0.0, -1.0])
    >>> B, A = reduced_rank_regression(X, X @ D.T, rank=1)
    >>> bool(np.allclose(B @ A, D))
    True
    """
    X, Y, W0, residual = _problem(X, Y, W0)
    limit = min(W0.shape)
    rank = limit if rank is None else whole_number("rank", rank, maximum=limit, top="min(d, k)")
    optima = _Optima(X, residual, number("ridge", ridge), rank)
    dtype = np.result_type(X, Y, W0)
    with np.errstate(over="ignore"):
        A = np.ldexp(optima.A[:rank], optima.out - optima.into).astype(dtype)
    return optima.B[:, :rank].astype(dtype), restored("the update", A, 1, divide="Y and W0")


def optimal_losses(
    X: ArrayLike,
    Y: ArrayLike,
    *,
    W0: ArrayLike | None = None,
    ridge: float = 0.0,
    validation: tuple[ArrayLike, ArrayLike] | None = None,
) -> Array:
    """Return the mean squared error of the best update of each rank from 0 to min(d, k).

    The mean is over all ``n d`` entries, as in `lora_np.mean_squared_error`, so a trained loss can
    be compared directly: without ridge, no rank-r update has a smaller loss on ``X, Y``.

    Parameters
    ----------
    X : array_like of shape (n, k)
        Inputs, one per row.
    Y : array_like of shape (n, d)
        Targets, one per row.
    W0 : array_like of shape (d, k), optional
        The frozen weight that is adapted; by default zero.
    ridge : float
        The ridge, as in `reduced_rank_regression`. It changes the updates, but is not part of the
        returned losses.
    validation : pair of array_like of shapes (m, k) and (m, d), optional
        Inputs and targets on which to measure the same updates. On these data, the losses may rise
        with the rank, and a trained model may have a slightly lower loss.

    Returns
    -------
    ndarray of shape (min(d, k) + 1,)
        The losses, in float64.

    Raises
    ------
    TypeError
        If an array does not hold real numbers, or ``validation`` is not a pair.
    ValueError
        If an array is not a finite matrix, the shapes do not fit, or ``ridge`` is out of range.
    numpy.linalg.LinAlgError
        If a loss overflows.

    See Also
    --------
    reduced_rank_regression : Return the updates.

    Examples
    --------
    >>> X, Y = np.diag([2.0, 2.0]), np.diag([3.0, 1.0])
    >>> optimal_losses(X, Y)
    array([2.5 , 0.25, 0.  ])
    """
    X, _, W0, residual = _problem(X, Y, W0)
    optima = _Optima(X, residual, number("ridge", ridge))
    if validation is not None:
        if not isinstance(validation, (tuple, list)) or len(validation) != 2:
            raise TypeError(f"validation must be a pair (X, Y), got {type(validation).__name__}")
        X, _, _, residual = _problem(*validation, W0)
    with np.errstate(over="ignore"):
        X, residual = (
            np.ldexp(M, -power) for M, power in ((X, optima.into), (residual, optima.out))
        )
        # The columns of B are orthonormal. In this basis, the best update of rank r predicts the
        # first r columns of the target, and zeros for the remaining columns.
        target = residual @ optima.B
        outside = np.square(residual - target @ optima.B.T).sum()
        left = tail_sums(np.square(target).sum(axis=0))
        missed = np.square(target - X @ optima.A.T).sum(axis=0)
        losses = (outside + left + np.append(0.0, np.cumsum(missed))) / residual.size
        # ranks above the number of rows do not lower the loss further
        losses = np.pad(losses, (0, min(W0.shape) + 1 - len(losses)), "edge")
        return restored("a loss", np.ldexp(losses, 2 * optima.out), 1, divide="Y and W0")


def _problem(X: ArrayLike, Y: ArrayLike, W0: ArrayLike | None) -> tuple[Array, Array, Array, Array]:
    """Validate X, Y and W0, and return them with the residual ``Y - X @ W0.T``."""
    X, Y = matrix("X", X), matrix("Y", Y)
    if len(X) != len(Y):
        raise ValueError(f"X and Y must have as many rows, got shapes {X.shape} and {Y.shape}")
    d, k = Y.shape[1], X.shape[1]
    W0 = np.zeros((d, k), dtype=X.dtype) if W0 is None else matrix("W0", W0)
    if W0.shape != (d, k):
        raise ValueError(f"W0 must have shape (d, k) = {(d, k)} to map X to Y, got {W0.shape}")
    with overflow_allowed():
        residual = Y.astype(np.float64) - X.astype(np.float64) @ W0.astype(np.float64).T
    return X, Y, W0, restored("Y - X @ W0.T", residual, 1, divide="Y and W0")


class _Optima:
    """The factors B and A of the best update, whose first r directions are the best of rank r.

    X and the residual are scaled to about 1 by powers of two.
    """

    def __init__(self, X: Array, residual: Array, ridge: float, rank: int = 0) -> None:
        n, k = X.shape
        # Append rows to X: with ridge, rows that turn X^T X into X^T X + n ridge I; without ridge,
        # rows of zeros, so that X has at least ``rank`` rows.
        added = np.sqrt(n * ridge) * np.eye(k) if ridge else np.zeros((max(rank - n, 0), k))
        X = np.concatenate([X.astype(np.float64), added])
        self.into, self.out = exponent(X), exponent(residual)
        U, s, Vh = np.linalg.svd(np.ldexp(X, -self.into), full_matrices=False)
        seen = s > s[0] * max(n, k) * np.finfo(np.float64).eps
        inverse = np.divide(1.0, s, out=np.zeros_like(s), where=seen)
        # ignore the directions in which X is numerically zero, because no update can change them
        whitened = np.ldexp(residual, -self.out).T @ U[:n] * seen  # (d, m), where m = len(s)
        self.B, gain, Wh = np.linalg.svd(whitened, full_matrices=False)  # B (d, l), l = min(d, m)
        self.A = (gain[:, None] * Wh * inverse) @ Vh  # (l, k)
