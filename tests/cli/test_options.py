"""What commands may write, and what they refuse to replace."""

import os

import numpy as np
import pytest

from lora_np.cli import run
from tests.drawing import FULL


@pytest.mark.parametrize(("arguments", "words"), [
    (["combine", "--", "-adapter", "-o", "t"], "Missing option '-o' / '--out'.\n"),
    (["inspect", "adapter", "--jobs", "100000"], "'--jobs': 100000 is not in the range 1<=x<=1000.\n"),
    (["exercises", "grade", "sub", "--jobs", "0"], "'--jobs': 0 is not in the range 1<=x<=1000.\n"),
    (["puzzles", "mine.ipynb"], "'[FILE]': must end in .py, got 'mine.ipynb'\n"),
    (["merge", "austen", "king-james", "-o", "t", "--seed", "3"], "--seed is for --rounding random, which is not given\n"),
    (["capacity", "austen", "--rank", "4", "--target-loss", "0.2"], "--target-loss is for --data, which is not given\n"),
])  # fmt: skip
def test_what_is_wrong_is_named(arguments, words, capsys):
    assert run(arguments) != 0
    assert capsys.readouterr().err.endswith(words)


@pytest.mark.parametrize(
    "arguments",
    [
        ["resize", "../adapter", "--rank", "1", "--force", "-o", ""],
        ["extract", "a", "b", "--rank", "1", "-o", ""],
        ["combine", "a", "b", "-o", ""],
        ["merge", "a", "b", "--out="],
        ["finetune", "austen", "genesis", "-o", ""],
        ["finetune", "austen", "genesis", "-o", "out", "--checkpoint", ""],
        ["tour", "--quick", "--out", ""],
        ["lab", ""],
        ["exercises", "start", ""],
        ["exercises", "grade", ".", "-o", ""],
        ["exercises", "nbgrader", ""],
    ],
)
def test_an_empty_output_is_not_the_current_directory(arguments, tmp_path, monkeypatch, capsys):
    from lora_np import adapters

    module = adapters.AdapterModule.of(A=np.ones((2, 3)), B=np.ones((4, 2)), alpha=1)
    for name in ("adapter", "here"):
        adapters.save(adapters.Adapter({"q": module}), tmp_path / name)
    monkeypatch.chdir(tmp_path / "here")
    assert run(arguments) == 2
    assert "name what to write, got ''" in capsys.readouterr().err
    assert adapters.load(tmp_path / "here")["q"].rank == 2
    assert len(os.listdir()) == 2


@pytest.mark.parametrize(("target", "words"), [
    ("", "'--plot': name what to write, got ''"),
    ("folder", "'--plot': must name a file, got the directory 'folder'"),
    ("curve", "'--plot': must end in .png, "),
    ("M.npy", "'--plot': must end in .png, "),
    ("M.npy/curve.png", "M.npy' is not a directory to write curve.png into"),
    ("mine.png", "'--plot': 'mine.png' already exists; pass --force to replace it"),
])  # fmt: skip
def test_a_plot_that_would_go_wrong(target, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "mine.png").write_text("mine")
    np.save("M.npy", np.eye(3))
    assert run(["errors", "M.npy", "--plot", target]) == 2
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["M.npy", "folder", "mine.png"]
    assert (tmp_path / "mine.png").read_text() == "mine"


@pytest.mark.parametrize(("command", "option", "name"), [
    ("errors M.npy", "--plot", "curve.png"),
    ("inspect king-james", "--plot", "spectra.png"),
    ("inspect king-james", "--html", "page.html"),
    ("overlap king-james king-james", "--plot", "overlap.png"),
])  # fmt: skip
def test_a_file_is_replaced_only_by_force(command, option, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("M.npy", np.eye(3))
    path = tmp_path / "new" / "folder" / name
    assert run([*command.split(), option, str(path)]) == 0  # makes the folder
    path.write_text("mine")
    assert run([*command.split(), option, str(path)]) == 2
    assert "already exists; pass --force to replace it" in capsys.readouterr().err
    assert path.read_text() == "mine"
    orders = [[option, str(path), "--force"], ["--force", option, str(path)]]
    for words in orders if FULL or command.startswith("errors") else orders[:1]:
        assert run([*command.split(), *words]) == 0
        assert path.read_bytes() != b"mine"


@pytest.mark.parametrize(("option", "target"), [
    ("--html", "adapter/adapter_config.json"),
    ("--html", "adapter/page.html"),
    ("--html", "notes.txt"),
    ("--plot", "adapter/picture.png"),
])  # fmt: skip
def test_a_page_costs_no_file(option, target, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adapter").mkdir()
    (tmp_path / target).write_text("kept")
    assert run(["inspect", "adapter", option, target]) == 2
    assert os.path.basename(target) in capsys.readouterr().err
    assert (tmp_path / target).read_text() == "kept"
