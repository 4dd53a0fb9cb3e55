"""Record how arrays are computed, and run the backward pass over the recorded graph.

NumPy is the forward pass: a ``Tensor`` implements NumPy's protocols (NEP 13 and NEP 18), so
``np.tanh(x @ W.T)`` is a Tensor again. The derivatives of functions are in ``rules.py``.
"""

from __future__ import annotations

import heapq
import operator
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Any, TypeAlias

import numpy as np

from lora_np.autograd.methods import ArrayMethods
from lora_np.checks import Array, ArrayLike, real

Operand: TypeAlias = "Tensor | Array"
Pull = Callable[..., Operand]  # maps the gradient of a result to the gradient of one argument
Pulls = Callable[..., Iterable[Any]]  # maps the gradient of a result to one gradient per argument


class Tensor(ArrayMethods):
    """An array that gets a gradient; every other array is a constant.

    Parameters
    ----------
    data : array_like
        The values, *copied*: training must not change the caller's array. Floats keep their
        dtype; integers and booleans become float64.

    Attributes
    ----------
    data : ndarray
        The values. Until ``backward()``, do not write to them or to a NumPy array that the
        computation used. The rules read both again in the backward pass and cannot detect a change,
        so the gradient would be silently wrong. (Indices, conditions and lists are copied.)
    grad : ndarray or None
        In a leaf (a Tensor that was not computed from others): the sum of the gradients of every
        ``backward()`` since it was last cleared. Set it to ``None`` to clear it.

    Raises
    ------
    TypeError
        If ``data`` does not hold real numbers, or is itself a Tensor.

    Examples
    --------
    >>> W = Tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> loss = np.mean(np.square(np.array([1.0, -1.0]) @ W.T))
    >>> loss.backward()
    >>> W.grad
    array([[-1.,  1.],
           [-1.,  1.]])
    """

    __slots__ = ("__weakref__", "data", "grad", "level", "node")
    __hash__ = object.__hash__  # Tensors are hashed by identity, because == compares entries

    grad: Array | None
    level: int  # 0, or the level of the `grad` that it belongs to; inner levels are higher
    node: Node | None  # the step that computed this Tensor; None for a leaf

    def __init__(self, data: ArrayLike) -> None:
        self.data, self.grad, self.level, self.node = np.array(real("data", data)), None, 0, None

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__":
            raise TypeError(
                f"np.{ufunc.__name__}.{method} has no derivative; use np.sum, np.outer and so on"
            )
        return Tensor.answer(ufunc, inputs, kwargs)

    def __array_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any],
        kwargs: dict[str, Any],
    ) -> Any:
        return Tensor.answer(function, args, kwargs)

    def __getitem__(self, index: Any) -> Any:
        return Tensor.answer(operator.getitem, (self, index), {})

    def backward(self, gradient: ArrayLike | None = None) -> None:
        """Compute the gradient with respect to every leaf, and add it to the leaf's ``.grad``.

        The graph is consumed: its memory is freed step by step, and a second call raises an error.

        Parameters
        ----------
        gradient : array_like, optional
            The gradient with respect to this Tensor, of its shape; by default 1 for a scalar.

        Raises
        ------
        ValueError
            If this is not a scalar and no gradient is given, or the gradient has another shape.
        RuntimeError
            If the graph, or a part of it, was used by an earlier ``backward()``, or belongs to a
            `grad`.
        """
        data = self.data
        if gradient is not None:
            g = real("gradient", gradient).astype(data.dtype)
        elif data.size == 1:
            g = np.array(1, data.dtype, ndmin=data.ndim)
        else:
            raise ValueError(
                f"backward() starts from a scalar, got shape {self.shape}: "
                "take a sum or a mean first, or pass gradient= of that shape"
            )
        if g.shape != data.shape:
            raise ValueError(f"gradient must have the shape {self.shape}, got {g.shape}")
        if self.level:
            raise RuntimeError("this Tensor belongs to a grad(f): return it from f")
        for leaf, own in walk(self, g).items():
            leaf.grad = np.asarray(own if leaf.grad is None else leaf.grad + own, leaf.data.dtype)


class Node:
    """A step of the computation, with the steps and leaves that its gradient flows to."""

    __slots__ = ("dtype", "name", "order", "pull", "shape", "targets")

    clock = count()

    def __init__(
        self, name: str, y: Operand, targets: Sequence[Node | Tensor], pull: Pulls
    ) -> None:
        self.name, self.shape, self.dtype = name, y.shape, y.dtype
        self.targets = targets  # the steps and leaves that get a gradient

        # maps the gradient of y to the gradients of the targets; None after the first use
        self.pull: Pulls | None = pull
        self.order = next(Node.clock)


def tensor(data: Operand, level: int, node: Node | None) -> Tensor:
    """Create a Tensor without copying or checking its values."""
    result = Tensor.__new__(Tensor)
    result.data, result.grad, result.level, result.node = data, None, level, node
    return result


def walk(root: Tensor, gradient: Array) -> dict[Tensor, Operand]:
    """Walk the graph from ``root`` to the leaves, and return the gradient of each leaf.

    Later steps come first. A step uses only results that existed before it, so the order of
    creation is a topological order.
    """
    arrived: dict[Any, Operand] = {root.node or root: gradient}
    latest_first = [] if root.node is None else [(-root.node.order, root.node)]
    while latest_first:
        node = heapq.heappop(latest_first)[1]
        g = arrived.pop(node)
        pull, node.pull = node.pull, None
        if pull is None:
            raise RuntimeError(
                f"this graph ({node.name}) was used by an earlier backward(); run the forward pass"
                " again"
            )
        for target, pulled in zip(node.targets, pull(g), strict=True):
            if pulled.shape != target.shape:
                pulled = unbroadcast(pulled, target.shape, node.name)
            if pulled.dtype is not target.dtype:
                pulled = pulled.astype(target.dtype)
            if target in arrived:
                arrived[target] = arrived[target] + pulled
            elif isinstance(target, Node):
                arrived[target] = pulled
                heapq.heappush(latest_first, (-target.order, target))
            else:
                # copy an array that may be shared, because addition gives both inputs the same
                # array
                shared = isinstance(pulled, np.ndarray) and (pulled is g or pulled.base is not None)
                arrived[target] = pulled.copy() if shared else pulled
        node.targets = ()
    return arrived


def unbroadcast(g: Array, shape: tuple[int, ...], name: str = "a rule") -> Array:
    """Sum ``g`` over the axes that were broadcast, so that the result has ``shape``."""
    added = g.ndim - len(shape)
    total: Array = g.sum(axis=tuple(range(added))) if added > 0 else g
    total = total.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)
    if total.shape != shape:
        raise ValueError(
            f"{name} returned a gradient of shape {g.shape} for an argument of shape {shape}"
        )
    return total
