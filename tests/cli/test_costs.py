"""Errors of a matrix and counts of a model, as commands print them."""

import json
import os

import numpy as np
import pytest

from lora_np.cli import run
from tests.commands import assert_one_line, said


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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_no_matrix(tmp_path, capsys):
    os.mkfifo(tmp_path / "M.npy")
    assert run(["errors", str(tmp_path / "M.npy")]) == 1
    assert "not a regular file" in capsys.readouterr().err


def test_count_of_a_shipped_adapter():
    assert "trainable params: 74,752 " in said("count", "austen", "--config", "king-james").stdout
