"""One law for every kind of quantised matrix: rows, products and gradients are those of the matrix that
`dequantised` returns, for any block, slice and shape, whether or not it is taken in pieces.
"""

import warnings

import numpy as np
import pytest

from lora_np.quantise import KINDS, LAYOUTS, Blocks, quantise
from tests.drawing import FULL, every

CASES = 10_000 if FULL else 600
EVERY_KIND = [*dict.fromkeys([*KINDS, *LAYOUTS])]
BLOCKS = (2, 3, 5, 7, 31, 63, 64, 65, 100, 127, 1000)


def drawn_matrix(rng, kind, rows, columns):
    """A matrix of this kind with about so many columns."""
    if kind in ("nf4", "int4"):
        W = rng.normal(size=(rows, columns)) * 10.0 ** rng.integers(-6, 6)
        return quantise(W, kind, block=int(rng.choice(BLOCKS)), double=bool(rng.integers(2)))
    numbers = LAYOUTS[kind].entries if kind in LAYOUTS else 1
    columns = -(-columns // numbers) * numbers
    if kind in KINDS:
        return quantise(rng.normal(size=(rows, columns)), kind)
    block = LAYOUTS[kind].block
    if block.names is None:
        return Blocks(kind, rng.normal(size=(rows, columns)).astype(block), (rows, columns))
    raw = rng.integers(0, 256, (rows, columns // numbers, block.itemsize), dtype=np.uint8)
    data = raw.view(block)[..., 0]
    for name in block.names:
        if block[name].kind == "f":
            data[name] = rng.normal(size=data[name].shape)
    return Blocks(kind, data, (rows, columns))


def drawn_index(rng, rows):
    """An index of rows, as NumPy takes it."""
    ends = [None, *range(-rows, rows + 2)]
    start, stop = (ends[i] for i in rng.integers(len(ends), size=2))
    some = rng.integers(-rows, rows, rng.integers(0, 5))
    forms = [
        slice(start, stop),
        slice(start, stop, [1, 2, 3, -1, -2][rng.integers(5)]),
        some,
        some.tolist(),
        rng.integers(0, rows, (2, 2)),
        int(rng.integers(-rows, rows)),
        rng.random(rows) < 0.5,
    ]
    return forms[rng.integers(len(forms))]


def check(rng, kind, rows, columns, indices=3):
    Q = drawn_matrix(rng, kind, rows, columns)
    for held in (Q, Q.expanded()) if isinstance(Q, Blocks) else (Q,):
        W = held.dequantised()
        np.testing.assert_array_equal(W, Q.dequantised())
        for _ in range(indices):
            index = drawn_index(rng, rows)
            np.testing.assert_array_equal(held.rows(index), W[index], err_msg=f"rows of {index}")
        n = int(rng.choice([1, 2, 8, 9, 12]))
        exact, size = W.astype(np.float64), np.abs(W).astype(np.float64)
        for product, M, other in (
            (held.product, exact.T, size.T), (held.pulled, exact, size),
        ):  # fmt: skip
            x = rng.normal(size=(n, len(M))).astype(np.float32)
            allowed = (
                1e-6 * (8 + len(M) ** 0.5) * (np.abs(x) @ other + np.abs(x).sum() * size.max())
            )
            assert (np.abs(product(x) - x @ M) <= allowed).all(), product.__name__


@every("case", range(CASES))
def test_rows_and_products_are_those_of_the_whole_matrix(case, monkeypatch):
    rng = np.random.default_rng(case)
    monkeypatch.setattr("lora_np.quantise.weight.PIECE", int(rng.choice([20, 100, 700, 2**18])))
    kind = EVERY_KIND[case % len(EVERY_KIND)]
    check(rng, kind, *(int(n) for n in rng.integers(1, 40, 2)))


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_large_matrices_are_taken_in_pieces(kind):
    """Above the size at which products are taken in pieces, with rows of odd length."""
    rng = np.random.default_rng(0)
    check(rng, kind, 300, 1025, indices=6)


EXTREMES = [
    0.0,
    1e-45,
    1e-42,
    1e-39,
    1e-37,
    1e-30,
    1e-20,
    1e-8,
    6e4,
    7e4,
    1e20,
    2e36,
    4e36,
    1e38,
    3.4e38,
]


@every("kind", KINDS)
@every("size", EXTREMES)
@every("double", [False, True])
@every("form", ["all", "one row", "one entry", "alternating"])
def test_extremes_are_kept_or_refused_without_a_warning(kind, size, double, form):
    if double and kind not in ("nf4", "int4"):
        return
    rng = np.random.default_rng(0)
    W = np.zeros((6, 256)) if form == "one entry" else rng.uniform(-1, 1, (6, 256))
    W[0, 0] = 1.0
    if form == "alternating":
        W = np.sign(W)
    scales = np.array([1.0, *[size] * 5] if form == "one row" else [size] * 6)[:, None]
    W = (W * scales).astype(np.float32)
    options = {"double": True} if double else {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            Q = quantise(W, kind, **options)
        except ValueError as error:
            assert "too large" in str(error) or "too small" in str(error)  # noqa: PT017
            assert not 1e-30 <= size <= 6e4
            return
        back = Q.dequantised()
        product = Q.product(np.ones((1, 256), np.float32) * np.float32(1e-3))
    assert np.isfinite(back).all()
    assert np.isfinite(product).all()
    tops = (
        np.abs(W).max()
        if double or kind in ("nf4", "int4")
        else np.abs(W).max(axis=1, keepdims=True)
    )
    assert (np.abs(back - W) <= 0.6 * tops + 2.0**-24).all()
