"""The law that a derivative must satisfy, as one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lora_np.autograd.tensor import Tensor, value
from lora_np.checks import Array


def check_derivative(
    f: Callable[..., Any],
    *args: Any,
    step: float = 1e-6,
    tolerance: float = 1e-6,
    directions: int = 4,
    rng: np.random.Generator | int = 0,
) -> float:
    """Check ``<w, J v> = <J^T w, v>`` for random v and w: J v by central differences, J^T w by ``backward``.

    The Jacobian itself is never formed, so the law costs two calls of ``f`` and one ``backward`` a direction,
    whatever the sizes.

    Parameters
    ----------
    f : callable
        Takes arrays, returns one array; written with NumPy functions.
    *args : array_like
        Where to check, one argument at a time. Arrays of real numbers are checked in float64; everything else
        (integers, strings, booleans) is passed on as it is.
    step : float
        Half-width of the central difference.
    tolerance : float
        Largest allowed disagreement, relative to the sum of the absolute products in ``<w, J v>``.
    directions : int
        Number of random (v, w) pairs for each argument.
    rng : Generator or int
        Randomness for v and w.

    Returns
    -------
    float
        The largest relative disagreement that was seen.

    Raises
    ------
    AssertionError
        If an argument's derivative is wrong; the message says which argument, and by how much.
    TypeError
        If no argument holds real numbers.

    Examples
    --------
    >>> check_derivative(np.multiply, [1.0, 2.0], [3.0, 4.0]) < 1e-6
    True
    """
    rng = np.random.default_rng(rng)
    points = [np.array(a, dtype=np.float64) if np.asarray(a).dtype.kind == "f" else a for a in args]
    real = [i for i, a in enumerate(points) if np.asarray(a).dtype.kind == "f"]
    if not real:
        raise TypeError("check_derivative needs at least one argument of real numbers")
    worst = 0.0
    for i in real:
        for _ in range(directions):
            v = rng.standard_normal(np.shape(points[i]))
            Jv = (value(f(*moved(points, i, step * v))) - value(f(*moved(points, i, -step * v)))) / (2 * step)
            w = rng.standard_normal(Jv.shape)
            x = Tensor(points[i])
            y = f(*points[:i], x, *points[i + 1 :])
            if isinstance(y, Tensor):
                y.backward(w)
            expected = float(np.sum(w * Jv))
            got = 0.0 if x.grad is None else float(np.sum(x.grad * v))
            scale = max(float(np.sum(np.abs(w * Jv))), step)
            error = abs(got - expected) / scale
            if not error <= tolerance:
                raise AssertionError(
                    f"derivative of argument {i} is off by {error:.1e} (allowed {tolerance:.0e}): "
                    f"<w, J v> is {expected:.9g} by finite differences, <J^T w, v> is {got:.9g} by backward()"
                )
            worst = max(worst, error)
    return worst


def moved(points: list[Any], i: int, by: Array) -> list[Any]:
    return [*points[:i], points[i] + by, *points[i + 1 :]]
