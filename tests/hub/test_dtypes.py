"""Rounding at random: to one of two neighbours, and to the value itself on average."""

import numpy as np
import pytest

from lora_np.hub import ALL_FLOATS, rounded

NARROW = [dtype for dtype in ALL_FLOATS if dtype != "float64"]


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("seed", range(4))
def test_a_value_goes_to_a_neighbour_and_stays_on_average(dtype, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=40) * 10.0 ** rng.uniform(-6, 2, 40)
    draws = rounded(np.tile(values, (2000, 1)), dtype, rng).astype(float)
    nearest = rounded(values, dtype).astype(float)
    below, above = draws.min(axis=0), draws.max(axis=0)
    for value, low, high, near, column in zip(values, below, above, nearest, draws.T, strict=True):
        assert {*column} == {low, high}
        assert near in (low, high)
        if low == high:  # nearly the value itself
            continue
        assert low <= value <= high
        # no value of the dtype is between the two
        assert rounded(np.array([(low + high) / 2]), dtype)[0] in (low, high)
        spread = max(high - low, 1e-300)
        assert abs(column.mean() - value) <= 4 * 0.5 * spread / 2000**0.5


@pytest.mark.parametrize("dtype", ALL_FLOATS)
def test_a_value_of_the_dtype_is_kept(dtype):
    rng = np.random.default_rng(0)
    values = rounded(rng.normal(size=1000) * 10.0 ** rng.uniform(-4, 2, 1000), dtype)
    np.testing.assert_array_equal(rounded(values, dtype, rng), values)
    np.testing.assert_array_equal(rounded(values, dtype), values)


@pytest.mark.parametrize("dtype", ALL_FLOATS)
def test_what_is_too_large_is_no_longer_finite(dtype):
    most = {"float8_e4m3": 448.0, "float8_e5m2": 57344.0, "float16": 65504.0}.get(dtype)
    if most is None:
        most = 3.3895313892515355e38 if dtype == "bfloat16" else float(np.finfo(dtype).max)
    inside = np.array([most, -most])
    np.testing.assert_array_equal(rounded(inside, dtype), inside)
    if dtype != "float64":
        wanted = [np.nan, np.nan] if "float8" in dtype else [np.inf, -np.inf]
        beyond = rounded(2 * inside, dtype, np.random.default_rng(0))
        np.testing.assert_array_equal(beyond, wanted)
        np.testing.assert_array_equal(rounded(2 * inside, dtype), wanted)
