"""What the defaults of `fit` lose against the best learning rate, at ranks 1, 8 and 64.

    python -m claims sweep defaults

Each run is a call of `lora_np.fit`. The default run names no optimizer; the others differ from it
in the peak of the learning rate alone, by powers of the root of 2, until the best of them has been
compared with both its neighbours. The loss is of data held back. Since the same losses choose the
best rate, what the default loses is rather too large than too small.

The rule of `lora_np.lora.learning_rate` was made on the two tasks of `FAMILIAR` and on text. It
promises that on each task of `HELD_OUT`, at each rank, the default loses at most `NATS`; on the
regression, whose loss is not in nats, at most `SHARE` of what the best rate gains over the base.
Where it loses more, the docstring of `learning_rate` has the figure. When the larger rate for one
layer alone was taken, from recorded runs on the first and second layer of digits and on linear
tasks, it was known that the middle layer alone wanted 3 to 8 times the rule.

On text at other ranks and at 135 million parameters, where `finetune` clips and warms up, the
default is compared with the rates that are recorded of `claims.lab.text` and `claims.lab.longer`, between
two of which its loss is on a line. Raw results are lines of ``runs/defaults.jsonl``, with the loss
of each seed; a run that is there is not repeated.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import lora_np as lnp
from claims.lab import at_scale, batched, redrawn, setups
from claims.lab.redrawn import FOLDER, Book
from claims.lab.suites import DATA
from claims.lab.text import Text
from lora_np import datasets, language
from lora_np.checks import Array
from lora_np.nn import Adam, Linear, cosine_schedule, mean_squared_error

RANKS = (1, 8, 64)
NATS, SHARE = 0.05, 0.05
FIRST = 2000  # of the seeds, none of which another sweep has drawn
BOOK = Book(FOLDER / "defaults.jsonl")
LAYER = lnp.lora.LoRALinear


@dataclass(frozen=True)
class Task:
    """What a seed has drawn: a base, the data and settings of `fit`, and the loss that counts."""

    base: Any
    data: tuple[Any, ...]
    settings: Mapping[str, Any]
    loss: Callable[[Any], float]
    targets: Any = "all-linear"


def digits(
    seed: int, change: Callable[..., Any], width: int = 64, targets: Any = setups.HIDDEN
) -> Task:
    """A network that reads upright digits learns to read them changed, from 1,000 images."""
    images, labels = batched.digits()
    images, labels = change(images, labels, np.random.default_rng([seed, 30]))
    training, *halves = batched.split(seed)
    x, held = batched.flat(images), np.concatenate(halves)
    return Task(
        reader(seed, width),
        (x[training], labels[training]),
        {"loss": lnp.cross_entropy, "batch_size": 64},
        lambda model: setups.loss(model, (x[held], labels[held])),
        targets,
    )


@functools.cache
def reader(seed: int, width: int) -> Any:
    """A network 64-width-width-10 that has learnt to read upright digits."""
    images, labels = batched.digits()
    rng, training = np.random.default_rng([seed, 31]), batched.split(seed)[0]
    layer = lambda k, d: Linear.init(d_out=d, d_in=k, bias=True, rng=rng, dtype=np.float32)
    relu = lnp.Activation(lnp.nn.relu)
    layers: list[Any] = [layer(64, width), relu, layer(width, width), relu, layer(width, 10)]
    fitted = lnp.fit(
        lnp.Sequential(layers), batched.flat(images)[training], labels[training],
        loss=lnp.cross_entropy, optimizer=Adam(lr=cosine_schedule(3e-3, steps=500)), steps=500,
        batch_size=64, rng=rng, progress=False,
    )  # fmt: skip
    return lnp.freeze(fitted.model)


def rotated(images: Array, labels: Array, rng: Any) -> tuple[Array, Array]:
    return np.rot90(images, axes=(1, 2)), labels


def mirrored(images: Array, labels: Array, rng: Any) -> tuple[Array, Array]:
    return images[:, :, ::-1], labels


def inverted(images: Array, labels: Array, rng: Any) -> tuple[Array, Array]:
    return images.max() - images, labels


def renamed(images: Array, labels: Array, rng: Any) -> tuple[Array, Array]:
    return images, rng.permutation(10)[labels]


def linear(seed: int) -> Task:
    """A linear student becomes a linear teacher: `claims.lab.batched.Linear`, whose loss is exact."""
    drawn = batched.Linear(64).task(seed)
    x, y = drawn.halves[0]
    batches = list(zip(drawn.x, drawn.y, strict=True))
    loss = lambda model: squared(model, x, y)
    return Task(drawn.base, (batches,), {"loss": setups.batch_loss, "steps": len(batches)}, loss)


def squared(model: Any, x: Array, y: Array) -> float:
    return float(lnp.value(mean_squared_error(model(x), y)))


def regression(seed: int) -> Task:
    """A matrix that continues photographs learns to continue maps, from 1,000 patches at a time."""
    rng = np.random.default_rng([seed, 32])
    x, y = datasets.patches(datasets.photograph(), 5_000, rng=rng)
    ridge = 0.01 * float(np.mean(np.square(x)))
    B, A = lnp.linalg.reduced_rank_regression(x, y, ridge=ridge)
    pairs = datasets.patches(datasets.terrain(), 2_000, rng=rng)
    (x, held), (y, wanted) = (np.split(part.astype(np.float32), 2) for part in pairs)
    loss = lambda model: squared(model, held, wanted)
    return Task(Linear((B @ A).astype(np.float32)), (x, y), {}, loss)


def text(seed: int) -> Task:
    """A language model of novels learns a dictionary of jargon, of which two tenths are held back."""
    base = Text().base(seed)
    tokens = base.vocabulary.encode((DATA / "jargon.txt").read_text(encoding="ascii"))
    pieces = [language.windows(piece, 64) for piece in np.array_split(tokens, 10)]
    order = np.random.default_rng([seed, 33]).permutation(10)
    training, held = (np.concatenate([pieces[i] for i in part]) for part in np.split(order, [8]))
    rows = batched.batches(seed, len(training), 100, 4)
    settings = {"loss": language.token_loss, "steps": len(rows)}
    loss = lambda model: setups.mean_loss(model, held)
    return Task(base, (lambda step: training[rows[step]],), settings, loss)


FAMILIAR: dict[str, Callable[[int], Task]] = {
    "digits turned": lambda seed: digits(seed, rotated),
    "linear": linear,
}
HELD_OUT: dict[str, Callable[[int], Task]] = {
    "digits mirrored": lambda seed: digits(seed, mirrored),
    "digits inverted": lambda seed: digits(seed, inverted),
    "permuted names": lambda seed: digits(seed, renamed),
    **{
        f"middle layer, width {width}": functools.partial(
            digits, change=rotated, width=width, targets=setups.HIDDEN[1:]
        )
        for width in (64, 128, 256)
    },
    "regression": regression,
    "text": text,
}
TASKS = FAMILIAR | HELD_OUT
SEEDS = {name: 16 if name.startswith(("digits", "permuted")) else 8 for name in TASKS}
SEEDS["text"] = 4  # one for each base


def run(name: str, rank: int, place: int | str = 0) -> dict[str, Any]:
    """The default at place 0, others at root 2 to the place times its rate; "constant" does not
    decay, and "base" is not trained.
    """
    return {"task": name, "rank": rank, "place": place}


def once(task: Task, seed: int, rank: int, place: int | str) -> float:
    """The held-out loss of one run, infinite if it diverged."""
    if place == "base":
        return task.loss(task.base)
    rng = np.random.default_rng([seed, 23])
    model = lnp.inject(task.base, rank=rank, targets=task.targets, rng=rng)
    settings: dict[str, Any] = {"rng": seed, "progress": False, **task.settings}
    if place != 0:
        peak, steps = lnp.lora.learning_rate(model), settings.get("steps", 300)
        decayed = lambda place: cosine_schedule(peak * 2 ** (place / 2), steps=steps)
        settings["optimizer"] = Adam(lr=peak if place == "constant" else decayed(place))
    try:
        with np.errstate(all="ignore"):
            return task.loss(lnp.freeze(lnp.fit(model, *task.data, **settings).model))
    except FloatingPointError:
        return np.inf


def tried(name: str, rank: int, places: Sequence[int | str]) -> None:
    """Run what is missing."""
    new = [place for place in places if BOOK.missing(run(name, rank, place))]
    seeds = range(FIRST, FIRST + SEEDS[name])
    tasks = [TASKS[name](seed) for seed in seeds] if new else []
    for place in new:
        found = [once(task, seed, rank, place) for task, seed in zip(tasks, seeds, strict=True)]
        BOOK.note(run(name, rank, place), {"loss": np.array(found)})
        print(run(name, rank, place), f"{loss(name, rank, place):.4f}", flush=True)


def sweep() -> None:
    """Run what is missing of every task, until the best rate lies between two others."""
    for name in TASKS:
        for rank in RANKS:
            tried(name, rank, ["base", "constant", -4, -2, 0, 2, 4])
            while (wide := {best(name, rank, even=True) + i for i in (-2, 2)}) - known(name, rank):
                tried(name, rank, sorted(wide))
            while (near := {best(name, rank) + i for i in (-1, 1)}) - known(name, rank):
                tried(name, rank, sorted(near))


def known(name: str, rank: int) -> set[int]:
    """The places that have run."""
    return {place for place in range(-24, 25) if not BOOK.missing(run(name, rank, place))}


def best(name: str, rank: int, *, even: bool = False) -> int:
    """The place with the lowest mean loss."""
    places = [place for place in known(name, rank) if not (even and place % 2)]
    return min(places, key=lambda place: loss(name, rank, place))


def losses(name: str, rank: int, place: int | str) -> Array:
    """The loss of each seed."""
    return np.exp(BOOK.logs(run(name, rank, place), "loss"))


def loss(name: str, rank: int, place: int | str) -> float:
    return float(np.mean(losses(name, rank, place)))


@dataclass(frozen=True)
class Lost:
    """What the default loses: the mean in nats (or in squared error), its standard error over the
    seeds, its share of the gain, and the share that the rate without decay loses.
    """

    mean: float
    error: float
    share: float
    constant: float

    def kept(self, name: str) -> bool:
        """Whether the promise is kept."""
        return self.share <= SHARE if name in ("linear", "regression") else self.mean <= NATS


def lost(name: str, rank: int) -> Lost:
    """What the default of `fit` loses against the best rate."""
    lowest = best(name, rank)
    apart = losses(name, rank, 0) - losses(name, rank, lowest)
    gain = loss(name, rank, "base") - loss(name, rank, lowest)
    error = float(np.std(apart, ddof=1) / len(apart) ** 0.5)
    constant = loss(name, rank, "constant") - loss(name, rank, lowest)
    return Lost(float(np.mean(apart)), error, float(np.mean(apart)) / gain, constant)


def lost_on_text(rank: int) -> float:
    """What the default loses on text against the best recorded rate, in nats."""
    sweep = redrawn.sweeps("language")[f"LoRA, r = {rank}"]
    recorded = redrawn.Redrawn(sweep, range(sweep.seeds)).to_json()
    model = lnp.inject(setups.shipped(), rank=rank)
    assert {layer.alpha for _, layer in lnp.nn.walk(model) if isinstance(layer, LAYER)} == {
        recorded["method"]["alpha"]
    }
    return between_rates(recorded["rates"], model)


def lost_at_scale(name: str) -> float:
    """What the default rate at a method's alpha loses on SmolLM2 against the best recorded rate, in
    nats; NaN before the method has run. The loss is of the seeds that look for the rate.
    """
    runs = at_scale.Runs()
    if not runs.places(name):
        return float("nan")
    alpha = at_scale.METHODS[name][0]["alpha"]
    model = lnp.inject([Linear(np.zeros((576, 576))) for _ in range(2)], rank=1, alpha=alpha)
    return between_rates(runs.swept(name)["rates"], model)


def between_rates(rates: Mapping[str, Any], model: Any) -> float:
    """What a model's default rate loses against the best of some, between two of which its loss is on a
    line.
    """
    losses = {
        float(rate): float(np.mean(one["test"]))
        for rate, one in rates.items()
        if None not in one["test"]
    }
    chosen = lnp.lora.learning_rate(model)
    assert min(losses) <= chosen <= max(losses)
    logs = np.log([*losses]), [*losses.values()]
    return float(np.interp(np.log(chosen), *logs)) - min(losses.values())


__all__ = ["HELD_OUT", "RANKS", "lost", "lost_at_scale", "lost_on_text", "sweep"]
