"""What Windows lacks, taken away: commands end as they do here, in letters that cp1252 has."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lora_np import exercises
from lora_np.checks import ASCII

ROOT = Path(__file__).parents[2]
WINDOWS = ROOT / "tests" / "windows.py"
LACKING = f"""
import sys
__file__ = {str(WINDOWS)!r}
exec(open(__file__, encoding="utf-8").read())
"""
COMMAND = f"""{LACKING}
from lora_np.cli import main
main()
"""
# Tests that Windows skips are skipped: while files of tests are imported, the platform is its own.
TESTS = f"""{LACKING}
import joblib, matplotlib.pyplot, numpy.testing, pytest
import lora_np.cli

class Skips:
    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector):
        sys.platform = "win32" if isinstance(collector, pytest.Module) else "linux"
        try:
            return (yield)
        finally:
            sys.platform = "linux"

sys.exit(pytest.main(sys.argv[1:], plugins=[Skips()]))
"""
# of README's second command: files, tables, what commands print, README's examples; the last are skipped
SHARE = (
    "tests/test_files.py", "tests/test_table.py", "tests/cli/test_output.py", "README.md",
    "tests/laws/test_killed.py",
)  # fmt: skip
pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="takes from Linux what Windows lacks"
)


def printed(folder, code, *arguments, status=0):
    """What a process prints in a pipe, decoded as cp1252."""
    words = [
        sys.executable,
        "-X",
        "warn_default_encoding",
        "-W",
        "error::EncodingWarning",
        "-W",
        "ignore::EncodingWarning:matplotlib.font_manager",  # writes its list of fonts once
        "-c",
        code,
    ]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [*words, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        timeout=600,
    )
    text = (run.stdout + run.stderr).decode("cp1252")
    assert run.returncode == status, text
    return text


def said(folder, *arguments, status=0):
    """What a command prints."""
    text = printed(folder, COMMAND, *arguments, status=status)
    assert "Traceback" not in text
    assert not re.search(r"\\u[0-9a-f]{4}|\\x[0-9a-f]{2}", text), "an escaped picture"
    return text


@pytest.fixture
def folder(tmp_path):
    r"""A folder whose name has the letters that a path of Windows has, such as \n and \1."""
    folder = tmp_path / r"C:\new\1\users"
    folder.mkdir()
    return folder


def solved(number):
    """The puzzles' file with the right lines of the first ``number``."""
    script = exercises.puzzle_script()
    for one in exercises.puzzles()[:number]:
        head, title, rest = script.partition(f"# Puzzle {one.number}: ")
        script = head + title + rest.replace(one.blank, one.right, 1)
    return script


def test_puzzles_are_drawn_in_ascii(folder):
    file = folder / "lora-puzzles.py"
    text = said(folder, "puzzles", file)
    assert "LoRA puzzles: 0 of 15 solved\noooooooooooooo" in text
    file.write_text(solved(4), encoding="utf-8")
    text = said(folder, "puzzles", file)
    assert "LoRA puzzles: 4 of 15 solved\n####ooooooooooo" in text
    assert "+#" in text or "::" in text  # the shades of a matrix
    assert not set(ASCII) - {"·"} & set(text)


def test_an_exercise_is_checked(folder):
    file = folder / "mine.py"
    wrong = "def column_of_product(B, A, j):\n    return B[:, 0] * A[0, j]\n"
    file.write_text(f"{wrong}{exercises.solution('lora_count').code}", encoding="utf-8")
    text = said(folder, "exercises", "check", file, status=1)
    assert "lora_count: 1 of 1 point. All laws hold." in text
    assert "A known mistake gives this answer" in text


@pytest.mark.slow
def test_a_class_is_graded(folder):
    class_ = folder / "class"
    class_.mkdir()
    for name in ("Ann", "Bob"):
        (class_ / f"{name}.py").write_text(exercises.solution("lora_count").code, encoding="utf-8")
    table = folder / "grades.csv"
    text = said(folder, "exercises", "grade", class_, "-o", table, "--exercise", "lora_count")
    assert "Ann" in text
    assert "not enforced" in text
    _, *students = table.read_text(encoding="utf-8").splitlines()
    points = str(exercises.exercise("lora_count").points)
    assert [points in line for line in students] == [True, True]


@pytest.mark.slow
def test_the_demo_of_the_readme_runs(folder):
    text = said(folder, "tour", "--quick", "--out", folder / "tour")
    assert "1,760 parameters achieve" in text
    assert (folder / "tour" / "report.html").is_file()


@pytest.mark.slow
def test_a_share_of_the_tests_passes(folder):
    """By the settings of the second command of README, whose warnings are errors."""
    settings = ["-q", "-ra", "-p", "no:cacheprovider", "-o", "addopts=", "--import-mode=importlib"]
    settings += ["--doctest-glob=*.md", "-m", "not peers and not slow", f"--rootdir={ROOT}"]
    settings += ["--config-file", ROOT / "pyproject.toml", "--basetemp", folder / "made"]
    text = printed(folder, TESTS, *settings, *(ROOT / name for name in SHARE))
    assert int(re.search(r"(\d+) passed", text)[1]) > 80
    assert "needs fork and SIGKILL" in text


def test_the_readme_has_its_commands_for_powershell_too():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    unix = re.findall(r"^    (.*\.venv/bin/.*)$", text, re.M)
    windows = re.findall(r"^    (.*\.venv\\Scripts\\.*)$", text, re.M)
    assert len(unix) == len(windows) == 2
    for here, there in zip(unix, windows, strict=True):
        translated = (
            here.replace("python3 ", "py ").replace(" &&", ";").replace("/bin/", "\\Scripts\\")
        )
        assert translated == there


@pytest.mark.skipif(not (ROOT / ".ci" / "run").exists(), reason="not in a source distribution")
@pytest.mark.parametrize("tested", [(), ("3.11",), ("3.11", "3.13")])
def test_ci_says_what_of_the_matrix_it_left_out(tested):
    """What is in the workflow and was not run here, read from the workflow itself."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    found = re.search(r"^tested=\(\)\n.*?^rest_of_the_matrix\(\) \{\n.*?^\}\n", script, re.M | re.S)
    code = f'set -eu; leave_out() {{ echo "$1"; }}\n{found[0]}\ntested=({" ".join(tested)})\nrest_of_the_matrix'
    run = subprocess.run(
        [shutil.which("bash"), "-c", code], cwd=ROOT, capture_output=True, check=True
    )
    said = run.stdout.decode()
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    (systems,) = re.findall(r"^ +system: \[(.*)\]$", workflow, re.M)
    (versions,) = re.findall(r"^ +python: \[(.*)\]$", workflow, re.M)
    left = [version for version in re.findall(r"[\d.]+", versions) if version not in tested]
    assert f"on Linux: Python {' '.join(left)}\n" in said
    for system in systems.split(", "):
        assert (f"all of {system}" in said) is (not system.startswith("ubuntu"))
    assert "tests/laws/test_windows.py" in said
