"""Run a submission in a separate process, which can be questioned but never trusted.

The process can neither start another nor write a file. Only arrays, numbers and text come out of
it, and only as answers: nothing that it writes is taken as a verdict.
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

DROPPED = 5  # cells that hang or end the process; after more, nothing later is run
THREADS = ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM", "NUMEXPR")


class Sandbox:
    """Call the functions of a submission; if a call ends the process, the next restarts it.

    Parameters
    ----------
    cells : sequence of str
        Its source. A cell that ends the process, or hangs, is cut before that statement.
    limits : Limits

    Attributes
    ----------
    problems : dict of int to str
        What went wrong in which cell.
    missing : dict of str to str
        Limits that do not hold here, and why.
    printed : str
        The beginning of what it has printed.
    left : float
        Seconds that are left for the file.
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
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.printed = (self.printed + self.process.output.decode("utf-8", "replace"))[:PRINTED]
            self.process = None

    def deadline(self, process: Channel, seconds: float) -> float:
        """Set the deadline on the process's clock, never beyond the time left for the file."""
        return process.clock() + min(seconds, self.left)

    def message(self, process: Channel, deadline: float, request: Value = None) -> dict[str, Any]:
        """Wait for the next message, which counts towards the file's time."""
        began = process.clock()
        try:
            return process.message(deadline, request)
        finally:
            self.left -= max(0.0, process.clock() - began)

    def running(self) -> Channel:
        """Return the process, started if there is none; a cell that ends it is dropped."""
        while self.process is None:
            if self.left <= 0:
                raise Ended(
                    f"the whole file took longer than {self.limits.total_seconds:g} seconds"
                )
            self.process = process = Channel("child", environment)
            secret = Path(
                process.place.name, "secret"
            )  # outside the process's folder, since it must not be readable
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
            # the running cell's number, line and deadline
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
        """Keep what a cell does before ``line``; after too many cuts, only the cells before it."""
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
        """Call a function with `lora_np.exercises.call` in the other process."""
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
            # written by an earlier call, which has its own verdict
            while message.get("to") != self.calls:
                message = self.message(process, deadline)
            return message
        except Ended as ended:
            self.stop()
            return {"error": str(ended), "kind": "Ended"}


def environment(folder: Path) -> dict[str, str]:
    """Build an environment without the teacher's variables, for one thread."""
    kept = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}
    own = {"HOME": str(folder), "TMPDIR": str(folder), "LANG": "C.UTF-8", "MPLBACKEND": "Agg"}
    return kept | own | {f"{library}_NUM_THREADS": "1" for library in THREADS}
