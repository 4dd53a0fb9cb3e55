"""Every family that PEFT can adapt, tiny and random: `extract`, `merge` and the count, judged by
PEFT's outputs.
"""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_np import accounting, adapters
from lora_np.models import open_model
from tests.drawing import twentieth
from tests.laws.test_models_family_cases import built
from tests.models import family_cases, test_families

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

# whose relative positions are an embedding that is called otherwise
T5 = ("t5", "ForConditionalGeneration")
FIRST = {
    (family, task): fields
    for family, task, fields in reversed([*test_families.CASES, *family_cases.CASES])
    if not task.endswith(("MultipleChoice", "AudioClassification"))
}
KINDS = ("linear", "embedding", "router", "experts")
CASES = list(dict.fromkeys([T5, *twentieth(FIRST)]))


def inputs(model: Any) -> dict[str, Any]:
    """A few tokens, or a picture, or a sound."""
    import torch

    names, config = inspect.signature(model.forward).parameters, model.config
    given: dict[str, Any] = {}
    for name in {"input_ids", "decoder_input_ids"} & names.keys():
        given[name] = torch.tensor([[4, 9, 5, 7, 8, 6, 9, 3]])
    if "input_features" in names:
        given["input_features"] = torch.linspace(-1, 1, config.num_mel_bins * 60).reshape(1, -1, 60)
    elif "input_ids" not in names or type(model).__name__ in ("CLIPModel", "SiglipModel"):
        config = getattr(config, "vision_config", config)
        size = getattr(config, "image_size", 224)
        size = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
        channels = config.num_channels
        given["pixel_values"] = torch.linspace(-1, 1, channels * size[0] * size[1]).reshape(
            1, channels, *size
        )
    if "use_cache" in names:
        given["use_cache"] = False
    return given


def outputs(model: Any, given: dict[str, Any]) -> Any:
    import torch

    with torch.no_grad():
        found = model(**given, return_dict=True)
    return next(each for each in found.values() if isinstance(each, torch.Tensor)).numpy()


@pytest.mark.parametrize(("family", "task"), CASES, ids=str)
def test_the_base_with_the_adapter_is_the_tuned_model(
    family: str, task: str, tmp_path: Path
) -> None:
    import peft
    import torch

    torch.manual_seed(0)
    fields = FIRST[family, task]
    special = (
        {"eos_token_id": 3, "bos_token_id": 2, "pad_token_id": 0} if "vocab_size" in fields else {}
    )
    model = built(family, task, {**fields, **special}, device="cpu").float().eval()
    kind = type(model)
    model.save_pretrained(tmp_path / "base")
    given = inputs(model)
    before, base = outputs(model, given), open_model(tmp_path / "base")
    modules = {module.name: module for module in base.described.modules}
    shared = {base.table} if not {*base.sharing} <= {"lm_head"} else set()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            module = modules.get(name) or modules[name.rpartition(".")[0]]
            # tied or fused tensors are refused
            own = name in base.parameters and name not in shared
            if module.kind in KINDS and module.called and own and not name.endswith("bias"):
                *stack, d, k = parameter.shape
                parameter += 0.05 * torch.randn(*stack, d, 2) @ torch.randn(*stack, 2, k)
    after = outputs(model, given)
    model.save_pretrained(tmp_path / "tuned")
    change = np.abs(after - before).max()
    assert change > 1e-3

    found = adapters.extract(tmp_path / "base", tmp_path / "tuned", tmp_path / "adapter", rank=3)
    assert {row.kept for row in found.rows} == {"LoRA"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peft.PeftModel.from_pretrained(
            kind.from_pretrained(tmp_path / "base"), tmp_path / "adapter"
        )
    np.testing.assert_allclose(outputs(theirs.float().eval(), given), after, atol=2e-3 * change)
    adapters.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
    merged = kind.from_pretrained(tmp_path / "merged").float().eval()
    np.testing.assert_allclose(outputs(merged, given), after, atol=2e-3 * change)
    counted = accounting.count(merged, config=tmp_path / "adapter")
    exact = sum(each.numel() for name, each in theirs.named_parameters() if "lora_" in name)
    assert counted.trainable == exact
