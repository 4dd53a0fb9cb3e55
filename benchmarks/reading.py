"""Read a prompt, and a later turn of a chat, with and without each thing that makes it fast."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace as changed
from statistics import median
from time import process_time
from typing import Any

import numpy as np

from benchmarks import _shapes as shapes
from benchmarks._measure import one_thread, versions, with_threads
from lora_np import language
from lora_np.language import generation
from lora_np.language.blocks import Cache, SelfAttention
from lora_np.nn import replace
from lora_np.table import Cell, Table

PROMPT, TURN = 2000, 300  # tokens
QUICK = 10  # times fewer


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks reading", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the tokens, a small model")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--pages", choices=("kept", "given back"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    size = "about 1M" if options.quick else "SmolLM2-135M"
    prompt, turn = (n // (QUICK if options.quick else 1) for n in (PROMPT, TURN))
    if options.pages:
        print(*pages(size, prompt, options.pages == "kept"))
        return
    table = Table(
        ["what is read", "with", "without", "ratio"],
        [
            *pairs(size, prompt, turn, 1 if options.quick else options.rounds),
            *faults(options.quick),
        ],
        title=f"Reading {prompt:,} tokens, then {turn:,} more, {size}'s shape, one thread",
        notes=[
            "seconds of CPU, medians; ratio: median over rounds in which both run in turn",
            "page faults and system seconds: of a process that reads the prompt once",
            versions("numpy"),
        ],
        formats=dict.fromkeys(("with", "without", "ratio"), "{:.3g}".format),
    )
    print(table.to_json() if options.json else table)


def pairs(size: str, prompt: int, turn: int, rounds: int) -> list[list[Cell]]:
    """Seconds of the turn with fused and with composed attention, and of the prompt with the last
    layer computed for its last token and for all.
    """
    model = shapes.random_model(size)
    composed = replace(model, SelfAttention, lambda path, node: changed(node, fused=False))
    rng, words = np.random.default_rng(0), model.config["vocab_size"]
    row = rng.integers(0, words, prompt).tolist()

    def later(of: language.LanguageModel) -> Callable[[], Any]:
        reader = generation.Reader(of)
        reader.read([row])
        return lambda: reader.read([row + rng.integers(0, words, turn).tolist()])  # another turn

    def all_of_it() -> Any:
        caches = [Cache(prompt) for _ in model.model.layers]
        return model.model(np.array([row]), caches=caches)

    with one_thread():
        tasks = {
            "a turn, by fused attention": (later(model), later(composed)),
            "the prompt, its last layer for one token": (
                lambda: generation.Reader(model).read([row]),
                all_of_it,
            ),
        }
        return [[name, *alternately(*both, rounds)] for name, both in tasks.items()]


def alternately(
    one: Callable[[], Any], other: Callable[[], Any], rounds: int
) -> tuple[float, float, float]:
    """Median CPU seconds of each, and the median of their ratios, after a round to warm up."""
    seconds = []
    for _ in range(rounds + 1):
        begin = process_time()
        one()
        middle = process_time()
        other()
        seconds.append((middle - begin, process_time() - middle))
    ones, others = zip(*seconds[1:], strict=True)
    return median(ones), median(others), median(a / b for a, b in seconds[1:])


def faults(quick: bool) -> list[list[Cell]]:
    """Page faults and system seconds of the prompt, where freed pages are kept and where not."""
    found = []
    for how in ("kept", "given back"):
        command = [sys.executable, "-m", "benchmarks", "reading", "--pages", how]
        done = subprocess.run(
            [*command, *["--quick"] * quick],
            capture_output=True, text=True, check=True, env=with_threads(1),
        )  # fmt: skip
        found.append([*map(float, done.stdout.split())])
    kept, given = found
    names = ("page faults of the prompt, freed pages kept", "their system seconds")
    return [
        [name, a, b, a / b if b else None] for name, a, b in zip(names, kept, given, strict=True)
    ]


def pages(size: str, prompt: int, kept: bool) -> tuple[int, float]:
    import resource

    if not kept:
        vars(generation)["keep_pages"] = lambda: None
    model = shapes.random_model(size)
    reader = generation.Reader(model)
    row = np.random.default_rng(0).integers(0, model.config["vocab_size"], prompt).tolist()
    before = resource.getrusage(resource.RUSAGE_SELF)
    reader.read([row])
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_minflt - before.ru_minflt, after.ru_stime - before.ru_stime
