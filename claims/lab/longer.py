"""Longer runs at 135 million parameters, ready to be started: split, start and order redrawn.

There is one base, and 12 seeds. Start one process a core; each takes every n-th method, appends to a
file of its own, and goes on where it was stopped::

    python -m claims.lab.longer --model SmolLM2-135M.gguf --part 0/2
    python -m claims.lab.longer --model SmolLM2-135M.gguf --part 1/2

When all are through, ``--beside`` adds what their claims ask for beside the best rates, for all seeds:
ranks 1 and 64 at rank 8's best rate, ranks 8 and 64 at a half and a quarter of it, and the full update
at two rates below its own. ``--untrained`` adds the losses of the base, without which no line says
whether anything was forgotten.

``--far`` runs LoRA and the full update again at those learning rates, and measures what they forget of a
text far from the new one.

``--seeds 4`` runs fewer seeds than the design has, ``--brief`` tries several rates with two seeds
only, and the others at the best of them; a later run adds what is missing. A run takes 90 seconds of
a core (60 steps of 128 tokens at 1.06 seconds each, and 42 windows that are evaluated), so that the
six claims, ordered by their value, want some six hours.

``runs/smollm2.*.jsonl`` is recorded as far as it has run: claims with a second setup take their
figures from what is there (`claims.lab.at_scale`), and say with how many seeds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

from claims.lab import batched
from claims.lab.at_scale import LOOK, METHODS, SEEDS, SMOLLM2
from claims.lab.kept import HERE
from claims.lab.redrawn import FOLDER, Book, Sweep
from claims.lab.text import UNTRAINED, Text

FAR = HERE / "data" / "elements.txt"  # an old text far from the new one: facts in modern English
# Rates for all seeds beside the best: of another method, or places lower
BESIDE: dict[str, tuple[str, tuple[int, ...]]] = {
    "LoRA, r = 1": ("LoRA, r = 8", (0,)),
    "LoRA, r = 8": ("LoRA, r = 8", (-2, -1)),
    "LoRA, r = 64": ("LoRA, r = 8", (-2, -1, 0)),
    "LoRA, r = 64, alpha 256": ("LoRA, r = 8", (0,)),
    "full": ("full", (-2, -1)),
}


def sweeps(setup: Text, part: int = 0, of: int = 1) -> list[Sweep]:
    """Every n-th method, with the file that its process appends to."""
    book = Book(FOLDER / f"smollm2.{part}.jsonl")
    chosen = list(METHODS.items())[part::of]
    return [Sweep(book, method, setup, *rest, width=1, look=LOOK) for method, rest in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m claims.lab.longer", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--model", required=True, help="SmolLM2-135M, as `lora_np.language.load` takes it"
    )
    parser.add_argument("--part", default="0/1", help="which share of the methods, as 0/2")
    parser.add_argument(
        "--seeds", type=int, help="fewer than the design has: a later run adds them"
    )
    parser.add_argument("--brief", action="store_true", help="only few seeds try several rates")
    parser.add_argument("--beside", action="store_true", help="only rates beside the best")
    parser.add_argument("--untrained", action="store_true", help="only the losses of the base")
    parser.add_argument("--far", action="store_true", help="only what is forgotten of a far text")
    args = parser.parse_args()
    setup = Text((args.model,), **SMOLLM2)
    part, of = map(int, args.part.split("/"))
    seeds = range(args.seeds or SEEDS)
    if args.untrained:
        Sweep(Book(FOLDER / "smollm2.0.jsonl"), "untrained", setup, UNTRAINED, 0, width=1).tried(
            [0], seeds
        )
        return
    if args.far:
        far(setup, seeds)
        return
    for sweep in sweeps(setup, part, of):
        lines, begin = sweep.lines(), time.process_time()
        if args.beside:
            beside(sweep, seeds)
        else:
            sweep.search(seeds, neighbours=not args.brief)
        runs, seconds = sweep.lines() - lines, time.process_time() - begin
        print(f"{time.ctime()}: {sweep.name}, {runs} runs, {seconds:.0f} CPU seconds", flush=True)


def far(setup: Text, seeds: Sequence[int]) -> None:
    """Run the methods that are compared for forgetting, seed by seed, with another old text."""
    setup, book = replace(setup, old=str(FAR)), Book(FOLDER / "smollm2-far.0.jsonl")
    rates = Book(FOLDER / "smollm2.jsonl")
    few = seeds[:LOOK]
    for seed in seeds:
        Sweep(book, "untrained", setup, UNTRAINED, 0, width=1).tried([0], [seed])
        for name in ("LoRA, r = 8", "full", "LoRA, r = 64"):
            sweep = Sweep(book, name, setup, *METHODS[name], width=1, look=LOOK)
            chosen = replace(sweep, book=rates)
            best = {chosen.best(half, few) for half in batched.HALVES}
            sweep.tried(sorted({place + i for place in best for i in (-2, -1, 0)}), [seed])
            print(f"{time.ctime()}: {name}, seed {seed}", flush=True)


def beside(sweep: Sweep, seeds: Sequence[int]) -> None:
    """Run a method at the rates that it has in `BESIDE`."""
    other, places = BESIDE.get(sweep.name, (sweep.name, ()))
    chosen = replace(sweep, name=other)
    few = seeds[: sweep.look]
    if places and not chosen.known(few):
        raise SystemExit(f"{sweep.name} wants the best learning rate of {other}: run that first")
    best = {chosen.best(half, few) for half in batched.HALVES} if places else set()
    sweep.tried(sorted({place + i for place in best for i in places}), seeds)


if __name__ == "__main__":
    main()
