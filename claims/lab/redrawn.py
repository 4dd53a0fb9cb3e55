"""Sweeps with everything redrawn: each method at rates a factor of 2 apart, 64 seeds in two sets.

    python -m claims sweep digits      every method of the claims on digits
    python -m claims sweep linear      every method of the claims on the linear task
    python -m claims sweep digits-names digits-near   the same on two more tasks of digits, 16 seeds
    python -m claims sweep descent     gradient descent on the linear task, plain and scaled
    python -m claims sweep muon batch  LoRA-Muon, and batch sizes over ranks, 16 seeds each
    python -m claims sweep language    every method of the claims on text, 8 seeds over four bases
    python -m claims sweep kappa       the map of speed and kappa

Sixteen seeds (on text four) look for the best rate, until it is the best of its two neighbours on
either half of the images (on text, of two pieces held back); then all seeds run at these rates. A rate is chosen by the mean log loss on one half,
and what is reported is the loss on the other half, and the other way round: the mean of both. Raw
results are lines of ``runs/*.jsonl``, committed as they come; a run that is there is not repeated.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from claims.lab import batched, text
from claims.lab.batched import HALVES, Descent, Digits, Linear
from claims.lab.text import Text
from lora_np.checks import Array

FOLDER = Path(__file__).parents[1] / "runs"
FIRST, FACTOR = 0.016, 2.0
SET = 32  # seeds 0 to 31, and 32 to 63
DRAWN = {
    "muon": 16,
    "batch": 16,
    "language": 8,
    "digits-names": 16,
    "digits-near": 16,
}  # of what is slow; else `batched.SEEDS`
QUICK = {"language": 4}  # seeds of a quick run; else `batched.BLOCK`
LOOK = 16  # seeds that look for the rate
LOOKING = {"language": 4}  # where a run takes seconds, and is noted by itself
SPREAD = (-2, -1, 0, 1, 2)  # places around the start that are tried first
SECONDS = {
    "digits": 0.05,
    "linear": 0.02,
    "muon": 0.5,
    "language": 2.8,
}  # of a core for each run, mean of the whole sweep

HIDDEN, LAYERS = ["layers.0", "layers.2"], ["layers.0", "layers.2", "layers.4"]


def lora(rank: int, alpha: float, kind: str = "lora", **more: Any) -> dict[str, Any]:
    return {"kind": kind, "rank": rank, "alpha": alpha} | more


FULL = {"kind": "full"}
# Each with the place of the rate at which its search begins.
METHODS: dict[str, dict[str, tuple[Any, Mapping[str, Any], int]]] = {
    "digits": {
        "LoRA, r = 8": (Digits(), lora(8, 16), 0),
        "LoRA-GA, r = 8": (Digits(), lora(8, 16, "lora-ga"), 0),
        "LoRA-One, r = 8": (Digits(), lora(8, 16, "lora-one"), 0),
        "DoRA, r = 8": (Digits(), lora(8, 16, "dora"), 0),
        "LoRA, r = 1": (Digits(), lora(1, 2), 1),
        "DoRA, r = 1": (Digits(), lora(1, 2, "dora"), 1),
        "A zero, r = 8": (Digits(), lora(8, 16, "zero-a"), 0),
        "LoRA-FA, r = 8": (Digits(), lora(8, 16, "lora-fa"), 1),
        "B only, r = 16": (Digits(), lora(16, 32, "lora-fa"), 1),
        "A only, r = 16": (Digits(), lora(16, 32, "a-only"), 1),
        "LoRA, r = 8, alpha = 8": (Digits(), lora(8, 8), 0),
        "PiSSA, r = 8": (Digits(), lora(8, 8, "pissa"), -1),
        "OLoRA, r = 8": (Digits(), lora(8, 8, "olora"), -1),
        "LoRA+ 16, r = 8": (Digits(), lora(8, 16, "lora+"), -2),
        "rsLoRA, r = 8": (Digits(), lora(8, 16, "rslora"), -1),
        "LoRA, r = 4, alpha = 16": (Digits(), lora(4, 16), 0),
        "LoRA, r = 64, alpha = 16": (Digits(), lora(64, 16), 0),
        "rsLoRA, r = 64": (Digits(), lora(64, 16, "rslora"), -1),
        "alpha = 2, r = 8": (Digits(), lora(8, 2), 1),
        "alpha = 128, r = 8": (Digits(), lora(8, 128), -2),
        "LoRA-XS, r = 11": (Digits(), lora(11, 11, "lora-xs"), 0),
        "LoRA-XS, r = 32": (Digits(), lora(32, 32, "lora-xs"), 0),
        "VeRA, r = 64": (Digits(), lora(64, 64, "vera"), 2),
        "all three layers, r = 2": (Digits(), lora(2, 4, targets=LAYERS), 1),
        "first layer, r = 5": (Digits(), lora(5, 10, targets=LAYERS[:1]), 1),
        "second layer, r = 5": (Digits(), lora(5, 10, targets=LAYERS[1:2]), 1),
        "last layer in full": (Digits(), FULL | {"targets": LAYERS[2:]}, 0),
        "full": (Digits(), FULL, -2),
        "LoRA, r = 16, alpha = 32": (Digits(), lora(16, 32), -1),
        "LoRA, batch 16": (Digits(1200, 16), lora(8, 32), -2),
        "LoRA, batch 256": (Digits(75, 256), lora(8, 32), 0),
        "full, batch 16": (Digits(1200, 16), FULL, -4),
        "full, batch 256": (Digits(75, 256), FULL, -1),
    },
    "batch": {
        f"LoRA, r = {r}, batch {size}, {what}": (Digits(steps, size), lora(r, 32), start)
        for what, sizes in (
            ("19,200 examples", {16: (1200, -2), 256: (75, 0)}),
            ("300 steps", {16: (300, -2), 256: (300, -1)}),
        )
        for size, (steps, start) in sizes.items()
        for r in (1, 8, 64)
    },
    "muon": {
        f"LoRA-Muon, r = {r}": (Digits(), lora(r, r, spectral=True), start)
        for r, start in ((1, 5), (4, 2), (16, 1), (64, 1))
    },
    "linear": {
        "LoRA, r = 8": (Linear(), lora(8, 16), 0),
        "LoRA-GA, r = 8": (Linear(), lora(8, 16, "lora-ga"), 0),
        "LoRA-One, r = 8": (Linear(), lora(8, 16, "lora-one"), 0),
        "LoRA, r = 8, alpha = 8": (Linear(), lora(8, 8), 0),
        "PiSSA, r = 8": (Linear(), lora(8, 8, "pissa"), 0),
        "LoRA, r = 16, alpha = 32": (Linear(), lora(16, 32), 0),
        "full": (Linear(), FULL, 0),
        "LoRA, batch 16": (Linear(48, 0.5, 600, 16, 0.3), lora(8, 32), -2),
        "LoRA, batch 256": (Linear(48, 0.5, 38, 256, 0.3), lora(8, 32), 0),
        "full, batch 16": (Linear(48, 0.5, 600, 16, 0.3), FULL, -3),
        "full, batch 256": (Linear(48, 0.5, 38, 256, 0.3), FULL, 0),
        "width 256, LoRA": (Linear(256, 0.5), lora(8, 16), -1),
        "width 256, LoRA+ 16": (Linear(256, 0.5), lora(8, 16, "lora+"), -3),
        "width 256, A zero": (Linear(256, 0.5), lora(8, 16, "zero-a"), -1),
    },
    "descent": {
        "gradient descent": (Descent(48, 0.7), lora(8, 8), 7),
        "scaled descent": (Descent(48, 0.7), lora(8, 8, hook="scaled descent"), 8),
    },
    "language": {name: (Text(), *rest) for name, rest in text.METHODS.items()},
}  # fmt: skip

METHODS |= {  # on two more tasks of digits, see `claims.lab.tasks`
    f"digits-{new}": {
        name: (replace(setup, new=new), *rest) for name, (setup, *rest) in METHODS["digits"].items()
    }
    for new in ("names", "near")
}

KAPPAS = tuple(4.0**i for i in range(-1, 7))  # in units of alpha = r with A by Kaiming
SPEEDS = tuple(range(-3, 5))  # powers of two of SPEED / sqrt(r)
SPEED = 0.064
RANKS = (4, 16, 64, 1)


def rate(place: int) -> float:
    """The grid of rates."""
    return float(f"{FIRST * FACTOR**place:.4g}")


RESAMPLE: list[int] = []  # the number of the resample that chooses rates, while there is one


@contextlib.contextmanager
def resampled(number: int) -> Iterator[None]:
    """Let rates be chosen by seeds that are drawn again with replacement. Nothing is trained: a run
    that is not recorded is not a number.
    """
    RESAMPLE.append(number)
    try:
        yield
    finally:
        RESAMPLE.clear()


def chosen(losses: Array) -> Array:
    """The losses of the seeds that choose: all, or a resample of them."""
    if not RESAMPLE:
        return losses
    rng = np.random.default_rng([*RESAMPLE, len(losses)])
    return losses[rng.integers(len(losses), size=len(losses))]


@dataclass(frozen=True)
class Book:
    """A file of raw results: a line for a method at one rate, with the losses of a set of seeds."""

    path: Path | None  # None keeps it in memory

    @functools.cached_property
    def lines(self) -> dict[str, dict[str, list[float | None]]]:
        """What is in the file, and in those of other processes at the same setup: name.1.jsonl."""
        if self.path is None:
            return {}
        files = sorted(self.path.parent.glob(f"{self.path.name.split('.')[0]}.*jsonl"))
        rows = [json.loads(row) for file in files for row in file.read_text("utf-8").splitlines()]
        return {json.dumps(row.pop("run"), sort_keys=True): row for row in rows}

    @functools.cached_property
    def known(self) -> dict[tuple[str, range, int], list[int]]:
        """The places of methods for seeds, by how many lines there were: rates are chosen many times."""
        return {}

    def missing(self, run: Mapping[str, Any]) -> bool:
        return json.dumps(run, sort_keys=True) not in self.lines

    def note(self, run: Mapping[str, Any], losses: Mapping[str, Array]) -> None:
        numbers = {
            name: [*map(as_it_is if name in text.LOOKED else in_logs, values)]
            for name, values in losses.items()
        }
        self.lines[json.dumps(run, sort_keys=True)] = numbers
        if self.path is None:
            return
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"run": run} | numbers) + "\n")

    def logs(self, run: Mapping[str, Any], name: str) -> Array:
        """Log losses of a line, or what was looked at; of a run that diverged they are infinite."""
        found = self.lines[json.dumps(run, sort_keys=True)][name]
        return np.array([np.inf if x is None else x for x in found])


def in_logs(loss: float) -> float | None:
    return round(float(np.log(loss)), 4) if np.isfinite(loss) and loss > 0 else None


def as_it_is(number: float) -> float | None:
    return float(f"{number:.5g}") if np.isfinite(number) else None


@dataclass(frozen=True)
class Sweep:
    """A method at many rates; in a quick run, at those that the full one has found."""

    book: Book
    name: str
    setup: Any
    method: Mapping[str, Any]
    start: int
    width: int = LOOK  # seeds in a line
    look: int = LOOK  # seeds that look for the rate
    full: Sweep | None = None
    seeds: int = batched.SEEDS  # that the full sweep has

    def run(self, place: int, first: int) -> dict[str, Any]:
        return {"method": self.name, "rate": rate(place), "seeds": first}

    def tried(self, places: Sequence[int], seeds: Sequence[int]) -> None:
        """Run what is missing, all rates at once."""
        for first in range(seeds[0], seeds[-1] + 1, self.width):
            new = [place for place in places if self.book.missing(self.run(place, first))]
            some = range(first, min(first + self.width, seeds[-1] + 1))
            # a run that takes minutes is noted by itself
            for group in [new] * bool(new) if self.width > 1 else [[place] for place in new]:
                found = self.setup.runs(some, [*map(rate, group)], **self.method)
                for i, place in enumerate(group):
                    losses = {name: values[:, i] for name, values in found.items()}
                    self.book.note(self.run(place, first), losses)

    def logs(self, place: int, half: str, seeds: Sequence[int]) -> Array:
        """The log loss of each seed at a rate."""
        if not RESAMPLE:
            self.tried([place], seeds)
        elif place not in self.known(seeds):
            return np.full(len(seeds), np.nan)
        firsts = range(seeds[0], seeds[-1] + 1, self.width)
        return np.concatenate([self.book.logs(self.run(place, first), half) for first in firsts])

    def known(self, seeds: Sequence[int]) -> list[int]:
        """The places at which all these seeds have run."""
        firsts = range(seeds[0], seeds[-1] + 1, self.width)
        asked = (self.name, firsts, len(self.book.lines))
        if asked not in self.book.known:
            self.book.known[asked] = [
                place for place in range(-16, 17)
                if not any(self.book.missing(self.run(place, first)) for first in firsts)
            ]  # fmt: skip
        return self.book.known[asked]

    def lines(self) -> int:
        """How many lines are recorded."""
        return sum(json.loads(run)["method"] == self.name for run in self.book.lines)

    def best(self, half: str, seeds: Sequence[int], *, again: bool = True) -> int:
        """The rate with the lowest mean log loss on a half; of all seeds even in a resample if not
        ``again``.
        """
        if self.full is not None:
            return self.full.best(half, range(self.seeds))
        drawn = chosen if again else np.asarray
        return min(self.known(seeds), key=lambda place: np.mean(drawn(self.logs(place, half, seeds))))  # fmt: skip

    def search(self, seeds: Sequence[int], *, neighbours: bool = True) -> None:
        """Run until, by either half, the best rate has been compared with both its neighbours; with
        all seeds, or with the few that look for it, and then the others at the best rate alone.
        """
        few = seeds[: self.look]
        self.tried([self.start + i for i in (SPREAD if neighbours else SPREAD[1:-1])], few)
        for some in (few, seeds) if neighbours else (few,):
            while True:
                wanted = {self.best(half, few if some is few else self.ready(seeds)) + i
                          for half in HALVES for i in (-1, 0, 1)}  # fmt: skip
                if wanted <= {*self.known(some)}:
                    break
                self.tried(sorted(wanted), some)
        if not neighbours:
            self.tried(sorted({self.best(half, few) for half in HALVES}), seeds)

    def ready(self, seeds: Sequence[int]) -> Sequence[int]:
        """All seeds once some rates have run with all, before that the few."""
        return seeds if self.known(seeds) else seeds[: self.look]

    def values(
        self, seeds: Sequence[int], name: str = "", at: Sweep | None = None, beside: int = 0
    ) -> Array:
        """The log loss of each seed: each half at the rate that the other half has chosen, or so
        many places beside it.
        """
        found = []
        for choosing, counting in (HALVES, HALVES[::-1]):
            place = (at or self).best(choosing, seeds) + beside
            found.append(self.logs(place, part(name, counting), seeds))
        return np.asarray(np.mean(found, axis=0))

    def peaks(self, seeds: Sequence[int]) -> Array:
        """The log of each seed's best rate: the vertex of a parabola through the best rate of all
        seeds and its neighbours, of the mean of both halves; where the parabola has no minimum
        between the neighbours, the better neighbour.
        """
        place = self.best(HALVES[0], seeds)
        lower, middle, upper = (
            np.mean([self.logs(place + i, half, seeds) for half in HALVES], axis=0)
            for i in (-1, 0, 1)
        )
        return np.asarray(np.log(rate(place)) + np.log(FACTOR) * vertex(lower, middle, upper))


def part(name: str, half: str) -> str:
    """What a line has of one half, or of no half."""
    return name if name in ("old", *text.LOOKED) else f"{name} {half}".strip()


def vertex(lower: Array, middle: Array, upper: Array) -> Array:
    """Where a parabola through losses at -1, 0 and 1 has its minimum, at most a step away; where it
    bends down or is a line, the end that is lower.
    """
    bend = lower - 2 * middle + upper
    with np.errstate(all="ignore"):
        offset = (lower - upper) / (2 * bend)
    ends = np.where(lower < upper, -1.0, np.where(upper < lower, 1.0, 0.0))
    return np.where(np.isfinite(offset) & (bend > 0), np.clip(offset, -1, 1), ends)


@functools.cache
def sweeps(setup: str, quick: bool = False) -> dict[str, Sweep]:
    """The methods of a setup, with what is recorded of them."""
    book = Book(None if quick else FOLDER / f"{setup}.jsonl")
    slow = setup in LOOKING
    size: dict[str, Any] = {"width": 1, "look": LOOKING[setup]} if slow else {}
    size["seeds"] = DRAWN.get(setup, batched.SEEDS)
    found = {name: Sweep(book, name, *rest, **size) for name, rest in METHODS[setup].items()}
    if not quick:
        return found
    full = sweeps(setup)
    small = lambda one: {"setup": one.setup.shortened()} if slow else {"width": batched.BLOCK}
    return {name: replace(one, full=full[name], **small(one)) for name, one in found.items()}


def anew(setup: str, book: Book, seeds: Sequence[int]) -> dict[str, Sweep]:
    """The methods of a setup, to be trained with other seeds and noted elsewhere."""
    width = lambda one: min(one.width, batched.BLOCK)
    return {
        name: replace(one, book=book, width=width(one), look=min(one.look, len(seeds)))
        for name, one in sweeps(setup).items()
    }


def untrained(of: Sweep, seeds: Sequence[int], name: str = "") -> Array:
    """The loss of the untrained bases of a setup on what each seed holds back, in nats (on the linear
    task as a share of ||D||^2); or on the old text.
    """
    sweep = replace(of, name="untrained", method=text.UNTRAINED)
    logs = [sweep.logs(0, part(name, half), seeds) for half in HALVES]
    return np.asarray(np.exp(np.mean(logs, axis=0)))


KINDS = {Digits: "digits", Linear: "linear", Descent: "linear", Text: "language"}


@dataclass(frozen=True)
class Redrawn:
    """A method of a claim: the sweep of all seeds, or of a block of them."""

    sweep: Sweep
    seeds: Sequence[int]

    @property
    def seconds(self) -> float:
        """What all runs of the sweep cost, about."""
        setup = KINDS[type(self.sweep.setup)]
        setup = "muon" if self.sweep.method.get("spectral") else setup
        return SECONDS[setup] * self.sweep.width * self.sweep.lines()

    def losses(self, name: str = "", **where: Any) -> Array:
        """Our loss for each seed at our best rate or beside it, or what was looked at."""
        found = self.sweep.values(self.seeds, name, **where)
        return found if name in text.LOOKED else np.exp(found)

    def over(self, other: Redrawn, name: str = "", **where: Any) -> Array:
        """Our loss over the other's, for each seed, at best rates of their own."""
        theirs = other.sweep.values(self.seeds, name, **where)
        return np.asarray(np.exp(self.sweep.values(self.seeds, name) - theirs))

    def over_at(self, other: Redrawn, at: Redrawn, name: str = "", beside: int = 0) -> Array:
        """Our loss over the other's, both at the best rate of a third, or beside it."""
        if not RESAMPLE and self.sweep.full is None:  # also at rates that a resample may choose
            best = {at.sweep.best(half, self.seeds) for half in HALVES}
            near = sorted({place + beside + i for place in best for i in (-1, 0, 1)})
            for one in (self, other):
                one.sweep.tried(near, self.seeds)
        ours, theirs = (
            one.sweep.values(self.seeds, name, at.sweep, beside) for one in (self, other)
        )
        return np.asarray(np.exp(ours - theirs))

    def tuned(self, seed: int) -> Any:
        """The tuned model of a seed of text, at the rate that the first half chooses with all seeds."""
        lr = rate(self.sweep.best(HALVES[0], self.seeds, again=False))
        return text.trained(self.sweep.setup, seed, lr, json.dumps(dict(self.sweep.method)))

    def peaks(self) -> Array:
        """The best rate of each seed."""
        return np.asarray(np.exp(self.sweep.peaks(self.seeds)))

    def peaks_over(self, other: Redrawn) -> Array:
        """Our best rate over the other's, for each seed."""
        return self.peaks() / other.peaks()

    def to_json(self) -> dict[str, Any]:
        """What the pages show: the loss of each seed at each rate, of both halves by their log."""
        rates = {}
        names = {"test": ""} | ({} if isinstance(self.sweep.setup, Descent) else {"early": "early"})
        if isinstance(self.sweep.setup, Text):
            names = {"test": "", "old": "old"} | (
                {"intruders": "intruders"} if self.sweep.method.get("look") else {}
            )
        for place in self.sweep.known(self.seeds):
            losses = {
                name: [None if not np.isfinite(x) else float(f"{x if asked in text.LOOKED else np.exp(x):.4g}") for x in found]
                for name, asked in names.items()
                for found in [np.mean([self.sweep.logs(place, part(asked, half), self.seeds) for half in HALVES], axis=0)]
            }  # fmt: skip
            rates[f"{rate(place):g}"] = {"seeds": [*self.seeds]} | losses
        best = rate(self.sweep.best(HALVES[0], self.seeds))
        return {"method": dict(self.sweep.method), "best": best, "rates": rates}


@dataclass(frozen=True)
class Map:
    """Loss at every speed and kappa: s is kappa, A starts as usual, the rate is speed / sqrt(s)."""

    book: Book
    seeds: Sequence[int] = range(SET)
    full: Map | None = None  # whose choices a quick run takes

    def run(self, rank: int, kappa: float, speed: int) -> dict[str, Any]:
        return {"rank": rank, "kappa": kappa, "speed": speed}

    def tried(self, rank: int, kappa: float, speeds: Sequence[int]) -> None:
        """Run what is missing, all speeds at once."""
        new = [speed for speed in speeds if self.book.missing(self.run(rank, kappa, speed))]
        if not new:
            return
        rates = [SPEED / rank**0.5 * 2.0**speed / kappa**0.5 for speed in new]
        scales = [kappa] * len(new)
        found = batched.run(Digits(), self.seeds, rates, scales=scales, **lora(rank, rank))
        for i, speed in enumerate(new):
            losses = {half: found[half][:, i] for half in HALVES}
            self.book.note(self.run(rank, kappa, speed), losses)

    @property
    def seconds(self) -> float:
        """What all runs of the map cost, about."""
        return SECONDS["digits"] * len(self.seeds) * len(self.book.lines)

    def everywhere(self) -> None:
        """The whole map, until no kappa has its best speed at an end."""
        for rank in RANKS:
            for kappa in KAPPAS:
                self.tried(rank, kappa, SPEEDS)
                while True:
                    known = self.known(rank, kappa)
                    best = {self.speed(rank, kappa, half) for half in HALVES}
                    if not best & {known[0], known[-1]}:
                        break
                    self.tried(rank, kappa, [known[0] - 1, known[-1] + 1])

    def known(self, rank: int, kappa: float) -> list[int]:
        speeds = range(-16, 17)
        return [speed for speed in speeds if not self.book.missing(self.run(rank, kappa, speed))]

    def logs(self, rank: int, kappa: float, speed: int, half: str) -> Array:
        """Log losses on a half."""
        if not RESAMPLE:
            self.tried(rank, kappa, [speed])
        return self.book.logs(self.run(rank, kappa, speed), half)

    def speed(self, rank: int, kappa: float, half: str) -> int:
        """The best speed by the mean log loss on a half."""
        if self.full is not None:
            return self.full.speed(rank, kappa, half)
        mean = lambda speed: np.mean(chosen(self.logs(rank, kappa, speed, half)))
        return min(self.known(rank, kappa), key=mean)

    def values(self, rank: int, kappa: float) -> Array:
        """The log loss of each seed: each half at the speed that the other half has chosen."""
        found = [self.logs(rank, kappa, self.speed(rank, kappa, choosing), counting)
                 for choosing, counting in (HALVES, HALVES[::-1])]  # fmt: skip
        return np.asarray(np.mean(found, axis=0))

    def best(self, rank: int) -> int:
        """The place in `KAPPAS` of the lowest mean log loss."""
        if self.full is not None:
            return self.full.best(rank)
        return int(np.argmin([np.mean(chosen(self.values(rank, kappa))) for kappa in KAPPAS]))

    def peaks(self, rank: int) -> Array:
        """The log of each seed's best kappa: the minimum of a parabola through the best kappa of all
        seeds and its neighbours.
        """
        place = min(max(self.best(rank), 1), len(KAPPAS) - 2)
        near = [self.values(rank, KAPPAS[place + i]) for i in (-1, 0, 1)]
        return np.asarray(np.log(KAPPAS[place]) + np.log(4) * vertex(*near))


@functools.cache
def kappas(quick: bool = False) -> Map:
    """The map that is recorded, or a block of its seeds."""
    if not quick:
        return Map(Book(FOLDER / "kappa.jsonl"))
    return Map(Book(None), range(batched.BLOCK), full=kappas())


def sweep(setup: str) -> None:
    """Run what is missing of a setup, or of the map of kappa."""
    if setup == "kappa":
        kappas().everywhere()
        return
    for name, one in sweeps(setup).items():
        one.search(range(one.seeds))
        best = [rate(one.best(half, range(one.seeds))) for half in HALVES]
        print(f"{name}: {best[0]:g}, {best[1]:g}", flush=True)
    untrained(one, range(one.seeds))
