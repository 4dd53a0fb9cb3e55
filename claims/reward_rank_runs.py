"""Runs of the study *How much rank does a reward need?*, by the rule of `claims.reward_rank_rule`.

    python -m claims.reward_rank_runs --minutes 60            go on where the last run has ended
    python -m claims.reward_rank_runs --only bandit           the bandit, language, or a task of it
    python -m claims.reward_rank_runs --part 0/2              one of two processes
    python -m claims.reward_rank_runs --quick                 a subset in memory, in half a minute
    python -m claims.reward_rank_runs --show                  what is recorded
    python -m claims.reward_rank_runs --page                  write it into page and card

Lines of ``runs/reward-rank.bandit.jsonl`` and ``.language.jsonl`` carry their settings, seeds, J, CPU
seconds and the commit of the rule; what is there does not run again. Draws depend on the seed alone, so
that ranks and learning rates meet the same images, prompts and noise.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import lora_np as lnp
from claims import reward_rank_rule as rule
from claims.lab import batched, methods
from claims.lab.committed import Card, Found, write
from claims.lab.kept import HERE, RUNS, Kept, OutOfTimeError, share, write_page
from claims.lab.text import BASES, loaded
from lora_np import language
from lora_np.checks import Array

PAGE = HERE.parent / "docs" / "understand" / "reward-rank.md"
# The quick subset, in small: few steps and four seeds
QUICK = [(1, 22, 60), (16, 22, 60)]
TELLS = (
    "This subset can tell that the estimator learns, and that a solution of rank 16 is beyond rank 1. "
    "It cannot tell bits from steps, and it says nothing about language."
)


# The estimator


def advantages(returns: Array, axis: int) -> Array:
    """How much better each sample is than the mean of the others, which it has no part in."""
    n = returns.shape[axis]
    return np.asarray((returns - returns.mean(axis=axis, keepdims=True)) * (n / (n - 1)))


def to_go(earned: Array) -> Array:
    """What is earned from each step on, along the last axis: a step cannot change the past."""
    return np.asarray(np.cumsum(earned[..., ::-1], axis=-1)[..., ::-1])


def surrogate(log_p: Any, weights: Array) -> Any:
    """REINFORCE: a loss whose gradient is that of minus the expected return, on average."""
    return -np.mean(weights.astype(lnp.value(log_p).dtype) * log_p)


# The bandit


@dataclass(frozen=True)
class Bandit:
    """Images, rewards and base of some seeds, side by side."""

    geometry: int
    bits: int
    seeds: Sequence[int]

    @functools.cached_property
    def drawn(self) -> tuple[Array, Array, Array, Array]:
        """Features to train on (seeds, n, k) and held back, W0 and T (seeds, actions, k)."""
        images = [features(seed) for seed in self.seeds]
        W0 = [np.random.default_rng([seed, 43]).normal(size=(64, 64)) / 8 for seed in self.seeds]
        T = [rule.teacher(self.geometry, self.bits, seed) for seed in self.seeds]
        training, held = ([pair[i] for pair in images] for i in (0, 1))
        return tuple(np.stack(x).astype(np.float32) for x in (training, held, W0, T))  # type: ignore[return-value]

    def references(self) -> tuple[Array, Array]:
        """J of the base and of the optimum, exactly, on the images held back."""
        _, held, W0, T = self.drawn
        log_p0, rewards = log_softmax(held @ transposed(W0)), held @ transposed(T)
        best = np.log(np.sum(np.exp(log_p0 + rewards / rule.BETA), axis=-1)).mean(axis=-1)
        return expected(log_p0, log_p0, rewards), rule.BETA * best

    def learnt(
        self, rank: int, rates: Sequence[float], steps: int, *, exact: bool = False
    ) -> Array:
        """J (seeds, rates) after training; rank 0 is the full update. ``exact`` follows the gradient of J
        itself, over all actions, instead of rewards of samples.
        """
        training, held, W0, T = self.drawn
        leaves = self.initial(rank, len(rates))
        moments = [[np.zeros_like(leaf.data) for _ in range(2)] for leaf in leaves]
        adam, draws = lnp.Adam(), [np.random.default_rng([seed, 42]) for seed in self.seeds]
        for step in range(steps):
            x = np.stack([rows[rng.integers(len(rows), size=rule.CONTEXTS)]
                          for rows, rng in zip(training, draws, strict=True)])  # fmt: skip
            log_p0, rewards = log_softmax(x @ transposed(W0))[:, None], (x @ transposed(T))[:, None]
            log_p = log_softmax(logits(x[:, None], W0[:, None], leaves, rank))
            if exact:
                loss = -np.sum(expected(log_p, log_p0, rewards))
            else:
                size = (rule.CONTEXTS, rule.SAMPLES, 1)
                noise = np.stack([rng.random(size) for rng in draws])[:, None]
                loss = np.sum(-log_p * sampled(log_p.data, log_p0, rewards, noise))
            loss.backward()
            lr = np.array([lnp.nn.linear_schedule(rate, steps=steps)(step) for rate in rates])
            column: Any = lr.astype(np.float32).reshape(1, -1, 1, 1)
            for leaf, pair in zip(leaves, moments, strict=True):
                assert leaf.grad is not None
                adam.update(leaf.data, leaf.grad, pair, np.empty_like(leaf.data), step, column)
                leaf.grad = None
        frozen = [leaf.data for leaf in leaves]
        log_p = log_softmax(logits(held[:, None], W0[:, None], frozen, rank))
        log_p0 = log_softmax(held @ transposed(W0))[:, None]
        return np.asarray(expected(log_p, log_p0, (held @ transposed(T))[:, None]), float)

    def initial(self, rank: int, rates: int) -> list[lnp.Tensor]:
        """A and B, or the update itself, of each seed and rate (seeds, rates, ...)."""
        shape = (len(self.seeds), rates)
        if not rank:
            return [lnp.Tensor(np.zeros((*shape, 64, 64), np.float32))]
        A = [lnp.lora.kaiming(np.random.default_rng([seed, 23]), rank, 64) for seed in self.seeds]
        spread = np.broadcast_to(np.stack(A).astype(np.float32)[:, None], (*shape, rank, 64))
        return [lnp.Tensor(spread.copy()), lnp.Tensor(np.zeros((*shape, 64, rank), np.float32))]


def logits(x: Any, W0: Array, leaves: Sequence[Any], rank: int) -> Any:
    if not rank:
        return x @ transposed(W0) + x @ transposed(leaves[0])
    A, B = leaves
    return x @ transposed(W0) + (x @ transposed(A)) @ transposed(B) * np.float32(rule.ALPHA / rank)


def sampled(log_p: Array, log_p0: Array, rewards: Array, noise: Array) -> Array:
    """Weights of log p (..., contexts, actions): the advantages of sampled actions, by the mean."""
    p = np.cumsum(np.exp(log_p), axis=-1)
    actions = np.sum(p[..., None, :-1] < noise, axis=-1)  # (..., contexts, samples)
    earned = rewards - rule.BETA * (log_p - log_p0)
    better = advantages(np.take_along_axis(earned, actions, axis=-1), axis=-1)
    flat = np.arange(better[..., 0].size)[:, None] * p.shape[-1] + actions.reshape(-1, rule.SAMPLES)
    sums = np.bincount(flat.ravel(), better.ravel(), minlength=p.size).reshape(p.shape)
    return (sums / (rule.CONTEXTS * rule.SAMPLES)).astype(np.float32)


def expected(log_p: Any, log_p0: Array, rewards: Array) -> Any:
    """J over all actions, the mean over contexts."""
    inside = rewards - rule.BETA * (log_p - log_p0)
    return np.mean(np.sum(np.exp(log_p) * inside, axis=-1), axis=-1)


def log_softmax(z: Any) -> Any:
    z = z - lnp.value(z).max(axis=-1, keepdims=True)
    return z - np.log(np.sum(np.exp(z), axis=-1, keepdims=True))


def transposed(M: Any) -> Any:
    return np.swapaxes(M, -1, -2)


@functools.cache
def features(seed: int) -> tuple[Array, Array]:
    """The last hidden layer of a network that reads digits, whitened on the images to train on (with a
    ridge of a thousandth of the largest variance); and the same of the images held back.
    """
    network = batched.readers(batched.BLOCK * (seed // batched.BLOCK))[seed % batched.BLOCK]
    h = batched.flat(batched.digits()[0])
    for layer in network.layers[:-1]:
        h = layer(h)
    training, *halves = batched.split(seed)
    mean = h[training].mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov((h[training] - mean).T.astype(float)))
    whiten = (vectors / np.sqrt(values + 1e-3 * values[-1])) @ vectors.T
    held = np.concatenate(halves)
    return (h[training] - mean) @ whiten, (h[held] - mean) @ whiten


# The language model


@dataclass(frozen=True)
class Writer:
    """A base that is rewarded for what it writes."""

    task: str
    seed: int

    @property
    def base(self) -> Any:
        return loaded(BASES[self.seed % len(BASES)])

    @property
    def beta(self) -> float:
        return rule.LANGUAGE[self.task]

    def earned(self, tokens: Array) -> Array:
        """The reward of each character that was written (n, `WRITTEN`)."""
        encode = self.base.vocabulary.encode
        if self.task == "lipogram":
            return -np.isin(tokens[:, rule.PROMPT :], encode("eE")).astype(float)
        letters = encode("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'")
        starts = ~np.isin(tokens[:, rule.PROMPT - 1 : -1], letters)
        return (np.isin(tokens[:, rule.PROMPT :], encode("sS")) & starts).astype(float)

    def write(self, model: Any, n: int, rng: np.random.Generator) -> Array:
        """Tokens (n, `PROMPT` + `WRITTEN`) that a model writes after prompts from anywhere in a book."""
        text = language.read_text("austen-held-out")
        starts = rng.integers(len(text) - rule.PROMPT, size=n)
        prompts = [text[i : i + rule.PROMPT] for i in starts]
        settings: dict[str, Any] = {"tokens": rule.WRITTEN, "temperature": 1.0, "rng": rng}
        written = language.generate(model, prompts, **settings)
        return np.array([self.base.vocabulary.encode(one) for one in written])

    def log_p(self, model: Any, tokens: Array) -> Any:
        """Log p of each character that was written, given all before it (n, `WRITTEN`)."""
        labels = np.full(tokens[:, 1:].shape, -100)
        labels[:, rule.PROMPT - 1 :] = tokens[:, rule.PROMPT :]
        return language.log_probabilities(model, tokens[:, :-1], labels)[:, rule.PROMPT - 1 :]

    def trained(self, rank: int, lr: float, steps: int = rule.LANGUAGE_STEPS) -> Any:
        """REINFORCE with the KL divergence in the reward."""
        rng = np.random.default_rng([self.seed, 23])
        method: dict[str, Any] = {"kind": "lora", "rank": rank, "alpha": rule.ALPHA}
        model = methods.initialised(self.base, rng, None, **(method if rank else {"kind": "full"}))
        schedule = lnp.cosine_schedule(lr, steps=steps)
        run, rng = lnp.training_run(lnp.Adam(lr=schedule), model), np.random.default_rng(self.seed)
        for _ in range(steps):
            tokens = self.write(lnp.freeze(model), rule.GROUP, rng)
            log_p = self.log_p(model, tokens)
            apart = lnp.value(log_p) - lnp.value(self.log_p(self.base, tokens))
            returns = to_go(self.earned(tokens) - self.beta * apart)
            surrogate(log_p, advantages(returns, axis=0)).backward()
            run.step()
        return lnp.freeze(model)

    def measured(self, model: Any) -> dict[str, float]:
        """J, reward and KL divergence per character, the divergence exact at each one."""
        rows = []
        rng = np.random.default_rng([self.seed % len(BASES), 44])
        for _ in range(rule.EVALUATED // 128):
            tokens = self.write(model, 128, rng)
            ours, theirs = (
                log_softmax(one(tokens[:, :-1])[:, rule.PROMPT - 1 :]) for one in (model, self.base)
            )
            divergence = np.sum(np.exp(ours) * (ours - theirs), axis=-1)
            rows.append([self.earned(tokens).mean(), divergence.mean()])
        reward, kl = np.mean(rows, axis=0)
        return {"J": rounded(reward - self.beta * kl), "reward": rounded(reward), "kl": rounded(kl)}

    def references(self) -> dict[str, float]:
        """J of the base, of the policy without foresight, of a plain ban, and of the optimum."""
        found = {"base": self.measured(self.base)["J"]}
        rng = np.random.default_rng([self.seed % len(BASES), 45])
        found["no foresight"] = self.tilted(rng, 1 / self.beta)
        if self.task == "lipogram":
            found["ban"] = self.tilted(rng, 30.0)
            counts = np.concatenate(
                [-self.earned(self.write(self.base, 256, rng)).sum(axis=1) for _ in range(16)]
            )
            best = self.beta / rule.WRITTEN * np.log(np.mean(np.exp(-counts / self.beta)))
            found["optimum"] = rounded(best)
        return found

    def tilted(self, rng: np.random.Generator, strength: float, n: int = 256) -> float:
        """J of the base with its probabilities times exp(strength x reward), character by character."""
        tokens = self.write(self.base, n, rng)
        gain = []
        for i in range(rule.PROMPT, tokens.shape[1]):
            log_p0 = log_softmax(self.base(tokens[:, :i])[:, -1])
            reward = self.rewards(tokens[:, i - 1])
            log_p = log_softmax(log_p0 + strength * reward)
            p = np.exp(log_p)
            gain.append(np.mean(np.sum(p * (reward - self.beta * (log_p - log_p0)), axis=-1)))
            tokens[:, i] = np.sum(np.cumsum(p, axis=-1)[:, :-1] < rng.random((n, 1)), axis=-1)
        return rounded(np.mean(gain))

    def rewards(self, before: Array) -> Array:
        """The reward of each next character (n, vocabulary) after some."""
        vocabulary = len(lnp.value(self.base.lm_head.W))
        pairs = np.zeros((len(before) * vocabulary, rule.PROMPT + 1), int)
        pairs[:, -2] = np.repeat(before, vocabulary)
        pairs[:, -1] = np.tile(np.arange(vocabulary), len(before))
        return self.earned(pairs).reshape(len(before), vocabulary)


def rounded(x: Any) -> float:
    return round(float(x), 5)


# What runs, and what is recorded


@dataclass
class Study:
    """What has run, and what is missing."""

    minutes: float = float("inf")
    recorded: bool = True  # False: in memory

    def __post_init__(self) -> None:
        ends = time.monotonic() + 60 * self.minutes
        place = lambda name: RUNS / f"reward-rank.{name}.jsonl" if self.recorded else None
        names = ("bandit", "language")
        self.kept = {name: Kept(place(name), Path(rule.__file__), ends) for name in names}

    def bandit(self, task: tuple[int, int, int], rank: int, block: int, width: int = 8) -> Array:
        """The share of the gap (seeds,) that a rank closes at the best rate of a closed grid: each
        half of the seeds has the rate that is best for the other.
        """
        geometry, bits, steps = task
        seeds = range(block * rule.SEEDS, block * rule.SEEDS + width)
        setup = Bandit(geometry, bits, seeds)
        settings = {"geometry": geometry, "bits": bits, "seeds": seeds[0]}
        keep = self.kept["bandit"].once
        lines = lambda pair: {"base": [*map(rounded, pair[0])], "optimum": [*map(rounded, pair[1])]}
        known = keep(settings, lambda: lines(setup.references()))
        base, optimum = np.array(known["base"]), np.array(known["optimum"])

        def at(place: int) -> Array:
            lr = float(f"{rule.START[rank] * rule.FACTOR**place:.4g}")
            run = settings | {"steps": steps, "rank": rank, "rate": lr}
            learn = lambda: {"J": [*map(rounded, setup.learnt(rank, [lr], steps)[:, 0])]}
            return np.asarray((np.array(keep(run, learn)["J"]) - base) / (optimum - base))

        halves = slice(None, width // 2), slice(width // 2, None)
        shares = closed(at, halves)
        best = [max(shares, key=lambda place: shares[place][half].mean()) for half in halves]
        return np.concatenate([shares[best[1]][halves[0]], shares[best[0]][halves[1]]])

    def floor(self, task: tuple[int, int, int], block: int = 0) -> Array:
        """The share of the gap that rank 1 closes with exact gradients: what geometry and optimisation
        leave, whatever the rewards say.
        """
        geometry, bits, steps = task
        setup = Bandit(geometry, bits, range(block * rule.SEEDS, (block + 1) * rule.SEEDS))
        base, optimum = setup.references()

        def at(place: int) -> Array:
            lr = float(f"{rule.START[1] * rule.FACTOR**place:.4g}")
            run = {"geometry": geometry, "bits": bits, "seeds": setup.seeds[0], "steps": steps, "rank": 1, "rate": lr, "exact": 1}  # fmt: skip
            learn = lambda: {"J": [*map(rounded, setup.learnt(1, [lr], steps, exact=True)[:, 0])]}
            found = np.array(self.kept["bandit"].once(run, learn)["J"])
            return np.asarray((found - base) / (optimum - base))

        shares = closed(at, (slice(None),))
        return max(shares.values(), key=np.mean)

    def language(self, task: str, rank: int, seeds: int) -> Array:
        """J (seeds,) of a rank at the rate that is best for the first seeds."""
        keep = self.kept["language"].once

        def at(place: int, some: Iterable[int]) -> Array:
            lr = float(f"{rule.LANGUAGE_START[rank] * rule.FACTOR**place:.4g}")
            found = []
            for seed in some:
                writer = Writer(task, seed)
                run = {"task": task, "rank": rank, "rate": lr, "seed": seed}
                learn = lambda writer=writer: writer.measured(writer.trained(rank, lr))
                found.append(keep(run, learn)["J"])
            return np.array(found)

        few = range(rule.LOOK)
        shares = closed(lambda place: at(place, few), (slice(None),))
        best = max(shares, key=lambda place: shares[place].mean())
        return at(best, range(seeds))

    def references(self, task: str) -> list[Mapping[str, float]]:
        """What each base reaches without learning."""
        keep = self.kept["language"].once
        return [keep({"task": task, "base": i}, Writer(task, i).references) for i in range(4)]


def closed(at: Callable[[int], Array], halves: Sequence[slice]) -> dict[int, Array]:
    """Rates a factor apart, until the best of each half has been compared with both neighbours."""
    shares = {place: at(place) for place in (0, -1, 1)}
    while True:
        best = [max(shares, key=lambda place: shares[place][half].mean()) for half in halves]
        missing = {place + i for place in best for i in (-1, 1)} - {*shares}
        if not missing:
            return shares
        shares |= {place: at(place) for place in sorted(missing)}


def tasks() -> list[tuple[int, int, int]]:
    return [(g, b, n) for n in rule.STEPS for g in rule.GEOMETRIES for b in rule.BITS]


def blocks(study: Study) -> int:
    """Sets of eight seeds: as many as the rule asks for, from what is recorded."""
    count = 1
    while count * rule.SEEDS < rule.MOST:
        found = behind(study, count)
        few = [rule.effect(found[geometry, 22, 600]) for geometry in rule.GEOMETRIES]
        if max(one.smallest for one in [*few, *rule.causes(found).values()]) <= rule.SMALLEST:
            break
        count += 1
    return count


def behind(study: Study, count: int) -> dict[tuple[int, int, int], Array]:
    """How far rank 1 is behind the full update, in shares of the gap, of each seed."""
    joined = lambda task, rank: np.concatenate([study.bandit(task, rank, i) for i in range(count)])
    return {task: joined(task, 0) - joined(task, 1) for task in tasks()}


def bandits(study: Study, part: int, of: int) -> None:
    """All ranks of every task, and then what the verdict needs."""
    jobs = [(task, rank) for task in tasks() for rank in rule.RANKS]
    for task, rank in jobs[part::of]:
        shares = study.bandit(task, rank, 0)
        show(f"rank {rank or 'full'}, {task}: {shares.mean():.3f} of the gap")
    for task in tasks()[part::of]:
        show(f"rank 1, exact gradients, {task}: {study.floor(task).mean():.3f} of the gap")
    if of == 1:
        word, facts = rule.verdict(behind(study, blocks(study)))
        print("\n".join([word, *map(in_words, facts)]))


def languages(study: Study, part: int, of: int, tasks: Iterable[str] = rule.LANGUAGE) -> None:
    """References, then every task and rank with the seeds that search, then with all."""
    for task in tasks:
        show(f"{task}: {study.references(task)}")
    jobs = [(seeds, task, rank) for seeds in (rule.LOOK, rule.SEEDS) for task in tasks
            for rank in rule.LANGUAGE_RANKS]  # fmt: skip
    for seeds, task, rank in jobs[part::of]:
        found = study.language(task, rank, seeds)
        show(f"{task}, rank {rank or 'full'}, {seeds} seeds: J {found.mean():.4f}")


# The page and the card


def measure() -> Found:
    """What is recorded, for the card."""
    study = Study(minutes=0)
    count = blocks(study)
    known = behind(study, count)
    word, facts = rule.verdict(known)
    effects = rule.causes(known) | {
        f"rank{geometry}": rule.effect(known[geometry, 22, 600]) for geometry in rule.GEOMETRIES
    }
    figures = {name: (one.mean, one.low, one.high) for name, one in effects.items()}
    figures["smallest"] = (max(one.smallest for one in effects.values()),) * 3
    shares = {}
    for name, task in (("few", (16, 22, 600)), ("many", (1, 512, 600))):
        shares[name] = float(study.bandit(task, 1, 0).mean())
        figures[name] = (shares[name],) * 3
    figures |= {
        f"{task} {name}": (one.mean, one.low, one.high)
        for task in rule.LANGUAGE
        for name, (one, _) in beside(study, task).items()
    }
    return Found(
        verdict=word,
        verdicts=word,
        finding=f"With 22 bits of reward, rank 1 closed {100 * shares['few']:.0f} % of the gap where the solution has rank 16. "
        f"With 512 bits it closed {100 * shares['many']:.0f} % where the solution has rank 1.",
        facts=[f"{word.capitalize()}, {count * rule.SEEDS} seeds."] + [f"{fact[0].upper()}{fact[1:]}." for fact in map(in_words, facts)],
        figures=figures,
        seconds=sum(line["cpu"] for kept in study.kept.values() for line in kept.lines.values()),
    )  # fmt: skip


def beside(study: Study, task: str) -> dict[str, tuple[rule.Effect, str]]:
    """J of rank 1 minus that of the full update and of rank 16, in shares of the gap, with the rule's
    word for it; empty before all seeds of rank 1 have run.
    """
    found = {}
    with contextlib.suppress(OutOfTimeError):
        size = gap(study, task)
        one = study.language(task, 1, rule.SEEDS)
        for rank, name in ((0, "full"), (16, "rank 16")):
            with contextlib.suppress(OutOfTimeError):
                other = study.language(task, rank, rule.SEEDS)
                word = rule.language_verdict([*one], [*other], size)
                found[name] = rule.effect((one - other) / size), word
    return found


def gap(study: Study, task: str) -> float:
    """J from the base to the best that is known without training, the mean of four bases: to the
    optimum, or for the words in s to the policy without foresight.
    """
    best = "optimum" if task == "lipogram" else "no foresight"
    return float(np.mean([one[best] - one["base"] for one in study.references(task)]))


def report(study: Study) -> str:
    """Markdown: what each rank achieves in the bandit, and the verdict once all of it has run."""
    lines = [
        "| bits | solution's rank | steps | rank 1 | rank 4 | rank 16 | full | rank 1, exact gradients |",
        "|-|-|-|-|-|-|-|-|",
    ]
    for geometry, bits, steps in sorted(tasks(), key=lambda task: (task[1], task[0], task[2])):
        task = geometry, bits, steps
        cells = []
        for rank in rule.RANKS:
            with contextlib.suppress(OutOfTimeError):
                cells.append(f"{100 * study.bandit(task, rank, 0).mean():.1f}")
        with contextlib.suppress(OutOfTimeError):
            cells.append(f"{100 * study.floor(task).mean():.1f}")
        if len(cells) == len(rule.RANKS) + 1:
            lines.append(f"| {bits} | {geometry} | {steps} | {' | '.join(cells)} |")
    try:
        count = blocks(study)
        word, facts = rule.verdict(behind(study, count))
    except OutOfTimeError:
        return "\n".join(["**Not run yet.**", "", *lines])
    seeds = f"{count * rule.SEEDS} seeds."
    return "\n".join(
        [*lines, "", f"**{word.capitalize()}**, {seeds}", "", *(f"- {in_words(x)}" for x in facts)]
    )


def in_words(fact: str) -> str:
    """A sentence of the rule, whose file cannot change any more, in whole words."""
    fact = re.sub(r"^(bits|steps) does", r"\1 do", fact)
    return re.sub(
        r"; (\S+) would have been seen", r"; an effect of \1 would have been detected", fact
    )


def language_report(study: Study) -> str:
    """Markdown: J of each rank beside what needs no learning, as far as it has run."""
    lines = []
    for task in rule.LANGUAGE:
        with contextlib.suppress(OutOfTimeError):
            known = study.references(task)
            names = [
                name for name in ("base", "no foresight", "ban", "optimum") if name in known[0]
            ]
            means = {name: float(np.mean([one[name] for one in known])) for name in names}
            spoken = ", ".join(f"{name} {mean:.4f}" for name, mean in means.items())
            lines.append(
                f"- {task}, without learning: {spoken} (J per character, mean of four bases)"
            )
        for rank in rule.LANGUAGE_RANKS:
            for seeds in (rule.SEEDS, rule.LOOK):
                with contextlib.suppress(OutOfTimeError):
                    found = study.language(task, rank, seeds)
                    name = f"rank {rank}" if rank else "full"
                    lines.append(f"- {task}, {name}, {seeds} seeds: {found.mean():.4f}")
                    break
        lines += [
            f"- {task}, rank 1 beside {name}: **{word}**, {one.mean:.3f} ({one.low:.3f} to {one.high:.3f}) of the gap; "
            f"an effect of {one.smallest:.3f} would have been detected"
            for name, (one, word) in beside(study, task).items()
        ]
    return "\n".join(lines) or "Not run yet."


def show(line: str) -> None:
    print(f"{time.strftime('%H:%M')} {line}", flush=True)


def quickly() -> None:
    """Train the tasks of `QUICK` with four seeds, in memory."""
    study = Study(recorded=False)
    for task in QUICK:
        for rank in (1, 0):
            shares = study.bandit(task, rank, 0, width=4)
            show(f"rank {rank or 'full'}, {task}: {shares.mean():.3f} of the gap")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m claims.reward_rank_runs", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--part", type=share, default=(0, 1), help="which share, such as 0/2")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin no run after them"
    )
    only = ["bandit", "language", *rule.LANGUAGE]
    parser.add_argument("--only", choices=only, help="one half of the study, or one task of it")
    parser.add_argument("--quick", action="store_true", help="the subset QUICK, in memory")
    parser.add_argument("--show", action="store_true", help="what is recorded; run nothing")
    parser.add_argument("--page", action="store_true", help="write it into the page and the card")
    args = parser.parse_args()
    if args.page:
        known = Study(minutes=0)
        write_page(PAGE, {"bandit": report(known), "language": language_report(known)})
        write("reward-rank", STUDY)
        return
    if args.quick:
        quickly()
        print(TELLS)
        return
    study = Study(0 if args.show else args.minutes)
    work: Callable[..., None]
    for name, work in (("bandit", bandits), ("language", languages)):
        if args.only in rule.LANGUAGE:
            work = functools.partial(languages, tasks=[args.only])
        if args.only in (None, name) or (name == "language" and args.only != "bandit"):
            try:
                work(study, *args.part)
            except OutOfTimeError:
                show(f"{name}: out of time; the same command goes on")


STUDY = Card(
    title="A reward needs little rank, because it gives few bits.",
    paper="Schulman and others, LoRA Without Regret (2025), on policy gradients",
    topic="rank",
    setup="The main setup is a bandit on features of digits. It has 64 actions, one module of 64 x 64, and learns from rewards only. Tasks have 22 or 512 bits, and an exact solution of rank 1 or 16. A language model of 750,720 parameters has two rewards of its own.",
    setting="We train by REINFORCE with a KL penalty, for 150 and for 600 steps, with linear decay. Each rank is run at the best learning rate of its grid, which is extended until the best is at neither end.",
    rule="Committed before the runs. Supported if rank 1 keeps up with the full update on both tasks of 22 bits, within 2 % of the gap, and bits explain where it falls behind. Contradicted here if it falls behind on a task of 22 bits.",
    published="On mathematics, rank 1 learns as well from policy gradients as the full update.",
    limits="The bandit's features are white and its tasks linear, so all directions of a solution matter equally. In a network, many modules of rank 1 act together. On two rewards of the language model, 150 steps at rank 1 and of the full update differ by less than 5 % of the gap.",
    advice="Choose the rank for a reward as for any task: raise it until the reward stops rising. Counting the bits of the rewards does not tell you the rank.",
    study="understand/reward-rank",
    meaning={
        "geometry": "cost to rank 1 of a solution of rank 16 instead of rank 1, in shares of the gap",
        "bits": "cost to rank 1 of 512 bits instead of 22, in shares of the gap",
        "steps": "cost to rank 1 of 150 steps instead of 600, in shares of the gap",
        "rank1": "how far rank 1 is behind the full update, 22 bits, solution of rank 1, in shares of the gap",
        "rank16": "how far rank 1 is behind the full update, 22 bits, solution of rank 16, in shares of the gap",
        "smallest": "smallest effect that four of five such studies would have seen",
        "few": "share of the gap that rank 1 closed, 22 bits, solution of rank 16",
        "many": "share of the gap that rank 1 closed, 512 bits, solution of rank 1",
        "lipogram full": "J of rank 1 minus J of the full update, lipogram, in shares of the gap",
        "lipogram rank 16": "J of rank 1 minus J of rank 16, lipogram, in shares of the gap",
        "s words full": "J of rank 1 minus J of the full update, words that begin with s, in shares of the gap",
        "s words rank 16": "J of rank 1 minus J of rank 16, words that begin with s, in shares of the gap",
    },
    headline="rank16",
    words="rank 1 behind the full update on 22 bits",
    quick=TELLS,
    measure=measure,
    run_quickly=quickly,
)

if __name__ == "__main__":
    main()
