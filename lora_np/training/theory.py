"""What theory says about training one linear layer on squared error: the best loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from lora_np.autograd import Tensor, value
from lora_np.checks import Array, matrix
from lora_np.linalg import optimal_losses
from lora_np.lora import LoRALinear
from lora_np.nn import Linear


def optimum(model: Any, x: Array, y: Array) -> float:
    """The smallest mean squared error that training can reach: the best update of the model's rank.

    Parameters
    ----------
    model : Linear or LoRALinear
        Its Tensors count as free, its ndarrays as given. For plain LoRA this is
        reduced-rank regression; with A frozen (LoRA-FA) or with all of W trained it is least squares.
    x : ndarray of shape (n, k)
        Inputs.
    y : ndarray of shape (n, d)
        Targets.

    Returns
    -------
    float
        In float64. Dropout is not taken into account: it changes what is minimised.

    Raises
    ------
    TypeError
        If the optimum of such a model is not known in closed form.
    ValueError
        If the data do not fit the model.

    Examples
    --------
    >>> from lora_np.lora import inject
    >>> x = np.eye(3)
    >>> model = inject(Linear(np.zeros((3, 3))), rank=1, rng=np.random.default_rng(0))
    >>> round(optimum(model, x, np.diag([3.0, 2.0, 1.0])) * 9, 12)  # 2^2 + 1^2 remain
    5.0
    """
    if not isinstance(model, (Linear, LoRALinear)):
        raise TypeError(f"the optimum is known for Linear and LoRALinear, got {type(model).__name__}")
    layer = model.base if isinstance(model, LoRALinear) else model
    X, Y = matrix("x", x).astype(np.float64), matrix("y", y).astype(np.float64)
    if X.shape[1:] != (layer.d_in,) or Y.shape != (len(X), layer.d_out):
        raise ValueError(f"x {X.shape} and y {Y.shape} do not fit a weight of shape {layer.W.shape}")
    residual = Y - X @ value(layer.W).T.astype(np.float64)
    if isinstance(layer.b, Tensor):  # a free b takes up the means
        X, residual = X - X.mean(axis=0), residual - residual.mean(axis=0)
    elif layer.b is not None:
        residual = residual - layer.b
    if isinstance(layer.W, Tensor):
        return float(optimal_losses(X, residual)[-1])
    if isinstance(model, Linear) or not (isinstance(model.A, Tensor) or isinstance(model.B, Tensor)):
        fixed = value(model.merged().W if isinstance(model, LoRALinear) else layer.W) - value(layer.W)
        return float(np.mean(np.square(residual - X @ fixed.T)))
    if not isinstance(model.B, Tensor):
        raise ValueError("the optimum is not known where B is frozen and A is trained")
    if not isinstance(model.A, Tensor):
        return float(optimal_losses(X @ model.A.T, residual)[-1])
    return float(optimal_losses(X, residual)[min(model.rank, *layer.W.shape)])
