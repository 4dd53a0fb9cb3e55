"""Presets against published sizes, and at full size against transformers and PEFT on the meta device."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from lora_np.accounting import catalogue, count_model, from_config, preset, preset_config, preset_names
from lora_np.hub.families import family_of

# parameters as published with the checkpoints (deepseek-v3 without its second-token module and router biases)
PUBLISHED = {
    "bert-base": 109_514_298,
    "deberta-v2-xxlarge": 1_564_549_632,
    "deepseek-v3": 671_026_404_352,
    "gemma-2b": 2_506_172_416,
    "gemma-7b": 8_537_680_896,
    "gpt2": 124_439_808,
    "gpt2-large": 774_030_080,
    "gpt2-medium": 354_823_168,
    "gpt2-xl": 1_557_611_200,
    "gpt3-175b": 174_604_259_328,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-2-7b": 6_738_415_616,
    "llama-3-70b": 70_553_706_496,
    "llama-3-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "opt-350m": 331_196_416,
    "opt-6.7b": 6_658_473_984,
    "phi-2": 2_779_683_840,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "roberta-base": 124_697_433,
    "roberta-large": 355_412_057,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "vit-base": 86_567_656,
    "whisper-large-v2": 1_543_304_960,
}


def test_every_preset_has_its_published_size() -> None:
    assert {name: preset(name).total for name in preset_names()} == PUBLISHED


def test_every_preset_names_its_source() -> None:
    for row in catalogue().table.records:
        assert str(row["source"]).startswith("https://") or "arXiv" in str(row["source"])


def test_an_unknown_preset_shows_close_ones() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'llama-3-8b'\?"):
        preset("llama3-8b")


def test_a_preset_config_is_the_callers_own() -> None:
    preset_config("gpt2")["n_layer"] = 1
    assert preset("gpt2").total == PUBLISHED["gpt2"]


@pytest.mark.peers
@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_full_size_on_the_meta_device(name: str) -> None:
    import peft
    import torch
    import transformers

    fields = preset_config(name)
    family = family_of(fields["model_type"])
    architecture = fields.pop("architectures", [family.classes + family.tasks[0]])[0]
    config = transformers.AutoConfig.for_model(**fields)
    spec = preset(name)

    def build() -> Any:
        with torch.device("meta"):
            return getattr(transformers, architecture)(config)

    def count(model: Any, **options: Any) -> tuple[int, int]:
        return peft.get_peft_model(model, peft.LoraConfig(**options)).get_nb_trainable_parameters()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = build()
        assert spec.total == sum(p.numel() for p in model.parameters())
        everything = count_model(spec, rank=16, targets="all-linear")
        assert (everything.trainable, everything.total) == count(model, r=16, target_modules="all-linear")
        if family.targets:
            default = count_model(spec, rank=8)
            expected = count(build(), r=8, target_modules=list(family.targets))
            assert (default.trainable, default.total) == expected


def test_a_changed_preset() -> None:
    cased = from_config({**preset_config("bert-base"), "vocab_size": 28_996}, architecture="BertModel")
    assert cased.total == 108_310_272
