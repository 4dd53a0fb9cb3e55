"""A LoRA step of a language model against torch and PEFT, its memory, and the speed of generation."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np

import lora_np as lnp
from benchmarks._measure import one_thread, peers, versions
from lora_np import language
from lora_np.table import Cell, Table

# name: hidden, inner, layers, heads, kv, vocabulary, batch, tokens, steps in a round
SIZES = {
    "d 64, 4 layers": (64, 172, 4, 4, 2, 96, 16, 128, 3),
    "about 1M": (128, 352, 5, 4, 2, 96, 8, 128, 3),
    "SmolLM2-135M": (576, 1536, 30, 9, 3, 49152, 1, 256, 1),
}
FUSED, COMPOSED, TORCH = "lora_np, fused", "lora_np, composed", "torch + PEFT"
RANK, RATE = 8, 1e-3

Step = Callable[[], Any]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks language", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out SmolLM2-135M's shape")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peak", nargs=2, metavar=("SIZE", "CONTENDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.peak:
        print(peak_here(*options.peak))
        return
    modules = peers("torch", "transformers", "peft")
    names = [name for name in SIZES if not (options.quick and name == "SmolLM2-135M")]
    contenders = [FUSED, COMPOSED] + [TORCH] * (len(modules) == 3)
    rows: list[list[Cell]] = []
    for name in names:
        rows += measure(name, contenders, options.rounds)
    table = Table(
        ["size", "step", "CPU ms", "of torch's time", "peak, MB"],
        rows,
        title=f"A LoRA step (q and v, r = {RANK}) of a Llama, float32, AdamW, one thread",
        notes=[
            "of torch's time: median of the ratios of each round, in which all run in turn, in one process",
            "peak: resident memory of a process that does three such steps, imports included"
            + (f"; torch's imports alone: {peak(names[0], 'imports'):.0f} MB" if TORCH in contenders else ""),
            *speed(),
            versions("numpy", "torch", "transformers", "peft"),
        ],
        formats={"CPU ms": "{:.1f}".format, "of torch's time": "{:.2f}".format, "peak, MB": "{:.0f}".format},
    )
    print(table.to_json() if options.json else table)


def measure(name: str, contenders: list[str], rounds: int) -> list[list[Cell]]:
    steps = SIZES[name][-1]
    seconds: dict[str, list[float]] = {contender: [] for contender in contenders}
    with tempfile.TemporaryDirectory() as folder, one_thread():
        runs = {contender: stepping(name, contender, Path(folder)) for contender in contenders}
        for _ in range(rounds + 1):  # the first one warms up
            for contender, run in runs.items():
                begin = process_time()
                for _ in range(steps):
                    run()
                seconds[contender].append((process_time() - begin) / steps)
    rows: list[list[Cell]] = []
    for contender in contenders:
        ratios = [t / p for t, p in zip(seconds[contender][1:], seconds.get(TORCH, [])[1:], strict=False)]
        ms = 1e3 * median(seconds[contender][1:])
        rows.append([name, contender, ms, median(ratios) if ratios else None, peak(name, contender)])
    return rows


def stepping(name: str, contender: str, folder: Path) -> Step:
    tokens = text_of(name)
    if contender == TORCH:
        return torch_step(name, tokens)
    model = lnp.inject(random_model(name), rank=RANK, alpha=2 * RANK, rng=0, targets=["q_proj", "v_proj"])
    if contender == COMPOSED:
        model = language.composed_operations(model)
    run = lnp.start(lnp.AdamW(lr=RATE), model)

    def step() -> None:
        language.token_loss(model, tokens).backward()
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
        "max_position_embeddings": 512,
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

    torch.set_num_threads(1)
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


def peak(name: str, contender: str) -> float | None:
    """Peak of resident memory in MB, in a process that does nothing else."""
    command = [sys.executable, "-m", "benchmarks", "language", "--peak", name, contender]
    alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=alone)
    return float(done.stdout) if done.returncode == 0 else None


def peak_here(name: str, contender: str) -> float:
    if contender == "imports":
        import peft  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401
    else:
        run = stepping(name, contender, Path())
        for _ in range(3):
            run()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024


def speed() -> list[str]:
    """Characters a second of the shipped model."""
    notes = []
    for name in language.shipped():
        model = language.load(name)
        begin = process_time()
        text = language.generate(model, "The ", tokens=model.context - 8)
        notes.append(
            f"generation: {name} writes {len(text) / (process_time() - begin):,.0f} characters a CPU second"
        )
    return notes
