"""The blocks of GGUF: a row of a matrix is cut into blocks of 32 or 256, each with scales and codes.

A NumPy structured dtype is the layout of a block; its decoder is the equation of its numbers. All arithmetic
is in float32, in the order of ggml's reference, so that the numbers are the same to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_np.checks import Array
from lora_np.quantise.weight import Quantised


@dataclass(frozen=True)
class Layout:
    """How one kind of block is laid out, read, and (where it can be) made.

    Attributes
    ----------
    numbers : int
        Numbers in a block.
    block : dtype
        The bytes of a block.
    decode : callable
        From blocks (n,) to float32 numbers (n, `numbers`).
    encode : callable or None
        The inverse. None for kinds that are read only.
    """

    numbers: int
    block: np.dtype[Any]
    decode: Callable[[Array], Array]
    encode: Callable[[Array], Array] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Blocks(Quantised):
    """A matrix in blocks of GGUF.

    Parameters
    ----------
    kind : str
        A key of `LAYOUTS`: "Q4_0", "Q6_K", "F16", ...
    data : ndarray of shape (d, k // numbers)
        Structured; each entry is a block.
    shape : tuple of int
        (d, k); k is a multiple of the numbers in a block.

    Raises
    ------
    ValueError
        If kind, data and shape do not fit each other.

    Examples
    --------
    >>> from lora_np.quantise import quantise
    >>> quantise(np.ones((2, 64)), "Q8_0")
    <Q8_0 matrix, 2 x 64, 8.5 bits a number>
    """

    kind: str
    data: Array
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        layout = LAYOUTS[self.kind]
        expected = (*self.shape[:-1], self.shape[-1] // layout.numbers)
        if self.shape[-1] % layout.numbers or self.data.shape != expected or self.data.dtype != layout.block:
            raise ValueError(
                f"{self.kind} of shape {self.shape} needs blocks of shape {expected}, got {self.data.shape}"
            )

    @property
    def nbytes(self) -> int:
        return int(self.data.nbytes)

    def dequantised(self) -> Array:
        """The numbers of all blocks, float32 of shape (d, k)."""
        return self._decoded(self.data)

    def rows(self, index: Any) -> Array:
        """Some rows of `dequantised`."""
        return self._decoded(self.data[index])

    def _decoded(self, data: Array) -> Array:
        layout = LAYOUTS[self.kind]
        flat = data.reshape(-1)
        numbers = np.empty((flat.size, layout.numbers), np.float32)
        # by pieces, so that codes and scales on their way to numbers stay small
        with np.errstate(over="ignore", invalid="ignore"):  # a damaged file's scales may be anything
            for start in range(0, flat.size, step := max(1, 2**16 // layout.numbers)):
                numbers[start : start + step] = layout.decode(flat[start : start + step])
        shape = (*data.shape[:-1], data.shape[-1] * layout.numbers)
        return numbers.reshape(shape)


def encoded(W: Array, kind: str) -> Blocks:
    """W in blocks of this kind; float32, of which rows are whole blocks."""
    layout = LAYOUTS[kind]
    if layout.encode is None:
        raise ValueError(f"{kind} can be read, not made")
    if W.shape[-1] % layout.numbers:
        raise ValueError(
            f"{kind} needs rows of whole blocks of {layout.numbers} numbers, got rows of {W.shape[-1]}"
        )
    with np.errstate(over="ignore"):
        data = layout.encode(W.reshape(-1, layout.numbers))
    floats = [data[name] for name in data.dtype.names or () if data.dtype[name].kind == "f"]
    for held in floats or [layout.decode(data)]:
        if not np.isfinite(held).all():
            raise ValueError(f"W is too large for {kind}: its largest magnitude is {np.abs(W).max():g}")
    return Blocks(kind, data.reshape(*W.shape[:-1], -1), W.shape)


def column(block: Array, name: str) -> Array:
    """A float16 of each block, as float32 (n, 1)."""
    return block[name].astype(np.float32)[:, np.newaxis]


def nibbles(q: Array) -> Array:
    """Lower halves of the bytes (n, m), then upper halves: (n, 2 m)."""
    return np.concatenate([q & 15, q >> 4], axis=-1)


def halves(q: Array) -> Array:
    """The inverse of `nibbles`."""
    low, high = np.split(q & 15, 2, axis=-1)
    packed: Array = low | high << 4
    return packed


def codes(block: Array) -> Array:
    """Codes of four bits, and of five where a block has a place for the fifth: float32 (n, 32)."""
    q = nibbles(block["q"])
    if "fifth" in (block.dtype.names or ()):
        q |= np.unpackbits(block["fifth"], axis=-1, bitorder="little") << 4
    return q.astype(np.float32)


def record(dtype: np.dtype[Any], q: Array, **scales: Array) -> Array:
    """Blocks of codes, the inverse of `codes` unless a code takes a byte, and of scales (n, 1)."""
    block = np.empty(len(q), dtype)
    block["q"] = q if dtype == Q8_0 else halves(q)
    if "fifth" in (dtype.names or ()):
        block["fifth"] = np.packbits(q >> 4, axis=-1, bitorder="little")
    for name, values in scales.items():
        block[name] = values[:, 0]
    return block


def inverse(d: Array) -> Array:
    return np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)


Q4_0 = np.dtype([("d", "<f2"), ("q", "u1", 16)])
Q4_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("q", "u1", 16)])
Q5_0 = np.dtype([("d", "<f2"), ("fifth", "u1", 4), ("q", "u1", 16)])
Q5_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("fifth", "u1", 4), ("q", "u1", 16)])
Q8_0 = np.dtype([("d", "<f2"), ("q", "i1", 32)])
Q4_K = np.dtype([("d", "<f2"), ("dm", "<f2"), ("scales", "u1", 12), ("q", "u1", (4, 32))])
Q6_K = np.dtype([("low", "u1", (2, 64)), ("high", "u1", (2, 32)), ("scales", "i1", 16), ("d", "<f2")])


# d (q - middle): the number of largest magnitude, with its sign, gets code 0.


def decode_symmetric(b: Array, middle: int) -> Array:
    numbers: Array = column(b, "d") * (codes(b) - middle)
    return numbers


def encode_symmetric(x: Array, middle: int, dtype: np.dtype[Any]) -> Array:
    top = np.take_along_axis(x, np.abs(x).argmax(axis=1, keepdims=True), axis=1)
    d = top / -middle
    with np.errstate(invalid="ignore"):
        q = np.trunc(x * inverse(d) + np.float32(middle + 0.5))
    return record(dtype, np.clip(q, 0, 2 * middle - 1).astype(np.uint8), d=d)


# d q + m: from the least number of a block to its largest.


def decode_affine(b: Array) -> Array:
    return column(b, "d") * codes(b) + column(b, "m")


def encode_affine(x: Array, most: int, dtype: np.dtype[Any]) -> Array:
    m = x.min(axis=1, keepdims=True)
    d = (x.max(axis=1, keepdims=True) - m) / most
    q = np.trunc((x - m) * inverse(d) + np.float32(0.5))
    return record(dtype, np.clip(q, 0, most).astype(np.uint8), d=d, m=m)


def decode_q8_0(b: Array) -> Array:
    return column(b, "d") * b["q"].astype(np.float32)


def decode_q4_k(b: Array) -> Array:
    """Eight runs of 32 numbers, ``(d s) q - (dm t)``; the s and t have six bits each, in 12 bytes."""
    first, second, rest = b["scales"][:, :4], b["scales"][:, 4:8], b["scales"][:, 8:]
    s = np.concatenate([first & 63, rest & 15 | first >> 2 & 48], axis=1).astype(np.float32)
    t = np.concatenate([second & 63, rest >> 4 | second >> 2 & 48], axis=1).astype(np.float32)
    q = np.stack([b["q"] & 15, b["q"] >> 4], axis=2).reshape(-1, 8, 32).astype(np.float32)
    numbers = (column(b, "d") * s)[:, :, np.newaxis] * q - (column(b, "dm") * t)[:, :, np.newaxis]
    return numbers.reshape(-1, 256)


def decode_q6_k(b: Array) -> Array:
    """Sixteen runs of 16 numbers, ``(d s) (q - 32)``; q has four bits in one place and two in another."""
    low = np.stack([b["low"] & 15, b["low"] >> 4], axis=2).reshape(-1, 256)
    high = np.stack([b["high"] >> shift & 3 for shift in (0, 2, 4, 6)], axis=2).reshape(-1, 256)
    q = (low | high << 4).astype(np.float32) - 32
    scale = column(b, "d") * b["scales"].astype(np.float32)
    numbers: Array = scale[:, :, np.newaxis] * q.reshape(-1, 16, 16)
    return numbers.reshape(-1, 256)


def encode_q8_0(x: Array) -> Array:
    d = np.abs(x).max(axis=1, keepdims=True) / 127
    y = x * inverse(d)
    q = np.sign(y) * np.floor(np.abs(y) + np.float32(0.5))  # halves away from zero
    return record(Q8_0, q, d=d)


def decode_bf16(b: Array) -> Array:
    return (b.astype(np.uint32) << 16).view(np.float32)[:, np.newaxis]


def encode_bf16(x: Array) -> Array:
    bits = x[:, 0].view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")  # to nearest, ties to even


LAYOUTS = {
    "F32": Layout(1, np.dtype("<f4"), lambda b: b[:, np.newaxis], lambda x: x[:, 0].astype("<f4")),
    "F16": Layout(1, np.dtype("<f2"), lambda b: b[:, np.newaxis], lambda x: x[:, 0].astype("<f2")),
    "BF16": Layout(1, np.dtype("<u2"), decode_bf16, encode_bf16),
    "Q4_0": Layout(32, Q4_0, lambda b: decode_symmetric(b, 8), lambda x: encode_symmetric(x, 8, Q4_0)),
    "Q4_1": Layout(32, Q4_1, decode_affine, lambda x: encode_affine(x, 15, Q4_1)),
    "Q5_0": Layout(32, Q5_0, lambda b: decode_symmetric(b, 16), lambda x: encode_symmetric(x, 16, Q5_0)),
    "Q5_1": Layout(32, Q5_1, decode_affine, lambda x: encode_affine(x, 31, Q5_1)),
    "Q8_0": Layout(32, Q8_0, decode_q8_0, encode_q8_0),
    "Q4_K": Layout(256, Q4_K, decode_q4_k),
    "Q6_K": Layout(256, Q6_K, decode_q6_k),
}
