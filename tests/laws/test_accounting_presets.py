"""Presets against published sizes, and at full size against transformers and PEFT on the meta
device.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from lora_np.accounting import count_model
from lora_np.models import catalogue, from_config, preset, preset_names
from lora_np.models.families import family_of
from lora_np.models.sources import hub_name, preset_config
from tests.drawing import twentieth

# parameters as published with the checkpoints: the totals of their safetensors files (deepseek-v3
# without its second-token module and router biases; pythia-410m as the table of its cards)
PUBLISHED = {
    "bert-base": 109_514_298,
    "deberta-v2-xxlarge": 1_564_549_632,
    "deepseek-v3": 671_026_404_352,
    "gemma-2-27b": 27_227_128_320,
    "gemma-2-2b": 2_614_341_888,
    "gemma-2-9b": 9_241_705_984,
    "gemma-2b": 2_506_172_416,
    "gemma-3-12b": 12_187_325_040,
    "gemma-3-1b": 999_885_952,
    "gemma-3-27b": 27_432_406_640,
    "gemma-3-4b": 4_300_079_472,
    "gemma-7b": 8_537_680_896,
    "gpt-oss-120b": 116_829_156_672,
    "gpt-oss-20b": 20_914_757_184,
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
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "mistral-7b": 7_241_732_096,
    "mistral-7b-v0.3": 7_248_023_552,
    "mistral-small-24b": 23_572_403_200,
    "mixtral-8x7b": 46_702_792_704,
    "modernbert-base": 149_655_232,
    "olmo-2-7b": 7_298_617_344,
    "olmoe-1b-7b": 6_919_161_856,
    "opt-350m": 331_196_416,
    "opt-6.7b": 6_658_473_984,
    "phi-2": 2_779_683_840,
    "phi-3.5-mini": 3_821_079_552,
    "phi-4": 14_659_507_200,
    "phi-4-mini": 3_836_021_760,
    "pythia-410m": 405_334_016,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-72b": 72_706_203_648,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-vl-3b": 3_754_622_976,
    "qwen2.5-vl-7b": 8_292_166_656,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-14b": 14_768_307_200,
    "qwen3-235b-a22b": 235_093_634_560,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-32b": 32_762_123_264,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "roberta-base": 124_697_433,
    "roberta-large": 355_412_057,
    "smollm2-1.7b": 1_711_376_384,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm3-3b": 3_075_098_624,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "tinyllama-1.1b": 1_100_048_384,
    "vit-base": 86_567_656,
    "whisper-large-v2": 1_543_304_960,
}
# totals that are published with fewer digits: the figure and where it was read; without modules that
# predict further tokens
NAME = "the name of the model"
STATED = {
    "apertus-8b": ("8B", NAME),
    "bloom-560m": ("560M", NAME),
    "codellama-13b": ("13B", NAME),
    "codellama-34b": ("34B", NAME),
    "codellama-7b": ("7B", NAME),
    "deepseek-v3.2": ("671B", "maxtext: deepseek3.2-671b.yml"),
    "deepseek-v4-flash": ("284B", "maxtext: deepseek4-284b.yml"),
    "deepseek-v4-pro": ("1.6T", "maxtext: deepseek4-1600b.yml"),
    "falcon-7b": ("7B", NAME),
    "gemma-3-270m": ("270M", NAME),
    "gemma-4-26b-a4b": ("26B", NAME),
    "glm-4-9b-0414": ("9B", NAME),
    "glm-4.5-air": ("106B", "transformers: docs/source/en/model_doc/glm4_moe.md"),
    "glm-4.6": ("355B", "slime: glm4.5-355B-A32B.sh"),
    "glm-4.7-flash": ("30B", "vime: glm4.7-30B-A3B.sh"),
    "glm-5": ("744B", "vime: glm5-744B-A40B.sh"),
    "gpt-j-6b": ("6B", NAME),
    "granite-3.3-8b": ("8B", NAME),
    "granite-4.0-h-tiny": ("6.94B", "llama.cpp, pull request 20795"),
    "granite-4.0-micro": ("3B", "ibmgranite.mintlify.app"),
    "hunyuan-a13b": ("80B", "apxml.com/models/hunyuan-a13b"),
    "kimi-k2": ("1T", "maxtext: kimi-k2-1t.yml"),
    "lfm2-1.2b": ("1.2B", NAME),
    "lfm2-8b-a1b": ("8.34B", "llama.cpp, pull request 19848"),
    "llama-4-maverick": ("400B", "huggingface.co/blog/llama4-release"),
    "llama-4-scout": ("109B", "huggingface.co/blog/llama4-release"),
    "minimax-m2.5": ("229B", "vime: minimax-m2.sh"),
    "mistral-small-3.2-24b": ("24B", NAME),
    "nemotron-h-56b": ("56B", NAME),
    "nemotron-nano-9b-v2": ("9B", NAME),
    "olmo-2-1b": ("1B", NAME),
    "olmo-3-32b": ("32B", NAME),
    "olmo-3-7b": ("7B", NAME),
    "opt-1.3b": ("1.3B", NAME),
    "qwen3-coder-480b-a35b": ("480B", NAME),
    "qwen3-next-80b-a3b": ("80B", NAME),
    "qwen3-vl-235b-a22b": ("236B", "huggingface.co/collections/Qwen/qwen3-vl"),
    "qwen3-vl-2b": ("2B", NAME),
    "qwen3-vl-30b-a3b": ("31B", "huggingface.co/collections/Qwen/qwen3-vl"),
    "qwen3-vl-4b": ("4B", NAME),
    "qwen3.5-122b-a10b": ("122B", NAME),
    "qwen3.5-27b": ("27B", NAME),
    "qwen3.5-35b-a3b": ("35B", NAME),
    "qwen3.5-397b-a17b": ("397B", NAME),
    "seed-oss-36b": ("36B", NAME),
    "starcoder2-3b": ("3B", NAME),
    "yi-1.5-9b": ("9B", NAME),
    "yi-34b": ("34B", NAME),
}
# no total of these was read anywhere that counts what is counted here: their configs were, and
# transformers builds them with the same parameters
UNSTATED = {
    "command-r",
    "ernie-4.5-0.3b",
    "ernie-4.5-21b-a3b",
    "exaone-4.0-1.2b",
    "gemma-4-e2b",
    "hunyuan-7b",
    "mimo-v2-flash",
    "ministral-3-8b",
    "mistral-nemo-12b",
    "mixtral-8x22b",
    "nemotron-3-nano-30b-a3b",
    "qwen3-vl-32b",
    "qwen3-vl-8b",
}


def test_every_preset_has_its_published_size() -> None:
    totals = {name: preset(name).total for name in preset_names()}
    assert {name: totals[name] for name in PUBLISHED} == PUBLISHED
    assert {*totals} == {*PUBLISHED, *STATED, *UNSTATED}
    for name, (said, place) in STATED.items():
        assert place != NAME or said.lower() in hub_name(name).lower(), name
        number, unit = said[:-1], {"M": 1e6, "B": 1e9, "T": 1e12}[said[-1]]
        # what was published is rounded: half of its last digit is allowed where that is over 1 %
        half_a_digit = 0.5 * unit / 10 ** len(number.partition(".")[2])
        within = max(0.01 * float(number) * unit, half_a_digit)
        assert abs(totals[name] - float(number) * unit) <= within, (name, totals[name])


def test_every_preset_names_its_source() -> None:
    for row in catalogue().presets.records:
        assert str(row["source"]).startswith("https://") or "arXiv" in str(row["source"])


def test_an_unknown_preset_shows_close_ones() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'llama-3-8b'\?"):
        preset("llama3-8b")


def test_a_preset_config_is_the_callers_own() -> None:
    preset_config("gpt2")["n_layer"] = 1
    assert preset("gpt2").total == PUBLISHED["gpt2"]


@pytest.mark.peers
@pytest.mark.parametrize("name", twentieth(sorted(PUBLISHED)))
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
        assert (everything.trainable, everything.total) == count(
            model, r=16, target_modules="all-linear"
        )
        if spec.default_targets:
            default = count_model(spec, rank=8)
            expected = count(build(), r=8, target_modules=list(spec.default_targets))
            assert (default.trainable, default.total) == expected


@pytest.mark.peers
@pytest.mark.parametrize("name", twentieth(sorted(UNSTATED)))
def test_a_total_that_is_stated_nowhere_is_that_of_transformers(name: str) -> None:
    import torch
    import transformers

    fields = preset_config(name)
    (architecture,) = fields.pop("architectures")
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        model = getattr(transformers, architecture)(transformers.AutoConfig.for_model(**fields))
    assert preset(name).total == sum(p.numel() for p in model.parameters())


def test_a_changed_preset() -> None:
    cased = from_config(
        {**preset_config("bert-base"), "vocab_size": 28_996, "architectures": ["BertModel"]}
    )
    assert cased.total == 108_310_272
