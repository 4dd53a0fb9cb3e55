"""The newer families against transformers and PEFT, on the meta device: every parameter's name, and
every count.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import pytest

from lora_np.accounting import count_model, model_spec
from lora_np.models import default_targets, from_config
from lora_np.models.families import family_names, family_of
from tests.drawing import every, twentieth
from tests.models.family_cases import CASES
from tests.models.test_families import linear_maps, peft_count

IDS = [f"{family}-{task}-{index}" for index, (family, task, _) in enumerate(CASES)]
DRAWN = twentieth(CASES)

# towers and language models that are only ever built inside of another model
INNER = {
    "clip_text_model", "clip_vision_model", "siglip_text_model", "siglip_vision_model", "pixtral",
    "qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text", "qwen2_vl_vision", "qwen2_5_vl_vision",
    "qwen3_vl_vision", "qwen3_5_vision", "qwen3_5_moe_vision", "mllama_text_model", "mllama_vision_model",
    "llama4", "llama4_vision_model",
}  # fmt: skip


def test_every_family_has_cases() -> None:
    from tests.laws.test_models_published import COMPOSITE, GENERATED
    from tests.models.test_families import CASES as OLDER

    cases = {family for family, _, _ in [*CASES, *OLDER]}
    assert cases | INNER | {*GENERATED, *COMPOSITE} == set(family_names())


@every("name", family_names())
def test_a_family_with_its_defaults_is_built_for_every_task(name: str) -> None:
    family = family_of(name)
    for task in family.tasks:
        spec = from_config({"model_type": name, "architectures": [family.classes + task]})
        assert len({module.name for module in spec.modules}) == len(spec.modules)
        assert all(module.role and module.parameters >= 0 for module in spec.groups)
        assert spec.total == sum(module.parameters for module in spec.modules)


def built(family: str, task: str, fields: dict[str, Any], *, device: str = "meta") -> Any:
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(family, **fields)
    home = importlib.import_module(type(config).__module__.replace("configuration", "modeling"))
    with warnings.catch_warnings(), torch.device(device):
        warnings.simplefilter("ignore")
        return getattr(home, family_of(family).classes + task)(config)


@pytest.mark.peers
@pytest.mark.parametrize(
    ("family", "task", "fields"), DRAWN, ids=[IDS[CASES.index(case)] for case in DRAWN]
)
def test_same_as_transformers_and_peft(family: str, task: str, fields: dict[str, Any]) -> None:
    model = built(family, task, fields)
    architecture = family_of(family).classes + task
    spec = from_config({"model_type": family, **fields, "architectures": [architecture]})
    assert spec.total == sum(p.numel() for p in model.parameters())
    assert (
        from_config({**model.config.to_dict(), "architectures": [architecture]}).total == spec.total
    )
    maps = linear_maps(model)
    assert {module.name: module.shape for module in spec.modules if module.kind == "linear"} == maps
    names = set()
    for module in spec.modules:
        bare = module.kind in ("parameter", "experts")
        names |= {module.name} if bare else {f"{module.name}.weight"}
        names |= {f"{module.name}.bias"} if module.bias else set()
    assert names == {name for name, _ in model.named_parameters(remove_duplicate=False)}

    assert ours(spec, rank=3, targets="all-linear") == peft_count(
        model, r=3, target_modules="all-linear"
    )
    again = model_spec(model)
    assert (again.total, again.assumed) == (spec.total, "")
    assert ours(again, rank=3, targets="all-linear") == ours(spec, rank=3, targets="all-linear")
    ends = [name for name in maps if name != spec.head and "shared" not in name]
    some = sorted({".".join(name.split(".")[-2:]) for name in ends[:: max(1, len(ends) // 4)]})
    fused = set(spec.fused or ())
    some = [name for name in some if name.rpartition(".")[2] not in fused]
    assert ours(spec, rank=4, targets=some) == peft_count(model, r=4, target_modules=some)
    if spec.default_targets and not spec.fused:
        assert ours(spec, rank=5) == peft_count(model, r=5)


def ours(spec: Any, **options: Any) -> tuple[int, int]:
    count = count_model(spec, **options)
    return count.trainable, count.total


@pytest.mark.peers
def test_default_targets_are_those_of_peft() -> None:
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULTS

    for name in family_names():
        assert list(default_targets(name)) == list(DEFAULTS.get(name, [])), name
