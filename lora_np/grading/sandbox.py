"""A submission in a process of its own, which can be asked and never trusted.

The process is the only member of its group, since its limits let it start no other; the group is killed at
the end all the same. Only arrays, numbers and text come out of it, and they are answers: nothing that it
writes is taken for a verdict.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from lora_np.exercises import Remote, WireError
from lora_np.grading.confine import NOBODY, Limits
from lora_np.grading.wire import receive, send

TICK = 0.05  # seconds between two looks at the clock and the folder
STARTING = 60.0  # seconds for Python and NumPy, on a slow and busy machine
FILES = 500  # in its folder
DROPPED = 5  # cells that hang or end the process; a file with more is not run
PRINTED = 2_000  # characters of what it prints that are kept
THREADS = ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM", "NUMEXPR")
CODE = "import sys; sys.path[:0] = sys.argv[1:]; from lora_np.grading.child import main; main()"


class Ended(Exception):  # noqa: N818
    """The process is gone; the message says why."""


class Process:
    """One life of a submission: from its start to its end, which is at the latest `kill`."""

    def __init__(self, cells: Sequence[tuple[int, str]], limits: Limits) -> None:
        self.limits = limits
        self.room = tempfile.TemporaryDirectory(prefix="lora-np-", ignore_cleanup_errors=True)
        base = Path(self.room.name)
        base.chmod(0o711)
        self.folder, self.output, secret = base / "work", base / "output", base / "secret"
        self.folder.mkdir()
        secret.touch(mode=0o644)
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-B", "-c", CODE, *import_path()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=self.folder,
                env=environment(self.folder),
                start_new_session=True,
            )
        self.received: queue.Queue[Any] = queue.Queue(maxsize=4)
        self.to_send: queue.Queue[Any] = queue.Queue()
        self.over = threading.Event()
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self.read, self.write)]
        for thread in self.threads:
            thread.start()
        settings = {"limits": astuple(limits), "secret": str(secret), "cells": [list(cell) for cell in cells]}
        self.to_send.put(settings)
        try:
            self.missing: dict[str, str] = self.message(time.monotonic() + STARTING)["limits"]
        except Ended as ended:  # nothing of the submission has run yet: it is not to blame
            raise OSError(f"no process for submissions can be started: {ended}; {self.printed}") from None

    def read(self) -> None:
        assert self.process.stdout is not None
        while not self.over.is_set():
            try:
                message = receive(self.process.stdout)
            except (EOFError, WireError, OSError):
                message = None
            while not self.over.is_set():
                with contextlib.suppress(queue.Full):
                    self.received.put(message, timeout=TICK)
                    break
            if message is None:
                return

    def write(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            while (message := self.to_send.get()) is not None:
                send(self.process.stdin, message)

    def message(self, deadline: float) -> dict[str, Any]:
        """The next message; `Ended` if there is none in time, or it makes no sense."""
        while True:
            if time.monotonic() > deadline:
                raise self.end("it took too long")
            try:
                message = self.received.get(timeout=TICK)
            except queue.Empty:
                if too_full(self.folder, self.limits.folder_size):
                    raise self.end("it wrote too much into its folder") from None
                continue
            if not isinstance(message, dict):
                raise self.end("it stopped, or wrote to the grader's pipe")
            return message

    def end(self, why: str) -> Ended:
        self.kill()
        code = self.process.returncode
        if why.startswith("it stopped") and code is not None and code < 0 and code != -signal.SIGKILL:
            why = f"it stopped with {signal.Signals(-code).name}"
        return Ended(why)

    def kill(self) -> None:
        """End the whole group and clear its folder."""
        if self.over.is_set():
            return
        self.over.set()
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        self.process.wait()
        self.to_send.put(None)
        for thread in self.threads:
            thread.join(timeout=1.0)
        self.printed = self.output.read_bytes()[:PRINTED].decode("utf-8", "replace")
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]
        try:
            self.room.cleanup()
        except RecursionError:  # folders in folders in folders
            subprocess.run(["rm", "-rf", self.room.name], check=False)


class Sandbox:
    """A submission that answers calls. If one ends its process, the next finds it running again.

    Parameters
    ----------
    cells : sequence of str
        Its source. A cell that ends the process, or hangs, is left out from then on.
    limits : Limits

    Attributes
    ----------
    problems : dict of int to str
        What went wrong in which cell.
    missing : dict of str to str
        Limits that do not hold here, and why.
    printed : str
        The beginning of what it has printed.
    """

    def __init__(self, cells: Sequence[str], limits: Limits | None = None) -> None:
        self.cells = dict(enumerate(cells, start=1))
        self.limits = Limits() if limits is None else limits
        self.problems: dict[int, str] = {}
        self.missing: dict[str, str] = {}
        self.printed = ""
        self.dropped = 0
        self.calls = 0
        self.process: Process | None = None
        self.names: list[str] = []

    def __enter__(self) -> Sandbox:
        self.running()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.printed = (self.printed + self.process.printed)[:PRINTED]
            self.process = None

    def running(self) -> Process:
        """The process, started if there is none. A cell that it cannot get past is dropped."""
        while self.process is None:
            self.process = Process(list(self.cells.items()), self.limits)
            self.missing = self.process.missing
            deadline = time.monotonic() + self.limits.seconds
            current = 0  # the cell that runs now
            try:
                while (message := self.process.message(deadline)).get("ready") is None:
                    if message["cell"] in self.cells and message["cell"] > current:
                        current, deadline = message["cell"], time.monotonic() + self.limits.seconds
                    if "problem" in message:
                        self.problems[current] = str(message["problem"])[:500]
                self.names = [str(name) for name in message["ready"]]
            except (Ended, KeyError, TypeError) as error:
                self.stop()
                self.dropped += 1
                if current == 0 or self.dropped > DROPPED:
                    raise Ended(f"the file cannot be run: {error}") from None
                self.problems[current] = str(error)
                del self.cells[current]
        return self.process

    def call(
        self,
        name: str,
        arguments: Sequence[Any],
        forbids: Sequence[str] = (),
        *,
        seconds: float | None = None,
    ) -> dict[str, Any]:
        """What `lora_np.exercises.call` gives, from the other process."""
        try:
            process = self.running()
        except Ended as ended:
            return {"error": str(ended), "kind": "Ended"}
        functions = [a for a in arguments if callable(a)]
        places = iter(range(len(functions)))
        over_there = [Remote(next(places)) if callable(a) else a for a in arguments]
        self.calls += 1
        request = {"call": name, "arguments": over_there, "forbids": list(forbids), "number": self.calls}
        process.to_send.put(request)
        deadline = time.monotonic() + (self.limits.seconds if seconds is None else seconds)
        try:
            while True:
                message = process.message(deadline)
                if message.get("to") != self.calls:
                    continue  # written by an earlier call, which has its own verdict
                if "ask" not in message:
                    return message
                process.to_send.put(reply_to(message, functions))
        except Ended as ended:
            self.stop()
            return {"error": str(ended), "kind": "Ended"}


def reply_to(message: dict[str, Any], functions: Sequence[Any]) -> dict[str, Any]:
    """The value of the function that the submission asks for. Whatever it asks, the grader goes on."""
    try:
        return {"value": functions[message["ask"]](*message["arguments"])}
    except Exception as error:
        return {"error": f"the function that was given to yours: {type(error).__name__}: {error}"[:500]}


def import_path() -> list[str]:
    """Where NumPy and this package are, for a process that does not look around."""
    files = [Path(np.__file__).resolve().parent, Path(__file__).resolve().parents[1]]
    return list(dict.fromkeys(str(package.parent) for package in files))


def environment(folder: Path) -> dict[str, str]:
    """Nothing of the teacher's; one thread, since no more can be started."""
    kept = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}
    own = {"HOME": str(folder), "TMPDIR": str(folder), "LANG": "C.UTF-8", "MPLBACKEND": "Agg"}
    return kept | own | {f"{library}_NUM_THREADS": "1" for library in THREADS}


def too_full(folder: Path, limit: int) -> bool:
    """Whether there are too many files, or too large ones; never looks at more than `FILES`."""
    total, waiting, seen = 0, [folder], 0
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                seen += 1
                with contextlib.suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_size
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                if seen > FILES or total > limit:
                    return True
    return False
