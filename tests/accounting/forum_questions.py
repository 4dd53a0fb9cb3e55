"""Forty questions from forums whose training did not fit, with the thread of each.

What a thread leaves open is filled in as its program does it by default. Several GPUs are asked
about as one, and a model without a preset as the preset of the same size and architecture.
"""

from typing import Any, NamedTuple

QV, ALL = ["q_proj", "v_proj"], "all-linear"


class Question(NamedTuple):
    """A training, as `lora_np.accounting.plan` takes it."""

    thread: str
    model: str
    gpu: str
    method: str
    rank: int = 8
    targets: Any = None
    options: dict[str, Any] = {}  # noqa: RUF012  a default of a tuple, never changed


QUESTIONS = [
    Question("Lightning-AI/litgpt#553", "llama-2-7b", "RTX 3090", "LoRA", 8, QV,
             {"batch_size": 4, "max_length": 1304}),
    Question("Lightning-AI/litgpt#301", "llama-2-7b", "RTX A6000", "LoRA", 8, QV,
             {"batch_size": 4, "max_length": 4096, "checkpointing": False}),
    Question("ayulockin/neurips-llm-efficiency-challenge#5", "llama-2-7b", "RTX 4090", "LoRA", 4, QV,
             {"batch_size": 4, "max_length": 512, "checkpointing": False}),
    Question("lm-sys/FastChat#2556", "llama-2-7b", "V100 32GB", "LoRA", 8, QV,
             {"max_length": 2048, "dtype": "float16", "checkpointing": False}),
    Question("lm-sys/FastChat#1637", "llama-2-7b", "RTX 3090", "LoRA", 8, QV,
             {"max_length": 2048, "checkpointing": False}),
    Question("hiyouga/LlamaFactory#6827", "llama-3.1-70b", "L40S", "QLoRA", 8, ALL, {"max_length": 2048}),
    Question("hiyouga/LlamaFactory#747", "llama-2-70b", "A100 40GB", "QLoRA", 8, QV, {"max_length": 1024}),
    Question("hiyouga/LlamaFactory#257", "llama-2-70b", "A100 80GB", "LoRA", 8, QV, {"max_length": 1024}),
    Question("hiyouga/LlamaFactory#4559", "llama-3-70b", "A10G", "QLoRA", 8, None, {"max_length": 1024}),
    Question("hiyouga/LlamaFactory#2580", "gemma-2b", "A100 80GB", "LoRA", 8, QV,
             {"batch_size": 4, "max_length": 8192}),
    Question("hiyouga/LlamaFactory#5051", "qwen2.5-7b", "A100 80GB", "full", 8, None, {"max_length": 8192}),
    Question("hiyouga/LlamaFactory#6011", "qwen2.5-14b", "RTX 4090", "LoRA", 8, ALL,
             {"max_length": 1024, "cross_entropy": "fused"}),
    Question("hiyouga/LlamaFactory#9331", "qwen2.5-vl-7b", "RTX 5090", "LoRA", 8, ALL,
             {"batch_size": 4, "max_length": 2048}),
    Question("hiyouga/LlamaFactory#5709", "llama-3.1-8b", "L40S", "LoRA", 8, ALL,
             {"batch_size": 4, "max_length": 4096, "checkpointing": False}),
    Question("hiyouga/LlamaFactory#4453", "qwen2.5-72b", "A100 80GB", "LoRA", 8, ALL, {"max_length": 8192}),
    Question("hiyouga/LlamaFactory#3708", "qwen2.5-7b", "RTX 3090", "LoRA", 8, ALL, {"max_length": 8192}),
    Question("hiyouga/LlamaFactory#5070", "qwen2.5-7b", "RTX 4090", "LoRA", 16, ALL,
             {"batch_size": 2, "max_length": 4096}),
    Question("hiyouga/LlamaFactory#4253", "gemma-7b", "RTX 4090", "LoRA", 8, ALL,
             {"batch_size": 4, "max_length": 1024}),
    Question("artidoro/qlora#225", "llama-2-13b", "RTX 3090", "QLoRA", 64, ALL,
             {"batch_size": 4, "max_length": 4096}),
    Question("artidoro/qlora#193", "llama-2-7b", "RTX 3090", "QLoRA", 64, ALL,
             {"batch_size": 4, "max_length": 2048}),
    Question("InternLM/xtuner#88", "llama-2-70b", "A100 40GB", "QLoRA", 64, ALL, {"max_length": 2048}),
    Question("allenai/open-instruct#12", "llama-2-7b", "RTX A6000", "LoRA", 256, ALL,
             {"batch_size": 4, "max_length": 2048, "checkpointing": False}),
    Question("ml-explore/mlx#1406", "llama-3.1-8b", "Apple 128GB", "LoRA", 16, QV,
             {"batch_size": 4, "max_length": 8192, "checkpointing": False}),
    Question("meta-pytorch/torchtune#1694", "llama-3.1-8b", "RTX 4090", "LoRA", 8, ALL,
             {"batch_size": 4, "max_length": 2048}),
    Question("unslothai/unsloth#2366", "gemma-3-12b", "H100", "LoRA", 8, ALL,
             {"max_length": 28_000, "dtype": "int8"}),
    Question("unslothai/unsloth#465", "llama-3-8b", "T4", "QLoRA", 16, ALL,
             {"batch_size": 2, "max_length": 8192}),
    Question("unslothai/unsloth#682", "llama-3-8b", "T4", "QLoRA", 8, ["q_proj", "k_proj", "v_proj"],
             {"batch_size": 2, "max_length": 4096}),
    Question("huggingface/transformers#31332", "llama-3-8b", "T4", "QLoRA", 64, ALL,
             {"batch_size": 2, "max_length": 2048, "optimizer": "paged_adamw"}),
    Question("brevdev/launchables#18", "llama-3-8b", "T4", "QLoRA", 8, None, {"max_length": 8192}),
    Question("juyongjiang/CodeUp#1", "llama-2-7b", "T4", "LoRA", 16, QV,
             {"dtype": "int8", "batch_size": 16, "max_length": 512}),
    Question("tloen/alpaca-lora#424", "llama-2-7b", "RTX 3060 12GB", "LoRA", 8, QV,
             {"dtype": "int8", "batch_size": 4, "max_length": 512}),
    Question("tloen/alpaca-lora#121", "llama-2-13b", "RTX 4060 Ti 16GB", "LoRA", 8, QV,
             {"dtype": "int8", "batch_size": 4, "max_length": 256}),
    Question("h2oai/h2ogpt#573", "llama-2-70b", "RTX A6000", "QLoRA", 8, QV, {"max_length": 4096}),
    Question("mistralai/mistral-finetune#14", "mistral-7b", "A10G", "LoRA", 64, ALL, {"max_length": 8192}),
    Question("axolotl-ai-cloud/axolotl#998", "mixtral-8x7b", "RTX 3090", "QLoRA", 8, QV, {"max_length": 2048}),
    Question("axolotl-ai-cloud/axolotl#971", "mistral-7b", "RTX 3090", "QLoRA", 32, ALL,
             {"batch_size": 2, "max_length": 8192}),
    Question("axolotl-ai-cloud/axolotl#1641", "llama-3-8b", "A100 80GB", "full", 8, None, {"max_length": 8192}),
    Question("huggingface/peft#1514", "llama-3.2-1b", "RTX 4090", "LoRA", 64, ALL,
             {"batch_size": 2, "max_length": 8192, "checkpointing": False}),
    Question("the page Fit, 12 GB", "qwen2.5-7b", "RTX 3060 12GB", "QLoRA", 64, ALL, {"max_length": 4096}),
    Question("the page Fit, 24 GB", "qwen3-30b-a3b", "RTX 4090", "QLoRA", 8, ALL, {"max_length": 2048}),
]  # fmt: skip
