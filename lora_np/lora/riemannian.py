"""Gradient descent that knows that B A is what counts, not B and A."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_np.autograd import Tensor, value
from lora_np.checks import Array, number
from lora_np.lora.layer import LoRALinear
from lora_np.nn.optim import Optimizer
from lora_np.nn.tree import walk


@dataclass(frozen=True)
class Preconditioned(Optimizer):
    """``dA <- (s^2 B^T B + damping I)^-1 dA``, ``dB <- dB (s^2 A A^T + damping I)^-1``, then ``optimizer``.

    With `SGD` this is scaled (Riemannian) gradient descent: its steps change B A in the same way however the
    product is split into B and A, whatever alpha is, and it converges at a rate that does not depend on the
    condition of B A. With `AdamW` it is the paper's scaled AdamW.

    Parameters
    ----------
    optimizer : Optimizer
        Moves along the changed gradients; everything but A and B of linear layers keeps its own.
    damping : float
        Keeps the inverse finite while B is near zero.

    References
    ----------
    Tong, Ma, Chi, "Accelerating ill-conditioned low-rank matrix estimation via scaled gradient descent",
    arXiv 2005.08898. Zhang, Pilanci, "Riemannian preconditioned LoRA", arXiv 2402.02347.

    Examples
    --------
    >>> from lora_np.nn import SGD
    >>> Preconditioned(SGD(lr=0.5))
    Preconditioned(optimizer=SGD(lr=0.5, momentum=0.0, nesterov=False, weight_decay=0.0), damping=1e-06)
    """

    optimizer: Optimizer
    damping: float = 1e-6

    def __post_init__(self) -> None:
        number("damping", self.damping, minimum=0, open_minimum=True)

    def of(self, path: str) -> Optimizer:
        """The optimizer that moves the leaf."""
        return self.optimizer.of(path)

    def times(self, factor: float) -> Preconditioned:
        """The same with ``factor`` times the learning rate."""
        return Preconditioned(self.optimizer.times(factor), self.damping)

    def precondition(self, model: Any) -> None:
        """Change the gradients of A and B."""
        self.optimizer.precondition(model)
        for layer in [node for _, node in walk(model) if isinstance(node, LoRALinear)]:
            A, B = layer.A, layer.B
            if isinstance(A, Tensor) and A.grad is not None:
                A.grad = np.linalg.solve(self.gram(value(B).T, layer.scale), A.grad)
            if isinstance(B, Tensor) and B.grad is not None:
                B.grad = np.linalg.solve(self.gram(value(A), layer.scale), B.grad.T).T

    def gram(self, M: Array, scale: float) -> Array:
        product: Array = scale**2 * (M @ M.T) + self.damping * np.eye(len(M), dtype=M.dtype)
        return product
