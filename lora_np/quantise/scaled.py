"""Quantise by absmax: each block is scaled by its largest magnitude, to levels from -1 to 1.

``W[i] = scale[block of i] * level[code[i]]``. With a block for each row and 255 even levels, this
is int8. With blocks of 64 along the flattened matrix, and levels at quantiles of the normal
distribution, it is nf4.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from lora_np.checks import (
    Array,
    ArrayLike,
    Rng,
    choice,
    matrix,
    overflow_allowed,
    real,
    whole_number,
)
from lora_np.quantise.gguf_blocks import LAYOUTS, encoded
from lora_np.quantise.weight import Quantised

_SCALES_BLOCK = 256  # the number of scales that share a scale in double quantisation


@dataclass(frozen=True, eq=False, repr=False)
class Int8(Quantised):
    """A matrix ``codes * scales / 127`` with one scale per row, as in bitsandbytes' int8.

    Parameters
    ----------
    codes : ndarray of shape (d, k)
        Integers from -127 to 127, int8.
    scales : ndarray of shape (d,)
        The largest magnitude of each row, float32 (bitsandbytes' ``SCB``).

    Examples
    --------
    >>> Int8(np.array([[127, 64]], np.int8), np.array([0.5], np.float32)).dequantised()
    array([[0.5      , 0.2519685]], dtype=float32)
    """

    codes: Array  # (d, k)
    scales: Array  # (d,)

    kind = "int8"

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.codes.shape

    def rows(self, index: Array | slice) -> Array:
        """Dequantise only the given rows: ``codes * scales / 127``."""
        # Multiply in bitsandbytes' order, by scale and then by 1 / 127, so that rounding agrees.
        return self.codes[index] * self.scales[index][..., None] * np.float32(1 / 127)


@dataclass(frozen=True, eq=False)
class BlockScales:
    """Scales that are themselves quantised to 8 bits in blocks of 256 (double quantisation).

    ``scale = levels[code] * scale of scales + offset``, where the offset is the mean of the scales.
    It saves 0.373 bits per entry for blocks of 64.

    Parameters
    ----------
    codes : ndarray of shape (n,)
        Indices into `levels`, uint8.
    scales : ndarray of shape (ceil(n / 256),)
        The largest magnitude in each block, float32.
    offset : float
        The mean, which is added to all scales.
    levels : ndarray of shape (256,)
        The levels, which are ``dynamic_levels`` unless a file has others.
    block : int
        The number of scales that share a scale.

    Examples
    --------
    >>> from lora_np.quantise import quantise
    >>> W = np.random.default_rng(0).normal(size=(256, 256))
    >>> for double in (False, True):
    ...     print(f"{quantise(W, 'nf4', double=double).bits:.3f} bits per entry")
    4.500 bits per entry
    4.127 bits per entry
    """

    codes: Array  # (n,)
    scales: Array  # (ceil(n / 256),)
    offset: np.float32
    levels: Array
    block: int = _SCALES_BLOCK

    @property
    def nbytes(self) -> int:
        return int(self.codes.nbytes + self.scales.nbytes + 4)

    def dequantised(self) -> Array:
        """Return the scales (n,) in float32."""
        repeated = np.repeat(self.scales, self.block)[: len(self.codes)]
        values: Array = self.levels[self.codes] * repeated + self.offset
        return values


@dataclass(frozen=True, eq=False, repr=False)
class FourBit(Quantised):
    """A 4-bit matrix (nf4 or uniform): two codes per byte, one scale per block of the flat matrix.

    Parameters
    ----------
    kind : {"nf4", "int4"}
        The kind of levels.
    packed : ndarray of shape (ceil(d k / 2),)
        Two codes per byte, uint8, with the first code in the upper half.
    scales : ndarray of shape (ceil(d k / block),) or BlockScales
        The largest magnitude in each block.
    shape : tuple of int
        The shape (d, k) of the matrix.
    block : int
        The number of entries that share a scale; the last block may be shorter.

    Examples
    --------
    >>> Q = FourBit("nf4", np.array([0xF7], np.uint8), np.array([2.0], np.float32), (1, 2))
    >>> Q.dequantised()
    array([[2., 0.]], dtype=float32)
    """

    kind: str
    packed: Array
    scales: Array | BlockScales
    shape: tuple[int, ...]
    block: int = 64

    def rows(self, index: Array | slice) -> Array:
        """Dequantise only the given rows: ``level[code] * scale``."""
        k, levels = self.shape[-1], FOUR_BIT_LEVELS[self.kind]()
        scales = self.scales.dequantised() if isinstance(self.scales, BlockScales) else self.scales
        # Blocks may cross rows, so decode consecutive rows from the start of their first block.
        if isinstance(index, slice) and index.step in (None, 1):
            top, bottom, _ = index.indices(self.size // k)
            first, last = top * k // self.block * self.block, max(top, bottom) * k
            codes = unpacked(self.packed[first // 2 : (last + 1) // 2])[first % 2 :]
            values: Array = levels[codes[: last - first]]
            scale_blocks(values, scales[first // self.block : -(-last // self.block)], self.block)
            return values[top * k - first :].reshape(-1, k)
        flat = np.arange(self.size // k)[index][..., None] * k + np.arange(k)
        byte = self.packed[flat // 2]
        values = levels[np.where(flat % 2, byte & 15, byte >> 4)]
        values *= scales[flat // self.block]
        return values


# The probability of the outermost level is half a step below 1, averaged over 15 and 16 levels:
# 1 - (1/30 + 1/32) / 2, with as many digits as in bitsandbytes.
_NF4_END = 0.9677083


def normal_quantile(p: ArrayLike) -> Array:
    """Return the quantiles of the standard normal distribution at probabilities p.

    Parameters
    ----------
    p : array_like
        Probabilities, above 0 and below 1.

    Returns
    -------
    ndarray
        The quantiles in float64, in the shape of p.

    Raises
    ------
    ValueError
        If a probability is not between 0 and 1.

    See Also
    --------
    nf4_levels : Use 16 of these quantiles, scaled to [-1, 1].

    Examples
    --------
    >>> normal_quantile([0.025, 0.5, 0.975]).round(3)
    array([-1.96,  0.  ,  1.96])
    """
    from statistics import NormalDist  # slow to import

    p = real("p", p).astype(np.float64, copy=False)
    if not ((p > 0) & (p < 1)).all():
        raise ValueError(f"p must lie between 0 and 1, got {p[~((p > 0) & (p < 1))].flat[0]}")
    return np.asarray(np.vectorize(NormalDist().inv_cdf, otypes=[np.float64])(p))


def uniform_levels(bits: int = 4) -> Array:
    """Return the evenly spaced levels ``-1, ..., 0, 1/m, ..., 1`` for ``m = 2**(bits - 1) - 1``.

    Parameters
    ----------
    bits : int
        A number of bits from 2 to 8. One of the ``2**bits`` codes is not used, so that zero is a
        level.

    Returns
    -------
    ndarray of shape (2**bits - 1,)
        The levels in float32, ascending.

    See Also
    --------
    nf4_levels : Levels that are denser where most weights are.

    Examples
    --------
    >>> uniform_levels(3) * 3
    array([-3., -2., -1.,  0.,  1.,  2.,  3.], dtype=float32)
    """
    most = 2 ** (whole_number("bits", bits, minimum=2, maximum=8) - 1) - 1
    return np.arange(-most, most + 1, dtype=np.float32) / np.float32(most)


@cache
def nf4_levels() -> Array:
    """Return the 16 levels of NormalFloat: normal quantiles, scaled to [-1, 1].

    Weights are nearly normally distributed. For each level to be used equally often, levels must be
    quantiles with equal probability between them. Zero should be a level too, so the two sides are
    computed separately: eight steps above zero, seven below.

    Returns
    -------
    ndarray of shape (16,)
        The levels in float32, ascending and read-only; every bit agrees with bitsandbytes' table.

    See Also
    --------
    normal_quantile : Compute the quantiles.
    uniform_levels : Evenly spaced levels, for comparison.

    References
    ----------
    T. Dettmers, A. Pagnoni, A. Holtzman, L. Zettlemoyer, "QLoRA: efficient finetuning of quantized
    LLMs", 2023, arXiv 2305.14314, section 3.

    Examples
    --------
    >>> nf4_levels()[:8].round(4)
    array([-1.    , -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911,
            0.    ], dtype=float32)
    """
    above = normal_quantile(_spaced(_NF4_END, 0.5, 9)[:-1])
    below = -normal_quantile(_spaced(_NF4_END, 0.5, 8)[:-1])
    levels = np.sort(np.concatenate([below, [0.0], above])).astype(np.float32)
    return _constant(levels / levels[-1])


@cache
def dynamic_levels() -> Array:
    """Return 256 levels for quantising scales, with more levels in higher decades.

    Small values have low precision but a wide range: there are ``2**i`` evenly spaced levels
    between ``10**(i - 7)`` and ``10**(i - 6)``, for i from 0 to 6, their negatives, 0, and 1.

    Returns
    -------
    ndarray of shape (256,)
        The levels in float32, ascending and read-only; every bit agrees with bitsandbytes'
        ``create_dynamic_map``.

    See Also
    --------
    nf4_levels : Levels for weights.

    References
    ----------
    T. Dettmers, "8-bit approximations for parallelism in deep learning", 2015, arXiv 1511.04561.

    Examples
    --------
    >>> levels = dynamic_levels()
    >>> len(levels), int((levels > 0.1).sum()), float(levels[-1])
    (256, 65, 1.0)
    """
    positive = []
    for i in range(7):
        edges = _spaced(0.1, 1.0, 2**i + 1)
        positive.append((edges[:-1] + edges[1:]) / 2 * np.float32(10.0 ** (i - 6)))
    half = np.concatenate(positive)
    return _constant(
        np.sort(np.concatenate([-half, np.zeros(1, np.float32), half, np.ones(1, np.float32)]))
    )


def _spaced(low: float, high: float, number: int) -> Array:
    """Compute ``np.linspace`` in float32 as torch does: from both ends, rounding only once."""
    first, last = np.float64(np.float32(low)), np.float64(np.float32(high))
    step = np.float64(np.float32(last - first) / np.float32(number - 1))
    i = np.arange(number)
    return np.where(i < number // 2, first + step * i, last - step * (number - 1 - i)).astype(
        np.float32
    )


def _constant(array: Array) -> Array:
    array.setflags(write=False)
    return array


FOUR_BIT_LEVELS = {"nf4": nf4_levels, "int4": cache(uniform_levels)}


def int8(W: Array) -> Int8:
    scales = np.abs(W).max(axis=1)
    most = float(np.finfo(np.float32).max)  # neither 127 / scale nor 127 * scale may overflow
    for size in scales[(scales > most / 127) | ((scales > 0) & (scales <= 127 / most))][:1]:
        wrong = "large" if size > 1 else "small"
        raise ValueError(f"a row of W is too {wrong} for int8: its largest magnitude is {size:g}")
    # A row of zeros has a scale of zero and codes of zero.
    factor = np.divide(np.float32(127), scales, out=np.zeros_like(scales), where=scales > 0)
    return Int8(np.rint(W * factor[:, None]).astype(np.int8), scales)


def four_bit(W: Array, kind: str, *, block: int, double: bool) -> FourBit:
    levels = FOUR_BIT_LEVELS[kind]()
    values, scales = normalised(W.reshape(-1), block, kind)
    even = np.pad(values, (0, W.size % 2))  # pad an odd size with a zero, as in bitsandbytes

    # Comparing with the midpoints between levels finds the nearest level.
    codes = np.searchsorted((levels[:-1] + levels[1:]) / 2, even).astype(np.uint8)
    packed = codes[::2] << 4 | codes[1::2]
    return FourBit(kind, packed, double_quantised(scales) if double else scales, W.shape, block)


def double_quantised(scales: Array) -> BlockScales:
    """Quantise scales (n,) to 8 bits, after subtracting their mean."""
    with np.errstate(over="ignore"):
        offset = mean_as_torch(scales)
    if not np.isfinite(offset):
        raise ValueError(f"W is too large for double=True: its largest scale is {scales.max():g}")
    levels = dynamic_levels()
    rest = scales - offset
    tops = np.maximum.reduceat(np.abs(rest), np.arange(0, len(rest), _SCALES_BLOCK))
    wide = np.repeat(tops, _SCALES_BLOCK)[: len(rest)]
    with overflow_allowed():  # the reciprocal of a denormal number may overflow
        values = rest * np.divide(np.float32(1), wide, out=np.zeros_like(wide), where=wide > 0)
    values = np.nan_to_num(np.clip(values, -1, 1), nan=-1)
    # bitsandbytes first rounds to a grid of 65,536 points, then looks up the nearest level.
    point = ((values + 1) * np.float32(0.5) * np.float32(65535) + np.float32(0.5)).astype(np.int64)
    codes = _nearest_on_grid()[point]
    codes[wide == 0] = 0
    return BlockScales(codes, tops, offset, levels)


def mean_as_torch(x: Array) -> np.float32:
    """Compute a float32 mean in torch's order of addition, which affects the last digit.

    Torch adds four vectors of eight numbers at a time: 16 of these, then 16 such sums, and so on.
    It adds the remaining vectors to the first one, and the remaining numbers one by one. (From
    32,768 numbers on, torch's order depends on the number of threads; this is the order for one.)
    """
    width = 8 if x.size >= 8 else 1
    rows = x[: x.size // width * width].reshape(-1, width)
    single = len(rows) // 4 * 4
    sums, total = rows[:single].reshape(-1, 4 * width), np.zeros(4 * width, np.float32)
    for _ in range(3):
        whole = len(sums) // 16 * 16
        total += sums[whole:].sum(axis=0)
        sums = sums[:whole].reshape(-1, 16, 4 * width).sum(axis=1)
    four = (total + sums.sum(axis=0)).reshape(4, width)
    one = np.concatenate([four[:1], rows[single:], four[1:]]).sum(axis=0)
    return np.float32(np.cumsum(np.concatenate([x[rows.size :], one]))[-1] / np.float32(x.size))


@cache
def _nearest_on_grid() -> Array:
    levels = dynamic_levels()
    grid = np.arange(65536, dtype=np.float32) / np.float32(65535) * 2 - 1
    return np.searchsorted((levels[:-1] + levels[1:]) / 2, grid).astype(np.uint8)


def normalised(flat: Array, block: int, kind: str) -> tuple[Array, Array]:
    """Divide each block's entries by its largest magnitude; return quotients and magnitudes."""
    tops = np.maximum.reduceat(np.abs(flat), np.arange(0, flat.size, block))
    least = np.float32(1e-38)  # bitsandbytes' smallest divisor; blocks of zeros stay zero
    for size in tops[(tops > 0) & (tops < least)][:1]:
        raise ValueError(f"a block of W is too small for {kind}: its largest magnitude is {size:g}")
    values = flat.copy()
    whole = flat.size - flat.size % block
    inverse = np.float32(1) / np.maximum(tops, least)
    scale_blocks(values[:whole], inverse[: whole // block], block)
    if whole < flat.size:  # as in bitsandbytes, divide a shorter last block by its magnitude
        tops[-1:] = np.maximum(tops[-1:], least)
        values[whole:] = flat[whole:] / tops[-1]
    return np.clip(values, -1, 1, out=values), tops


def scale_blocks(values: Array, scales: Array, block: int) -> None:
    """Multiply ``values`` in place by their blocks' scales; the last block may be shorter."""
    whole = values.size - values.size % block
    blocks = values[:whole].reshape(-1, block)
    blocks *= scales[: whole // block, None]
    if whole < values.size:
        values[whole:] *= scales[whole // block]


def unpacked(packed: Array) -> Array:
    codes = np.empty(2 * packed.size, np.uint8)
    np.right_shift(packed, 4, out=codes[::2])
    np.bitwise_and(packed, 15, out=codes[1::2])
    return codes


KINDS = (
    "int8",
    "int4",
    "nf4",
    *(kind for kind in LAYOUTS if LAYOUTS[kind].encode and kind != "F32"),
)


@np.errstate(under="ignore")
def quantise(
    W: ArrayLike, kind: str, *, block: int = 64, double: bool = False, rng: Rng = None
) -> Quantised:
    """Quantise W to the codes and scales of one of the `KINDS`, or round it to floats of 16 bits.

    Parameters
    ----------
    W : array_like of shape (d, k)
        The matrix, which is converted to float32.
    kind : str
        One of `KINDS`:

        - "int8": 255 even levels, one scale per row (as in bitsandbytes);
        - "int4": 15 even levels, blocks of the flattened matrix;
        - "nf4": 16 levels at quantiles of the normal distribution, the same blocks (as in
          bitsandbytes);
        - "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0": blocks of 32 in each row (as in GGUF), with a
          scale, or a scale and a least value;
        - "Q4_K", "Q5_K", "Q6_K": blocks of 256 (as in GGUF), in runs of 32 or 16 whose scales are
          quantised too;
        - "MXFP4": blocks of 32, with floats of four bits and a power of two (as in GGUF);
        - "F16", "BF16": rounded, without scales.
    block : int
        For int4 and nf4, the number of entries that share a scale.
    double : bool
        For int4 and nf4, whether to quantise the scales too.
    rng : Generator, optional
        For the kinds that begin with Q, round codes up or down at random, so that the expected
        value is exact: an update much smaller than a step is then kept, with noise.

    Returns
    -------
    Quantised
        The matrix, with ``dequantised()``, ``error(W)``, ``nbytes`` and ``bits``.

    Raises
    ------
    ValueError
        If W is not a finite matrix, is too large for float32 or for the scales, has rows too small
        for int8 or blocks too small for int4 and nf4, or its rows are not whole blocks; or the kind
        is unknown, or an option does not apply to it.
    TypeError
        If the entries of W are not real numbers.

    Notes
    -----
    With even levels, the error of an entry is at most half a step: ``scale / 254`` for int8,
    ``scale / 14`` for int4. Smaller blocks have smaller scales, but cost more bits: 32 / 64 = 0.5
    per entry for blocks of 64, or 0.127 with double quantisation.

    References
    ----------
    T. Dettmers, M. Lewis, Y. Belkada, L. Zettlemoyer, "LLM.int8()", 2022, arXiv 2208.07339.
    T. Dettmers, A. Pagnoni, A. Holtzman, L. Zettlemoyer, "QLoRA", 2023, arXiv 2305.14314.

    Examples
    --------
    >>> W = np.random.default_rng(0).normal(size=(64, 64))
    >>> for kind in ("int8", "nf4", "int4"):
    ...     Q = quantise(W, kind)
    ...     print(f"{kind}: {Q.bits:.1f} bits, relative error {Q.error(W, relative=True):.3f}")
    int8: 8.5 bits, relative error 0.006
    nf4: 4.5 bits, relative error 0.092
    int4: 4.5 bits, relative error 0.106
    """
    choice("kind", kind, KINDS)
    W = matrix("W", W)
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(W, np.float32)
    if not np.isfinite(single).all():
        raise ValueError(f"W must fit float32, got {W[~np.isfinite(single)][0]:g}")
    if kind in FOUR_BIT_LEVELS:
        return four_bit(single, kind, block=whole_number("block", block, minimum=2), double=double)
    if block != 64 or double:
        raise ValueError(
            f"block and double are for {' and '.join(FOUR_BIT_LEVELS)}, not for {kind}"
        )
    if rng is not None and not kind.startswith("Q"):
        raise ValueError(f"rng is for the kinds of GGUF that begin with Q, not for {kind}")
    return int8(single) if kind == "int8" else encoded(single, kind, rng)
