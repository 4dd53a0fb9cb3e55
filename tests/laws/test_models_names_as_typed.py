"""Names of models and GPUs as people type them, in lists written before the code that finds them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from lora_np import accounting, models
from lora_np.accounting.planning import gpu_names
from lora_np.files import read_json
from lora_np.models.sources import typed_names

TYPED = tomllib.loads(
    (Path(__file__).parents[1] / "models" / "typed_names.toml").read_text(encoding="utf-8")
)
# the preset with the shapes of what is meant; those that are not here have none
PRESETS = {
    "Qwen3-8B": "qwen3-8b",
    "qwen3 0.6b": "qwen3-0.6b",
    "qwen3:4b": "qwen3-4b",
    "unsloth/Qwen3-14B-unsloth-bnb-4bit": "qwen3-14b",
    "qwen_3_32b": "qwen3-32b",
    "Qwen3-30B-A3B-Instruct-2507-GGUF": "qwen3-30b-a3b",
    "qwen 3 235b a22b": "qwen3-235b-a22b",
    "qwen3-4b-thinking-2507": "qwen3-4b",
    "Qwen3-Coder-30B-A3B-Instruct-Q4_K_M.gguf": "qwen3-30b-a3b",
    "qwen3 coder 480b": "qwen3-coder-480b-a35b",
    "qwen3 next 80b": "qwen3-next-80b-a3b",
    "Qwen3-VL-8B-Instruct": "qwen3-vl-8b",
    "qwen3vl 30b a3b": "qwen3-vl-30b-a3b",
    "Qwen2.5-VL-7B-Instruct-AWQ": "qwen2.5-vl-7b",
    "QwQ 32b": "qwen2.5-32b",
    "qwen3.5 35b a3b": "qwen3.5-35b-a3b",
    "Qwen3.5-27B-UD-Q4_K_XL": "qwen3.5-27b",
    "llama 4 scout": "llama-4-scout",
    "Llama-4-Maverick-17B-128E-Instruct-FP8": "llama-4-maverick",
    "gemma 3 270m": "gemma-3-270m",
    "gemma3:12b": "gemma-3-12b",
    "google/gemma-3-27b-it-qat-q4_0-gguf": "gemma-3-27b",
    "unsloth/gemma-3-1b-it-bnb-4bit": "gemma-3-1b",
    "gema 3 4b": "gemma-3-4b",
    "gemma-4-E2B-it": "gemma-4-e2b",
    "GLM-4.5-Air": "glm-4.5-air",
    "glm 4.6": "glm-4.6",
    "THUDM/GLM-4-9B-0414": "glm-4-9b-0414",
    "glm4.7 flash": "glm-4.7-flash",
    "GLM 5": "glm-5",
    "kimi k2": "kimi-k2",
    "Kimi-K2-Thinking": "kimi-k2",
    "minimax m2": "minimax-m2.5",
    "deepseek r1": "deepseek-v3",
    "deepseek v3.1": "deepseek-v3",
    "DeepSeek-V3.2-Exp": "deepseek-v3.2",
    "deepseek-r1:14b": "qwen2.5-14b",
    "DeepSeek-R1-Distill-Llama-8B-Q4_K_M": "llama-3.1-8b",
    "deepseek r1 0528 qwen3 8b": "qwen3-8b",
    "mistral small 3.2": "mistral-small-3.2-24b",
    "Mistral-Small-24B-Instruct-2501-bnb-4bit": "mistral-small-24b",
    "magistral small 2509": "mistral-small-3.2-24b",
    "ministral 3 8b": "ministral-3-8b",
    "olmo 3 7b instruct": "olmo-3-7b",
    "Olmo-3-32B-Think": "olmo-3-32b",
    "OLMo-2-0425-1B": "olmo-2-1b",
    "granite-4.0-h-tiny": "granite-4.0-h-tiny",
    "granite 4 micro": "granite-4.0-micro",
    "LFM2-1.2B": "lfm2-1.2b",
    "lfm2 8b a1b": "lfm2-8b-a1b",
    "Seed-OSS-36B-Instruct": "seed-oss-36b",
    "gpt-oss:120b": "gpt-oss-120b",
    "gptoss 20b": "gpt-oss-20b",
    "smollm3": "smollm3-3b",
    "phi-4-mini-instruct": "phi-4-mini",
    "phi4 reasoning plus": "phi-4",
    "Hunyuan-A13B-Instruct": "hunyuan-a13b",
    "hunyuan 7b": "hunyuan-7b",
    "ERNIE-4.5-0.3B-PT": "ernie-4.5-0.3b",
    "ernie 4.5 21b a3b": "ernie-4.5-21b-a3b",
    "nemotron nano 9b v2": "nemotron-nano-9b-v2",
    "nemotron 3 nano 30b": "nemotron-3-nano-30b-a3b",
    "apertus 8b": "apertus-8b",
    "codellama 7b": "codellama-7b",
    "TheBloke/CodeLlama-34B-Instruct-GPTQ": "codellama-34b",
    "vicuna 13b": "llama-2-13b",
    "zephyr 7b": "mistral-7b",
    "Yi-34B": "yi-34b",
    "pythia 410m": "pythia-410m",
    "bloom 560m": "bloom-560m",
    "mixtral": "mixtral-8x7b",
    "Mixtral-8x22B": "mixtral-8x22b",
    "mistral 7b v0.3": "mistral-7b-v0.3",
    "mistral nemo 12b": "mistral-nemo-12b",
    "TheBloke/Llama-2-7B-Chat-GGUF": "llama-2-7b",
    "llama2-70b": "llama-2-70b",
    "unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit": "llama-3.1-8b",
    "llama3.2:1b": "llama-3.2-1b",
    "lama 3.3 70b": "llama-3.1-70b",
    "gemma 2 9b it": "gemma-2-9b",
    "Qwen2.5 Coder 32B": "qwen2.5-32b",
    "qwen2.5-0.5b": "qwen2.5-0.5b",
    "phi-2": "phi-2",
    "phi 3.5 mini": "phi-3.5-mini",
    "phi4": "phi-4",
    "tinyllama": "tinyllama-1.1b",
    "falcon-7b": "falcon-7b",
    "EXAONE-4.0-1.2B": "exaone-4.0-1.2b",
    "granite 3.3 8b instruct": "granite-3.3-8b",
    "yi 1.5 9b chat": "yi-1.5-9b",
    "gpt-j 6b": "gpt-j-6b",
    "gpt2 xl": "gpt2-xl",
    "opt-1.3b": "opt-1.3b",
    "starcoder2 3b": "starcoder2-3b",
    "command r": "command-r",
}


def test_a_hundred_names_of_models_are_found_or_asked_back_and_none_is_taken_for_another() -> None:
    names, answered = typed_names(), 0
    typed = [entry["name"] for entry in TYPED["models"]]
    assert len(typed) == 100
    assert {*PRESETS} <= {*typed}
    for text in typed:
        assert names.find(text) in ("", PRESETS.get(text)), text
        answered += PRESETS.get(text) in names.nearest(text)
    assert answered >= 95


def test_what_a_name_means_has_the_size_that_the_name_says() -> None:
    seen = 0
    for text, preset in PRESETS.items():
        said = re.findall(r"(?<![ax.\d])(\d[\d.]*)([bm])(?![a-z])", text.lower())
        if said and not re.search(r"a\d+b|e\db|x22|\d+e|gpt-j", text.lower()):
            number, unit = said[-1]
            size = float(number) * {"b": 1e9, "m": 1e6}[unit]
            assert models.preset(preset).total == pytest.approx(size, rel=0.5), (text, preset)
            seen += 1
    assert seen >= 40


def test_sixty_gpus_are_found_or_asked_back_and_none_is_taken_for_another() -> None:
    names = gpu_names()
    assert len(TYPED["gpus"]) == 60
    for entry in TYPED["gpus"]:
        text, sizes = entry["name"], {*entry["memory_gb"]}
        sold = {accounting.gpus()[name].sold for name in names.nearest(text)}
        if found := names.find(text):
            assert accounting.gpus()[found].sold in sizes, text
        else:
            assert entry["ambiguous"], text
            assert sizes <= sold, text
            with pytest.raises(ValueError, match="gpu must say which: ") as caught:
                accounting.plan("gpt2", gpu=text, rank=1)
            asked = set(map(int, re.findall(r"(\d+)GB'", str(caught.value))))
            assert asked <= sizes, text
            assert len(asked) > 1, text


def test_a_gpu_with_several_memories_is_never_chosen_silently() -> None:
    for text in ("3060", "RTX 3080", "M1", "4060 ti", "v100", "A770", "3080 laptop"):
        assert not gpu_names().find(text)
        assert len(gpu_names().several(text)) > 1
    assert gpu_names().find("3090 Ti") == "RTX 3090 Ti"


def test_nearest_is_by_family_and_size_not_by_letters() -> None:
    nearest = typed_names().nearest
    assert "mistral-7b" in nearest("HuggingFaceH4/zephyr-7b-beta")
    assert "qwen2.5-1.5b" in nearest("R1-Distill-Qwen-1.5B")
    assert nearest("CodeLlama 33b")[0] == "codellama-34b"
    assert nearest("olmo 2 13b")[0] == "olmo-2-7b"
    assert nearest("lama 3.3 70b")[0] == "llama-3.1-70b"


def test_words_that_change_shapes_are_not_left_out() -> None:
    find = typed_names().find
    for text in (
        "qwen3-vl-14b",
        "qwen3-next-30b",
        "deepseek-coder-6.7b",
        "mistral-7b-v0.4",
        "llama 8b",
    ):
        assert not find(text), text
    assert find("Qwen3 Coder 30B A3B") == find("qwen3-30b-a3b") == "qwen3-30b-a3b"


def test_no_name_of_the_lists_is_an_alias() -> None:
    aliases = read_json(Path(models.__file__).with_name("aliases.json"))["aliases"]
    listed = {
        name.lower() for places in aliases.values() for few in places.values() for name in few
    }
    known = {entry["name"].lower() for entry in TYPED["models"]}
    assert len(known & listed) <= 1  # an Ollama tag of 2025
