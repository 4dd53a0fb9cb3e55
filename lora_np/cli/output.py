"""Where text reaches a terminal: what a terminal would obey is written as an escape.

Adapters, configs, tokens, file names and messages of errors come from strangers. They are made
printable here, where they are written, so that no command can forget it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from time import monotonic
from typing import TextIO

from lora_np.checks import encodable, printable

SECONDS = 30  # between lines, where no terminal shows a progress bar


class PrintableStream:
    """A text stream that writes control characters as escapes, except line feeds and tabs.

    Parameters
    ----------
    stream : text file
        Such as `sys.stdout`.

    Notes
    -----
    A carriage return stays at the beginning of what is written at once: progress bars return to the
    start of their line. What the stream's encoding lacks is escaped, or drawn in ASCII.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        bar = text.startswith("\r")
        clean = "\r" * bar + printable(text[bar:], keep="\n\t")
        self.stream.write(encodable(clean, self.stream.encoding))
        return len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)


@contextmanager
def printable_output() -> Iterator[None]:
    """Send all that is printed through a `PrintableStream`, and show that the block still runs.

    Where no terminal shows its progress, a line does so every `SECONDS`.
    """
    before, over, begin = (sys.stdout, sys.stderr), Event(), monotonic()

    def tell() -> None:
        while not over.wait(SECONDS):
            print(f"running for {monotonic() - begin:.0f} s", file=sys.stderr)

    sys.stdout, sys.stderr = map(PrintableStream, before)
    try:
        if not before[1].isatty():
            with suppress(RuntimeError):  # a browser has no threads
                Thread(target=tell, daemon=True).start()
        yield
    finally:
        over.set()
        sys.stdout, sys.stderr = before
