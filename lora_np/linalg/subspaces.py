"""Compare the subspaces of updates: the directions that adapters share, and new directions."""

from __future__ import annotations

import numpy as np

from lora_np.checks import Array, ArrayLike, matrix, number, whole_number
from lora_np.linalg.lowrank import truncated_svd
from lora_np.linalg.rank import column_space
from lora_np.linalg.spectrum import scaled_svd, well_scaled


def subspace_similarity(A1: ArrayLike, A2: ArrayLike, i: int, j: int) -> float:
    """Return the overlap, from 0 to 1, of the top i directions of A1 and the top j of A2.

    It is ``||V1[:, :i]^T V2[:, :j]||_F^2 / min(i, j)`` for the right singular vectors V1 and V2: 1
    if one subspace contains the other and 0 if they are orthogonal. Random subspaces of dimensions
    i and j in k dimensions have an overlap of ``max(i, j) / k`` on average.

    Parameters
    ----------
    A1 : array_like of shape (r1, k)
        Finite real numbers.
    A2 : array_like of shape (r2, k)
        Finite real numbers.
    i : int
        ``1 <= i <= min(r1, k)``.
    j : int
        ``1 <= j <= min(r2, k)``.

    Returns
    -------
    float
        The similarity, from 0 to 1.

    Raises
    ------
    TypeError
        If A1 or A2 does not hold real numbers.
    ValueError
        If A1 or A2 is not a finite matrix, they differ in k, or i or j is out of range.

    See Also
    --------
    similarity_grid : Compute all pairs of dimensions at once.

    References
    ----------
    E. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, section 7.2, equation
    4. (The appendix says left singular vectors and prints another identity; the figures show
    equation 4.)

    Examples
    --------
    >>> subspace_similarity([[1, 0, 0]], [[2, 0, 0], [0, 1, 0]], 1, 2)
    1.0
    >>> subspace_similarity([[1, 0, 0]], [[0, 1, 0]], 1, 1)
    0.0
    """
    grid = similarity_grid(A1, A2)
    i = whole_number("i", i, maximum=grid.shape[0], top="min(r1, k)")
    j = whole_number("j", j, maximum=grid.shape[1], top="min(r2, k)")
    return float(grid[i - 1, j - 1])


def similarity_grid(A1: ArrayLike, A2: ArrayLike) -> Array:
    """Return `subspace_similarity` for all i and j at once, in entry ``[i - 1, j - 1]``.

    Parameters
    ----------
    A1 : array_like of shape (r1, k)
        Finite real numbers.
    A2 : array_like of shape (r2, k)
        Finite real numbers.

    Returns
    -------
    ndarray of shape (min(r1, k), min(r2, k))
        The similarities, from 0 to 1.

    Raises
    ------
    TypeError
        If A1 or A2 does not hold real numbers.
    ValueError
        If A1 or A2 is not a finite matrix, or they differ in k.

    See Also
    --------
    subspace_similarity : Compute one pair of dimensions.

    References
    ----------
    E. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, section 7.2.

    Examples
    --------
    >>> similarity_grid([[2, 0, 0], [0, 1, 0]], [[0, 2, 0], [0, 0, 1]])
    array([[0. , 0. ],
           [1. , 0.5]])
    """
    A1, A2 = matrix("A1", A1), matrix("A2", A2)
    if A1.shape[1] != A2.shape[1]:
        raise ValueError(
            f"A1 and A2 must have as many columns, got shapes {A1.shape} and {A2.shape}"
        )
    V1, V2 = (scaled_svd(A)[1].Vh for A in (A1, A2))
    shared = np.square(V1 @ V2.T).cumsum(axis=0).cumsum(axis=1)
    i, j = np.ogrid[1 : shared.shape[0] + 1, 1 : shared.shape[1] + 1]
    phi: Array = np.clip(shared / np.minimum(i, j), 0, 1)
    return phi


def principal_angles(M1: ArrayLike, M2: ArrayLike) -> Array:
    """Return the angles between the column spaces of ``M1`` and ``M2`` in radians, smallest first.

    The first is the smallest angle between a vector of one space and a vector of the other. Each
    further angle is the smallest among the vectors orthogonal to the previous ones.

    Parameters
    ----------
    M1 : array_like of shape (d, k1)
        Finite real numbers.
    M2 : array_like of shape (d, k2)
        Finite real numbers.

    Returns
    -------
    ndarray of shape (min(rank1, rank2),)
        The angles, between 0 and pi / 2.

    Raises
    ------
    TypeError
        If M1 or M2 does not hold real numbers.
    ValueError
        If M1 or M2 is not a finite matrix, or they differ in d.

    See Also
    --------
    subspace_similarity : Compare two subspaces by one number.

    Notes
    -----
    Small angles are computed from sines and large ones from cosines, each where it is accurate.

    References
    ----------
    A. Bjorck, G. Golub, "Numerical methods for computing angles between linear subspaces", 1973.

    Examples
    --------
    >>> np.degrees(principal_angles([[1], [0]], [[1], [1]])).round(6)
    array([45.])
    """
    M1, M2 = matrix("M1", M1), matrix("M2", M2)
    if len(M1) != len(M2):
        raise ValueError(f"M1 and M2 must have as many rows, got shapes {M1.shape} and {M2.shape}")
    wide, narrow = sorted((column_space(M1), column_space(M2)), key=lambda Q: -Q.shape[1])
    cosines = np.minimum(np.linalg.svdvals(wide.T @ narrow), 1)
    sines = np.minimum(np.linalg.svdvals(narrow - wide @ (wide.T @ narrow))[::-1], 1)
    return np.where(np.square(cosines) > 0.5, np.arcsin(sines), np.arccos(cosines))


def amplification_factor(W0: ArrayLike, dW: ArrayLike, *, rank: int) -> float:
    """Return the factor ``||dW||_F / ||U^T W0 V||_F`` by which dW amplifies its directions in W0.

    U and V are the top-``rank`` left and right singular vectors of ``dW``. A large factor means
    that the update strengthens what ``W0`` has learned but not emphasised.

    Parameters
    ----------
    W0 : array_like of shape (d, k)
        The pretrained weight.
    dW : array_like of shape (d, k)
        The update, ``scale * B @ A``.
    rank : int
        ``1 <= rank <= min(d, k)``: the rank at which the adapter was trained.

    Returns
    -------
    float
        The factor; infinite if ``W0`` is zero in those directions.

    Raises
    ------
    TypeError
        If an array does not hold real numbers.
    ValueError
        If an array is not a finite matrix, the shapes differ, ``dW`` is zero, or ``rank`` is out of
        range.

    See Also
    --------
    intruder_dimensions : Find new directions.

    References
    ----------
    E. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, section 7.3 and table
    7.

    Examples
    --------
    >>> amplification_factor(np.diag([5.0, 0.5]), np.diag([0.0, 2.0]), rank=1)
    4.0
    """
    W0, dW = _pair("W0", W0, "dW", dW)
    if not dW.any():
        raise ValueError("dW must not be zero: it has no directions")
    (of_W0, W0), (of_dW, dW) = well_scaled(W0), well_scaled(dW)
    U, _, Vh = truncated_svd(dW, rank=rank)
    heard = float(np.linalg.norm(U.T @ W0 @ Vh.T))
    return float(np.linalg.norm(dW)) / heard * (of_dW / of_W0) if heard > 0 else float("inf")


def intruder_dimensions(
    W0: ArrayLike, W: ArrayLike, *, top: int = 10, threshold: float = 0.6
) -> list[int]:
    """Return indices of top singular vectors of W that resemble no singular vector of W0.

    The j-th left singular vector of ``W`` is an intruder if its largest absolute cosine with any
    left singular vector of ``W0`` is below ``threshold``. Low-rank updates tend to have a few; full
    fine-tuning has hardly any.

    Parameters
    ----------
    W0 : array_like of shape (d, k)
        The pretrained weight.
    W : array_like of shape (d, k)
        The fine-tuned weight.
    top : int
        The number of leading singular vectors of ``W`` to examine: ``1 <= top <= min(d, k)``.
    threshold : float
        The largest cosine of an intruder, between 0 and 1.

    Returns
    -------
    list of int
        The indices of the intruders in the spectrum of ``W``, counted from 0.

    Raises
    ------
    TypeError
        If an array does not hold real numbers.
    ValueError
        If an array is not a finite matrix, the shapes differ, or an option is out of range.

    See Also
    --------
    amplification_factor : Measure how much an update amplifies its directions.

    Notes
    -----
    All singular vectors of ``W0`` are compared, so this takes two full SVDs. If singular values are
    (nearly) equal, their singular vectors are arbitrary within their span, and so is the result.

    References
    ----------
    R. Shuttleworth, J. Andreas, A. Torralba, P. Sharma, "LoRA vs full fine-tuning: an illusion of
    equivalence", arXiv 2410.21228, 2024.

    Examples
    --------
    >>> W0 = np.diag([4.0, 3.0, 2.0, 1.0])
    >>> update = 10 * np.outer([1.0, 1.0, 1.0, 1.0], [1.0, -1.0, 1.0, -1.0])
    >>> intruder_dimensions(W0, W0 + update, top=2)
    [0]
    >>> intruder_dimensions(W0, 1.1 * W0, top=2)
    []
    """
    W0, W = _pair("W0", W0, "W", W)
    top = whole_number("top", top, maximum=min(W.shape), top="min(d, k)")
    threshold = number("threshold", threshold, maximum=1)
    base, tuned = (scaled_svd(M)[1].U for M in (W0, W))
    closest = np.abs(base.T @ tuned[:, :top]).max(axis=0)
    return [int(j) for j in np.flatnonzero(closest < threshold)]


def _pair(name1: str, M1: ArrayLike, name2: str, M2: ArrayLike) -> tuple[Array, Array]:
    first, second = matrix(name1, M1), matrix(name2, M2)
    if first.shape != second.shape:
        raise ValueError(
            f"{name1} and {name2} must agree in shape, got {first.shape} and {second.shape}"
        )
    return first, second
