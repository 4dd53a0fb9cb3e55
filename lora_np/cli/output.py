"""Where text reaches a terminal: what a terminal would obey is written as an escape.

Adapters, configs, tokens, file names and messages of errors come from strangers. They are made
printable here, where they are written, so that no command can forget it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from lora_np.checks import printable


class PrintableStream:
    """A text stream that writes control characters as escapes, except line feeds and tabs.

    Parameters
    ----------
    stream : text file
        Such as `sys.stdout`.

    Notes
    -----
    A carriage return stays at the beginning of what is written at once: progress bars return to the
    start of their line. What the stream's encoding lacks is escaped as well.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        bar = text.startswith("\r")
        clean = "\r" * bar + printable(text[bar:], keep="\n\t")
        encoding = self.stream.encoding or "utf-8"
        self.stream.write(clean.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)


@contextmanager
def printable_output() -> Iterator[None]:
    """Send all that is printed through a `PrintableStream`."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(PrintableStream, before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
