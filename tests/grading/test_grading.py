"""A class is graded: the honest get what they earn, the hostile lose their own points and nobody else's."""

import csv
import io
import os
import sys

import pytest
from matplotlib.figure import Figure

from lora_np.grading.classroom import Grades, grade, harmless, quoted, submissions_in
from lora_np.grading.confine import Limits

LIMITS = Limits(seconds=2.0)
COUNT = "def lora_count(d, k, r):\n    return r * (d + k)\n"


def rows(grades):
    return list(csv.DictReader(io.StringIO(grades.to_csv())))


def fill(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


@pytest.fixture(scope="module")
def graded(tmp_path_factory, solved):
    folder = fill(tmp_path_factory.mktemp("class"), {
        "alice.py": solved(4),
        "bob/week-1/04-count-parameters.py": solved(4, without=["rank_within", "training_bytes"]),
        "carol/nothing.py": "",
        "dan/04-count-parameters.ipynb": "this is no notebook",
        "erin/stubs.py": solved(4, without=["lora_count"]),
        "erin/again.py": f"print('# a heading')\n{COUNT}",
        "=1+2.py": COUNT,
    })  # fmt: skip
    (folder / "notes.txt").write_text("for the teacher")
    (folder / "frank.py").symlink_to(folder / "alice.py")
    return grade(folder, rng=5, limits=LIMITS)


def test_points(graded):
    assert {student: graded.points(student) for student in graded.reports} == {
        "=1+2": 1, "alice": 9, "bob": 5, "carol": 0, "dan": 0, "erin": 9,
    }  # fmt: skip
    assert graded.maximum == 9


def test_the_lessons_are_those_that_somebody_answered(graded):
    assert [lesson.number for lesson in graded.lessons] == [4]


def test_grades_as_csv(graded):
    first, alice, bob, *_ = rows(graded)
    assert first["student"] == "'=1+2"
    assert (alice["points"], alice["of"], alice["rank_within"]) == ("9", "9", "2")
    assert (bob["points"], bob["rank_within"], bob["lora_count"]) == ("5", "0", "1")


def test_feedback(graded):
    text = graded.feedback("bob")
    assert text.startswith("# bob: 5 of 9 points")
    assert "**A rank for a budget** (`rank_within`): 0 of 2" in text
    assert "    A function returns its answer" in text
    assert "is not a notebook" in graded.feedback("dan")
    assert "    # a heading" in graded.feedback("erin")
    assert "Not handed in" in graded.feedback("carol")


def test_what_is_written(graded, tmp_path):
    written = graded.write(tmp_path / "out" / "grades.csv")
    assert [path.name for path in written] == ["grades.csv", "grades-feedback", "grades-summary.png"]
    assert sorted(path.stem for path in written[1].iterdir()) == sorted(graded.reports)
    assert written[2].stat().st_size > 5_000


def test_the_figure_shows_what_was_hard(graded):
    ax = graded.plot(ax=Figure().add_subplot())
    widths = dict(
        zip(
            [t.get_text() for t in ax.get_yticklabels()], [bar.get_width() for bar in ax.patches], strict=True
        )
    )
    assert widths["lora_count"] == pytest.approx(4 / 6)
    assert widths["rank_within"] == pytest.approx(2 / 6)


def test_the_table_says_which_seed(graded):
    assert "Questions drawn with rng=5: the same number asks them again." in graded.table.notes


def test_a_seed_is_drawn_where_none_is_given(tmp_path):
    fill(tmp_path, {"a.py": COUNT})
    assert grade(tmp_path).rng != grade(tmp_path).rng


def test_limits_that_do_not_hold_are_said():
    class File:
        missing = {"memory": "not enforced on Windows"}  # noqa: RUF012

    assert Grades((), 0, {"a": [File()]}).warnings() == [
        "Limit not enforced here: memory (not enforced on Windows)."
    ]


def test_each_student_is_reported(tmp_path):
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


# Hostile submissions. Each does its worst in `lora_count` or in a cell of its own, and has one right answer.

HONEST_PART = "\n\n# %%\ndef last_rank_that_saves(d, k):\n    return (d * k - 1) // (d + k)\n"
IN_A_CALL = {
    "loops": "while True: pass",
    "sleeps": "import time; time.sleep(1000)",
    "eats memory": "x = []\n    while True: x.append(np.ones(10**7))",
    "eats memory at once": "return np.ones(10**12)",
    "exits": "raise SystemExit(0)",
    "ends the process": "import os; os._exit(0)",
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
        "import lora_np as lnp, lora_np.exercises.laws as laws, lora_np.exercises.asking as e\n    laws.law = laws.same = "
        "e.judge = lambda *a, **k: None\n    lnp.count_lora = lambda *a, **k: 0\n    np.asarray = None\n    return 0"
    ),
    "hands in the library's": "import lora_np; return lora_np.count_lora(d, k, rank=r)",
    "looks for the solution": (
        "import pathlib, lora_np\n    path = pathlib.Path(lora_np.__file__).parents[1] / 'exercises' / 'count_parameters.py'\n"
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
    "opens the parent": "import os\nopen(f'/proc/{os.getppid()}/mem', 'r+b')",
}


def hostile_class(solved):
    calls = {
        k: f"import numpy as np\n\n# %%\ndef lora_count(d, k, r):\n    {v}\n{HONEST_PART}"
        for k, v in IN_A_CALL.items()
    }
    cells = {k: f"import numpy as np\n\n# %%\n{v}\n{HONEST_PART}" for k, v in IN_A_CELL.items()}
    return {
        f"{name}.py": text for name, text in {**calls, **cells, "alice": solved(4), "zoe": solved(4)}.items()
    }


# On other systems several limits do not exist: `grade` says so, and this test would prove it the hard way.
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="signals and files are confined on Linux alone")
def test_hostile_submissions_cost_their_authors_those_points_and_nobody_else_anything(tmp_path, solved):
    folder = fill(tmp_path / "class", hostile_class(solved))
    grades = grade(folder, numbers=[4], rng=3, limits=LIMITS)
    assert grades.missing == {}
    points = {student: grades.points(student) for student in grades.reports}
    assert points.pop("alice") == points.pop("zoe") == grades.maximum
    assert points.pop("patches in a cell") in (0, 2)  # it may have broken its own answers
    assert set(points.values()) == {2}, {k: v for k, v in points.items() if v != 2}
    assert len(points) >= 12
    assert sorted(os.listdir(tmp_path)) == ["class"]
    grades.write(tmp_path / "grades.csv")
    assert len(rows(grades)) == len(points) + 3
