"""Exchange messages with a submission as lines of JSON, because unpickling could run its code.

Whatever the other side writes, reading it yields arrays, numbers, strings, lists and dicts, or a
`WireError`.
"""

from __future__ import annotations

import json
from typing import IO, Any

from lora_np.exercises import Value, WireError, decode, encode

# largest size in bytes of an untrusted message; decoding it may take sixty times this memory
LIMIT = 8 * 2**20
LARGE = 2**30  # largest size in bytes of a trusted message, such as one from the grader


def send(stream: IO[bytes], message: Value, limit: int = LIMIT) -> None:
    """Write one message to a stream as a line of JSON."""
    stream.write(pack(message, limit))
    stream.flush()


def receive(stream: IO[bytes], *, trusted: bool = False) -> Any:
    """Read one message; a ``trusted`` one may be large and contain functions.

    Raise EOFError if the other side has closed the pipe.
    """
    limit = LARGE if trusted else LIMIT
    line = stream.readline(limit + 1)
    if len(line) > limit:
        raise WireError(f"a message may have {limit:,} bytes")
    if not line.endswith(b"\n"):
        raise EOFError("the other side has closed")
    try:
        return decode(json.loads(line), trusted=trusted)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, OverflowError) as error:
        raise WireError(f"not a message: {str(error)[:200]}") from None


def pack(message: Value, limit: int = LIMIT) -> bytes:
    """Encode one message as a line of JSON; raise an error if it is too large."""
    try:
        line = json.dumps(encode(message)).encode() + b"\n"
    except (RecursionError, ValueError) as error:
        raise WireError(f"too deep or too long to send: {error}") from None
    if len(line) > limit:
        raise WireError(f"a message may have {limit:,} bytes, got {len(line):,}")
    return line
