"""Name the dtypes of numbers in files, and convert between these dtypes and NumPy's."""

from __future__ import annotations

from lora_np.checks import Array, Rng, float_name, real
from lora_np.lazy import numpy as np

# The name of each dtype in safetensors, and the NumPy type that reads its bytes. The order is the
# one in which safetensors files store tensors, widest dtypes first. NumPy has neither bfloat16,
# which is the upper half of a float32, nor 8-bit floats, so their bits are read as integers and
# converted.
TABLE = {
    "uint64": ("U64", "<u8"), "int64": ("I64", "<i8"), "float64": ("F64", "<f8"),
    "float32": ("F32", "<f4"),
    "uint32": ("U32", "<u4"), "int32": ("I32", "<i4"), "bfloat16": ("BF16", "<u2"),
    "float16": ("F16", "<f2"),
    "uint16": ("U16", "<u2"), "int16": ("I16", "<i2"), "float8_e4m3": ("F8_E4M3", "u1"),
    "float8_e5m2": ("F8_E5M2", "u1"), "int8": ("I8", "i1"), "uint8": ("U8", "u1"),
    "bool": ("BOOL", "b1"),
}  # fmt: skip
# Maps the number of a GGUF tensor type to its name, entries and bytes per block. fmt: off
GGUF_KINDS = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}
# fmt: on
BLOCKS = {name: (1, int(stored[-1])) for name, (_, stored) in TABLE.items()}
BLOCKS |= {kind: (numbers, size) for kind, numbers, size in GGUF_KINDS.values()}
FLOATS = ("float64", "float32", "bfloat16", "float16")
ALL_FLOATS = (*FLOATS, "float8_e4m3", "float8_e5m2")
LACKED = ("bfloat16", *ALL_FLOATS[4:])  # float dtypes that NumPy does not have

# The number of fraction bits and the smallest normal exponent of each dtype.
_GRIDS = {
    "float32": (23, -126),
    "bfloat16": (7, -126),
    "float16": (10, -14),
    "float8_e4m3": (3, -6),
    "float8_e5m2": (2, -14),
}


def float_dtype(dtype: str) -> str:
    """Return ``dtype`` if it names a float dtype of 16 to 64 bits; otherwise raise an error.

    Parameters
    ----------
    dtype : {"float64", "float32", "bfloat16", "float16"}
        The name to check.

    Returns
    -------
    str
        The same name.

    Raises
    ------
    ValueError
        If it is another name; the message corrects other spellings.

    See Also
    --------
    rounded : Round values to a dtype.

    Examples
    --------
    >>> float_dtype("bf16")
    Traceback (most recent call last):
    ValueError: dtype must be 'bfloat16', not 'bf16'
    """
    return float_name(dtype, FLOATS)


def rounded(array: Array, dtype: str, rng: Rng = None) -> Array:
    """Round ``array`` to values of a dtype: to nearest, ties to even, or at random with ``rng``.

    Parameters
    ----------
    array : ndarray
        An array of floats.
    dtype : {"float64", "float32", "bfloat16", "float16", "float8_e4m3", "float8_e5m2"}
        The dtype to round to.
    rng : Generator, optional
        Round up or down at random, so that the expected value is ``array``.

    Returns
    -------
    ndarray
        The rounded values in ``dtype``, or in float32 if NumPy does not have it. Values that are
        too large become infinite, or NaN in 8 bits.

    Raises
    ------
    ValueError
        If the dtype is unknown.

    See Also
    --------
    float_dtype : Check the name of a dtype.

    Examples
    --------
    >>> rounded(np.array([1.00390625, 1.01171875]), "bfloat16")
    array([1.      , 1.015625], dtype=float32)
    """
    if type(array) is not np.ndarray or array.dtype.kind != "f" or dtype not in ALL_FLOATS:
        array, dtype = real("array", array), float_dtype(dtype)
    with np.errstate(over="ignore"):
        if rng is not None and dtype in _GRIDS:
            array = _on_grid(array, dtype, rng)
        if dtype in LACKED:
            return decoded(encoded(array, dtype), dtype)
        return array.astype(dtype)


def _on_grid(array: Array, dtype: str, rng: Rng = None) -> Array:
    """Round each value to a multiple of the spacing of the dtype's floats around it."""
    bits, least = _GRIDS[dtype]
    power = np.maximum(np.frexp(array)[1] - 1, least) - bits
    steps = np.ldexp(array.astype(np.float64), -power)
    steps = np.rint(steps) if rng is None else np.floor(steps + rng.random(array.shape))
    return np.asarray(np.ldexp(steps, power))


def decoded(bits: Array, dtype: str) -> Array:
    """Convert the bits of a dtype that NumPy lacks to float32."""
    if dtype == "bfloat16":
        wide = bits.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    values = _eight(dtype)[bits & 127]
    return np.asarray(np.where(bits > 127, -values, values))


def encoded(array: Array, dtype: str) -> Array:
    """Round floats to the bits of a dtype that NumPy lacks: to nearest, ties to even."""
    if dtype != "bfloat16":
        code = np.searchsorted(_eight(dtype), np.abs(_on_grid(array, dtype)))
        return np.asarray(code + 128 * np.signbit(array), np.uint8)
    if array.dtype.itemsize > 4:  # rounding to float32 first would round twice
        array = _on_grid(array, dtype)
    bits = array.astype(np.float32).view(np.uint32)
    result = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(array), (bits >> 16) | 0x40, result).astype("<u2")


def _eight(dtype: str) -> Array:
    """Compute the float32 values of the codes from 0 to 127 of an 8-bit dtype."""
    bits, least = _GRIDS[dtype]
    power, rest = np.divmod(np.arange(128), 2**bits)
    whole = rest + 2.0**bits * (power > 0)
    values: Array = np.ldexp(whole, np.maximum(power, 1) - 1 + least - bits).astype(np.float32)
    # The last code of e4m3 and the last three codes of e5m2 are NaN. In e5m2, the code before these
    # is infinity, which is read as NaN as well.
    values[127 if bits == 3 else 124 :] = np.nan
    return values
