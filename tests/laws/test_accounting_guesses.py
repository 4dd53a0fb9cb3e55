"""What people type: every function that takes a model takes a name, a path, a config, or the model
itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lora_np as lnp
from lora_np import Linear, Sequential, models
from lora_np.accounting import (
    compare_memory,
    count,
    count_flops,
    count_lora,
    count_matrix,
    count_model,
    largest_batch,
    largest_max_length,
    largest_rank,
    model_spec,
    plan,
    rank_errors_of,
    training_memory,
)
from lora_np.models.sources import preset_config

CONFIG = preset_config("llama-3.2-1b")
EXPECTED = count_model(models.preset("llama-3.2-1b"), rank=8).trainable


class Parameter:
    """As torch's: an array that may have a gradient."""

    shape = (100, 120)

    def __init__(self, requires_grad: bool) -> None:
        self.requires_grad = requires_grad

    def numel(self) -> int:
        return 12_000


class TorchLinear:
    in_features, out_features = 120, 100

    def __init__(self, trained: bool) -> None:
        self.weight = Parameter(trained)

    def named_parameters(self, recurse: bool = True) -> list[tuple[str, Parameter]]:
        return [("weight", self.weight)]


class TorchLike:
    """A model in memory that is not ours: all that is asked of one of torch."""

    def __init__(self, *trained: bool) -> None:
        self.layers = [TorchLinear(each) for each in trained]

    def named_modules(self) -> list[tuple[str, Any]]:
        return [("", self), *((f"layers.{i}", layer) for i, layer in enumerate(self.layers))]

    def named_parameters(self, recurse: bool = True) -> list[tuple[str, Parameter]]:
        return [(f"layers.{i}", layer.weight) for i, layer in enumerate(self.layers) if recurse]


@pytest.fixture(params=["name", "path", "Path", "folder", "mapping", "spec"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    return {
        "name": "llama-3.2-1b", "path": str(path), "Path": path, "folder": tmp_path, "mapping": CONFIG,
        "spec": model_spec(CONFIG),
    }[request.param]  # fmt: skip


def test_every_function_takes_every_kind(model: Any) -> None:
    counted = count_model("llama-3.2-1b", rank=8)
    for found in (count(model, rank=8), lnp.count(model, rank=8), count_model(model, rank=8)):
        assert found.trainable == EXPECTED
    assert count(model).total == model_spec(model).total == counted.base
    assert count(model, config={"r": 8}).trainable == EXPECTED

    def same(found: Any, expected: Any) -> None:
        title = expected.title.partition(":")[2]
        assert found.title.partition(":")[2] == title
        assert [*vars(found).values()][1:] == [*vars(expected).values()][1:]

    same(training_memory(model, rank=8), training_memory(counted))
    same(training_memory(model, rank=8, dtype="nf4"), training_memory(counted, dtype="nf4"))
    same(training_memory(model, config={"r": 8}), training_memory(counted))
    same(training_memory(model), training_memory(counted.spec))
    assert count_flops(model, rank=8).total == count_flops(counted).total
    assert count_flops(model).total == count_flops(counted.spec).total
    assert compare_memory(model, rank=8).table.rows == compare_memory(counted).table.rows
    assert largest_rank(model, budget="8 GiB") == largest_rank(counted.spec, budget="8 GiB") > 8
    for find in (largest_batch, largest_max_length):
        assert find(model, rank=8, budget="8 GiB") == find(counted, budget="8 GiB") > 1
    one = plan(model, gpu="RTX 4090", rank=8)
    assert [each.rank for each in one.choices] == [0, 8, 8, 8, 8]
    assert (
        plan(model, gpu="24 GiB", rank=[8]).choices[1].memory.parts == one.choices[1].memory.parts
    )


@pytest.mark.parametrize(
    "live",
    [
        Linear(np.zeros((100, 120))),
        Sequential([Linear(np.zeros((100, 120)))]),
        TorchLike(True),
        "100x120",
    ],
)
def test_models_in_memory_and_a_matrix(live: Any) -> None:
    targets = "all-linear"
    assert count(live, rank=8, targets=targets).trainable == 1760
    assert count(live).total == 12_000
    assert count_flops(live, rank=8, targets=targets).forward["B A x"] == 2 * 1760
    assert training_memory(live, rank=8, targets=targets).adapter == 4 * 1760
    assert compare_memory(live, rank=8, targets=targets).table.records[-1]["LoRA"] == 4 * 1760


def test_a_matrix_and_our_models_need_no_targets() -> None:
    assert count("100x120", rank=8).trainable == 1760
    assert count(Linear(np.zeros((100, 120))), rank=8).trainable == 1760
    adapted = lnp.inject(Linear(np.zeros((100, 120))), rank=8, rng=0)
    assert lnp.count(adapted).trainable == 1760
    assert lnp.count(adapted).frozen == 12_000


def test_what_is_frozen_is_not_trainable() -> None:
    found = count(TorchLike(True, False, False))
    assert (found.trainable, found.frozen, found.total) == (12_000, 24_000, 36_000)


def test_ranks_one_or_several() -> None:
    assert count_lora(100, 120, 8) == count_lora(100, 120, rank=8) == 1760
    assert [*count_matrix(100, 120, rank=8).counts] == [8]
    assert [*count_matrix(100, 120, rank=range(1, 4)).counts] == [1, 2, 3]
    for wrong in ("8", 8.5, None, [0]):
        with pytest.raises((TypeError, ValueError), match="rank must be"):
            count_matrix(100, 120, rank=wrong)  # type: ignore[arg-type]


def test_an_array_has_an_error_curve(tmp_path: Path) -> None:
    M = np.diag([1.0, 0.1, 0.001])
    np.save(tmp_path / "M.npy", M)
    curves = [rank_errors_of(each, tolerance=0.01) for each in (M, M.tolist(), tmp_path / "M.npy")]
    assert [each.rank for each in curves] == [2, 2, 2]
    assert "3 x 3" in str(curves[0].table)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: training_memory("llama-3.2-1b", batch=2), "did you mean 'batch_size'"),
        (
            lambda: training_memory("llama-3.2-1b", rank=8, target="all-linear"),
            "did you mean 'targets'",
        ),
        (lambda: plan("llama-3.2-1b", gpu="T4", sequences=8), "an option must be one of"),
        (
            lambda: training_memory(count("gpt2", rank=8), rank=4),
            "rank: the LoRA is counted already",
        ),
        (lambda: compare_memory("gpt2"), "give a rank, as in rank=8"),
        (
            lambda: training_memory("gpt2", targets="all-linear"),
            "rank must be a whole number, got None",
        ),
        (lambda: count("gpt2", targets="all-linear"), "rank must be a whole number, got None"),
        (
            lambda: count("gpt2", rank=8, config={"r": 8}),
            "config holds all settings of the LoRA: leave out rank",
        ),
        (lambda: count("gtp2"), "close names: .*gpt2"),
        (lambda: plan("gpt2", gpu="RTX4091"), "a GPU such as 'RTX 4090'"),
        (lambda: plan("gpt2", gpu="24 parsecs"), "gpu must be a memory such as 24 GB"),
        (
            lambda: largest_rank("gpt2", rank=8, budget="1 GB"),
            "largest_rank finds the rank: leave it out",
        ),
    ],
)
def test_or_the_error_says_what_to_type(wrong: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        wrong()
