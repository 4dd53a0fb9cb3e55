"""The protocol that every claim goes through: a sweep of rates for each method, seeds, intervals, and
a verdict (`claims.lab.rules`).

On digits and linear tasks a seed draws base, split, start and order, and 64 seeds run side by side
(`claims.lab.redrawn`); on text eight seeds draw them too, from four bases (`claims.lab.text`). Elsewhere a
seed draws start and order. There, each method of training has a sweep
of its own along one grid of rates, a factor of 2.5 apart: two seeds find the rate whose validation loss is lowest, and the search goes on until neither end of
what was tried is the best. Five seeds run at the best rate and at both its neighbours, and settle
which of the three it is. Steps, batches and schedule are those of the setup, the same for all.
Figures are means over the seeds, of test data that nothing was chosen by, with the interval that
would hold the true mean in 95 of 100 such experiments. A ratio is averaged by its logarithm.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from claims.lab import at_scale, batched, chance, redrawn
from claims.lab.redrawn import Book, Map, Redrawn, Sweep as Recorded
from claims.lab.rules import NOT_RUN, Figure, listed
from claims.lab.trial import Trial, decided, figures_of, read, rounded
from lora_np.checks import Array

HERE = Path(__file__).parents[1]
Values = Mapping[str, Iterable[float]]  # of each figure, one for each seed
FACTOR, MIDDLE = 2.5, 1e-2
SWEPT = "digits"  # the setup in whose place another task is swept
FIND, SETTLE, QUICK = 2, 5, 3  # seeds: to find the rate, to settle it, and with --quick


@dataclass(frozen=True, kw_only=True)
class AtScale(Trial):
    """A claim on the second setup (`claims.lab.at_scale`), from the runs that are recorded."""

    measure: Callable[[at_scale.Runs], Mapping[str, Array]]

    def figure(self, name: str, values: Iterable[float | None]) -> Figure:
        """There are two sets from four seeds on."""
        return super().figure(name, values)._replace(two=4)

    def recorded(self, runs: at_scale.Runs | None = None) -> dict[str, Any]:
        """Words, figures and verdict as JSON, of as much as has run."""
        runs = at_scale.Runs() if runs is None else runs
        values = {name: some for name, some in self.measure(runs).items() if len(some)}
        assert values.keys() <= self.figures.keys(), values.keys()
        choices = chance.choices(self, lambda: self.measure(runs), at_scale.LOOK)
        figures = figures_of(self, values, {name: choices.get(name, 0.0) for name in values})
        peft = self.repeated(runs)
        return {
            "title": self.title,
            "setup": at_scale.SETUP,
            "setting": self.setting,
            "limits": self.limits,
            "rule": self.rule.words(self.figures),
            "ratios": [*self.ratios],
            "counted": [*self.counted],
            "meaning": dict(self.figures),
            "seeds": [*range(max((len(some) for some in values.values()), default=0))],
            "of": at_scale.SEEDS,
            "figures": figures,
            **self.decided(figures),
            "headline": self.headline,
            "words": self.words,
            "odds": self.odds(figures),
            "methods": runs.to_json(),
        } | ({"torch and PEFT": peft} if peft else {})

    def odds(self, figures: Mapping[str, Any]) -> dict[str, Any]:
        """What chance does, once all parts of the rule have figures."""
        ready = all(part.figure in figures for part in self.rule.parts)
        return chance.odds(self, read(self, figures)) if ready else {}

    def repeated(self, runs: at_scale.Runs) -> dict[str, Any]:
        """What torch and PEFT give for the same runs (`claims.lab.peft_runs`), as far as they have run."""
        peft = at_scale.Runs("smollm2-peft", rates=runs)
        apart = runs.apart(peft)
        values = {name: some for name, some in self.measure(peft).items() if len(some)}
        figures = figures_of(self, values)
        found = {"runs": len(apart), "apart": rounded(max(apart, default=None)), "figures": figures}
        return found | self.decided(figures) if apart else {}

    def decided(self, figures: Mapping[str, Any]) -> dict[str, Any]:
        """The verdict once all parts of the rule have figures, and what is said of those that have."""
        wanted = {part: [part.figure, *[part.needs] * bool(part.needs)] for part in self.rule.parts}
        known = tuple(part for part, names in wanted.items() if {*names} <= {*figures})
        ready = replace(self.rule, parts=known)
        names = [name for some in wanted.values() for name in some if name not in figures]
        missing = [*dict.fromkeys(self.figures[name] for name in names)]
        found = decided(replace(self, rule=ready), figures) if ready.parts else {}
        try:
            finding = self.found(read(self, figures))
        except KeyError:  # a figure that has not run
            finding = f"{NOT_RUN.capitalize()}."
        if not missing:
            return found | {"finding": finding}
        so_far = f" So far: {found['sentence']}" if found else ""
        return {
            "verdict": NOT_RUN,
            "sentence": f"{NOT_RUN.capitalize()}: {missing[0]}. {listed(missing[1:])}".rstrip()
            + so_far,
            "cannot tell": found.get("cannot tell", []),
            "parts": found.get("parts", []),
            "finding": finding,
        }


@dataclass(frozen=True, kw_only=True)
class Claim(Trial):
    """What a paper says, and how it is tried."""

    paper: str  # authors, arXiv number, section or figure
    topic: str
    refuted_by: str  # what would contradict it
    setup: str
    measure: Callable[[Lab], Values]
    advice: str  # what a reader should do about it
    published: str = ""  # the paper's own figure, where we know it
    varied: str = ""  # beside the rate
    at_scale: AtScale | None = None  # on a second setup


class Setup(Protocol):
    """Something to train on."""

    def run(self, lr: float, seed: int, **method: Any) -> dict[str, float]:
        """Train once: ``validation`` and ``test`` loss, and whatever else is measured."""
        ...

    def shortened(self) -> Setup:
        """The same in small, for --quick."""
        ...


@dataclass
class Sweep:
    """A method at many rates: ``runs[place][seed]`` are what was measured at ``rate(place)``."""

    name: str
    lab: Lab
    setup: Any
    method: dict[str, Any]
    runs: dict[int, dict[int, dict[str, float]]] = field(default_factory=dict)
    place: int = 0  # of the best rate

    @property
    def seeds(self) -> Sequence[int]:
        return self.lab.seeds

    @property
    def best(self) -> float:
        return rate(self.place)

    def at(self, place: int, seeds: Sequence[int]) -> float:
        """Mean validation loss at a rate, after the runs that are missing."""
        here = self.runs.setdefault(place, {})
        for seed in seeds:
            if seed not in here:
                here[seed] = self.lab.once(self.setup, rate(place), seed, self.method)
        losses = np.array([here[seed]["validation"] for seed in seeds])
        finite = np.all(np.isfinite(losses))
        return float(np.mean(redrawn.chosen(losses))) if finite else np.inf

    def search(self, start: int) -> None:
        """Find the best rate with few seeds, settle it with all."""
        for seeds in (self.lab.seeds[:FIND], self.lab.seeds):
            self.place = start
            while True:
                near = {p: self.at(p, seeds) for p in (self.place, self.place - 1, self.place + 1)}
                best = min(near, key=near.__getitem__)
                if not np.isfinite(near[best]):
                    best -= 2  # all three diverged
                if best == self.place:
                    break
                self.place = best
            start = self.place

    def values(self, measure: str = "test", place: int | None = None) -> Array:
        """One number for each seed, at the best rate or at another one."""
        place = self.place if place is None else place
        self.at(place, self.lab.seeds)
        return np.array([self.runs[place][seed].get(measure, np.inf) for seed in self.lab.seeds])

    def peaks(self) -> Array:
        """The best rate of each seed: the minimum of a parabola through the best rate of all seeds
        and its neighbours; where it bends down, the better neighbour.
        """
        lower, middle, upper = (self.values("validation", self.place + i) for i in (-1, 0, 1))
        return MIDDLE * FACTOR ** (self.place + redrawn.vertex(lower, middle, upper))

    def to_json(self) -> dict[str, Any]:
        rates = {}
        for place, runs in sorted(self.runs.items()):
            names = [name for name in next(iter(runs.values())) if name != "seconds"]
            rates[f"{rate(place):g}"] = {"seeds": [*runs]} | {
                name: [rounded(run.get(name, np.inf)) for run in runs.values()] for name in names
            }
        return {"method": self.method, "best": rate(self.place), "rates": rates}


IN_SMALL: dict[str, dict[str, float]] = {}  # the runs of this process


class Lab:
    """Where a claim is tried: it keeps every run, so that methods that claims share run once.

    Full runs are noted in ``.runs.jsonl``, which is not committed: delete it after a change to a
    setup or a method. With a ``folder`` all is trained with ``seeds`` and noted there alone.
    """

    def __init__(
        self,
        *,
        quick: bool = False,
        recorded: Mapping[str, Any] | None = None,
        again: bool = False,  # from the runs that are recorded, so that only figures are new
        seeds: Sequence[int] = range(SETTLE),
        folder: Path | None = None,
        task: str = "",  # another task of digits, see `claims.lab.tasks`
    ):
        self.quick, self.task = quick, task
        self.seeds = [*seeds][: QUICK if quick else None]
        self.recorded, self.again, self.folder = recorded, again, folder
        self.sweeps: dict[str, Sweep | Redrawn] = {}
        self.best: dict[str, int] = {}  # places of rates that all seeds chose
        self.costs: dict[str, float] = {}  # seconds by sweep, so that a sum counts each once
        self.notes = (folder or HERE) / ".runs.jsonl"
        self.known = IN_SMALL if quick else {}
        if self.notes.exists() and not quick:
            self.known = dict(map(json.loads, self.notes.read_text(encoding="utf-8").splitlines()))

    def sweep(self, name: str, setup: Setup, *, start: int = 0, **method: Any) -> Sweep:
        """A method with its own best rate: searched, or in small the one that the full run has
        found.
        """
        found = Sweep(name, self, setup.shortened() if self.quick else setup, method)
        if not redrawn.RESAMPLE:  # what is written has the rate that all seeds chose
            self.sweeps[name] = found
        if self.again and self.recorded is not None and name in self.recorded["methods"]:
            self.remember(found, self.recorded["methods"][name]["rates"])
        if redrawn.RESAMPLE:  # among the rates at which all seeds have run
            near = (self.best[name] + i for i in (-1, 0, 1))
            found.place = min(near, key=lambda place: found.at(place, self.seeds))
        elif not self.quick:
            found.search(start)
            self.best[name] = found.place
        elif self.recorded is None:
            raise SystemExit("--quick runs at the rates that a full run has found: run that first")
        else:
            found.place = round(
                np.log(self.recorded["methods"][name]["best"] / MIDDLE) / np.log(FACTOR)
            )
        return found

    def remember(self, sweep: Sweep, rates: Mapping[str, Mapping[str, list[float | None]]]) -> None:
        """Take the runs of a sweep from what is recorded."""
        for lr, runs in rates.items():
            for i, seed in enumerate(runs["seeds"]):
                key = json.dumps([repr(sweep.setup), float(lr), seed, sweep.method], sort_keys=True)
                losses = {name: runs[name][i] for name in runs if name != "seeds"}
                known = {name: np.inf if x is None else x for name, x in losses.items()}
                self.known[key] = known | {"seconds": 0.0}

    def redrawn(self, setup: str, *names: str, drawn: bool = True) -> list[Redrawn]:
        """Methods on a setup of which each seed draws everything, with their own best rates; in the
        picture of the claim unless it is of another setup.
        """
        if self.task and setup == SWEPT:
            setup = f"{setup}-{self.task}"
        found, sweeps = [], self.methods(setup)
        for name in names:
            seeds = self.drawn(sweeps[name].seeds, redrawn.QUICK.get(setup, batched.BLOCK))
            if not self.quick and not redrawn.RESAMPLE:
                sweeps[name].search(seeds)
            found.append(Redrawn(sweeps[name], seeds))
            self.costs[f"{setup}: {name}"] = 0.0 if self.quick else found[-1].seconds
            if drawn:
                self.sweeps[f"{setup}: {name}"] = found[-1]
        return found

    def methods(self, setup: str) -> Mapping[str, Recorded]:
        """The methods of a setup: recorded, in small, or trained anew."""
        if self.folder is None:
            return redrawn.sweeps(setup, self.quick)
        return redrawn.anew(setup, self.book(setup), self.seeds)

    def drawn(self, full: int, quick: int = batched.BLOCK) -> Sequence[int]:
        """The seeds of what is drawn anew: all, a few in small, or those that were asked for."""
        return self.seeds if self.folder is not None else range(quick if self.quick else full)

    def book(self, name: str) -> Book:
        """Where raw runs are noted: in ``runs/``, in memory, or in the folder of new seeds."""
        if self.folder is None:
            return Book(None if self.quick else redrawn.FOLDER / f"{name}.jsonl")
        seeds = f"{self.seeds[0]}-{self.seeds[-1]}"
        return Book(self.folder / f"{name}-{seeds}.jsonl")

    def untrained(self, setup: str = "language", name: str = "") -> Array:
        """The loss of the untrained bases on what each seed holds back, or on the old text."""
        sweep = next(iter(self.methods(setup).values()))
        seeds = self.drawn(sweep.seeds, redrawn.QUICK.get(setup, batched.BLOCK))
        return redrawn.untrained(sweep, seeds, name)

    def kappas(self) -> Map:
        """The map of kappa: recorded, in small, or trained anew."""
        if self.folder is None:
            return redrawn.kappas(self.quick)
        known = Map(self.book("kappa"), self.seeds)
        known.everywhere()
        return known

    def once(self, setup: Any, lr: float, seed: int, method: Mapping[str, Any]) -> dict[str, float]:
        """One run, from the notes if they have it."""
        key = json.dumps([repr(setup), lr, seed, method], sort_keys=True)
        if redrawn.RESAMPLE and key not in self.known:  # nothing is trained
            return defaultdict(lambda: np.inf)
        if key not in self.known:
            begin = time.process_time()
            try:
                with np.errstate(all="ignore"):
                    result = setup.run(lr, seed, **method)
            except (FloatingPointError, np.linalg.LinAlgError):  # it diverged
                result = {"validation": np.inf}
            result = {name: float(x) if np.isfinite(x) else np.inf for name, x in result.items()}
            self.known[key] = result | {"seconds": time.process_time() - begin}
            if not self.quick:
                with self.notes.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([key, self.known[key]]) + "\n")
        if not redrawn.RESAMPLE:
            sweep = json.dumps([repr(setup), method], sort_keys=True)
            seconds = self.known[key]["seconds"]
            self.costs[sweep] = self.costs.get(sweep, 0.0) + seconds
        return self.known[key]


def rate(place: int) -> float:
    """The grid of rates."""
    return float(f"{MIDDLE * FACTOR**place:.3g}")


def gain(method: Sweep, plain: Sweep, measure: str = "test", *, at: Sweep | None = None) -> Array:
    """How much lower its loss is than that of plain LoRA on the same batches, as a share of the
    latter's mean.

    Each at its best rate, or the method at the best rate of ``at``.
    """
    ours, theirs = method.values(measure, None if at is None else at.place), plain.values(measure)
    return share(theirs, ours)


def share(theirs: Array, ours: Array) -> Array:
    """What is taken off a loss, as a share of its mean over the seeds; a run that diverged counts
    tenfold.
    """
    return np.asarray(np.maximum((theirs - ours) / theirs.mean(), -9.0))
