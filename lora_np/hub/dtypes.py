"""The dtypes of numbers on disk, by NumPy's names and ``"bfloat16"``: the one table of them."""

from __future__ import annotations

import numpy as np

from lora_np.checks import Array

# From a dtype's name to its name in safetensors and to how NumPy reads its bytes; the widest first, which is
# the format's order of tensors. NumPy has no bfloat16, whose bits are the upper half of a float32's, and no
# floats of eight bits: those can be counted and copied, not read.
TABLE = {
    "uint64": ("U64", "<u8"),
    "int64": ("I64", "<i8"),
    "float64": ("F64", "<f8"),
    "float32": ("F32", "<f4"),
    "uint32": ("U32", "<u4"),
    "int32": ("I32", "<i4"),
    "bfloat16": ("BF16", "<u2"),
    "float16": ("F16", "<f2"),
    "uint16": ("U16", "<u2"),
    "int16": ("I16", "<i2"),
    "float8_e4m3": ("F8_E4M3", "u1"),
    "float8_e5m2": ("F8_E5M2", "u1"),
    "int8": ("I8", "i1"),
    "uint8": ("U8", "u1"),
    "bool": ("BOOL", "?"),
}
FLOATS = ("float64", "float32", "bfloat16", "float16")
_OTHER_SPELLINGS = {
    "float64": ("f64", "fp64", "f8", "double", "float", "torch.float64"),
    "float32": ("f32", "fp32", "f4", "single", "torch.float32"),
    "bfloat16": ("bf16", "bfp16", "torch.bfloat16"),
    "float16": ("f16", "fp16", "f2", "half", "torch.float16"),
}


def float_dtype(dtype: str) -> str:
    """``dtype`` if it is the name of a float that files can hold.

    Parameters
    ----------
    dtype : {"float64", "float32", "bfloat16", "float16"}
        What was asked for.

    Returns
    -------
    str
        The same.

    Raises
    ------
    ValueError
        If it is not; the message gives the right name for another spelling.

    See Also
    --------
    rounded : Numbers as a file of that dtype holds them.

    Examples
    --------
    >>> float_dtype("bf16")
    Traceback (most recent call last):
    ValueError: dtype must be 'bfloat16', not 'bf16'
    """
    if dtype in FLOATS:
        return dtype
    spelled = str(dtype).lower()
    for name, others in _OTHER_SPELLINGS.items():
        if spelled in (name, *others):
            raise ValueError(f"dtype must be {name!r}, not {dtype!r}")
    raise ValueError(f"dtype must be one of {', '.join(FLOATS)}, got {dtype!r}")


def rounded(array: Array, dtype: str) -> Array:
    """The values of ``array`` as a file of this dtype holds them: rounded to nearest, ties to even.

    Parameters
    ----------
    array : ndarray
        Of floats.
    dtype : {"float64", "float32", "bfloat16", "float16"}
        Of the file.

    Returns
    -------
    ndarray
        In the dtype of the file; bfloat16 as float32. What is too large has become infinite.

    Raises
    ------
    ValueError
        If the dtype is unknown.

    See Also
    --------
    float_dtype : Refuses other names.

    Examples
    --------
    >>> rounded(np.array([1.00390625, 1.01171875]), "bfloat16")
    array([1.      , 1.015625], dtype=float32)
    """
    with np.errstate(over="ignore"):
        if float_dtype(dtype) == "bfloat16":
            return from_bfloat16(to_bfloat16(array))
        return array.astype(dtype)


def from_bfloat16(bits: Array) -> Array:
    """The float32 values of bfloat16 bits."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def to_bfloat16(array: Array) -> Array:
    """The upper halves of float32, rounded to nearest, ties to even."""
    single = array.astype(np.float32)
    bits = single.view(np.uint32)
    if array.dtype.itemsize > 4:
        # Rounding twice can go wrong. First round to odd: towards zero, the last bit saying what was cut off.
        inexact = single != array
        bits -= (np.abs(single) > np.abs(array)).astype(np.uint32)
        bits |= inexact.astype(np.uint32)
    nan = np.isnan(array)
    result = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(nan, (bits >> 16) | 0x40, result).astype("<u2")
