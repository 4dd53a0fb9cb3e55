"""Longer runs on text, ready to be started: bases, split, start and order redrawn.

The language setup has four bases, 8 seeds and m = 1 % of the loss. Train three more bases with the
recipe (20 minutes each), then start one process a core; each takes every n-th method, appends to a
file of its own, and goes on where it was stopped::

    python -m recipes.base Rdata.rdb -o bases/1 --seed 1     # and 2, 3; base 0 is the shipped one
    python -m claims.longer language --bases bases --part 0/2
    python -m claims.longer language --bases bases --part 1/2

With the shipped base alone, 8 seeds draw split, start and order, in some ten minutes of a core; the
claim *other-splits* reads these::

    python -m claims.longer split --brief

At 135 million parameters there is one base, so that 12 seeds draw split, start and order::

    python -m claims.longer smollm2 --model SmolLM2-135M.gguf --part 0/2

When all are through, ``--beside`` adds what their claims ask for beside the best rates, for all seeds:
ranks 1 and 64 at rank 8's best rate, and the full update at two rates below its own.

``--seeds 4`` runs fewer seeds than the design has, ``--brief`` tries several rates with two seeds
only, and the others at the best of them; a later run adds what is missing. A run on SmolLM2 takes
90 seconds of a core (60 steps of 128 tokens at 1.06 seconds each, and 42 windows that are
evaluated), so that the six claims on it, ordered by their value, want some six hours.

``runs/split.0.jsonl`` is recorded whole, ``runs/smollm2.*.jsonl`` as far as it has run: claims with a
second setup take their figures from what is there (`claims.at_scale`), and say with how many seeds.
``runs/language.0.jsonl`` does not exist, and no claim reads it.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import lora_np as lnp
from claims import batched, methods, setups
from claims.redrawn import FOLDER, Book, Sweep
from lora_np import language
from lora_np.checks import Array

SEEDS = {"language": 8, "split": 8, "smollm2": 12}
LOOK = 2
SMOLLM2: Mapping[str, Any] = {
    "new": "devils-dictionary",
    "steps": 60,
    "batch": 1,
    "length": 128,
    "rows": 14,
}
PIECES = 10  # contiguous pieces of the new text, of which a seed holds two back


@dataclass(frozen=True)
class Text(batched.Setup):
    """A language model learns another text; losses in nats a token, on two pieces held back."""

    bases: tuple[str, ...]
    new: str = "genesis"
    old: str = "austen-held-out"
    steps: int = 100
    batch: int = 4
    length: int = 64
    rows: int = 96  # of each text that a loss is of

    def runs(self, seeds: Sequence[int], rates: Sequence[float], **method: Any) -> dict[str, Array]:
        """Losses (seeds, rates) of each half, and of the old text."""
        found = [[self.once(seed, rate, **method) for rate in rates] for seed in seeds]
        names = [*batched.HALVES, "old"]
        return {name: np.array([[one[name] for one in row] for row in found]) for name in names}

    def once(self, seed: int, lr: float, **method: Any) -> dict[str, float]:
        """One run; infinite losses if it diverged."""
        base = loaded(self.bases[seed % len(self.bases)])
        parts = self.parts(seed, base)
        training = parts["training"]
        rng = np.random.default_rng([seed, 23])
        first = lambda model: language.token_loss(model, training[:16])
        start = methods.start(base, rng, first, **{"targets": "all-linear", **method})
        order = batched.batches(seed, len(training), self.steps, self.batch)
        rate = lnp.cosine_schedule(lr, steps=self.steps, warmup=min(10, self.steps // 4))
        try:
            with np.errstate(all="ignore"):
                tuned = lnp.freeze(lnp.fit(
                    start, lambda step: training[order[step]], loss=language.token_loss, steps=self.steps, clip=1.0,
                    progress=False, optimizer=methods.optimizer(rate, **method),
                ).model)  # fmt: skip
        except FloatingPointError:
            return dict.fromkeys((*batched.HALVES, "old"), np.inf)
        return {name: setups.mean_loss(tuned, parts[name]) for name in (*batched.HALVES, "old")}

    def parts(self, seed: int, base: Any) -> dict[str, Array]:
        """Windows to train on, two pieces of the new text held back, and the old text."""
        tokens = base.vocabulary.encode(language.read_text(self.new))
        pieces = np.array_split(tokens, PIECES)
        order = np.random.default_rng([seed, 20]).permutation(PIECES)
        cut = lambda tokens: language.windows(tokens, self.length)
        held = {half: cut(pieces[order[i]])[: self.rows] for i, half in enumerate(batched.HALVES)}
        training = np.concatenate([cut(pieces[i]) for i in sorted(order[2:])])
        old = cut(base.vocabulary.encode(language.read_text(self.old)))[: self.rows]
        return {"training": training, "old": old, **held}


@functools.cache
def loaded(base: str) -> Any:
    return language.load(base)


def adapted(rank: int, alpha: float = 32, **more: Any) -> dict[str, Any]:
    return {"kind": "lora", "rank": rank, "alpha": alpha} | more


ATTENTION, MLP = ["q_proj", "k_proj", "v_proj", "o_proj"], ["gate_proj", "up_proj", "down_proj"]
FULL = {"kind": "full", "targets": "all"}
# Each with the place of the rate at which its search begins, on the grid of `claims.redrawn`
METHODS: dict[str, dict[str, tuple[Mapping[str, Any], int]]] = {
    "language": {
        **{f"LoRA, r = {r}": (adapted(r), 0) for r in (1, 4, 16, 64)},
        "LoRA, r = 16, kappa / 16": (adapted(16, 2), 2),
        "LoRA, r = 16, kappa x 16": (adapted(16, 512), -2),
        "attention, r = 8": (adapted(8, targets=ATTENTION), 1),
        "MLP, r = 5": (adapted(5, targets=MLP), 1),
        "q and v, r = 16": (adapted(16, targets=["q_proj", "v_proj"]), 1),
        "full": (FULL, -2),
    },
    "smollm2": {
        **{f"LoRA, r = {r}": (adapted(r), -3) for r in (8, 64, 1)},
        "LoRA, r = 8, kappa x 16": (adapted(8, 512), -5),
        "LoRA, r = 8, kappa / 16": (adapted(8, 2), -1),
        "MLP, r = 5": (adapted(5, targets=MLP), -3),
        "attention, r = 8": (adapted(8, targets=ATTENTION), -3),
        "LoRA, r = 64, alpha 256": (adapted(64, 256), -4),
        "PiSSA, r = 8": (adapted(8, 8, kind="pissa"), -4),
        "LoRA-GA, r = 8": (adapted(8, 16, kind="lora-ga"), -4),
        "full": (FULL, -7),
    },
}

# At 135 million parameters, rates for all seeds beside the best: of another method, or places lower
BESIDE: dict[str, tuple[str, tuple[int, ...]]] = {
    "LoRA, r = 1": ("LoRA, r = 8", (0,)),
    "LoRA, r = 64": ("LoRA, r = 8", (0,)),
    "LoRA, r = 64, alpha 256": ("LoRA, r = 8", (0,)),
    "full": ("full", (-2, -1)),
}

SPLIT = (
    "MLP, r = 5",
    "attention, r = 8",
    "LoRA, r = 16",
    "full",
    "LoRA, r = 4",
    "LoRA, r = 64",
    "q and v, r = 16",
)
METHODS["split"] = {name: METHODS["language"][name] for name in SPLIT}


def sweeps(name: str, setup: Text, part: int = 0, of: int = 1) -> list[Sweep]:
    """Every n-th method, with the file that its process appends to."""
    book = Book(FOLDER / f"{name}.{part}.jsonl")
    chosen = list(METHODS[name].items())[part::of]
    return [Sweep(book, method, setup, *rest, width=1, look=LOOK) for method, rest in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m claims.longer", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("setup", choices=[*METHODS])
    parser.add_argument("--bases", type=Path, help="a folder with the bases 1, 2 and 3")
    parser.add_argument("--model", help="SmolLM2-135M, as `lora_np.language.load` takes it")
    parser.add_argument("--part", default="0/1", help="which share of the methods, as 0/2")
    parser.add_argument(
        "--seeds", type=int, help="fewer than the design has: a later run adds them"
    )
    parser.add_argument("--brief", action="store_true", help="only few seeds try several rates")
    parser.add_argument("--beside", action="store_true", help="only rates beside the best")
    args = parser.parse_args()
    if args.setup == "split":
        setup = Text(("austen",))
    elif args.setup == "language":
        if args.bases is None:
            parser.error("language needs --bases: three more models by python -m recipes.base")
        setup = Text(("austen", *(str(args.bases / str(i)) for i in (1, 2, 3))))
    else:
        if args.model is None:
            parser.error("smollm2 needs --model")
        setup = Text((args.model,), **SMOLLM2)
    part, of = map(int, args.part.split("/"))
    seeds = range(args.seeds or SEEDS[args.setup])
    for sweep in sweeps(args.setup, setup, part, of):
        lines, begin = sweep.lines(), time.process_time()
        if args.beside:
            beside(sweep, seeds)
        else:
            sweep.search(seeds, neighbours=not args.brief)
        runs, seconds = sweep.lines() - lines, time.process_time() - begin
        print(f"{time.ctime()}: {sweep.name}, {runs} runs, {seconds:.0f} CPU seconds", flush=True)


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
