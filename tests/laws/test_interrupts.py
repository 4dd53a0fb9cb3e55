"""Ctrl-C and ``kill -9`` at any line of what writes files: no file is lost or replaced in part.

Each run dies before a drawn line of `lora_np.files` (or of `contextlib`, whose managers it uses),
counted by a trace: the same line in every run, on machines of any speed. After Ctrl-C nothing
temporary is left; after a kill, at most one entry, whose name tells what it is.
"""

import json
import random
import signal
import subprocess
import sys

import pytest

from lora_np.files import STAGE
from tests.drawing import FULL
from tests.laws.test_commands import make_files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and SIGKILL")

MOMENTS = 36 if FULL else 1  # of each signal and command

# Imports once, then forks for each run of each pair of commands; prints one line of JSON for each.
DYING = r"""
import atexit, contextlib, io, json, os, shutil, signal, sys
from pathlib import Path

from lora_np.cli import run


def forked(command, last=0, number=0):
    # the status of a run that gets the signal `number` at the line `last`, and its lines
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        lines = 0

        def line(frame, event, _):
            nonlocal lines
            lines += event == "line"
            if lines == last and event == "line":
                os.kill(os.getpid(), number)
            return line

        def call(frame, *_):
            watched = frame.f_code.co_filename.endswith(("lora_np/files.py", "contextlib.py"))
            return line if watched else None

        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            sys.settrace(call)
            try:
                status = run(command)
            except KeyboardInterrupt:
                status = 130
            finally:
                sys.settrace(None)
        atexit._run_exitfuncs()
        os.write(writing, json.dumps([status, lines, said.getvalue()[-500:]]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return json.loads(answer) if answer else [-9, 0, ""]


def content():
    found = (path for path in sorted(Path(folder).rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes().hex() for path in found}


def fresh():
    shutil.rmtree(folder)
    shutil.copytree(folder + "-old", folder)


for name, first, second, folder, runs in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()):
        assert run(first) == 0
        shutil.copytree(folder, folder + "-old")
        old = content()
        assert run(second) == 0  # what it imports is there, before it is forked
    new = content()
    fresh()
    _, count, _ = forked(second)
    for moment, number in runs:
        fresh()
        status, _, said = forked(second, 1 + int(moment * count), number)
        left = content()
        again = forked(second)
        print(json.dumps([name, moment, number, status, said, left, again, old, new, content()]), flush=True)
"""

ENDS = ["-o", "{here}/target", "--force"]
FILE = ["-o", "{here}/a.gguf", "--force", "--base", "{files}/model"]
GGUF = ["convert", "{files}/adapter", "--to", "gguf"]
PAGE = ["--html", "{here}/page.html", "--force"]
COMMANDS = {
    "resize": (["resize", "{files}/adapter", "--rank", "1", *ENDS],
               ["resize", "{files}/adapter", "--rank", "2", *ENDS]),
    "combine": (["combine", "{files}/adapter", *ENDS],
                ["combine", "{files}/adapter", "{files}/other", *ENDS]),
    "merge": (["merge", "{files}/model", "{files}/adapter", "--any-base", *ENDS],
              ["merge", "{files}/model", "{files}/other", "--any-base", *ENDS]),
    "extract": (["extract", "{files}/model", "{files}/tuned", "--rank", "1", *ENDS],
                ["extract", "{files}/model", "{files}/tuned", "--rank", "2", *ENDS]),
    "convert": ([*GGUF, "--dtype", "float32", *FILE], [*GGUF, "--dtype", "float16", *FILE]),
    "inspect": (["inspect", "{files}/adapter", *PAGE], ["inspect", "{files}/other", *PAGE]),
    "start": (["exercises", "list"], ["exercises", "start", "{here}/x", "--lesson", "1,2"]),
}  # fmt: skip


def hidden(name):
    return any(part.startswith(".") for part in name.split("/"))


@pytest.mark.parametrize("names", [
    [name for name in COMMANDS if name != "inspect"],
    pytest.param(["inspect"], marks=pytest.mark.slow),
], ids=["most", "inspect"])  # fmt: skip
def test_a_signal_costs_no_file(names, tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    make_files(files)
    jobs = []
    for name in names:
        here, draw = tmp_path / name, random.Random(name)
        here.mkdir()
        commands = ([word.format(here=here, files=files) for word in one] for one in COMMANDS[name])
        signals = (int(one) for one in (signal.SIGINT, signal.SIGKILL) for _ in range(MOMENTS))
        jobs.append([name, *commands, str(here), [(draw.random(), one) for one in signals]])
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DYING, json.dumps(jobs)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    ends = [json.loads(line) for line in process.stdout.splitlines()]
    assert [end[0] for end in ends] == [job[0] for job in jobs for _ in job[-1]]
    for name, moment, number, status, said, left, again, old, new, then in ends:
        where = f"{name}, signal {number} at {moment:.4f}: status {status}, {said!r}"
        seen = {path: text for path, text in left.items() if not hidden(path)}
        several = name == "start"  # several files, each of them whole
        if several:
            assert seen.items() <= new.items(), where
        else:
            assert seen in (old, new), where
        # of entries in one another, the outer one
        hidden_parts = ([p for p in path.split("/") if p.startswith(".")] for path in left)
        temporary = {parts[0] for parts in hidden_parts if parts}
        if number == signal.SIGINT:
            assert status in (130, 0), where
            assert not temporary, (where, sorted(left))
        assert len(temporary) <= 1, (where, temporary)
        assert all(entry.startswith(STAGE) for entry in temporary), (where, temporary)
        assert again[0] == 0, (where, again)
        assert {path: text for path, text in then.items() if not hidden(path)} == new, where
