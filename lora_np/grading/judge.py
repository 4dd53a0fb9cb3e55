"""Judge one submission in a separate process, whose failure does not affect other grades.

This process runs the submission in yet another one (`Sandbox`), checks its answers, and reports.
Its code is trusted, but the values that it decodes and compares are not. So it limits its own
memory, its time is limited, and it ends when the supervisor ends.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, astuple
from pathlib import Path

from lora_np.exercises import Outcome, Value, Verdict, exercise
from lora_np.grading.channel import STARTING, Channel, Ended
from lora_np.grading.confine import Limits, address_space, die_with, lower
from lora_np.grading.submissions import Report, check_file, printable
from lora_np.grading.wire import LARGE, receive, send

MEMORY = 1024 * 2**20  # bytes that the judge may use beyond those in use at its start
SLACK = 4  # the judge gets this multiple of the file's time limit, plus STARTING


def judged(path: Path, exercises: Sequence[str], seeds: Sequence[int], limits: Limits) -> Report:
    """Judge one file in a separate process, and return a report, even if the process fails."""
    began = time.monotonic()
    order: Value = {
        "path": str(path.resolve()), "limits": astuple(limits), "parent": os.getpid(),
        "exercises": exercises, "seeds": seeds,
    }  # fmt: skip
    try:
        channel = Channel("judge", lambda folder: {**os.environ, "TMPDIR": str(folder)})
        try:
            # this limit is generous, because the submission's processes may wait for a processor
            report = channel.message(
                channel.clock() + SLACK * limits.total_seconds + STARTING, order
            )
        finally:
            channel.kill()
        verdicts = {
            name: [Verdict(**one) for one in told] for name, told in report.pop("verdicts").items()
        }
        outcomes = {name: Outcome(exercise(name), tuple(told)) for name, told in verdicts.items()}
        return Report(path, outcomes, **report)
    except (Ended, OSError, KeyError, TypeError, ValueError) as error:
        failure = f"This file could not be judged to its end: {error}"
        return Report(path, {}, failure=failure, seconds=time.monotonic() - began)


def main() -> None:
    """Receive an order, judge the file, and send the report."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    order = receive(requests, trusted=True)
    if sys.platform == "linux":
        die_with(order["parent"])
    limits = Limits(*order["limits"])
    with contextlib.suppress(ImportError):
        import resource

        # set only soft limits: the submission's process inherits hard ones, but may need more
        cpu = int(SLACK * limits.total_seconds + STARTING)
        lower({resource.RLIMIT_AS: address_space(MEMORY), resource.RLIMIT_CPU: cpu}, hard=False)
    path = Path(order["path"])
    exercises = [exercise(name) for name in order["exercises"]]
    try:
        report = check_file(path, exercises, seeds=order["seeds"], limits=limits)
    except (OSError, ValueError) as error:  # the file cannot be read as a notebook or script
        failure = printable(str(error).replace(str(path), path.name))
        report = Report(path, {}, failure=failure, unreadable=True)
    fields = {
        name: getattr(report, name)
        for name in ("problems", "missing", "printed", "failure", "unreadable")
    }
    fields["verdicts"] = {
        name: [asdict(v) for v in one.verdicts] for name, one in report.outcomes.items()
    }
    send(replies, {**fields, "seconds": report.seconds + time.process_time()}, LARGE)
