"""Define optimizers as settings, and the runs that apply them to a model.

All trainable arrays of a model are moved into one vector for each dtype. So a step takes a few
ufunc calls for any number of arrays, and allocates nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from lora_np.autograd import Tensor
from lora_np.checks import Array, guided, number, whole_number
from lora_np.nn.tree import leaves, trainable
from lora_np.work import keep_pages

LearningRate = float | Callable[[int], float]


class Optimizer:
    """The base class of optimizers, which have settings and a method that updates a vector.

    A subclass has a field ``lr``. It overrides ``vectors`` and ``update``, or delegates leaves to
    other optimizers in ``of``.

    Examples
    --------
    >>> from lora_np import autograd, nn
    >>> @dataclasses.dataclass(frozen=True)
    ... class SignDescent(Optimizer):
    ...     lr: float = 0.5
    ...
    ...     def update(self, p, g, state, scratch, step, lr):
    ...         p -= lr * np.sign(g)
    >>> p = autograd.Tensor(np.array([3.0, -1.0]))
    >>> run = nn.training_run(SignDescent(), p)
    >>> np.sum(p**2).backward()
    >>> run.step()
    >>> p.data
    array([ 2.5, -0.5])
    """

    lr: LearningRate

    @property
    def vectors(self) -> int:
        """The number of state vectors that an update needs."""
        return 0

    def update(
        self, p: Array, g: Array, state: list[Array], scratch: Array, step: int, lr: float
    ) -> None:
        """Update ``p`` in place from the gradient ``g``."""
        raise NotImplementedError

    def of(self, path: str) -> Optimizer:
        """Return the optimizer of the leaf at ``path``."""
        return self

    def times(self, factor: float) -> Optimizer:
        """Return the optimizer with ``factor`` times the learning rate."""
        return dataclasses.replace(self, lr=scaled(self.lr, factor))  # type: ignore[type-var]


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent ``p -= lr g``; with momentum ``v = momentum v + g; p -= lr v``.

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a schedule such as `cosine_schedule`.
    momentum : float
        ``0 <= momentum < 1``.

    Examples
    --------
    >>> p = Tensor([1.0])
    >>> p.grad = np.array([0.5])
    >>> training_run(SGD(lr=0.1), p).step()
    >>> p
    Tensor([0.95])
    """

    lr: LearningRate
    momentum: float = 0.0

    def __post_init__(self) -> None:
        check_rate(self.lr)
        number("momentum", self.momentum, maximum=1, open_maximum=True)

    @property
    def vectors(self) -> int:
        return int(self.momentum > 0)

    def update(
        self, p: Array, g: Array, state: list[Array], scratch: Array, step: int, lr: float
    ) -> None:
        if self.momentum:
            (v,) = state
            v *= self.momentum
            v += g
            g = v
        p -= np.multiply(g, lr, out=scratch)


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (arXiv 1412.6980): ``p -= lr m_hat / (sqrt(v_hat) + eps)`` with corrected moments.

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a schedule such as `cosine_schedule`.
    beta1, beta2 : float
        Decay of the first and second moment, ``0 <= beta < 1``.
    eps : float
        A small number that keeps the quotient finite.

    Examples
    --------
    >>> p = Tensor([1.0])
    >>> p.grad = np.array([0.5])
    >>> training_run(Adam(lr=0.1), p).step()
    >>> p
    Tensor([0.9])
    """

    lr: LearningRate = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    vectors = 2

    def __post_init__(self) -> None:
        check_rate(self.lr)
        number("beta1", self.beta1, maximum=1, open_maximum=True)
        number("beta2", self.beta2, maximum=1, open_maximum=True)
        number("eps", self.eps, open_minimum=True)

    def update(
        self, p: Array, g: Array, state: list[Array], scratch: Array, step: int, lr: float
    ) -> None:
        """Take one step of Adam (Kingma and Ba, algorithm 1).

        With t = step + 1, the step is::

            m = beta1 m + (1 - beta1) g
            v = beta2 v + (1 - beta2) g^2
            p -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

        It is computed in place. The vectors m and v are stored without their factors (1 - beta);
        these and both bias corrections are combined in two scalars, which saves four passes.
        """
        m, v = state
        b1, b2 = self.beta1, self.beta2
        second = math.sqrt((1 - b2) / (1 - b2 ** (step + 1)))
        m *= b1
        m += g
        np.multiply(g, g, scratch)
        v *= b2
        v += scratch
        np.sqrt(v, scratch)
        scratch += self.eps / second
        np.divide(m, scratch, scratch)
        scratch *= lr * (1 - b1) / (1 - b1 ** (step + 1)) / second
        p -= scratch


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay ``p -= lr weight_decay p`` (arXiv 1711.05101).

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a schedule such as `cosine_schedule`.
    beta1, beta2 : float
        Decay of the first and second moment, as in `Adam`.
    eps : float
        A small number that keeps the quotient finite.
    weight_decay : float
        The weight decay, at least 0.

    Examples
    --------
    >>> p = Tensor([1.0])
    >>> p.grad = np.array([0.0])
    >>> training_run(AdamW(lr=0.1, weight_decay=0.5), p).step()
    >>> p
    Tensor([0.95])
    """

    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        number("weight_decay", self.weight_decay)

    def update(
        self, p: Array, g: Array, state: list[Array], scratch: Array, step: int, lr: float
    ) -> None:
        p *= 1 - lr * self.weight_decay
        super().update(p, g, state, scratch, step, lr)


@dataclass(frozen=True)
class Groups(Optimizer):
    """Different optimizers for different parts of a model.

    Parameters
    ----------
    rules : mapping of str to Optimizer
        From patterns to optimizers; the first pattern that matches a leaf counts. A pattern is the
        end of a path (``"B"`` is every B, ``"q_proj.A"`` is the A of these layers), or a regular
        expression for whole paths (``"layers[.]0[.].*"`` is the first layer, ``".*"`` the rest), as
        in the targets of `lora_np.inject`.

    Raises
    ------
    ValueError
        In `training_run`, if a trainable leaf matches no pattern, or a pattern is used for no leaf.

    Examples
    --------
    >>> model = {"A": Tensor([0.0]), "B": Tensor([0.0])}
    >>> run = training_run(Groups({"B": SGD(lr=0.5), ".*": SGD(lr=0.1)}), model)
    >>> np.sum(model["A"] + model["B"]).backward()
    >>> run.step()
    >>> model
    {'A': Tensor([-0.1]), 'B': Tensor([-0.5])}
    """

    rules: Mapping[str, Optimizer]

    def __post_init__(self) -> None:
        if not self.rules:
            raise ValueError("Groups needs at least one pattern with its optimizer, got none")

    def of(self, path: str) -> Optimizer:
        """Return the optimizer of the first pattern that matches ``path``."""
        return self.rules[self.pattern(path)].of(path)

    def pattern(self, path: str) -> str:
        """Return the pattern whose optimizer updates the leaf at ``path``."""
        for pattern in self.rules:
            # a tied weight has several paths, and any of them may match
            if any(fits(pattern, place) for place in path.split(" = ")):
                return pattern
        raise ValueError(f"no pattern of Groups fits {path!r}: add it, or '.*' for the rest")

    def times(self, factor: float) -> Groups:
        """Return the groups with ``factor`` times every learning rate."""
        return Groups(
            {pattern: optimizer.times(factor) for pattern, optimizer in self.rules.items()}
        )


TORCHS = {"learning_rate": "lr=", "params": "training_run(optimizer, model)"}
for kind in (SGD, Adam, AdamW):
    words = TORCHS if kind is SGD else {**TORCHS, "betas": "beta1= and beta2="}
    kind.__init__ = guided(**words)(kind.__init__)  # type: ignore[method-assign]


def fits(pattern: str, path: str) -> bool:
    from lora_np.models import matcher  # imported late, because only Groups needs it

    return matcher([pattern])(path) or matcher(pattern)(path)


def check_rate(lr: LearningRate) -> None:
    if leaves(lr):
        raise TypeError(
            f"lr must be a learning rate or a schedule, got a model ({type(lr).__name__}); pass it"
            " and the optimizer to fit(model, x, y, optimizer=Adam(lr=0.01)) or"
            " training_run(Adam(lr=0.01), model)"
        )
    if not callable(lr):
        number("lr", lr, open_minimum=True)


# Runs of an optimizer on a model


class Bank:
    """All leaves with the same dtype and optimizer in one vector, and the optimizer's state."""

    def __init__(self, optimizer: Optimizer, leaves: list[Tensor]) -> None:
        self.optimizer = optimizer
        arrays = [leaf.data for leaf in leaves]
        self.values = np.concatenate(arrays, axis=None)
        self.gradient, self.scratch = np.zeros_like(self.values), np.empty_like(self.values)
        self.state = [np.zeros_like(self.values) for _ in range(optimizer.vectors)]
        # each leaf, with views of its values and gradient
        self.views: list[tuple[Tensor, Array, Array]] = []
        begin = 0
        for leaf, array in zip(leaves, arrays, strict=True):
            cut = slice(begin, begin := begin + array.size)
            leaf.data = self.values[cut].reshape(array.shape)
            self.views.append((leaf, leaf.data, self.gradient[cut].reshape(array.shape)))

    def __reduce__(self) -> tuple[object, ...]:
        # rebuild a copy from its leaves, because copies of the views would be separate arrays
        leaves = [leaf for leaf, *_ in self.views]
        return Bank, (self.optimizer, leaves), {"state": self.state}

    def gather(self) -> bool:
        """Move the leaves' gradients into the vector; return whether any leaf had a gradient."""
        any_gradient = False
        for leaf, values, gradient in self.views:
            if leaf.data is not values:  # another array was assigned to the leaf
                values[...] = leaf.data
                leaf.data = values
            any_gradient |= leaf.grad is not None
            gradient[...] = 0 if leaf.grad is None else leaf.grad
            leaf.grad = None
        return any_gradient


class Run:
    """The state of a run of an optimizer on a model, made by `training_run`.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer.
    model : object
        A tree with Tensors.
    clip : float or None
        The largest norm of all gradients together.

    Examples
    --------
    >>> from lora_np import autograd, nn
    >>> p = autograd.Tensor(np.ones(3))
    >>> run = nn.training_run(nn.Adam(lr=0.1), p)
    >>> np.sum(p**2).backward()
    >>> run.step()
    >>> run.steps, run.nbytes, p.data
    (1, 48, array([0.9, 0.9, 0.9]))
    """

    def __init__(self, optimizer: Optimizer, model: Any, clip: float | None) -> None:
        tensors = trainable(model)
        if not tensors:
            raise ValueError(
                "nothing to train: the model has no Tensor; train a weight with Tensor(W)"
            )
        parts: dict[Any, tuple[Optimizer, list[Tensor]]] = {}
        for path, leaf in tensors:
            part, dtype = optimizer.of(path), leaf.data.dtype
            if dtype == np.float16 and isinstance(part, Adam):
                where = path or "the leaf"
                raise ValueError(
                    f"the second moment of Adam vanishes in float16: train {where} in float32"
                )
            parts.setdefault((id(part), dtype), (part, []))[1].append(leaf)
        if isinstance(optimizer, Groups):
            unused = set(optimizer.rules) - {optimizer.pattern(path) for path, _ in tensors}
            if unused:
                known = ", ".join(path for path, _ in tensors[:6])
                raise ValueError(
                    f"the pattern {min(unused)!r} of Groups fits no leaf; leaves: {known}"
                )
        keep_pages()
        self.optimizer, self.model, self.steps = optimizer, model, 0
        self.clip = None if clip is None else number("clip", clip, open_minimum=True)
        self.banks = [Bank(part, leaves) for part, leaves in parts.values()]

    @property
    def nbytes(self) -> int:
        """The size of the optimizer's state in bytes; Adam has two numbers per parameter."""
        return sum(vector.nbytes for bank in self.banks for vector in bank.state)

    def step(self) -> None:
        """Update the parameters from the gradients of ``backward``, and clear the gradients."""
        gathered = [bank.gather() for bank in self.banks]
        if not any(gathered):
            raise RuntimeError("no gradient to step along: call loss.backward() before step()")
        if self.clip is not None:
            gradients = [bank.gradient for bank in self.banks]
            # squares of float16 would overflow beyond 65504
            wide = (g.astype(np.result_type(g, np.float32), copy=False) for g in gradients)
            length = math.sqrt(sum(float(g.dot(g)) for g in wide))
            if length > self.clip:  # scale all banks equally, which keeps the direction
                for g in gradients:
                    g *= self.clip / length
        for bank in self.banks:
            rate = rate_at(bank.optimizer.lr, self.steps)
            bank.optimizer.update(
                bank.values, bank.gradient, bank.state, bank.scratch, self.steps, rate
            )
        self.steps += 1


def training_run(optimizer: Optimizer, model: Any, *, clip: float | None = None) -> Run:
    """Start a run of ``optimizer`` on the Tensors of ``model``, which are updated in place.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer (`SGD`, `Adam`, `AdamW`, `Groups`, ...), which can be used for many runs.
    model : tree
        The model, whose Tensors are trained and whose ndarrays are not changed.
    clip : float, optional
        The largest norm of the gradient of all leaves together (Pascanu et al., arXiv 1211.5063); a
        longer gradient is scaled down.

    Returns
    -------
    Run
        The run. Call its ``step()`` after each ``backward()``; it counts ``steps``, and ``nbytes``
        is the size of its state.

    Raises
    ------
    ValueError
        If the model has no Tensor, or ``clip`` is not above 0.

    Examples
    --------
    >>> W = Tensor(np.zeros((1, 2)))
    >>> run = training_run(SGD(lr=0.5), W)
    >>> for _ in range(50):
    ...     np.sum(np.square(W - 3.0)).backward()
    ...     run.step()
    >>> W
    Tensor([[3., 3.]])
    """
    return Run(optimizer, model, clip)


# Schedules: functions from the step (0, 1, ...) to the learning rate


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule: a linear warm-up to ``peak``, then a decay to ``final``."""

    peak: float
    steps: int
    warmup: int
    final: float
    cosine: bool  # whether the decay is half a cosine rather than a straight line

    def __post_init__(self) -> None:
        number("peak", self.peak, open_minimum=True)
        number("final", self.final)
        whole_number("steps", self.steps)
        whole_number("warmup", self.warmup, minimum=0, maximum=self.steps, top="steps")

    def __call__(self, step: int) -> float:
        """Return the learning rate at ``step``."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        done = 1 if step >= self.steps else (step - self.warmup) / (self.steps - self.warmup)
        left = (1 + math.cos(math.pi * done)) / 2 if self.cosine else 1 - done
        return self.final + (self.peak - self.final) * left


def cosine_schedule(peak: float, *, steps: int, warmup: int = 0, final: float = 0.0) -> Schedule:
    """Return a schedule that decays along half a cosine, after a linear warm-up.

    Parameters
    ----------
    peak : float
        The learning rate at the end of the warm-up.
    steps : int
        Steps of the whole run, warm-up included; later steps use ``final``.
    warmup : int
        Steps of the linear rise from near zero to ``peak``.
    final : float
        The learning rate at the end of the decay.

    Returns
    -------
    Schedule
        A function from the step to the learning rate.

    See Also
    --------
    linear_schedule : Decay along a straight line.

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", arXiv 1608.03983.

    Examples
    --------
    >>> rate = cosine_schedule(0.1, steps=100)
    >>> rate(0), round(rate(50), 6), rate(100)
    (0.1, 0.05, 0.0)
    """
    return Schedule(peak, steps, warmup, final, cosine=True)


def linear_schedule(peak: float, *, steps: int, warmup: int = 0, final: float = 0.0) -> Schedule:
    """Return a schedule that decays along a straight line, after a linear warm-up.

    Parameters
    ----------
    peak : float
        The learning rate at the end of the warm-up.
    steps : int
        Steps of the whole run, warm-up included; later steps use ``final``.
    warmup : int
        Steps of the linear rise from near zero to ``peak``.
    final : float
        The learning rate at the end of the decay.

    Returns
    -------
    Schedule
        A function from the step to the learning rate.

    See Also
    --------
    cosine_schedule : Decay along half a cosine.

    Examples
    --------
    >>> rate = linear_schedule(0.1, steps=110, warmup=10)
    >>> rate(4), rate(10), rate(60)
    (0.05, 0.1, 0.05)
    """
    return Schedule(peak, steps, warmup, final, cosine=False)


def scaled(lr: LearningRate, factor: float) -> LearningRate:
    return partial(scaled_rate, lr, factor) if callable(lr) else lr * factor


def scaled_rate(lr: Callable[[int], float], factor: float, step: int) -> float:
    return factor * lr(step)


def rate_at(lr: LearningRate, step: int) -> float:
    """Return the learning rate at a step.

    Parameters
    ----------
    lr : float or callable
        A rate, or a schedule.
    step : int
        The step, from 0.

    Returns
    -------
    float
        The rate.

    Examples
    --------
    >>> rate_at(0.1, step=7), rate_at(lambda step: 0.1 / (1 + step), step=1)
    (0.1, 0.05)
    """
    return float(lr(step) if callable(lr) else lr)
