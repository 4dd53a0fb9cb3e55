"""The judge: a process for one submission's checks, which may fail without harm to the grades of others.

It runs the submission in another process (`Sandbox`), puts the questions, and reports each exercise as soon
as it is decided. It is our code, but what it decodes and compares comes from a stranger: so it limits its
own memory, its time is limited, and it ends when the supervisor ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from lora_np.exercises import Outcome, exercise
from lora_np.grading.channel import STARTING, Channel, Ended
from lora_np.grading.confine import Limits, address_space, die_with
from lora_np.grading.submissions import Report, check_file
from lora_np.grading.wire import receive, send

MEMORY = 1024 * 2**20  # bytes beyond what Python and the library take: sixteen times the largest message
TELLING = 10.0  # seconds for the report of what was decided, once the submission's time is over


def judged(path: Path, exercises: Sequence[str], questions: Sequence[int], limits: Limits) -> dict[str, Any]:
    """What `Report.to_dict` gives for one file, from a judge in a separate process.

    If the judge fails, what it has reported by then counts, and every other exercise says why there are no
    points.

    Raises
    ------
    OSError
        If no process can be started at all.
    """
    with tempfile.TemporaryDirectory(prefix="lora-np-judge-", ignore_cleanup_errors=True) as folder:
        channel = Channel("judge", folder=Path(folder), environment={**os.environ, "TMPDIR": folder})
        channel.to_send.put(
            {
                "path": os.fsencode(path.resolve()).hex(),
                "exercises": list(exercises),
                "questions": list(questions),
                "limits": astuple(limits),
                "parent": os.getpid(),
            }
        )
        deadline = time.monotonic() + limits.total_seconds + 2 * STARTING + TELLING
        outcomes: list[dict[str, Any]] = []
        try:
            while True:
                message = channel.message(deadline)
                if "cannot start" in message:
                    raise OSError(message["cannot start"])
                if "report" in message:
                    return dict(message["report"])
                outcomes.append(message["outcome"])
        except Ended as ended:
            why = f"This file could not be judged to its end: {ended}"
            done = {outcome["exercise"] for outcome in outcomes}
            outcomes += [
                Outcome.failed(exercise(name), why).to_dict() for name in exercises if name not in done
            ]
            return {"exercises": outcomes}
        finally:
            channel.kill()
            with contextlib.suppress(RecursionError, OSError):
                shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Receive what to judge, judge it, and report."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    order = receive(requests)
    if sys.platform == "linux":
        die_with(order["parent"])
    limit_memory()
    limits = Limits(*order["limits"])
    path = Path(os.fsdecode(bytes.fromhex(order["path"])))
    try:
        report = check_file(
            path,
            [exercise(name) for name in order["exercises"]],
            questions=order["questions"],
            limits=limits,
            told=lambda outcome: send(replies, {"outcome": outcome.to_dict()}),
        )
    except OSError as error:
        send(replies, {"cannot start": str(error)})
        return
    except ValueError as error:  # neither a notebook nor a script
        report = Report(path, {}, [str(error)])
    send(replies, {"report": report.to_dict()})


def limit_memory() -> None:
    """The soft limit only: a submission's process sets limits that are lower, and hard."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = address_space(MEMORY)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
