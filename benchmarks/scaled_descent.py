"""Gradient descent that knows that B A is what counts, not B and A.

Its steps change B A in the same way however the product is split into B and A, whatever alpha is,
and it converges at a rate that does not depend on the condition of B A.

References: Tong, Ma, Chi, "Accelerating ill-conditioned low-rank matrix estimation via scaled
gradient descent", arXiv 2005.08898. Zhang, Pilanci, "Riemannian preconditioned LoRA", arXiv
2402.02347.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lora_np.checks import Array

DAMPING = 1e-6  # keeps the inverse finite while B is near zero


def precondition(step: int, layer: Any) -> None:
    """``dA <- (s^2 B^T B + damping I)^-1 dA``, ``dB <- dB (s^2 A A^T + damping I)^-1``: for
    ``watch=``.
    """
    A, B = layer.A, layer.B
    A.grad = np.linalg.solve(gram(B.data.T, layer.scale), A.grad)
    B.grad = np.linalg.solve(gram(A.data, layer.scale), B.grad.T).T


def gram(M: Array, scale: float) -> Array:
    return scale**2 * (M @ M.T) + DAMPING * np.eye(len(M), dtype=M.dtype)
