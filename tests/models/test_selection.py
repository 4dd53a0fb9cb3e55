"""Targets that name experts, as PEFT counts them, from configs and of models in memory."""

from __future__ import annotations

from typing import Any

import pytest

from lora_np.accounting import count
from tests.models.family_cases import ROUTED
from tests.models.test_families import peft_count

SMALL = {**ROUTED, "num_local_experts": 4, "shared_expert_intermediate_size": 20}
MLP = ["gate_proj", "up_proj", "down_proj"]
PLACE = {"llama4_text": "feed_forward"}
OPTIONS: list[dict[str, Any]] = [
    {"target_modules": MLP},
    {"target_modules": r".*\.down_proj"},
    {"target_modules": "all-linear"},
    {"target_modules": ["q_proj"], "target_parameters": ["experts.down_proj"]},
    {"target_modules": [], "target_parameters": ["0.{}.experts.down_proj"]},
    {"target_modules": [], "target_parameters": ["0.self_attn.q_proj.weight"]},
]


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["qwen2_moe", "llama4_text", "qwen3_moe"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_experts_are_selected_as_by_peft(family: str, options: dict[str, Any]) -> None:
    import torch
    import transformers

    place = PLACE.get(family, "mlp")
    named = [name.format(place) for name in options.get("target_parameters", ())]
    options = {**options, "target_parameters": named} if named else options
    config = transformers.AutoConfig.for_model(family, **SMALL)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    expected = peft_count(model, r=4, **options)[0]
    fields = {**config.to_dict(), "architectures": [type(model).__name__]}
    for source in (fields, model):
        assert count(source, config={"peft_type": "LORA", "r": 4, **options}).trainable == expected
