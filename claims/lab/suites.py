"""Suites of merging: adapters of one base for several tasks, and what is left of each task in the
merged model.

What is reported is relative to each task's own adapter: 1 is as good as that. The scale of a merged
update is chosen on validation data, for each method; the test data choose nothing.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import lora_np as lnp
from claims.lab import setups
from lora_np import adapters, language
from lora_np.checks import Array

Pair = tuple[Array, Array]  # B (d, r) and A (r, k), with the scale in B
Scores = dict[str, list[float]]  # each measure, for each task
SCALES = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
HIDDEN = ["layers.0", "layers.2"]
DATA = Path(__file__).parents[1] / "data"


@dataclass(frozen=True, eq=False)
class Task:
    """An adapter of the suite, by path of the layer, and the data that it was made for."""

    pairs: Mapping[str, Pair]
    base: Any  # with the task's own head, if it has one
    parts: Mapping[str, Any]  # training, validation and test

    def model(self, updates: Mapping[str, Array], scale: float = 1.0) -> Any:
        """The base with ``scale`` times these updates."""
        change = lambda path, W: W + scale * updates[owner(path)] if owner(path) in updates else W
        return lnp.replace(self.base, np.ndarray, change)

    def own(self) -> dict[str, Array]:
        return {path: B @ A for path, (B, A) in self.pairs.items()}


def owner(path: str) -> str:
    """The layer of a weight's path, or nothing for a bias."""
    layer, _, name = path.split(" = ")[0].rpartition(".")
    return layer if name == "W" else ""


def factors(tuned: Any) -> dict[str, Pair]:
    """What was trained: for each layer B, times the scale, and A."""
    nodes = ((path, node) for path, node in lnp.nn.walk(tuned) if isinstance(node, lnp.LoRALinear))
    return {path: (node.scale * lnp.value(node.B), lnp.value(node.A)) for path, node in nodes}


# ---- digits


@dataclass(frozen=True)
class Digits:
    """Six adapters on a network 64-96-96-10 that reads upright digits: its two hidden layers, rank 4.

    ``kind``: "mild" (shifts, strokes, brightness), "hard" (turned, mirrored, inverted, scrambled),
    "heads" (three pairs of digits, each with a head of its own, the first two of which turned), or
    "conflict", where ``conflict`` from 0 (all tasks are one) to 1 (unrelated rotations of the pixels)
    is the angle between the tasks.
    """

    kind: str = "mild"
    conflict: float = 1.0
    rank: int = 4
    steps: int = 400
    batch: int = 128
    lr: float = 5e-3

    def tasks(self, seed: int) -> dict[str, Task]:
        """Train them."""
        network, images, labels, parts = reader(seed)
        found = {}
        for i, (name, change) in enumerate(changes(self.kind, seed, self.conflict).items()):
            rng = np.random.default_rng([seed, 3, i])
            base, own = network, np.arange(len(labels))
            if self.kind == "heads":
                own = np.flatnonzero(labels // 2 == i)
                head = lnp.Linear(
                    rng.normal(size=(2, 96)).astype(np.float32) / 10, np.zeros(2, np.float32)
                )
                base = lnp.Sequential([*network.layers[:-1], head])
            x = flat(change(images))
            data = {part: (x[rows], labels[rows] % 2 if self.kind == "heads" else labels[rows])
                    for part, rows in ((part, np.intersect1d(rows, own)) for part, rows in parts.items())}  # fmt: skip
            found[name] = self.train(base, data, rng)
        return found

    def train(self, base: Any, data: Mapping[str, Any], rng: np.random.Generator) -> Task:
        adapted = lnp.inject(base, rank=self.rank, alpha=2 * self.rank, targets=HIDDEN, rng=rng)
        if self.kind == "heads":  # the head is the task's own: it is trained and not merged
            head = lnp.replace(adapted.layers[-1], np.ndarray, lambda path, W: lnp.Tensor(W.copy()))
            adapted = replace(adapted, layers=(*adapted.layers[:-1], head))
        tuned = fit(adapted, data["training"], self.steps, self.batch, self.lr, rng)
        if self.kind == "heads":
            base = replace(base, layers=(*base.layers[:-1], lnp.freeze(tuned).layers[-1]))
        return Task(factors(tuned), base, data)

    def score(self, model: Any, data: Any) -> dict[str, float]:
        logits = model(data[0])
        right = float(lnp.nn.accuracy(logits, data[1]))
        return {"loss": float(lnp.value(lnp.cross_entropy(logits, data[1]))), "right": right}

    def grams(self, task: Task, rows: int = 200) -> dict[str, Array]:
        """``X.T @ X`` of what each adapted layer of the base is given for some inputs of the
        task.
        """
        x, found = task.parts["training"][0][:rows], {}
        for i, layer in enumerate(task.base.layers):
            found[f"layers.{i}"] = x.T @ x
            x = np.asarray(layer(x))
        return {path: found[path] for path in task.pairs}


def fit(
    model: Any,
    data: tuple[Array, Array],
    steps: int,
    batch: int,
    lr: float,
    rng: np.random.Generator,
) -> Any:
    """Adam, the rate falling as half a cosine."""
    return lnp.fit(
        model, *data, loss=lnp.cross_entropy, steps=steps, batch_size=min(batch, len(data[0])), progress=False,
        rng=rng, optimizer=lnp.Adam(lr=lnp.cosine_schedule(lr, steps=steps)),
    ).model  # fmt: skip


@functools.cache
def reader(seed: int) -> tuple[Any, Array, Array, dict[str, Array]]:
    """The network that has learnt upright digits, the images, their digits, and three parts of the
    places.
    """
    images, labels = lnp.datasets.digits()
    rng = np.random.default_rng([seed, 2])
    parts = np.split(rng.permutation(len(images)), [1000, 1300])
    layer = lambda d, k: lnp.Linear.init(d_out=d, d_in=k, bias=True, rng=rng, dtype=np.float32)
    relu = lnp.Activation(lnp.nn.relu)
    network = lnp.Sequential([layer(96, 64), relu, layer(96, 96), relu, layer(10, 96)])
    base = fit(network, (flat(images)[parts[0]], labels[parts[0]]), 400, 128, 3e-3, rng)
    return (
        lnp.freeze(base),
        images,
        labels,
        dict(zip(("training", "validation", "test"), parts, strict=True)),
    )


def flat(images: Array) -> Array:
    """Images as rows, around zero."""
    return np.ascontiguousarray(images - 0.3).reshape(len(images), -1).astype(np.float32)


def changes(kind: str, seed: int, conflict: float) -> dict[str, Callable[[Array], Array]]:
    """What each task does to the images (n, 8, 8)."""
    rng = np.random.default_rng([seed, 4])
    if kind == "mild":
        veil = 0.4 * rng.normal(size=(8, 8))
        return {
            "left": lambda x: np.roll(x, -1, 2),
            "right": lambda x: np.roll(x, 1, 2),
            "up": lambda x: np.roll(x, -1, 1),
            "thick": lambda x: np.maximum(x, np.maximum(np.roll(x, 1, 2), np.roll(x, -1, 2))),
            "bright": lambda x: x**0.3,
            "veiled": lambda x: x + veil,
        }
    if kind == "conflict":
        return {
            f"turned {i}": functools.partial(rotated, Q)
            for i, Q in enumerate(rotations(rng, conflict))
        }
    order = rng.permutation(64)
    hard: dict[str, Callable[[Array], Array]] = {
        "turned": lambda x: np.rot90(x, 1, (1, 2)),
        "mirrored": lambda x: x[:, :, ::-1],
        "inverted": lambda x: 1 - x,
        "transposed": lambda x: x.transpose(0, 2, 1),
        "shifted": lambda x: np.roll(x, 3, 2),
        "scrambled": lambda x: x.reshape(-1, 64)[:, order].reshape(-1, 8, 8),
    }
    return (
        {f"{2 * i} or {2 * i + 1}": each for i, each in enumerate([*hard.values()][:5])}
        if kind == "heads"
        else hard
    )


def rotated(Q: Array, images: Array) -> Array:
    return (flat(images) @ Q).reshape(images.shape) + 0.3


def rotations(rng: np.random.Generator, conflict: float, tasks: int = 6) -> list[Array]:
    """``expm(S0 + conflict (S_i - S0))``: six rotations of the 64 pixels, equal at 0 and unrelated
    at 1.
    """
    skews = [M - M.T for M in rng.normal(size=(tasks, 64, 64)) / 8]
    found = []
    for S in skews:
        between = skews[0] + conflict * (S - skews[0])
        angles, V = np.linalg.eigh(1j * between)
        found.append(((V * np.exp(-1j * angles)) @ V.conj().T).real)
    return found


# ---- styles


@dataclass(frozen=True)
class Styles:
    """Six adapters on the shipped model of Austen, one for each text: all linear layers, rank 4."""

    rank: int = 4
    steps: int = 60
    batch: int = 8
    context: int = 64
    lr: float = 1e-2
    held: int = 12  # rows of validation and of test

    def tasks(self, seed: int) -> dict[str, Task]:
        found = {}
        for i, (name, text) in enumerate(texts().items()):
            rng = np.random.default_rng([seed, 5, i])
            rows = language.windows(setups.shipped().vocabulary.encode(text), self.context)
            held = (
                rng.choice(len(rows) // 5, 2 * self.held, replace=False)
                + len(rows)
                - len(rows) // 5
            )
            parts = {"training": rows[: len(rows) - len(rows) // 5],
                     "validation": rows[held[: self.held]], "test": rows[held[self.held :]]}  # fmt: skip
            found[name] = self.train(parts, rng)
        return found

    def train(self, parts: Mapping[str, Any], rng: np.random.Generator) -> Task:
        adapted = lnp.inject(
            setups.shipped(), rank=self.rank, alpha=2 * self.rank, targets="all-linear", rng=rng
        )
        chosen = rng.integers(len(parts["training"]), size=(self.steps, self.batch))
        tuned = lnp.fit(
            adapted, lambda step: parts["training"][chosen[step]], loss=language.token_loss, steps=self.steps,
            clip=1.0, progress=False, optimizer=lnp.Adam(lr=lnp.cosine_schedule(self.lr, steps=self.steps, warmup=5)),
        ).model  # fmt: skip
        return Task(factors(tuned), setups.shipped(), parts)

    def score(self, model: Any, data: Any) -> dict[str, float]:
        return {"loss": float(lnp.value(language.token_loss(model, data)))}

    def grams(self, task: Task, rows: int = 16) -> dict[str, Array]:
        """The mean of ``x x^T`` over what each adapted layer of the base is given for some rows of
        the task's text.
        """
        text = setups.shipped().vocabulary.decode(task.parts["training"][:rows, :-1].ravel())
        found = language.grams(setups.shipped(), text, max_length=self.context)
        return {path: found[path] for path in task.pairs}


@functools.cache
def texts() -> dict[str, str]:
    """40,000 characters of each style."""
    found = {name: language.read_text(name)[:40_000] for name in ("genesis", "devils-dictionary")}
    found |= {
        name: (DATA / f"{name}.txt").read_text(encoding="ascii")
        for name in ("psalms", "elements", "jargon")
    }
    pixels = (lnp.datasets.digits()[0][:300].reshape(-1, 8) * 16).astype(int)
    return found | {"numbers": "\n".join(" ".join(map(str, row)) for row in pixels)}


# ---- merging


def merged(
    tasks: Mapping[str, Task],
    method: str,
    seed: int,
    *,
    grams: Any = None,
    weights: Any = None,
    **options: Any,
) -> dict[str, Array]:
    """The updates of all tasks in one, by a row of `lora_np.lora.MERGE_METHODS`."""
    found = {}
    weights = dict.fromkeys(tasks, 1.0) if weights is None else weights
    if lnp.lora.MERGE_METHODS[method].chance:
        options["rng"] = np.random.default_rng([seed, 6])
    for path in next(iter(tasks.values())).pairs:
        terms = [lnp.lora.WeightedUpdate(*task.pairs[path], weights[name], gram=None if grams is None else grams[name][path])
                 for name, task in tasks.items()]  # fmt: skip
        B, A = lnp.lora.MERGE_METHODS[method](terms, **options)
        found[path] = (B @ A).astype(np.float32)
    return found


def scores(
    suite: Any, tasks: Mapping[str, Task], part: str, updates: Any = None, scale: float = 1.0
) -> Scores:
    """Each task by the base with these updates; by default, with its own."""
    found = [suite.score(task.model(task.own() if updates is None else updates, scale), task.parts[part])
             for task in tasks.values()]  # fmt: skip
    return {name: [each[name] for each in found] for name in found[0]}


def best_scale(suite: Any, tasks: Mapping[str, Task], updates: Any, measure: str) -> float:
    """The scale whose validation result is best."""
    result = lambda scale: mean(scores(suite, tasks, "validation", updates, scale), measure)
    return climbed(result, measure, 0.4)


def best_weights(
    suite: Any, tasks: Mapping[str, Task], seed: int, measure: str, start: float
) -> dict[str, float]:
    """A weight for each task: one after the other, twice, each the best on validation data."""
    weights = dict.fromkeys(tasks, start)
    for name in [*tasks, *tasks]:
        result = lambda weight, name=name: mean(
            scores(
                suite,
                tasks,
                "validation",
                merged(tasks, "sum", seed, weights={**weights, name: weight}),
            ),
            measure,
        )
        weights[name] = climbed(result, measure, weights[name])
    return weights


def equal_norms(tasks: Mapping[str, Task]) -> dict[str, float]:
    """Weights that make all updates as large as they are on average."""
    sizes = {
        name: sum(np.sum(D**2) for D in task.own().values()) ** 0.5 for name, task in tasks.items()
    }
    return {name: float(np.mean([*sizes.values()]) / size) for name, size in sizes.items()}


def mean(found: Scores, measure: str) -> float:
    return float(np.mean(found[measure]))


def climbed(result: Callable[[float], float], measure: str, start: float) -> float:
    """The best of `SCALES`, by climbing from ``start``."""
    known = functools.cache(lambda i: result(SCALES[i]) * (-1 if measure == "loss" else 1))
    place = SCALES.index(start)
    while True:
        near = [i for i in (place, place - 1, place + 1) if 0 <= i < len(SCALES)]
        best = max(near, key=known)
        if best == place:
            return SCALES[place]
        place = best


def adapter(task: Task) -> adapters.Adapter:
    """A task's LoRA as `lora_np.adapters` knows it."""
    modules = {
        path: adapters.AdapterModule.of(A=A, B=B, alpha=len(A))
        for path, (B, A) in task.pairs.items()
    }
    return adapters.Adapter(modules)


def guesses(
    tasks: Mapping[str, Task], grams: Mapping[str, Mapping[str, Array]]
) -> dict[str, dict[str, float]]:
    """Guesses of what each pair will lose, by "a, b".

    "overlap" and "cosine" are those of `lora_np.adapters.overlap`; "moved" needs inputs: how far
    the other's update moves the outputs on a task's own inputs, as a share of what its own update
    does.
    """
    rows = adapters.overlap([adapter(task) for task in tasks.values()]).rows
    pairs, found = itertools.combinations(tasks, 2), {}
    for (a, b), row in zip(pairs, (row for row in rows if row.module == "all"), strict=True):
        moved = []
        for mine, other in ((a, b), (b, a)):
            theirs, ours = (
                sum(np.sum((D @ grams[mine][path]) * D) for path, D in tasks[name].own().items())
                for name in (other, mine)
            )
            moved.append((theirs / ours) ** 0.5)
        found[f"{a}, {b}"] = {
            "overlap": row.overlap,
            "cosine": row.cosine,
            "moved": float(np.mean(moved)),
        }
    return found


def pair_losses(suite: Any, tasks: Mapping[str, Task]) -> dict[str, dict[str, float]]:
    """What each pair loses when both updates are added, on average over its tasks.

    "lost" is in nats, "share" relative to what each task's own adapter had gained over the base.
    """
    nothing = merged(tasks, "sum", 0, weights=dict.fromkeys(tasks, 0.0))
    of = lambda some, updates=None: np.array(scores(suite, some, "test", updates)["loss"])
    own, base = (
        dict(zip(tasks, losses, strict=True)) for losses in (of(tasks), of(tasks, nothing))
    )
    found = {}
    for pair in itertools.combinations(tasks, 2):
        two = {name: tasks[name] for name in pair}
        more = of(two, merged(two, "sum", 0)) - [own[name] for name in pair]
        gained = np.array([base[name] - own[name] for name in pair])
        found[", ".join(pair)] = {
            "lost": float(np.mean(more)),
            "share": float(np.mean(more / gained)),
        }
    return found


def rank_correlation(x: Any, y: Any) -> float:
    """Spearman's."""
    return float(np.corrcoef([np.argsort(np.argsort(each)) for each in (x, y)])[0, 1])


CLAIMED = ("sum", "linear", "ties_svd", "dare_linear_svd", "knots", "tsv", "regmean")


@dataclass(frozen=True)
class Merging:
    """The rate trains six adapters of a suite of digits; then every method merges them, its scale
    tuned.

    The loss is that of the single adapters. Beside it, for each method the share of what they read
    right that is left.
    """

    kind: str
    steps: int = 400

    def shortened(self) -> Merging:
        return replace(self, steps=self.steps // 2)

    def run(self, lr: float, seed: int, **method: Any) -> dict[str, float]:
        suite = Digits(self.kind, lr=lr, steps=self.steps, rank=method["rank"])
        tasks = suite.tasks(seed)
        grams = {name: suite.grams(task) for name, task in tasks.items()}
        own = scores(suite, tasks, "test")
        found = {
            "validation": mean(scores(suite, tasks, "validation"), "loss"),
            "test": mean(own, "loss"),
        }
        updates = {method: merged(tasks, method, seed, grams=grams) for method in CLAIMED}
        left = lambda D, scale: float(
            np.mean(np.divide(scores(suite, tasks, "test", D, scale)["right"], own["right"]))
        )
        for name, D in updates.items():
            found[name] = left(D, best_scale(suite, tasks, D, "right"))
        return found | {"none": left(updates["sum"], 0.0), "untuned": left(updates["sum"], 1.0)}
