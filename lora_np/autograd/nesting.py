"""Compute gradients of gradients: ``grad(f)`` is a function, which can be differentiated again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np

from lora_np.autograd.engine import Operand, Tensor, tensor, walk
from lora_np.checks import real

LEVELS = count(1)  # an inner `grad` starts later, so it gets a higher level


def grad(f: Callable[..., Any], argument: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """Return the gradient of ``f`` as a function, which can be differentiated again.

    Inside ``f``, each ``argument`` is wrapped in a Tensor, even if it is a Tensor already. So the
    rules compute with Tensors if an outer ``grad`` or a ``backward()`` follows, which is enough for
    gradients of gradients.

    Parameters
    ----------
    f : callable
        A function of arrays that returns a scalar, written with NumPy functions.
    argument : int or tuple of int
        The position of the argument, or arguments, with respect to which to differentiate.

    Returns
    -------
    callable
        A function of the same arguments that returns an array of the argument's shape, or a tuple
        of them. If an argument is a Tensor, it returns a Tensor.

    Raises
    ------
    ValueError
        When the gradient is called, if ``f`` does not return a scalar.

    Examples
    --------
    >>> cube = lambda x: x * x * x
    >>> grad(cube)(2.0), grad(grad(cube))(2.0), grad(grad(grad(cube)))(2.0)
    (array(12.), array(12.), array(6.))

    The product of a Hessian and a vector v, without the Hessian:

    >>> f = lambda x: np.sum(x**3)
    >>> v = np.array([1.0, 0.0])
    >>> grad(lambda x: grad(f)(x) @ v)(np.array([2.0, 3.0]))
    array([12.,  0.])
    """
    places = (argument,) if isinstance(argument, int) else argument

    @functools.wraps(f)
    def gradient(*args: Any, **kwargs: Any) -> Operand | tuple[Operand, ...]:
        level = next(LEVELS)
        inside = list(args)
        for i in places:
            a = args[i]
            data = a if isinstance(a, Tensor) else np.array(real(f"argument {i}", a))
            inside[i] = tensor(data, level, None)
        y = f(*inside, **kwargs)
        if np.size(y) != 1:
            raise ValueError(
                f"grad needs a function that returns a scalar, got shape {np.shape(y)}"
            )
        arrived: dict[Tensor, Operand] = {}
        if isinstance(y, Tensor) and y.level == level:
            arrived = walk(y, np.array(1, y.dtype, ndmin=y.ndim))
        gradients = [
            arrived.get(inside[i], np.zeros(inside[i].shape, inside[i].dtype)) for i in places
        ]
        result = tuple(g if isinstance(g, Tensor) else np.asarray(g) for g in gradients)
        return result[0] if isinstance(argument, int) else result

    return gradient
