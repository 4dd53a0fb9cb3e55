"""The command line as a person meets it: real processes, and what they print."""

import contextlib
import errno
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import lora_np
from lora_np.cli import run
from lora_np.files import write_whole
from lora_np.hub import located
from lora_np.language import located_adapter
from tests.commands import every_command
from tests.drawing import FULL

# pyparsing takes "-W error" as a wish for its own diagnostics, which matplotlib 3.8 does not pass.
WARNINGS = ("-W", "error", "-W", "ignore:::pyparsing")


def lora_np_command(*arguments):
    return subprocess.run(
        [sys.executable, *WARNINGS, "-m", "lora_np", *arguments], capture_output=True, text=True
    )


def said(*arguments):
    """The same without a process, which takes longer to start than most commands take to run."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run(list(arguments))
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def assert_one_line(result, status):
    assert result.returncode == status, result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("lora-np: ")
    assert "Traceback" not in result.stderr


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


def test_errors_of_a_matrix(tmp_path):
    np.save(tmp_path / "M.npy", np.diag([1.0, 0.1, 0.001]))
    source = str(tmp_path / "M.npy")
    assert (
        "rank 1 is the smallest that keeps 0.99 of the squared norm"
        in said("errors", source).stdout
    )
    options = [
        "--json",
        "--norm",
        "nuclear",
        "--tolerance",
        "0.01",
        "--plot",
        str(tmp_path / "curve.png"),
    ]
    result = said("errors", source, *options)
    assert json.loads(result.stdout)["rank"] == 2
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_errors_of_what_is_no_matrix(tmp_path):
    np.save(tmp_path / "pickle.npy", np.array([{}]), allow_pickle=True)
    for arguments in (
        ["missing.npy"],
        ["M.txt"],
        [str(tmp_path / "pickle.npy")],
        ["missing.safetensors:a"],
    ):
        assert_one_line(said("errors", *arguments), 1)


def test_count_prints_the_seeds_numbers():
    result = said("count", "100x120", "--rank", "20", "--rank", "8")
    assert result.returncode == 0
    for number in ("12,000", "4,400", "1,760"):
        assert number in result.stdout


def test_count_of_a_whole_model_is_pefts_line():
    line = "trainable params: 3,686,400 || all params: 3,089,625,088 || trainable%: 0.1193"
    assert line in said("count", "qwen2.5-3b", "--rank", "16").stdout


def test_count_as_json_holds_plain_integers():
    (row,) = json.loads(
        said("count", "llama-3.2-1b", "--rank", "8", "--targets", "q_proj", "--json").stdout
    )["rows"]
    assert (row["trainable"], row["total"]) == (524_288, 1_236_338_688)


def test_count_as_csv():
    assert said("count", "100x120", "--rank", "8", "--csv").stdout.startswith(
        "update,rank,trainable"
    )


def test_count_of_several_tables_as_json():
    tables = json.loads(
        said("count", "llama-3.2-1b", "--rank", "8", "--group-by", "kind", "--json").stdout
    )
    totals, kinds = (table["rows"] for table in tables)
    assert totals[0]["trainable"] == sum(row["trainable"] for row in kinds)


@pytest.mark.parametrize(("arguments", "status", "words"), [
    (["100x120", "--rank", "0"], 2, "rank must be between 1 and 1048576, got 0"),
    (["100x120", "--rank", "-8"], 2, "got -8"),
    (["100x120", "--rank", "1" + 20 * "0"], 2, "rank must be between 1 and 1048576"),
    (["100x120", "--rank", "2.5"], 2, "2.5"),
    (["100x0", "--rank", "8"], 2, "k must be at least 1, got 0"),
    (["llama-3-9b", "--rank", "8"], 1, "llama-3-8b"),
    (["gpt2", "--rank", "8", "--targets", "c_atn"], 1, "c_attn"),
    ([], 2, "SOURCE"),
    (["llama-3-8b", "--list"], 2, "a SOURCE and options, or --list"),
    (["--list", "--rank", "8"], 2, "or --list; and one format at most"),
    (["100x120", "--rank", "8", "--csv", "--json"], 2, "one format at most"),
    (["llama-3-8b", "--rank", "8", "--experts", "per-expert"], 1, "llama-3-8b has none"),
    (["llama-3-8b", "--targets", "nonsense"], 2, "can only be given with a rank"),
    (["llama-3-8b", "--group-by", "kind"], 2, "can only be given with a rank"),
    (["llama-3-8b", "--memory"], 2, "can only be given with a rank"),
    (["llama-3-8b", "--rank", "8", "--group-by", "layer"], 2, "'layer'"),
    (["100x120", "--dora"], 2, "can only be given with a rank"),
    (["100x120", "--rank", "8", "--experts", "foo"], 2, "got 'foo'"),
    (["llama-3-8b", "--rank", "8", "--targets", ""], 2, "must name a module, got ''"),
    (["llama-3-8b", "--rank", "8", "--modules-to-save", ","], 2, "must name a module, got ','"),
    (["llama-3-8b", "--rank", "8", "--memory", "--batch-size", "0"], 2, "batch_size must be at least 1, got 0"),
    (["llama-3-8b", "--rank", "8", "--max-length", "0"], 2, "max_length must be at least 1, got 0"),
    (["llama-3-8b", "--rank", "8", "--rank", "abc"], 2, "'8,abc'"),
    (["llama-3-8b", "--rank=abc"], 2, "'abc'"),
])  # fmt: skip
def test_count_of_what_is_none(arguments, status, words):
    result = said("count", *arguments)
    assert_one_line(result, status)
    assert words in result.stderr


@pytest.mark.parametrize(("arguments", "words"), [
    (["combine", "--", "-adapter", "-o", "t"], "Missing option '-o' / '--out'.\n"),
    (["inspect", "adapter", "--jobs", "100000"], "'--jobs': 100000 is not in the range 1<=x<=1000.\n"),
    (["exercises", "grade", "sub", "--jobs", "0"], "'--jobs': 0 is not in the range 1<=x<=1000.\n"),
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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_no_matrix(tmp_path, capsys):
    os.mkfifo(tmp_path / "M.npy")
    assert run(["errors", str(tmp_path / "M.npy")]) == 1
    assert "not a regular file" in capsys.readouterr().err


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
    for (status, said), command in zip(lines, commands("-full"), strict=True):
        assert status == 1, command
        assert said.startswith(f"lora-np: {command[-1]}"), said
        assert said.endswith(": File too large\n")
        assert said.count("\n") == 1
    written = {path.name for path in tmp_path.iterdir()} - before
    assert {name for name in written if "-full" in name} <= {"tour-full"}
