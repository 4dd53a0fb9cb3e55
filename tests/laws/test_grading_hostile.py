"""Hostile submissions against `forbids` and in the sandbox; the page on threats says what is true."""

import json
import os
import re
import socket
import subprocess
import sys
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from lora_np.exercises import Rules, exercise
from lora_np.grading import check_file
from lora_np.grading.channel import import_path
from lora_np.grading.confine import Limits
from lora_np.grading.sandbox import Sandbox
from tests.grading.hostile import HOSTILE, POINTS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="all limits hold on Linux only")
PAGE = Path(__file__).parents[2] / "docs" / "learn" / "teaching-threats.md"
M = np.array([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0], [1.0, 0.0, 1.0]])
RIGHT = np.linalg.svd(M)[1]
LIMITS = Limits(seconds=3.0, memory=512 * 2**20)
RULES = Rules(["SVD"])
# each in a process of its own, since many spoil the process that they run in
ALONE = """
import json, os, select, signal, sys

given = json.load(sys.stdin)
sys.path[:0] = given.pop("paths")
import numpy as np
from lora_np.exercises import Rules, call, run_cell

for code in given.pop("codes"):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        names = {}
        run_cell(code, "cell 1", names)
        reply = call(names["attack"], [np.array(given["M"]), given], Rules(["SVD"]))
        value = reply.get("value")
        os.write(writing, json.dumps(value.tolist() if isinstance(value, np.ndarray) else value).encode())
        os._exit(0)
    os.close(writing)
    late = not select.select([reading], [], [], 3)[0]
    told = b"true" if late else os.read(reading, 10_000)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    print(told.decode() or "null", flush=True)
    if os.path.islink(given["write"]) or os.path.isfile(given["write"]):
        os.remove(given["write"])
    elif os.path.isdir(given["write"]):
        os.rmdir(given["write"])
"""


def source(one):
    return f"import numpy as np\n{one.before}\ndef attack(M, given):\n    {one.code}\n"


def got_through(value):
    if value is None or isinstance(value, bool):
        return value is True
    return np.allclose(np.asarray(value, np.float64), RIGHT)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("targets")
    (folder / "secret").write_text("secret")
    folder.chmod(0o755)
    os.environ["LORA_NP_HOSTILE"] = "a token"
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield {
            "read": str(folder / "secret"), "write": str(folder / "written"), "process": os.getpid(),
            "variable": "LORA_NP_HOSTILE", "port": server.getsockname()[1],
        }  # fmt: skip
    del os.environ["LORA_NP_HOSTILE"]


def runnable(one):
    return "scipy" not in one.before or find_spec("scipy") is not None


@pytest.fixture(scope="module")
def alone(given, tmp_path_factory):
    codes = [source(one) for one in HOSTILE if runnable(one)]
    told = subprocess.run(
        [sys.executable, "-c", ALONE],
        input=json.dumps({**given, "M": M.tolist(), "codes": codes, "paths": import_path()}),
        capture_output=True, text=True, cwd=tmp_path_factory.mktemp("alone"),
    )  # fmt: skip
    values = [json.loads(line) for line in told.stdout.splitlines()]
    assert len(values) == len(codes), told.stderr
    return dict(zip([one.name for one in HOSTILE if runnable(one)], values, strict=True))


def test_there_are_many_of_many_classes_each_with_its_own_name():
    assert len(HOSTILE) + len(POINTS) >= 39
    assert len({one.family for one in HOSTILE}) >= 10
    assert len({one.name for one in HOSTILE}) == len(HOSTILE)


@pytest.mark.parametrize("one", HOSTILE, ids=lambda one: one.name)
def test_what_forbids_alone_stops(one, alone):
    if not runnable(one):
        pytest.skip("needs SciPy")
    assert got_through(alone[one.name]) is ("forbids" not in one.stopped)


FIRST = {one.family: one for one in reversed(HOSTILE)}.values()
BOXED = [
    pytest.param(one, id=one.name, marks=() if one in FIRST else pytest.mark.slow)
    for one in HOSTILE
]


@pytest.mark.parametrize("one", BOXED)  # each in two processes: the first of its class at once
def test_what_the_sandbox_stops(one, given):
    if not runnable(one):
        pytest.skip("needs SciPy")
    with Sandbox([source(one)], LIMITS) as box:
        reply = box.call("attack", [M, given], RULES)
    assert got_through(reply.get("value")) is ("sandbox" not in one.stopped), reply
    assert box.missing == {}
    assert not Path(given["write"]).exists()
    assert Path(given["read"]).read_text() == "secret"


@pytest.mark.parametrize("name", POINTS)
def test_a_wrong_answer_earns_nothing_whatever_it_does_to_its_process(name, tmp_path):
    path = tmp_path / "answers.py"
    path.write_text(POINTS[name])
    report = check_file(path, [exercise("lora_count")], limits=LIMITS)
    assert report.outcomes["lora_count"].points == 0, report


def test_the_page_says_for_each_class_which_layer_stops_it():
    counts = defaultdict(list)
    for one in HOSTILE:
        counts[one.family].append(one.stopped)
    rows = re.findall(
        r"^\| ([^|]+) \| (\d+) \| ([^|]+) \| ([^|]+) \|", PAGE.read_text("utf-8"), re.M
    )
    told = {family: (int(count), first, second) for family, count, first, second in rows}
    layers = ("forbids", "sandbox")
    assert told == {
        family: (len(several), *(word([layer in one for one in several]) for layer in layers))
        for family, several in counts.items()
    }
    assert f"{len(HOSTILE) + len(POINTS)} hostile submissions" in PAGE.read_text("utf-8")


def word(stopped):
    if all(stopped):
        return "stopped"
    return f"{sum(stopped)} stopped" if any(stopped) else "not stopped"
