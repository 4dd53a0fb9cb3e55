"""The whole SVD where memory is short: one-sided Jacobi on blocks of columns, for float32."""

from __future__ import annotations

import numpy as np

from lora_np.checks import Array
from lora_np.linalg._spectrum import SVD, well_scaled

BLOCKS = 4  # fewer need more memory, more need more sweeps
SWEEPS = 30  # four or five are usual


def svd_in_blocks(M: Array) -> SVD:
    """The whole SVD of a float32 matrix, in a third of LAPACK's memory and two or three times its time.

    As in `lora_np.linalg.svd`, columns are turned until all are orthogonal, but a quarter of them against
    another quarter at a time, by the eigenvectors of their Gram matrix. That is made in float64: it squares
    the singular values, and would otherwise lose the smaller half of their digits.

    References
    ----------
    M. R. Hestenes, "Inversion of matrices by biorthogonalization and related results", 1958.
    Z. Drmac, "A global convergence proof for cyclic Jacobi methods with block rotations", 2009.
    """
    if M.shape[0] < M.shape[1]:
        V, s, Uh = svd_in_blocks(M.T)
        return SVD(Uh.T, s, V.T)
    unit, columns = well_scaled(M)
    columns = columns.copy() if columns is M else columns  # (d, k), to become U * s
    k = columns.shape[1]
    V = np.eye(k, dtype=columns.dtype)
    blocks = np.array_split(np.arange(k), min(BLOCKS, k))
    pairs = [(p, q) for i, p in enumerate(blocks) for q in blocks[i + 1 :]]
    rounding = float(np.finfo(columns.dtype).eps)
    for _ in range(SWEEPS):
        # Shorter columns are rounding errors, and point anywhere.
        smallest = 10 * rounding * np.linalg.norm(columns, axis=0).max()
        if max((_turn(columns, V, p, q, smallest) for p, q in pairs), default=0.0) <= np.sqrt(rounding):
            break  # this sweep has squared the cosines, so they are at rounding now
    else:
        raise np.linalg.LinAlgError(f"block Jacobi rotations did not converge in {SWEEPS} sweeps")
    s = np.linalg.norm(columns, axis=0)
    order = np.argsort(-s, kind="stable")
    s = s[order]
    U = columns[:, order]
    U[:, s > 0] /= s[s > 0]
    _make_orthonormal(U, int(np.count_nonzero(s > np.sqrt(rounding) * s[0])))
    return SVD(U, s * s.dtype.type(unit), V[:, order].T)


def _turn(columns: Array, V: Array, p: Array, q: Array, smallest: float) -> float:
    """Make the columns ``p`` and ``q`` orthogonal, and return the largest cosine that was between them."""
    both = np.concatenate([p, q])
    pair = columns[:, both]
    gram = _gram(pair.astype(np.float64))
    lengths = np.sqrt(gram.diagonal())
    scale = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > smallest)
    between = gram[: len(p), len(p) :] * scale[: len(p), None] * scale[len(p) :]
    turn = np.linalg.eigh(gram)[1][:, ::-1].astype(columns.dtype)  # long columns to the front
    columns[:, both] = pair @ turn
    V[:, both] = V[:, both] @ turn
    return float(np.abs(between).max())


def _gram(X: Array) -> Array:  # apart, so that its wide X is gone before the eigenvectors need memory
    return np.asarray(X.T @ X)


def _make_orthonormal(U: Array, start: int) -> None:
    """Give the columns from ``start`` on directions of their own, near to those that they have, if any."""
    rng = np.random.default_rng(0)
    width = -(-U.shape[1] // BLOCKS)
    for first in range(start, U.shape[1], width):
        known, block = U[:, :first], U[:, first : first + width]
        zero = ~block.any(axis=0)
        block[:, zero] = rng.standard_normal((len(U), np.count_nonzero(zero)))
        for _ in range(2):  # twice is enough
            block -= known @ (known.T @ block)
            Q, R = np.linalg.qr(block)
            block[...] = Q * np.copysign(1, R.diagonal())  # LAPACK turns some of them round
