"""Rotations of queries and keys: which entries turn, and by which angles."""

from types import SimpleNamespace

import numpy as np

from lora_np.language import composed
from lora_np.language.rotary import RopeParameters, yarn
from tests.drawing import every
from tests.language.test_fused import rotary_by


def test_rotation_depends_on_the_distance_only():
    """A query and a key, both moved by the same number of tokens, have the same product."""
    rng = np.random.default_rng(0)
    rotary = rotary_by(50.0, 8)
    q, k = rng.normal(size=(2, 1, 8))

    def turned(x, i):
        return composed.rotate(x, *rotary.turns(i, i + 1, np.dtype(float)))

    products = [float(np.vdot(turned(q, start + 3), turned(k, start))) for start in (0, 5, 31)]
    np.testing.assert_allclose(products, products[0])


@every(
    ("d", "width", "neighbours"),
    [(6, 6, True), (2, 8, False), (4, 6, False), (4, 10, False), (8, 8, False)],
)
def test_a_part_of_a_head_or_its_neighbours_turn(d, width, neighbours):
    """As complex numbers: pair i times exp(i angle), and the rest as it is; up to the order of
    entries.
    """
    rng = np.random.default_rng(d)
    rotary = rotary_by(50.0, d, width=width, neighbours=neighbours)
    x = rng.normal(size=(1, 5, 3, width))  # (batch, tokens, heads, width)
    pairs = (
        x[..., :d].reshape(1, 5, 3, d // 2, 2)
        if neighbours
        else np.stack([x[..., : d // 2], x[..., d // 2 : d]], -1)
    )
    angles = np.arange(5)[:, np.newaxis] * 50.0 ** -(np.arange(0, d, 2) / d)
    z = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angles)[:, np.newaxis]
    expected = x.copy()
    if neighbours:
        expected[..., :d:2], expected[..., 1:d:2] = z.real, z.imag
    else:
        expected[..., : d // 2], expected[..., d // 2 : d] = z.real, z.imag
    cos, sin = rotary.turns(slice(5), 5, np.dtype(float))
    found = composed.rotate(rotary.halves(x), cos, sin)
    np.testing.assert_allclose(found, rotary.halves(expected), atol=1e-12)


@every(
    ("theta", "d", "trained", "factor"),
    [(1e4, 64, 2048, 4.0), (1e4, 128, 4096, 16.0), (5e5, 128, 8192, 2.0)],
)
def test_yarn_keeps_fast_pairs_and_divides_slow_ones_by_the_factor(theta, d, trained, factor):
    """Fast: 32 rotations or more within the original context; slow: one or fewer (YaRN, arXiv
    2309.00071, section 3.2). Each pair between is slowed down more than the pair before.
    """
    exponents = -np.arange(0, d, 2) / d
    frequencies, layer = theta**exponents, SimpleNamespace(rope_each=False)
    rope = RopeParameters({}, layer, 0, theta, d, trained, factor, exponents, frequencies)
    ratio = frequencies / yarn(rope)[0]
    rotations = trained * frequencies / (2 * np.pi)
    fast, slow = rotations >= 32, rotations <= 1
    between = ~(fast | slow)
    assert min(fast.sum(), slow.sum(), between.sum()) > 0
    np.testing.assert_allclose(ratio[fast], 1)
    np.testing.assert_allclose(ratio[slow], factor)
    assert ((ratio[between] > 1) & (ratio[between] < factor)).all()
    assert (np.diff(ratio[between]) > 0).all()
