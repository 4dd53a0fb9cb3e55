"""Files that may be hostile: only regular ones, unambiguous JSON, headers of tensors, and
budgets.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from lora_np.checks import StrPath, brief, close_names, shown
from lora_np.hub.dtypes import BLOCKS

MAX_JSON = 32 * 2**20  # bytes; the indexes and configs of the largest models have a few
# of lists and objects; the largest vocabularies, with their merges, have two million
MAX_ITEMS = 3_000_000


class HubError(ValueError):
    """A file that is damaged, hostile or not supported, or that does not fit another.

    The message is one line that names the file and the key, and says what would be right.

    Parameters
    ----------
    message : str
        Shortened in the middle if it is long, since it may quote a file.

    Examples
    --------
    >>> from lora_np import adapters
    >>> try:
    ...     adapters.load("no-such-directory")
    ... except HubError as error:
    ...     print(str(error).partition(";")[0])
    no-such-directory: no such directory
    """

    def __init__(self, message: str) -> None:
        super().__init__(brief(message, 1_500))


class MissingError(HubError, FileNotFoundError):
    """A missing file or directory: it can be caught as either class."""


@contextmanager
def naming(place: object, kinds: tuple[type[Exception], ...] = (ValueError,)) -> Iterator[None]:
    """Make of an error a `HubError` whose message begins with ``place``, unless it does already.

    Parameters
    ----------
    place : object
        Such as a path.
    kinds : tuple of type
        Of the errors that become one.

    Yields
    ------
    None

    See Also
    --------
    HubError : The error.

    Examples
    --------
    >>> try:
    ...     with naming("config.json"):
    ...         raise HubError("r must be at least 1, got 0")
    ... except HubError as error:
    ...     print(error)
    config.json: r must be at least 1, got 0
    """
    try:
        yield
    except kinds as error:
        known = isinstance(error, HubError)
        if known and str(error).startswith(str(place)):
            raise
        raise (type(error) if known else HubError)(f"{place}: {error}") from None


def open_regular(path: Path) -> BufferedReader:
    """``path`` opened for reading, if it is a regular file: a pipe or a device would never end.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    BufferedReader
        To be closed by the caller.

    Raises
    ------
    HubError
        If it is another kind of file. If there is none, the error is a ``FileNotFoundError`` too.
    OSError
        If it cannot be opened.

    See Also
    --------
    read_json : For JSON.

    Examples
    --------
    >>> from lora_np.hub import directory
    >>> with open_regular(directory("austen") / "config.json") as file:
    ...     file.read(1)
    b'{'
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags)
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise HubError(f"{path}: not a regular file")
    return os.fdopen(handle, "rb")


def read_json(path: StrPath) -> dict[str, Any]:
    """The object in a JSON file, at most 32 MiB and 3 million items.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    dict
        What it holds.

    Raises
    ------
    HubError
        If it is not JSON or not an object; if a key is repeated, a number is NaN, infinite or -0,
        text cannot be encoded as UTF-8; if it is nested too deeply, too large, or holds too many
        items.
    OSError
        If the file cannot be read.

    See Also
    --------
    open_regular : For other files.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "config.json"
    >>> _ = path.write_text('{"r": 8, "r": 16}')
    >>> try:
    ...     read_json(path)
    ... except HubError as error:
    ...     print(error.args[0].removeprefix(str(path)))
    : the key 'r' occurs twice
    """
    path = Path(path)
    with open_regular(path) as file, naming(path):
        data = file.read(MAX_JSON + 1)
        if len(data) > MAX_JSON:
            raise HubError(f"more than {MAX_JSON:,} bytes of JSON, which no real file has")
        return parse_json(data)


def parse_json(data: bytes) -> dict[str, Any]:
    """The object in UTF-8 ``data``, as in `read_json`.

    Parameters
    ----------
    data : bytes
        JSON.

    Returns
    -------
    dict
        What it holds.

    Raises
    ------
    HubError
        As for `read_json`.

    See Also
    --------
    read_json : From a file.

    Examples
    --------
    >>> parse_json(b'{"r": 8}')
    {'r': 8}
    """
    # before it is parsed: each takes up to 100 bytes
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_ITEMS:
        raise HubError(f"more than {MAX_ITEMS:,} items of JSON, which no real file has")
    number: Any = _whole if b"-0" in data else None
    try:
        text = data.decode("utf-8")
        content = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=number
        )
        if b"\\u" in data:  # an escape can make half of a pair, which is not text
            json.dumps(content, ensure_ascii=False).encode()
    except HubError:
        raise
    except RecursionError:
        raise HubError("not valid JSON: it is nested too deeply") from None
    except ValueError as error:
        raise HubError(f"not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise HubError(f"must be a JSON object, got {type(content).__name__}")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise HubError(f"the key {twice!r} occurs twice")
    return found


def _whole(text: str) -> int:
    if text == "-0":  # a whole number to Python, a fraction to others
        raise HubError("-0 does not mean the same to all readers of JSON")
    return int(text)


def _no_constant(text: str) -> NoReturn:
    raise HubError(f"{text} is not JSON")


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
    start : int
        Where its bytes begin in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int = 0

    @property
    def size(self) -> int:
        """Number of entries."""
        return prod(self.shape)

    @cached_property
    def nbytes(self) -> int:
        """Number of bytes in the file."""
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
        """The header's entry for the tensor ``name``.

        Raises
        ------
        HubError
            If no tensor has that name; the message lists close ones.
        """
        if name in self.tensors:
            return self.tensors[name]
        raise HubError(f"{self.path} has no tensor {shown(name)}{close_names(name, self.tensors)}")

    def raw(self, info: TensorInfo) -> bytearray:
        """The bytes of one of the tensors; nothing else is read.

        Raises
        ------
        HubError
            If the file has changed since it was opened.
        """
        buffer = bytearray(info.nbytes)
        with open_regular(self.path) as file:
            file.seek(info.start)
            if file.readinto(buffer) != len(buffer):
                raise HubError(f"{self.path} has become shorter since it was opened")
        return buffer
