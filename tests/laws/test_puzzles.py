"""``lora-np puzzles``: a script that is edited, and keeps the progress itself."""

import functools
import shutil
import sys

import numpy as np
import pytest

from lora_np.cli import run
from lora_np.exercises import BLANK, ending, puzzle, puzzle_lines, puzzles
from lora_np.grading import check_puzzles
from tests.drawing import few
from tests.exercises.test_blanks import RIGHT_IN_THE_FILE, TRIES, outcome


@pytest.fixture
def script(tmp_path, capsys):
    path = tmp_path / "lora-puzzles.py"
    assert run(["puzzles", str(path)]) == 0
    assert "0 of 15 solved" in capsys.readouterr().out
    return path


def fill(path, one, line):
    head, title, rest = path.read_text("utf-8").partition(f"# Puzzle {one.number}: ")
    path.write_text(head + title + rest.replace(one.blank, line, 1), encoding="utf-8")


def test_a_line_is_written_checked_and_kept(script, capsys):
    first, second, *_ = puzzles()
    fill(script, first, "parameters = d * k")
    fill(script, second, second.right)
    assert run(["puzzles", str(script), "--hints", "2"]) == 1
    shown = capsys.readouterr().out
    assert "1 of 15 solved\n□■□" in shown
    assert f"1. {first.title}: not right yet" in shown
    *_, verdict = shown.partition("not right yet")
    assert "`parameters = d * k` is not right" in verdict
    assert "the count must be" in verdict
    assert first.statement not in shown
    assert first.hints[1] in shown
    assert first.hints[2] not in shown
    assert "2,047" not in shown  # a victory is shown once no hint is asked for
    text = script.read_text("utf-8").replace("parameters = d * k", first.right)
    script.write_text(text, encoding="utf-8")
    assert run(["puzzles", str(script)]) == 0
    shown = capsys.readouterr().out
    assert "2 of 15 solved" in shown
    assert "2,047" in shown


def test_all_lines_pass_in_a_process_without_rights(script, capsys, monkeypatch):
    quick = functools.partial(ending, steps=2, every=39, tokens=9)
    monkeypatch.setattr("lora_np.cli.course.practice.ending", quick)
    monkeypatch.setattr("lora_np.grading.check_puzzles", functools.cache(check_puzzles))
    for one in puzzles():
        fill(script, one, one.right)
    with monkeypatch.context() as terminal:
        terminal.setattr(sys.stdout, "isatty", lambda: True)
        assert run(["puzzles", str(script), "--prompt", "In the "]) == 0
    shown = capsys.readouterr().out
    assert "15 of 15 solved" in shown
    assert "PEFT will find in your file" in shown
    assert f"{script} is a whole LoRA now" in shown
    assert "Step 2 of 2: loss" in shown
    assert "\nAfter, loss " in shown
    assert "Prompt: In the" in shown
    folder = script.with_suffix("")
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "card.svg",
    }  # fmt: skip
    assert run(["generate", "austen", "--adapter", str(folder), "--tokens", "2"]) == 0
    capsys.readouterr()
    assert run(["puzzles", str(script)]) == 0
    assert "After" not in capsys.readouterr().out  # it has been shown
    shutil.rmtree(folder)
    assert run(["puzzles", str(script)]) == 0
    shown = capsys.readouterr().out
    assert "\nAfter, loss " in shown
    assert "Step" not in shown  # a line for each step is for terminals


def test_a_finished_file_that_raises_is_told_where(script, capsys):
    for one in puzzles():
        fill(script, one, one.right)
    text = script.read_text("utf-8").replace("dW = U * ", "dW = U[:, :, 5] * ")
    script.write_text(text, encoding="utf-8")
    line = 1 + text[: text.index("dW = U[")].count("\n")
    assert run(["puzzles", str(script)]) == 0
    shown = capsys.readouterr().out
    assert "15 of 15 solved" in shown
    assert "is a whole LoRA now" not in shown
    assert "ends with an error: IndexError: too many indices" in shown
    assert f"(line {line})" in shown


def judged_here(path):
    lines = puzzle_lines(path.read_text("utf-8"))
    written = [name for name, line in lines.items() if BLANK not in line]
    return {name: (lines[name], outcome(name, lines[name])) for name in written}


@pytest.mark.filterwarnings("ignore")
def test_a_verdict_is_the_last_screen(script, capsys, monkeypatch):
    """Of each first try that fails: at most 24 lines of 80 columns, whatever else the file has."""
    monkeypatch.setattr("lora_np.grading.check_puzzles", judged_here)  # without a process for each
    text, failed = script.read_text("utf-8"), 0
    for one in few(TRIES, 9):
        if one["kind"] == "right" or "while" in one["line"] or not one["line"]:
            continue
        script.write_text(text, encoding="utf-8")
        fill(script, puzzle(one["puzzle"]), one["line"])
        with np.errstate(all="ignore"):
            status = run(["puzzles", str(script)])
        shown = capsys.readouterr().out
        if status == 0:
            assert one["line"] in RIGHT_IN_THE_FILE
            continue
        failed += 1
        assert status == 1, one
        *_, verdict = shown.partition("not right yet")
        assert "`" in verdict
        rows = sum(-(-len(row) // 80) or 1 for row in shown.splitlines())
        assert rows <= 24, (rows, shown)
    assert failed


def test_a_line_that_ends_or_hangs_is_only_wrong(script):
    first, second, *_ = puzzles()
    fill(script, first, "parameters = __import__('os')._exit(0)")
    fill(script, second, second.right)
    outcomes = check_puzzles(script)
    assert not outcomes["parameters"][1].passed
    assert outcomes["break_even"][1].passed


def test_another_file_is_refused_and_kept(tmp_path, capsys):
    other = tmp_path / "other.py"
    other.write_text("x = 1\n", encoding="utf-8")
    assert run(["puzzles", str(other)]) == 1
    assert "has no line such as '# Puzzle 1: ...'" in capsys.readouterr().err
    assert other.read_text("utf-8") == "x = 1\n"
