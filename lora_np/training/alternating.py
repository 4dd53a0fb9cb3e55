"""Alternating least squares: B and A in turn, each exactly optimal for the other."""

from __future__ import annotations

import time

import numpy as np

from lora_np._checks import Array, number, whole_number
from lora_np.autograd import Tensor, value
from lora_np.lora import LoRALinear
from lora_np.training.fit import Fit, History, check_data, check_goal


def alternating_least_squares(
    model: LoRALinear,
    x: Array,
    y: Array,
    *,
    half_steps: int = 100,
    ridge: float = 0.0,
    optimum: float | None = None,
    within: float | None = None,
) -> Fit[LoRALinear]:
    """Minimise ``mean((y - model(x))^2)`` over B for given A, then over A for given B, and so on.

    Each half-step is a least-squares problem in closed form, so there is no learning rate, and the loss never
    rises. It is the reference that gradient descent is held against: tens of steps where Adam takes hundreds.

    Parameters
    ----------
    model : LoRALinear
        Its A is where to start from; B is solved for first.
    x : ndarray of shape (n, k)
    y : ndarray of shape (n, d)
    half_steps : int
        How many times to solve, for B and A in turn.
    ridge : float
        Added to the diagonals of the small systems, for data that does not determine a factor.
    optimum, within : float, optional
        Stop at ``loss <= (1 + within) optimum``, as in `lora_np.fit`.

    Returns
    -------
    Fit
        The model (a new one) and the loss before each half-step, with the last one after it.

    Raises
    ------
    TypeError, ValueError
        If the model is not a `LoRALinear` with both factors trainable, or the data does not fit it.

    References
    ----------
    P. Jain, P. Netrapalli, S. Sanghavi, "Low-rank matrix completion using alternating minimization",
    arXiv 1212.0467.

    Examples
    --------
    >>> from lora_np.lora import inject
    >>> from lora_np.nn import Linear
    >>> rng = np.random.default_rng(0)
    >>> x, D = rng.normal(size=(50, 4)), np.outer([1.0, 2.0, 3.0], [1.0, 0.0, 0.0, -1.0])
    >>> model = inject(Linear(np.zeros((3, 4))), rank=1, rng=rng)
    >>> solved = alternating_least_squares(model, x, x @ D.T, half_steps=2)
    >>> bool(np.allclose(solved.model.delta(), D))
    True
    """
    if not (isinstance(model, LoRALinear) and isinstance(model.A, Tensor) and isinstance(model.B, Tensor)):
        raise TypeError("alternating least squares is for a LoRALinear whose A and B are both trained")
    check_data("x", x, "y", y)
    half_steps = whole_number("half_steps", half_steps)
    ridge = number("ridge", ridge, minimum=0)
    goal = check_goal(optimum, within, full_batch=True)
    begin = time.perf_counter()
    A, B, s = value(model.A), value(model.B), model.scale
    R = y - value(model.base(x))  # what the update has to explain
    C, M = x.T @ x, x.T @ R
    losses = [mean_square(R - s * (x @ A.T) @ B.T)]
    while len(losses) <= half_steps and losses[-1] > goal:
        if len(losses) % 2:
            B = solve(s * A @ C @ A.T, A @ M, ridge).T
        else:  # the normal equations s B^T B A C = B^T M^T
            A = solve(C, solve(s * B.T @ B, (M @ B).T, ridge).T, ridge).T
        losses.append(mean_square(R - s * (x @ A.T) @ B.T))
    fitted = LoRALinear(model.base, Tensor(A), Tensor(B), model.alpha, model.dropout)
    none = np.array([])
    history = History(np.array(losses), none.astype(int), none, time.perf_counter() - begin, optimum)
    return Fit(fitted, history, interrupted=False)


def mean_square(residual: Array) -> float:
    return float(np.mean(np.square(residual)))


def solve(S: Array, T: Array, ridge: float) -> Array:
    """``(S + ridge I)^-1 T``, of least norm where S is singular."""
    solution: Array = np.linalg.lstsq(S + ridge * np.eye(len(S), dtype=S.dtype), T)[0]
    return solution.astype(T.dtype)
