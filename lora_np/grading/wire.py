"""Messages between the grader and a submission: JSON and the bytes of arrays, never a pickle.

A message is a length, a JSON document and the bytes of its arrays. Whatever the other side writes, reading it
yields arrays, numbers, strings, lists and dicts, or a `WireError`.
"""

from __future__ import annotations

import json
import struct
from typing import IO, Any

from lora_np.exercises import WireError, decode, encode

LIMIT = 64 * 2**20  # bytes of one message
DOCUMENT = 2**20  # bytes of its JSON, which takes up to sixty times as much memory once it is read
HEAD = struct.Struct(">II")  # bytes of the JSON document, bytes of the arrays


def send(stream: IO[bytes], message: Any) -> None:
    """Write one message."""
    stream.write(pack(message))
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Read one message; EOFError where there is none."""
    json_size, arrays_size = HEAD.unpack(read(stream, HEAD.size))
    check_size(json_size, arrays_size)
    document, arrays = read(stream, json_size), read(stream, arrays_size)
    try:
        return decode(json.loads(document), arrays)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, OverflowError) as error:
        raise WireError(f"not a message: {str(error)[:200]}") from None


def check_size(document: int, arrays: int) -> None:
    if document > DOCUMENT or document + arrays > LIMIT:
        size = document + arrays
        raise WireError(f"a message may have {LIMIT:,} bytes, {DOCUMENT:,} outside arrays, got {size:,}")


def pack(message: Any) -> bytes:
    """One message as bytes."""
    try:
        document, arrays = encode(message)
        text = json.dumps(document).encode()
    except (RecursionError, ValueError) as error:
        raise WireError(f"too deep or too long to send: {error}") from None
    check_size(len(text), len(arrays))
    return HEAD.pack(len(text), len(arrays)) + text + arrays


def read(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError("the other side has closed")
    return content
