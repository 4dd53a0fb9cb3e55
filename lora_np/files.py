"""Read files that may be hostile; write files and directories completely or not at all."""

from __future__ import annotations

import atexit
import errno
import io
import json
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from io import BufferedReader
from pathlib import Path
from stat import S_IMODE, S_ISREG
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias, TypeVar

from lora_np.checks import StrPath, brief

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Value = TypeVar("Value")
FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
# largest size of a JSON file in bytes; the indexes of the largest models have a few MiB
MAX_JSON = 64 * 2**20

# largest number of items in a JSON file; the largest vocabularies and their merges together have
# two million
MAX_ITEMS = 3_000_000


Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"


class FileError(ValueError):
    """The error for a file that is damaged, hostile or not supported, or does not fit another file.

    The message is one line that names the file and the key, and gives the right value.

    Parameters
    ----------
    message : str
        The message, which is shortened in the middle if it is long, because it may quote a file.

    Examples
    --------
    >>> from lora_np import adapters
    >>> try:
    ...     adapters.load("no-such-directory")
    ... except FileError as error:
    ...     print(str(error).partition(";")[0])
    no-such-directory: no such directory, and nothing is downloaded
    """

    def __init__(self, message: str) -> None:
        super().__init__(brief(message, 1_500))


class MissingFileError(FileError, FileNotFoundError):
    """The error for a missing file or directory; it can be caught as either base class."""


@contextmanager
def errors_at(place: object, kinds: tuple[type[Exception], ...] = (ValueError,)) -> Iterator[None]:
    """Convert errors in a block to a `FileError` whose message begins with ``place``.

    Parameters
    ----------
    place : object
        The beginning of the message, such as a path.
    kinds : tuple of type
        The types of errors to convert.

    Yields
    ------
    None

    Examples
    --------
    >>> try:
    ...     with errors_at("config.json"):
    ...         raise FileError("r must be at least 1, got 0")
    ... except FileError as error:
    ...     print(error)
    config.json: r must be at least 1, got 0
    """
    try:
        yield
    except kinds as error:
        known = isinstance(error, FileError)
        if known and str(error).startswith(str(place)):
            raise
        raise (type(error) if known else FileError)(f"{place}: {error}") from None


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading; a pipe or a device is an error, as it might never end.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    BufferedReader
        The open file, which the caller closes.

    Raises
    ------
    FileError
        If it is not a regular file. If it is missing, the error is a ``FileNotFoundError`` too.
    OSError
        If it cannot be opened.

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
        raise MissingFileError(unfinished(path.parent) or f"{path}: no such file") from None
    if not S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileError(f"{path}: not a regular file")
    return os.fdopen(handle, "rb")


def decode_text(content: bytes) -> str:
    r"""Decode text in any encoding that common editors and shells write.

    Parameters
    ----------
    content : bytes
        Text in UTF-8 or UTF-16, with or without a byte order mark, or else in Windows-1252.

    Returns
    -------
    str
        The text, whose lines end in line feeds.

    Raises
    ------
    ValueError
        If the content is not text, or has a zero byte.

    Examples
    --------
    >>> decode_text("r = 8\r\n".encode("utf-16")), decode_text(b"# caf\xe9\r")
    ('r = 8\n', '# café\n')
    """
    content = content.removeprefix(b"\xef\xbb\xbf")
    # UTF-16 may lack a byte order mark. Each Latin letter in UTF-16 has a zero byte, so many zero
    # bytes indicate UTF-16.
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff") or 3 * content.count(0) > len(content)
    wider = "utf-16-be" if content[:1] == b"\0" else "utf-16"
    for encoding in (wider,) if wide else ("utf-8", "cp1252"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError as error:
            # `head -c` may cut a file within a letter; one byte of Windows-1252 is not such a cut
            if error.reason != "unexpected end of data" or content[: error.start].isascii():
                continue
            text = content[: error.start].decode(encoding)
        if "\0" not in text:
            return text.replace("\r\n", "\n").replace("\r", "\n")
    raise FileError("not text in UTF-8, UTF-16 or Windows-1252")


def read_json(path: StrPath) -> dict[str, Any]:
    """Read the object in a JSON file of at most 64 MiB and 3 million items.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    dict
        The object.

    Raises
    ------
    FileError
        If the file is not JSON or not an object; if a key is repeated, a number is NaN, -Infinity
        or -0, or text cannot be encoded as UTF-8; or if it is nested too deeply, too large, or has
        too many items.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "config.json"
    >>> _ = path.write_text('{"r": 8, "r": 16}')
    >>> try:
    ...     read_json(path)
    ... except FileError as error:
    ...     print(error.args[0].removeprefix(str(path)))
    : the key 'r' occurs twice
    """
    path = Path(path)
    with open_regular(path) as file, errors_at(path):
        data = file.read(MAX_JSON + 1)
        if len(data) > MAX_JSON:
            raise FileError(f"more than {MAX_JSON:,} bytes of JSON, which no real file has")
        return parse_json(data)


def parse_json(data: bytes) -> dict[str, Any]:
    """Parse a JSON object in UTF-8, with the checks of `read_json`.

    Parameters
    ----------
    data : bytes
        The JSON text.

    Returns
    -------
    dict
        The object.

    Raises
    ------
    FileError
        If the data is not valid, as in `read_json`.

    Examples
    --------
    >>> parse_json(b'{"r": 8}')
    {'r': 8}
    """
    # count the items before parsing, because each parsed item takes up to 100 bytes of memory
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_ITEMS:
        raise FileError(f"more than {MAX_ITEMS:,} items of JSON, which no real file has")
    number = _whole if b"-0" in data else None
    try:
        text = data.decode("utf-8")
        content = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=partial(_constant, text),
            parse_int=number,
        )
        if b"\\u" in data:  # an escape may be a lone surrogate, which encode() rejects
            json.dumps(content, ensure_ascii=False).encode()
    except FileError:
        raise
    except RecursionError:
        raise FileError("not valid JSON: it is nested too deeply") from None
    except ValueError as error:
        raise FileError(f"not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise FileError(f"must be a JSON object, got {type(content).__name__}")
    return content


def _unique(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise FileError(f"the key {twice!r} occurs twice")
    return mapping


def _whole(text: str) -> int:
    # Python reads -0 as the integer 0, but some other languages read it as the float -0.0
    if text == "-0":
        raise FileError("-0 does not mean the same to all readers of JSON")
    return int(text)


def _constant(text: str, constant: str) -> float:
    """Return infinity, which configs of Mamba models contain; refuse -Infinity and NaN."""
    if constant == "Infinity":
        return math.inf
    key = re.search(rf'"[^"]{{1,80}}"(?=\s*:\s*{constant})', text)
    raise FileError(f"{key[0] + ': ' if key else ''}{constant} is not JSON")


# Writing files and directories

STAGE = ".lora-np-"  # the prefix of temporary files and directories, next to the target


def target_path(path: StrPath) -> Path:
    """Convert ``path`` to a Path; a path without a name, such as an empty one, is an error."""
    if not os.path.basename(os.path.abspath(path)) or not os.fspath(path):
        raise ValueError(f"the path to write to must have a name, got {os.fspath(path)!r}")
    return Path(path)


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a temporary file next to ``path``, and move it to ``path`` when it is on the disk.

    A file that replaces an older one gets the older file's mode. If ``path`` is a link, its target
    is replaced. If several processes write to one path, the last one wins.
    """
    if path.parent.exists() and not path.parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path.parent))
    path.parent.mkdir(parents=True, exist_ok=True)
    target = Path(os.path.realpath(path))
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise FileError(f"{path}: a device or a pipe, which no file replaces; name a file")
    stage = _stage(target)
    with _cleaned(partial(stage.unlink, missing_ok=True)), named(path, stage):
        with open(stage, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if target.is_file():
            stage.chmod(S_IMODE(target.stat().st_mode))
        os.replace(stage, target)


def _stage(target: Path) -> Path:
    """Return an unused path next to ``target``, with a short name that any file system allows."""
    return target.with_name(f"{STAGE}{os.urandom(8).hex()}")


@contextmanager
def _cleaned(clean: Callable[[], object]) -> Iterator[None]:
    """Call ``clean`` at the end of the block, or at exit if Ctrl-C interrupts that call."""
    atexit.register(clean)
    try:
        yield
    finally:
        clean()
        atexit.unregister(clean)


@contextmanager
def named(path: Path, stage: Path) -> Iterator[None]:
    """Replace the file name in errors of the block by ``path``, if the name starts with ``stage``.

    An error without a file name gets ``path`` too if the disk is full.
    """
    try:
        yield
    except OSError as error:
        unnamed = error.filename is None and error.errno in FULL
        if not unnamed and not str(error.filename).startswith(str(stage)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_new(files: Mapping[Path, str]) -> tuple[list[Path], list[Path]]:
    """Write the files that do not exist yet, or none of them if one cannot be written.

    Parameters
    ----------
    files : mapping of Path to str
        From paths to texts.

    Returns
    -------
    written : list of Path
        The new files.
    kept : list of Path
        The existing files, which were not changed.
    """
    kept = [path for path in files if os.path.lexists(path)]
    written = [path for path in files if path not in kept]
    with ExitStack() as folders, ExitStack() as undo:
        for path in written:
            folders.enter_context(_parents(path))
            write_text(path, files[path])
            undo.callback(path.unlink, missing_ok=True)
        undo.pop_all()
    return written, kept


def write_text(path: Path, text: str) -> None:
    """Write ``text`` in UTF-8."""
    write_whole(path, lambda file: file.write(text.encode("utf-8")))


def write_json(path: Path, content: object) -> None:
    """Write ``content`` as indented JSON."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_figure(figure: Figure, path: Path, *, dpi: int) -> None:
    """Write a matplotlib figure in the format of the path's extension.

    The figure is drawn in memory, because matplotlib's errors on a full disk differ by format.
    """
    drawn = picture(figure, path.suffix[1:].lower(), dpi=dpi)
    write_whole(path, lambda file: file.write(drawn))


def picture(
    figure: Figure,
    form: str,
    *,
    dpi: float | Literal["figure"] = "figure",
) -> bytes:
    """Render a matplotlib figure without a date, so that equal figures give equal bytes."""
    from matplotlib import rc_context

    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form)
    drawn = io.BytesIO()
    with rc_context({"svg.hashsalt": "lora_np"}):
        figure.savefig(drawn, format=form, metadata=undated, dpi=dpi, transparent=form == "svg")
    return drawn.getvalue()


@contextmanager
def replacing(
    target: StrPath,
    *,
    force: bool,
    writes: Callable[[str], bool] = ().__contains__,
    marks: Collection[str] = (),
    keeps: Collection[str] = (),
    inputs: Collection[StrPath] = (),
    check: Callable[[], object] | None = None,
) -> Iterator[Path]:
    """Yield a new path to write to, which replaces ``target`` if the block succeeds.

    At every moment, the old or the new version is complete on the disk. If the system can, a
    directory and its old version are exchanged in one step. Otherwise the old one is first renamed
    to ``.NAME.old``; if the run is killed then, `unfinished` reports it in the next run.

    Parameters
    ----------
    target : path
        The file or directory to write; missing parent directories are created.
    force : bool
        Whether an existing target may be replaced.
    writes : callable, optional
        For a directory, a function that returns whether the block writes a path relative to the
        target. A target with any other file is an error, because that file would be lost.
    marks : collection of str
        For a directory, names of files, one of which an old target must contain unless it is empty.
    keeps : collection of str
        Names of files to copy from the old target, unless the block writes new ones.
    inputs : collection of paths
        Paths that the block reads; a target that contains one of them is an error.
    check : callable, optional
        For a file, a function that raises an error if the old file must not be replaced.

    Yields
    ------
    Path
        The directory to write to; or the file to write, in a directory that may be used for
        temporary files.

    Raises
    ------
    ValueError
        If the target exists and ``force`` is false, a file in it would be lost, or a killed run has
        left its old version under another name.
    """
    import shutil  # imported late, because it imports several compression modules

    target = Path(os.path.abspath(target_path(target)))
    real_inputs = [Path(os.path.realpath(path)) for path in inputs]
    if check:
        target = Path(os.path.realpath(target))
    stage = _stage(target)
    may_go = check or partial(_check_directory, target, writes, marks)

    def clean() -> None:
        with suppress(OSError):
            stage.chmod(0o700)  # the old directory, which is here now, may be read-only
        shutil.rmtree(stage, ignore_errors=True)

    with _parents(target), named(target, stage), _cleaned(clean):
        _check_target(target, force, real_inputs, may_go)
        stage.mkdir()
        new = stage / target.name if check else stage
        yield new

        for name in keeps:
            if (target / name).is_file() and not (stage / name).exists():
                shutil.copy2(target / name, stage / name, follow_symlinks=False)
        for path in (*stage.rglob("*"), stage):
            _sync(path)
        # check again, because another process may have made the target in the meantime
        _check_target(target, force, real_inputs, may_go)
        if target.exists():
            shutil.copymode(target, new)
        with _uninterrupted():
            _put(new, target, force)
            _sync(target.parent)


@contextmanager
def _parents(target: Path) -> Iterator[None]:
    """Create the directories above ``target``; remove new ones if the block fails."""
    new = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in new:
            with suppress(OSError):  # rmdir fails if the directory is missing or not empty
                folder.rmdir()
        raise


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Delay Ctrl-C until the end of the block, if the system supports that."""
    if not hasattr(signal, "pthread_sigmask"):  # missing on Windows and in browsers
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _check_target(
    target: Path, force: bool, inputs: list[Path], check: Callable[[], object]
) -> None:
    if not os.path.lexists(target):
        if message := unfinished(target):
            raise FileError(message)
        return
    real = Path(os.path.realpath(target))
    if real in inputs:
        raise ValueError(
            f"{target}: is an input itself, and so is not replaced; write to another path"
        )
    if not force:
        raise ValueError(f"{target}: already exists; pass force=True (--force) to replace it")
    for path in inputs:
        if path.is_relative_to(real):
            raise ValueError(f"{target}: holds the input {path}, and so is not replaced")
    check()


def _check_directory(target: Path, writes: Callable[[str], bool], marks: Collection[str]) -> None:
    if target.is_symlink() or not target.is_dir():
        raise ValueError(f"{target}: not a directory, and so is not replaced")
    for folder, folders, files in os.walk(target):
        for name in sorted([*folders, *files]):
            relative = Path(folder, name).relative_to(target).as_posix()
            if not writes(relative):
                raise ValueError(
                    f"{target}: holds {relative}, which would be lost, and so is not replaced"
                )
    before = target.stat()
    names = os.listdir(target)
    if not names or {*names} & {*marks}:
        return
    after = target.stat()
    if (before.st_ino, before.st_ctime_ns) == (after.st_ino, after.st_ctime_ns):
        raise ValueError(f"{target}: has no {' or '.join(marks)}, and so is not replaced")
    # another run replaced the directory during this check, so check the new directory
    _check_directory(target, writes, marks)


def _put(new: Path, target: Path, force: bool) -> None:
    """Move ``new`` to ``target``; if an old directory is there, exchange the two."""
    # rename alone does not suffice, because it cannot replace a directory that is not empty
    if force and new.is_dir() and target.is_dir():
        if _exchanged(new, target):
            return
        aside = _aside(target)
        if os.path.lexists(aside):
            raise FileError(f"{aside}: is in the way of what is written; move or remove it")
        os.rename(target, aside)
        try:
            os.rename(new, target)
        except BaseException:
            os.rename(aside, target)
            raise
        os.rename(aside, new)
        return
    try:
        os.replace(new, target)
    except OSError:
        if not (force and new.is_dir() and target.is_dir()):
            raise
        _put(new, target, force)  # another run has just made the target directory


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two paths in one step by renameat2(2), and return whether that worked."""
    if sys.platform != "linux":
        return False
    import ctypes  # imported late, because Pyodide may lack it

    rename = getattr(ctypes.CDLL(None), "renameat2", None)  # not every C library has this function
    here, exchange = -100, 2
    paths = here, os.fsencode(one), here, os.fsencode(other)
    return rename is not None and rename(*paths, exchange) == 0


def _aside(target: Path) -> Path:
    return target.parent / f".{target.name}.old"


def unfinished(target: Path) -> str:
    """Return a sentence about an old version of ``target`` that a killed run left, or "" if none.

    Parameters
    ----------
    target : Path
        The file or directory that is missing.

    Returns
    -------
    str
        A sentence for an error message; empty if there is no old version.

    Examples
    --------
    >>> unfinished(Path("no-such-directory"))
    ''
    """
    aside = _aside(target)
    if not os.path.lexists(aside):
        return ""
    return f"{target}: a run that replaced it was killed; rename {aside} back to {target.name}"


def _sync(path: Path) -> None:
    """Flush data to the disk, so that a later rename cannot reach the disk before the data."""
    if (os.name == "nt" and path.is_dir()) or not (path.is_file() or path.is_dir()):
        return  # Windows cannot flush directories, and broken links have no data to flush
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
