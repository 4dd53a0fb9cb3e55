"""Names: which tensor of a checkpoint becomes which parameter of the live model, against
transformers itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_np.models import family_of, kinds_and_layers, open_model
from lora_np.models.dialects import Dialects
from lora_np.models.names import Place, names_are_known
from tests.drawing import twentieth
from tests.models.family_cases import CASES

IDS = [f"{family}-{task}-{index}" for index, (family, task, _) in enumerate(CASES)]
DRAWN = twentieth(CASES)


@pytest.mark.parametrize(
    ("config", "name", "place"),
    [
        ({"model_type": "llama"}, "model.layers.0.mlp.up_proj.weight", None),
        ({"model_type": "qwen2_5_vl"}, "visual.blocks.0.attn.qkv.weight", Place("model.visual.blocks.0.attn.qkv.weight")),
        ({"model_type": "qwen2_5_vl"}, "model.visual.blocks.0.attn.qkv.weight", None),
        ({"model_type": "qwen2_vl"}, "model.norm.weight", Place("model.language_model.norm.weight")),
        ({"model_type": "llava"}, "language_model.lm_head.weight", Place("lm_head.weight")),
        (
            {"model_type": "llava", "vision_config": {"model_type": "clip_vision_model"}},
            "vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias",
            Place("model.vision_tower.encoder.layers.0.mlp.fc1.bias"),
        ),
        (
            {"model_type": "llava", "vision_config": {}, "architectures": ["LlavaModel"]},
            "language_model.model.norm.weight",
            Place("language_model.norm.weight"),
        ),
        (
            {"model_type": "llava", "text_config": {"model_type": "mixtral"}},
            "language_model.model.layers.1.block_sparse_moe.experts.12.w2.weight",
            Place("model.language_model.layers.1.mlp.experts.down_proj", 12),
        ),
        (
            {"model_type": "phimoe"},
            "model.layers.1.block_sparse_moe.gate.weight",
            Place("model.layers.1.mlp.router.weight"),
        ),
        (
            {"model_type": "qwen3_vl_moe"},
            "model.language_model.layers.1.mlp.experts.gate_up_proj",
            Place("model.language_model.layers.1.mlp.experts.gate_up_proj", transposed=True),
        ),
        ({"model_type": "bert"}, "bert.LayerNorm.gamma", Place("bert.LayerNorm.weight")),
        ({}, "anything", None),
    ],
)  # fmt: skip
def test_places(config: dict[str, Any], name: str, place: Place | None) -> None:
    assert Dialects(config).place(name) == (place or Place(name))


def test_what_is_split_when_it_is_loaded_has_no_place() -> None:
    names = Dialects({"model_type": "dinov2"})
    assert names.place("encoder.layer.0.mlp.weights_in.weight") is None
    assert names.place("encoder.layer.0.attention.attention.key.bias") == Place(
        "encoder.layer.0.attention.k_proj.bias"
    )


def test_types_whose_names_cannot_be_told() -> None:
    assert names_are_known({"model_type": "llama"})
    assert names_are_known({"model_type": "smolvlm", "vision_config": {}})
    assert not names_are_known({"model_type": "rt_detr"})
    assert not names_are_known({"model_type": "unheard_of", "vision_config": {}})


@pytest.mark.peers
def test_the_rules_are_those_of_transformers() -> None:
    from docs._ext import causal, names

    ours = names.TARGET.read_text(encoding="utf-8")
    if not causal.is_newer():
        assert ours == names.text(), "run python -m docs._ext.names"
    known, present = by_type(json.loads(ours)), by_type(json.loads(names.text()))
    assert {key: present.get(key) for key in known} == known  # a newer release may have more


def by_type(table: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """What the file says of each model type."""
    found: dict[tuple[str, str], Any] = {("rules", kind): [] for kind in table["same"]}
    for key, values in (("rules", "rules"), ("fused", "names")):
        for group in table[key]:
            found |= {(key, kind): group.get(values, group) for kind in group["types"]}
    return found | {("targets", kind): names for kind, names in table["targets"].items()}


def live_values(places: dict[str, Place], read: Any) -> Any:
    """One live parameter, put together from the tensors of a checkpoint."""
    by_place = {(place.expert, place.part): read(name) for name, place in places.items()}
    (first, *_) = places.values()
    if first.expert is None:
        (array,) = by_place.values()
        return array.swapaxes(-1, -2) if first.transposed else array
    experts = 1 + max(expert for expert, _ in by_place)
    return np.stack(
        [np.concatenate([by_place[e, part] for part in range(first.parts)]) for e in range(experts)]
    )


@pytest.mark.peers
@pytest.mark.parametrize(
    ("family", "task", "fields"), DRAWN, ids=[IDS[CASES.index(case)] for case in DRAWN]
)
def test_every_parameter_is_found_in_the_checkpoint(
    family: str, task: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **fields)
    home = __import__(type(config).__module__.replace("configuration", "modeling"), fromlist=["_"])
    model = getattr(home, family_of(family).classes + task)(config)
    model.save_pretrained(tmp_path)
    checkpoint = open_model(tmp_path)
    live = model.state_dict()
    split = {name for name in checkpoint.places if Dialects(checkpoint.config).place(name) is None}
    assert all("weights_in" in name for name in split)
    for name, parameter in checkpoint.parameters.items():
        np.testing.assert_array_equal(
            live_values(parameter.places, checkpoint.read), live[name].numpy(), err_msg=name
        )
    stored = {live[name].data_ptr() for name in checkpoint.parameters}
    lacking = {name for name in live if live[name].data_ptr() not in stored}
    assert all(split and ("gate_proj" in name or "up_proj" in name) for name in lacking), lacking
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == family


def test_kinds_are_told_apart_where_their_last_names_are_the_same():
    kinds = kinds_and_layers(
        [
            "model.visual.blocks.0.q_proj",
            "model.language_model.layers.3.q_proj",
            "lm_head",
            "layers.0",
            "7",
        ]
    )
    visual, text = "model.visual.blocks.q_proj", "model.language_model.layers.q_proj"
    assert list(kinds.values()) == [
        (visual, "0"), (text, "3"), ("lm_head", "none"), ("layers", "0"), ("7", "7"),
    ]  # fmt: skip
    same = kinds_and_layers(["a.b.q", "b.a.q"])
    assert len({*same.values()}) == 2
