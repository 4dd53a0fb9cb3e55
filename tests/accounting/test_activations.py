"""Estimate the memory of activations from shapes alone."""

from __future__ import annotations

from lora_np.accounting import (
    count_model,
    model_spec,
    training_memory,
)
from lora_np.models import preset


def test_activations_grow_with_tokens_and_checkpointing_saves() -> None:
    lora = count_model(preset("llama-3.2-1b"), rank=8)
    one = training_memory(lora, batch_size=1, max_length=256).activations
    assert training_memory(lora, batch_size=4, max_length=256).activations == 4 * one
    assert training_memory(lora, batch_size=1, max_length=1024).activations == 4 * one
    without, eager = (
        training_memory(
            lora, batch_size=1, max_length=256, checkpointing=False, attention=attention
        ).activations
        for attention in ("fused", "eager")
    )
    assert eager > without  # type: ignore[operator]
    assert one < 0.5 * without  # type: ignore[operator]


def test_a_model_without_known_layers_gets_the_rest() -> None:
    memory = training_memory(model_spec("100x120"), dtype="float32")
    assert memory.activations is None
    assert memory.total == (4 + 4 + 8) * 12_000
    assert "Activations, logits and workspace are not in the total" in str(memory)
