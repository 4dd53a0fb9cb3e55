"""The operations that define a decoder, against their formulas."""

import math

import numpy as np
import pytest

import lora_np as lnp
from lora_np.language import composed


@pytest.mark.parametrize(("dtype", "limit"), [(np.float64, 1e-14), (np.float32, 2e-7)])
def test_the_exact_gelu_is_that_of_erf(dtype, limit):
    x = np.concatenate(
        [
            np.linspace(-60, 60, 2001),
            [1e300, -1e300] if dtype == np.float64 else [1e30, -1e30],
            [0.0],
        ]
    )
    x = x.astype(dtype)
    expected = [each * 0.5 * math.erfc(-each / 2**0.5) for each in x.astype(float)]
    y = composed.exact_gelu(x)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, expected, rtol=limit, atol=limit)
    t = lnp.Tensor(np.linspace(-5, 5, 101))
    np.sum(composed.exact_gelu(t)).backward()
    step = 1e-5
    slope = (composed.exact_gelu(t.data + step) - composed.exact_gelu(t.data - step)) / (2 * step)
    np.testing.assert_allclose(t.grad, slope, atol=1e-9)
