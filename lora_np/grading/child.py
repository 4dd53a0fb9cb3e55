"""Run a submission and answer calls in a confined process; another process grades the answers."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from typing import Any, BinaryIO

from lora_np import exercises
from lora_np.exercises import Rules, WireError, call, run_cell
from lora_np.grading.confine import Limits, confine
from lora_np.grading.wire import receive, send


def main() -> None:
    """Set the limits, run the cells, and answer calls until the grader closes the channel."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    settings = receive(requests, trusted=True)
    take_standard_streams()
    # Make check cells in a notebook do nothing. Use setattr, because mypy rejects an assignment.
    setattr(exercises, "check", lambda *args, **kwargs: None)  # noqa: B010
    if any("matplotlib" in source for _, source in settings["cells"]):
        # import matplotlib before the limits are set, because it may have to write its font cache
        os.environ["MPLCONFIGDIR"] = settings["figures"]
        with contextlib.suppress(Exception):
            importlib.import_module("matplotlib.pyplot")
        del os.environ["MPLCONFIGDIR"]
    limits = Limits(*settings["limits"])
    send(replies, {"limits": confine(limits, secret=settings["secret"], parent=settings["parent"])})
    names = {"__name__": "submission"}

    def reached(line: int) -> None:
        send(replies, {"cell": number, "line": line})

    for number, source in settings["cells"]:
        reached(0)
        if problem := run_cell(source, f"cell {number}", names, reached):
            send(replies, {"problem": problem, "cell": number})
    send(replies, {"ready": [name for name, value in names.items() if callable(value)]})
    with contextlib.suppress(EOFError):
        while True:
            answer(receive(requests, trusted=True), names, replies)


def answer(request: Any, names: dict[str, Any], replies: BinaryIO) -> None:
    to = {"to": request["number"]}
    try:
        function, rules = names.get(request["call"]), Rules(*request["rules"])
        send(replies, call(function, request["arguments"], rules) | to)
    except WireError as error:
        send(replies, {"unusable": str(error)} | to)


def take_standard_streams() -> None:
    """Replace standard input by an empty one, and send standard output to standard error."""
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.dup2(2, 1)
    sys.stdin = io.TextIOWrapper(io.BytesIO())
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)
