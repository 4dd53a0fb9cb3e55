"""Mutated configs of every family: counted, or refused in a line; in linear time, within 256
MiB.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_np.accounting import count_model, model_spec
from lora_np.hub import INDEX, safetensors
from lora_np.models import family_names, preset_names
from lora_np.models.sources import preset_config
from tests.mutations import COUNTS, WILD, changed, in_little_memory, is_linear, overwritten, refusal

VALUES = [*WILD, 64, 128, 65_536, 65_537, ["full_attention"] * 7, ["LlamaForCausalLM"], "silu"]
OURS = (ValueError, TypeError)


def count(path: Path) -> int:
    spec = model_spec(path)
    assert isinstance(spec.total, int)
    count_model(spec, rank=2)
    return spec.total


def run(folder: Path, examples: int) -> int:
    names = preset_names()
    families = family_names()
    rng = np.random.default_rng(0)
    accepted = 0
    path = folder / "config.json"
    for _ in range(examples):
        fields = dict(preset_config(names[rng.integers(len(names))]))
        if rng.random() < 0.2:
            fields["model_type"] = families[rng.integers(len(families))]
        text = json.dumps(changed(fields, rng, VALUES)).encode()
        if rng.random() < 0.2:
            text = overwritten(text, rng)
        path.unlink(missing_ok=True)
        path.write_bytes(text)
        accepted += not refusal(count, path, errors=OURS)[1]
    return accepted


@pytest.mark.parametrize("examples", COUNTS)
def test_mutated_configs_are_counted_or_refused(tmp_path: Path, examples: int) -> None:
    accepted = int(in_little_memory("tests.laws.test_accounting_fuzz:run", tmp_path, examples))
    assert examples / 20 < accepted < examples


EXPERTS = [
    f"model.layers.{i}.mlp.experts.{j}.{name}_proj.weight"
    for i in (0, 1)
    for j in (0, 1)
    for name in ("gate", "up", "down")
]
TENSORS = {
    "model.embed_tokens.weight": (9, 4),
    "model.layers.0.self_attn.q_proj.weight": (4, 4),
    "model.layers.1.mlp.gate.e_score_correction_bias": (2,),
    **{name: (4, 6) if "down" in name else (6, 4) for name in EXPERTS},
    "model.norm.weight": (4,),
}
CHECKPOINTS: list[dict[str, Any]] = [
    {"model_type": "dots1", "architectures": ["Dots1ForCausalLM"]},
    {"model_type": "mystery", "architectures": ["MysteryForCausalLM"]},
    {"model_type": "idefics3", "text_config": {"model_type": "dots1"}, "vision_config": {}},
]


def count_directory(path: Path) -> None:
    spec = model_spec(path)
    assert isinstance(spec.total, int)
    count_model(spec, rank=2, targets="all-linear")


def run_checkpoints(folder: Path, examples: int) -> int:
    """Configs, indexes and headers of checkpoints that are counted from headers."""
    arrays = {name: np.zeros(shape, np.float16) for name, shape in TENSORS.items()}
    path = folder / "checkpoint"
    path.mkdir()
    half = len(arrays) // 2
    files = {}
    for name, part in (("a", list(arrays)[:half]), ("b", list(arrays)[half:])):
        safetensors.save({each: arrays[each] for each in part}, path / f"{name}.safetensors")
        files[name] = (path / f"{name}.safetensors").read_bytes()
    index = {
        "weight_map": {name: f"{'ab'[i >= half]}.safetensors" for i, name in enumerate(arrays)}
    }
    rng = np.random.default_rng(1)
    accepted = 0
    for _ in range(examples):
        fields = changed(CHECKPOINTS[rng.integers(len(CHECKPOINTS))], rng, VALUES)
        places = changed(index, rng, VALUES) if rng.random() < 0.3 else index
        header = files["a"] if rng.random() < 0.8 else overwritten(files["a"], rng, 1_000)
        contents = {
            "config.json": json.dumps(fields).encode(),
            INDEX: json.dumps(places).encode(),
            "a.safetensors": header,
        }
        for name, content in contents.items():
            (path / name).unlink(missing_ok=True)
            (path / name).write_bytes(content)
        accepted += not refusal(count_directory, path, errors=OURS)[1]
    shutil.rmtree(path)
    return accepted


@pytest.mark.parametrize("examples", COUNTS)
def test_mutated_checkpoints_are_counted_or_refused(tmp_path: Path, examples: int) -> None:
    accepted = int(
        in_little_memory("tests.laws.test_accounting_fuzz:run_checkpoints", tmp_path, examples)
    )
    assert examples / 20 < accepted < examples


LARGE: dict[str, Callable[[int], dict[str, Any]]] = {
    "fields": lambda n: {f"field {i}": i for i in range(n)},
    "types of layers": lambda n: {
        "model_type": "gemma3_text",
        "layer_types": ["full_attention"] * n,
    },
    "architectures": lambda n: {"architectures": ["x"] * n},
    "text": lambda n: {"model_type": "x" * n},
    "a name": lambda n: {"architectures": ["Llama" * n]},
    "lists": lambda n: {"intermediate_size": [1] * n},
    "lists in lists": lambda n: {"hidden_size": [[[[i]]] for i in range(n // 5)]},
}


@pytest.mark.parametrize("large", LARGE)
def test_the_time_grows_with_the_size(tmp_path: Path, large: str) -> None:
    def prepare(size: int) -> Path:
        path = tmp_path / f"{size}.json"
        path.write_text(json.dumps({"model_type": "llama"} | LARGE[large](size)))
        return path

    linear, seconds = is_linear(prepare, lambda path: refusal(count, path, errors=OURS), 200_000)
    assert linear, seconds


def test_a_key_that_is_repeated_at_the_end_takes_linear_time(tmp_path: Path) -> None:
    def prepare(size: int) -> Path:
        path = tmp_path / f"{size}.json"
        path.write_text("{" + "".join(f'"{i}": 0, ' for i in range(size)) + f'"{size - 1}": 1}}')
        return path

    linear, seconds = is_linear(prepare, lambda path: refusal(count, path, errors=OURS), 200_000)
    assert linear, seconds
