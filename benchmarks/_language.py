"""Figures of a language model at work, each from a process of its own: ours, and the peer's on the
same.

Run by `benchmarks.language`, which asks for them one by one.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import _shapes as shapes
from lora_np import language
from lora_np.language.adapting import peak_memory, prepared
from lora_np.language.blocks import sequences
from lora_np.language.decoder import vocabulary_of
from recipes import conversations

OURS, THEIRS = "lora_np", "torch"
LONGEST = 4000  # tokens of a prompt
SMALLER = 10  # times fewer tokens
FIGURES: dict[str, Callable[..., float]] = {}


def figure(task: Callable[..., float]) -> Callable[..., float]:
    """Make a function of the contender, and what it needs, one that can be asked for by its
    name.
    """
    FIGURES[task.__name__] = task
    return task


def threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


def size_of(small: bool) -> str:
    return "about 1M" if small else "SmolLM2-135M"


def speaking(size: str) -> language.LanguageModel:
    """The random model of a size, with a character for each token."""
    model = shapes.random_model(size)
    letters = "".join(chr(0x20000 + i) for i in range(model.config["vocab_size"]))
    return replace(model, vocabulary=language.Characters(letters))


def in_torch(model: language.LanguageModel | str) -> Any:
    """The same in transformers, by way of a directory."""
    import torch
    import transformers

    torch.set_num_threads(threads())
    with tempfile.TemporaryDirectory() as folder:
        if not isinstance(model, str):
            language.save(model, folder)
        where = folder if not isinstance(model, str) else model
        return transformers.AutoModelForCausalLM.from_pretrained(where).eval()


def timed(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


@figure
def seconds_a_step(contender: str, small: bool, gguf: str) -> float:
    """Of wall time, of a LoRA step, on as many threads as the environment says."""
    run = shapes.stepping(size_of(small), shapes.FUSED if contender == OURS else shapes.TORCH)
    run()
    return min(timed(run) for _ in range(3))


def greedy(contender: str, model: language.LanguageModel, tokens: int) -> float:
    """Tokens a second at temperature 0, one after the other."""
    if contender == OURS:
        text = vocabulary_of(model).decode([5])
        language.generate(model, text, tokens=4, temperature=0)
        return tokens / timed(lambda: language.generate(model, text, tokens=tokens, temperature=0))
    import torch

    theirs, prompt = in_torch(model), torch.tensor([[5]])
    how = {"do_sample": False, "min_new_tokens": tokens, "pad_token_id": 0}
    theirs.generate(prompt, max_new_tokens=4, do_sample=False, pad_token_id=0)
    return tokens / timed(lambda: theirs.generate(prompt, max_new_tokens=tokens, **how))


@figure
def tokens_a_second_shipped(contender: str, small: bool, gguf: str) -> float:
    return greedy(contender, language.load("austen"), 6 if small else 240)


@figure
def tokens_a_second(contender: str, small: bool, gguf: str) -> float:
    return greedy(contender, speaking(size_of(small)), 4 if small else 60)


@figure
def tokens_a_second_in_four_bits(contender: str, small: bool, gguf: str) -> float:
    """Over the weights of the file as they are; the peer's are dequantised."""
    tokens = 4 if small else 40
    if contender == OURS:
        model = language.load(gguf, quantised=True)
        return tokens / timed(
            lambda: language.generate(model, "The rank of a matrix", tokens=tokens, temperature=0)
        )
    return greedy(contender, language.load(gguf), tokens)


def prompt(contender: str, small: bool, tokens: int) -> float:
    """Seconds until the first token after a prompt of so many."""
    model, tokens = speaking(size_of(small)), tokens // SMALLER if small else tokens
    said = np.random.default_rng(0).integers(0, model.config["vocab_size"], tokens)
    if contender == OURS:
        text = vocabulary_of(model).decode(said)
        return timed(lambda: language.generate(model, text, tokens=1, temperature=0))
    import torch

    theirs = in_torch(model)
    with torch.no_grad():
        return timed(
            lambda: theirs.generate(torch.tensor(said[None]), max_new_tokens=1, do_sample=False)
        )


@figure
def seconds_of_a_prompt(contender: str, small: bool, gguf: str) -> float:
    return prompt(contender, small, LONGEST)


@figure
def seconds_of_half_a_prompt(contender: str, small: bool, gguf: str) -> float:
    return prompt(contender, small, LONGEST // 2)


@figure
def seconds_of_sixty_steps(contender: str, small: bool, gguf: str) -> float:
    """On conversations of our glossary, two rows of 256 tokens in a step; the peer's base is
    dequantised.
    """
    entries = conversations.terms(
        (conversations.DOCS / "reference" / "glossary.md").read_text("utf-8")
    )
    data = conversations.conversations(entries)[:200]
    how: dict[str, Any] = {
        "rank": 8,
        "alpha": 16.0,
        "steps": 2 if small else 60,
        "batch_size": 1,
        "accumulate": 2,
        "lr": 2e-3,
        "max_length": 256,
        "progress": False,
        "validate_every": 60,
    }
    if contender == OURS:
        model = language.load(gguf, quantised=True)
        return timed(lambda: language.finetune(model, data, **how))
    settings = language.FinetuneSettings(**how)
    return timed(conversing_in_torch(language.load(gguf), data, settings))


def conversing_in_torch(
    base: language.LanguageModel, data: Any, settings: language.FinetuneSettings
) -> Callable[[], None]:
    """The same run of PEFT's adapters, over the same batches."""
    import peft
    import torch

    plan = prepared(base, data, settings)
    config = peft.LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear"
    )
    model = peft.get_peft_model(in_torch(base), config)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=settings.lr
    )

    def train() -> None:
        for step in range(settings.steps or 0):
            for i in range(settings.accumulate):
                batch = plan.batches(settings.accumulate * step + i)
                # by which transformers keeps packed texts apart
                ids = (
                    np.zeros_like(batch.tokens)
                    if batch.sequence_ids is None
                    else batch.sequence_ids
                )
                positions = torch.tensor(sequences(ids, 0).positions)
                logits = model(
                    torch.tensor(batch.tokens), position_ids=positions, use_cache=False
                ).logits
                loss = torch.nn.functional.cross_entropy(
                    logits.reshape(-1, logits.shape[-1]), torch.tensor(batch.labels).reshape(-1)
                )
                (loss * batch.share / settings.accumulate).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return train


@figure
def forecast_over_run(contender: str, small: bool, gguf: str) -> float:
    """The CPU time that `forecast` predicts over that of the run: of the shipped model for
    lora_np, and of a random one for torch's place in the table.
    """
    model = language.load("austen")
    text = language.read_text("genesis")
    if contender == THEIRS:
        model = speaking("about 1M")
        numbers = np.random.default_rng(0).integers(0, model.config["vocab_size"], 100_000)
        text = vocabulary_of(model).decode(numbers)
    how: dict[str, Any] = {"steps": 12 if small else 60, "max_length": 128 if small else 256}
    with mock.patch("time.perf_counter", time.process_time):  # other work does not count
        foretold = language.forecast(model, text, **how).seconds
        run = language.finetune(model, text, **how, progress=False)
    return foretold / run.history.seconds


def main(name: str, contender: str, small: bool, gguf: str) -> None:
    """Print a figure, and the memory that it took."""
    print(FIGURES[name](contender, small, gguf), (peak_memory() or 0) / 2**20)
