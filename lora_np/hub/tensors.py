"""Describe tensors in files of any format, and read their bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from lora_np.checks import close_names, shown
from lora_np.files import FileError, open_regular
from lora_np.hub.dtypes import BLOCKS


@dataclass(frozen=True)
class TensorInfo:
    """The dtype, shape and offset of one tensor in a file.

    Parameters
    ----------
    dtype : str
        NumPy's name, or "bfloat16", "float8_e4m3", "float8_e5m2"; in GGUF the name of a kind, such
        as "Q4_K".
    shape : tuple of int
        The sizes of its axes, of which the last is contiguous.
    begin : int
        The offset of its first byte in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int = 0

    @property
    def size(self) -> int:
        """The number of entries."""
        return prod(self.shape)

    @cached_property
    def nbytes(self) -> int:
        """The number of bytes that the tensor takes in the file."""
        numbers, size = BLOCKS[self.dtype]
        return prod(self.shape) // numbers * size


@dataclass(frozen=True)
class TensorFile:
    """A file of tensors, safetensors or GGUF, with a checked header.

    Attributes
    ----------
    path : Path
        The path of the file, which does not stay open.
    tensors : mapping of str to TensorInfo
        The tensors by name, in the order of their bytes.
    metadata : mapping of str to object
        The metadata in the header.
    """

    path: Path
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, Any] = field(repr=False)

    def info(self, name: str) -> TensorInfo:
        """Return the dtype, shape and offset of the tensor ``name``.

        Raises
        ------
        FileError
            If no tensor has that name; the message lists close ones.
        """
        if name in self.tensors:
            return self.tensors[name]
        raise FileError(f"{self.path} has no tensor {shown(name)}{close_names(name, self.tensors)}")

    def raw(self, info: TensorInfo) -> bytearray:
        """Read the bytes of one tensor, without reading the rest of the file.

        Raises
        ------
        FileError
            If the file has changed since it was opened.
        """
        buffer = bytearray(info.nbytes)
        with open_regular(self.path) as file:
            file.seek(info.begin)
            if file.readinto(buffer) != len(buffer):
                raise FileError(f"{self.path} has become shorter since it was opened")
        return buffer
