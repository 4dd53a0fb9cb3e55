"""A submission in a process of its own: what it may not do, it cannot do."""

import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from lora_np.exercises.catalogue import DATA
from lora_np.exercises.values import Source
from lora_np.grading import confine
from lora_np.grading.channel import Ended, import_path
from lora_np.grading.confine import Limits
from lora_np.grading.sandbox import Sandbox
from lora_np.grading.wire import send

pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits are those of POSIX systems")
linux = pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's")
LIMITS = Limits(seconds=3.0)
X86 = platform.machine() == "x86_64"
SHMGET, MSGGET, SEMGET, PERF_EVENT_OPEN = (29, 68, 64, 298) if X86 else (194, 186, 190, 241)
BAD = """
import os, sys, signal, socket, subprocess, threading, time
import numpy as np

def right(x):
    return 2 * x

def ask(f, x):
    return f(x) + f(2 * x)

def memory():
    return np.ones(2**28).sum()

def file():
    with open("file", "wb") as file:
        file.write(bytes(1))

def folder():
    os.mkdir("folder")

def modes(path):
    os.chmod(path, 0)

def modes_of_output():
    os.fchmod(2, 0)

def owner(path):
    os.chown(path, os.getuid(), os.getgid())

def times(path):
    os.utime(path)

def attributes(path):
    os.setxattr(path, "user.x", b"x")

def links(path):
    os.link(path, "linked")

def empties_its_output():
    os.ftruncate(2, 0)

def memory_file():
    os.memfd_create("x")

def system_call(number, *arguments):
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) for a in arguments)) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

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

def aborts():
    os.abort()

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
    assert box.call("ask", [Source("lambda x: float(np.sum(x))"), np.ones(2)])["value"] == 6.0


def test_an_error_of_ours_is_told(box):
    reply = box.call("ask", [Source("lambda x: 1 / 0"), np.ones(2)])
    assert "ZeroDivisionError" in reply["error"]


@linux
def test_all_limits_hold_here(box):
    assert box.missing == {}


@linux
@pytest.mark.parametrize(("name", "arguments", "kind"), [
    ("memory", [], "MemoryError"),
    ("file", [], "PermissionError"),
    ("folder", [], "PermissionError"),
    ("modes", [".."], "PermissionError"),
    ("modes", ["."], "PermissionError"),
    ("modes_of_output", [], "PermissionError"),
    ("owner", ["."], "PermissionError"),
    ("times", ["."], "PermissionError"),
    ("attributes", ["."], "PermissionError"),
    ("links", ["/dev/null"], "PermissionError"),
    ("empties_its_output", [], "PermissionError"),
    ("memory_file", [], "PermissionError"),
    ("system_call", [SHMGET, 0, 4096, 0o1600], "PermissionError"),
    ("system_call", [MSGGET, 0, 0o1600], "PermissionError"),
    ("system_call", [SEMGET, 0, 1, 0o1600], "PermissionError"),
    ("system_call", [PERF_EVENT_OPEN, 0, 0, 0, 0, 0], "PermissionError"),
    ("system_call", [10**6], "PermissionError"),
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
])  # fmt: skip
def test_it_cannot(box, name, arguments, kind):
    reply = box.call(name, arguments)
    assert reply.get("kind") == kind, reply
    assert box.call("right", [1])["value"] == 2


@linux
def test_it_cannot_read_the_solutions(box):
    path = DATA / "column_of_product.md"
    assert "## Solution" in path.read_text()
    assert box.call("read", [str(path)])["kind"] == "PermissionError"
    usual = Path(__file__).parents[1] / "exercises" / "answers" / "see_rank.py"
    for hidden in (usual, DATA.parent / "checks" / "matrices.py"):
        assert hidden.exists()
        assert box.call("read", [str(hidden)])["kind"] == "PermissionError"


def test_what_is_hidden_is_left_out_wherever_it_is_installed(tmp_path):
    for name in (
        "lib/other.py",
        "lib/lora_np/a.py",
        "lib/lora_np/exercises/data/x.md",
        "bin/python",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    hidden = tmp_path / "lib" / "lora_np" / "exercises" / "data"
    (tmp_path / "lib64").symlink_to(tmp_path / "lib")
    (tmp_path / "bin" / "x.md").symlink_to(hidden / "x.md")
    read = {
        str(p.relative_to(tmp_path))
        for p, right in confine.around(tmp_path, [hidden, tmp_path / "bin" / "none"])
        if right == confine.READ
    }
    assert read == {"lib/other.py", "lib/lora_np/a.py", "bin/python"}


LOOKED_IN = (  # where a Python looks, or a manager of environments keeps packages
    "lib/python3.11/site-packages",
    "lib/python3.11/dist-packages",
    "lib/python3.11",
    "lib/python3.11/lib-dynload",
    "lib",
    ".local/lib/python3.11/site-packages",
    "envs/other/lib/python3.11/site-packages",
    "pkgs/lora-np-1.0-py_0/site-packages",
    "checkout",
)


@linux
@pytest.mark.parametrize("place", LOOKED_IN)
def test_no_other_copy_of_the_package_can_be_read(place, tmp_path, monkeypatch):
    """A checkout may be first in the path of an environment that has an installed copy."""
    standard = tmp_path / "lib" / "python3.11"
    for name in ("os.py", "json/__init__.py", "lib-dynload/_ssl.cpython-311-x86.so"):
        (standard / name).parent.mkdir(parents=True, exist_ok=True)
        (standard / name).touch()
    copy = tmp_path / place / "lora_np" / "exercises"
    for name in ("data/lora_count.md", "checks/matrices.py"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).touch()
    solutions = tmp_path / place / "tests" / "exercises" / "answers" / "see_rank.py"
    (tmp_path / place / "numpy").mkdir()
    solutions.parent.mkdir(parents=True)
    solutions.touch()
    paths = dict.fromkeys(("purelib", "platlib"), str(standard / "site-packages"))
    paths |= dict.fromkeys(("stdlib", "platstdlib"), str(standard))
    monkeypatch.setattr(confine.sysconfig, "get_paths", lambda *_: paths)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path, str(standard), str(tmp_path / place)])
    read = [path.resolve() for path, right in confine.readable() if right & ~confine.LIST]
    for name in ("os.py", "json", "lib-dynload/_ssl.cpython-311-x86.so"):
        assert standard / name in read
    assert (tmp_path / place / "numpy" in read) == (tmp_path / place != standard)
    for secret in (solutions, *copy.rglob("*.*")):
        assert not any(secret.is_relative_to(path) for path in read), secret
    own = Path(confine.__file__).parents[1]
    for path in read:
        assert path not in (tmp_path, standard)
        assert path.name not in ("site-packages", "dist-packages")
    assert own / "nn" in read


@linux
def test_packages_may_be_installed_in_a_folder_of_any_name(tmp_path, monkeypatch):
    (tmp_path / "numpy").mkdir()
    monkeypatch.setattr(confine.np, "__file__", str(tmp_path / "numpy" / "__init__.py"))
    readable = list(confine.readable())
    assert (tmp_path / "numpy", confine.READ) in readable
    assert (tmp_path, confine.READ) not in readable


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


def test_printing_without_end_takes_time_and_no_memory(box):
    reply = box.call("printing", [], seconds=0.3)
    assert reply == {"error": "it took too long", "kind": "Ended"}
    assert len(box.printed) <= 2_000


def test_messages_without_end_do_not_stretch_the_time(box):
    process = box.running()
    for number in (1, 2):
        send(
            process.process.stdin,
            {"call": "right", "arguments": [1], "rules": {}, "number": number},
        )
    assert process.message(process.clock() + 60)["to"] == 1
    with pytest.raises(Ended, match="it took too long"):
        process.message(process.clock() - 1)
    box.stop()


def test_a_file_has_a_time_for_all_its_cells():
    began = time.monotonic()
    box = Sandbox(["import time; time.sleep(1.6)"] * 40, Limits(seconds=2, total_seconds=3))
    with (
        pytest.raises(
            Ended, match=r"the file cannot be run: it took too long|whole file took longer"
        ),
        box,
    ):
        pass
    assert time.monotonic() - began < 30


def test_long_cells_arrive_whole():
    text = "äöü€" * 300_000
    with Sandbox([f"text = {text!r}\ndef f():\n    return len(text)"], LIMITS) as box:
        assert box.call("f", [])["value"] == len(text)


@linux
def test_a_submission_ends_with_its_grader():
    code = (
        "import os, sys; sys.path[:0] = sys.argv[1:]\n"
        "from lora_np.grading.sandbox import Sandbox\n"
        "box = Sandbox(['def f():\\n    while True: pass'])\n"
        "print(box.running().process.pid, flush=True)\n"
        "box.call('f', [])"
    )
    grader = subprocess.Popen(
        [sys.executable, "-c", code, *import_path()], stdout=subprocess.PIPE, text=True
    )
    pid = int(grader.stdout.readline())
    time.sleep(0.3)
    grader.kill()
    grader.wait()
    grader.stdout.close()
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":  # dead, and waiting for whoever inherits it
            return
        time.sleep(0.05)
    raise AssertionError("it lives on")


def test_cells_that_fail_hang_or_end_are_left_out():
    cells = [
        "def f():\n    return 1",
        "1 / 0",
        "import os; os._exit(0)",
        "def g(:",
        "def h():\n    return 3",
    ]
    with Sandbox(cells, Limits(seconds=2)) as box:
        assert {"f", "h"} <= set(box.names)
        assert box.call("h", [])["value"] == 3
    assert sorted(box.problems) == [2, 3, 4]
    assert "ZeroDivisionError" in box.problems[2]
    assert "it stopped" in box.problems[3]
    assert "SyntaxError" in box.problems[4]


def test_a_cell_that_ends_the_process_loses_only_what_comes_after():
    source = (
        "from __future__ import annotations\nimport os\ndef f():\n    return 1\n"
        "os._exit(0)\ndef g():\n    return 2"
    )
    with Sandbox([source, "def h(x: Missing):\n    return f() + 2"], Limits(seconds=5)) as box:
        assert box.names == ["f"]
        assert box.call("f", [])["value"] == 1
    assert "at line 5" in box.problems[1]
    assert "Missing" in box.problems[2]


@pytest.mark.parametrize("ends", ["import os; os._exit(0)", "import os\nos.abort()"])
def test_a_file_of_nothing_but_ends_keeps_what_came_before(ends):
    with Sandbox(["def f():\n    return 1", *[ends] * 8], Limits(seconds=2)) as box:
        assert box.call("f", [])["value"] == 1
    assert len(box.problems) == 6


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
    "other arguments": "send(fd, {'to': 1, 'value': 0, 'arguments': [99, 'x', {}, [[]]]})",
    "no arguments": "send(fd, {'to': 1, 'value': 0})",
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
        result = outcome_of(exercise("lora_count"), box, [source], [5])
    assert not result.passed
    assert result.points == 0


PATCHES = """
import numpy as np
import lora_np.exercises.testing as testing, lora_np.exercises.running as running
for module in (testing, running, np):
    for name in ("encode", "array_equal", "judge"):
        if hasattr(module, name):
            setattr(module, name, lambda *a, **k: True)
def rank_one_terms(B, A):
    parts = B.T[:, :, None] * A[:, None, :]
    A += 1
    B[:] = 0
    return parts
"""


def test_arguments_are_compared_where_the_answer_cannot_reach():
    """Patching the comparison in its own process earns nothing."""
    from lora_np.exercises import exercise
    from lora_np.grading.submissions import outcome_of

    with Sandbox([PATCHES], LIMITS) as box:
        result = outcome_of(exercise("rank_one_terms"), box, [PATCHES], [5])
    assert result.points == 0
    assert "your function has changed A" in result.message


@linux
def test_an_answer_that_aborts_is_told_so(box):
    reply = box.call("aborts", [])
    assert (reply["kind"], reply["error"]) == ("Ended", "it stopped with SIGABRT")


@linux
@pytest.mark.parametrize("whose", [0, 1])  # the process's, and the waiting thread's
def test_time_without_a_processor_does_not_count(box, monkeypatch, whose):
    process, read = box.running(), Path.read_text
    before, file = process.clock(), Path([*process.waiters][whose], "schedstat")
    assert process.clock() >= before

    def later(path, *encoding):
        ran, waited, *rest = read(path, *encoding).split()
        return " ".join([ran, str(int(waited) + 10**12 * (path == file)), *rest])

    monkeypatch.setattr(Path, "read_text", later)
    assert process.clock() < before - 900


def test_a_figure_before_the_answers_costs_nothing_and_shows_no_path_of_ours():
    source = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.title('two')\nplt.show()\nimport os\n"
    with Sandbox(
        [source + "def f():\n    return [*os.environ], plt.gcf().axes[0].get_title()"], LIMITS
    ) as box:
        names, title = box.call("f", [])["value"]
    assert box.problems == {}
    assert title == "two"
    assert "MPLCONFIGDIR" not in names


def test_a_process_that_cannot_start_costs_its_file(monkeypatch):
    monkeypatch.setattr("lora_np.grading.channel.CODE", "raise SystemExit('no such module')")
    with pytest.raises(
        Ended, match=r"no process can be started for it: it stopped.*no such module"
    ):
        Sandbox(["x = 1"]).running()


def test_libraries_can_still_be_imported_once_the_limits_are_set():
    source = "def f():\n    import fractions, lora_np.adapters, lora_np.datasets\n    return lora_np.datasets.photograph().shape"
    with Sandbox([source], LIMITS) as box:
        assert box.call("f", [])["value"] == (600, 512)


def test_where_no_process_can_start_no_folder_is_left(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(FileNotFoundError), Sandbox(["x = 1"]):
        pass
    assert [*tmp_path.iterdir()] == []
