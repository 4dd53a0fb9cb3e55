"""The judge: a process for one submission's checks, which may fail without harm to the grades of others.

It runs the submission in another process (`Sandbox`), asks the questions, and reports each exercise as soon
as it is decided. It is our code, but what it decodes and compares comes from a stranger: so it limits its own
memory, its time is limited, and it ends when the supervisor ends.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from lora_np.exercises import Outcome, exercise
from lora_np.grading.channel import STARTING, Channel, Ended
from lora_np.grading.confine import Limits, address_space, die_with, lower
from lora_np.grading.submissions import Report, check_file, printable
from lora_np.grading.wire import receive, send

MEMORY = 1024 * 2**20  # bytes beyond what Python and the library take: sixteen times the largest message
SLACK = 4  # multiple of a file's time limit, by the clock
TELLING = 10.0  # seconds for the report of what was decided, once the submission's time is over


def judged(path: Path, exercises: Sequence[str], questions: Sequence[int], limits: Limits) -> Report:
    """The report on one file, from a judge in a separate process.

    If the judge fails, whatever it has reported so far counts, and every other exercise says why it has no
    points.
    """
    began = time.monotonic()
    report = Report(path, {})
    name = os.fsencode(path.resolve()).hex()
    order: dict[str, Any] = {"path": name, "exercises": list(exercises), "questions": list(questions)}
    order |= {"limits": astuple(limits), "parent": os.getpid()}
    try:
        channel = Channel("judge", lambda folder: {**os.environ, "TMPDIR": str(folder)})
        channel.to_send.put(order)
        # By the clock, where the processes of the file may have to wait for others.
        deadline = channel.clock() + SLACK * limits.total_seconds + STARTING + TELLING
        try:
            while "seconds" not in (message := channel.message(deadline)):
                told = Outcome.from_dict(exercise(message["exercise"]), message)
                report.outcomes[told.exercise.name] = told
        finally:
            channel.kill()
        report = replace(report, **message)
    except (Ended, OSError, KeyError, TypeError, ValueError) as error:
        failure = f"This file could not be judged to its end: {error}"
        report = replace(report, failure=failure, seconds=time.monotonic() - began)
    for name in exercises:
        report.outcomes.setdefault(name, Outcome.failed(exercise(name), report.failure))
    return report


def main() -> None:
    """Receive what to judge, judge it, and report."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    order = receive(requests)
    if sys.platform == "linux":
        die_with(order["parent"])
    limits = Limits(*order["limits"])
    limit_resources(limits)
    path = Path(os.fsdecode(bytes.fromhex(order["path"])))
    exercises = [exercise(name) for name in order["exercises"]]

    def tell(outcome: Outcome) -> None:
        send(replies, outcome.to_dict())

    try:
        report = check_file(path, exercises, questions=order["questions"], limits=limits, told=tell)
    except (OSError, ValueError) as error:  # neither a notebook nor a script
        report = Report(path, {}, failure=printable(str(error).replace(str(path), path.name)))
    more = {name: getattr(report, name) for name in ("problems", "missing", "printed", "failure")}
    send(replies, {**more, "seconds": report.seconds + time.process_time()})


def limit_resources(limits: Limits) -> None:
    """The soft limits only: a submission's process sets limits that are lower, and hard."""
    with contextlib.suppress(ImportError):
        import resource

        cpu = int(SLACK * limits.total_seconds + STARTING)
        lower({resource.RLIMIT_AS: address_space(MEMORY), resource.RLIMIT_CPU: cpu}, hard=False)
