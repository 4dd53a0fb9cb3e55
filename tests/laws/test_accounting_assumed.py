"""Where PEFT's count cannot be told, its line is not printed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_np.accounting import count_model, model_spec
from lora_np.hub import safetensors
from lora_np.models.sources import preset_config

DENSE = {
    "model.layers.0.q_proj.weight": (4, 6),
    "model.layers.1.q_proj.weight": (4, 6),
    "lm_head.weight": (9, 6),
}
SEPARATE = {**DENSE, **{f"model.layers.0.mlp.experts.{i}.up_proj.weight": (5, 6) for i in range(3)}}
FUSED = {**DENSE, "model.layers.0.mlp.experts.gate_up_proj": (3, 10, 6)}


def folder(
    path: Path, shapes: dict[str, tuple[int, ...]], config: dict[str, Any] | None = None
) -> Path:
    safetensors.save(
        {name: np.zeros(shape, np.float16) for name, shape in shapes.items()},
        path / "model.safetensors",
    )
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    return path


def test_a_checkpoint_is_counted_with_a_note_and_without_pefts_line(tmp_path: Path) -> None:
    count = count_model(model_spec(folder(tmp_path, DENSE)), rank=2, targets="all-linear")
    assert count.trainable == 2 * 2 * 10
    assert "trainable params" not in str(count)
    assert "from headers" in str(count)


def test_a_family_that_is_not_described_is_counted_from_its_weights(tmp_path: Path) -> None:
    spec = model_spec(folder(tmp_path, DENSE, {"model_type": "mystery"}))
    assert spec.total == 2 * 24 + 54
    assert "'mystery' is not described" in spec.assumed
    (tmp_path / "model.safetensors").rename(tmp_path / "weights.safetensors")
    alone = model_spec(tmp_path)  # the only file, whatever its name
    assert (alone.groups, alone.assumed) == (spec.groups, spec.assumed)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(ValueError, match="model_type must be one of lora-np count --list"):
        model_spec(tmp_path)


def test_names_in_files_that_transformers_changes_in_unknown_ways_are_no_targets(
    tmp_path: Path,
) -> None:
    """Swin's files have query, its model q_proj: PEFT does not find query."""
    spec = model_spec(folder(tmp_path, DENSE, {"model_type": "swin"}))
    for targets in (["q_proj"], "q_proj", ".*q_proj"):
        with pytest.raises(ValueError, match=r"renames modules of swin models .* in memory"):
            count_model(spec, rank=2, targets=targets)
    assert count_model(spec, rank=2, targets="all-linear").trainable == 2 * 2 * 10


def test_a_described_family_is_counted_from_its_config(tmp_path: Path) -> None:
    spec = model_spec(folder(tmp_path, DENSE, preset_config("gpt2")))
    assert not spec.assumed
    assert "trainable params" in str(count_model(spec, rank=2))


@pytest.mark.parametrize("shapes", [SEPARATE, FUSED])
@pytest.mark.parametrize(
    "targets", ["all-linear", r".*proj", ["up_proj"], ["mlp.experts.gate_up_proj"]]
)
def test_experts_in_headers_are_refused(tmp_path: Path, shapes: Any, targets: Any) -> None:
    spec = model_spec(folder(tmp_path, shapes))
    with pytest.raises(ValueError, match="is unknown: name other modules"):
        count_model(spec, rank=2, targets=targets)
    assert count_model(spec, rank=2, targets=["q_proj"]).trainable == 2 * 2 * 10


def test_experts_are_counted_one_by_one_if_asked(tmp_path: Path) -> None:
    spec = model_spec(folder(tmp_path, SEPARATE))
    assert (
        count_model(spec, rank=2, targets=["up_proj"], experts="per-expert").trainable == 3 * 2 * 11
    )


def test_an_adapter_is_named_as_one(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="an adapter, not a model: give its base instead"):
        model_spec(tmp_path)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_experts_in_memory_of_a_family_that_is_not_described() -> None:
    import peft
    import transformers

    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "n_shared_experts": 1,
        "vocab_size": 96,
        "intermediate_size": 48,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 1,
    }
    config = transformers.AutoConfig.for_model("dots1", **sizes, n_routed_experts=4)
    model = transformers.AutoModelForCausalLM.from_config(config)
    ours = count_model(model_spec(model), rank=2, targets="all-linear")
    theirs = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules="all-linear"))
    assert (ours.trainable, ours.total) == theirs.get_nb_trainable_parameters()


LIMITS = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (512 * 2**20, 512 * 2**20))
import json, sys
from lora_np.models import from_config
try:
    from_config(json.loads(sys.argv[1]))
except (ValueError, TypeError) as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "llama", "num_hidden_layers": 10**9}, "layers must be between 0 and 65536"),
        ({"model_type": "qwen3_next", "num_hidden_layers": 10**9}, "layers must be between"),
        ({"model_type": "llama", "hidden_size": 10**30}, "hidden_size must be between"),
        (
            {"model_type": "gemma3n_text", "intermediate_size": ["x" * 9]},
            "intermediate_size must be a whole",
        ),
        (
            {"model_type": "gemma4_text", "per_layer_config": {"5": {"head_dim": "x"}}},
            "head_dim must be",
        ),
        ({"model_type": "llava", "text_config": [1]}, "text_config must be an object"),
    ],
)
def test_hostile_configs_are_refused_at_once(fields: dict[str, Any], message: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", LIMITS, json.dumps(fields)],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert message in run.stdout, run.stderr
