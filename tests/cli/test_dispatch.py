"""Which commands run without importing NumPy, and what the list of commands says."""

import os
import subprocess
import sys

import click
import pytest

from lora_np.cli import app, run
from lora_np.cli.dispatch import COMMANDS, summaries

WITHOUT_NUMPY = [
    "",
    "--help",
    "--version",
    "count llama-3-8b",
    "count Qwen2.5-7B-Instruct --rank 16 --json",
    "count 100x120 --rank 20 --rank 8",
    "count --help",
    "plan llama-3-8b --gpu 4090",
    "plan --help",
    "capacity 1760 --help",
]
COMPLETED = {  # words, the last of them unfinished: some of what completion offers
    "lora-np ": ["tour", "count", "repair"],
    "lora-np pl": ["plan"],
    "lora-np --v": ["--version"],
    "lora-np count --ra": ["--rank"],
    "lora-np plan --g": ["--gpu"],
}


@pytest.fixture(scope="module")
def no_numpy(tmp_path_factory):
    """The environment of a process in which importing NumPy raises."""
    folder = tmp_path_factory.mktemp("nothing")
    (folder / "numpy").mkdir()
    (folder / "numpy" / "__init__.py").write_text("raise ImportError('NumPy was imported')")
    path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONWARNINGS": "error"}


def lora_np(words, environment, **more):
    command = [sys.executable, "-m", "lora_np", *words.split()]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**environment, **more}
    )


@pytest.mark.parametrize("words", WITHOUT_NUMPY)
def test_commands_that_count_import_no_numpy(words, no_numpy):
    without = lora_np(words, no_numpy)
    assert without.returncode == 0, without.stderr
    with_numpy = lora_np(words, dict(os.environ))
    assert without.stdout == with_numpy.stdout


@pytest.mark.parametrize("words", COMPLETED)
def test_completion_imports_no_numpy(words, no_numpy):
    asked = {"_LORA_NP_COMPLETE": "bash_complete", "COMP_WORDS": words}
    asked["COMP_CWORD"] = str(words.count(" "))
    code = "import sys; sys.argv[0] = 'lora-np'; from lora_np.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**no_numpy, **asked},
        check=False,
    )  # fmt: skip
    offered = [line.partition(",")[2] for line in done.stdout.splitlines()]
    assert set(COMPLETED[words]) <= set(offered), done.stderr


def test_a_command_that_computes_says_that_numpy_is_missing(no_numpy):
    done = lora_np("errors missing.npy", no_numpy)
    assert done.returncode == 1
    assert "NumPy was imported" in done.stderr


def test_the_list_of_commands_has_the_first_line_of_each_docstring(capsys):
    """It is read from the source, without loading the commands."""
    context = click.Context(app, info_name="lora-np")
    for name, text in summaries().items():
        command = app.get_command(context, name)
        assert text == command.help.partition("\n")[0]
        assert len(text) <= 63, "cut off at 80 columns"
    assert [*summaries()] == [*COMMANDS]
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in summaries().values())
