"""Weight decay and dropout of LoRA: five values of each, ranks 1, 8 and 64, on text and on digits.

    python -m claims.lab.regularising          every setup; or name some: digits few text

*digits* is the task of the claims (1,000 images, about 19 epochs), *few* the same with 100 images
(about 190 epochs, so that there is something to regularise), *text* the setup of the claims on text
(less than one epoch). Alpha is 32 at every rank. Each value has its own best learning rate, on a grid
of factors of 2: seeds that look for it try rates until the best has been compared with both its
neighbours; on text the other seeds run at the best alone. One half of what is held back chooses the
rate, the other counts, and the other way round. Raw results are lines of ``runs/regularising-*.jsonl``;
a run that is there is not repeated.

What is said of the runs was fixed before the first of them:

- a value *helps* at a rank of a setup if its loss over the loss without, each at its own best learning
  rate and paired by seed, lies below 1 with the whole 95 % interval; it *hurts* if it lies above;
- an effect is *worth having* from 10 % on digits and from 1 % on text, as in the claims;
- the advice stays at 0 unless one value helps in all three setups. Otherwise it names the setups in
  which some value helps by what is worth having, and what the same value costs in the others.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from claims.lab import batched, redrawn
from claims.lab.redrawn import FOLDER, Book, Sweep
from claims.lab.rules import Figure
from claims.lab.text import Text
from lora_np.checks import Array

KNOBS: dict[str, tuple[float, ...]] = {
    "weight decay": (0.0, 0.01, 0.1, 1.0, 10.0),
    "dropout": (0.0, 0.05, 0.1, 0.2, 0.5),
}
KEYS = {"weight decay": "decay", "dropout": "dropout"}  # of a method
RANKS = (8, 64, 1)  # in the order in which they run
ALPHA = 32
NAMES = {"digits": "digits", "few": "digits, 100 images", "text": "text"}  # for readers
WORTH = {"digits": 0.1, "few": 0.1, "text": 0.01}


@dataclass(frozen=True)
class Regularised(batched.Digits):
    """Digits with the same weight decay and dropout at every rate."""

    def runs(self, seeds: Sequence[int], rates: Sequence[float], **method: Any) -> dict[str, Array]:
        own = {key: [method.pop(key, 0.0)] * len(rates) for key in KEYS.values()}
        some = {key: values for key, values in own.items() if any(values)}
        found = batched.run(self, seeds, rates, **some, **method)
        return {half: found[half] for half in batched.HALVES}


@dataclass(frozen=True)
class Study:
    """A setup, its seeds, and the place of the rate at which a search begins."""

    setup: Any
    seeds: range
    start: int = -1
    size: dict[str, Any] = field(
        default_factory=dict
    )  # seeds in a line, and that look for the rate


STUDIES = {
    "digits": Study(Regularised(), range(8), size={"width": 8, "look": 8}),
    "few": Study(Regularised(images=100), range(8), size={"width": 8, "look": 8}),
    "text": Study(Text(), range(8), size={"width": 1, "look": 2}),
}


def cells() -> list[tuple[int, str, float]]:
    """Every rank, knob and value; what has neither stands once, as weight decay 0."""
    return [
        (rank, knob, value)
        for rank in RANKS
        for knob, values in KNOBS.items()
        for value in values
        if value or knob == "weight decay"
    ]


@functools.cache
def book(name: str) -> Book:
    return Book(FOLDER / f"regularising-{name}.jsonl")


def sweep(name: str, rank: int, knob: str, value: float) -> Sweep:
    """A value at its learning rates."""
    study = STUDIES[name]
    method = redrawn.lora(rank, ALPHA) | ({KEYS[knob]: value} if value else {})
    label = f"r = {rank}, {knob} {value:g}" if value else f"r = {rank}"
    return Sweep(book(name), label, study.setup, method, study.start, **study.size)


def over(name: str, rank: int, knob: str, value: float) -> Figure:
    """Loss with a value over loss without, each at its best learning rate."""
    seeds = STUDIES[name].seeds
    ours, theirs = (sweep(name, rank, knob, one).values(seeds) for one in (value, 0.0))
    return Figure(tuple(np.exp(ours - theirs)), ratio=True)


def verdict(name: str, figure: Figure) -> str:
    """Whether a value helps, by what is worth having or less, or hurts."""
    if figure.high < 1:
        return "helps" if figure.mean <= 1 - WORTH[name] else "helps a little"
    return "hurts" if figure.low > 1 else "no difference shown"


def rows(knob: str) -> list[list[str]]:
    """A row for each setup and value: the loss over the loss without, with its interval, rank by rank."""
    return [
        [NAMES[name], f"{value:g}", *(told(name, rank, knob, value) for rank in sorted(RANKS))]
        for name in STUDIES
        for value in KNOBS[knob][1:]
    ]


def known(name: str, rank: int, knob: str, value: float) -> bool:
    """Whether a value has run, and what it is compared with."""
    seeds = STUDIES[name].seeds
    return all(sweep(name, rank, knob, one).known(seeds) for one in (value, 0.0))


def told(name: str, rank: int, knob: str, value: float) -> str:
    """A ratio with its interval, and what it shows."""
    if not known(name, rank, knob, value):
        return "not run yet"
    figure = over(name, rank, knob, value)
    return f"{figure.mean:.3f} ({figure.low:.3f} to {figure.high:.3f}), {verdict(name, figure)}"


def run(name: str) -> None:
    """Run what is missing of a setup."""
    study = STUDIES[name]
    for cell in cells():
        begin = time.process_time()
        one = sweep(name, *cell)
        one.search(study.seeds, neighbours=one.width > 1)
        best = [redrawn.rate(one.best(half, study.seeds)) for half in batched.HALVES]
        seconds = time.process_time() - begin
        print(
            f"{name}, {one.name}: {best[0]:g}, {best[1]:g}, {seconds:.0f} CPU seconds", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m claims.lab.regularising", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("setup", nargs="*", help="all by default")
    for name in parser.parse_args().setup or STUDIES:
        run(name)


if __name__ == "__main__":
    main()
