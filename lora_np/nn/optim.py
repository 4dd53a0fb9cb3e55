"""Optimizers hold settings; ``start`` gives the state that a run of them needs, over a flat bank of numbers.

All trainable arrays of a model are moved into one vector (one for each dtype), so that a step is a handful of
ufunc calls whatever the number of arrays, and nothing is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from lora_np._checks import Array, number, whole_number
from lora_np.autograd import Tensor
from lora_np.nn.tree import trainable

LearningRate: TypeAlias = float | Callable[[int], float]  # a number, or a function of the step (0, 1, ...)


class Optimizer(Protocol):
    """What `start` needs: how many vectors of state, and the in-place update of flat vectors."""

    @property
    def lr(self) -> LearningRate: ...

    @property
    def vectors(self) -> int: ...

    def update(self, p: Array, g: Array, state: Array, scratch: Array, step: int, lr: float) -> None: ...


@dataclass(frozen=True)
class SGD:
    """``p -= lr g``; with momentum ``v = momentum v + g; p -= lr v``; Nesterov: ``p -= lr (g + momentum v)``.

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a schedule such as `cosine`.
    momentum : float
        ``0 <= momentum < 1``.
    nesterov : bool
        Look ahead along the momentum (Nesterov 1983).

    Examples
    --------
    >>> p = Tensor([1.0])
    >>> p.grad = np.array([0.5])
    >>> start(SGD(lr=0.1), p).step()
    >>> p
    Tensor([0.95])
    """

    lr: LearningRate
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        check_rate(self.lr)
        number("momentum", self.momentum, minimum=0, maximum=1, open_maximum=True)
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov looks ahead along the momentum: momentum must be above 0, got 0")

    @property
    def vectors(self) -> int:
        return int(self.momentum > 0)

    def update(self, p: Array, g: Array, state: Array, scratch: Array, step: int, lr: float) -> None:
        """Move ``p`` in place."""
        direction = g
        if self.momentum:
            (v,) = state
            v *= self.momentum
            v += g
            direction = v
        if self.nesterov:
            np.multiply(direction, self.momentum, out=scratch)
            scratch += g
            direction = scratch
        np.multiply(direction, lr, out=scratch)
        p -= scratch


@dataclass(frozen=True)
class Adam:
    """``p -= lr m_hat / (sqrt(v_hat) + eps)`` with bias-corrected moments (Kingma and Ba, arXiv 1412.6980).

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a schedule such as `cosine`.
    beta1, beta2 : float
        Decay of the first and second moment, ``0 <= beta < 1``.
    eps : float
        Keeps the quotient finite.

    Examples
    --------
    >>> p = Tensor([1.0])
    >>> p.grad = np.array([0.5])
    >>> start(Adam(lr=0.1), p).step()
    >>> p
    Tensor([0.9])
    """

    lr: LearningRate = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        check_adam(self)

    @property
    def vectors(self) -> int:
        return 2

    def update(self, p: Array, g: Array, state: Array, scratch: Array, step: int, lr: float) -> None:
        """Move ``p`` in place."""
        adam_update(self, p, g, state, scratch, step, lr)


@dataclass(frozen=True)
class AdamW:
    """Adam after ``p -= lr weight_decay p``, decoupled decay (Loshchilov and Hutter, arXiv 1711.05101).

    Parameters
    ----------
    lr, beta1, beta2, eps
        As for `Adam`.
    weight_decay : float
        At least 0.

    Examples
    --------
    >>> p = Tensor([1.0])
    >>> p.grad = np.array([0.0])
    >>> start(AdamW(lr=0.1, weight_decay=0.5), p).step()
    >>> p
    Tensor([0.95])
    """

    lr: LearningRate = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        check_adam(self)
        number("weight_decay", self.weight_decay, minimum=0)

    @property
    def vectors(self) -> int:
        return 2

    def update(self, p: Array, g: Array, state: Array, scratch: Array, step: int, lr: float) -> None:
        """Move ``p`` in place."""
        p *= 1 - lr * self.weight_decay
        adam_update(self, p, g, state, scratch, step, lr)


def adam_update(
    settings: Adam | AdamW, p: Array, g: Array, state: Array, scratch: Array, step: int, lr: float
) -> None:
    m, v = state
    b1, b2 = settings.beta1, settings.beta2
    m *= b1
    np.multiply(g, 1 - b1, out=scratch)
    m += scratch
    v *= b2
    np.multiply(g, g, out=scratch)
    scratch *= 1 - b2
    v += scratch
    # Both bias corrections go into two scalars, which spares two passes over the vectors.
    correction = math.sqrt(1 - b2 ** (step + 1))
    np.sqrt(v, out=scratch)
    scratch += settings.eps * correction
    np.divide(m, scratch, out=scratch)
    scratch *= lr * correction / (1 - b1 ** (step + 1))
    p -= scratch


def check_rate(lr: LearningRate) -> None:
    if not callable(lr):
        number("lr", lr, minimum=0, open_minimum=True)


def check_adam(settings: Adam | AdamW) -> None:
    check_rate(settings.lr)
    number("beta1", settings.beta1, minimum=0, maximum=1, open_maximum=True)
    number("beta2", settings.beta2, minimum=0, maximum=1, open_maximum=True)
    number("eps", settings.eps, minimum=0, open_minimum=True)


# A run of an optimizer


class Bank:
    """All leaves of one dtype as views into one vector, and the optimizer's vectors beside it."""

    def __init__(self, leaves: list[Tensor], vectors: int) -> None:
        self.leaves = leaves
        self.values = np.concatenate([leaf.data.ravel() for leaf in leaves])
        self.gradient = np.zeros_like(self.values)
        self.state = np.zeros((vectors, self.values.size), self.values.dtype)
        self.scratch = np.empty_like(self.values)
        ends = np.cumsum([leaf.size for leaf in leaves])
        cuts = [(leaf, slice(end - leaf.size, end)) for leaf, end in zip(leaves, ends, strict=True)]
        self.value_views = [self.values[cut].reshape(leaf.shape) for leaf, cut in cuts]
        self.gradient_views = [self.gradient[cut].reshape(leaf.shape) for leaf, cut in cuts]
        for leaf, view in zip(leaves, self.value_views, strict=True):
            leaf.data = view

    def gather(self) -> None:
        """Take the gradients, and clear them. A leaf without one counts as zero."""
        for leaf, values, gradient in zip(self.leaves, self.value_views, self.gradient_views, strict=True):
            if leaf.data is not values:  # somebody has given the leaf another array meanwhile
                values[...] = leaf.data
                leaf.data = values
            gradient[...] = 0 if leaf.grad is None else leaf.grad
            leaf.grad = None


class Run:
    """The state of one run of an optimizer on one model: see `start`."""

    def __init__(self, optimizer: Optimizer, model: Any) -> None:
        tensors = [leaf for _, leaf in trainable(model)]
        if not tensors:
            raise ValueError(
                "nothing to train: the model has no Tensor; make a weight trainable with Tensor(W)"
            )
        dtypes = sorted({leaf.dtype for leaf in tensors}, key=str)
        self.optimizer = optimizer
        self.banks = [Bank([t for t in tensors if t.dtype == dtype], optimizer.vectors) for dtype in dtypes]
        self.steps = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the optimizer's state: for Adam two numbers for each one that is trained."""
        return sum(bank.state.nbytes for bank in self.banks)

    def step(self) -> None:
        """Take the gradients that ``backward`` left, move the parameters, and clear the gradients."""
        if all(leaf.grad is None for bank in self.banks for leaf in bank.leaves):
            raise RuntimeError("no gradient to step along: call loss.backward() before step()")
        lr = self.optimizer.lr
        rate = lr(self.steps) if callable(lr) else lr
        for bank in self.banks:
            bank.gather()
            self.optimizer.update(bank.values, bank.gradient, bank.state, bank.scratch, self.steps, rate)
        self.steps += 1


def start(optimizer: Optimizer, model: Any) -> Run:
    """Begin a run of ``optimizer`` on the Tensors of ``model``, which it will move in place.

    Parameters
    ----------
    optimizer : SGD, Adam or AdamW
        The settings; they can serve many runs.
    model : tree
        Its Tensors are trained, its ndarrays are not touched.

    Returns
    -------
    Run
        ``step()`` after each ``backward()``; ``nbytes`` of state; ``steps`` taken so far.

    Raises
    ------
    ValueError
        If the model has no Tensor.

    Examples
    --------
    >>> W = Tensor(np.zeros((1, 2)))
    >>> run = start(SGD(lr=0.5), W)
    >>> for _ in range(50):
    ...     np.sum(np.square(W - 3.0)).backward()
    ...     run.step()
    >>> W
    Tensor([[3., 3.]])
    """
    return Run(optimizer, model)


# Schedules: functions of the step


def cosine(peak: float, *, steps: int, warmup: int = 0, final: float = 0.0) -> Callable[[int], float]:
    """Half a cosine from ``peak`` down to ``final`` over ``steps``, after a linear ``warmup``.

    Parameters
    ----------
    peak : float
        The largest rate.
    steps : int
        Steps of the whole run, warm-up included; later ones stay at ``final``.
    warmup : int
        Steps of the linear rise from near zero to ``peak``.
    final : float
        The last rate.

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", arXiv 1608.03983.

    Examples
    --------
    >>> rate = cosine(0.1, steps=100)
    >>> rate(0), round(rate(50), 6), rate(100)
    (0.1, 0.05, 0.0)
    """
    return schedule(peak, steps, warmup, final, lambda done: (1 + math.cos(math.pi * done)) / 2)


def linear(peak: float, *, steps: int, warmup: int = 0, final: float = 0.0) -> Callable[[int], float]:
    """A straight line from ``peak`` down to ``final`` over ``steps``, after a linear ``warmup``.

    Parameters are those of `cosine`.

    Examples
    --------
    >>> rate = linear(0.1, steps=110, warmup=10)
    >>> rate(4), rate(10), rate(60)
    (0.05, 0.1, 0.05)
    """
    return schedule(peak, steps, warmup, final, lambda done: 1 - done)


def schedule(
    peak: float, steps: int, warmup: int, final: float, shape: Callable[[float], float]
) -> Callable[[int], float]:
    number("peak", peak, minimum=0, open_minimum=True)
    number("final", final, minimum=0)
    whole_number("steps", steps)
    whole_number("warmup", warmup, minimum=0, maximum=steps, top="steps")

    def rate(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        done = (step - warmup) / max(steps - warmup, 1)
        return final + (peak - final) * shape(min(done, 1.0))

    return rate
