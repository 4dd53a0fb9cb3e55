"""Norms where their formulas divide by zero or sum nothing."""

import numpy as np
import pytest

from lora_np.autograd import (
    Tensor,
    grad,
    value,
)


def test_norm_and_std_have_second_gradients_at_zero():
    """NaN would spoil every Hessian. (The true curvature of a kink does not exist.)"""
    for f in [np.std, np.linalg.norm]:
        assert np.isfinite(grad(lambda x, f=f: np.sum(grad(f)(x)))(np.zeros(3))).all()


def test_what_does_not_vary_has_slope_zero_in_std_and_norms():
    for f in [np.std, lambda a: np.sum(np.std(a, axis=0)), np.linalg.norm, lambda a: np.sum(np.linalg.norm(a, axis=1)),
              lambda a: np.linalg.norm(a, "fro"), lambda a: np.sum(np.linalg.vector_norm(a, axis=0))]:  # fmt: skip
        x = Tensor(np.zeros((2, 3)))
        f(x).backward()
        np.testing.assert_array_equal(x.grad, 0)
    x = Tensor(np.full((2, 3), 5.0))
    np.std(x).backward()
    np.testing.assert_array_equal(x.grad, 0)


@pytest.mark.parametrize("norm", [np.linalg.norm, lambda x: np.linalg.norm(x, "fro", axis=(0, 1)),
                                  lambda x: np.linalg.norm(x, 2, axis=0), lambda x: np.linalg.norm(x, axis=1)])  # fmt: skip
def test_norms_of_nothing_are_numpys(norm):
    for shape in [(0, 2), (2, 0), (0, 0)]:
        try:
            expected = norm(np.zeros(shape))
        except ValueError:  # which norms have one depends on NumPy's version
            with pytest.raises(ValueError):  # noqa: PT011 (NumPy's own)
                norm(Tensor(np.zeros(shape)))
            continue
        y = value(norm(Tensor(np.zeros(shape))))
        np.testing.assert_array_equal(y, expected)
