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
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import language as shapes
from lora_np import language
from lora_np.language.adapting import peak_memory

OURS, THEIRS = "lora_np", "torch"
LONGEST = 4000  # tokens of a prompt
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
    run = shapes.stepping(
        size_of(small), shapes.FUSED if contender == OURS else shapes.TORCH, Path()
    )
    run()
    return min(timed(run) for _ in range(3))


def greedy(contender: str, model: language.LanguageModel, tokens: int) -> float:
    """Tokens a second at temperature 0, one after the other."""
    if contender == OURS:
        language.generate(model, model.vocabulary.decode([5]), tokens=4, temperature=0)
        return tokens / timed(
            lambda: language.generate(
                model, model.vocabulary.decode([5]), tokens=tokens, temperature=0
            )
        )
    import torch

    theirs, prompt = in_torch(model), torch.tensor([[5]])
    how = {"do_sample": False, "min_new_tokens": tokens, "pad_token_id": 0}
    theirs.generate(prompt, max_new_tokens=4, do_sample=False, pad_token_id=0)
    return tokens / timed(lambda: theirs.generate(prompt, max_new_tokens=tokens, **how))


@figure
def tokens_a_second_shipped(contender: str, small: bool, gguf: str) -> float:
    return greedy(contender, language.load("austen"), 60 if small else 240)


@figure
def tokens_a_second(contender: str, small: bool, gguf: str) -> float:
    return greedy(contender, speaking(size_of(small)), 20 if small else 60)


@figure
def tokens_a_second_in_four_bits(contender: str, small: bool, gguf: str) -> float:
    """Over the weights of the file as they are; the peer's are dequantised."""
    if contender == OURS:
        model = language.load(gguf, quantised=True)
        return 40 / timed(
            lambda: language.generate(model, "The rank of a matrix", tokens=40, temperature=0)
        )
    return greedy(contender, language.load(gguf), 40)


def prompt(contender: str, small: bool, tokens: int) -> float:
    """Seconds until the first token after a prompt of so many."""
    model = speaking(size_of(small))
    said = np.random.default_rng(0).integers(0, model.config["vocab_size"], tokens)
    if contender == OURS:
        text = model.vocabulary.decode(said)
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
    from lora_np.language import adapting, packing
    from recipes import conversations

    entries = conversations.terms(
        (conversations.DOCS / "reference" / "glossary.md").read_text("utf-8")
    )
    data = conversations.conversations(entries)[:200]
    how = {
        "rank": 8,
        "alpha": 16,
        "steps": 2 if small else 60,
        "batch_size": 1,
        "accumulate": 2,
        "lr": 2e-3,
        "max_length": 256,
    }
    if contender == OURS:
        model = language.load(gguf, quantised=True)
        return timed(
            lambda: language.finetune(model, data, **how, progress=False, validate_every=60)
        )
    import peft
    import torch

    base = language.load(gguf)
    plan = adapting.Prepared(base, data, language.FinetuneSettings(**how))
    settings = peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
    model = peft.get_peft_model(in_torch(base), settings)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    loss_of = torch.nn.functional.cross_entropy

    def train() -> None:
        for step in range(how["steps"]):
            for i in range(2):
                batch: packing.Batch = plan.batches(2 * step + i)
                places = position_ids(batch)
                logits = model(
                    torch.tensor(batch.tokens), position_ids=places, use_cache=False
                ).logits
                loss = loss_of(
                    logits.reshape(-1, logits.shape[-1]), torch.tensor(batch.labels).reshape(-1)
                )
                (loss * batch.share / 2).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    def position_ids(batch: packing.Batch) -> Any:
        """By which transformers keeps packed texts apart."""
        from lora_np.language.blocks import positions

        return torch.tensor(np.atleast_2d(positions(0, batch.tokens.shape[1], batch.sequence_ids)))

    return timed(train)


@figure
def forecast_over_run(contender: str, small: bool, gguf: str) -> float:
    """The time that `forecast` says over that of the run; on the shipped model (ours) and on a
    random one.
    """
    time.perf_counter = time.process_time  # of the processor: what else runs does not count
    model = language.load("austen")
    text = language.read_text("genesis")
    if contender == THEIRS:
        model = speaking("about 1M")
        numbers = np.random.default_rng(0).integers(0, model.config["vocab_size"], 100_000)
        text = model.vocabulary.decode(numbers)
    how: dict[str, Any] = {"steps": 12 if small else 60, "max_length": 128 if small else 256}
    foretold = language.forecast(model, text, **how).seconds
    return foretold / language.finetune(model, text, **how, progress=False).history.seconds


def main(name: str, contender: str, small: bool, gguf: str) -> None:
    """Print a figure, and the memory that it took."""
    print(FIGURES[name](contender, small, gguf), (peak_memory() or 0) / 2**20)
