"""Every kind of quantisation: bounds from theory, exactness where numbers can be held, and what is
refused.
"""

import dataclasses
import math
from itertools import product

import numpy as np
import pytest

from lora_np.hub import gguf
from lora_np.linalg import rank_errors
from lora_np.quantise import (
    KINDS,
    LAYOUTS,
    Blocks,
    nf4_levels,
    normal_quantile,
    quantise,
    uniform_levels,
)
from lora_np.quantise.scaled import dynamic_levels
from tests.drawing import FULL, every
from tests.gguf_files import save_gguf

PLAIN = [kind for kind in KINDS if not kind.endswith("_K")]  # whose scales are not quantised
BLOCKED = [kind for kind in PLAIN if kind.startswith("Q")]
FLAT = ["int4", "nf4"]
SHAPES = [(1, 1), (1, 2), (3, 5), (1, 64), (7, 9), (13, 128), (65, 1), (100, 120), (5, 257)]
WHOLE = [(1, 1), (3, 2), (17, 3)]  # in blocks
DRAWS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "outliers": lambda rng, shape: rng.standard_t(2, size=shape),
    "tiny": lambda rng, shape: rng.normal(size=shape) * 1e-3,
    "large": lambda rng, shape: rng.normal(size=shape) * 1e3,
    "whole numbers": lambda rng, shape: rng.integers(-5, 6, shape),
    "zero rows": lambda rng, shape: rng.normal(size=shape) * (np.arange(shape[0]) % 2)[:, None],
    "positive": lambda rng, shape: rng.random(shape) + 0.1,
}


def block_length(kind):
    return LAYOUTS[kind].entries if kind in LAYOUTS else 1


def shapes(kind):
    n = block_length(kind)
    return [(d, blocks * n) for d, blocks in WHOLE] if n > 1 else SHAPES


def cases():
    return [
        pytest.param(kind, shape, draw, id=f"{kind}-{shape[0]}x{shape[1]}-{draw}")
        for kind in PLAIN
        for shape in shapes(kind)
        for draw in DRAWS
    ]


def matrix(draw, shape, seed=0):
    return DRAWS[draw](np.random.default_rng([seed, *shape]), shape).astype(np.float32)


def blocks_of(x, kind):
    """Split the flattened matrix into rows of numbers that share a scale; a shorter one comes last."""
    length = {"int8": x.shape[1], "int4": 64, "nf4": 64}.get(kind, block_length(kind))
    whole = x.size - x.size % length
    parts = x.ravel()[:whole].reshape(-1, length), x.ravel()[whole:].reshape(1, -1)
    return [part for part in parts if part.size]


def bound(kind, x):
    """The largest error that a number in each row of x may have."""
    x = x.astype(float)
    top, spread = np.abs(x).max(1), x.max(1) - x.min(1)
    half = 2.0**-11  # of a float16, which is how scales are kept
    if kind == "int8":
        return top / 254
    if kind == "int4":
        return top / 14
    if kind == "nf4":
        return top * np.diff(nf4_levels().astype(float)).max() / 2
    if kind == "F16":
        return np.maximum(top * half, 2.0**-25)
    if kind == "BF16":
        return top * 2.0**-8
    tiny = 2.0**-25  # half the least float16 above zero
    if kind == "MXFP4":  # from 8 to 12 and, not there, 16
        return top / 4
    if kind in ("Q4_0", "Q5_0"):  # the side without the largest magnitude has one code too few
        codes = 8 if kind == "Q4_0" else 16
        return top / codes + codes * (top / codes * half + tiny)
    if kind == "Q8_0":
        return top / 254 + 127 * (top / 127 * half + tiny)
    steps = 15 if kind == "Q4_1" else 31
    return (
        spread / steps / 2 + steps * (spread / steps * half + tiny) + np.abs(x.min(1)) * half + tiny
    )


@every(("kind", "shape", "draw"), cases())
def test_no_error_is_above_what_theory_allows(kind, shape, draw):
    for seed in range(3 if FULL else 1):
        W = matrix(draw, shape, seed)
        error = np.abs(W - quantise(W, kind).dequantised().astype(float))
        for block, errors in zip(blocks_of(W, kind), blocks_of(error, kind), strict=True):
            assert (errors.max(1) <= bound(kind, block) * (1 + 1e-5)).all()


@every(("kind", "shape", "draw"), cases())
def test_numbers_that_codes_can_hold_come_back_exactly(kind, shape, draw):
    once = quantise(matrix(draw, shape), kind)
    again = quantise(once.dequantised(), kind)
    if kind in ("nf4", "int4", "int8", "F16", "BF16"):
        np.testing.assert_allclose(again.dequantised(), once.dequantised(), rtol=3e-7)
    else:  # scales move within float16
        assert again.error(once.dequantised(), relative=True) < 2e-3


@pytest.mark.parametrize("kind", BLOCKED)
def test_blocks_whose_scale_is_a_float16_are_exact(kind):
    rng = np.random.default_rng(0)
    bits = int(kind[1])
    low, high = {"0": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1), "1": (0, 2**bits - 1)}[kind[3]]
    q = rng.integers(low, high + 1, (40, 32))
    q[:, 0], q[:, 1] = low + (kind == "Q8_0"), high
    q = np.maximum(q, low + (kind == "Q8_0"))  # Q8_0 does not use -128
    W = (q * 2.0 ** rng.integers(-8, 8, (40, 1))).astype(np.float32)
    np.testing.assert_array_equal(quantise(W, kind).dequantised(), W)


@pytest.mark.parametrize(("kind", "simple"), [("Q4_K", "Q4_1"), ("Q5_K", "Q5_1"), ("Q6_K", "Q5_1")])
@pytest.mark.parametrize("unit", [1e-2, 1.0, 1e2])
def test_blocks_with_quantised_scales_lose_no_more_than_simple_ones(kind, simple, unit):
    W = unit * np.random.default_rng(0).normal(size=(16, 512)).astype(np.float32)
    Q = quantise(W, kind)
    assert Q.error(W) <= 1.05 * quantise(W, simple).error(W)
    on_grid = (
        Q.dequantised()
    )  # which is on the grid, but perhaps not on the one that is found again
    assert quantise(on_grid, kind).error(on_grid) <= 0.6 * Q.error(W) + 1e-6 * unit


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("Q")])
def test_rounding_at_random_is_right_on_average(kind):
    W = np.random.default_rng(1).normal(size=(8, 512)).astype(np.float32)
    rng = np.random.default_rng(2)
    draws = np.stack([quantise(W, kind, rng=rng).dequantised() for _ in range(64)])
    nearest = quantise(W, kind)
    inner = np.abs(W) < 1  # codes at the ends are clipped
    spread = draws.std(axis=0).max()
    assert np.abs(draws.mean(axis=0) - W)[inner].max() <= 5 * spread / 8
    assert nearest.error(W) < quantise(W, kind, rng=rng).error(W) < 2 * nearest.error(W)


@every("kind", KINDS)
@every("shape", [(1, 256), (3, 512)])
def test_zero_stays_zero(kind, shape):
    Q = quantise(np.zeros(shape), kind)
    assert not Q.dequantised().any()
    assert Q.error(np.zeros(shape), relative=True) == 0


@pytest.mark.parametrize("kind", FLAT)
def test_a_zero_block_next_to_another_stays_zero(kind):
    W = np.zeros((2, 64), np.float32)
    W[1] = np.linspace(-1, 1, 64)
    assert not quantise(W, kind).dequantised()[0].any()


@pytest.mark.parametrize("kind", ["int8", *FLAT, "Q8_0", "Q4_1"])
def test_a_larger_number_never_gets_a_smaller_one_back(kind):
    W = np.sort(np.random.default_rng(1).standard_t(3, size=(1, 64)))
    assert (np.diff(quantise(W, kind).dequantised()) >= 0).all()


@pytest.mark.parametrize("kind", FLAT)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_level_is_the_nearest(kind, shape):
    W = matrix("normal", shape)
    Q = quantise(W, kind)
    levels = {"nf4": nf4_levels(), "int4": uniform_levels()}[kind]
    scales = np.repeat(Q.scales, 64)[: W.size]
    best = np.abs(W.ravel()[:, None].astype(float) - scales[:, None] * levels.astype(float)).min(1)
    np.testing.assert_allclose(
        np.abs(W - Q.dequantised()).ravel(), best, atol=1e-6 * np.abs(W).max()
    )


@every("block", [2, 3, 32, 64, 100, 4096])
@every("double", [False, True])
@every("kind", FLAT)
def test_blocks_of_any_length(kind, block, double):
    W = matrix("normal", (19, 23))
    Q = quantise(W, kind, block=block, double=double)
    assert Q.error(W, relative=True) < 0.2
    blocks = -(-W.size // block)
    assert Q.nbytes == -(-W.size // 2) + (
        blocks + 4 * -(-blocks // 256) + 4 if double else 4 * blocks
    )
    np.testing.assert_array_equal(
        Q.rows(np.array([[3, 0], [18, 3]])), Q.dequantised()[[[3, 0], [18, 3]]]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_of_the_whole(kind):
    W = matrix("normal", (9, 256))
    Q = quantise(W, kind)
    for index in ([0], [[8, 1], [1, 1]], []):
        index = np.array(index, int)
        np.testing.assert_array_equal(Q.rows(index), Q.dequantised()[index])


def test_double_quantisation_costs_little_accuracy_and_saves_what_the_paper_says():
    W = matrix("normal", (512, 1024))
    single, double = quantise(W, "nf4"), quantise(W, "nf4", double=True)
    assert single.bits == 4.5
    assert single.bits - double.bits == pytest.approx(0.373, abs=5e-4)
    assert double.error(W) < 1.005 * single.error(W)


def test_nf4_is_better_than_even_levels_where_weights_are_normal_and_worse_where_they_are_even():
    for seed in range(5):
        W = matrix("normal", (128, 128), seed)
        assert quantise(W, "nf4").error(W) < 0.9 * quantise(W, "int4").error(W)
    W = np.random.default_rng(0).uniform(-1, 1, (128, 128))
    assert quantise(W, "nf4").error(W) > quantise(W, "int4").error(W)


def test_more_bits_less_error():
    W = matrix("normal", (64, 256))
    errors = [
        quantise(W, kind).error(W) for kind in ("Q4_0", "Q4_1", "Q5_1", "Q8_0", "BF16", "F16")
    ]
    assert errors == sorted(errors, reverse=True)


def test_the_error_is_that_of_linalg():
    W = matrix("normal", (20, 32))
    Q = quantise(W, "nf4")
    expected = rank_errors(W - Q.dequantised())[0]
    assert Q.error(W) == pytest.approx(expected, rel=1e-5)
    assert Q.error(W, relative=True) == pytest.approx(expected / rank_errors(W)[0], rel=1e-5)


def test_levels():
    levels = nf4_levels()
    assert levels[[0, 7, 15]].tolist() == [-1, 0, 1]
    assert (np.diff(levels) > 0).all()
    # Equally likely: on both sides, the quantiles are equally far apart in probability.
    from statistics import NormalDist

    top = NormalDist().inv_cdf(0.9677083)
    p = np.array([NormalDist().cdf(float(level) * top) for level in levels])
    np.testing.assert_allclose(np.diff(p[:8]), np.diff(p[:8])[0], atol=1e-6)
    np.testing.assert_allclose(np.diff(p[7:]), np.diff(p[7:])[0], atol=1e-6)
    assert len(dynamic_levels()) == len(set(dynamic_levels().tolist())) == 256
    for array in (levels, dynamic_levels()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_the_quantile_inverts_the_distribution_far_into_both_tails():
    for p in [
        *10.0 ** -np.arange(1, 16),
        *np.linspace(0.01, 0.99, 99),
        *(1 - 10.0 ** -np.arange(1, 10)),
    ]:
        x = float(normal_quantile(p))
        tail = min(p, 1 - p)
        np.testing.assert_allclose(math.erfc(abs(x) / math.sqrt(2)) / 2, tail, rtol=1e-12)
        assert np.sign(x) == np.sign(p - 0.5)
    assert normal_quantile(0.5) == 0


@every("kind, wrong", product(KINDS, [np.nan, np.inf, -np.inf]))
def test_what_is_not_finite_is_refused(kind, wrong):
    W = np.ones((2, 32))
    W[1, 3] = wrong
    with pytest.raises(ValueError, match=r"W must be finite, got .* at \(1, 3\)"):
        quantise(W, kind)


@pytest.mark.parametrize("kind", [*BLOCKED, "MXFP4"])
def test_rows_must_be_whole_blocks(kind):
    n = block_length(kind)
    with pytest.raises(
        ValueError, match=f"{kind} needs rows of whole blocks of {n}, got rows of 33"
    ):
        quantise(np.ones((2, 33)), kind)


@pytest.mark.parametrize("kind", [*BLOCKED, "F16"])
def test_scales_that_do_not_fit_are_refused(kind):
    with pytest.raises(ValueError, match="too large"):
        quantise(np.full((1, 256), 1e30) * np.where(np.arange(256) % 2, 1, -1), kind)


@pytest.mark.parametrize(("size", "wrong"), [(4e36, "large"), (1e-38, "small"), (1e-42, "small")])
def test_rows_whose_scale_overflows_in_int8_are_refused(size, wrong):
    with pytest.raises(
        ValueError, match=f"a row of W is too {wrong} for int8: its largest magnitude is "
    ):
        quantise([[1.0, 2.0], [size, 0.0]], "int8")


def test_scales_whose_mean_overflows_are_refused():
    with pytest.raises(ValueError, match=r"too large for double=True: its largest scale is 3e\+38"):
        quantise(np.full((4, 64), 3e38), "nf4", double=True)


def test_a_number_above_the_largest_bfloat16_is_refused():
    with pytest.raises(ValueError, match="too large for BF16"):
        quantise(np.full((1, 1), np.finfo(np.float32).max), "BF16")


def test_other_refusals():
    with pytest.raises(ValueError, match="W must fit float32, got 1e\\+300"):
        quantise([[1e300]], "nf4")
    with pytest.raises(ValueError, match="did you mean 'Q8_0'"):
        quantise(np.ones((1, 32)), "q8_0")
    with pytest.raises(ValueError, match="kind must be one of"):
        quantise(np.ones((1, 256)), "Q2_K")
    with pytest.raises(ValueError, match="rng is for the kinds of GGUF that begin with Q, not"):
        quantise(np.ones((1, 32)), "F16", rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="block and double are for nf4 and int4, not for Q8_0"):
        quantise(np.ones((1, 32)), "Q8_0", double=True)
    with pytest.raises(ValueError, match="block must be at least 2"):
        quantise(np.ones((1, 32)), "nf4", block=1)
    with pytest.raises(ValueError, match="W must be a matrix"):
        quantise(np.ones(32), "nf4")
    with pytest.raises(TypeError, match="real numbers"):
        quantise(np.ones((2, 2), complex), "nf4")
    with pytest.raises(ValueError, match=r"W must have shape \(1, 32\), got \(32, 1\)"):
        quantise(np.ones((1, 32)), "nf4").error(np.ones((32, 1)))
    with pytest.raises(ValueError, match=r"needs blocks of shape \(2, 1\)"):
        Blocks("Q8_0", np.zeros((1, 1), LAYOUTS["Q8_0"].block), (2, 32))


@pytest.mark.parametrize("kind", KINDS)
def test_the_object_is_small_frozen_and_tells_what_it_is(kind):
    W = matrix("normal", (8, 256))
    Q = quantise(W, kind)
    assert (Q.kind, Q.shape, Q.ndim, Q.size, Q.dtype) == (kind, (8, 256), 2, 2048, np.float32)
    assert repr(Q).startswith(f"<{kind} matrix, 8 x 256, ")
    with pytest.raises(dataclasses.FrozenInstanceError):
        Q.kind = "other"
    assert Q.dequantised() is not Q.dequantised()
    assert Q.dequantised().flags.writeable
    np.testing.assert_array_equal(W, matrix("normal", (8, 256)))


@pytest.mark.parametrize("scale", [1e-37, 2e-38, 9e-39, 1e-39, 1e-42, 1e-45])
@pytest.mark.parametrize("kind", ["nf4", "int4"])
def test_blocks_of_denormal_numbers_are_kept_or_refused(kind, scale):
    rng = np.random.default_rng(0)
    for rows in (1, 8, 64):
        W = (rng.uniform(-1, 1, size=(rows, 64)) * scale).astype(np.float32)
        W[:, 0], W[0] = scale, 0
        for double in (False, True):
            if scale > 1e-38 or rows == 1:
                lost = np.abs(quantise(W, kind, double=double).dequantised() - W).max()
                assert lost <= (2 if double else 0.2) * np.abs(W).max()
                continue
            with pytest.raises(ValueError, match=f"a block of W is too small for {kind}: its larg"):
                quantise(W, kind, double=double)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_matrix_of_any_kind_is_read_by_rows_and_written_to_gguf(kind, tmp_path):
    layout = LAYOUTS[kind]
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (3, 2, layout.block.itemsize), dtype=np.uint8)
    Q = Blocks(kind, raw.view(layout.block)[..., 0], (3, 2 * layout.entries))
    assert Q.nbytes == raw.size
    save_gguf({"W": Q}, tmp_path / "W.gguf")
    again = gguf.open(tmp_path / "W.gguf").quantised("W")
    assert again.data.tobytes() == raw.tobytes()
    np.testing.assert_array_equal(again.rows(np.array([2, 0])), Q.dequantised()[[2, 0]])
