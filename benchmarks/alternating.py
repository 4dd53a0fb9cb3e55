"""Alternating least squares: B and A in turn, each exactly optimal for the other."""

from __future__ import annotations

import time

import numpy as np

from lora_np.autograd import Tensor, value
from lora_np.checks import Array, number, whole_number
from lora_np.lora import LoRALinear
from lora_np.training import Fit, History
from lora_np.training.fitting import data_rows


def alternating_least_squares(
    model: LoRALinear,
    x: Array,
    y: Array,
    *,
    half_steps: int = 100,
    ridge: float = 0.0,
    goal: float = 0.0,
) -> Fit[LoRALinear]:
    """Minimise ``mean((y - model(x))^2)`` over B for given A, then over A for given B, and so on.

    Each half-step is a least-squares problem in closed form, so there is no learning rate. The
    factor that stays fixed first moves along its last change (Nesterov's momentum); where that
    would raise the loss, the momentum restarts. Gradient descent is compared with it: this method
    takes tens of steps where Adam takes hundreds.

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
    goal : float
        Stop at ``loss <= goal``, as in `lora_np.fit`.

    Returns
    -------
    Fit
        The model (a new one) and the loss before each half-step, with the last one after it.
        Without ridge it never rises.

    Raises
    ------
    TypeError, ValueError
        If the model is not a `LoRALinear` with both factors trainable, or the data does not fit it.

    References
    ----------
    P. Jain, P. Netrapalli, S. Sanghavi, "Low-rank matrix completion using alternating
    minimization", arXiv 1212.0467. D. Mitchell, N. Ye, H. De Sterck, "Nesterov acceleration of
    alternating least squares for canonical tensor decomposition", arXiv 1810.05846.

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
    if not (
        isinstance(model, LoRALinear)
        and isinstance(model.A, Tensor)
        and isinstance(model.B, Tensor)
    ):
        raise TypeError(
            "alternating least squares is for a LoRALinear whose A and B are both trained"
        )
    x, y = data_rows("", x, y)
    half_steps = whole_number("half_steps", half_steps)
    ridge = number("ridge", ridge)
    begin = time.perf_counter()
    A, B, s = value(model.A), value(model.B), model.scale
    R = y - value(model.base(x))  # what the update has to explain
    C, M = x.T @ x, x.T @ R
    before, momentum, turn_of_B = (A, B), 0, True
    losses = [mean_square(R - s * (x @ A.T) @ B.T)]
    while len(losses) <= half_steps and losses[-1] > goal:
        ahead = max(momentum - 1, 0) / (momentum + 2)
        if turn_of_B:
            fixed = A + ahead * (A - before[0])
            found = fixed, solve(s * fixed @ C @ fixed.T, fixed @ M, ridge).T
        else:  # the normal equations s B^T B A C = B^T M^T
            fixed = B + ahead * (B - before[1])
            found = solve(C, solve(s * fixed.T @ fixed, (M @ fixed).T, ridge).T, ridge).T, fixed
        loss = mean_square(R - s * (x @ found[0].T) @ found[1].T)
        if loss > losses[-1] and ahead > 0:
            momentum = 0
            losses.append(losses[-1])
            continue
        before, (A, B) = (A, B), found
        momentum += 1
        turn_of_B = not turn_of_B
        losses.append(loss)
    fitted = LoRALinear(model.base, Tensor(A), Tensor(B), model.alpha, model.dropout)
    none = np.array([])
    history = History(np.array(losses), none.astype(int), none, time.perf_counter() - begin)
    return Fit(fitted, history, interrupted=False)


def mean_square(residual: Array) -> float:
    return float(np.mean(np.square(residual)))


def solve(S: Array, T: Array, ridge: float) -> Array:
    """``(S + ridge I)^-1 T``, of least norm where S is singular."""
    solution: Array = np.linalg.lstsq(S + ridge * np.eye(len(S), dtype=S.dtype), T)[0]
    return solution.astype(T.dtype)
