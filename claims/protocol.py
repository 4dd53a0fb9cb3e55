"""The protocol that every claim goes through: a sweep of rates for each method, seeds, intervals, and
a verdict (`claims.rules`).

On digits and linear tasks a seed draws base, split, start and order, and 64 seeds run side by side
(`claims.redrawn`); on text eight seeds draw them too, from four bases (`claims.text`). Elsewhere a
seed draws start and order. There, each method of training has a sweep
of its own along one grid of rates, a factor of 2.5 apart: two seeds find the rate whose validation loss is lowest, and the search goes on until neither end of
what was tried is the best. Five seeds run at the best rate and at both its neighbours, and settle
which of the three it is. Steps, batches and schedule are those of the setup, the same for all.
Figures are means over the seeds, of test data that nothing was chosen by, with the interval that
would hold the true mean in 95 of 100 such experiments. A ratio is averaged by its logarithm.
"""

from __future__ import annotations

import json
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from claims import at_scale, base_line, batched, chance, redrawn, tasks
from claims.redrawn import Book, Map, Redrawn, Sweep as Recorded
from claims.rules import CONTRADICTED, NOT_RUN, NOT_SHOWN, TASK, Figure, Part, Rule, listed
from lora_np.checks import Array
from lora_np.files import write_whole
from lora_np.version import __version__

HERE = Path(__file__).parent
RESULTS = HERE / "results"
Values = Mapping[str, Iterable[float]]  # of each figure, one for each seed
FACTOR, MIDDLE = 2.5, 1e-2
FIND, SETTLE, QUICK = 2, 5, 3  # seeds: to find the rate, to settle it, and with --quick


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How a sentence is tried in a setup, and the rule for its verdict, written before the run."""

    title: str  # what is claimed in our words, a sentence
    setting: str  # what of the paper's own setting was tried
    figures: Mapping[str, str]  # what each figure is, with its unit
    rule: Rule  # from figures to a verdict
    limits: str
    headline: str  # the figure that stands for the claim
    words: str  # what that figure is, in at most twelve words
    finding: str = ""  # what was found, in one line: names of figures in braces, see `Number`
    ratios: Sequence[str] = ()  # figures that are quotients, averaged by their logarithm
    counted: Sequence[str] = ()  # figures that are arithmetic, so that no interval is missing
    # Figures with a best possible value: the method whose loss is to be beaten, see `claims.reach`
    beats: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def found(self, figures: Mapping[str, Figure]) -> str:
        """The finding, with its figures."""
        return self.finding.format(**{name: Number(x.mean) for name, x in figures.items()})

    def figure(self, name: str, values: Iterable[float | None]) -> Figure:
        """A figure of this claim, from its values."""
        numbers = (np.inf if x is None else float(x) for x in values)
        return Figure(tuple(numbers), name in self.ratios, name in self.counted)


@dataclass(frozen=True, kw_only=True)
class AtScale(Trial):
    """A claim on the second setup (`claims.at_scale`), from the runs that are recorded."""

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
            **self.judged(figures),
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
        """What torch and PEFT give for the same runs (`claims.peft_runs`), as far as they have run."""
        peft = at_scale.Runs("smollm2-peft", rates=runs)
        apart = runs.apart(peft)
        values = {name: some for name, some in self.measure(peft).items() if len(some)}
        figures = figures_of(self, values)
        found = {"runs": len(apart), "apart": rounded(max(apart, default=None)), "figures": figures}
        return found | self.judged(figures) if apart else {}

    def judged(self, figures: Mapping[str, Any]) -> dict[str, Any]:
        """The verdict once all parts of the rule have figures, and what is said of those that have."""
        wanted = {part: [part.figure, *[part.needs] * bool(part.needs)] for part in self.rule.parts}
        known = tuple(part for part, names in wanted.items() if {*names} <= {*figures})
        ready = replace(self.rule, parts=known)
        names = [name for some in wanted.values() for name in some if name not in figures]
        missing = [*dict.fromkeys(self.figures[name] for name in names)]
        found = judged(replace(self, rule=ready), figures) if ready.parts else {}
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


PHRASES: Mapping[str, tuple[Callable[[float], float], bool]] = {  # and whether it is a share
    "": (lambda x: x, False),
    "percent": (lambda x: x, True),
    "minus": (lambda x: -x, False),
    "minus_percent": (lambda x: -x, True),
    "inverse": (lambda x: 1 / x, False),
    "lower": (lambda x: 1 - 1 / x, True),  # how far a divisor lies below what it divides
    "less": (lambda x: 1 - x, True),  # how far what is divided lies below the divisor
    "higher": (lambda x: x - 1, True),
    "above": (lambda x: 1 / x - 1, True),
}


class Number(float):
    """A figure in a finding: ``{gain:lower}``, always as a positive number. A sentence whose direction
    the figure contradicts is an error.
    """

    def __format__(self, phrase: str) -> str:
        if phrase == "than":
            return compared(float(self))
        turn, share = PHRASES[phrase]
        number = turn(float(self))
        if not number > 0:
            raise ValueError(f"a finding must not say {phrase!r} of {float(self):.3g}")
        if share:
            return f"{100 * number:.2g} %" if number < 0.995 else f"{100 * number:.3g} %"
        return f"{number:.3g}"


CLOSE = 0.0005  # of the loss; figures are rounded to about a fifth of it


def compared(ratio: float) -> str:
    """A ratio in words, whichever side it is on: ``the loss was {gap:than} the other``."""
    if ratio == 1:
        return "the same as"
    if abs(ratio - 1) < CLOSE:
        return f"within {100 * CLOSE:g} % of"
    return f"{100 * abs(ratio - 1):.2g} % {'above' if ratio > 1 else 'below'}"


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
        task: str = "",  # another task of digits, see `claims.tasks`
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
        if self.task and setup == tasks.SWEPT:
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


def rounded(x: float | None) -> float | None:
    return float(f"{x:.5g}") if x is not None and np.isfinite(x) else None


def figures_of(
    claim: Trial,
    found: Values,
    choices: Mapping[str, float] = {},
) -> dict[str, Any]:
    """Figures as JSON, of values as they are written down, and what the choice of rates adds."""
    figures = {name: claim.figure(name, map(rounded, values)) for name, values in found.items()}
    choice = lambda name: rounded(choices.get(name)) or 0.0
    return {name: to_json(one._replace(choice=choice(name))) for name, one in figures.items()}


def to_json(figure: Figure) -> dict[str, Any]:
    numbers = {"mean": figure.mean, "low": figure.low, "high": figure.high}
    numbers |= {"choice": figure.choice} if figure.choice else {}
    sets = {"sets": [*map(rounded, figure.sets)]} if figure.sets else {}
    return (
        {name: rounded(x) for name, x in numbers.items()}
        | sets
        | {"values": [*map(rounded, figure.values)]}
    )


def read(claim: Trial, figures: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures of a claim, from JSON."""
    return {
        name: claim.figure(name, figure["values"])._replace(choice=figure.get("choice", 0.0))
        for name, figure in figures.items()
    }


def judged(claim: Trial, figures: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict of figures in JSON, the sentence that gives it with its figures, and what they
    cannot tell.
    """
    known, rule = read(claim, figures), claim.rule
    return {
        "verdict": rule.verdict(known),
        "sentence": rule.sentence(claim.figures, known),
        "cannot tell": rule.too_wide(claim.figures, known),
        "parts": [part_of(claim, part, known) for part in rule.parts],
    }


def part_of(claim: Trial, part: Part, figures: Mapping[str, Figure]) -> dict[str, Any]:
    """A part of a rule as JSON: what a picture of it needs. ``low`` to ``high`` is the interval that
    judges, ``seen`` the smallest effect that four of five such experiments would see.
    """
    figure, rule = figures[part.figure], claim.rule
    low, high = figure.ends(rule.outside)
    numbers = {
        "bound": part.bound,
        "worth": part.least,
        "mean": figure.mean,
        "low": low,
        "high": high,
        "seen": figure.seen(part.bound, part.sign, rule.outside),
        "reach": rule.reach.get(part.figure),
    }
    return {"figure": part.figure, "sign": part.sign} | {
        name: rounded(x) for name, x in numbers.items()
    } | {"verdict": rule.of_part(part, figures)}  # fmt: skip


def seeds_of(lab: Lab, figures: Mapping[str, Any]) -> list[int]:
    """The seeds of the longest figure: where each draws everything, they count from 0."""
    longest = max(len(figure["values"]) for figure in figures.values())
    return lab.seeds if longest <= len(lab.seeds) else [*range(longest)]


def quickly(found: Mapping[str, Any], full: str) -> dict[str, Any]:
    """A quick run that does not agree with the full one has not shown anything: it is shorter, or
    has fewer seeds. What its own figures give is kept.
    """
    own = found.get("found", found["verdict"])
    return {**found, "found": own, "verdict": own if own == full else NOT_SHOWN}


def tried(claim: Claim, lab: Lab) -> dict[str, Any]:
    """Figures, verdict and seconds of one go."""
    begin = time.process_time()
    values = claim.measure(lab)
    assert values.keys() == claim.figures.keys(), (values.keys(), claim.figures.keys())
    seconds = max(time.process_time() - begin, sum(lab.costs.values()))
    chose = lab.costs and not lab.quick
    choices = chance.choices(claim, lambda: claim.measure(lab)) if chose else {}
    figures = figures_of(claim, values, choices)
    return {
        "seeds": seeds_of(lab, figures),
        "figures": figures,
        **judged(claim, figures),
        "seconds": round(seconds, 1),
        "cost": {name: round(cost, 1) for name, cost in lab.costs.items()},
    }


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


def words(claim: Claim) -> dict[str, Any]:
    """All that a claim says, as JSON."""
    fields = (
        "title",
        "paper",
        "topic",
        "refuted_by",
        "setup",
        "varied",
        "setting",
        "published",
        "limits",
        "advice",
        "headline",
        "words",
    )
    scale = {"at scale": claim.at_scale.recorded()} if claim.at_scale is not None else {}
    return (
        {name: getattr(claim, name) for name in fields}
        | scale
        | {
            "rule": claim.rule.words(claim.figures),
            "ratios": [*claim.ratios],
            "counted": [*claim.counted],
            "meaning": dict(claim.figures),
        }
    )


def record(name: str, claim: Claim, *, quick: bool = False, again: bool = False) -> dict[str, Any]:
    """Run a claim and write its file: the full run, what it gives in small, or its figures anew, from
    the runs that are recorded.
    """
    path = RESULTS / f"{name}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    lab = Lab(quick=quick, recorded=before or None, again=again)
    found = tried(claim, lab)
    if quick:
        own = claim.rule.verdict(read(claim, before["figures"]))
        result = before | words(claim) | {"quick": quickly(found, own)}
    else:
        result = {
            "name": name,
            **words(claim),
            **found,
            "machine": f"{platform.machine()}, {platform.system()}, one core",
            "versions": {
                "lora_np": __version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "methods": {name: sweep.to_json() for name, sweep in lab.sweeps.items()},
        }
        for part in ("quick", "other seeds"):
            if part in before and before[part]["figures"].keys() == claim.figures.keys():
                result[part] = before[part]
        if again:
            result |= {part: before[part] for part in ("machine", "versions") if part in before}
            # what was trained for it; runs that are read from the file of the claim cost nothing now
            new = {name: cost for name, cost in found["cost"].items() if cost}
            cost = before.get("cost", {}) | new
            seconds = round(max(before.get("seconds", 0.0), sum(cost.values())), 1)
            result |= {"cost": cost, "seconds": seconds}
    write(name, finished(claim, result))
    return found


def failed(result: Mapping[str, Any]) -> list[str]:
    """The figures whose part is contradicted."""
    return [part["figure"] for part in result["parts"] if part["verdict"] == CONTRADICTED]


def finished(claim: Claim, result: dict[str, Any]) -> dict[str, Any]:
    """What follows from the figures of all setups together."""
    figures = read(claim, result["figures"])
    result["finding"] = claim.found(figures)
    result["odds"] = chance.odds(claim, figures)
    result["untrained"] = base_line.recorded().get(result["name"], {})
    result["other tasks"] = tasks.recorded().get(result["name"], {})
    if said := tasks.sentence(result["name"], claim.figures, failed(result)):
        alone = {"alone": result["verdict"]}  # of the first task
        result |= alone | {"verdict": TASK, "sentence": f"{said} {result['sentence']}"}
    result["verdicts"] = result["verdict"]
    if "at scale" in result:
        result["verdicts"] = f"small: {result['verdict']}; 135M: {result['at scale']['verdict']}"
    return result


def reword(name: str, claim: Claim) -> None:
    """Words and verdicts of a file again, from what the claim says now and the figures that are
    recorded.
    """
    result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) | words(claim)
    if "other seeds" in result and {*result["seeds"]} & {*result["other seeds"]["seeds"]}:
        del result["other seeds"]  # of a protocol with fewer seeds
    for name_of_part in ("", "quick", "other seeds"):
        part = result if not name_of_part else result.get(name_of_part)
        if part is not None:
            recorded = {figure: part["figures"][figure] for figure in claim.figures}
            values = {figure: one["values"] for figure, one in recorded.items()}
            choices = {figure: one.get("choice", 0.0) for figure, one in recorded.items()}
            part["figures"] = figures_of(claim, values, choices)
            part |= judged(claim, part["figures"])
    if "quick" in result:
        result["quick"].pop("found", None)
        result["quick"] = quickly(result["quick"], result["verdict"])
    write(name, finished(claim, result))


def show(name: str, claim: Claim) -> dict[str, Any]:
    """Figures and verdict from the runs that are recorded; nothing is written."""
    recorded = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return tried(claim, Lab(recorded=recorded, again=True))


def train(claim: Claim, seeds: Sequence[int], folder: Path) -> dict[str, Any]:
    """Train everything that a claim asks for, with seeds of one's own, and note it in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lab = Lab(seeds=seeds, folder=folder)
    found = tried(claim, lab)
    return found | {"methods": {name: sweep.to_json() for name, sweep in lab.sweeps.items()}}


def write(name: str, result: Mapping[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    text = compact(json.dumps(result, ensure_ascii=False, indent=1))
    write_whole(RESULTS / f"{name}.json", lambda file: file.write(text.encode()))


def compact(text: str) -> str:
    """JSON with each list of numbers on one line."""
    import re

    return re.sub(r"\[[^\[\]{}\"]*\]", lambda found: " ".join(found.group().split()), text) + "\n"
