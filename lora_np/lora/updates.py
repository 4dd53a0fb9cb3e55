"""What PEFT's tuners do to a weight ``W`` (d, k), as equations: each is the formula of a row of
`maps`.

A formula takes tensors by their names in PEFT's file (``lambda_`` is ``lambda``) and then settings
by theirs. ``..._factors`` gives ``B, A`` with ``dW = B A``; one that takes ``W`` without being
called factors gives the whole new weight; the others give ``dW``. ``shape`` is ``(d, k)``. Only
NumPy's functions are used, so the tensors may be those of `lora_np.autograd`. Source: PEFT 0.21.2,
``peft/tuners``.
"""

from __future__ import annotations

from math import isqrt
from typing import Any, TypeAlias

import numpy as np

Pair: TypeAlias = tuple[Any, Any]  # B (d, R) and A (R, k)
Shape: TypeAlias = tuple[int, ...]


def lora_factors(A: Any, B: Any, *, lora_alpha: float) -> Pair:
    """``dW = (alpha/r) B A``."""
    return lora_alpha / len(A) * B, A


def dora(W: Any, A: Any, B: Any, magnitude_vector: Any, *, lora_alpha: float) -> Any:
    """``W' = m V / ||V||`` of each row, with ``V = W + (alpha/r) B A``."""
    V = W + lora_alpha / len(A) * (B @ A)
    return (magnitude_vector / np.linalg.norm(V, axis=1))[:, None] * V


def adalora_factors(A: Any, E: Any, B: Any, *, lora_alpha: float, init_r: int) -> Pair:
    """``dW = (alpha/r) B diag(E) A``; r is the rank before pruning."""
    scale = lora_alpha if lora_alpha > 0 else len(A)
    return B * E.T * (scale / (init_r + 1e-5)), A


def loha_factors(w1_a: Any, w1_b: Any, w2_a: Any, w2_b: Any, *, alpha: float) -> Pair:
    """``dW = (alpha/r) (w1_a w1_b) * (w2_a w2_b)``, entry by entry.

    Its factors are the products of all pairs of columns, and of all pairs of rows: rank r^2.
    """
    B = (w1_a[:, :, None] * w2_a[:, None, :]).reshape(len(w1_a), -1)
    A = (w1_b[:, None, :] * w2_b[None, :, :]).reshape(-1, w1_b.shape[1])
    return alpha / len(w1_b) * B, A


def lokr_factors(
    w1: Any, w2: Any = None, w2_a: Any = None, w2_b: Any = None, *, alpha: float, r: int
) -> Pair:
    """``dW = (alpha/r) w1 (x) w2``, Kronecker's product; w2 whole, or a product of its own.

    ``(B1 A1) (x) (B2 A2) = (B1 (x) B2) (A1 (x) A2)``.
    """
    B1, A1 = thin(w1)
    B2, A2 = (w2_a, w2_b) if w2 is None else thin(w2)
    return alpha / r * np.kron(B1, B2), np.kron(A1, A2)


def thin(M: Any) -> Pair:
    """Factors of a matrix without any structure: itself and an identity."""
    d, k = M.shape
    return (M, np.eye(k, dtype=M.dtype)) if k < d else (np.eye(d, dtype=M.dtype), M)


def vera_factors(lambda_b: Any, lambda_d: Any, A: Any, B: Any, *, shape: Shape) -> Pair:
    """``dW = diag(b) B diag(d) A``; random A and B, shared by all modules, are cut to their
    shapes.
    """
    d, k = shape
    return lambda_b[:, None] * B[:d], lambda_d[:, None] * A[:, :k]


def randlora_factors(
    lambda_: Any, gamma: Any, A: Any, B: Any, *, shape: Shape, randlora_alpha: float
) -> Pair:
    """``dW = (alpha/r) sum B_j diag(lambda) A diag(gamma)`` over random bases; transposed if d < k.

    PEFT flattens the bases of B and of A in different orders, so that each column meets another
    row.
    """
    (r, n), least, most = lambda_.shape, gamma.shape[1], max(shape)
    left = randlora_alpha / r * B[:most, :n].reshape(most, n * r)
    right = (lambda_[:, :, None] * A[:, :, :least] * gamma).reshape(r * n, least)
    return (left, right) if shape[1] == least else (right.T, left.T)


def miss_factors(block: Any, *, shape: Shape) -> Pair:
    """``dW[:, j] = block[j mod r]``: A is a pattern of zeros and ones."""
    r, k = len(block), shape[1]
    return block.T, np.tile(np.eye(r, dtype=block.dtype), -(-k // r))[:, :k]


def delora_factors(A: Any, B: Any, lambda_: Any, w_norm: Any) -> Pair:
    """``dW = B diag(lambda / (r ||A_i|| ||B_i||)) A diag(w)``, w the norms of W's columns at the
    start.
    """
    lengths = np.maximum(np.linalg.norm(A, axis=1), 1e-4) * np.maximum(
        np.linalg.norm(B, axis=0), 1e-4
    )
    return B * (lambda_ / len(A) / lengths), A * w_norm


def vblora_factors(logits_A: Any, logits_B: Any, vector_bank: Any, *, topk: int) -> Pair:
    """``dW = B A``, made of pieces that are mixtures of vectors from one bank for the whole
    model.
    """
    r = len(logits_A)
    B, A = (mixtures(logits, vector_bank, topk) for logits in (logits_B, logits_A))
    return B.swapaxes(1, 2).reshape(-1, r), A.reshape(r, -1)


def mixtures(logits: Any, bank: Any, topk: int) -> Any:
    """The mean of ``topk`` vectors, weighted by the softmax of their logits."""
    top = np.argsort(-logits, axis=-1)[..., :topk]
    weights = np.take_along_axis(logits, top, axis=-1)
    weights = np.exp(weights - weights.max(axis=-1, keepdims=True))
    weights = weights / weights.sum(axis=-1, keepdims=True)
    return (weights[..., None] * bank[top]).sum(axis=-2)


def fourierft_factors(spectrum: Any, *, shape: Shape, scaling: float, random_loc_seed: int) -> Pair:
    """``dW = scaling Re ifft2(S)``; S holds the spectrum at random places (u, v), each a wave of
    rank 2.

    ``cos(x + y) = cos x cos y - sin x sin y``, with ``x = 2 pi u i / d`` and ``y = 2 pi v j / k``.
    """
    d, k = shape
    u, v = np.divmod(random_places(d * k, len(spectrum), random_loc_seed), k)
    x = 2 * np.pi / d * (np.outer(np.arange(d), u) % d)
    y = 2 * np.pi / k * (np.outer(v, np.arange(k)) % k)
    B = np.concatenate([np.cos(x) * spectrum, -np.sin(x) * spectrum], axis=1)
    return scaling / (d * k) * B, np.concatenate([np.cos(y), np.sin(y)])


def random_places(n: int, count: int, seed: int) -> Any:
    """``torch.randperm(n)[:count]`` with a generator of this seed, from ``count`` draws."""
    if n >= (2**32 - 1) // 20:
        raise ValueError(
            f"the places of {count:,} in {n:,} entries are drawn in another way by torch"
        )
    raw = np.random.RandomState(seed).randint(0, 2**32, size=count, dtype=np.uint32)
    moved: dict[int, int] = {}  # what a shuffle of all n would have swapped
    places = np.empty(count, np.int64)
    for i, draw in enumerate(raw.tolist()):
        j = i + draw % (n - i)
        places[i] = moved.get(j, j)
        moved[j] = moved.get(i, i)
    return places


def c3a(kernel: Any) -> Any:
    """``dW = C / k``: each block of C is circulant, ``C[i, j] = kernel[(j - i) mod b]``."""
    m, n, b = kernel.shape
    turn = (np.arange(b) - np.arange(b)[:, None]) % b
    return kernel[:, :, turn].swapaxes(1, 2).reshape(m * b, n * b) / (n * b)


def shira(weight: Any, indices: Any, *, shape: Shape) -> Any:
    """``dW`` is zero but for ``weight`` at the places ``indices``."""
    place = np.full(shape, len(weight))
    place[tuple(indices.astype(np.int64))] = np.arange(len(weight))
    return np.append(weight, np.zeros(1, weight.dtype))[place]


def tinylora_factors(B: Any, A: Any, P: Any, v: Any) -> Pair:
    """``dW = B (sum v_i P_i) A``; B, A are W's leading singular directions, P random, v shared by
    modules.
    """
    return B, np.einsum("i,ijk->jk", v, P) @ A


def first_normals(seed: int) -> Any:
    """The first 16 of at least 16 standard normal numbers that ``torch.normal`` makes with this
    seed.
    """
    uniform = (
        np.random.RandomState(seed).randint(0, 2**32, size=16, dtype=np.uint32) % 2**24 / 2**24
    )
    radius, angle = np.sqrt(-2 * np.log1p(-uniform[:8])), 2 * np.pi * uniform[8:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])


def psoft_factors(W: Any, weight: Any, vector_a: Any, vector_b: Any) -> Pair:
    """``dW = U S (R - I) V^T`` in W's leading singular directions; R is a rotation between two
    diagonals.

    Signs of singular vectors count: they are those of LAPACK's ``gesdd`` in single precision, as in
    PEFT.
    """
    R = vector_b[:, None] * rotation(skew(weight)) * vector_a
    U, S, Vh = (
        part.astype(W.dtype) for part in np.linalg.svd(W.astype(np.float32), full_matrices=False)
    )
    r = len(R)
    return U[:, :r] * S[:r] @ (R - eye(R)), Vh[:r]


def hra_factors(W: Any, u: Any) -> Pair:
    """``W' = W H_1 ... H_r``, reflections ``H_i = I - 2 u_i u_i^T`` of unit vectors.

    ``H_1 ... H_r = I - U T U^T`` with ``T^-1 = I/2 + the upper triangle of U^T U``: rank r.
    """
    U = u / np.linalg.norm(u, axis=0)
    return -(W @ U), np.linalg.solve(np.triu(U.T @ U, 1) + eye(U.T @ U) / 2, U.T)


def ia3(W: Any, l: Any) -> Any:
    """``W' = diag(l) W``, or ``W diag(l)`` in a feed-forward module: l is a column or a row."""
    return l * W


def oft(W: Any, weight: Any, *, use_cayley_neumann: bool, num_cayley_neumann_terms: int) -> Any:
    """``W' = W R^T``, R block diagonal and orthogonal: ``(I - Q) (I + Q)^-1`` of skew-symmetric Q.

    The series that PEFT takes by default belongs to the inverse, ``(I + Q) (I - Q)^-1``, and is cut
    off.
    """
    Q = skew(weight)
    R = cayley(Q, num_cayley_neumann_terms) if use_cayley_neumann else rotation(-Q)
    return by_blocks(W, R)


def boft(W: Any, R: Any, s: Any) -> Any:
    """``W' = diag(s) W R^T``, R block diagonal and orthogonal: one factor of a butterfly.

    PEFT computes several on GPUs alone.
    """
    Q = (R[0] - R[0].swapaxes(-1, -2)) / 2
    return s * by_blocks(W, rotation(-Q))


def by_blocks(W: Any, R: Any) -> Any:
    """``W R^T`` for the blocks (n, b, b) on the diagonal of R, or one for all (1, b, b)."""
    pieces = W.reshape(len(W), -1, R.shape[-1]).swapaxes(0, 1)
    return (pieces @ R.swapaxes(-1, -2)).swapaxes(0, 1).reshape(W.shape)


def skew(upper: Any) -> Any:
    """The skew-symmetric matrices (..., b, b) with these entries (..., b (b - 1) / 2) above the
    diagonal.
    """
    n = upper.shape[-1]
    b = (1 + isqrt(1 + 8 * n)) // 2
    place = np.zeros((b, b), np.int64)
    place[np.triu_indices(b, 1)] = np.arange(1, n + 1)
    zero = np.zeros((*upper.shape[:-1], 1), upper.dtype)
    half = np.concatenate([zero, upper], axis=-1)[..., place]
    return half - half.swapaxes(-1, -2)


def rotation(Q: Any) -> Any:
    """``(I + Q) (I - Q)^-1`` of a skew-symmetric Q."""
    return np.linalg.solve(eye(Q) - Q, eye(Q) + Q)


def cayley(Q: Any, terms: int) -> Any:
    """``I + 2 Q + 2 Q^2 + ...``, the last term once: the start of `rotation`."""
    coefficients = [2] * (max(terms, 4) - 2) + [1] if terms > 2 else [2] * (terms - 1)
    R = power = eye(Q)
    for coefficient in coefficients:
        power = power @ Q
        R = R + coefficient * power
    return R


def eye(like: Any) -> Any:
    return np.eye(like.shape[-1], dtype=like.dtype)


def road(W: Any, theta: Any, alpha: Any, *, variant: str, group_size: int) -> Any:
    """``W' = R W``: pairs of outputs, half a group apart, are turned by theta and stretched by
    alpha.
    """
    ways, half = int(variant[-1]), group_size // 2
    theta, alpha = (x.reshape(-1, max(ways // 2, 1), min(ways, 2), half, 1) for x in (theta, alpha))
    pairs = W.reshape(-1, 2, half, W.shape[1])
    turned = np.stack([-pairs[:, 1], pairs[:, 0]], axis=1)
    along, across = alpha[:, 0] * np.cos(theta[:, 0]), alpha[:, -1] * np.sin(theta[:, -1])
    return (along * pairs + across * turned).reshape(W.shape)
