"""Check derivatives by an identity that every derivative satisfies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lora_np.autograd.engine import Operand, Tensor
from lora_np.autograd.methods import value
from lora_np.autograd.nesting import grad
from lora_np.checks import Array, Seed, generator, plain, real


def check_derivative(
    f: Callable[..., Operand],
    *args: Any,
    step: float = 1e-6,
    tolerance: float = 1e-6,
    directions: int = 4,
    order: int = 1,
    rng: Seed = 0,
) -> float:
    """Check that ``<w, J v>`` by central differences equals ``<J^T w, v>`` by ``backward``.

    The Jacobian is never formed, so the check costs three calls of ``f`` and one ``backward`` per
    direction, whatever the sizes.

    Parameters
    ----------
    f : callable
        A function of arrays that returns one array, written with NumPy functions.
    *args : array_like
        The arguments, whose derivatives are checked one by one. Arrays of real numbers are
        converted to float64; all others (integers, strings, booleans) are passed on unchanged.
    step : float
        Half-width of the central difference.
    tolerance : float
        Largest allowed disagreement, relative to the sum of the absolute products in ``<w, J v>``
        (rounding in the finite difference is allowed for).
    directions : int
        Number of random (v, w) pairs for each argument.
    order : int
        1 checks first derivatives. 2 also checks that the gradients of ``<w, f>`` satisfy the law,
        for each pair of arguments; 3 also checks the gradients of these, and so on.
    rng : Generator or int
        Random seed of v and w.

    Returns
    -------
    float
        The largest relative disagreement found.

    Raises
    ------
    AssertionError
        If an argument's derivative is wrong, in its values, shape or dtype; the message names the
        argument and gives the error. Also if ``f`` computes something different with a Tensor than
        with arrays.
    ValueError
        If a rule returns a gradient that does not fit the shape of its argument.
    TypeError
        If no argument holds real numbers.

    Examples
    --------
    >>> check_derivative(np.multiply, [1.0, 2.0], [3.0, 4.0]) < 1e-6
    True
    >>> check_derivative(np.tanh, [1.0, 2.0], order=2) < 1e-6
    True
    """
    rng = generator(rng)
    points, places = list(args), []
    for i, a in enumerate(args):
        if plain(f"argument {i}", a).dtype.kind in "fc":
            points[i] = real(f"argument {i}", a).astype(np.float64)
            places.append(i)
    if not places:
        raise TypeError("check_derivative needs at least one argument of real numbers")

    def moved(i: int, x: Operand) -> Operand:
        return f(*points[:i], x, *points[i + 1 :])

    answer = value(f(*points))
    worst = 0.0
    for i in np.repeat(places, directions).tolist():
        v = rng.standard_normal(np.shape(points[i]))
        after, before = (value(moved(i, points[i] + by * v)) for by in (step, -step))
        Jv = (after - before) / (2 * step)
        w = rng.standard_normal(Jv.shape)
        x = Tensor(points[i])
        y = moved(i, x)
        same_kind(f"the result for a Tensor in argument {i}", value(y), "that for arrays", answer)
        if not np.allclose(value(y), answer, rtol=tolerance, atol=tolerance, equal_nan=True):
            raise AssertionError(
                f"f of a Tensor in argument {i} is not f of arrays: {value(y)}, {answer}"
            )
        if isinstance(y, Tensor):
            y.backward(w)
        if x.grad is not None:
            same_kind(f"the gradient of argument {i}", x.grad, "the argument", points[i])
        expected = float(np.sum(w * Jv))
        got = 0.0 if x.grad is None else float(np.sum(x.grad * v))
        # estimate the rounding error that the two calls of f cause in `expected`
        noise = 8 * float(np.finfo(np.float64).eps) * float(np.sum(np.abs(w * answer))) / step
        scale = max(float(np.sum(np.abs(w * Jv))), step)
        error = (abs(got - expected) - noise) / scale
        if not error <= tolerance:
            raise AssertionError(
                f"derivative of argument {i} is off by {error:.1e} (allowed {tolerance:.0e}): <w, J"
                f" v> is {expected:.9g} by finite differences, <J^T w, v> is {got:.9g} by"
                " backward()"
            )
        worst = max(worst, error)
    if order > 1:
        w = rng.standard_normal(answer.shape)
        for i in places:
            gradient = grad(lambda *a: np.sum(w * f(*a)), argument=i)
            try:
                error = check_derivative(
                    gradient,
                    *points,
                    step=step,
                    tolerance=tolerance,
                    directions=directions,
                    order=order - 1,
                    rng=rng,
                )
            except AssertionError as problem:
                problem.add_note(f"(this is about the gradient of <w, f> by argument {i})")
                raise
            worst = max(worst, error)
    return worst


def same_kind(what: str, a: Array, of_what: str, b: Array) -> None:
    if a.shape != b.shape or a.dtype != b.dtype:
        raise AssertionError(
            f"{what} must be like {of_what}, {b.shape} {b.dtype}, got {a.shape} {a.dtype}"
        )
