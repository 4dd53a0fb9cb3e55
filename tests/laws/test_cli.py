"""The command line as a person meets it: real processes, and what they print."""

import errno
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import lora_np
from lora_np.cli import run
from lora_np.files import write_whole
from lora_np.hub import located
from lora_np.language import located_adapter
from tests.commands import assert_one_line, every_command, said
from tests.drawing import FULL

# pyparsing takes "-W error" as a wish for its own diagnostics, which matplotlib 3.8 does not pass.
WARNINGS = ("-W", "error", "-W", "ignore:::pyparsing")


def lora_np_command(*arguments):
    result = subprocess.run(
        [sys.executable, *WARNINGS, "-m", "lora_np", *arguments], capture_output=True, text=True
    )
    # on a busy machine, a command says how long it has been running
    result.stderr = re.sub(r"^running for \d+ s\n", "", result.stderr, flags=re.MULTILINE)
    return result


def test_version():
    assert lora_np_command("--version").stdout == f"lora-np {lora_np.__version__}\n"


def test_a_group_without_a_command_lists_its_commands():
    result = lora_np_command("exercises")
    assert (result.returncode, result.stderr) == (0, "")
    assert "grade" in result.stdout


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_lists_the_commands(arguments):
    result = said(*arguments) if arguments else lora_np_command()
    assert result.returncode == 0
    assert "tour" in result.stdout
    assert "count" in result.stdout


def test_every_command_has_help_with_an_example():
    for words, _ in every_command():
        name = words.removeprefix("lora-np ")
        result = said(*name.split(), "--help")
        assert result.returncode == 0
        assert f"lora-np {name}" in result.stdout, name


@pytest.mark.slow
def test_tour_as_json(tmp_path):
    result = lora_np_command("tour", "--quick", "--out", str(tmp_path / "out"), "--json")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert [u["parameters"] for u in json.loads(result.stdout)["updates"]] == [12_000, 4_400, 1_760]


@pytest.mark.slow
def test_tour_prints_the_three_advantages(tmp_path):
    result = lora_np_command("tour", "--quick", "--out", str(tmp_path / "out"))
    for words in (
        "1. cheaper to train",
        "2. less time",
        "3. save the adapter",
        "12,000",
        "4,400",
        "1,760",
        "report.html",
    ):
        assert words in result.stdout


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    assert_one_line(said("tour", "--out", str(tmp_path / "out")), 1)


def test_out_below_a_file(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    result = said("tour", "--out", str(tmp_path / "file" / "out"))
    assert_one_line(result, 2)
    assert "is not a directory to write out into" in result.stderr


@pytest.mark.parametrize(("arguments", "words"), [
    (["trou"], "'trou'"),
    (["tour", "--fast"], "--fast"),
    (["tour", "--seed", "x"], "'x'"),
    (["tour", "--seed", "-1"], "-1 is not in the range x>=0"),
])  # fmt: skip
def test_bad_usage_is_one_line_and_status_2(arguments, words):
    result = lora_np_command(*arguments) if arguments == ["trou"] else said(*arguments)
    assert_one_line(result, 2)
    assert words in result.stderr


def test_bad_input_is_one_line_and_status_1():
    result = lora_np_command("inspect", "nowhere")
    assert_one_line(result, 1)
    assert "nowhere: no such directory" in result.stderr


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    command = f"{sys.executable} -m lora_np --help | head -n 1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert result.stderr == ""


@pytest.mark.skipif(os.name != "posix", reason="closes a file descriptor as a shell does")
@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_output_is_no_error(closed):
    command = f"exec {sys.executable} -m lora_np count 100x120 --rank 8 {closed}>&-"
    result = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_ctrl_c_in_a_command_says_so(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lora_np.models.catalogue", interrupt)
    assert run(["count", "--list"]) == 130
    assert capsys.readouterr().err == "\nlora-np: interrupted\n"


def test_ctrl_c_during_the_imports_is_no_traceback():
    code = """if True:
        import sys
        from lora_np.__main__ import main
        class Interrupt:
            def find_spec(self, name, *_):
                if name == "click":
                    raise KeyboardInterrupt
        sys.meta_path.insert(0, Interrupt())
        main()
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (130, "lora-np: interrupted\n")


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")

    def write_half(file):
        file.write(b"half of the n")
        raise OSError(errno.EFBIG, "File too large")

    with pytest.raises(OSError, match="File too large") as caught:
        write_whole(path, write_half)
    assert caught.value.filename == str(path)
    assert [each.read_text() for each in tmp_path.iterdir()] == ["old"]
    write_whole(path, lambda file: file.write(b"new"))
    assert [each.read_text() for each in tmp_path.iterdir()] == ["new"]


FULL_DISK = """
import contextlib, io, json, resource, sys
from lora_np.cli import run
from lora_np.course import guided_tour
fit, step_time = guided_tour.fit, guided_tour.step_time
guided_tour.fit = lambda *given, **settings: fit(*given, **{**settings, "steps": 1})  # the tour writes, whatever it learns
guided_tour.step_time = lambda d, k, steps: step_time(d, k, 1, rounds=1)
for command in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = run(command)  # what is loaded, and kept for another time, is written before the disk is full
    assert status == 0, said.getvalue()
sys.dont_write_bytecode = True  # Python would keep half of what it compiles
resource.setrlimit(resource.RLIMIT_FSIZE, (2_500, 2_500))
for command in json.loads(sys.argv[2]):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = run(command)
    print(json.dumps([status, said.getvalue()]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a file stands for a full disk")
def test_a_full_disk_is_one_line_that_names_the_file(tmp_path):
    np.save(tmp_path / "M.npy", np.random.default_rng(0).normal(size=(12, 9)))
    adapter = str(located_adapter("king-james"))
    matrix, base = str(tmp_path / "M.npy"), str(located("austen"))

    def commands(end):
        kinds = ("png", "pdf", "svg", "jpg", "webp", "eps") if FULL else ("png", "svg")
        pictures = [str(tmp_path / f"picture{end}.{kind}") for kind in kinds]
        return [
            *[["errors", matrix, "--plot", picture] for picture in pictures],
            ["inspect", adapter, "--plot", str(tmp_path / f"figure{end}.pdf")],
            ["inspect", adapter, "--html", str(tmp_path / f"page{end}.html")],
            ["resize", adapter, "--rank", "2", "-o", str(tmp_path / f"resized{end}")],
            ["combine", adapter, adapter, "-o", str(tmp_path / f"combined{end}")],
            ["merge", base, adapter, "-o", str(tmp_path / f"merged{end}")],
            ["tour", "--quick", "--out", str(tmp_path / f"tour{end}")],
        ]

    first = commands("")[:1]  # matplotlib keeps its list of fonts
    before = {path.name for path in tmp_path.iterdir()}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FULL_DISK, json.dumps(first), json.dumps(commands("-full"))],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) == len(commands(""))
    for (status, message), command in zip(lines, commands("-full"), strict=True):
        assert status == 1, command
        assert message.startswith(f"lora-np: {command[-1]}"), message
        assert message.endswith(": File too large\n")
        assert message.count("\n") == 1
    written = {path.name for path in tmp_path.iterdir()} - before
    assert {name for name in written if "-full" in name} <= {"tour-full"}
