"""The best any LoRA can do: reduced-rank regression, in closed form.

Inputs ``X`` (n, k), targets ``Y`` (n, d), a frozen ``W0`` (d, k), and an update ``D = B A`` of rank r.
Gradient descent on B and A minimises ``mean((Y - X (W0 + B A)^T)**2)``; here is the minimum.

With ``C = X^T X / n + ridge I`` the objective is a constant plus ``||(D - D*) C^(1/2)||_F^2``, where
``D*`` is the best update of any rank. So the best rank-r update is the truncated SVD **in whitened
coordinates**, carried back: ``D_r = [D* C^(1/2)]_r C^(-1/2)``. Only if ``C`` is a multiple of the identity
(white inputs) is that the truncated SVD of ``D*`` itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lora_np.checks import Array, matrix, number, whole_number


def reduced_rank_regression(
    X: npt.ArrayLike,
    Y: npt.ArrayLike,
    *,
    rank: int | None = None,
    W0: npt.ArrayLike | None = None,
    ridge: float = 0.0,
) -> tuple[Array, Array]:
    """The ``B A`` of rank r that minimises ``||Y - X (W0 + B A)^T||_F^2 / n + ridge ||B A||_F^2``.

    Parameters
    ----------
    X : array_like of shape (n, k)
        Inputs, one a row.
    Y : array_like of shape (n, d)
        Targets, one a row.
    rank : int, optional
        ``1 <= rank <= min(d, k)``. By default ``min(d, k)``: the best update of all.
    W0 : array_like of shape (d, k), optional
        The frozen weight that is adapted; by default zero.
    ridge : float
        Added to every diagonal entry of the covariance ``X^T X / n``. It shrinks the update, never ``W0``.
        With 0 and inputs that do not span all k directions, the update ignores the missing ones.

    Returns
    -------
    B : ndarray of shape (d, rank)
        Orthonormal columns.
    A : ndarray of shape (rank, k)

    Raises
    ------
    TypeError, ValueError
        If an array is not a finite real matrix, the shapes do not fit, or ``rank`` or ``ridge`` is out of
        range.

    Notes
    -----
    The optima are nested: ``B[:, :r], A[:r]`` of a larger rank is the optimum of rank r, so one call gives
    them all. The inputs enter through a QR factorisation, never squared, so an ill-conditioned ``X`` costs no
    more digits than it must.

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
    X, Y, W0 = _problem(X, Y, W0)
    limit = min(W0.shape)
    rank = limit if rank is None else whole_number("rank", rank, maximum=limit, top="min(d, k)")
    B, A = _nested_optima(X, Y, W0, number("ridge", ridge, minimum=0))
    dtype = np.result_type(X, Y, W0)
    return B[:, :rank].astype(dtype), A[:rank].astype(dtype)


def optimal_losses(
    X: npt.ArrayLike,
    Y: npt.ArrayLike,
    *,
    W0: npt.ArrayLike | None = None,
    ridge: float = 0.0,
    held_out: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
) -> Array:
    """Mean squared error of the best update of rank r, for r from 0 to min(d, k), from one decomposition.

    The mean is over all ``n d`` entries, as in `lora_np.mean_squared_error`, so that a trained loss compares
    directly: without ridge, no rank-r update has a smaller one on ``X, Y``.

    Parameters
    ----------
    X, Y, W0, ridge
        As in `reduced_rank_regression`. The ridge takes part in choosing the updates; the errors
        returned are without it.
    held_out : pair of array_like of shapes (m, k) and (m, d), optional
        Measure the same updates on these inputs and targets instead. There the curve need not fall, and
        a trained model may end a little below it.

    Returns
    -------
    ndarray of shape (min(d, k) + 1,)
        In float64.

    Raises
    ------
    TypeError, ValueError
        As in `reduced_rank_regression`.

    Examples
    --------
    >>> X, Y = np.diag([2.0, 2.0]), np.diag([3.0, 1.0])
    >>> optimal_losses(X, Y)
    array([2.5 , 0.25, 0.  ])
    """
    X, Y, W0 = _problem(X, Y, W0)
    B, A = _nested_optima(X, Y, W0, number("ridge", ridge, minimum=0))
    if held_out is not None:
        if not isinstance(held_out, (tuple, list)) or len(held_out) != 2:
            raise TypeError(f"held_out must be a pair (X, Y), got {type(held_out).__name__}")
        X, Y, W0 = _problem(*held_out, W0)
    # B is orthonormal: in its coordinates, rank r explains the first r columns and leaves the others alone.
    residual = _residual(X, Y, W0)
    target = residual @ B
    change = np.square(target - X @ A.T).sum(axis=0) - np.square(target).sum(axis=0)
    total: Array = np.square(residual).sum() + np.concatenate([[0.0], np.cumsum(change)])
    return np.maximum(total, 0.0) / residual.size


def _problem(X: npt.ArrayLike, Y: npt.ArrayLike, W0: npt.ArrayLike | None) -> tuple[Array, Array, Array]:
    X, Y = matrix("X", X), matrix("Y", Y)
    if len(X) != len(Y):
        raise ValueError(f"X and Y must have as many rows, got shapes {X.shape} and {Y.shape}")
    d, k = Y.shape[1], X.shape[1]
    W0 = np.zeros((d, k), dtype=X.dtype) if W0 is None else matrix("W0", W0)
    if W0.shape != (d, k):
        raise ValueError(f"W0 must have shape (d, k) = {(d, k)} to map X to Y, got {W0.shape}")
    return X, Y, W0


def _nested_optima(X: Array, Y: Array, W0: Array, ridge: float) -> tuple[Array, Array]:
    """``B`` (d, m) and ``A`` (m, k), m = min(d, k), in float64; the first r columns and rows serve rank r."""
    X, residual = X.astype(np.float64), _residual(X, Y, W0)
    n, k = X.shape
    # R^T R = X^T X / n + ridge I, without squaring X; x -> x @ whiten makes that the identity.
    R = np.linalg.qr(np.concatenate([X / np.sqrt(n), np.sqrt(ridge) * np.eye(k)]), mode="r")
    _, s, Vh = np.linalg.svd(R)
    seen = s > s[0] * max(n, k) * np.finfo(np.float64).eps
    whiten = Vh.T * np.divide(1.0, s, out=np.zeros_like(s), where=seen)  # (k, k)
    B, gain, Wh = np.linalg.svd((residual.T @ X / n) @ whiten, full_matrices=False)
    return B, (gain[:, None] * Wh) @ whiten.T


def _residual(X: Array, Y: Array, W0: Array) -> Array:
    return Y.astype(np.float64) - X.astype(np.float64) @ W0.astype(np.float64).T
