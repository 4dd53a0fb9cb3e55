"""The error curve of a matrix in a file, as `lora-np errors` shows it."""

import json

import numpy as np
import pytest

from lora_np.accounting import rank_errors_of
from lora_np.cli import run
from lora_np.hub import safetensors
from lora_np.linalg import rank_errors


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "M.npy"
    np.save(path, np.diag([1.0, 0.1, 0.001]) @ np.eye(3, 5))
    return str(path)


@pytest.mark.parametrize("norm", ["fro", "spectral", "nuclear"])
def test_curve_and_rank_are_those_of_the_matrix(source, norm):
    found = rank_errors_of(source, norm=norm, tolerance=0.01)
    np.testing.assert_array_equal(
        found.errors, rank_errors(np.load(source), norm=norm, relative=True)
    )
    assert found.rank == 2
    assert rank_errors_of(source, tolerance=1).rank == 0
    assert rank_errors_of(source, tolerance=0).rank == 3


def test_the_table_shows_powers_of_two_the_rank_and_the_last(source):
    table = rank_errors_of(source, tolerance=0).table
    assert [row["rank"] for row in table.records] == [1, 2, 3]
    assert table.records[0]["parameters"] == 8
    assert "rank 3 is the smallest with an error of at most 0 in the fro norm" in str(table)


def test_programs_get_everything(source, capsys):
    assert run(["errors", source, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["shape"] == [3, 5]
    assert content["rank"] == 1
    assert len(content["errors"]) == len(content["energy"]) == 4


def test_half_precision_tensors(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.save({"W": np.diag([1.0, 0.5, 0.25])}, path, dtype="bfloat16")
    assert rank_errors_of(f"{path}:W", tolerance=0.3).rank == 2


@pytest.mark.parametrize("norm", ["fro", "spectral", "nuclear"])
def test_without_a_tolerance_the_rule_is_99_percent_of_the_squared_norm_in_any_norm(source, norm):
    found = rank_errors_of(source, norm=norm)
    assert found.rank == 1
    which = "" if norm == "fro" else " in the Frobenius norm"
    assert (
        "rank 1 is the smallest that keeps 0.99 of the squared norm"
        f" (an error of at most 0.1{which})" in str(found.table)
    )
    assert rank_errors_of(source, norm=norm, energy=0.9999999).rank == 3


def test_one_goal_at_most(source):
    with pytest.raises(
        ValueError, match=r"give one of energy and tolerance, got energy 0\.9 and tolerance 0\.1"
    ):
        rank_errors_of(source, energy=0.9, tolerance=0.1)
    with pytest.raises(ValueError, match="energy must be above 0 and at most 1, got 0"):
        rank_errors_of(source, energy=0)


@pytest.mark.parametrize("tolerance", [-0.1, 1.1, np.nan])
def test_a_tolerance_out_of_range_is_refused(source, tolerance):
    with pytest.raises(ValueError, match=r"tolerance must be (at least 0 and at most 1|finite)"):
        rank_errors_of(source, tolerance=tolerance)


@pytest.mark.parametrize("norm", ["fro", "spectral", "nuclear"])
@pytest.mark.parametrize("goal", [{}, {"tolerance": 0.2}, {"energy": 1.0}], ids=str)
def test_the_figure_says_which_rank_is_enough_and_for_what(tmp_path, norm, goal):
    name = "model.layers.11.self_attn.q_proj.weight." + "x" * 60
    M = np.diag(0.5 ** np.arange(8)) @ np.eye(8, 9)
    safetensors.save({name: M}, tmp_path / "m.safetensors")
    found = rank_errors_of(f"{tmp_path}/m.safetensors:{name}", norm=norm, **goal)
    (ax,) = found.figure().get_axes()
    texts = [text.get_text() for text in ax.texts]
    assert texts == ["rank that is enough" + f": {found.rank}" * (found.rank < 8)]
    assert len(ax.get_title(loc="left")) < 80
    assert "norm" in ax.get_ylabel()


def test_the_figure_of_zeros_is_no_trouble(tmp_path):
    np.save(tmp_path / "zero.npy", np.zeros((3, 4)))
    rank_errors_of(str(tmp_path / "zero.npy")).figure().draw_without_rendering()
