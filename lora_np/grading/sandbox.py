"""Run a submission in a separate process that answers calls but is never trusted.

The process can neither start another one nor write a file. It returns only arrays, numbers and
text, and only as answers, which are graded elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import astuple
from math import inf
from pathlib import Path
from typing import Any

from lora_np.exercises import Reply, Rules, Value
from lora_np.grading.channel import PRINTED, STARTING, Channel, Ended
from lora_np.grading.confine import USUAL, Limits

# A cell that hangs or ends the process is cut off before the line that was running. After this many
# cuts, the next such cell and all later cells are dropped.
DROPPED = 5
THREADS = ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM", "NUMEXPR")


class Sandbox:
    """A submission's functions in another process, which is restarted after a call has ended it.

    Parameters
    ----------
    cells : sequence of str
        The cells of the submission. A cell that ends the process, or hangs, is cut before that
        statement.
    limits : Limits
        The limits of the process.

    Attributes
    ----------
    problems : dict of int to str
        From the number of a cell to its error.
    missing : dict of str to str
        Limits that could not be enforced, and why.
    printed : str
        The beginning of the submission's output.
    left : float
        The seconds that are left for the file.
    """

    def __init__(self, cells: Sequence[str], limits: Limits = USUAL) -> None:
        self.cells = {number: cell for number, cell in enumerate(cells, start=1) if cell.strip()}
        self.limits = limits
        self.left = self.limits.total_seconds
        self.problems: dict[int, str] = {}
        self.missing: dict[str, str] = {}
        self.printed = ""
        self.cuts = 0
        self.calls = 0
        self.process: Channel | None = None
        self.names: list[str] = []

    def __enter__(self) -> Sandbox:
        self.running()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process, and append its output to ``printed``."""
        if self.process is not None:
            self.process.kill()
            self.printed = (self.printed + self.process.output.decode("utf-8", "replace"))[:PRINTED]
            self.process = None

    def deadline(self, process: Channel, seconds: float) -> float:
        """Return the time ``seconds`` from now, or the end of the file's time if it is earlier."""
        return process.clock() + min(seconds, self.left)

    def message(self, process: Channel, deadline: float, request: Value = None) -> dict[str, Any]:
        """Send ``request`` and await the next message; the time counts towards the file's limit."""
        began = process.clock()
        try:
            return process.message(deadline, request)
        finally:
            self.left -= max(0.0, process.clock() - began)

    def running(self) -> Channel:
        """Return the process, after starting one if needed; cut each cell that ends or hangs it."""
        while self.process is None:
            if self.left <= 0:
                raise Ended(
                    f"the whole file took longer than {self.limits.total_seconds:g} seconds"
                )
            self.process = process = Channel("child", environment)
            # make a file outside the process's folder, to test that the process cannot read it
            secret = Path(process.place.name, "secret")
            secret.touch(mode=0o644)
            figures = os.environ.get("MPLCONFIGDIR") or str(Path.home() / ".cache" / "matplotlib")
            settings: Value = {
                "limits": astuple(self.limits), "secret": str(secret), "parent": os.getpid(),
                "figures": figures, "cells": [*self.cells.items()],
            }  # fmt: skip
            try:
                deadline = self.deadline(process, STARTING)
                self.missing = self.message(process, deadline, settings)["limits"]
            except (Ended, KeyError, TypeError) as error:
                self.stop()
                raise Ended(f"no process can be started for it: {error}; {self.printed}") from None
            # the number of the running cell is 0 until the first cell has started
            current, line, deadline = 0, 0, self.deadline(process, self.limits.seconds)
            try:
                while (message := self.message(process, deadline)).get("ready") is None:
                    if message["cell"] in self.cells and message["cell"] > current:
                        current = message["cell"]
                        deadline = self.deadline(process, self.limits.seconds)
                    line = int(message.get("line", line))
                    if "problem" in message:
                        self.problems[current] = str(message["problem"])[:500]
                self.names = [str(name) for name in message["ready"]]
            except (Ended, KeyError, TypeError, ValueError) as error:
                self.stop()
                if current == 0:
                    raise Ended(f"the file cannot be run: {error}") from None
                self.problems[current] = f"{error}, at line {line}"
                self.cut(current, line)
        return self.process

    def cut(self, number: int, line: int) -> None:
        """Cut a cell off before ``line``; after too many cuts, drop it and all later cells."""
        self.cuts += 1
        if self.cuts > DROPPED:
            self.cells = {n: cell for n, cell in self.cells.items() if n < number}
        else:
            self.cells[number] = "\n".join(self.cells[number].split("\n")[: max(0, line - 1)])

    def call(
        self,
        name: str,
        arguments: Sequence[Value],
        rules: Rules | None = None,
        *,
        seconds: float = inf,
    ) -> Reply:
        """Call a function in the other process, as `lora_np.exercises.call` does."""
        seconds = min(seconds, self.limits.seconds)
        self.calls += 1
        request: Value = {
            "call": name, "arguments": arguments, "rules": rules or (), "number": self.calls
        }  # fmt: skip
        try:
            if min(seconds, self.left) <= 0:
                raise Ended("it took too long")
            process = self.running()
            deadline = self.deadline(process, seconds)
            message = self.message(process, deadline, request)
            # skip messages that belong to earlier calls
            while message.get("to") != self.calls:
                message = self.message(process, deadline)
            return message
        except Ended as ended:
            self.stop()
            return {"error": str(ended), "kind": "Ended"}


def environment(folder: Path) -> dict[str, str]:
    """Build a process's environment, for one thread and without the teacher's variables."""
    kept = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}
    own = {"HOME": str(folder), "TMPDIR": str(folder), "LANG": "C.UTF-8", "MPLBACKEND": "Agg"}
    return kept | own | {f"{library}_NUM_THREADS": "1" for library in THREADS}
