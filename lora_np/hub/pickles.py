"""Read PyTorch's files of tensors (``.bin``) without running the code in their pickle.

A file is an uncompressed zip archive of a pickle and of the bytes of each storage. A pickle is a
program for a stack machine. The machine here has only the few instructions that describe tensors,
and two functions; it refuses all others by name. Source: torch 2.13, ``serialization.py`` and
``_utils.py``.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from pickletools import opcodes
from typing import NoReturn
from zipfile import ZipFile

from lora_np.checks import StrPath
from lora_np.files import FileError, errors_at, open_regular
from lora_np.hub.dtypes import BLOCKS
from lora_np.hub.safetensors import SafetensorsFile
from lora_np.hub.tensors import TensorInfo

_MOST = 2**24  # largest size of a pickle in bytes, enough for a hundred thousand tensors
_FEW = b"\x80cqrhj})(t\x85\x86\x87XJKM\x8aN\x88\x89QRsu."  # the allowed pickle opcodes
# use the Python implementation, because the C version allocates any memory that a file asks for
Machine = pickle._Unpickler


def open_pickle(path: StrPath) -> SafetensorsFile:
    r"""Locate the tensors in a PyTorch file without running any code in it.

    Parameters
    ----------
    path : path
        A file as ``torch.save`` writes it from a dictionary of tensors.

    Returns
    -------
    SafetensorsFile
        The tensors, which are read like those of a safetensors file.

    Raises
    ------
    FileError
        If it is damaged, or its pickle does anything other than describe tensors.
    OSError
        If the file cannot be read.

    See Also
    --------
    open_directory : Open the safetensors of a model.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "adapter_model.bin"
    >>> with ZipFile(path, "w") as archive:
    ...     archive.writestr("archive/data.pkl", b"cos\nsystem\n(X\x04\x00\x00\x00truetR.")
    >>> open_pickle(path)
    Traceback (most recent call last):
    lora_np.files.FileError: ...: its pickle asks for os.system, which is no part of a tensor
    """
    path = Path(path)
    # A damaged file may raise any exception, so all become a FileError.
    with open_regular(path) as stream, errors_at(path, (Exception,)), ZipFile(stream) as archive:
        end = os.fstat(stream.fileno()).st_size
        places: dict[str, tuple[int, int]] = {}
        for member in archive.infolist():
            stream.seek(member.header_offset + 26)
            begin = member.header_offset + 30 + sum(struct.unpack("<HH", stream.read(4)))
            if member.compress_type or begin + member.file_size > end:
                raise FileError(f"{member.filename!r} is compressed or truncated")
            places[member.filename.partition("/")[2]] = begin, member.file_size
        begin, size = places["data.pkl"]
        if size > _MOST:
            raise FileError(f"its pickle has {size:,} bytes, more than {_MOST:,}")
        stream.seek(begin)
        tensors = _Followed(stream.read(size), places).load()
        if not isinstance(tensors, _Names):
            raise FileError(f"holds a {type(tensors).__name__}, not tensors by their names")
        infos = {name: info for name, info in tensors.items() if isinstance(info, TensorInfo)}
        for name in tensors.keys() - infos.keys():
            raise FileError(f"{name!r} is a {type(tensors[name]).__name__}, not a tensor")
    return SafetensorsFile(path, infos, {})


class _Instructions(dict[int, Callable[[pickle.Unpickler], None]]):
    """A table of the allowed opcodes; any other opcode raises an error with its name."""

    def __missing__(self, code: int) -> NoReturn:
        name = next((known.name for known in opcodes if known.code == chr(code)), f"byte {code}")
        raise FileError(f"its pickle has {name}, which no tensor needs")


class _Names(dict[str, object]):
    """A dictionary whose keys must be text, since hashing other keys could take forever."""

    def __setitem__(self, key: str, value: object) -> None:
        if type(key) is not str:
            raise FileError("its pickle has a key that is not text")
        super().__setitem__(key, value)


class _Followed(Machine):
    """A restricted unpickler; ``places`` maps each storage to its byte range in the file."""

    dispatch = _Instructions({code: Machine.dispatch[code] for code in _FEW})
    dispatch[ord("b")] = lambda self: self.stack.pop()  # type: ignore[attr-defined]  # _metadata
    dispatch[ord("}")] = lambda self: self.append(_Names())  # type: ignore[attr-defined]

    def __init__(self, content: bytes, places: Mapping[str, tuple[int, int]]) -> None:
        super().__init__(io.BytesIO(content))
        self.places = places

    def find_class(self, module: str, name: str) -> object:
        """Return the replacement for a global in the pickle; an unknown global is an error."""
        known = {
            "torch.DoubleStorage": TensorInfo("float64", ()),
            "torch.FloatStorage": TensorInfo("float32", ()),
            "torch.BFloat16Storage": TensorInfo("bfloat16", ()),
            "torch.HalfStorage": TensorInfo("float16", ()),
            "torch._utils._rebuild_tensor_v2": _rebuilt,
            "collections.OrderedDict": _Names,
        }
        if f"{module}.{name}" not in known:
            why = "which is no part of a tensor"
            raise FileError(f"its pickle asks for {module}.{name}, {why}")
        return known[f"{module}.{name}"]

    def persistent_load(self, pid: tuple[str, TensorInfo, str, str, int]) -> TensorInfo:
        """Describe a storage as a one-dimensional tensor."""
        _, kind, key, *_ = pid
        begin, size = self.places["data/" + key]
        return TensorInfo(kind.dtype, (size // BLOCKS[kind.dtype][1],), begin)


def _rebuilt(
    storage: TensorInfo, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> TensorInfo:
    """Locate a tensor in its storage, after checking that it is contiguous and fits."""
    sizes = (offset, *shape, *strides)
    if len(sizes) > 128 or {*map(type, sizes)} != {int} or min(sizes) < 0:
        raise FileError("its pickle has a tensor with an invalid shape")
    contiguous = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    if any(n > 1 and a != b for n, a, b in zip(shape, strides, contiguous, strict=True)):
        raise FileError("a tensor is stored transposed: save it with contiguous()")
    if offset + prod(shape) > storage.size:
        raise FileError(f"a tensor of shape {shape} does not fit into its storage")
    return TensorInfo(storage.dtype, shape, storage.begin + offset * BLOCKS[storage.dtype][1])
