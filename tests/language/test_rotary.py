"""Rotations of queries and keys: which entries turn, and by which angles."""

import numpy as np

from lora_np.language import composed
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
