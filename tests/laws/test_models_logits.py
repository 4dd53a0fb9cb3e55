"""Names by what they do: adapters travel between PEFT and here, and the model's logits say whether
they arrived.
"""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_np import adapters
from lora_np.models import family_of
from tests.drawing import twentieth
from tests.models.family_cases import CASES as NEWER
from tests.models.test_families import CASES as OLDER
from tests.rounding import assert_as_near, assert_near, torch_in_double

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"),
]

# a case of each family with a language model, a usual one and an odd one where there are two
HEADED = (
    "ForCausalLM",
    "ForConditionalGeneration",
    "LMHeadModel",
    "ForMaskedLM",
    "ForSequenceClassification",
)
# they need sound, an end of text, or as many decoder layers as encoder layers to run on bare tokens
OTHER_INPUTS = [
    ("whisper", "ForConditionalGeneration"),
    ("bart", "ForSequenceClassification"),
    ("bart", "ForCausalLM"),
]
ALL = [case for case in [*NEWER, *OLDER] if case[1] in HEADED and case[:2] not in OTHER_INPUTS]
CASES = [
    case
    for family in dict.fromkeys(family for family, _, _ in ALL)
    for case in [each for each in ALL if each[0] == family][:2]
]
IDS = [f"{family}-{task}-{place}" for place, (family, task, _) in enumerate(CASES)]
DRAWN = twentieth(CASES)


def built(family: str, task: str, fields: dict[str, Any]) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    # positions of time, height and width share a head's 8 numbers
    if family in ("qwen2_vl", "qwen2_5_vl"):
        sections = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6}
        fields = {**fields, "text_config": {**fields["text_config"], "rope_parameters": sections}}
    config = transformers.AutoConfig.for_model(family, **fields)
    home = importlib.import_module(type(config).__module__.replace("configuration", "modeling"))
    model = getattr(home, family_of(family).classes + task)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # some of them start as zero, or as what was in memory
            parameter.copy_(0.2 * torch.randn(parameter.shape) + (parameter.ndim == 1))
    return model


def logits(model: Any) -> Any:
    import torch

    ids = torch.arange(4, 16).reshape(2, 6)
    with torch.no_grad():
        inputs = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
        return model.eval()(input_ids=ids, **inputs).logits.double().numpy()


def changed(model: Any) -> None:
    """Every linear map, and every expert, is another by a matrix of rank one.

    Not the tables that several modules of an encoder-decoder or a masked model share: PEFT adapts
    one alone.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(1)
    several = model.config.is_encoder_decoder or type(model).__name__.endswith("MaskedLM")
    tables = {
        id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)
    }
    with torch.no_grad():
        for module in model.modules():
            if several and id(getattr(module, "weight", None)) in tables:
                continue
            if isinstance(module, (torch.nn.Linear, Conv1D)):
                module.weight += _rank_one(*module.weight.shape)
            elif type(module).__name__.endswith("Experts"):
                for weight in module.parameters(recurse=False):
                    if weight.ndim == 3:
                        weight += torch.stack(
                            [_rank_one(*weight.shape[1:]) for _ in range(len(weight))]
                        )


def _rank_one(rows: int, columns: int) -> Any:
    import torch

    return torch.outer(torch.randn(rows), torch.randn(columns)) / columns**0.5


@pytest.mark.parametrize(
    ("family", "task", "fields"), DRAWN, ids=[IDS[CASES.index(case)] for case in DRAWN]
)
def test_what_is_extracted_merged_resized_and_loaded_is_what_peft_computes(
    tmp_path: Path, family: str, task: str, fields: dict[str, Any]
) -> None:
    import peft

    model = built(family, task, fields)
    model.save_pretrained(tmp_path / "base")
    before = logits(model)
    changed(model)
    model.save_pretrained(tmp_path / "tuned")
    tuned = logits(model)
    exact = logits(torch_in_double(model))
    assert np.abs(tuned - before).max() > 1e-2 * np.abs(before).max()

    def loaded(name: str) -> Any:
        return type(model).from_pretrained(tmp_path / name)

    def by_peft(name: str) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # PEFT warns of keys that are missing or left over
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")
            warnings.filterwarnings("ignore", "fan_in_fan_out is set to True but the target module")
            return peft.PeftModel.from_pretrained(loaded("base"), tmp_path / name)

    adapters.extract(tmp_path / "base", tmp_path / "tuned", tmp_path / "extracted", rank=2)
    assert_as_near(logits(by_peft("extracted")), tuned, exact)
    head = model.get_output_embeddings()
    # PEFT merges into it twice
    if head is None or head.weight is not model.get_input_embeddings().weight:
        together = by_peft("extracted").merge_and_unload().state_dict()
        for name, parameter in model.state_dict().items():
            assert_near(together[name], parameter)
    adapters.merge(tmp_path / "base", tmp_path / "extracted", tmp_path / "merged")
    assert_as_near(logits(loaded("merged")), tuned, exact)
    adapters.resize(tmp_path / "extracted", tmp_path / "resized", energy=1 - 1e-12)
    assert_as_near(logits(by_peft("resized")), tuned, exact)
    adapters.save(adapters.load(tmp_path / "extracted"), tmp_path / "again")
    assert_as_near(logits(by_peft("again")), tuned, exact)
