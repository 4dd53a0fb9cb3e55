"""Read NumPy's .npy and .npz files safely: regular files of numbers, no pickles, bounded memory."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np

from lora_np.checks import Array, StrPath, matrix
from lora_np.files import errors_at, open_regular
from lora_np.hub import safetensors

UNPACKED = 64 * 2**20  # a file of any size may unpack to this many bytes
UNPACKED_RATIO = 20  # a file may also unpack to this many times its size
NUMBERS = "biufc"  # the values of `dtype.kind` for booleans and numbers

# The exceptions that NumPy and zipfile raise for damaged files.
DAMAGE = (
    ValueError, TypeError, KeyError, IndexError, EOFError, SyntaxError, TokenError, OverflowError,
    MemoryError, RecursionError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_arrays(path: StrPath) -> dict[str, Array]:
    """Read all arrays of an ``.npz`` file.

    Parameters
    ----------
    path : path-like
        A file as `numpy.savez` or `numpy.savez_compressed` writes it.

    Returns
    -------
    dict of str to ndarray
        The arrays by name, in the order of the file.

    Raises
    ------
    FileError
        If it is not such a regular file, is damaged, contains anything but numbers, or would unpack
        to more than 64 MiB and more than 20 times its size.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> path = f"{tempfile.mkdtemp()}/inputs.npz"
    >>> np.savez(path, q_proj=np.eye(2))
    >>> read_arrays(path)["q_proj"].shape
    (2, 2)
    """
    with open_regular(Path(path)) as stream, errors_at(path):
        return arrays_in(stream)


def arrays_in(stream: IO[bytes], kinds: str = NUMBERS) -> dict[str, Array]:
    """Read all arrays of an open ``.npz`` file.

    Parameters
    ----------
    stream : binary file
        A file on disk that is open for reading.
    kinds : str
        The allowed kinds of dtype, as in ``numpy.dtype.kind``: by default numbers.

    Returns
    -------
    dict of str to ndarray
        The arrays by name, in the order of the file.

    Raises
    ------
    ValueError
        If `read_arrays` would raise a FileError.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryFile() as stream:
    ...     np.savez(stream, a=[1, 2])
    ...     arrays_in(stream)
    {'a': array([1, 2])}
    """
    size = os.fstat(stream.fileno()).st_size
    try:
        with zipfile.ZipFile(stream) as file:
            members = file.infolist()
            names = [member.filename.removesuffix(".npy") for member in members]
            if len(set(names)) < len(names):
                raise ValueError("two arrays have the same name")
            unpacked = sum(member.file_size for member in members)
            if unpacked > max(UNPACKED, UNPACKED_RATIO * size):
                raise ValueError(f"{size:,} bytes would unpack to {unpacked:,}")
            return {
                name: _read(file.open(member), member.file_size, kinds)
                for name, member in zip(names, members, strict=True)
            }
    except DAMAGE as error:
        raise ValueError(f"not an .npz file of arrays of numbers: {error}") from None


def _read_array(path: Path) -> Array:
    """Read the array of an ``.npy`` file, with the same errors as `read_arrays`."""
    with open_regular(path) as stream, errors_at(path):
        try:
            return _read(stream, os.fstat(stream.fileno()).st_size)
        except DAMAGE as error:
            raise ValueError(f"not an .npy file of numbers: {error}") from None


def _read(stream: IO[bytes], size: int, kinds: str = NUMBERS) -> Array:
    """Read an array whose header and entries take exactly ``size`` bytes."""
    header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
        np.lib.format.read_magic(stream), np.lib.format.read_array_header_2_0
    )
    shape, by_columns, dtype = header(stream)
    if dtype.kind not in kinds:
        raise ValueError(f"it holds {dtype}, but only numbers are read")
    left = size - stream.tell()
    if left != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{left:,} bytes are not the entries of {shape} {dtype}")
    data = bytearray(left)
    if stream.readinto(data) != left or stream.read(1):  # type: ignore[attr-defined]
        raise ValueError("it ends early")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if by_columns else "C")


def load_matrix(source: str) -> Array:
    """Read the matrix in ``FILE.npy``, or the tensor ``NAME`` of ``FILE.safetensors:NAME``.

    Parameters
    ----------
    source : str
        The path of the file, with the name of a tensor after a colon. Other tensors are not read.

    Returns
    -------
    ndarray of shape (d, k)
        The matrix in float32 or float64: half precisions become float32, which is exact, and
        integers float64.

    Raises
    ------
    ValueError
        If the source has neither form; the file is malformed, or a pickle (never loaded, because it
        could run code); no tensor has that name (the message lists close ones); or it is not a
        finite matrix.
    TypeError
        If the entries are not real numbers.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> path = f"{tempfile.mkdtemp()}/adapter.safetensors"
    >>> safetensors.save({"lora_A": np.eye(2, 3), "lora_B": np.zeros((4, 2))}, path)
    >>> load_matrix(f"{path}:lora_A")
    array([[1., 0., 0.],
           [0., 1., 0.]])
    """
    head, extension, tensor = source.rpartition(".safetensors:")
    if extension:
        return matrix(repr(tensor), safetensors.open(head + ".safetensors").read(tensor))
    if source.endswith(".safetensors"):
        tensors = safetensors.open(source).tensors
        names = [name for name, info in tensors.items() if len(info.shape) == 2]
        example = f"{source}:{names[0]}" if names else "but it holds no matrix"
        raise ValueError(f"name one of the {len(names)} matrices in {source}, as in {example}")
    if not source.endswith(".npy"):
        raise ValueError(
            f"a matrix is read from FILE.npy or FILE.safetensors:TENSOR, got {source!r}"
        )
    return matrix(Path(source).name, _read_array(Path(source)))
