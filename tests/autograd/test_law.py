"""The check of derivatives catches what is wrong, and names it."""

import numpy as np
import pytest

from lora_np.autograd import (
    Tensor,
    check_derivative,
    primitive,
)
from tests.autograd.examples import positive


@pytest.mark.parametrize("factor", [1.0005, 0.9995])
@pytest.mark.parametrize("shape", [(), (3,), (20, 30)])
def test_of_the_test_a_small_error_is_caught(factor, shape):
    wrong = primitive(np.tanh, lambda y, a: lambda g: factor * g * (1 - y * y))
    with pytest.raises(AssertionError, match="argument 0 is off by"):
        check_derivative(wrong, positive(shape))


def test_check_names_the_wrong_argument():
    wrong = primitive(np.multiply, lambda y, a, b: lambda g: g * b, lambda y, a, b: lambda g: g * b)
    with pytest.raises(AssertionError, match="argument 1 is off"):
        check_derivative(wrong, positive((3,)), 2 + positive((3,)))


def test_check_catches_a_gradient_that_is_not_finite():
    wrong = primitive(np.square, lambda y, a: lambda g: g * np.nan)
    with pytest.raises(AssertionError, match="nan"):
        check_derivative(wrong, positive((3,)))


def test_check_compares_shape_and_dtype():
    short = primitive(
        np.multiply,
        lambda y, a, b: lambda g: np.sum(g * b, axis=0),
        lambda y, a, b: lambda g: g * a,
    )
    with pytest.raises(
        ValueError, match=r"gradient of shape \(2,\) for an argument of shape \(10, 2\)"
    ):
        check_derivative(short, np.ones((10, 2)), np.ones((1, 2)))
    for other, message in [
        (lambda a: a.astype(np.float32), r"must be like that for arrays, \(3,\) float64"),
        (lambda a: a[:1], r"got \(1,\) float64"),
        (lambda a: a + 1, "is not f of arrays"),
    ]:
        twofold = primitive(lambda a, other=other: other(a), lambda y, a: lambda g: g)
        with pytest.raises(AssertionError, match=message):
            check_derivative(
                lambda a, f=twofold: f(a) if isinstance(a, Tensor) else a, np.array([1.0, 1.0, 1.0])
            )


def test_check_needs_a_real_argument():
    with pytest.raises(TypeError, match="at least one argument of real numbers"):
        check_derivative(np.square, 3)
