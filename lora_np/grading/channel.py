"""Exchange messages with another Python process under deadlines; the process always ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading  # import the whole module, because a browser's Python lacks get_native_id
import time
from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np

from lora_np.exercises import Value
from lora_np.grading.wire import LARGE, receive, send

TICK = 0.05  # seconds between two checks of the deadline
STARTING = 60.0  # time limit in seconds to start Python and NumPy; enough on a busy machine
PRINTED = 2_000  # number of characters to keep of the process's output
CODE = "import sys; sys.path[:0] = sys.argv[1:]; from lora_np.grading.{} import main; main()"


class Ended(Exception):  # noqa: N818
    """Raised when the process has ended; the message gives the reason."""


class Channel:
    """Another process that runs a module's ``main`` in an empty folder, until `kill` ends it.

    Messages are read only on request, so the pipe stops a process that writes too many. A thread
    kills the process at its deadline, so that no read or write can hang. The first 2,000 characters
    of the process's output are kept.
    """

    def __init__(self, module: str, environment: Callable[[Path], Mapping[str, str]]) -> None:
        self.place = tempfile.TemporaryDirectory(prefix="lora-np-", ignore_cleanup_errors=True)
        folder = Path(self.place.name, "work")
        folder.mkdir()
        folder.parent.chmod(0o711)
        command = [sys.executable, "-I", "-B", "-c", CODE.format(module), *import_path()]
        try:
            self.process: Any = subprocess.Popen(
                command, stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=folder, env=environment(folder),
                start_new_session=True,
            )  # fmt: skip
        except OSError:  # a browser, for example, cannot start processes
            self.place.cleanup()
            raise
        self.over = threading.Event()
        self.output = b""
        # Linux reports how long the process, and the thread that awaits its messages, have waited
        # for a processor. This dict maps the /proc folders of the reports to seconds.
        self.waiters = dict.fromkeys(
            (f"/proc/{self.process.pid}", f"/proc/self/task/{threading.get_native_id()}"), 0.0
        )
        self.deadline = inf  # the deadline of the awaited message; infinite if none is awaited
        self.late = False
        self.threads = [
            threading.Thread(target=work, daemon=True) for work in (self.watch, self.listen)
        ]
        for thread in self.threads:
            thread.start()

    def watch(self) -> None:
        while not self.over.wait(TICK):
            if self.clock() >= self.deadline:
                self.late = True
                self.kill_group()

    def listen(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while content := os.read(self.process.stderr.fileno(), 2**16):
                self.output += content[: max(0, 4 * PRINTED - len(self.output))]

    def clock(self) -> float:
        """Return a time in seconds; on Linux, without the time spent waiting for a processor.

        On a busy machine, both the process and the thread that awaits its messages have to wait.
        """
        for one in self.waiters:
            with contextlib.suppress(OSError, ValueError, IndexError):
                _, waited, *_ = Path(one, "schedstat").read_text("ascii").split()
                self.waiters[one] = int(waited) / 1e9
        return time.monotonic() - sum(self.waiters.values())

    def message(self, deadline: float, request: Value = None) -> dict[str, Any]:
        """Send ``request`` and wait for the next message until `clock` reaches ``deadline``.

        Raise `Ended` if no dict arrives in time.
        """
        self.late = self.clock() >= deadline
        self.deadline = deadline
        # read nothing after the deadline, because the process may send messages without end
        with contextlib.suppress(EOFError, OSError, ValueError, MemoryError):
            if not self.late:
                if request is not None:
                    send(self.process.stdin, request, LARGE)
                message = receive(self.process.stdout)
                self.deadline = inf
                if isinstance(message, dict):
                    return message
        self.kill()
        code = self.process.returncode
        if not self.late and code < 0 and code != -signal.SIGKILL:
            raise Ended(f"it stopped with {signal.Signals(-code).name}")
        raise Ended(
            "it took too long" if self.late else "it stopped, or wrote to the grader's pipe"
        )

    def kill(self) -> None:
        """End the process and all others in its group, and delete its folder."""
        if self.over.is_set():
            return
        self.over.set()
        self.kill_group()
        for thread in self.threads:
            thread.join(timeout=1.0)
        # join the threads before wait() frees the process id, because `watch` could otherwise kill
        # another process that gets this id
        self.process.wait()
        with contextlib.suppress(OSError), self.process:  # leaving the context closes the pipes
            pass
        # the process may have made folders that are too deep to delete
        with contextlib.suppress(RecursionError, OSError):
            self.place.cleanup()

    def kill_group(self) -> None:
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()


def import_path() -> list[str]:
    """List the folders of NumPy and this package, for a process with an isolated import path."""
    files = [Path(np.__file__).resolve().parent, Path(__file__).resolve().parents[1]]
    return list(dict.fromkeys(str(package.parent) for package in files))
