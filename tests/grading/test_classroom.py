"""A class is graded: the honest get what they earn, the hostile lose their own points and nobody
else's.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from lora_np.grading import classroom, judge
from lora_np.grading.channel import Channel
from lora_np.grading.classroom import Grades, by_roster, grade, harmless, quoted, submissions_in
from lora_np.grading.confine import Limits
from lora_np.grading.submissions import Report
from tests.drawing import few
from tests.grading.messy import messy

LIMITS = Limits(seconds=2.0)
COUNT = "def lora_count(d, k, r):\n    return r * (d + k)\n"


def rows(grades):
    return list(csv.DictReader(io.StringIO(grades.to_csv())))


def fill(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.fixture(scope="module")
def graded(tmp_path_factory, solved):
    folder = fill(tmp_path_factory.mktemp("class"), {
        "alice.py": solved(3),
        "bob/week-1/03-count-parameters.py": solved(3, without=["affordable_rank", "training_bytes"]),
        "carol/nothing.py": "",
        "dan/03-count-parameters.ipynb": f"this is no notebook: {COUNT}",
        "erin/stubs.py": solved(3, without=["lora_count"]),
        "erin/again.py": f"print('# a heading')\n{COUNT}",
        "=1+2.py": COUNT,
    })  # fmt: skip
    (folder / "frank.py").symlink_to(folder / "alice.py")
    return grade(folder, rng=5, limits=LIMITS)


def test_points(graded):
    assert {student: graded.points(student) for student in graded.reports} == {
        "=1+2": 1, "alice": 9, "bob": 5, "carol": 0, "dan": 0, "erin": 9,
    }  # fmt: skip
    assert graded.maximum == 9


def test_the_lessons_are_those_that_somebody_answered(graded):
    assert [lesson.number for lesson in graded.lessons] == [3]


def test_grades_as_csv(graded):
    first, alice, bob, *_ = rows(graded)
    assert first["student"] == "'=1+2"
    assert (alice["points"], alice["of"], alice["affordable_rank"]) == ("9", "9", "2")
    assert (bob["points"], bob["affordable_rank"], bob["lora_count"]) == ("5", "0", "1")


def test_feedback(graded):
    text = graded.feedback("bob")
    assert text.startswith("# bob: 5 of 9 points")
    assert (
        "**A rank for a budget**\n\n    affordable_rank: 0 of 2 points\n      Not written yet\n"
        in text
    )
    assert "is neither a notebook nor a script" in graded.feedback("dan")
    assert "    # a heading" in graded.feedback("erin")
    assert "Not handed in" in graded.feedback("carol")
    assert "It defines no function that these exercises ask for" in graded.feedback("carol")


def test_what_is_written(graded, tmp_path):
    written = graded.write(tmp_path / "out" / "grades.csv")
    assert [path.name for path in written] == ["grades.csv", "grades-feedback", "grades-laws.csv"]
    assert sorted(path.stem for path in written[1].iterdir()) == sorted(graded.reports)


def test_the_table_says_what_was_hard(graded):
    (told,) = (
        note
        for note in graded.table.notes
        if note.startswith("Solved by fewer than half of 6 students:")
    )
    assert "affordable_rank (2)" in told
    assert "lora_count" not in told  # which 4 solved


def test_the_table_says_which_seed(graded):
    assert "Questions drawn with seed 5: the same number asks them again." in graded.table.notes


def test_a_seed_is_drawn_where_none_is_given(tmp_path, monkeypatch):
    monkeypatch.setattr(classroom, "judged", lambda path, *rest: Report(path, {}))
    fill(tmp_path, {"a.py": COUNT})
    assert grade(tmp_path).rng != grade(tmp_path).rng


def test_limits_that_do_not_hold_are_said():
    class File:
        path = Path("answers.py")
        missing = {"memory": "not enforced on Windows"}  # noqa: RUF012
        failure = ""
        unreadable = False
        problems = ()

    notes = Grades((), 0, {"a": [File()]}).table.notes
    assert notes[1:] == ("Limit not enforced here: memory (not enforced on Windows).",)


def test_each_student_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(classroom, "judged", lambda path, *rest: Report(path, {}))
    fill(tmp_path, {"a.py": COUNT, "b.py": COUNT})
    assert list(grade(tmp_path, progress=True, jobs=2).reports) == ["a", "b"]


@pytest.mark.parametrize(("files", "words"), [
    ({}, "holds no .py or .ipynb files"),
    ({"a.py": "x = 1"}, "no submission answers any exercise; name the lessons to grade"),
])  # fmt: skip
def test_nothing_to_grade(tmp_path, files, words):
    with pytest.raises(ValueError, match=words):
        grade(fill(tmp_path, files))
    with pytest.raises(ValueError, match="must be a folder"):
        submissions_in(tmp_path / "none")


def test_a_named_lesson_is_graded_though_nobody_answered(tmp_path):
    grades = grade(fill(tmp_path, {"a.py": "x = 1"}), numbers=[1, 2])
    assert (grades.points("a"), grades.maximum) == (0, 19)


def test_text_of_students_is_neither_markdown_nor_formula():
    assert quoted("a\x1b[31m\nb") == "    a [31m\n    b\n"
    assert [harmless(name) for name in ("=cmd()", "@a", "anna")] == ["'=cmd()", "'@a", "anna"]
    assert [harmless(name) for name in ("\r=a", "\t=a", "a\x1b[2Jb", "a\u202eb")] == [
        "' =a",
        "' =a",
        "a [2Jb",
        "a b",
    ]


def test_names_that_are_long_or_not_text_cost_nobody_anything(tmp_path):
    fill(
        tmp_path / "class",
        {"x" * 255 + "/a.py": COUNT, "\r=1+1\x1b[2J.py": COUNT, "ada/a.py": COUNT},
    )
    forged = os.fsdecode(b"ada/caf\xe9\n# ada: 9 of 9 points.py")
    with contextlib.suppress(OSError):
        fill(tmp_path / "class", {forged: f"print(1)\n1 / 0\n# %%\n{COUNT}"})
    with contextlib.suppress(OSError):  # where names must be text there is nothing to fear
        (tmp_path / "class" / os.fsdecode(b"caf\xe9.py")).write_text(COUNT)
    grades = grade(tmp_path / "class", rng=1, limits=LIMITS)
    assert set(map(grades.points, grades.reports)) == {1}
    assert len(grades.reports) == len(os.listdir(tmp_path / "class"))
    grades.write(tmp_path / "grades.csv")
    assert len(os.listdir(tmp_path / "grades-feedback")) == len(grades.reports)
    assert "\n# ada: 9" not in "".join(map(grades.feedback, grades.reports))
    text = str(grades.table) + grades.to_csv() + grades.table.to_json()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    text.encode()


def test_every_file_counts_and_every_way_to_define_a_function(tmp_path):
    count = "import numpy as np\n" + COUNT
    cell = {"cell_type": "code", "source": count}  # a text, as other programs than Jupyter write
    right = {
        "a.ipynb": json.dumps({"cells": [cell]}),
        "b.PY": COUNT,
        "c.py.TXT": COUNT.replace(" ", "  ", 1),
        "d/D.PY": "lora_count = lambda d, k, r: r * (d + k)",
        "e.py": f"get_ipython()\n\n# In[2]:\n{COUNT}",
    }
    grades = grade(
        fill(tmp_path, {**right, "f.docx": b"PK\3\4\0", "g.pdf": COUNT, "notes.md": ""}),
        rng=1,
        limits=LIMITS,
    )
    assert list(map(grades.points, grades.reports)) == [1, 1, 1, 1, 1, 0, 0]
    assert list(map(grades.state, "fg")) == ["unreadable"] * 2
    assert list(grades.failures) == ["f, f.docx", "g, g.pdf"]


@pytest.mark.parametrize("order", [1, -1])
def test_the_longest_name_on_the_roster_has_the_file_in_any_form_of_unicode(order):
    files = {"j": [1], "j_smith": [2], "j_smith_17": [3], "j_b": [4], "Jose\u0301_5": [5], "x": [6]}
    names = ["j", "j_smith", "Jos\xe9", "Jo"][::order]
    assert by_roster([{"name": name} for name in names], files) == {
        "j": [1, 4], "j_smith": [2, 3], "Jos\xe9": [5], "Jo": [], "x": [6],
    }  # fmt: skip


def test_folders_as_deep_as_the_disk_allows_cost_nobody_anything(tmp_path, monkeypatch):
    folder = fill(
        tmp_path / "class", {"anna.py": COUNT, "deep/04/answers.py": COUNT, "many/0.py": COUNT}
    )
    monkeypatch.chdir(folder / "deep")
    for _ in range(1_500):
        os.mkdir("d")
        os.chdir("d")
    Path("x" * 200 + ".py").write_text(COUNT)  # its whole path is longer than any call takes
    for n in range(classroom.MOST):
        (folder / "many" / f"{n}x.py").write_text("")
    grades = grade(folder, rng=1, limits=LIMITS)
    assert {student: grades.points(student) for student in grades.reports} == {
        "anna": 1,
        "deep": 1,
        "many": 1,
    }
    assert f"Only {classroom.MOST} files of one student are graded" in grades.feedback("many")
    for _ in range(1_500):  # what removes temporary folders goes down by calling itself
        os.chdir("..")
        if os.path.isfile(f"d/{'x' * 200}.py"):
            os.unlink(f"d/{'x' * 200}.py")
        os.rmdir("d")


def test_feedback_stays_short_whatever_a_submission_says(tmp_path):
    fill(tmp_path, {"a.py": (
        "def lora_count(d, k, r):\n    raise ValueError('x' * 10**7)\n# %%\nraise ValueError('y' * 10**7)\n"
        "# %%\nprint('z' * 10**7)\n" + "# %%\n1 / 0\n" * 500
    )})  # fmt: skip
    grades = grade(tmp_path, rng=1, limits=LIMITS)
    assert len(grades.feedback("a")) < 20_000


def test_a_judge_that_fails_costs_one_file(tmp_path, monkeypatch):
    folder = fill(tmp_path, {"a.py": COUNT})
    monkeypatch.setattr(judge, "STARTING", 0.0)
    grades = grade(folder, limits=Limits(seconds=1, total_seconds=0.001))
    assert grades.points("a") == 0
    assert "could not be judged to its end: it took too long" in grades.feedback("a")


def test_no_process_at_all_is_said_before_anything_is_graded(tmp_path, monkeypatch):
    monkeypatch.setattr("lora_np.grading.channel.CODE", "raise SystemExit('no such module')")
    with pytest.raises(
        OSError, match=r"no process for submissions can be started: .*no such module"
    ):
        grade(fill(tmp_path, {"a.py": COUNT}))


def test_each_file_is_read_once(tmp_path, monkeypatch):
    folder = fill(tmp_path, {f"{name}.py": COUNT for name in "abc"})
    read = []
    real = classroom.text_of
    monkeypatch.setattr(classroom, "text_of", lambda path: read.append(path.name) or real(path))
    monkeypatch.setattr(classroom, "judged", lambda path, *rest: Report(path, {}))
    grade(folder, rng=1)
    assert sorted(read) == ["a.py", "b.py", "c.py"]


def test_the_files_of_one_student_have_a_common_limit(tmp_path, monkeypatch):
    folder = fill(tmp_path, {**{f"many/{i}.py": COUNT for i in range(9)}, "anna.py": COUNT})
    limits = []

    def judged(path, names, seeds, limit):
        limits.append((path.name, limit.total_seconds))
        return Report(path, {}, seconds=4.0)

    monkeypatch.setattr(classroom, "judged", judged)
    grades = grade(folder, rng=1, jobs=1, limits=Limits(total_seconds=5, student_seconds=10))
    assert limits == [("anna.py", 5), ("0.py", 5), ("1.py", 5), ("2.py", 2)]
    assert "The files of one student have 10 seconds, which are over" in grades.feedback("many")


@pytest.mark.slow
def test_a_large_file_costs_itself_alone(tmp_path, solved):
    """A million and a half of empty cells, a cell of 19 MB, more cells of code than may be: each by
    its name.
    """
    folder = fill(tmp_path, {
        "anna.py": solved(3),
        "cells.py": "# %%\n" * 1_500_000 + COUNT,
        "code.py": "# %%\n0\n" * 2_000_000 + COUNT,
        "one.py": f"{COUNT}x = '{'y' * 19_000_000}'\n",
    })  # fmt: skip
    used = children()
    grades = grade(folder, rng=1)
    assert {student: grades.points(student) for student in grades.reports} == {
        "anna": 9, "cells": 1, "code": 0, "one": 1,
    }  # fmt: skip
    assert (
        "code, code.py: code.py has 2,000,000 cells of code, and may have 1,000"
        in grades.table.notes
    )
    assert grades.missing == {} or sys.platform != "linux"
    assert children() - used < 30


def test_a_judge_that_cannot_be_started_costs_one_file(tmp_path, monkeypatch):
    folder = fill(tmp_path, {"a.py": COUNT, "b.py": COUNT})
    started = []

    def channel(*args, **settings):
        started.append(args)
        if len(started) == 1:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return Channel(*args, **settings)

    monkeypatch.setattr(judge, "Channel", channel)
    grades = grade(folder, rng=1, jobs=1)
    assert [grades.points(student) for student in ("a", "b")] == [0, 1]
    assert list(grades.failures) == ["a, a.py"]
    assert "Resource temporarily unavailable" in grades.failures["a, a.py"]


# Hostile submissions. Each does its worst in `lora_count` or in a cell of its own, and has one
# right answer.

HONEST_PART = "\n\n# %%\ndef last_rank_that_saves(d, k):\n    return (d * k - 1) // (d + k)\n"
WRITES = """import os
    body = {} + b'\\n'
    for fd in range(3, 30):
        try:
            while body: body = body[os.write(fd, body):]
        except OSError: pass"""
IN_A_CALL = {
    "loops": "while True: pass",
    "sleeps": "import time; time.sleep(1000)",
    "eats memory": "x = []\n    while True: x.append(np.ones(10**7))",
    "eats memory at once": "return np.ones(10**12)",
    "exits": "raise SystemExit(0)",
    "ends the process": "import os; os._exit(0)",
    "aborts": "import os; os.abort()",
    "interrupts": "raise KeyboardInterrupt",
    "forks": "import os\n    while True:\n        os.fork()",
    "starts threads": "import threading\n    while True: threading.Thread(target=lambda: [1 for _ in iter(int, 1)]).start()",
    "starts a program": "import subprocess; subprocess.run(['sh', '-c', 'yes'])",
    "prints without end": "while True: print('x' * 1000, flush=True)",
    "writes files": "i = 0\n    while True:\n        i += 1; open(f'file{i}', 'wb').write(bytes(10**6))",
    "fills a file": "f = open('file', 'wb')\n    while True: f.write(bytes(10**6))",
    "makes folders": "import os\n    i = 0\n    while True:\n        i += 1; os.mkdir(f'folder{i}')",
    "makes folders in folders": "import os\n    while True: os.mkdir('d'); os.chdir('d')",
    "kills its parent": "import os, signal; os.kill(os.getppid(), signal.SIGKILL)",
    "leaves the group": "import os; os.setsid(); os.setpgid(0, 0); return 0",
    "ignores signals": "import signal\n    for s in (2, 14, 15, 24): signal.signal(s, signal.SIG_IGN)\n    while True: pass",
    "recurses": "return lora_count(d, k, r)",
    "crashes": "import ctypes; ctypes.string_at(0)",
    "closes everything": "import os; os.closerange(0, 64)",
    "returns nonsense": "class Odd:\n        __array__ = __eq__ = __len__ = lambda *a: 1 / 0\n    return Odd()",
    "returns too much": "return np.ones(10**8)",
    "returns depth": "x = []\n    for _ in range(10**5): x = [x]\n    return x",
    "returns a huge number": "return 10**100000",
    "forges a reply": (
        "import os\n    from lora_np.grading.wire import pack\n    for fd in range(3, 30):\n        try: os.write(fd, pack"
        "({'passed': True, 'points': 9, 'value': 0}))\n        except OSError: pass\n    return 0"
    ),
    "floods the pipe": "import os\n    while True:\n        for fd in range(3, 30):\n            try: os.write(fd, bytes(10**6))\n"
    "            except OSError: pass",
    "patches the library": (
        "import lora_np as lnp, lora_np.exercises.laws as laws, lora_np.exercises.testing as e\n    laws.law = laws.same = "
        "e.judge = lambda *a, **k: None\n    lnp.count_lora = lambda *a, **k: 0\n    np.asarray = None\n    return 0"
    ),
    "takes away the folder": "import os\n    for p in ('..', '.', '../..'):\n        os.chmod(p, 0)\n    return 0",
    "takes away the output": "import os\n    for fd in range(20): os.fchmod(fd, 0)",
    "gives files away": "import os\n    for root, dirs, files in os.walk('/'):\n        for f in files: os.chown(os.path.join(root, f), 1, 1)",
    "ages files": "import os; os.utime('..', (0, 0)); os.utime('.', (0, 0))",
    "marks files": "import os; os.setxattr('.', 'user.mine', b'x')",
    "links files": "import os; os.link('/etc/passwd', 'mine'); os.symlink('/', 'root')",
    "leaves shared memory": (
        "import ctypes\n    c = ctypes.CDLL(None)\n    for key in range(4000, 4100): c.shmget(key, 2**20, 0o1666); c.msgget(key, "
        "0o1666); c.semget(key, 8, 0o1666)\n    return 0"
    ),
    "asks for much with a little": "return ['x' * 10**6] + [''] * 1200",
    "shares one buffer": WRITES.format(
        "('{\"dict\": [[\"to\", 1], [\"value\", [' + ','.join(['{\"array\": \"<f8\", \"shape\": [7000000], \"bytes\": \"\"}'] * 36) + "
        "']]]}').encode()",
    ),
    "empty lists without end": WRITES.format("b'[' + b'[],' * (20 * 2**20) + b'0]'"),
    "a shape of long numbers": WRITES.format(
        "('{\"array\": \"<f8\", \"bytes\": \"\", \"shape\": [' + ','.join(['9' * 4300] * 4000) + ']}').encode()"
    ),
    "long words": "raise ValueError('x' * 10**8)",
    "hands in the library's": "import lora_np; return lora_np.count_lora(d, k, rank=r)",
    "asks for the solution": "from lora_np.exercises import solution\n    exec(solution('lora_count').code, names := {})\n"
    "    return names['lora_count'](d, k, r)",
    "opens the solution by every way": (
        "import importlib.resources, io, os, pathlib, zipfile, lora_np.exercises as e\n    found = []\n"
        "    for way in (lambda: importlib.resources.files(e).joinpath('data/lora_count.md').read_text(),\n"
        "                lambda: e.__spec__.loader.get_data(os.path.join(e.__path__[0], 'data', 'lora_count.md')).decode(),\n"
        "                lambda: open('/proc/self/root' + e.__path__[0] + '/data/lora_count.md').read(),\n"
        "                lambda: open(os.open('data/lora_count.md', os.O_RDONLY, dir_fd=os.open(e.__path__[0], os.O_RDONLY))).read(),\n"
        "                lambda: os.symlink(e.__path__[0] + '/data/lora_count.md', 'x') or open('x').read(),\n"
        "                lambda: zipfile.ZipFile(pathlib.Path(e.__path__[0], 'data')).namelist(),\n"
        "                lambda: __import__('lora_np.exercises.checks.count_parameters'),\n"
        "                *(lambda fd=fd: os.pread(fd, 9, 0).decode() for fd in range(3, 64))):\n"
        "        try: found += [1] if way() else []\n        except BaseException: pass\n"
        "    return r * (d + k) if found else 0"
    ),
    "finds the solution in memory": (
        "import gc\n    text = 'return r * ' + '(d + k)'\n    for o in gc.get_objects():\n"
        "        if type(o).__name__ in ('Exercise', 'Solution') or (type(o) is str and text in o): return r * (d + k)\n    return 0"
    ),
    "answers before it is asked": (
        "import os\n    from lora_np.grading.wire import pack\n    body = b''.join(pack({'to': n, 'value': 1, 'points': 10**9, 'laws': "
        "[{'law': 'all', 'passed': True}]}) for n in range(200))\n    for fd in range(3, 30):\n        try: os.write(fd, body)\n"
        "        except OSError: pass\n    return 0"
    ),
    "claims many points": "return {'exercise': 'lora_count', 'passed': True, 'points': 10**400, 'of': 1, 'laws': [True] * 10**5}",
    "looks for the solution": (
        "import pathlib, lora_np\n    path = pathlib.Path(lora_np.__file__).parents[1] / 'tests/exercises/answers/count_parameters.py'\n"
        "    exec(path.read_text(), names := {})\n    return names['lora_count'](d, k, r)"
    ),
}  # fmt: skip
IN_A_CELL = {
    "loops in a cell": "while True: pass",
    "ends in a cell": "import os; os._exit(0)",
    "exits in a cell": "exit()",
    "no python": "def (:",
    "null bytes": "x = '\0'",
    "patches in a cell": "import lora_np.grading.child as c\nc.answer = lambda *a: None\nc.send = None\nc.receive = None",
    "talks without end": "import os\nfrom lora_np.grading.wire import pack\nwhile True:\n    for fd in range(3, 30):\n"
    "        try: os.write(fd, pack({'cell': 2}))\n        except OSError: pass",
    "sleeps in forty cells": "\n# %%\n".join(["import time; time.sleep(1.6)"] * 40),
    "opens the parent": "import os\nopen(f'/proc/{os.getppid()}/mem', 'r+b')",
}


HUGE = {  # a file each; what is right in it counts, where it can be run
    "empty cells.py": (3, lambda: "# %%\n" * 1_500_000 + COUNT + HONEST_PART),
    "empty cells.ipynb": (1, lambda: json.dumps({"cells": [
        *({"cell_type": "code", "source": source} for source in [""] * 450_000 + [COUNT])]})),
    "cells of code.py": (0, lambda: "# %%\n0\n" * 2_500_000 + COUNT + HONEST_PART),
    "one cell.py": (3, lambda: COUNT + "x = '" + "y" * 19_000_000 + "'\n" + HONEST_PART),
    "lines.py": (3, lambda: f"{COUNT}# %%\n" + "x = 1\n" * 3_200_000 + HONEST_PART),
    "a sum.py": (3, lambda: f"{COUNT}# %%\nx = 0" + "+0" * 9_000_000 + HONEST_PART),
    "brackets.py": (3, lambda: f"{COUNT}# %%\n" + "[" * 9_000_000 + HONEST_PART),
    "control letters.py": (3, lambda: f"{COUNT}# %%\n" + "#\x01" * 9_000_000 + HONEST_PART),
    "lists.ipynb": (0, lambda: "[" + "[]," * 6_500_000 + "0] def lora_count"),
    "too large.py": (0, lambda: "#" * 21 * 2**20 + COUNT),
}  # fmt: skip


def hostile_class():
    start = "import numpy as np\n\n# %%\n"
    calls = {
        name: f"{start}def lora_count(d, k, r):\n    {worst}\n{HONEST_PART}"
        for name, worst in IN_A_CALL.items()
    }
    cells = {name: f"{start}{worst}\n{HONEST_PART}" for name, worst in IN_A_CELL.items()}
    return {f"{name}.py": text for name, text in {**calls, **cells}.items()}


def snapshot(folder):
    """What a submission must not change: modes, owners, times and content of everything around."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        seen = path.stat()
        content = hashlib.sha256(path.read_bytes()).digest() if path.is_file() else None
        found[path] = (seen.st_mode, seen.st_uid, seen.st_gid, seen.st_mtime_ns, content)
    return found


def children():
    """Seconds of the processor that all processes have used that were started and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def system_v():
    return [Path(f"/proc/sysvipc/{kind}").read_text() for kind in ("shm", "msg", "sem")]


def mixed_class(folder, solved):
    fill(
        folder,
        {**hostile_class(), **{f"honest-{i}.py": solved(3) for i in range(10)}, **messy(solved)},
    )
    for name, (_, content) in HUGE.items():
        fill(folder, {f"huge {Path(name).stem} {Path(name).suffix[1:]}/{name}": content()})
    return folder


def check_points(points, solved):
    """The honest keep theirs, tidy or not, and each hostile one its single right answer."""
    assert {points.pop(f"honest-{i}") for i in range(10)} == {9}
    untidy = {
        name.partition("/")[0].rpartition(".")[0] or name.partition("/")[0]
        for name in messy(solved)
    }
    assert len(untidy) >= 18
    found = {name: points.pop(name) for name in untidy}
    assert set(found.values()) == {9}, found
    for name, (right, _) in HUGE.items():
        assert points.pop(f"huge {Path(name).stem} {Path(name).suffix[1:]}") == right, name
    for broken in (
        "answers before it is asked",
        "patches in a cell",
        "sleeps in forty cells",
    ):  # these may have spoilt their own answers
        assert points.pop(broken) in (0, 2)
    assert points.pop("null bytes") == 0  # the file is not text, and cannot be read
    assert len(points) >= 40
    assert set(points.values()) == {2}, {k: v for k, v in points.items() if v != 2}


# On other systems several limits do not exist: `grade` says so, and this test would prove it the
# hard way.
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="signals and files are confined on Linux alone")
def test_hostile_submissions_cost_their_authors_those_points_and_nobody_else_anything(
    tmp_path, solved
):
    folder = mixed_class(tmp_path / "class", solved)
    before, ipc = snapshot(folder), system_v()
    used, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, children()
    grades = grade(folder, numbers=[3], rng=3, limits=Limits(seconds=2.0, total_seconds=20.0))
    assert children() - cpu < len(grades.reports) * 15
    named = "\n".join(grades.table.notes)
    culprits = ("cells of code.py", "lists.ipynb", "too large.py", "sleeps in forty cells.py")
    assert all(f"{name}: " in named for name in culprits)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 200_000, (
        "kilobytes of the supervisor"
    )
    assert grades.missing == {}
    assert grades.state("null bytes") == "unreadable"
    assert (snapshot(folder), system_v()) == (before, ipc)
    check_points({student: grades.points(student) for student in grades.reports}, solved)
    assert sorted(os.listdir(tmp_path)) == ["class"]
    grades.write(tmp_path / "grades.csv")
    assert len(rows(grades)) == len(grades.reports)
    assert sum(path.stat().st_size for path in (tmp_path / "grades-feedback").iterdir()) < 2**20


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="needs root, to become somebody else"
)
@pytest.mark.skipif(
    not Path("/usr/bin/python3").exists(), reason="needs a Python that everybody can read"
)
def test_the_same_where_the_teacher_is_an_ordinary_user(solved):
    nobody = 65534
    with tempfile.TemporaryDirectory(prefix="lora-np-teacher-") as home:
        home = Path(home)
        packages, folder = home / "packages", mixed_class(home / "class", solved)
        install = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            "/usr/bin/python3",
            "install",
            "--quiet",
        ]
        root = Path(__file__).parents[2]
        subprocess.run([*install, "--target", str(packages), str(root)], check=True)
        for path in [home, folder, *folder.iterdir()]:
            os.chown(path, nobody, nobody)
        before, ipc = snapshot(folder), system_v()
        command = [
            "/usr/bin/python3",
            "-m",
            "lora_np",
            "exercises",
            "grade",
            str(folder),
            "-o",
            str(home / "g.csv"),
        ]
        command += ["--lesson", "3", "--seed", "3", "--seconds", "2", "--total-seconds", "20"]
        environment = {
            **os.environ,
            "PYTHONPATH": str(packages),
            "HOME": str(home),
            "TMPDIR": str(home),
        }
        run = subprocess.run(
            command, cwd=home, env=environment, user=nobody, group=nobody, extra_groups=[],
            capture_output=True, text=True, check=False, timeout=1_200,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert "Limit not enforced" not in run.stdout
        assert (snapshot(folder), system_v()) == (before, ipc)
        points = csv.DictReader(io.StringIO((home / "g.csv").read_text()))
        check_points({row["student"]: int(row["points"] or 0) for row in points}, solved)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_supervisor_that_is_killed_leaves_nothing_that_the_next_run_minds(tmp_path, solved):
    folder = fill(tmp_path / "class", {f"{name}.py": solved(3) for name in "abc"} | {"d.py": COUNT})
    command = [
        sys.executable,
        "-m",
        "lora_np",
        "exercises",
        "grade",
        str(folder),
        "-o",
        str(tmp_path / "g.csv"),
    ]
    command += ["--seed", "7", "--force"]  # a run may be killed once it has written
    expected = {"a": 9, "b": 9, "c": 9, "d": 1}
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    lasts = time.monotonic() - began
    right = (tmp_path / "g.csv").read_text()
    for moment in few(range(20), 10):
        (tmp_path / "g.csv").unlink(missing_ok=True)
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(lasts * (moment + 0.5) / 20)
        run.send_signal(signal.SIGKILL)
        run.wait()
        subprocess.run(command, check=True, capture_output=True)
        assert (tmp_path / "g.csv").read_text() == right
    assert {
        row["student"]: int(row["points"]) for row in csv.DictReader(io.StringIO(right))
    } == expected
    assert sorted(os.listdir(tmp_path)) == ["class", "g-feedback", "g-laws.csv", "g.csv"]
