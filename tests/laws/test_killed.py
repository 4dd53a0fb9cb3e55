"""``kill -9`` while a command writes: each result is there whole, as it was, or not at all, and the
next run succeeds.

A process kills itself before the n-th change that it makes to the disk: an audit hook of Python
counts them, so that every run dies at the same places, on machines of any speed.
"""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lora_np.hub import located
from lora_np.language import located_adapter
from tests.drawing import FULL, few, only_full

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and SIGKILL")

MOMENTS = 30 if FULL else 2
slow = partial(pytest.param, marks=pytest.mark.slow)

# Imports once, then forks for each run; prints one line of JSON for each moment.
DYING = r"""
import contextlib, io, json, os, shutil, signal, sys
from pathlib import Path

from lora_np import language
from lora_np.cli import run
from lora_np.course import copy_lessons, guided_tour

commands, folder, moments, dies = json.loads(sys.argv[1])
folder = os.path.realpath(folder)
fit = guided_tour.fit
guided_tour.fit = lambda *given, **settings: fit(*given, **{**settings, "steps": 2})
guided_tour.step_time = lambda d, k, steps: (1.0, 1.0)
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"}


def changes(event, given):
    if event == "open":
        path, mode, flags = given
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return writes and not isinstance(path, int) and os.path.realpath(os.fsdecode(path)).startswith(folder)
    return event in CHANGES and os.path.realpath(os.fsdecode(given[0])).startswith(folder)


def do(command):
    if command[0] == "save":
        language.save(language.load(command[1]), command[2], force=True)
        return 0
    if command[0] == "lessons":
        copy_lessons(Path(command[1]))
        return 0
    return run(command)


def forked(command, last):
    # the status of a run that dies before the change of number `last`, and how many it had made
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        count = 0

        def hook(event, given):
            nonlocal count
            if (event == "open" or event in CHANGES) and changes(event, given):
                count += 1
                if count == last:
                    os.kill(os.getpid(), signal.SIGKILL)

        said = io.StringIO()
        sys.addaudithook(hook)
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                status = do(command)
            except BaseException as error:
                status, _ = 9, said.write(repr(error))
        os.write(writing, json.dumps([status, count, said.getvalue()[-500:]]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, how = os.waitpid(child, 0)
    if os.WIFSIGNALED(how):
        assert os.WTERMSIG(how) == signal.SIGKILL, how
        return None
    return json.loads(answer)


def content():
    return {
        str(path.relative_to(folder)): path.read_bytes().hex() for path in sorted(Path(folder).rglob("*")) if path.is_file()
    }


first, second = commands
status, _, said = forked(first, 0)
assert status == 0, said
old = content()
# how many changes the second command makes, and what it leaves
status, count, said = forked(second, 0)
assert status == 0, said
new = content()
print(json.dumps({"count": count, "old": old, "new": new}), flush=True)
numbers = sorted({1 + round(i * (count - 1) / (moments - 1)) for i in range(moments)})
for number in numbers:
    for each in Path(folder).iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    forked(first, 0)
    died = forked(second, number) is None
    left = content()
    again = forked(second, 0)
    print(json.dumps({"number": number, "died": died, "left": left, "again": again, "then": content()}), flush=True)
"""


def deaths(folder, first, second):
    """What is there before, after, and for each moment after the kill and after the next run."""
    process = subprocess.run(
        [sys.executable, "-c", DYING, json.dumps([[first, second], str(folder), MOMENTS, True])],
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "Agg"},
        cwd=folder.parent,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    facts, *moments = map(json.loads, process.stdout.splitlines())
    return facts, moments


def hidden(name):
    return any(part.startswith(".") for part in Path(name).parts)


def check(folder, first, second, *, directory=False):
    """Each file, or the ``directory`` as a whole, is what it was or what it is to be."""
    folder.mkdir(exist_ok=True)
    facts, moments = deaths(folder, first, second)
    assert facts["count"] > 1
    assert len(moments) > 1
    for moment in moments:
        where = f"before change {moment['number']} of {facts['count']}"
        assert moment["died"], where
        seen = {name: text for name, text in moment["left"].items() if not hidden(name)}
        if directory:
            assert seen in (facts["old"], facts["new"]), where
        else:
            for name, text in seen.items():
                assert text in (facts["old"].get(name), facts["new"].get(name)), f"{name} {where}"
        assert moment["again"][0] == 0, (where, moment["again"])
        then = {name: text for name, text in moment["then"].items() if not hidden(name)}
        assert then.keys() == facts["new"].keys(), where
        if directory:
            assert then == facts["new"], where


ADAPTER, OTHER = (str(located_adapter(name)) for name in ("king-james", "devils-dictionary"))
BASE = str(located("austen"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["resize", ADAPTER, "--rank", "1"], ["resize", ADAPTER, "--rank", "2"]),
        *few([
            slow(["combine", ADAPTER, "--rank", "1"], ["combine", ADAPTER, ADAPTER, "--rank", "2"]),
            slow(["merge", BASE, ADAPTER], ["merge", BASE, OTHER]),
            slow(["finetune", "austen", "genesis", "--steps", "1", "--rank", "1", "--sample-every", "0"],
             ["finetune", "austen", "genesis", "--steps", "1", "--rank", "2", "--sample-every", "0"]),
        ], 3),
    ],
    ids=lambda command: command[0],
)  # fmt: skip
def test_a_directory_is_old_or_new(first, second, tmp_path):
    folder = tmp_path / "here"
    ends = ["-o", str(folder / "target"), "--force"]
    check(folder, [*first, *ends], [*second, *ends], directory=True)


def test_a_saved_model_is_old_or_new(tmp_path):
    folder = tmp_path / "here"
    check(
        folder, ["save", BASE, str(folder / "m")], ["save", BASE, str(folder / "m")], directory=True
    )


@only_full
@pytest.mark.slow
def test_an_extracted_adapter_is_old_or_new(tmp_path):
    from lora_np.cli import run

    assert run(["merge", BASE, ADAPTER, "-o", str(tmp_path / "tuned")]) == 0
    folder = tmp_path / "here"
    given = ["extract", BASE, str(tmp_path / "tuned"), "-o", str(folder / "target"), "--force"]
    check(folder, [*given, "--rank", "1"], [*given, "--rank", "2"], directory=True)


FILES = {
    "errors": (
        ["errors", "{M}", "--plot", "{out}/p.png", "--force"],
        ["errors", "{M}", "--tolerance", "0.1", "--plot", "{out}/p.png", "--force"],
    ),
    "convert": tuple(
        [
            "convert",
            ADAPTER,
            "--to",
            "gguf",
            "--base",
            BASE,
            "-o",
            "{out}/a.gguf",
            "--force",
            "--dtype",
            dtype,
        ]
        for dtype in ("float32", "float16")
    ),
    "inspect": (["inspect", ADAPTER, "--html", "{out}/p.html", "--force"],) * 2,
    "overlap": (["overlap", ADAPTER, OTHER, "--plot", "{out}/p.svg", "--force"],) * 2,
    "start": (["exercises", "list"], ["exercises", "start", "{out}/x", "--lesson", "1,2"]),
    "nbgrader": (["exercises", "list"], ["exercises", "nbgrader", "{out}/x", "--lesson", "1"]),
    "grade": (
        ["exercises", "list"],
        [
            *["exercises", "grade", "{class}", "--lesson", "3", "--seed", "0", "--jobs", "1", "-o"],
            "{out}/g.csv",
            "--force",
        ],
    ),
    # what lab does before it opens JupyterLab
    "lessons": (["exercises", "list"], ["lessons", "{out}/x"]),
    "tour": (
        ["tour", "--quick", "--out", "{out}/t"],
        ["tour", "--quick", "--seed", "1", "--out", "{out}/t"],
    ),
}


@pytest.mark.parametrize("name", ["start", *few([slow(n) for n in FILES if n != "start"], 4)])
def test_each_file_is_old_or_new(name, tmp_path):
    if name == "nbgrader":
        pytest.importorskip("nbformat")
    np.save(tmp_path / "M.npy", np.diag([1.0, 0.5, 0.1]))
    folder = tmp_path / "here"
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "ada.py").write_text("def lora_count(d, k, r):\n    return r * (d + k)\n")
    places = {"M": tmp_path / "M.npy", "class": tmp_path / "class", "out": folder}
    check(folder, *([word.format(**places) for word in command] for command in FILES[name]))


def test_a_writer_that_is_not_whole_would_be_caught(tmp_path, monkeypatch):
    """The law against a text that is written in place."""
    in_place = """def do(command):
    files = [open(f"{folder}/{name}", "w") for name in "ab"]
    for file in files:
        file.write(command[0])
        file.close()
    return 0


def done(command):"""
    monkeypatch.setattr(sys.modules[__name__], "DYING", DYING.replace("def do(command):", in_place))
    with pytest.raises(AssertionError):
        check(tmp_path / "here", ["first"], ["second"])
