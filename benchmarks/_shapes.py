"""Random models of known sizes, and a LoRA step of each: what several benchmarks measure."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

import lora_np as lnp
from lora_np import language

# name: hidden, inner, layers, heads, kv, vocabulary, batch, tokens, steps in a round
SIZES = {
    "d 64, 4 layers": (64, 172, 4, 4, 2, 96, 16, 128, 3),
    "about 1M": (128, 352, 5, 4, 2, 96, 8, 128, 3),
    "SmolLM2-135M": (576, 1536, 30, 9, 3, 49152, 1, 256, 1),
}
FUSED, COMPOSED, TORCH = "lora_np, fused", "lora_np, composed", "torch + PEFT"
RANK, RATE = 8, 1e-3

Step = Callable[[], Any]


def stepping(name: str, contender: str) -> Step:
    tokens = text_of(name)
    if contender == TORCH:
        return torch_step(name, tokens)
    model = lnp.inject(
        random_model(name), rank=RANK, alpha=2 * RANK, rng=0, targets=["q_proj", "v_proj"]
    )
    if contender == COMPOSED:
        model = language.composed_operations(model)
    run = lnp.training_run(lnp.AdamW(lr=RATE), model)

    def step() -> None:
        loss: Any = language.token_loss(model, tokens)
        loss.backward()
        run.step()

    return step


def settings_of(name: str) -> dict[str, Any]:
    d, inner, layers, heads, kv, vocabulary, *_ = SIZES[name]
    return {
        "vocab_size": vocabulary,
        "hidden_size": d,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    }


def text_of(name: str) -> Any:
    *_, vocabulary, batch, tokens, _ = SIZES[name]
    return np.random.default_rng(0).integers(0, vocabulary, (batch, tokens + 1))


def random_model(name: str) -> language.LanguageModel:
    settings, rng = settings_of(name), np.random.default_rng(0)
    d, inner = settings["hidden_size"], settings["intermediate_size"]
    kv = d // settings["num_attention_heads"] * settings["num_key_value_heads"]
    rows = {
        "k_proj": kv,
        "v_proj": kv,
        "gate_proj": inner,
        "up_proj": inner,
        "embed_tokens": settings["vocab_size"],
    }

    def read(path: str) -> Any:
        module, kind = path.split(".")[-2:]
        if kind == "bias" or module in ("q_norm", "k_norm"):
            return None
        if module.endswith("norm"):
            return np.ones(d, np.float32)
        shape = (rows.get(module, d), inner if module == "down_proj" else d)
        return rng.normal(0, 0.02, shape).astype(np.float32)

    return language.build({"model_type": "llama", **settings}, read)


def torch_step(name: str, tokens: Any) -> Step:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    model = LlamaForCausalLM(LlamaConfig(**settings_of(name), attn_implementation="sdpa"))
    adapted = get_peft_model(
        model, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=["q_proj", "v_proj"])
    )
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=RATE)
    inputs, labels = torch.tensor(tokens[:, :-1]), torch.tensor(tokens[:, 1:]).reshape(-1)

    def step() -> None:
        logits = adapted(inputs, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step
