"""Read and write GGUF files, one tensor at a time; a malformed file is an error.

A file is a magic number, a version, two counts, the metadata (name, type, value), a description of
each tensor (name, sizes, kind, offset), and the tensors' bytes, each beginning at a multiple of the
alignment. See https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lora_np.checks import Array, StrPath, shown
from lora_np.files import MAX_ITEMS, FileError, errors_at, open_regular, target_path, write_whole
from lora_np.hub.dtypes import BLOCKS, GGUF_KINDS
from lora_np.hub.safetensors import as_stored
from lora_np.hub.tensors import TensorFile, TensorInfo
from lora_np.quantise import LAYOUTS, Blocks

__all__ = ["GGUFFile", "open", "write"]

_NUMBERS = {kind: number for number, (kind, _, _) in GGUF_KINDS.items()}
_SCALARS = dict(enumerate(("<u1", "<i1", "<u2", "<i2", "<u4", "<i4", "<f4", "?")))
_SCALARS |= {10: "<u8", 11: "<i8", 12: "<f8"}
_SCALAR_NUMBERS = {np.dtype(name): number for number, name in _SCALARS.items()}
_STRING, _ARRAY = 8, 9
_FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}

_MAX_HEADER = 2**28  # largest header in bytes; the largest vocabularies take about a tenth
_MAX_NAME = 2**16 - 1  # limit of the GGUF specification, in bytes
_MAX_AXES = 4  # ggml's limit
_ALIGNMENT = 32
_Value = str | int | float | list[str] | Array  # the type of a metadata value


@dataclass(frozen=True)
class GGUFFile(TensorFile):
    """A GGUF file with a checked header, returned by ``open``; the file is closed again.

    Attributes
    ----------
    path : Path
        The path of the file.
    tensors : mapping of str to TensorInfo
        The tensors by name, in the order of their bytes.
    metadata : mapping of str to object
        The metadata: text, numbers, booleans, lists of text, and ndarrays of numbers.
    spans : mapping of str to (int, int)
        The byte range of each value of the metadata with its type, by the key.
    """

    spans: Mapping[str, tuple[int, int]] = field(repr=False)

    def packed(self, name: str) -> bytes:
        """Read the raw bytes of a metadata value, including its type.

        Parameters
        ----------
        name : str
            The key.

        Returns
        -------
        bytes
            The bytes from which `write` writes the same value.
        """
        begin, end = self.spans[name]
        with open_regular(self.path) as stream:
            stream.seek(begin)
            return stream.read(end - begin)

    def read(self, name: str) -> Array:
        """Read and dequantise one tensor, without reading the rest of the file.

        Parameters
        ----------
        name : str
            The name of the tensor.

        Returns
        -------
        ndarray
            The values in float32.

        Raises
        ------
        FileError
            If no tensor has that name (the message lists close ones), its kind is not supported, or
            the file has changed since it was opened.

        See Also
        --------
        quantised : Read the tensor without dequantising it.
        """
        return self.quantised(name).dequantised()

    def quantised(self, name: str) -> Blocks:
        """Read one tensor without dequantising it.

        Parameters
        ----------
        name : str
            The name of the tensor.

        Returns
        -------
        Blocks
            The blocks of the file.

        Raises
        ------
        FileError
            If ``read`` would raise one.
        """
        info = self.info(name)
        if info.dtype not in LAYOUTS:
            raise FileError(
                f"{self.path}: {shown(name)} is stored as {info.dtype}, which cannot be read; these"
                f" can: {', '.join(LAYOUTS)}"
            )
        layout = LAYOUTS[info.dtype]
        *rows, columns = info.shape
        data = np.frombuffer(self.raw(info), layout.block).reshape(*rows, columns // layout.entries)
        return Blocks(info.dtype, data, info.shape)


def open(path: StrPath) -> GGUFFile:
    """Read and check the header of a GGUF file.

    Only the header is read, so this is fast for files of any size.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    GGUFFile
        The file, with ``tensors`` (name to kind and shape), ``metadata``, ``read(name)`` and
        ``quantised(name)``.

    Raises
    ------
    FileError
        If the file is truncated, its header violates the format, or a tensor is not where the
        format requires it.
    OSError
        If the file cannot be read.

    See Also
    --------
    write : Write a GGUF file.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "model.gguf"
    >>> info = {"output.weight": TensorInfo("F32", (2, 32))}
    >>> write(info, lambda name: np.ones((2, 32)), path, metadata={"general.name": "small"})
    >>> file = open(path)
    >>> file.tensors["output.weight"]
    TensorInfo(dtype='F32', shape=(2, 32), begin=128)
    >>> file.metadata["general.name"], file.read("output.weight").sum()
    ('small', np.float32(64.0))
    """
    path = Path(path)
    with open_regular(path) as stream, errors_at(f"{path} is not a valid GGUF file"):
        return GGUFFile(path, *_read(_Header(stream, os.fstat(stream.fileno()).st_size)))


def write(
    tensors: Mapping[str, TensorInfo],
    read: Callable[[str], Array | Blocks | GGUFFile],
    path: StrPath,
    *,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a GGUF file with one tensor in memory at a time.

    Parameters
    ----------
    tensors : mapping of str to TensorInfo
        The kind, such as "F32" or "BF16", and the shape of each tensor, by name.
    read : callable
        A function from a name to the tensor: an array, which is rounded to the kind; blocks of that
        kind; or a file from which the tensor of that name is copied.
    path : str or path-like
        The file to write; it is replaced once everything is written, and not touched on errors.
    metadata : mapping of str to object, optional
        Text, booleans, NumPy scalars, Python numbers (written as 32-bit, whole numbers as uint32 or
        int32), and lists or one-dimensional arrays of one of those; or bytes from
        `GGUFFile.packed`.

    Raises
    ------
    FileError
        If the format cannot express a name, a kind, a shape or a value.
    OSError
        If the file cannot be written.

    See Also
    --------
    open : Read a GGUF file.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "model.gguf"
    >>> write({"output.weight": TensorInfo("BF16", (2, 3))}, lambda name: np.ones((2, 3)), path)
    >>> open(path).read("output.weight").sum()
    np.float32(6.0)
    """
    header = [struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata or {}))]
    alignment = _alignment(metadata or {})
    for key, value in (metadata or {}).items():
        header += [_packed_text(key), _packed_value(key, value)]
    position = 0
    for name, info in tensors.items():
        header.append(_packed_text(name))
        sizes = info.shape[::-1]
        if info.dtype not in _NUMBERS:
            raise FileError(f"tensor {shown(name)} has kind {shown(info.dtype)}, which is unknown")
        _check_shape(name, info.dtype, sizes)
        header.append(
            struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, _NUMBERS[info.dtype], position)
        )
        position += _padded(info.nbytes, alignment)
    described = b"".join(header)

    def put(stream: BinaryIO) -> None:
        stream.write(described)
        stream.write(bytes(_padded(len(described), alignment) - len(described)))
        for name, info in tensors.items():
            tensor = read(name)
            if isinstance(tensor, GGUFFile):
                stream.write(tensor.raw(tensor.info(name)))
            else:
                data = _as_blocks(name, tensor, info).data
                stream.write(np.ascontiguousarray(data).reshape(-1).view(np.uint8).data)
            stream.write(bytes(_padded(info.nbytes, alignment) - info.nbytes))

    write_whole(target_path(path), put)


class _Header:
    """A reader of a GGUF header, which checks the size of each item before reading it."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream, self.size, self.position, self.items = stream, size, 0, 0
        self.name = ""  # name of the current key or tensor; replaces ``{}`` in messages

    def take(self, count: int, what: str) -> bytes:
        left = self.size - self.position
        if count > left:
            place = what.format(shown(self.name))
            raise FileError(f"{place} takes {count} bytes, but the file ends after {left} more")
        if self.position + count > _MAX_HEADER:
            raise FileError(f"its header has more than {_MAX_HEADER} bytes")
        piece = self.stream.read(count)
        if len(piece) != count:
            raise FileError("it became shorter while it was being read")
        self.position += count
        return piece

    def number(self, form: str, what: str) -> int:
        raw = self.take(struct.calcsize("<" + form), what)
        return int(struct.unpack("<" + form, raw)[0])

    def text(self, what: str, *, most: int | None = None) -> str:
        length = self.number("Q", what)
        if most is not None and length > most:
            raise FileError(f"{what} has {length} bytes; at most {most} are allowed")
        try:
            return self.take(length, what).decode("utf-8")
        except UnicodeDecodeError as error:
            raise FileError(f"{what.format(shown(self.name))} is not UTF-8: {error}") from None

    def count(self, least: int, what: str) -> int:
        """Read the number of items that follow, which take at least ``least`` bytes each."""
        number, left = self.number("Q", what), self.size - self.position
        # Count the items that become separate Python objects, to limit their memory. An array of
        # numbers, for which `least` is 1, does not count, because it becomes a single object.
        self.items += number if least > 1 else 0
        if number * least > left:
            why = f", for which {left} bytes are too few"
        elif self.items > MAX_ITEMS:
            why = f"; a header has at most {MAX_ITEMS:,} names and texts"
        else:
            return number
        raise FileError(f"{what.format(shown(self.name))} is {number}{why}")


def _read(
    header: _Header,
) -> tuple[dict[str, TensorInfo], dict[str, _Value], dict[str, tuple[int, int]]]:
    """Read and check the tensors, the metadata, and the byte range of each metadata value."""
    magic = header.take(4, "the magic number")
    if magic != b"GGUF":
        raise FileError(f"it begins with {magic!r}, not with b'GGUF'")
    version = header.number("I", "the version")
    if version not in (2, 3):
        raise FileError(f"its version is {version}, not 2 or 3 in little-endian order")
    tensor_count = header.count(24, "the number of tensors")
    metadata: dict[str, _Value] = {}
    spans: dict[str, tuple[int, int]] = {}
    for _ in range(header.count(13, "the number of metadata")):
        key = header.text("a key of the metadata", most=_MAX_NAME)
        if key in metadata:
            raise FileError(f"its metadata have two entries {shown(key)}")
        begin, header.name = header.position, key
        metadata[key] = _value(header, header.number("I", "the type of {}"))
        spans[key] = begin, header.position
    alignment = _alignment(metadata)
    described = [_description(header) for _ in range(tensor_count)]
    begin = _padded(header.position, alignment)
    tensors: dict[str, TensorInfo] = {}
    position = 0
    for name, kind, shape, offset in described:
        if name in tensors:
            raise FileError(f"it has two tensors {shown(name)}")
        if offset != position:
            raise FileError(f"{shown(name)} begins at {offset}, but must begin at {position}")
        tensor = TensorInfo(kind, shape, begin + offset)
        if (end := tensor.begin + tensor.nbytes) > header.size:
            raise FileError(
                f"{shown(name)}, {kind} of shape {shape}, ends at byte {end}, the file at"
                f" {header.size}"
            )
        tensors[name] = tensor
        position += _padded(tensor.nbytes, alignment)
    return tensors, metadata, spans


def _value(header: _Header, kind: int) -> _Value:
    if kind == _STRING:
        return header.text("the value of {}")
    if kind != _ARRAY:
        number: _Value = _scalars(header, kind, 1)[0].item()
        return number
    inner, entries = (
        header.number("I", "the type of the entries of {}"),
        "the number of entries of {}",
    )
    if inner == _STRING:
        return [header.text("an entry of {}") for _ in range(header.count(8, entries))]
    return _scalars(header, inner, header.count(1, entries))


def _scalars(header: _Header, kind: int, count: int) -> Array:
    if kind not in _SCALARS:
        raise FileError(f"{shown(header.name)} has type {kind}, which is unknown")
    dtype = np.dtype(_SCALARS[kind])
    raw = header.take(count * dtype.itemsize, "the value of {}")
    if dtype.kind == "b" and raw.strip(b"\0\1"):
        raise FileError(f"{shown(header.name)} is boolean but holds bytes other than 0 and 1")
    return np.frombuffer(raw, dtype)


def _alignment(metadata: Mapping[str, object]) -> int:
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if isinstance(alignment, np.integer):
        alignment = alignment.item()
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise FileError(f"'general.alignment' must be a power of two, got {shown(alignment)}")
    return alignment


def _description(header: _Header) -> tuple[str, str, tuple[int, ...], int]:
    """Read the name, kind, shape and offset of a tensor."""
    name = header.name = header.text("the name of a tensor", most=_MAX_NAME)
    axes = header.number("I", "the number of axes of {}")
    if not 1 <= axes <= _MAX_AXES:
        raise _axes_error(name, axes)
    sizes = struct.unpack(f"<{axes}Q", header.take(8 * axes, "the shape of {}"))
    number = header.number("I", "the kind of {}")
    if number not in GGUF_KINDS:
        raise FileError(f"tensor {shown(name)} has kind {number}, which is unknown")
    kind = GGUF_KINDS[number][0]
    _check_shape(name, kind, sizes)
    return name, kind, sizes[::-1], header.number("Q", "the offset of {}")


def _axes_error(name: str, axes: int) -> FileError:
    return FileError(f"tensor {shown(name)} has {axes} axes; between 1 and {_MAX_AXES} are allowed")


def _check_shape(name: str, kind: str, sizes: Sequence[int]) -> None:
    """Raise an error unless a file can hold a tensor of these sizes, of which rows come first."""
    if not 1 <= len(sizes) <= _MAX_AXES:
        raise _axes_error(name, len(sizes))
    if not {*map(type, sizes)} <= {int} or min(sizes) < 1 or prod(sizes) >= 2**63:
        raise FileError(f"tensor {shown(name)} has shape {sizes[::-1]}, which no file can hold")
    if sizes[0] % (numbers := BLOCKS[kind][0]):
        raise FileError(
            f"tensor {shown(name)} has rows of {sizes[0]}; {kind} needs whole blocks of {numbers}"
        )


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _as_blocks(name: str, tensor: Array | Blocks, info: TensorInfo) -> Blocks:
    """Convert a tensor to blocks; raise an error unless kind and shape agree with ``info``."""
    kind = tensor.kind if isinstance(tensor, Blocks) else info.dtype
    if (kind, tensor.shape) != (info.dtype, info.shape):
        raise FileError(
            f"{shown(name)} must be {info.dtype} {info.shape}, got {kind} {tensor.shape}"
        )
    if not isinstance(tensor, Blocks):
        if info.dtype not in _FLOATS:
            raise FileError(
                f"{shown(name)} must be Blocks of {info.dtype}, got dtype {tensor.dtype}"
            )
        tensor = Blocks(info.dtype, as_stored(name, tensor, _FLOATS[info.dtype]), tensor.shape)
    return tensor


def _packed_text(text: str) -> bytes:
    if not isinstance(text, str):
        raise FileError(f"a name must be text, got {shown(text)}")
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        raise FileError(f"{shown(text)} cannot be encoded as UTF-8: {error}") from None
    return struct.pack("<Q", len(raw)) + raw


def _packed_value(key: str, value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _packed_text(value)
    if isinstance(value, list) and value and all(isinstance(entry, str) for entry in value):
        return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(map(_packed_text, value))
    array = np.asarray(value)
    # Python numbers become 32-bit numbers, whereas NumPy arrays and scalars keep their dtype.
    if type(value) in (int, float, list) and array.dtype.kind in "iuf":
        whole = np.uint32 if array.size and array.min() >= 0 else np.int32
        narrow = array.astype(whole if array.dtype.kind in "iu" else np.float32)
        if array.dtype.kind in "iu" and (narrow != array).any():
            raise FileError(
                f"{shown(key)} holds {shown(value)}, too large for 32 bits; give it as np.uint64"
            )
        array = narrow
    number = _SCALAR_NUMBERS.get(array.dtype.newbyteorder("<"))
    if number is None or array.ndim > 1:
        raise FileError(
            f"{shown(key)} must be text, a number, a boolean or a list, got {shown(value)}"
        )
    form = (
        struct.pack("<IIQ", _ARRAY, number, array.size) if array.ndim else struct.pack("<I", number)
    )
    return form + array.astype(_SCALARS[number]).tobytes()
