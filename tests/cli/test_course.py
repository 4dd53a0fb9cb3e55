"""`lora-np exercises ...`, as students and teachers type it."""

import json
import os
import subprocess
import sys

import pytest

from lora_np.cli import run
from lora_np.cli.course import exercises
from lora_np.exercises import solution
from lora_np.grading import Grades, check_out

COUNT = "def lora_count(d, k, r):\n    return r * (d + k)\n"


def test_every_command_has_help_with_an_example(capsys):
    for name in exercises.commands:
        assert run(["exercises", name, "--help"]) == 0
        assert f"lora-np exercises {name}" in capsys.readouterr().out


def test_list(capsys):
    assert run(["exercises", "list", "--lesson", "3"]) == 0
    text = capsys.readouterr().out
    assert "lora_count" in text
    assert "5 exercises, 9 points." in text
    assert run(["exercises", "list", "--lesson", "0"]) == 0
    assert "2 exercises, 4 points." in capsys.readouterr().out
    assert run(["exercises", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["exercise"] == "lora_forward"


def test_start_edit_check(tmp_path, capsys):
    assert run(["exercises", "start", str(tmp_path), "--lesson", "3"]) == 0
    assert "Written:" in capsys.readouterr().out
    script = tmp_path / "03-count-parameters.py"
    assert run(["exercises", "check", str(script)]) == 1
    assert capsys.readouterr().out.endswith("0 of 9 points.\n")
    before, _, after = script.read_text().partition("    ...\n")
    script.write_text(f"{before}    return r * (d + k)\n{after}")
    assert run(["exercises", "check", str(script), "--exercise", "lora_count"]) == 0
    assert capsys.readouterr().out == (
        "lora_count: 1 of 1 point. All laws hold.\n"
        "How it can be done: lora-np exercises solution NAME\n1 of 1 point.\n"
    )
    assert run(["exercises", "solution", "lora_count"]) == 0
    assert solution("lora_count") in capsys.readouterr().out
    assert run(["exercises", "start", str(tmp_path), "--lesson", "3"]) == 0
    assert f"Kept: {script}" in capsys.readouterr().out


def test_check_as_json(tmp_path, capsys):
    path = tmp_path / "a.py"
    path.write_text(COUNT.replace("+", "*"))
    assert run(["exercises", "check", str(path), "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)["exercises"]
    assert (found["points"], found["of"]) == (0, 1)
    assert found["laws"][0]["message"].startswith("B is d x r and A is r x k")


def test_grade(tmp_path, capsys):
    folder = tmp_path / "submissions"
    folder.mkdir()
    (folder / "ann.py").write_text(COUNT)
    out = tmp_path / "grades.csv"
    assert run(["exercises", "grade", str(folder), "-o", str(out), "--seed", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "rng": 1, "limits not enforced": {}, "failures": {}, "grades": [{"student": "ann", "points": 1, "of": 9, "state": ""}],
    }  # fmt: skip
    assert out.read_text().splitlines()[1].startswith("ann,1,,,,,1,9")
    command = ["exercises", "grade", str(folder), "-o", str(out)]
    assert run(command) == 2
    assert "already exists; pass --force to replace it" in capsys.readouterr().err
    assert run([*command, "--force"]) == 0


@pytest.mark.parametrize(("arguments", "words", "status"), [
    (["check", "nothing.py"], "nothing.py: no such file", 1),
    (["check", __file__], "defines no function", 1),
    (["check", __file__, "--exercise", "cutt"], "did you mean 'cut'", 2),
    (["grade", "nowhere", "--seconds", "0"], "seconds must be above 0 and at most 86400, got 0", 2),
    (["grade", "nowhere", "--seconds", "1e300"], "at most 86400, got 1e+300", 2),
    (["grade", "nowhere", "--memory", "-1"], "-1 is not in the range 1<=x<=1048576", 2),
    (["grade", "nowhere", "--memory", f"{10**28}"], "is not in the range 1<=x<=1048576", 2),
    (["grade", "nowhere"], "must be a folder of submissions", 1),
    (["list", "--lesson", "99"], "lesson must be between 0 and", 2),
    (["list", "--lesson", "x"], "'x'", 2),
    (["chekc", "a.py"], "'chekc'", 2),
])  # fmt: skip
def test_what_goes_wrong_is_one_line(arguments, words, status, capsys):
    assert run(["exercises", *arguments]) == status
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(("out", "words"), [
    ("", "name what to write, got ''"),
    ("folder", "got the directory 'folder'"),
    ("class/ann.py", "must end in .csv, got 'class/ann.py'"),
    ("class/grades.csv", "class/grades.csv must not be written, because class is read"),
    ("other.csv", "other.csv exists and is not a table of grades"),
])  # fmt: skip
def test_grades_cost_no_file(out, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder in ("class", "folder"):
        (tmp_path / folder).mkdir()
    (tmp_path / "class" / "ann.py").write_text(COUNT)
    (tmp_path / "other.csv").write_text("student,mark\n")
    status = 1 if out.endswith(".csv") else 2
    assert run(["exercises", "grade", "class", "-o", out, "--force"]) == status
    assert words in capsys.readouterr().err
    assert (tmp_path / "class" / "ann.py").read_text() == COUNT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["class", "folder", "other.csv"]


@pytest.mark.parametrize(("submissions", "existing", "status"), [
    ("class", "g-laws.csv", 2),
    ("class", "g-feedback", 2),
    ("class", "g-gradebook.csv", 1),  # which is the roster
    ("g-feedback", "other.csv", 1),
])  # fmt: skip
def test_each_output_is_checked(submissions, existing, status, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / submissions).mkdir()
    (tmp_path / submissions / "ann.py").write_text(COUNT)
    (tmp_path / existing).write_text("name\nann\n")
    command = ["exercises", "grade", submissions, "-o", "g.csv", "--roster", existing]
    if status == 2:
        command = command[:-2]
    assert run(command) == status
    words = "already exists; pass --force" if status == 2 else "must not be written, because"
    assert words in capsys.readouterr().err
    assert (tmp_path / existing).read_text() == "name\nann\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([submissions, existing])


def test_grades_replace_their_own_table(tmp_path):
    path = tmp_path / "grades.csv"
    path.write_text(Grades((), 1, {}).to_csv())
    check_out(path, tmp_path / "class")


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits and named pipes")
def test_a_full_disk_leaves_no_half_of_a_notebook(tmp_path, capsys):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))
    new = tmp_path / "new" / "week-1"
    try:
        statuses = [
            run(["exercises", "start", str(folder), "--lesson", "1"]) for folder in (tmp_path, new)
        ]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert statuses == [1, 1]
    places = [folder / "01-see-rank.ipynb" for folder in (tmp_path, new)]
    assert capsys.readouterr().err == "".join(
        f"lora-np: {path}: File too large\n" for path in places
    )
    assert list(tmp_path.iterdir()) == []
    os.mkfifo(tmp_path / "a.py")
    assert run(["exercises", "check", str(tmp_path / "a.py")]) == 1
    assert "not a regular file" in capsys.readouterr().err


def test_as_a_process(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(COUNT)
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "lora_np", "exercises", "check", str(path)],
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "1 of 1 point" in result.stdout


def test_a_disk_that_is_full_halfway_keeps_what_was_there_and_nothing_of_ours(
    tmp_path, monkeypatch, capsys
):
    from lora_np import files

    folder = tmp_path / "new" / "week-1"
    real = files.write_text

    def full(path, text):
        if path.suffix == ".py":
            (folder / "mine.txt").write_text("mine")
            raise OSError(28, "No space left on device", str(path))
        real(path, text)

    monkeypatch.setattr(files, "write_text", full)
    assert run(["exercises", "start", str(folder), "--lesson", "1"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
