"""Read and write safetensors files, one tensor at a time; a malformed file is an error.

A file is the length of its header (8 bytes), the header (JSON: name, dtype, shape and offsets of
each tensor), and the bytes of the tensors without gap or overlap. See
https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeGuard

from lora_np.checks import Array, StrPath, plain, shown
from lora_np.files import (
    FileError,
    Json,
    errors_at,
    open_regular,
    parse_json,
    target_path,
    write_whole,
)
from lora_np.hub.dtypes import (
    ALL_FLOATS,
    BLOCKS,
    FLOATS,
    LACKED,
    TABLE,
    decoded,
    encoded,
    float_dtype,
    rounded,
)
from lora_np.hub.tensors import TensorFile, TensorInfo
from lora_np.lazy import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["SafetensorsFile", "file_size", "open", "save", "write"]

_ORDER = {name: place for place, name in enumerate(TABLE)}
_BY_FILE = {named: name for name, (named, _) in TABLE.items()}
_MAX_HEADER = 100_000_000  # the limit of the reference implementation
# `write` converts this many entries at a time, so that it needs no second copy of a whole tensor
_BLOCK = 2**20
_MAX_AXES = 64  # NumPy's limit
Infos = Mapping[str, TensorInfo]


class SafetensorsFile(TensorFile):
    """A safetensors file with a checked header, returned by ``open``; the file is closed again.

    Attributes
    ----------
    path : Path
        The path of the file.
    tensors : mapping of str to TensorInfo
        The tensors by name, in the order of their bytes.
    metadata : mapping of str to str
        The metadata in the header.
    """

    def read(self, name: str) -> Array:
        """Read one tensor, without reading the rest of the file.

        Parameters
        ----------
        name : str
            The name of the tensor.

        Returns
        -------
        ndarray
            The tensor in the dtype of the file; bfloat16 and 8-bit floats become float32, which is
            exact.

        Raises
        ------
        FileError
            If no tensor has that name (the message lists close ones), it is in 8-bit floats with
            scales, or the file has changed since it was opened.
        """
        # `info` is called only for a missing tensor: it raises an error that lists close names
        info = self.tensors.get(name) or self.info(name)
        stored: Array = np.frombuffer(self.raw(info), TABLE[info.dtype][1]).reshape(info.shape)
        if info.dtype.startswith("float8"):
            refuse_scaled(self.path, name, info.dtype, self.tensors)
        if info.dtype in LACKED:
            return decoded(stored, info.dtype)
        if info.dtype == "bool" and (stored.view(np.uint8) > 1).any():
            raise FileError(f"{self.path}: {name!r} is bool but holds bytes other than 0 and 1")
        return stored.astype(stored.dtype.newbyteorder("="), copy=False)


def refuse_scaled(path: Path, name: str, dtype: str, names: Iterable[str]) -> None:
    """Raise an error if the scale of a tensor in 8-bit floats is among ``names``."""
    owner = f"{name.rpartition('.')[0]}."
    for other in names:
        if other != name and other.startswith(owner) and "scale" in other:
            why = f"{dtype} times {other!r}, which is not supported: use bfloat16"
            raise FileError(f"{path}: {name!r} is {why}")


def open(path: StrPath) -> SafetensorsFile:
    """Read and check the header of a safetensors file.

    Only the header is read, so this is fast for files of any size.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    SafetensorsFile
        The file, with ``tensors`` (name to dtype and shape), ``metadata``, and ``read(name)``.

    Raises
    ------
    FileError
        If the file is truncated, its header violates the format, or the tensors overlap, leave
        gaps, or do not end where the file ends.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "adapter.safetensors"
    >>> save({"lora_A": np.ones((2, 3), np.float32)}, path, metadata={"format": "np"})
    >>> file = open(path)
    >>> file.tensors["lora_A"].dtype, file.tensors["lora_A"].shape
    ('float32', (2, 3))
    >>> file.read("lora_A").sum()
    np.float32(6.0)
    """
    path = Path(path)
    with open_regular(path) as file, errors_at(f"{path} is not a valid safetensors file"):
        size = os.fstat(file.fileno()).st_size
        return SafetensorsFile(path, *_checked(*_read_header(file, size), size))


def save(
    tensors: Mapping[str, npt.ArrayLike],
    path: StrPath,
    *,
    metadata: Mapping[str, str] | None = None,
    dtype: str | None = None,
) -> None:
    """Write all ``tensors`` to a safetensors file.

    Parameters
    ----------
    tensors : mapping of str to array_like
        The tensors by name.
    path : str or path-like
        The file to write; it is replaced once everything is written, and not touched on errors.
    metadata : mapping of str to str, optional
        The metadata for the header.
    dtype : {"float64", "float32", "bfloat16", "float16"}, optional
        Round floating-point tensors to this dtype; by default each keeps its own.

    Raises
    ------
    FileError
        If the format does not have a dtype, a value is too large for it, or the metadata are not
        text.
    TypeError
        If ``tensors`` is not a mapping from names to arrays.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "half.safetensors"
    >>> save({"A": np.array([1.0, 1.00390625, 1.01171875])}, path, dtype="bfloat16")
    >>> open(path).read("A")
    array([1.      , 1.      , 1.015625], dtype=float32)
    """
    if dtype is not None:
        float_dtype(dtype)
    if not isinstance(tensors, Mapping):
        raise TypeError(f"tensors must map names to arrays, got {shown(tensors)}")
    arrays = {name: plain(name, array) for name, array in tensors.items()}
    header = {}
    kinds = {np.dtype(stored): name for name, (_, stored) in TABLE.items() if "float8" not in name}
    for name, array in arrays.items():
        own = kinds.get(array.dtype.newbyteorder("<"))
        if own is None:
            raise FileError(f"{name!r} has dtype {array.dtype}, which safetensors cannot store")
        header[name] = TensorInfo(dtype if dtype and own in FLOATS else own, array.shape)
    write(header, arrays.__getitem__, path, metadata=metadata)


def write(
    tensors: Infos,
    read: Callable[[str], npt.ArrayLike | SafetensorsFile],
    path: StrPath,
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file with one tensor in memory at a time.

    Parameters
    ----------
    tensors : mapping of str to TensorInfo
        The dtype and the shape of each tensor, by name.
    read : callable
        A function from a name to an array of the shape in ``tensors``: floats are rounded to the
        dtype there (to nearest, ties to even), other arrays must have it. It may also return the
        file from which the tensor of that name is copied byte for byte. It is called for the widest
        dtypes first.
    path : str or path-like
        The file to write; it is replaced once everything is written, and not touched on errors.
    metadata : mapping of str to str, optional
        The metadata for the header, such as ``{"format": "pt"}``.

    Raises
    ------
    FileError
        If a name, dtype, shape or the metadata do not fit the format; if an array has another shape
        or dtype, or a finite value is too large for the dtype.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "two.safetensors"
    >>> header = {"a": TensorInfo("float32", (2,)), "b": TensorInfo("bfloat16", (1, 2))}
    >>> write(header, {"a": np.zeros(2), "b": np.ones((1, 2))}.__getitem__, path)
    >>> list(open(path).tensors)
    ['a', 'b']
    """
    path = target_path(path)
    header, placed = _layout(tensors, metadata or {})
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; give the path of a file")

    def put(stream: BinaryIO) -> None:
        stream.write(header)
        for name, info in placed.items():
            source = read(name)
            if isinstance(source, SafetensorsFile):
                origin = source.info(name)
                if (info.dtype, info.shape) != (origin.dtype, origin.shape):
                    raise FileError(
                        f"{path}: {name!r} differs in dtype or shape from {source.path}"
                    )
                stream.write(source.raw(origin))
                continue
            array = np.asarray(source)
            if array.shape != info.shape:
                raise FileError(f"{name!r} must have shape {info.shape}, got {array.shape}")
            flat = np.ascontiguousarray(array).reshape(-1)
            for begin in range(0, max(flat.size, 1), _BLOCK):
                stream.write(as_stored(name, flat[begin : begin + _BLOCK], info.dtype).data)

    write_whole(path, put)


def file_size(tensors: Infos, *, metadata: Mapping[str, str] | None = None) -> int:
    """Compute the size in bytes of the file that `write` would write for these tensors.

    Parameters
    ----------
    tensors : mapping of str to TensorInfo
        The dtype and the shape of each tensor, by name.
    metadata : mapping of str to str, optional
        The metadata for the header.

    Returns
    -------
    int
        The size in bytes.

    Raises
    ------
    FileError
        If a name, dtype, shape or the metadata do not fit the format.

    Examples
    --------
    >>> file_size({"a": TensorInfo("float32", (2,))})
    72
    """
    header, placed = _layout(tensors, metadata or {})
    return len(header) + sum(info.nbytes for info in placed.values())


# Maps the first bytes of other formats that are often named .safetensors to their descriptions
_OTHERS = {
    b"version ": "a Git LFS pointer: git lfs pull fetches the file itself",
    b"PK\x03\x04": "a zip archive, such as a pickle of torch.save under another name",
}


def _read_header(file: BinaryIO, size: int) -> tuple[dict[str, Json], int]:
    """Parse the header after checking its length; return it with the offset of its end."""
    if size < 8:
        raise FileError(f"it has {size} bytes, too few for a header")
    first = file.read(8)
    if other := next((what for mark, what in _OTHERS.items() if first.startswith(mark)), ""):
        raise FileError(f"it is {other}")
    length = int.from_bytes(first, "little")
    if length > min(size - 8, _MAX_HEADER):
        raise FileError(f"its header has {length} bytes, the file {size}; the limit: {_MAX_HEADER}")
    with errors_at("its header"):
        return parse_json(file.read(length)), 8 + length


def _checked(
    header: dict[str, Any], header_end: int, size: int
) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Validate a header; return its tensors in the order of their offsets, and its metadata."""
    metadata = header.pop("__metadata__", None)
    if metadata is None:  # the key is missing, or it is null, as in files that mlx writes
        metadata = {}
    if not isinstance(metadata, dict) or not {*map(type, metadata.values())} <= {str}:
        raise FileError("its __metadata__ is not a map from text to text")
    tensors = {}
    position = 0
    places = sorted((_described(name, entry), name) for name, entry in header.items())
    for (begin, length, dtype, shape), name in places:
        if begin != position:
            fault = "overlaps another tensor" if begin < position else "leaves a gap before it"
            raise FileError(f"tensor {name!r} {fault}: it begins at {begin}, not {position}")
        tensors[name] = TensorInfo(dtype, shape, header_end + position)
        position += length
    if header_end + position != size:
        raise FileError(f"its tensors end at byte {header_end + position}, the file at {size}")
    return tensors, metadata


def _described(name: str, entry: object) -> tuple[int, int, str, tuple[int, ...]]:
    """Check an entry of the header; return its offset, size in bytes, dtype and shape."""
    if not isinstance(entry, dict):
        raise FileError(f"tensor {name!r} is described by {shown(entry)}, not by an object")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _BY_FILE:
        raise FileError(
            f"tensor {name!r} has dtype {shown(dtype)}; supported are {', '.join(_BY_FILE)}"
        )
    if not _naturals(shape) or len(shape) > _MAX_AXES:
        raise FileError(
            f"tensor {name!r} has shape {shown(shape)}, not a list of at most 64 whole numbers"
        )
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise FileError(f"tensor {name!r} has data_offsets {shown(offsets)}, not [begin, end]")
    kind, size = _BY_FILE[dtype], offsets[1] - offsets[0]
    if (wanted := prod(shape) * BLOCKS[kind][1]) != size:
        raise FileError(
            f"tensor {name!r}, {dtype} {tuple(shape)}, takes {wanted} bytes, but has {size}"
        )
    return offsets[0], size, kind, tuple(shape)


def _naturals(value: object) -> TypeGuard[list[int]]:
    if not isinstance(value, list) or not {*map(type, value)} <= {int}:
        return False
    return not value or (min(value) >= 0 and max(value) < 2**63)


def _layout(tensors: Infos, metadata: Mapping[str, str]) -> tuple[bytes, dict[str, TensorInfo]]:
    """Lay out a file: return the bytes of its header, and the tensors in order.

    Placing the widest dtypes first aligns every tensor.
    """
    if [text for pair in metadata.items() for text in pair if not isinstance(text, str)]:
        raise FileError(f"metadata must map text to text, got {dict(metadata)!r}")
    for name in tensors:
        if not isinstance(name, str):
            raise FileError(f"the name of a tensor must be text, got {shown(name)}")
    header: dict[str, Json] = {"__metadata__": dict(metadata)} if metadata else {}
    ordered: dict[str, TensorInfo] = {}
    position = 0
    for name in sorted(tensors, key=lambda name: (_ORDER.get(tensors[name].dtype, -1), name)):
        info = tensors[name]
        if name == "__metadata__":
            raise FileError("a tensor cannot be called '__metadata__'")
        if info.dtype not in TABLE:
            raise FileError(f"tensor {name!r} has dtype {info.dtype!r}, which cannot be written")
        if not _naturals(list(info.shape)):
            raise FileError(f"tensor {name!r} has shape {info.shape!r}, not one of whole numbers")
        offsets = [position, position + prod(info.shape) * BLOCKS[info.dtype][1]]
        header[name] = {
            "dtype": TABLE[info.dtype][0],
            "shape": list(info.shape),
            "data_offsets": offsets,
        }
        ordered[name], position = info, offsets[1]
    with errors_at("a name or the metadata cannot be encoded as UTF-8"):
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, ordered


def as_stored(name: str, array: Array, dtype: str) -> Array:
    """Convert ``array`` to the dtype and byte order of the file."""
    if dtype not in ALL_FLOATS or array.dtype.kind != "f":
        if array.dtype.newbyteorder("<") != np.dtype(TABLE[dtype][1]) or dtype in LACKED:
            raise FileError(f"{name!r} must have dtype {dtype}, got {array.dtype}")
        return array.astype(TABLE[dtype][1], copy=False)
    values = rounded(array, dtype)
    lost = np.isfinite(array) & ~np.isfinite(values)
    if lost.any():
        raise FileError(f"{name!r} holds {array[lost][0]}, too large for {dtype}")
    return encoded(values, dtype) if dtype in LACKED else values.astype(TABLE[dtype][1], copy=False)
