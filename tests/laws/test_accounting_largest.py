"""The largest rank, batch and length that fit are solved for: they are what a search of every size
finds.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from typing import Any

import pytest

from lora_np.accounting import (
    TrainingOptions,
    count_model,
    gpus,
    largest_batch,
    largest_max_length,
    largest_rank,
    model_spec,
    training_memory,
)
from lora_np.accounting.activations import OPTIMIZERS
from lora_np.accounting.memory import by_rank
from lora_np.models import family_names, from_config
from lora_np.settings import choices_of
from tests.drawing import FULL, every

CHOICES = choices_of(TrainingOptions)

MODELS = [
    "llama-3-8b",
    "gemma-2-2b",
    "mixtral-8x7b",
    "qwen2.5-vl-3b",
    "t5-base",
    "bert-base",
    "deepseek-v3",
]
ROOMS = sorted({gpu.memory for gpu in gpus().values()})
LIMIT = 2**31 - 1


def drawn(draw: random.Random, dtypes: tuple[str, ...] = CHOICES["dtype"]) -> dict[str, Any]:
    """Options of training, each of which takes part in the memory."""
    options: dict[str, Any] = {name: draw.choice(known) for name, known in CHOICES.items()}
    options |= {
        name: draw.random() < 0.5
        for name in ("checkpointing", "master_copy", "double_quantization")
    }
    return options | {"dtype": draw.choice(dtypes), "batch_size": draw.choice([1, 2, 7])}


@every("seed", range(40 if FULL else 3))
@pytest.mark.parametrize("name", MODELS)
def test_batch_and_context_are_those_of_a_search(name: str, seed: int) -> None:
    draw = random.Random(seed)
    full = draw.random() < 0.3
    options = drawn(draw, ("float32", "bfloat16", "float16") if full else CHOICES["dtype"])
    options["max_length"] = draw.choice([1, 33, 128])
    spec = model_spec(name)
    dora = not full and spec.experts_per_token == 0 and draw.random() < 0.3
    model = spec if full else count_model(spec, rank=8, targets="all-linear", dora=dora)
    least = training_memory(model, **options).total
    for key, find in (("batch_size", largest_batch), ("max_length", largest_max_length)):

        def needed(size: int, key: str = key) -> int:
            return training_memory(model, **{**options, key: size}).total

        limit = spec.positions if key == "max_length" and spec.positions else LIMIT
        just = needed(draw.randint(1, min(limit, 999)))  # with no byte to spare
        for room in (draw.choice(ROOMS), least - 1, just - 1, just):
            found = find(model, budget=room, **options)
            assert found == bisect_right(range(1, limit + 1), room, key=needed)


@every("family", family_names() if FULL else family_names()[::4])
def test_batch_and_context_of_every_family(family: str) -> None:
    draw = random.Random(family)
    options = drawn(draw) | {"max_length": 5}
    model = count_model({"model_type": family}, rank=2, targets="all-linear")
    room = draw.randint(1, 4) * training_memory(model, **options).total
    for key, find in (("batch_size", largest_batch), ("max_length", largest_max_length)):
        positions = model.spec.positions if key == "max_length" else 0
        if all(stack.tokens for stack in model.spec.layers) and key == "max_length":
            # made for pictures
            with pytest.raises(ValueError, match="not known to depend on max_length"):
                find(model, budget=room, **options)
            continue
        most = find(model, budget=room, **options)
        assert (
            most == positions or training_memory(model, **{**options, key: most + 1}).total > room
        )
        assert most == 0 or training_memory(model, **{**options, key: most}).total <= room


SMALL = {
    "vocab_size": 131, "hidden_size": 96, "intermediate_size": 224, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 2,
}  # fmt: skip
LARGE = SMALL | {"hidden_size": 1536, "intermediate_size": 2048, "num_hidden_layers": 1}


@every("seed", range(12 if FULL else 2))
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("fields", [SMALL, LARGE], ids=["small", "large"])
def test_the_rank_is_the_largest_of_all_that_fit(
    fields: dict[str, Any], optimizer: str, seed: int
) -> None:
    """State in 8 bits and state that is paged make memory fall where a tensor grows past a size."""
    draw = random.Random(seed)
    options = drawn(draw) | {"optimizer": optimizer, "max_length": 3}
    spec = from_config({"model_type": "llama", **fields})
    lora = draw.choice([
        {"targets": "all-linear"}, {"dora": True}, {"rank_pattern": {"q_proj": 1, "up_proj": 2}}, {"lora_bias": True}
    ])  # fmt: skip
    limit = max(each.limit for each in count_model(spec, rank=1, **lora).adapters)
    every = (
        [*range(1, limit + 1)] if limit < 100 else [*range(1, 130), *range(130, limit, 97), limit]
    )
    needs = {rank: training_memory(spec, rank=rank, **lora, **options).total for rank in every}
    falls = [rank for rank in every if needs.get(rank + 1, needs[rank]) < needs[rank]]
    rooms = [*draw.sample(sorted(needs.values()), 4), min(needs.values()) - 1, max(needs.values())]
    for rank in falls:  # between the sizes before and after, and those of the next rank
        rooms += [needs[rank] - 1, needs[rank + 1], needs.get(rank + 2, needs[rank]) - 1]
    assert not (fields is SMALL and optimizer == "adamw_8bit") or falls
    for room in rooms:
        found = largest_rank(spec, budget=room, **lora, **options)
        best = max((rank for rank, need in needs.items() if need <= room), default=0)
        assert found >= best
        assert found == best or limit >= 100
        assert not found or training_memory(spec, rank=found, **lora, **options).total <= room
        if found < limit:
            assert training_memory(spec, rank=found + 1, **lora, **options).total > room


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", ["bfloat16", "nf4"])
def test_the_rank_on_a_card_is_that_of_a_search(name: str, dtype: str) -> None:
    spec = model_spec(name)
    options: dict[str, Any] = {"targets": "all-linear", "dtype": dtype, "max_length": 128}
    limit = max(each.limit for each in count_model(spec, rank=1, targets="all-linear").adapters)
    for room in ROOMS if FULL else ROOMS[::6]:
        found = bisect_right(
            range(1, limit + 1),
            room,
            key=lambda rank: training_memory(spec, rank=rank, **options).total,
        )
        assert largest_rank(spec, budget=room, **options) == found


LORAS: list[dict[str, Any]] = [
    {"targets": "all-linear"}, {"dora": True}, {"lora_bias": True}, {"rank_pattern": {"0.self_attn.q_proj": 1}},
    {"targets": ["q_proj", "v_proj", "k_proj"], "rank_pattern": {"1.self_attn.q_proj": 2, "k_proj": 7}, "bias": "all"},
]  # fmt: skip


@pytest.mark.parametrize("lora", LORAS, ids=str)
def test_a_count_at_any_rank_follows_from_two(lora: dict[str, Any]) -> None:
    spec = from_config({"model_type": "llama", **SMALL})
    counted = by_rank(spec, lora)
    for rank in (1, 2, 3, 7, 8, 50):
        found, expected = counted(rank), count_model(spec, rank=rank, **lora)
        assert (found.rank, found.trainable, found.total) == (
            rank,
            expected.trainable,
            expected.total,
        )
        assert set(found.notes) == set(expected.notes)
        assert training_memory(found) == training_memory(expected)
        budget = training_memory(expected).total
        assert largest_rank(spec, budget=budget, **lora) >= rank or rank > 24
