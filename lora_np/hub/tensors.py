"""Tensors in files of any format: what a header says of each, and its bytes."""

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
    """The header's entry for one tensor.

    Parameters
    ----------
    dtype : str
        NumPy's name, or "bfloat16", "float8_e4m3", "float8_e5m2"; in GGUF the name of a kind, such
        as "Q4_K".
    shape : tuple of int
        Of its axes, the last one contiguous.
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
        """The number of bytes in the file."""
        numbers, size = BLOCKS[self.dtype]
        return prod(self.shape) // numbers * size


@dataclass(frozen=True)
class TensorFile:
    """What two formats share: a checked header, and the bytes of one tensor after another.

    Attributes
    ----------
    path : Path
        The file, which is not held open.
    tensors : mapping of str to TensorInfo
        By name, in the order of their bytes.
    metadata : mapping of str to object
        What the writer noted.
    """

    path: Path
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, Any] = field(repr=False)

    def info(self, name: str) -> TensorInfo:
        """Return the header's entry for the tensor ``name``.

        Raises
        ------
        FileError
            If no tensor has that name; the message lists close ones.
        """
        if name in self.tensors:
            return self.tensors[name]
        raise FileError(f"{self.path} has no tensor {shown(name)}{close_names(name, self.tensors)}")

    def raw(self, info: TensorInfo) -> bytearray:
        """Read the bytes of one tensor; nothing else is read.

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
