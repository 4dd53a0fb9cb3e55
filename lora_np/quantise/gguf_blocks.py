"""Encode and decode GGUF's blocks, which store up to 256 entries as scales and codes.

The layout of a block is a structured NumPy dtype, and its decoder computes the entries of the
matrix from the fields. All arithmetic is in float32 and in the order of ggml's reference, so that
every bit of the entries agrees. The table at the end lists the supported kinds; IQ1 to IQ3, TQ and
NVFP4 are not among them. Q8_1 and Q8_K are for activations only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from lora_np.checks import Array, ArrayLike, Rng, overflow_allowed
from lora_np.quantise.weight import PIECE, Quantised

Block = np.dtype[Any]
Parts = tuple[Array, ...]  # scale, codes, and perhaps an offset to subtract
FEW = 8  # for at most this many rows of x, a product with the codes is faster than dequantising


class Layout(NamedTuple):
    """The layout of one kind of block, with its decoder and, if there is one, its encoder.

    Parameters
    ----------
    entries : int
        The number of entries of the matrix in a block.
    block : dtype
        The structured dtype of a block.
    decode : callable
        A function from blocks (n,) to scales (n, runs), codes (n, `entries`), and perhaps an offset
        to subtract in each run (n, runs); see ``runs``. For plain floats, it returns the entries.
    encode : callable or None
        The inverse: a function of entries (n, `entries`), `block`, and the amount to add to each
        code before truncating it, which is a half or random. None for kinds that are only read.
    """

    entries: int
    block: Block
    decode: Callable[[Array], Array | Parts]
    encode: Callable[[Array, Block, Array], Array] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Blocks(Quantised):
    """A quantised matrix in GGUF blocks.

    Parameters
    ----------
    kind : str
        A key of `LAYOUTS`: "Q4_0", "Q6_K", "F16", ...
    data : ndarray of shape (d, k // entries)
        A structured array, in which each entry is a block.
    shape : tuple of int
        The shape (d, k) of the matrix; k is a multiple of the entries in a block.

    Raises
    ------
    ValueError
        If kind, data and shape do not fit each other.

    Examples
    --------
    >>> from lora_np.quantise import quantise
    >>> quantise(np.ones((2, 64)), "Q8_0")
    <Q8_0 matrix, 2 x 64, 8.5 bits per entry>
    """

    kind: str
    data: Array
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        layout = LAYOUTS[self.kind]
        expected = (*self.shape[:-1], self.shape[-1] // layout.entries)
        if (
            self.shape[-1] % layout.entries
            or self.data.shape != expected
            or self.data.dtype != layout.block
        ):
            got = f"got {self.data.shape}"
            raise ValueError(
                f"{self.kind} of shape {self.shape} needs blocks of shape {expected}, {got}"
            )

    def rows(self, index: Array | slice) -> Array:
        """Dequantise only the given rows."""
        layout, data = LAYOUTS[self.kind], self.data[index]
        flat = data.reshape(-1)
        W = np.empty((flat.size, layout.entries), np.float32)
        # Decode in pieces to save memory. Suppress warnings, because a damaged file's scales may
        # overflow.
        with overflow_allowed():
            for first in range(0, flat.size, step := max(1, 2**16 // layout.entries)):
                W[first : first + step] = decoded(layout, flat[first : first + step])
        shape = (*data.shape[:-1], data.shape[-1] * layout.entries)
        return W.reshape(shape)

    def expanded(self) -> Blocks | Codes:
        """Return the matrix with a byte per code and float32 scales; plain floats stay as they are.

        This form is larger, but faster.
        """
        layout = LAYOUTS[self.kind]
        if layout.block.names is None:
            return self
        codes = np.empty(self.shape, np.int8)
        scales: list[Array] = []
        for part in self.pieces():
            parts = layout.decode(self.data[part].reshape(-1))
            scale, codes[part], *least = (
                field.reshape(part.stop - part.start, -1) for field in parts
            )
            scales.append(np.stack([scale, *least]))
        return Codes(self.kind, codes, np.concatenate(scales, axis=1))


@dataclass(frozen=True, eq=False, repr=False)
class Codes(Quantised):
    """A matrix of int8 codes with entries ``scale * code - least``; see `Blocks.expanded`.

    Parameters
    ----------
    kind : str
        The kind of the blocks from which the matrix was made.
    codes : ndarray of shape (d, k)
        The codes, int8.
    scales : ndarray of shape (1, d, runs) or (2, d, runs)
        The scale of each run, and perhaps its least value, float32.
    """

    kind: str
    codes: Array
    scales: Array

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.codes.shape

    def rows(self, index: Array | slice) -> Array:
        """Dequantise only the given rows."""
        codes, (scale, *least) = self.codes[index], self.scales[:, index]
        flat = (field.reshape(-1, field.shape[-1]) for field in (scale, codes, *least))
        return runs(*flat).reshape(codes.shape)

    def product(self, x: Array) -> Array:
        """Compute ``x W^T``; for few rows of x, multiply x by the codes first, then by scales."""
        if len(x) > FEW:
            return super().product(x)
        y = np.empty((self.shape[0], len(x)), np.result_type(x, np.float32))
        by_run = np.ascontiguousarray(x.T).reshape(self.scales.shape[2], -1, len(x))
        # Pieces may exceed the cache, because each is read only once, and fewer calls are faster.
        for part in self.pieces(4 * PIECE):
            codes = self.codes[part].astype(x.dtype).reshape(-1, *by_run.shape[:2])
            products = np.matmul(codes.swapaxes(0, 1), by_run)  # (runs, rows of W, rows of x)
            products *= self.scales[0, part].T[..., None]
            np.sum(products, axis=0, out=y[part])
        if len(self.scales) == 2:
            y -= self.scales[1] @ by_run.sum(axis=1)
        return y.T


def encoded(W: Array, kind: str, rng: Rng = None) -> Blocks:
    """Encode a float32 matrix with whole blocks in each row; ``rng`` rounds codes at random."""
    layout = LAYOUTS[kind]
    assert layout.encode is not None, f"{kind} is only read"
    if W.shape[-1] % layout.entries:
        raise ValueError(
            f"{kind} needs rows of whole blocks of {layout.entries}, got rows of {W.shape[-1]}"
        )
    entries = W.reshape(-1, layout.entries)
    data = np.empty(len(entries), layout.block)
    step = max(1, PIECE // layout.entries)
    with overflow_allowed(divide="ignore"):
        for first in range(0, len(entries), step):
            x = entries[first : first + step]
            half = np.full_like(x, 0.5) if rng is None else rng.random(x.shape, np.float32)
            data[first : first + step] = layout.encode(x, layout.block, half)
    floats = [data[name] for name in data.dtype.names or () if data.dtype[name].kind == "f"]
    for array in floats or [decoded(layout, data)]:
        if not np.isfinite(array).all():
            raise ValueError(
                f"W is too large for {kind}: its largest magnitude is {np.abs(W).max():g}"
            )
    return Blocks(kind, data.reshape(*W.shape[:-1], -1), W.shape)


def column(b: Array, name: str = "d") -> Array:
    """Return the float16 field ``name`` of n blocks as float32 of shape (n, 1)."""
    return b[name].astype(np.float32)[:, None]


def fields(q: Array, bits: int, group: int = 1) -> Array:
    """Unpack codes of ``bits`` bits, group by group, and within a group from the lowest bits up."""
    shifts = range(0, 8 * q.itemsize, bits)
    parts = np.empty((len(q), q.shape[1] // group, len(shifts), group), q.dtype)
    q = np.ascontiguousarray(q)  # contiguous, because each shift reads the whole array
    for i, shift in enumerate(shifts):
        part = parts[:, :, i]
        part[:] = (q >> q.dtype.type(shift) & q.dtype.type((1 << bits) - 1)).reshape(part.shape)
    return parts.reshape(len(q), -1)


def decoded(layout: Layout, b: Array) -> Array:
    """Decode blocks (n,) to their entries (n, entries)."""
    parts = layout.decode(b)
    return runs(*parts) if isinstance(parts, tuple) else parts


def runs(scale: Array, q: Array, least: Array | None = None) -> Array:
    """Compute ``scale q - least``; each scale and least value (n, m) applies to a run of codes."""
    length = q.shape[1] // scale.shape[1]
    W = scale[:, :, None] * q.reshape(*scale.shape, length)
    if least is not None:
        W -= least[:, :, None]
    return W.reshape(q.shape)


def over(x: ArrayLike, d: Array) -> Array:
    """Compute ``x / d``, with zeros where d is nearly zero."""
    result = np.zeros(np.broadcast_shapes(np.shape(x), d.shape), np.float32)
    return np.divide(x, d, out=result, where=np.abs(d) > np.float32(1e-38))


def extreme(x: Array) -> Array:
    """Return each row's entry of largest magnitude, with its sign, in the shape (n, 1)."""
    return np.take_along_axis(x, np.abs(x).argmax(axis=1, keepdims=True), axis=1)


def joined(q: Array, bits: int, group: int) -> Array:
    """Pack codes into bytes, the inverse of ``fields``; higher bits of the codes are dropped."""
    parts = (q & ((1 << bits) - 1)).astype(np.uint8).reshape(len(q), -1, 8 // bits, group)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    whole: Array = np.bitwise_or.reduce(parts << shifts, axis=2)
    return whole.reshape(len(q), -1)


def record(dtype: Block, **parts: Array) -> Array:
    """Build n blocks from their fields; ``d``, the blocks' scales, has shape (n, 1)."""
    block = np.empty(len(parts["d"]), dtype)
    for name, values in parts.items():
        block[name] = values.reshape(block[name].shape)
    return block


def encode_whole(x: Array, block: Block, half: Array) -> Array:
    """Encode Q8_0: integers from -127 to 127 times a scale, with halves rounded away from 0."""
    d = np.abs(x).max(axis=1, keepdims=True) / 127
    size = np.abs(y := x * over(1, d))
    q = np.floor(size) + (size - np.floor(size) >= 1 - half)
    q = np.minimum(q, 127)  # the largest quotient may be a little above 127
    return record(block, d=d, q=np.sign(y) * q)


def encode_float(x: Array, block: Block, half: Array) -> Array:
    return x[:, 0].astype(block)


def encode_bf16(x: Array, block: Block, half: Array) -> Array:
    bits = x[:, 0].view(np.uint32)
    # Round to nearest, ties to even.
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(block)


# Codes of four bits, or of five with the fifth bits stored separately. An entry is d q + m, where
# m is the least entry of the block, or d (q - middle), where the largest magnitude has code 0.


def decode_codes(b: Array) -> Parts:
    names = b.dtype.names or ()
    q = fields(b["q"], 4, 16) | (fields(b["fifth"], 1) << 4 if "fifth" in names else 0)
    if "m" in names:
        return column(b), q, -column(b, "m")
    return column(b), q.astype(np.int8) - np.int8(16 if "fifth" in names else 8)


def encode_codes(x: Array, block: Block, half: Array) -> Array:
    names = block.names or ()
    top = 31 if "fifth" in names else 15
    m = x.min(axis=1, keepdims=True)
    if "m" in names:
        d = (x.max(axis=1, keepdims=True) - m) / top
        q = (x - m) * over(1, d)
    else:
        d = extreme(x) / -(top // 2 + 1)
        q = x * over(1, d) + np.float32(top // 2 + 1)
    q = np.clip(np.trunc(q + half), 0, top).astype(np.uint8)
    parts = {"d": d, "m": m, "fifth": joined(q >> 4, 1, 1), "q": joined(q, 4, 16)}
    return record(block, **{name: parts[name] for name in names})


# K-quants: 256 entries in runs of 16 or 32, whose scales are quantised too.


def decode_q3_k(b: Array) -> Parts:
    scales = fields(b["scales"][:, :8], 4, 8) | fields(b["scales"][:, 8:], 2, 4) << 4
    q = fields(b["q"], 2, 32) | fields(b["high"], 1, 32) << 2
    return column(b) * (scales.astype(np.int8) - 32), q.astype(np.int8) - np.int8(4)


def decode_q45_k(b: Array) -> Parts:
    """Decode Q4_K and Q5_K, whose scales and least values of six bits share 12 bytes."""
    first, second, rest = b["scales"][:, :4], b["scales"][:, 4:8], b["scales"][:, 8:]
    scales = np.concatenate([first & 63, rest & 15 | first >> 2 & 48], axis=1)
    least = np.concatenate([second & 63, rest >> 4 | second >> 2 & 48], axis=1)
    q = fields(b["q"], 4, 32) | (
        fields(b["fifth"], 1, 32) << 4 if "fifth" in (b.dtype.names or ()) else 0
    )
    return column(b) * scales, q, column(b, "m") * least


def encode_q45_k(x: Array, block: Block, half: Array) -> Array:
    five = "fifth" in (block.names or ())
    top, first, count = (31, -0.5, 16) if five else (15, -1, 21)
    tries = np.arange(count, dtype=np.float32) * np.float32(0.1) + np.float32(first + top)
    lines = (part.reshape(-1, 8) for part in fit_line(x.reshape(-1, 32), top, tries))
    (d, scales, steps), (m, least, bottoms) = map(six_bits, lines)
    y = over(x.reshape(-1, 8, 32) + bottoms, steps).reshape(x.shape)
    q = np.clip(np.floor(y + half), 0, top).astype(np.uint8)
    (s, s4), (l, l4) = ((part[:, :4], part[:, 4:]) for part in (scales, least))
    both = np.concatenate([s | s4 >> 4 << 6, l | l4 >> 4 << 6, s4 & 15 | l4 << 4], axis=1)
    fifth = {"fifth": joined(q >> 4, 1, 32)} if five else {}
    return record(block, d=d, m=m, scales=both, q=joined(q, 4, 32), **fifth)


def six_bits(a: Array) -> tuple[Array, Array, Array]:
    """Quantise scales to six bits; return each block's unit, the codes, and unit times code."""
    most = a.max(axis=1, keepdims=True)
    codes = np.rint(over(63, most) * a)
    unit = (most / 63).astype(np.float16)
    return unit, codes.astype(np.uint8), (unit.astype(np.float32) * codes)[:, :, None]


def fit_line(x: Array, top: int, tries: Array) -> tuple[Array, Array]:
    """Fit ``scale q - least`` to each row, by weighted least squares for each of several grids.

    As in ggml's make_qkx2_quants, each grid starts at the best least value found so far.
    """
    weight = np.sqrt(np.mean(x * x, axis=1, keepdims=True)) + np.abs(x)
    total = partial(np.sum, axis=1, keepdims=True)
    high, low = x.max(axis=1, keepdims=True), np.minimum(x.min(axis=1, keepdims=True), 0)
    scale = (high - low) / top
    q = np.clip(np.rint(over(top, high - low) * (x - low)), 0, top)
    best = total(weight * np.square(scale * q + low - x))
    w, y = total(weight), total(weight * x)
    for step in tries:
        q = np.clip(np.rint(over(step, high - low) * (x - low)), 0, top)
        a, b, c = total(weight * q), total(weight * q * q), total(weight * q * x)
        D = w * b - a * a
        m = (b * y - a * c) / D
        s = np.where(m > 0, c / b, (w * c - y * a) / D)
        m = np.minimum(m, 0)
        error = total(weight * np.square(s * q + m - x))
        better = (D > 0) & (error < best)
        best, scale = np.where(better, error, best), np.where(better, s, scale)
        low = np.where(better, m, low)
    return scale, -low


def decode_q6_k(b: Array) -> Parts:
    q = fields(b["low"], 4, 64) | fields(b["high"], 2, 32) << 4
    return column(b) * b["scales"], q.astype(np.int8) - np.int8(32)


def encode_q6_k(x: Array, block: Block, half: Array) -> Array:
    scale = fit_scale(x.reshape(-1, 16)).reshape(-1, 16)
    inverse = over(-128, extreme(scale))
    scales = np.minimum(np.rint(inverse * scale), 127)
    d = over(1, inverse).astype(np.float16)
    y = over(x.reshape(-1, 16, 16), (d.astype(np.float32) * scales)[:, :, None]).reshape(x.shape)
    q = (np.clip(np.floor(y + half), -32, 31) + 32).astype(np.uint8)
    return record(block, d=d, scales=scales, low=joined(q, 4, 64), high=joined(q >> 4, 2, 32))


def fit_scale(x: Array) -> Array:
    """Fit ``scale q`` to each row for q from -32 to 31, with weights x^2, as in make_qx_quants."""
    total = partial(np.sum, axis=1, keepdims=True)
    _, exponent = np.frexp(extreme(x))
    x = np.ldexp(x, -exponent)  # scaled, so that b, c and c^2 neither overflow nor underflow
    largest = extreme(x)
    scale = best = np.zeros_like(largest)
    for i in (0, *range(-9, 0), *range(1, 10)):
        q = np.clip(np.rint(over(np.float32(-32 - 0.1 * i), largest) * x), -32, 31)
        b, c = total(x * x * q * q), total(x * x * x * q)
        better = (b > 0) & (c * c > best * b)
        scale, best = np.where(better, c / b, scale), np.where(better, c * c / b, best)
    return np.ldexp(scale, exponent)


# Codes that stand for levels: twice the values of a four-bit float, or levels fitted to weights.

E2M1 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.int8)
FITTED = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8
)


def two_to(e: Array) -> Array:
    return np.ldexp(np.float32(1), e.astype(np.int32) - 128)


def encode_mxfp4(x: Array, block: Block, half: Array) -> Array:
    top = np.abs(x).max(axis=1, keepdims=True)
    e = np.floor(np.log2(top, out=np.full_like(top, -np.inf), where=top > 0)) + 125
    d = np.clip(e, 0, 255).astype(np.uint8)
    errors = np.abs((two_to(d) * E2M1)[:, None] - x[:, :, None])
    return record(block, d=d, q=joined(errors.argmin(axis=2), 4, 16))


def decode_iq4_xs(b: Array) -> Parts:
    scales = fields(b["low"], 4) | fields(b["high"], 2).astype(np.uint8) << 4
    return column(b) * (scales.astype(np.int8) - 32), FITTED[fields(b["q"], 4, 16)]


def kind(
    entries: int,
    places: str,
    decode: Callable[[Array], Parts],
    encode: Callable[[Array, Block, Array], Array] | None = None,
) -> Layout:
    """Return the layout of a kind; ``places`` has the names and dtypes of a block's fields."""
    forms = [(name, form) for name, form in (place.split() for place in places.split(", "))]
    return Layout(entries, np.dtype(forms), decode, encode)


LAYOUTS = {
    "F32": Layout(1, np.dtype("<f4"), lambda b: b[:, None], encode_float),
    "F16": Layout(1, np.dtype("<f2"), lambda b: b[:, None], encode_float),
    "BF16": Layout(
        1,
        np.dtype("<u2"),
        lambda b: (b.astype("<u4") << 16).view("<f4")[:, None],
        encode_bf16,
    ),
    "Q4_0": kind(32, "d <f2, q 16u1", decode_codes, encode_codes),
    "Q4_1": kind(32, "d <f2, m <f2, q 16u1", decode_codes, encode_codes),
    "Q5_0": kind(32, "d <f2, fifth 4u1, q 16u1", decode_codes, encode_codes),
    "Q5_1": kind(32, "d <f2, m <f2, fifth 4u1, q 16u1", decode_codes, encode_codes),
    "Q8_0": kind(32, "d <f2, q 32i1", lambda b: (column(b), b["q"]), encode_whole),
    "Q2_K": kind(
        256,
        "scales 16u1, q 64u1, d <f2, m <f2",
        lambda b: (
            column(b) * (b["scales"] & 15),
            fields(b["q"], 2, 32),
            column(b, "m") * (b["scales"] >> 4),
        ),
    ),
    "Q3_K": kind(256, "high 32u1, q 64u1, scales 12u1, d <f2", decode_q3_k),
    "Q4_K": kind(256, "d <f2, m <f2, scales 12u1, q 128u1", decode_q45_k, encode_q45_k),
    "Q5_K": kind(256, "d <f2, m <f2, scales 12u1, fifth 32u1, q 128u1", decode_q45_k, encode_q45_k),
    "Q6_K": kind(256, "low 128u1, high 64u1, scales 16i1, d <f2", decode_q6_k, encode_q6_k),
    "MXFP4": kind(
        32,
        "d (1,)u1, q 16u1",
        lambda b: (two_to(b["d"]), E2M1[fields(b["q"], 4, 16)]),
        encode_mxfp4,
    ),
    "IQ4_NL": kind(32, "d <f2, q 16u1", lambda b: (column(b), FITTED[fields(b["q"], 4, 16)])),
    "IQ4_XS": kind(256, "d <f2, high (1,)<u2, low 4u1, q 128u1", decode_iq4_xs),
}
