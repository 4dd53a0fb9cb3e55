"""Runs of the study *What sets LoRA's learning rate?*, by the rule of `claims.rate_law_rule`.

    python -m claims.rate_law_runs --minutes 60                    go on where the last run has ended
    python -m claims.rate_law_runs --part 0/2                      one of two processes
    python -m claims.rate_law_runs --only text                     points whose name has this word
    python -m claims.rate_law_runs --quick                         a subset in memory, in a minute
    python -m claims.rate_law_runs --show                          what is recorded
    python -m claims.rate_law_runs --page                          write it into page and card

Every run is a line of ``runs/rate-law.FAMILY.jsonl`` with its point, learning rate, seeds, losses, CPU
seconds and the commit of the rule; a run that is there is not repeated. Each point needs the best
learning rate of the full update, by one set of seeds, and LoRA's, by another: the best of a grid of
sqrt(2) among its neighbours, after a search in steps of 2. Then LoRA runs at the rate that law B
predicts.

Bases other than the four that ship are trained when they are first needed, from the novels
(``--novels Rdata.rdb``, see `recipes.base`), and kept outside the repository, in ``bases/grown``:
the same command makes them again. On another processor BLAS adds in another order, so that a base
and its losses agree only to rounding, which training amplifies; points average over seeds. SmolLM2
needs ``--smollm2 FILE.gguf``.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import lora_np as lnp
from claims import rate_law_rule as rule
from claims.lab import batched, methods, text
from claims.lab.at_scale import SMOLLM2
from claims.lab.batched import HALVES
from claims.lab.committed import Card, Found, write
from claims.lab.kept import HERE, RUNS, Kept, OutOfTimeError, share, write_page
from claims.rate_law_rule import Measured, Point
from lora_np import language
from lora_np.checks import Array
from recipes import base as recipe

GROWN = HERE / "bases" / "grown"
PAGE = HERE.parent / "docs" / "understand" / "learning-rate.md"
MIDDLE = ["layers.2"]  # the layer of digits that is trained
FAMILIES = ("digits", "text", "smollm2")
LOOK = {"digits": 16, "text": 2, "smollm2": 2}  # seeds that search in steps of 2
READERS = ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"]  # what reads a norm
# The quick subset, in small
QUICK = [
    Point("alpha", "digits", 64, 2, setting={"steps": 75}),
    Point("alpha", "digits", 64, 512, setting={"steps": 75}),
    Point("alpha", "text", 128, 32, setting={"steps": 15}),
]
TELLS = (
    "This subset can tell that LoRA's best learning rate falls as alpha grows, and by less than in proportion. "
    "It cannot tell law B from its rivals, and it says nothing about width, steps or texts."
)


@dataclass(frozen=True)
class Digits(batched.Digits):
    """A network 64-width-width-10, of which W of the middle layer is trained."""

    width: int = 128
    gain: float = 1.0
    sgd: bool = False

    targets = MIDDLE

    def tasks(self, seeds: Sequence[int]) -> list[batched.Task]:
        blocks = {
            seed: readers(self.width, batched.BLOCK * (seed // batched.BLOCK)) for seed in seeds
        }
        bases = {
            seed: scaled(block[seed % batched.BLOCK], self.gain) for seed, block in blocks.items()
        }
        return [self.task(seed, bases[seed]) for seed in seeds]

    def runs(self, seeds: Sequence[int], rates: Sequence[float], **method: Any) -> dict[str, Array]:
        """Losses (seeds, rates) of each half."""
        blocks = []
        for i in range(0, len(seeds), batched.BLOCK):
            some = seeds[i : i + batched.BLOCK]
            tasks = self.tasks(some)
            models = [without_bias(one) for one in batched.starts(self, tasks, some, method)]
            schedule = lambda lr: lnp.nn.linear_schedule(lr, steps=self.steps)
            runs = (Descent if self.sgd else batched.Runs)(tasks, models, rates, schedule)
            with np.errstate(all="ignore"):
                for _ in runs.train(self):
                    pass
                blocks.append({half: runs.losses(self, i) for i, half in enumerate(HALVES)})
        return {half: np.concatenate([block[half] for block in blocks]) for half in HALVES}


class Descent(batched.Runs):
    """Runs by plain gradient descent."""

    rule = lnp.SGD(lr=1.0)


@functools.lru_cache(8)
def readers(width: int, first: int) -> list[Any]:
    """A block of networks that read upright digits."""
    return batched.upright([(seed, seed) for seed in range(first, first + batched.BLOCK)], width)


def scaled(network: Any, gain: float) -> Any:
    """The same function, with the inputs of the middle layer times a gain, and its W over it."""
    first, relu, middle, *rest = network.layers
    grown = replace(first, W=first.W * np.float32(gain), b=first.b * np.float32(gain))
    return replace(
        network, layers=[grown, relu, replace(middle, W=middle.W / np.float32(gain)), *rest]
    )


def without_bias(model: Any) -> Any:
    """The full update trains W alone, as LoRA does."""
    return lnp.replace(
        model,
        lnp.Tensor,
        lambda path, leaf: leaf.data if path.split(" = ")[0].endswith(".b") else leaf,
    )


@dataclass(frozen=True)
class Text(text.Text):
    """A language model learns another text, with one choice of its training changed."""

    steps: int = 60
    gain: float = 0.0  # 0: as trained, with all linear layers adapted
    constant: bool = False
    clip: float | None = 1.0
    decay: float = 0.0
    beta2: float = 0.999
    sgd: bool = False

    @property
    def targets(self) -> Any:
        return READERS if self.gain else "all-linear"

    def base(self, seed: int) -> Any:
        found = super().base(seed)
        return with_gain(found, self.gain) if self.gain else found

    def train(self, seed: int, lr: float, **method: Any) -> Any:
        base = self.base(seed)
        training = self.parts(seed, base)["training"]
        rng = np.random.default_rng([seed, 23])
        start = methods.initialised(base, rng, None, **{"targets": self.targets, **method})
        order = batched.batches(seed, len(training), self.steps, self.batch)
        warm = min(10, self.steps // 4)
        decaying = lnp.cosine_schedule(lr, steps=self.steps, warmup=warm)
        rising = lambda step: lr * min(1.0, (step + 1) / warm)
        with np.errstate(all="ignore"):
            fitted = lnp.fit(
                start, lambda step: training[order[step]], loss=language.token_loss, steps=self.steps,
                clip=self.clip, progress=False, optimizer=self.optimizer(rising if self.constant else decaying),
            )  # fmt: skip
        return lnp.freeze(fitted.model)

    def optimizer(self, lr: Any) -> Any:
        if self.sgd:
            return lnp.SGD(lr=lr)
        return lnp.AdamW(lr=lr, beta2=self.beta2, weight_decay=self.decay)


@functools.lru_cache(16)
def with_gain(model: Any, gain: float) -> Any:
    """The same function, with every norm times a gain and what reads it over it."""
    factors = {f"{name}.W": 1 / gain for name in READERS} | dict.fromkeys(
        ("input_layernorm.W", "post_attention_layernorm.W"), gain
    )

    def change(path: str, W: Array) -> Array:
        name = ".".join(path.split(" = ")[0].split(".")[-2:])
        return np.asarray(W * W.dtype.type(factors.get(name, 1.0)))

    return lnp.replace(model, np.ndarray, change)


def grown(k: int, setting: Mapping[str, Any]) -> Path:
    """Where a base lies that is trained here."""
    trained, depth = setting.get("trained", 600), setting.get("depth", 4)
    start = "fan" if setting.get("fan") else "0.02"
    return GROWN / f"{k}-{depth}-{trained}-{start}-{setting['base']}"


def grow(path: Path, novels: Path) -> None:
    """Train a base on batches of 16 x 64 characters of the novels, and save it."""
    k, depth, trained, start, seed = path.name.split("-")
    width, rng = int(k), np.random.default_rng([int(seed), 31])
    model = recipe.initial(
        rng,
        deviation=width**-0.5 if start == "fan" else 0.02,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=int(depth),
        num_attention_heads=width // 32,
        num_key_value_heads=width // 64,
    )
    tokens, held_out = recipe.split(recipe.novels(novels))

    def batches() -> Iterator[Array]:
        while True:
            starts = rng.integers(0, len(tokens) - 64, 16)
            yield tokens[starts[:, np.newaxis] + np.arange(65)]

    steps = int(trained)
    begin = time.process_time()
    for _ in recipe.training(model, islice(batches(), steps), steps):
        pass
    frozen = lnp.freeze(model)
    language.save(frozen, path)
    loss, seconds = recipe.validation_loss(frozen, held_out[::8]), time.process_time() - begin
    print(f"{path.name}: {loss:.4f} nats on held-out novels, {seconds:.0f} CPU seconds", flush=True)


@dataclass
class Study:
    """Points of one process: what has run, and where the bases are."""

    minutes: float = float("inf")
    novels: Path | None = None
    smollm2: str | None = None
    recorded: bool = True  # False: in memory, with few seeds

    def __post_init__(self) -> None:
        ends = time.monotonic() + 60 * self.minutes
        place = lambda family: RUNS / f"rate-law.{family}.jsonl" if self.recorded else None
        self.kept = {one: Kept(place(one), Path(rule.__file__), ends) for one in FAMILIES}
        self.seeds = rule.SETS if self.recorded else {"digits": 4, "text": 1}

    def setup(self, point: Point) -> Any:
        """The setup of a point; None if it needs a file that was not given."""
        names = {"base", "fan", "trained", "depth"}
        changed = {name: x for name, x in point.setting.items() if name not in names}
        if point.family == "digits":
            return Digits(width=point.k, **changed)
        if point.family == "smollm2":
            model = (str(self.smollm2),)
            return Text(model, **{**SMOLLM2, **changed}) if self.smollm2 else None
        if changed.get("clip") == 0:
            changed["clip"] = None
        if changed.get("new") is not None:
            changed["new"] = str(HERE / "data" / f"{changed['new']}.txt")
        if "base" not in point.setting:
            return Text(**changed)
        path = grown(point.k, point.setting)
        if not path.exists() and self.novels is not None:
            grow(path, self.novels)
        return Text((str(path),), **changed) if path.exists() else None

    def losses(self, point: Point, side: str, seeds: Sequence[int], lr: float) -> Array:
        """Log losses (halves, seeds) of a side at a learning rate."""
        kept, width = self.kept[point.family], self.width(point)
        rows = []
        for first in range(seeds[0], seeds[-1] + 1, width):
            run = {
                "point": point.name if side == "lora" else point.full,
                "side": side,
                "rate": lr,
                "seed": first,
            }
            some = range(first, min(first + width, seeds[-1] + 1))
            line = kept.once(run, lambda some=some: self.trained(point, side, some, lr))
            rows.append([[np.inf if x is None else x for x in line[half]] for half in HALVES])
        joined: Array = np.concatenate(rows, axis=1)
        return joined

    def width(self, point: Point) -> int:
        """Seeds in a line."""
        return self.seeds[point.family] if point.family == "digits" else 1

    def trained(self, point: Point, side: str, seeds: Sequence[int], lr: float) -> dict[str, Any]:
        setup = self.setup(point)
        if setup is None:
            raise MissingFileError(point.full)
        if side == "full":
            method: dict[str, Any] = {"kind": "full", "targets": setup.targets}
        else:
            kind = "lora-fa" if point.lora.get("frozen") else "lora"
            method = {"kind": kind, "rank": point.rank, "alpha": point.alpha}
        found = setup.runs(seeds, [lr], **method)
        logs = lambda half: [in_logs(x) for x in found[half][:, 0]]
        return {half: logs(half) for half in HALVES}

    def side(self, point: Point, side: str, number: int) -> Side:
        """The full update, or LoRA, with a set of seeds."""
        n = self.seeds[point.family]
        start = rule.expected_full(point) if side == "full" else rule.expected_lora(point)
        place = 2 * round(np.log2(start / rule.FIRST))
        return Side(self, point, side, range(number * n, (number + 1) * n), place)

    def measured(self, point: Point) -> Measured:
        """The best rates of both sides, after the runs that are missing; a point far from the law gets
        another set of seeds for each side.
        """
        full, lora = self.side(point, "full", 0), self.side(point, "lora", 1)
        first = full.peak()
        predicted = rule.rate(2 * np.log2(rule.expected_lora(point, first) / rule.FIRST))
        found = Measured(point, first, lora.peak(), lora.cost(predicted))
        low, high = rule.NEAR
        if self.recorded and point.held and low < found.factor < high:
            more = [self.side(point, side, number) for side, number in (("full", 2), ("lora", 3))]
            pooled = [
                float(np.sqrt(one * other.peak()))
                for one, other in zip((found.full, found.lora), more, strict=True)
            ]
            found = replace(found, full=pooled[0], lora=pooled[1])
        return found


class MissingFileError(Exception):
    """A point needs a base or a model that is not here."""


@dataclass(frozen=True)
class Side:
    """One side of a point: its losses at rates of the grid, with a set of seeds."""

    study: Study
    point: Point
    side: str
    seeds: Sequence[int]
    start: int

    def mean(self, place: int, seeds: Sequence[int]) -> float:
        """The mean log loss at a place of the grid."""
        return float(np.mean(self.at(rule.rate(place), seeds)))

    def at(self, lr: float, seeds: Sequence[int]) -> Array:
        return self.study.losses(self.point, self.side, seeds, lr)

    @property
    def offsets(self) -> Sequence[int]:
        return rule.OFFSETS[self.point.family]

    def searched(self) -> dict[int, float]:
        """Steps of 2 with few seeds until the best has been compared with both its neighbours, then
        the best of all seeds among its `offsets`.
        """
        few = self.seeds[: LOOK[self.point.family]]
        found = closed(lambda place: self.mean(place, few), self.start, (0, 2, -2))
        return closed(lambda place: self.mean(place, self.seeds), rule.best(found), self.offsets)

    def peak(self) -> float:
        return rule.peak(self.searched(), self.offsets)

    def cost(self, lr: float) -> float:
        """What a rate costs against the best one, in nats: one half chooses it, the other counts."""
        known, there = self.searched(), np.exp(self.at(lr, self.seeds))
        losses = {place: np.exp(self.at(rule.rate(place), self.seeds)) for place in known}
        costs = []
        for choosing, counting in ((0, 1), (1, 0)):
            means = {
                place: float(np.mean(np.log(found[choosing]))) for place, found in losses.items()
            }
            costs.append(np.mean(there[counting] - losses[rule.best(means)][counting]))
        return float(np.mean(costs))


def in_logs(loss: float) -> float | None:
    return round(float(np.log(loss)), 4) if np.isfinite(loss) and loss > 0 else None


def groups(points: Sequence[Point]) -> list[list[Point]]:
    """Points that share the full update's runs, so that one process has them."""
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.full, []).append(point)
    return list(found.values())


def said(found: Measured) -> str:
    return (
        f"{found.point.name}: full {found.full:.3g}, LoRA {found.lora:.3g}, predicted "
        f"{found.predicted:.3g} (factor {found.factor:.2f}, cost {found.cost:.4f} nats)"
    )


def run(study: Study, points: Sequence[Point], show: Callable[[str], None]) -> list[Measured]:
    """Measure points in order, as far as the time and the files here allow."""
    found = []
    for point in points:
        try:
            found.append(study.measured(point))
        except MissingFileError as error:
            show(f"{error}: needs --novels or --smollm2")
            continue
        except OutOfTimeError:
            if study.minutes:
                show(f"out of time at {point.name}")
                break
            continue  # only what is recorded is asked for
        show(said(found[-1]))
    return found


def recorded() -> list[Measured]:
    """All points whose runs are complete."""
    return run(Study(minutes=0), rule.points(), lambda line: None)


# torch and PEFT


AGAIN = (Point("alpha", "text", 128, 32), Point("alpha", "text", 128, 2048))


def agreement(setup: Any = None) -> list[float]:
    """PEFT's best learning rates over ours, or the inverse, of the points that have run; with a setup
    (`claims.rate_law_peft`), after the runs that are missing.
    """
    study = Study(minutes=0)
    ends = 0.0 if setup is None else float("inf")
    kept = Kept(RUNS / "rate-law.peft.jsonl", Path(rule.__file__), ends)
    found = []
    for point in AGAIN:
        side = study.side(point, "lora", 1)
        losses = functools.partial(repeated, kept, point, setup, seeds=side.seeds)
        try:
            ours = side.searched()
            theirs = closed(losses, rule.best(ours), side.offsets)
        except OutOfTimeError:
            continue
        ratio = rule.peak(theirs, side.offsets) / rule.peak(ours, side.offsets)
        found.append(float(np.exp(abs(np.log(ratio)))))
    return found


def repeated(kept: Kept, point: Point, setup: Any, place: int, seeds: Sequence[int]) -> float:
    """The mean log loss of LoRA's seeds at a place of the grid, in another program."""
    method = {"kind": "lora", "rank": point.rank, "alpha": point.alpha}
    losses = []
    for seed in seeds:

        def train(seed: int = seed) -> dict[str, Any]:
            found = setup.once(seed, rule.rate(place), **method)
            return {half: in_logs(found[half]) for half in HALVES}

        run = {"point": point.name, "side": "peft", "rate": rule.rate(place), "seed": seed}
        line = kept.once(run, train)
        losses += [np.inf if line[half] is None else line[half] for half in HALVES]
    return float(np.mean(losses))


def closed(mean: Callable[[int], float], place: int, offsets: Sequence[int]) -> dict[int, float]:
    """Mean log losses at the best place of the grid and its neighbours, from a first place on."""
    known: dict[int, float] = {}
    while missing := [place + i for i in offsets if place + i not in known]:
        known |= {one: mean(one) for one in missing}
        place = rule.best(known)
    return known


# The page and the card


def verdict_so_far(measured: Sequence[Measured]) -> tuple[str, list[str]]:
    """The verdict of the rule with its sentences, and what no further point can change."""
    word, facts = rule.verdict(measured, identities(measured), agreement())
    facts = [fact.replace("that of 2 of two rivals", "those of both rivals") for fact in facts]
    held = [one for one in measured if one.point.held]
    total = sum(point.held for point in rule.points())
    spare = (1 - rule.SHARE) * total
    outside = sum(one.factor > rule.WITHIN for one in held)
    dear = sum(one.cost > rule.NATS for one in held)
    far = any(one.factor > rule.FAR for one in held)
    if len(held) < total and (far or max(outside, dear) > spare):
        facts.append(
            f"Whatever the other {total - len(held)} points give, the verdict can no longer be supported."
        )
    return word, facts


def measure() -> Found:
    """What is recorded, for the card."""
    measured = recorded()
    word, facts = verdict_so_far(measured)
    held = [one for one in measured if one.point.held]
    total = sum(point.held for point in rule.points())
    errors = rule.rms(np.array([one.errors for one in held]), axis=0)
    apart = [
        (float(errors[0] - errors[1 + i]), *ends) for i, ends in enumerate(rule.intervals(held))
    ]
    factors = [one.factor for one in held]
    within = sum(x <= rule.WITHIN for x in factors)
    alone: dict[str, float] = {
        "within": within / len(held),
        "cheap": float(np.mean([one.cost <= rule.NATS for one in held])),
        "largest": max(factors),
        "lowest": min(map(ratio_of, held)),
        "highest": max(map(ratio_of, held)),
        "identity": max(identities(measured)),
    }
    if again := agreement():
        alone["peft"] = max(again)
    figures = {name: (x, x, x) for name, x in alone.items()}
    figures |= dict(zip(("constants", "powers"), apart, strict=True))
    alone_says = [fact.rsplit(": ")[1].rstrip(".") for fact in facts if fact.startswith("By these")]
    return Found(
        verdict=word,
        verdicts=f"{alone_says[0]} so far, {len(held)} of {total} points" if alone_says else word,
        finding=f"At {within} of {len(held)} points, LoRA's best learning rate lay within a factor of {rule.WITHIN:g} of "
        f"what the law predicts from the full update's; the largest factor was {max(factors):.2g}.",
        facts=[fact for fact in facts if not fact.endswith(" 0 of 0.")],
        figures=figures,
        seconds=sum(line["cpu"] for kept in Study(minutes=0).kept.values() for line in kept.lines.values()),
    )  # fmt: skip


def picture(measured: Sequence[Measured]) -> str:
    """SVG in Markdown: the best learning rate of each held-out point against law B's."""
    held = [one for one in measured if one.point.held]
    rates = [x for one in held for x in (one.predicted, one.lora)]
    low, high = np.log10(min(rates)) - 0.15, np.log10(max(rates)) + 0.15
    left, top, side = 58, 18, 330
    at = lambda x: round(float((np.log10(x) - low) / (high - low)) * side, 1)
    across, up = lambda x: round(left + at(x), 1), lambda y: round(top + side - at(y), 1)
    ends, f = (10**low, 10**high), rule.WITHIN
    corners = [(ends[0], ends[0] * f), (ends[1] / f, ends[1]), (ends[1], ends[1]),
               (ends[1], ends[1] / f), (ends[0] * f, ends[0]), (ends[0], ends[0])]  # fmt: skip
    band = " ".join(f"{across(x)},{up(y)}" for x, y in corners)
    decades = [(10.0**i, f"1e{i}") for i in range(int(np.ceil(low)), int(np.floor(high)) + 1)]
    shapes = {
        "digits": ("digits", "M{x} {y}m-3 -3l6 6m0 -6l-6 6"),
        "text": ("text", "M{x} {y}m-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z"),
        "smollm2": ("SmolLM2", "M{x} {y}m0 -6l6 6l-6 6l-6 -6z"),
    }
    marks = [
        f'<g class="lora {family}">'
        + "".join(
            f'<path d="{shape.format(x=across(one.predicted), y=up(one.lora))}"/>'
            for one in held
            if one.point.family == family
        )
        + f'<path d="{shape.format(x=left + 14, y=top + 16 + 18 * i)}"/></g>'
        f'<text x="{left + 26}" y="{top + 20 + 18 * i}">{name}</text>'
        for i, (family, (name, shape)) in enumerate(shapes.items())
    ]
    within, word = sum(one.factor <= f for one in held), verdict_so_far(measured)[0]
    told = f"At {within} of {len(held)} points, LoRA's best learning rate is within a factor of {f:g} of law B's."
    lines = [
        "```{raw} html",
        '<figure class="rate-charts"><figcaption>LoRA\'s best learning rate, and the one that law B predicts</figcaption>',
        f'<svg class="rates law" viewBox="0 0 {left + side + 12} {top + side + 40}" role="img" aria-label="{told}">',
        f'<polygon class="band" points="{band}"/>',
        f'<path class="axis" d="M{left} {top}v{side}h{side}M{left} {top + side}l{side} -{side}"/>',
        *(f'<text class="x" x="{across(x)}" y="{top + side + 15}">{text}</text>'
          f'<text class="y" x="{left - 6}" y="{up(x) + 4}">{text}</text>' for x, text in decades),
        f'<text class="x" x="{left + side / 2}" y="{top + side + 33}">predicted by law B</text>',
        '<text x="2" y="11">best found</text>',
        *marks,
        "</svg>",
        f"<p>{told} Law B (below) predicts it from alpha, the width and the full update\'s best. The band is that factor. The points vary alpha, units, width, rank, steps, text and base; no constant of the law was chosen by them. By the rule, the verdict is <em>{word}</em>.</p></figure>",
        "```",
    ]  # fmt: skip
    return "\n".join(lines)


def fold(summary: str) -> list[str]:
    """The first lines of a part of the page that is folded."""
    return [
        "```{raw} html",
        f'<details class="claim-fold"><summary>{summary}</summary>',
        "```",
        "",
    ]


UNFOLD = ["", "```{raw} html", "</details>", "```", ""]


def report(measured: Sequence[Measured]) -> str:
    """Markdown: the verdict, the points by part, slopes, and the identity."""
    word, facts = verdict_so_far(measured)
    lead = "not finished" if word == "not run yet" else word
    told = " ".join(fact for fact in facts if not fact.endswith(" 0 of 0."))
    lines = [f"**{lead.capitalize()}.** {told}", ""]
    lines += fold("Points by what varies")
    lines += [
        "| setup, what varies | points | LoRA over full | within 1.5 | largest factor | within 0.01 nats |"
    ]
    lines += ["|-|-|-|-|-|-|"]
    held = [one for one in measured if one.point.held]
    for family in FAMILIES:
        for part in dict.fromkeys(one.point.part for one in held if one.point.family == family):
            some = [one for one in held if (one.point.family, one.point.part) == (family, part)]
            ratios, factors = ([f(one) for one in some] for f in (ratio_of, factor_of))
            within = sum(x <= rule.WITHIN for x in factors)
            cheap = sum(one.cost <= rule.NATS for one in some)
            lines.append(
                f"| {family}, {part} | {len(some)} | {min(ratios):.2g} to {max(ratios):.2g} | {within} "
                f"| {max(factors):.2f} | {cheap} |"
            )
    lines += UNFOLD
    if len(held) > 1:
        names = "law B", "alpha^-1/2 with a constant per task", "free powers"
        errors = rule.rms(np.array([one.errors for one in held]), axis=0)
        spoken = ", ".join(
            f"{error:.2f} for {name}" for name, error in zip(names, errors, strict=True)
        )
        above = sum(one.lora > one.predicted for one in held)
        lines += ["", f"Root mean square of the log errors: {spoken}. LoRA's best learning rate lies above "
                  f"law B's at {above} of {len(held)} points."]  # fmt: skip
    frozen = [one.lora / one.predicted for one in measured if one.point.lora.get("frozen")]
    if frozen:
        lines += ["", f"With A frozen, law B has only its first term. LoRA's best learning rate is {min(frozen):.2f} to "
                  f"{max(frozen):.2f} times the one that this term predicts, at {len(frozen)} points."]  # fmt: skip
    lines += ["", *fold("Slopes that law B predicted for each grid, and those found")]
    lines += ["| grid | slope by law B | slope found |", "|-|-|-|"]
    for name, slope in slopes(measured).items():
        lines.append(f"| {name} | {rule.SLOPES[name]:.2f} | {slope:.2f} |")
    return "\n".join([*lines, *UNFOLD[:-1]])


def full_of(one: Measured) -> float:
    return one.full


def lora_of(one: Measured) -> float:
    return one.lora


def ratio_of(one: Measured) -> float:
    return one.lora / one.full


def factor_of(one: Measured) -> float:
    return one.factor


def slopes(measured: Sequence[Measured]) -> dict[str, float]:
    """The slopes of those grids of the rule that have run."""
    lora = {one.point.name: one.lora for one in measured}
    base: Mapping[str, Any] = {"setting": {"base": 1}}
    frozen: Mapping[str, Any] = {"lora": {"frozen": 1}}
    sgd: Mapping[str, Any] = {"setting": {"sgd": 1}}
    ends = {
        "digits 96, alpha 2 to 2,048": ("digits", 96, 2, 2048, {}),
        "digits 96, alpha 32,768 to 524,288": ("digits", 96, 32768, 524288, {}),
        "text 128, alpha 2 to 128": ("text", 128, 2, 128, {}),
        "text 128, alpha 1,024 to 8,192": ("text", 128, 1024, 8192, {}),
        "text 256, alpha 2 to 128": ("text", 256, 2, 128, base),
        "text 256, alpha 2,048 to 16,384": ("text", 256, 2048, 16384, base),
        "digits 96, frozen A, alpha 2 to 8,192": ("digits", 96, 2, 8192, frozen),
        "text 128, frozen A, alpha 8 to 2,048": ("text", 128, 8, 2048, frozen),
        "digits 96, SGD, alpha 8 to 128": ("digits", 96, 8, 128, sgd),
        "text 128, SGD, alpha 8 to 128": ("text", 128, 8, 128, sgd),
    }
    pairs = {
        name: (Point("", family, k, low, **more), Point("", family, k, high, **more), high / low)
        for name, (family, k, low, high, more) in ends.items()
    }
    for family in ("digits", "text"):
        low, high = (Point("", family, 128, setting={"gain": gain}) for gain in (1 / 64, 8))
        pairs[f"{family} 128, gain 1/64 to 8"] = low, high, 512
    pairs["digits, width 96 to 384"] = Point("", "digits", 96), Point("", "digits", 384), 4
    pairs["text, width 64 to 384"] = (
        Point("", "text", 64, **base),
        Point("", "text", 384, **base),
        6,
    )
    found = {
        name: float(np.log(lora[high.name] / lora[low.name]) / np.log(x))
        for name, (low, high, x) in pairs.items()
        if {low.name, high.name} <= {*lora}
    }
    groups = {
        "digits 128, steps, of full": ("digits", ("steps",)),
        "text 128, steps, of full": ("text", ("steps",)),
        "text 128, bases and sceptics, of full": ("text", ("base", "sceptic")),
    }
    for name, (family, parts) in groups.items():
        some = [one for one in measured if one.point.family == family and one.point.part in parts]
        if len(some) == sum(p.family == family and p.part in parts for p in rule.points()):
            full, best = (np.log([f(one) for one in some]) for f in (full_of, lora_of))
            found[name] = float(np.polyfit(full, best, 1)[0])
    return {name: found[name] for name in rule.SLOPES if name in found}


def published() -> str:
    """Markdown: what published rules predict for points that were recorded before the study."""
    rows = {
        "digits, two layers, 64": ("two layers", 64, 32),
        "text, 128": ("text", 128, 32),
        "SmolLM2, 576": ("smollm2", 576, 32),
        "text, 128, alpha 2": ("text", 128, 2),
        "SmolLM2, 576, alpha 512": ("smollm2", 576, 512),
    }
    lines = [
        "| recorded | full | LoRA | ten times | by width, Llama | by width, Qwen | law A | law B |"
    ]
    lines += ["|-|-|-|-|-|-|-|-|"]
    for name, where in rows.items():
        same = [row for row in rule.PILOT if row[:3] == where]
        full, lora = (float(np.exp(np.mean(np.log([row[i] for row in same])))) for i in (3, 4))
        _, k, alpha = where
        guesses = [10 * full, *(5e-4 * (2000 / k) ** power for power in (0.781, 0.0775))]
        guesses += [rule.law_a(full, alpha), rule.law_b(full, alpha, k)]
        cells = " | ".join(f"{x:.2g} ({x / lora:.2g})" for x in guesses)
        lines.append(f"| {name} | {full:.2g} | {lora:.2g} | {cells} |")
    return "\n".join(lines)


def show(line: str) -> None:
    print(f"{time.strftime('%H:%M')} {line}", flush=True)


def quickly() -> None:
    """Train the points of `QUICK`, in memory."""
    measured = run(Study(recorded=False), QUICK, show)
    slope = np.log(measured[1].lora / measured[0].lora) / np.log(256)
    show(f"digits, alpha 2 to 512: LoRA's best rate falls as alpha^{slope:.2f}; law B: -0.56")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m claims.rate_law_runs", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--part", type=share, default=(0, 1), help="which share, such as 0/2")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin no run after them"
    )
    parser.add_argument("--only", default="", help="points whose name has this word")
    parser.add_argument("--novels", type=Path, help="Rdata.rdb, to train bases of other widths")
    parser.add_argument("--smollm2", help="SmolLM2-135M, as `lora_np.language.load` takes it")
    parser.add_argument("--quick", action="store_true", help="the subset QUICK, in memory")
    parser.add_argument("--show", action="store_true", help="what is recorded; run nothing")
    parser.add_argument("--page", action="store_true", help="write it into the page and the card")
    args = parser.parse_args()
    if args.page:
        measured = recorded()
        parts = {
            "picture": picture(measured),
            "published": published(),
            "recorded": report(measured),
        }
        write_page(PAGE, parts)
        write("rate-law", STUDY)
        return
    study = Study(0 if args.show else args.minutes, args.novels, args.smollm2)
    part, of = args.part
    chosen = [one for one in rule.points() if args.only in one.name]
    if args.quick:
        quickly()
        print(TELLS)
        return
    measured = []
    for group in groups(chosen)[part::of]:
        measured += run(study, group, show)
    word, facts = verdict_so_far(measured)
    print("\n".join([word, *facts]))


def identities(measured: Sequence[Measured]) -> list[float]:
    """How far the full update's best rate is from what the identity says, as a factor."""
    full = {one.point.full: one.full for one in measured}
    found = []
    for one in measured:
        gain = one.point.setting.get("gain", 1)
        plain = {"digits": "digits 128", "text": "text 128, gain 1"}.get(one.point.family)
        if one.point.part == "units" and gain != 1 and plain in full:
            found.append(float(np.exp(abs(np.log(one.full * gain / full[plain])))))
    return found


STUDY = Card(
    title="LoRA's best learning rate follows the square root of the full update's best one, within a factor of 1.5.",
    paper="A law of our own, beside LoRA Without Regret, arXiv 2602.06204 and arXiv 2606.12883",
    topic="rate",
    setup="One layer of a network is trained on digits; the network is 64 wide at its ends and 64 to 384 wide inside. Language models 64 to 384 wide learn another text in 60 steps. One point is on SmolLM2, with 240 steps.",
    setting="The full update's best learning rate is found with one set of seeds, and LoRA's with another. We vary alpha, units, width, rank, steps and single choices of the setup.",
    rule="Committed before the runs. Supported if 90 % of all points lie within a factor of 1.5 of law B, none beyond 2.5, following it costs at most 0.01 nats at 90 %, and its errors are smaller than those of two rivals. Contradicted here if a quarter lie beyond 1.5.",
    published="LoRA needs ten times the full update's learning rate, whatever the rank.",
    limits="The law needs the full update's best learning rate, which you rarely know. It leaves out the number of steps, which moved LoRA's best learning rate on digits. The law's constant was set by eye on earlier runs.",
    advice="Sweep LoRA's learning rate. If you only know the best learning rate lr of full fine-tuning, begin at sqrt(lr / (2 alpha)), for an alpha of at most 128. At rank 8, LoRA's best learning rate was 0.7 to 1.5 times this value.",
    study="understand/learning-rate",
    meaning={
        "within": "share of points within a factor of 1.5 of the law",
        "cheap": "share of points where following the law costs at most 0.01 nats",
        "largest": "largest factor between LoRA's best learning rate and the law's",
        "lowest": "smallest ratio of LoRA's best learning rate to the full update's",
        "highest": "largest ratio of LoRA's best learning rate to the full update's",
        "identity": "largest factor between the full update's best learning rate and the identity's",
        "peft": "largest factor between the best learning rates of PEFT and ours",
        "constants": "the law's rms log error minus that of alpha^-1/2 with a constant per task",
        "powers": "the law's rms log error minus that of free powers of alpha and lr_full",
    },
    headline="within",
    words="points within a factor of 1.5 of the law",
    quick=TELLS,
    measure=measure,
    run_quickly=quickly,
)

if __name__ == "__main__":
    main()
