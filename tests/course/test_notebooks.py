"""``lora-np lab``: lessons beside the reader, whose work is never touched, and JupyterLab on
them.
"""

import os
import sys
import types

import pytest

from lora_np import cli
from lora_np.course.notebooks import copy_lessons, lessons, open_lab


@pytest.fixture
def jupyterlab(monkeypatch):
    """In place of JupyterLab: the options that it would have been started with."""
    started = []
    module = types.ModuleType("jupyterlab.labapp")
    module.LabApp = types.SimpleNamespace(launch_instance=started.append)
    monkeypatch.setitem(sys.modules, "jupyterlab", types.ModuleType("jupyterlab"))
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", module)
    return started


@pytest.fixture
def no_jupyterlab(monkeypatch):
    monkeypatch.setitem(sys.modules, "jupyterlab", None)
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", None)


def test_copies_are_the_lessons(tmp_path):
    new, kept = copy_lessons(tmp_path / "a" / "b")
    assert kept == []
    assert [path.name for path in new] == [path.name for path in lessons()]
    assert [path.read_bytes() for path in new] == [path.read_bytes() for path in lessons()]


def test_work_is_never_overwritten(tmp_path):
    (first, *others), _ = copy_lessons(tmp_path)
    first.write_text("my work")
    others[0].unlink()
    new, kept = copy_lessons(tmp_path)
    assert first.read_text() == "my work"
    assert new == others[:1]
    assert kept == [first, *others[1:]]


def test_a_link_in_the_place_of_a_lesson_is_not_followed(tmp_path):
    (tmp_path / lessons()[0].name).symlink_to(tmp_path / "elsewhere")
    _, kept = copy_lessons(tmp_path)
    assert kept == [tmp_path / lessons()[0].name]
    assert not (tmp_path / "elsewhere").exists()


def test_half_a_copy_is_taken_away(tmp_path, monkeypatch):
    class Broken:
        name = lessons()[0].name

        def read_text(self, encoding):
            raise OSError("the disk is gone")

    monkeypatch.setattr("lora_np.course.notebooks.lessons", lambda: [Broken()])
    with pytest.raises(OSError, match="the disk is gone"):
        copy_lessons(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_package_without_lessons_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "lora_np.course.notebooks.__file__", str(tmp_path / "lora_np" / "course" / "notebooks.py")
    )
    with pytest.raises(FileNotFoundError, match="notebooks is missing from this installation"):
        lessons()


def test_lab_copies_and_serves(tmp_path, jupyterlab, capsys):
    folder = tmp_path / "mine"
    assert cli.run(["lab", str(folder), "--no-browser", "--port", "8899"]) == 0
    assert (
        capsys.readouterr().out
        == f"{folder}: {len(lessons())} lessons copied, 0 left as they were\n"
    )
    (options,) = jupyterlab
    assert f"--ServerApp.root_dir={folder}" in options
    assert f"--LabApp.default_url=/lab/tree/{lessons()[0].name}" in options
    assert "--no-browser" in options
    assert "--ServerApp.port=8899" in options
    assert ("--allow-root" in options) == (os.geteuid() == 0)


def test_lab_opens_a_browser_unless_told_otherwise(tmp_path, jupyterlab, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["lab"]) == 0
    (options,) = jupyterlab
    assert not any(option.startswith(("--no-browser", "--ServerApp.port")) for option in options)
    assert (tmp_path / "lora-np-lessons" / lessons()[0].name).exists()


@pytest.mark.parametrize(("user", "allowed"), [(0, True), (1000, False)])
def test_root_is_allowed_only_where_one_is_root(tmp_path, jupyterlab, monkeypatch, user, allowed):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    open_lab(tmp_path)
    assert ("--allow-root" in jupyterlab[0]) == allowed


def test_an_empty_folder_opens_the_start_page(tmp_path, jupyterlab):
    open_lab(tmp_path)
    assert not any("default_url" in option for option in jupyterlab[0])


def test_without_jupyterlab_one_line_says_what_to_install(tmp_path, no_jupyterlab, capsys):
    assert cli.run(["lab", str(tmp_path / "mine")]) == 1
    printed = capsys.readouterr()
    assert (
        printed.err
        == "lora-np: JupyterLab is not installed here: pip install 'lora-np[notebooks]'\n"
    )
    assert (tmp_path / "mine" / lessons()[0].name).exists()


def test_a_file_in_the_way_is_told(tmp_path, jupyterlab, capsys):
    (tmp_path / "mine").write_text("a file")
    assert cli.run(["lab", str(tmp_path / "mine")]) == 1
    assert "mine: File exists" in capsys.readouterr().err
    assert jupyterlab == []


def test_port_out_of_range_is_bad_usage(tmp_path, jupyterlab):
    assert cli.run(["lab", str(tmp_path), "--port", "70000"]) == 2
