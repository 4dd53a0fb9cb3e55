"""Make all printed text safe for a terminal by escaping control characters.

Adapters, configs, tokens, file names and error messages may contain a stranger's text. It is
escaped here, where it is printed, so that no command can forget it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from time import monotonic
from typing import TextIO

from lora_np.checks import encodable, printable

SECONDS = 30  # outside a terminal, a line at this interval replaces the progress bar


class PrintableStream:
    """A text stream that writes control characters as escapes, except line feeds and tabs.

    Parameters
    ----------
    stream : text file
        The stream to write to, such as `sys.stdout`.

    Notes
    -----
    A carriage return is kept at the beginning of a written text, because progress bars return to
    the beginning of their line. Characters that the stream's encoding lacks are escaped, or
    replaced by ASCII.
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
    """Print through a `PrintableStream` inside the block, and show that the block is still running.

    A terminal shows progress bars. Elsewhere, a line is printed every ``SECONDS`` seconds.
    """
    before, over, begin = (sys.stdout, sys.stderr), Event(), monotonic()

    def tell() -> None:
        while not over.wait(SECONDS):
            print(f"running for {monotonic() - begin:.0f} s", file=sys.stderr)

    sys.stdout, sys.stderr = map(PrintableStream, before)
    try:
        if not before[1].isatty():
            with suppress(RuntimeError):  # Python in a browser cannot start threads
                Thread(target=tell, daemon=True).start()
        yield
    finally:
        over.set()
        sys.stdout, sys.stderr = before
