"""Files that are there whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A sibling of ``path`` to write into; it takes its place when the block ends without an error."""
    stage = path.with_name(f".{os.urandom(8).hex()}{path.suffix}")  # matplotlib goes by the ending
    try:
        yield stage
        os.replace(stage, path)
    except OSError as error:
        # A full disk names no file, and the sibling's name would say nothing to anybody.
        if error.errno is None or error.filename not in (None, str(stage)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        stage.unlink(missing_ok=True)
