"""Resize adapters of small files, against the truncated SVD of formed products."""

import json
import os

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import Adapter, AdapterModule
from lora_np.adapters.peft_format import WEIGHTS
from lora_np.files import FileError
from tests.adapters.conftest import directory, truncated

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("rank", [1, 3, 9])
def test_a_uniform_rank_is_the_truncated_svd_and_never_more_than_there_was(
    make_adapter, tmp_path, rank
):
    path = make_adapter("a", rank=4, dtype="float64")
    table = adapters.resize(path, tmp_path / "out", rank=rank).table
    before, after = adapters.load(path), adapters.load(tmp_path / "out")
    for name, row in zip(before, table.records, strict=True):
        assert after[name].rank == min(rank, before[name].rank, *before[name].shape)
        np.testing.assert_allclose(
            after.delta(name), truncated(before.delta(name), rank), atol=1e-12
        )
        error = np.linalg.norm(before.delta(name) - after.delta(name)) / np.linalg.norm(
            before.delta(name)
        )
        assert row["relative error"] == pytest.approx(error, abs=1e-7)
        assert after[name].scale == pytest.approx(before[name].scale, rel=1e-15)


def test_modules_that_keep_their_rank_are_copied_bit_by_bit(make_adapter, tmp_path):
    path = make_adapter("a", rank=2, dtype="bfloat16")
    adapters.resize(path, tmp_path / "out", rank=2)
    assert directory(tmp_path / "out") == directory(path)


@pytest.mark.parametrize("goal", [{"energy": 0.9}, {"tolerance": 0.3}], ids=str)
def test_each_module_has_the_smallest_rank_that_meets_the_goal(make_adapter, tmp_path, goal):
    path = make_adapter("a", rank=3, dtype="float64")
    adapters.resize(path, tmp_path / "out", **goal)
    before, after = adapters.load(path), adapters.load(tmp_path / "out")
    lost = 1 - goal["energy"] if "energy" in goal else goal["tolerance"] ** 2
    for name in before:
        errors = [
            np.linalg.norm(before.delta(name) - truncated(before.delta(name), r)) ** 2
            for r in range(4)
        ]
        smallest = next(r for r in range(1, 4) if errors[r] <= lost * errors[0])
        assert after[name].rank == smallest


def test_a_total_rank_has_the_least_error_of_all_ways_to_share_it_out(make_adapter, tmp_path):
    path = make_adapter("a", rank=3, dtype="float64")
    adapters.resize(path, tmp_path / "out", total_rank=4)
    before, after = adapters.load(path), adapters.load(tmp_path / "out")
    spectra = {name: np.linalg.svdvals(before.delta(name)) for name in before}
    best = sorted((s for spectrum in spectra.values() for s in spectrum), reverse=True)[:4]
    assert sum(module.rank for module in after.values()) == 4
    kept = sum(np.linalg.norm(after.delta(name)) ** 2 for name in after)
    assert kept == pytest.approx(np.square(best).sum())


@pytest.mark.parametrize("spare", [0, 1, 30, 1000])
def test_a_file_is_never_larger_than_its_budget(make_adapter, tmp_path, spare):
    path = make_adapter("a", rank=4)
    with pytest.raises(ValueError, match="budget must be at least") as caught:
        adapters.resize(path, tmp_path / "out", budget=1)
    smallest = int(str(caught.value).split()[5].rstrip(","))
    table = adapters.resize(path, tmp_path / "out", budget=smallest + spare).table
    assert (tmp_path / "out" / WEIGHTS).stat().st_size <= smallest + spare
    left_out = [row["module"] for row in table.records if row["rank"] == 0]
    assert set(adapters.load(tmp_path / "out")) == {row["module"] for row in table.records} - {
        *left_out
    }
    assert all(name in " ".join(table.notes) for name in left_out)  # nothing is dropped in silence
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(adapters.load(tmp_path / "out"))


def test_ranks_are_written_as_patterns(make_adapter, tmp_path):
    adapters.resize(make_adapter("a", rank=4, use_rslora=True), tmp_path / "out", total_rank=7)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["rank_pattern"]
    assert config["alpha_pattern"]


def test_dora_and_biases_are_kept_and_never_left_without_a_direction(tmp_path):
    modules = {
        name: AdapterModule.of(
            A=scale * RNG.standard_normal((2, 4)), B=RNG.standard_normal((5, 2)), alpha=2,
            magnitude=np.ones(5), bias=np.arange(5.0),
        )
        for name, scale in (("strong", 1.0), ("weak", 1e-6))
    }  # fmt: skip
    raw = {
        "peft_type": "LORA",
        "use_dora": True,
        "lora_bias": True,
        "target_modules": list(modules),
    }
    adapters.save(Adapter(modules, raw=raw), tmp_path / "a")
    adapters.resize(tmp_path / "a", tmp_path / "out", total_rank=2)
    after = adapters.load(tmp_path / "out")
    assert [module.rank for module in after.values()] == [1, 1]
    np.testing.assert_array_equal(after["weak"].bias, np.arange(5.0))
    np.testing.assert_array_equal(after["weak"].magnitude, np.ones(5))


def test_an_adapter_that_does_nothing_or_is_not_finite_is_refused(tmp_path):
    for name, fill in (("dead", 0.0), ("nan", np.nan)):
        adapters.save(
            Adapter({"q": AdapterModule.of(A=np.ones((2, 3)), B=np.full((4, 2), fill), alpha=1)}),
            tmp_path / name,
        )
    with pytest.raises(FileError, match="every module is zero"):
        adapters.resize(tmp_path / "dead", tmp_path / "out", total_rank=1)
    with pytest.raises(FileError, match="q: B must be finite, got nan"):
        adapters.resize(tmp_path / "nan", tmp_path / "out", rank=1)
    assert sorted(os.listdir(tmp_path)) == ["dead", "nan"]
