"""Files that are written whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


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


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """What ``write`` puts into a file, which is on the disk before it takes the place of an older one."""
    with whole(path) as stage, open(stage, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
