"""A submission in a process of its own: what it may not do, it cannot do."""

import os
import sys
import time

import numpy as np
import pytest

from lora_np.grading.confine import REFUSED, Limits, filter_program
from lora_np.grading.sandbox import Ended, Sandbox

pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits are those of POSIX systems")
linux = pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's")
LIMITS = Limits(seconds=3.0)
BAD = """
import os, sys, signal, socket, subprocess, threading, time
import numpy as np

def right(x):
    return 2 * x

def ask(f, x):
    return f(x) + f(2 * x)

def memory():
    return np.ones(2**28).sum()

def large_file():
    with open("large", "wb") as file:
        file.write(bytes(2**21))

def elsewhere(path):
    open(path, "w").write("x")

def read(path):
    return open(path).read()

def fork():
    return os.fork()

def thread():
    threading.Thread(target=print).start()

def program():
    return subprocess.run(["true"]).returncode

def kill(pid):
    os.kill(pid, signal.SIGTERM)

def session():
    os.setsid()

def network():
    socket.create_connection(("127.0.0.1", 9))

def raise_limits():
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

def limits_of(pid):
    import resource
    resource.prlimit(pid, resource.RLIMIT_CPU, (1, 1))

def priority(pid):
    os.setpriority(os.PRIO_PROCESS, pid, 19)

def environment():
    return dict(os.environ)

def listing():
    return os.listdir(".")

def printing():
    while True:
        print("all work and no play")

def ends():
    os._exit(3)

def crash():
    import ctypes
    ctypes.string_at(0)
"""


@pytest.fixture(scope="module")
def box():
    with Sandbox([BAD], LIMITS) as sandbox:
        yield sandbox


def test_it_answers(box):
    x = np.arange(3.0)
    assert box.call("right", [x])["value"].tolist() == [0, 2, 4]
    assert x.tolist() == [0, 1, 2]


def test_it_may_ask_a_function_of_ours(box):
    assert box.call("ask", [lambda x: float(np.sum(x)), np.ones(2)])["value"] == 6.0


def test_an_error_of_ours_is_told_and_stays_theirs(box):
    reply = box.call("ask", [lambda x: 1 / 0, np.ones(2)])
    assert "ZeroDivisionError" in reply["error"]


@linux
def test_all_limits_hold_here(box):
    assert box.missing == {}


@linux
@pytest.mark.parametrize(("name", "arguments", "kind"), [
    ("memory", [], "MemoryError"),
    ("large_file", [], "OSError"),
    ("elsewhere", ["/tmp/lora-np-was-here"], "PermissionError"),
    ("read", [__file__], "PermissionError"),
    ("read", ["/etc/passwd"], "PermissionError"),
    ("read", [f"/proc/{os.getpid()}/environ"], "PermissionError"),
    ("fork", [], "PermissionError"),
    ("thread", [], "RuntimeError"),
    ("program", [], "PermissionError"),
    ("kill", [os.getpid()], "PermissionError"),
    ("session", [], "PermissionError"),
    ("network", [], "PermissionError"),
    ("raise_limits", [], "ValueError"),
    ("limits_of", [os.getpid()], "PermissionError"),
    ("priority", [os.getpid()], "PermissionError"),
    ("printing", [], "OSError"),
])  # fmt: skip
def test_it_cannot(box, name, arguments, kind):
    reply = box.call(name, arguments)
    assert reply.get("kind") == kind, reply
    assert box.call("right", [1])["value"] == 2


@linux
def test_it_cannot_read_the_solutions(box):
    from lora_np.grading.repository import FOLDER

    assert (FOLDER / "see_rank.py").is_file()
    assert box.call("read", [str(FOLDER / "see_rank.py")])["kind"] == "PermissionError"


def test_it_starts_with_an_empty_folder_and_nothing_of_our_environment(box, monkeypatch):
    box.stop()
    monkeypatch.setenv("LORA_NP_SECRET", "treasure")
    assert box.call("listing", [])["value"] == []
    assert "LORA_NP_SECRET" not in box.call("environment", [])["value"]


def test_what_it_prints_is_kept_apart(box):
    with Sandbox(["print('hello')\ndef f():\n    print('again')\n    return 1"], LIMITS) as talking:
        assert talking.call("f", [])["value"] == 1
    assert talking.printed == "hello\nagain\n"


@pytest.mark.parametrize("name", ["ends", "crash"])
def test_a_process_that_ends_is_started_again(box, name):
    reply = box.call(name, [])
    assert reply["kind"] == "Ended"
    assert "it stopped" in reply["error"]
    assert box.call("right", [1])["value"] == 2


def test_a_call_has_a_time():
    source = "import time\ndef f(seconds):\n    time.sleep(seconds)\n    return 1"
    with Sandbox([source], Limits(seconds=5)) as box:
        began = time.monotonic()
        assert box.call("f", [60], seconds=0.3) == {"error": "it took too long", "kind": "Ended"}
        assert time.monotonic() - began < 5
        assert box.call("f", [0])["value"] == 1


def test_cells_that_fail_hang_or_end_are_left_out():
    cells = ["def f():\n    return 1", "1 / 0", "import os; os._exit(0)", "def g(:", "def h():\n    return 3"]
    with Sandbox(cells, Limits(seconds=2)) as box:
        assert {"f", "h"} <= set(box.names)
        assert box.call("h", [])["value"] == 3
    assert sorted(box.problems) == [2, 3, 4]
    assert "ZeroDivisionError" in box.problems[2]
    assert "it stopped" in box.problems[3]
    assert "SyntaxError" in box.problems[4]


def test_a_file_of_nothing_but_ends_is_given_up():
    box = Sandbox(["import os; os._exit(0)"] * 8, Limits(seconds=2))
    with pytest.raises(Ended, match="the file cannot be run"), box:
        pass


def test_a_grader_that_cannot_start_is_not_the_students_fault(monkeypatch):
    from lora_np.grading import sandbox

    monkeypatch.setattr(sandbox, "CODE", "raise SystemExit('no such module')")
    with pytest.raises(
        OSError, match=r"no process for submissions can be started: it stopped.*no such module"
    ):
        Sandbox(["x = 1"]).running()


def test_no_process_is_left_behind(box):
    process = box.running().process
    box.stop()
    assert process.returncode is not None
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


FORGERIES = {
    "noise": "os.write(fd, b'x' * 100)",
    "a verdict": "send(fd, {'passed': True, 'points': 99})",
    "no dict": "send(fd, [1, 2, 3])",
    "many answers": "[send(fd, {'value': 0}) for _ in range(100)]",
    "no such place": "send(fd, {'value': 0, 'changed': [99, 'x']})",
    "a question": "[send(fd, {'ask': 10**6, 'arguments': 'nonsense'}) for _ in range(100)]",
}


@pytest.mark.parametrize("way", FORGERIES)
def test_writing_to_the_graders_pipe_forges_nothing(way):
    from lora_np.exercises import exercise
    from lora_np.grading.submissions import outcome_of

    source = f"""
import io, os
from lora_np.grading.wire import pack
def send(fd, message):
    os.write(fd, pack(message))
def lora_count(d, k, r):
    for fd in range(3, 20):
        try:
            {FORGERIES[way]}
        except OSError:
            pass
    return -1
"""
    with Sandbox([source], LIMITS) as box:
        result = outcome_of(exercise("lora_count"), box, [5])
    assert not result.passed
    assert result.points == 0


@pytest.mark.parametrize("machine", REFUSED)
def test_the_filter_jumps_forward_to_where_it_should(machine):
    program = filter_program(*REFUSED[machine])
    for i, (operation, yes, no, _) in enumerate(program):
        assert 0 <= yes < 256
        assert 0 <= no < 256
        if operation == 0x15:
            assert i + 1 + max(yes, no) < len(program)


@pytest.mark.parametrize("machine", REFUSED)
@pytest.mark.parametrize(("name", "number", "arguments", "allowed"), [
    ("kill", None, (0, 0), False),
    ("fcntl, get flags", "fcntl", (3, 3), True),
    ("fcntl, set owner", "fcntl", (3, 8), False),
    ("fcntl, set owner, extended", "fcntl", (3, 15), False),
    ("its own limits", "prlimit", (0, 0), True),
    ("another's limits", "prlimit", (77, 0), False),
    ("read", 9999, (0, 0), True),
    ("the x32 numbers", 0x40000001, (0, 0), False),
])  # fmt: skip
def test_the_filter_run_by_hand(machine, name, number, arguments, allowed):
    architecture, refused, fcntl, prlimit = REFUSED[machine]
    numbers = {None: refused[0], "fcntl": fcntl, "prlimit": prlimit}
    data = {0: numbers.get(number, number), 4: architecture, 16: arguments[0], 24: arguments[1]}
    assert run(filter_program(architecture, refused, fcntl, prlimit), data) == allowed
    assert not run(filter_program(architecture, refused, fcntl, prlimit), {**data, 4: 0x40000003})


def run(program, data):
    """What the kernel does with the filter: True for allowed."""
    place, loaded = 0, 0
    while True:
        operation, yes, no, value = program[place]
        place += 1
        if operation == 0x06:
            return value == 0x7FFF0000
        if operation == 0x20:
            loaded = data[value]
        else:
            holds = loaded == value if operation == 0x15 else loaded >= value
            place += yes if holds else no


def test_libraries_can_still_be_imported_once_the_limits_are_set():
    source = "def f():\n    import fractions, lora_np.adapters, lora_np.datasets\n    return lora_np.datasets.photograph().shape"
    with Sandbox([source], LIMITS) as box:
        assert box.call("f", [])["value"] == (600, 512)
