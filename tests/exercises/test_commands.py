"""`lora-np exercises ...`, as students and teachers type it."""

import json
import subprocess
import sys

import pytest

from lora_np.cli import exercises_app, run

COUNT = "def lora_count(d, k, r):\n    return r * (d + k)\n"


def test_every_command_has_help_with_an_example(capsys):
    for command in exercises_app.registered_commands:
        assert run(["exercises", command.name, "--help"]) == 0
        assert f"lora-np exercises {command.name}" in capsys.readouterr().out


def test_list(capsys):
    assert run(["exercises", "list", "--lesson", "4"]) == 0
    text = capsys.readouterr().out
    assert "lora_count" in text
    assert "5 exercises, 9 points." in text
    assert run(["exercises", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["exercise"] == "column_of_product"


def test_start_edit_check(tmp_path, capsys):
    assert run(["exercises", "start", str(tmp_path), "--lesson", "4"]) == 0
    assert "Written:" in capsys.readouterr().out
    script = tmp_path / "04-count-parameters.py"
    assert run(["exercises", "check", str(script)]) == 1
    assert capsys.readouterr().out.endswith("0 of 9 points.\n")
    before, _, after = script.read_text().partition("    ...\n")
    script.write_text(f"{before}    return r * (d + k)\n{after}")
    assert run(["exercises", "check", str(script), "--exercise", "lora_count"]) == 0
    assert capsys.readouterr().out == "lora_count: 1 of 1 point. All laws hold.\n1 of 1 point.\n"
    assert run(["exercises", "start", str(tmp_path), "--lesson", "4"]) == 0
    assert f"Kept as it is: {script}" in capsys.readouterr().out


def test_check_as_json(tmp_path, capsys):
    path = tmp_path / "a.py"
    path.write_text(COUNT.replace("+", "*"))
    assert run(["exercises", "check", str(path), "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)["exercises"]
    assert (found["points"], found["of"]) == (0, 1)
    assert found["message"].startswith("B is d x r and A is r x k")


def test_grade(tmp_path, capsys):
    folder = tmp_path / "submissions"
    folder.mkdir()
    (folder / "ann.py").write_text(COUNT)
    out = tmp_path / "grades.csv"
    assert run(["exercises", "grade", str(folder), "-o", str(out), "--seed", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "seed": 1, "limits not enforced": {}, "grades": [{"student": "ann", "points": 1, "of": 9}],
    }  # fmt: skip
    assert out.read_text().splitlines()[1].startswith("ann,1,0,0,0,0,1,9")


@pytest.mark.parametrize(("arguments", "words", "status"), [
    (["check", "nothing.py"], "nothing.py: No such file", 1),
    (["check", __file__], "defines no function", 1),
    (["check", __file__, "--exercise", "cutt"], "did you mean 'cut'", 1),
    (["grade", "nowhere", "--seconds", "0"], "seconds must be above 0, got 0", 1),
    (["grade", "nowhere"], "must be a folder of submissions", 1),
    (["list", "--lesson", "11"], "lesson must be between 1 and 10", 1),
    (["list", "--lesson", "x"], "'x'", 2),
    (["chekc", "a.py"], "'chekc'", 2),
])  # fmt: skip
def test_what_goes_wrong_is_one_line(arguments, words, status, capsys):
    assert run(["exercises", *arguments]) == status
    assert words in capsys.readouterr().err


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
