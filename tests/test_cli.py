"""The command line as a person meets it: real processes, and what they print."""

import json
import os
import subprocess
import sys

import pytest

import lora_np

# pyparsing takes "-W error" as a wish for its own diagnostics, which matplotlib 3.8 does not pass.
WARNINGS = ("-W", "error", "-W", "ignore:::pyparsing")


def lora_np_command(*arguments, **kwargs):
    return subprocess.run(
        [sys.executable, *WARNINGS, "-m", "lora_np", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        **kwargs,
    )


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
    result = lora_np_command(*arguments)
    assert result.returncode == 0
    assert "tour" in result.stdout
    assert "count" in result.stdout


def test_every_command_has_help_with_an_example():
    from lora_np.cli import app

    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        result = lora_np_command(name, "--help")
        assert result.returncode == 0
        assert f"lora-np {name}" in result.stdout, name


def test_tour_as_json(tmp_path):
    result = lora_np_command("tour", "--quick", "--out", str(tmp_path / "out"), "--json")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert [u["numbers"] for u in json.loads(result.stdout)["updates"]] == [12_000, 4_400, 1_760]


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
    assert_one_line(lora_np_command("tour", "--out", str(tmp_path / "out")), 1)


def test_out_below_a_file(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    result = lora_np_command("tour", "--out", str(tmp_path / "file" / "out"))
    assert_one_line(result, 1)
    assert "Not a directory" in result.stderr


@pytest.mark.parametrize(("arguments", "words"), [
    (["trou"], "'trou'"),
    (["tour", "--fast"], "--fast"),
    (["tour", "--seed", "x"], "'x'"),
])  # fmt: skip
def test_bad_usage_is_one_line_and_status_2(arguments, words):
    result = lora_np_command(*arguments)
    assert_one_line(result, 2)
    assert words in result.stderr


def test_bad_input_is_one_line_and_status_1():
    result = lora_np_command("tour", "--seed", "-1")
    assert_one_line(result, 1)
    assert "seed must be at least 0, got -1" in result.stderr


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    command = f"{sys.executable} -m lora_np --help | head -n 1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert result.stderr == ""


def test_errors_of_a_matrix(tmp_path):
    import numpy as np

    np.save(tmp_path / "M.npy", np.diag([1.0, 0.1, 0.001]))
    source = str(tmp_path / "M.npy")
    assert "rank 2 is the smallest with an error of at most 0.01" in lora_np_command("errors", source).stdout
    result = lora_np_command(
        "errors", source, "--json", "--norm", "nuclear", "--plot", str(tmp_path / "curve.png")
    )
    assert json.loads(result.stdout)["rank"] == 2
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_errors_of_what_is_no_matrix(tmp_path):
    import numpy as np

    np.save(tmp_path / "pickle.npy", np.array([{}]), allow_pickle=True)
    for arguments in (["missing.npy"], ["M.txt"], [str(tmp_path / "pickle.npy")], ["missing.safetensors:a"]):
        assert_one_line(lora_np_command("errors", *arguments), 1)


def test_count_prints_the_seeds_numbers():
    result = lora_np_command("count", "100x120", "--rank", "20", "--rank", "8")
    assert result.returncode == 0
    for number in ("12,000", "4,400", "1,760"):
        assert number in result.stdout


def test_count_of_a_whole_model_is_pefts_line():
    line = "trainable params: 3,686,400 || all params: 3,089,625,088 || trainable%: 0.1193"
    assert line in lora_np_command("count", "qwen2.5-3b", "--rank", "16").stdout


def test_count_as_json_holds_plain_integers():
    (row,) = json.loads(
        lora_np_command("count", "llama-3.2-1b", "--rank", "8", "--targets", "q_proj", "--json").stdout
    )["rows"]
    assert (row["trainable"], row["total"]) == (524_288, 1_236_338_688)


@pytest.mark.parametrize(
    ("form", "start"), [("--markdown", "**100 x 120**"), ("--csv", "update,rank,trainable")]
)
def test_count_in_other_forms(form, start):
    assert lora_np_command("count", "100x120", "--rank", "8", form).stdout.startswith(start)


@pytest.mark.parametrize(("arguments", "status", "words"), [
    (["100x120", "--rank", "0"], 1, "rank must be at least 1, got 0"),
    (["100x120", "--rank", "-8"], 1, "got -8"),
    (["100x120", "--rank", "2.5"], 2, "2.5"),
    (["100x0", "--rank", "8"], 1, "k must be at least 1, got 0"),
    (["llama-3-9b", "--rank", "8"], 1, "llama-3-8b"),
    (["gpt2", "--rank", "8", "--targets", "c_atn"], 1, "c_attn"),
    (["gpt2", "--rank", "8", "--json", "--csv"], 2, "--json and --csv"),
    ([], 2, "SOURCE"),
])  # fmt: skip
def test_count_of_what_is_none(arguments, status, words):
    result = lora_np_command("count", *arguments)
    assert_one_line(result, status)
    assert words in result.stderr
