"""A folder that runs lora_np without installation: made by pip, run by a Python that has no packages."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from lora_np import exercises
from recipes import launcher, stick

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "learn" / "teaching.md"


def run(folder, *words, cwd, status=0):
    """Run the folder's command with a Python that searches for no installed packages."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    ended = subprocess.run(
        [sys.executable, "-S", folder / "lora-np.py", *words],
        cwd=cwd, env=environment, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert ended.returncode == status, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stdout + ended.stderr


def test_this_computer_has_a_name_that_can_be_asked_for():
    assert stick.COMPUTER.fullmatch(launcher.computer()) or sys.platform not in {
        "linux", "darwin", "win32",
    }  # fmt: skip
    assert stick.options(launcher.computer()) == []  # pip may then build what has no wheel


@pytest.mark.parametrize(
    ("platform", "built", "machine", "name"),
    [
        ("win32", "win-amd64", "AMD64", "windows-amd64"),
        ("win32", "win-amd64", "ARM64", "windows-amd64"),  # Python is, the processor is not
        ("darwin", "macosx-11.0-arm64", "arm64", "macos-arm64"),
        ("darwin", "macosx-10.13-universal2", "x86_64", "macos-x86_64"),
        ("linux", "linux-aarch64", "aarch64", "linux-aarch64"),
    ],
)
def test_pip_is_asked_for_what_the_launcher_looks_for(monkeypatch, platform, built, machine, name):
    monkeypatch.setattr(launcher.sys, "platform", platform)
    monkeypatch.setattr(sysconfig, "get_platform", lambda: built)
    monkeypatch.setattr(launcher.platform, "machine", lambda: machine)
    monkeypatch.setattr(launcher.sys, "version_info", sys.version_info)
    found = launcher.computer()
    assert found == f"{name}-{sys.version_info.major}.{sys.version_info.minor}"
    monkeypatch.undo()
    system, processor, _ = found.split("-")
    other = f"{system}-{processor}-3.99"
    platforms = re.findall(r"--platform (\S+)", " ".join(stick.options(other)))
    assert platforms
    assert all(one.endswith(processor) for one in platforms)
    assert "--python-version 3.99" in " ".join(stick.options(other))


@pytest.mark.parametrize("name", ["windows", "windows-3.13", "beos-amd64-3.13", "macos-arm64-2.7"])
def test_a_computer_that_nobody_has_is_refused_before_anything_is_written(name, tmp_path):
    with pytest.raises(SystemExit, match=f"got '{name}'"):
        stick.make(tmp_path / "lora", [launcher.computer(), name])
    assert not (tmp_path / "lora").exists()


def test_the_page_names_computers_that_can_be_asked_for():
    if not DOCS.is_file():
        pytest.skip("the sources of the site are not there")
    named = re.findall(r"--for (\S+)", DOCS.read_text(encoding="utf-8"))
    assert named
    assert all(stick.options(name) for name in named)


def test_a_folder_for_another_computer_says_what_to_add(tmp_path):
    (tmp_path / "packages" / "windows-amd64-3.99").mkdir(parents=True)
    shutil.copy(launcher.__file__, tmp_path / "lora-np.py")
    said = run(tmp_path, "puzzles", cwd=tmp_path, status=1)
    assert "only for windows-amd64-3.99" in said
    assert f"--for {launcher.computer()}" in said


PACKAGE = """
import subprocess, sys

def main():
    print(*sys.argv[1:], flush=True)
    subprocess.run([sys.executable, "-S", "-c", "import lora_np; print(lora_np.__file__)"])
"""


def test_the_command_and_its_processes_find_the_packages(tmp_path):
    package = tmp_path / "packages" / launcher.computer() / "lora_np"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(PACKAGE, encoding="utf-8")
    shutil.copy(launcher.__file__, tmp_path / "lora-np.py")
    said = run(tmp_path, "count", "100x120", cwd=tmp_path)
    assert said.splitlines() == ["count 100x120", str(package / "__init__.py")]


@pytest.mark.slow
def test_the_folder_runs_without_installation(tmp_path):
    folder, home = tmp_path / "a stick", tmp_path / "home"
    home.mkdir()
    stick.make(folder, [launcher.computer()])
    script = home / "lora-puzzles.py"
    assert "0 of 15 solved" in run(folder, "puzzles", cwd=home)
    first = exercises.puzzles()[0]
    text = script.read_text(encoding="utf-8").replace(first.blank, first.right, 1)
    script.write_text(text, encoding="utf-8")
    assert "1 of 15 solved" in run(folder, "puzzles", cwd=home)
    run(folder, "exercises", "start", "week-1", "--lesson", "1", cwd=home)
    said = run(folder, "exercises", "check", "week-1/01-see-rank.py", cwd=home, status=1)
    assert "Not written yet" in said
    said = run(folder, "generate", "austen", "--adapter", "king-james", "--tokens", "3", cwd=home)
    assert said.strip()
    if os.name == "posix":  # the command that students type
        ended = subprocess.run(
            ["./lora-np", "count", "100x120", "--rank", "8"],
            cwd=folder, capture_output=True, text=True, check=False,
            env={"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        )  # fmt: skip
        assert "1,760" in ended.stdout, ended.stderr
