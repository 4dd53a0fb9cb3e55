"""Many runs at once: the setups digits and linear with everything drawn anew for each seed.

A seed draws the base, the split of the images, the start and the order of the batches; no base sees
an image that a loss is reported of. The runs of one method differ in their seed, their learning
rate and their scale, and share every matrix product, which NumPy does for all of them: 64 seeds
cost seconds. Each run is what `lora_np.fit` gives for it alone, which a test holds.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import lora_np as lnp
from claims.lab import methods, setups
from lora_np.checks import Array
from lora_np.lora import DoRALinear, LoRALinear
from lora_np.lora.variants import HiRALinear, XSLinear

SEEDS = 64
BLOCK = 8  # seeds that train side by side: what they touch stays in the cache
PARTS = (1000, 400, 397)  # images to train on, and two halves: one chooses a rate, the other counts
HALVES = ("first", "second")


class Task(NamedTuple):
    """What a seed has drawn."""

    base: Any
    x: Array  # (steps, batch, k)
    y: Array  # (steps, batch, ...)
    halves: tuple[tuple[Array, Array], ...]
    start: tuple[Array, Array]  # a batch whose gradient some starts ask for


class Setup:
    """What many runs at once need of a setup."""

    targets: Any
    loss: Any

    def tasks(self, seeds: Sequence[int]) -> list[Task]:
        raise NotImplementedError

    def factor_seed(self, seed: int) -> int:
        """The seed that draws A and B."""
        return seed

    def runs(self, seeds: Sequence[int], rates: Sequence[float], **method: Any) -> dict[str, Array]:
        """Losses (seeds, rates) of each half."""
        return run(self, seeds, rates, **method)


@dataclass(frozen=True)
class Digits(Setup):
    """A network 64-64-64-10 that reads upright digits learns to read them on their side, or another of
    the new tasks in `NEW`.
    """

    steps: int = 300
    batch: int = 64
    new: str = "side"
    images: int = PARTS[0]  # to train on

    targets = setups.HIDDEN
    loss = staticmethod(lnp.cross_entropy)

    def tasks(self, seeds: Sequence[int]) -> list[Task]:
        return [self.task(seed, readers(BLOCK * (seed // BLOCK))[seed % BLOCK]) for seed in seeds]

    def task(self, seed: int, base: Any, order: int | None = None) -> Task:
        """What a seed has drawn, with the order of the batches that another one draws."""
        x, labels = NEW[self.new](*digits(), seed)
        training, *halves = split(seed)
        training = training[: self.images]
        chosen = training[
            batches(seed if order is None else order, len(training), self.steps, self.batch)
        ]
        some = training[:512]
        return Task(
            base,
            x[chosen],
            labels[chosen],
            tuple((x[half], labels[half]) for half in halves),
            (x[some], labels[some]),
        )

    def losses(self, outputs: Any, y: Array) -> Any:
        """Cross-entropy of each run, of outputs (..., n, 10)."""
        shifted = outputs - lnp.value(outputs).max(axis=-1, keepdims=True)
        right = np.sum(shifted * np.eye(outputs.shape[-1], dtype=np.float32)[y], axis=-1)
        return np.mean(np.log(np.sum(np.exp(shifted), axis=-1)) - right, axis=-1)


@functools.cache
def digits() -> tuple[Array, Array]:
    return lnp.datasets.digits()


def on_their_side(images: Array, labels: Array, seed: int) -> tuple[Array, Array]:
    """Digits turned by a quarter: the old pixels in another order."""
    return flat(np.rot90(images, axes=(1, 2))), labels


def other_names(images: Array, labels: Array, seed: int) -> tuple[Array, Array]:
    """Upright digits, of which each class takes the name of another one: a seed draws a cycle of all
    ten, so that no class keeps its name.
    """
    cycle = np.random.default_rng([seed, 24]).permutation(10)
    names = np.empty(10, labels.dtype)
    names[cycle] = np.roll(cycle, 1)
    return flat(images), names[labels]


def nearby(images: Array, labels: Array, seed: int) -> tuple[Array, Array]:
    """Upright digits, shifted by two pixels to the right; what leaves on one side enters on the other,
    so that no pixel is lost.
    """
    return flat(np.roll(images, 2, axis=2)), labels


NEW = {"side": on_their_side, "names": other_names, "near": nearby}  # what digits may learn


def flat(images: Array) -> Array:
    return (images.reshape(len(images), -1) - 0.3).astype(np.float32)


def split(seed: int) -> list[Array]:
    """The images to train on, and both halves."""
    order = np.random.default_rng([seed, 20]).permutation(sum(PARTS))
    return np.split(order, np.cumsum(PARTS)[:-1])


def batches(seed: int, n: int, steps: int, batch: int) -> Array:
    """Which of n are in each batch (steps, batch): every epoch in another order."""
    rng = np.random.default_rng([seed, 21])
    epochs = -(-steps * batch // n)
    return np.concatenate([rng.permutation(n) for _ in range(epochs)])[: steps * batch].reshape(
        steps, batch
    )


@functools.cache
def readers(first: int) -> list[Any]:
    """A block of networks, each trained on the upright images that its seed trains on."""
    return upright([(seed, seed) for seed in range(first, first + BLOCK)])


def upright(draws: Sequence[tuple[int, int]], width: int = 64) -> list[Any]:
    """Networks 64-width-width-10 that read upright digits: of each, one seed draws the split, another
    start and order.
    """
    images, labels = digits()
    x, tasks = flat(images), []
    for part, seed in draws:
        rng = np.random.default_rng([seed, 22])
        layer = lambda d, k, rng=rng: lnp.Linear.init(
            d_out=d, d_in=k, bias=True, rng=rng, dtype=np.float32
        )
        relu = lnp.Activation(lnp.nn.relu)
        network = lnp.Sequential(
            [layer(width, 64), relu, layer(width, width), relu, layer(10, width)]
        )
        chosen = split(part)[0][batches(seed + 1000, PARTS[0], 500, 64)]
        tasks.append(Task(network, x[chosen], labels[chosen], (), (x[:1], labels[:1])))
    networks = [task.base for task in tasks]
    runs = Runs(tasks, networks, [3e-3], lambda lr: lnp.cosine_schedule(lr, steps=500))
    for _ in runs.train(Digits(steps=500)):
        pass
    return runs.models()


@dataclass(frozen=True)
class Linear(Setup):
    """A linear student shall become a linear teacher: `claims.lab.setups.Linear`, whose loss is exact."""

    width: int = 48
    decay: float = 0.9
    steps: int = 150
    batch: int = 64
    noise: float = 0.0

    targets = "all-linear"
    loss = staticmethod(lnp.mean_squared_error)

    def tasks(self, seeds: Sequence[int]) -> list[Task]:
        return [self.task(seed) for seed in seeds]

    def task(self, seed: int) -> Task:
        W0, D = setups.Linear(self.width, self.decay).task(seed)
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(self.steps * self.batch + 256, self.width)).astype(np.float32)
        y = x @ (W0 + D).T
        y += self.noise * rng.normal(size=y.shape).astype(np.float32)
        first, x, y = (x[:256], y[:256]), x[256:], y[256:]
        # on these rows the loss is ||W - W0 - D||^2 / ||D||^2
        size = np.float32(self.width / np.linalg.norm(D))
        exact = (size * np.eye(self.width, dtype=np.float32), size * (W0 + D).T)
        x, y = (part.reshape(self.steps, self.batch, -1) for part in (x, y))
        return Task(lnp.Sequential([lnp.Linear(W0)]), x, y, (exact, exact), first)

    def losses(self, outputs: Any, y: Array) -> Any:
        return np.mean((outputs - y) ** 2, axis=(-2, -1))


@dataclass(frozen=True)
class Descent(Linear):
    """The linear task by plain gradient descent, one run after another, which some hook acts on."""

    def runs(self, seeds: Sequence[int], rates: Sequence[float], **method: Any) -> dict[str, Array]:
        alone = setups.Linear(self.width, self.decay, self.steps, self.batch, self.noise)
        untrained = method["kind"] == "untrained"  # a share of ||D||^2
        found = np.full((len(seeds), len(rates)), 1.0 if untrained else np.inf)
        for i, seed in enumerate([] if untrained else seeds):
            for j, lr in enumerate(rates):
                with (
                    np.errstate(all="ignore"),
                    contextlib.suppress(FloatingPointError, np.linalg.LinAlgError),
                ):
                    found[i, j] = alone.run(lr, seed, adam=False, **method)["test"]
        return dict.fromkeys(HALVES, np.where(np.isfinite(found), found, np.inf))


class Runs:
    """Runs of a block of seeds (first axis) at some rates (second axis), as one model."""

    rule: lnp.nn.Optimizer = lnp.Adam()

    def __init__(
        self,
        tasks: Sequence[Task],
        models: Sequence[Any],
        rates: Sequence[float],
        schedule: Any,
        *,
        ratio: float = 1.0,
        scales: Sequence[float] | None = None,
        spectral: bool = False,
        decay: Sequence[float] | None = None,
        dropout: Sequence[float] | None = None,
        masks: Sequence[np.random.Generator] = (),
    ):
        self.spectral, self.decay, self.masks = spectral, decay, masks
        self.dropout = None if dropout is None else column(dropout, 4)
        self.tasks, self.rates, self.schedule, self.ratio = tasks, rates, schedule, ratio
        self.model = models[0]
        leaves = [dict(lnp.leaves(lnp.freeze(model))) for model in models]
        trained = {path for path, _ in lnp.trainable(models[0])}
        self.arrays: dict[str, Any] = {}
        for path in leaves[0]:
            stacked: Any = np.stack([lnp.value(leaf[path]) for leaf in leaves])[:, None]
            if path in trained:
                shape = (len(tasks), len(rates), *stacked.shape[2:])
                stacked = lnp.Tensor(np.broadcast_to(stacked, shape).copy())
            self.arrays[path] = stacked
        self.scales = None if scales is None else column(scales, 4)

    def train(self, setup: Any) -> Iterator[int]:
        """Adam (or LoRA-Muon), step by step, all runs at once; yields after each step."""
        leaves = {path: leaf for path, leaf in self.arrays.items() if isinstance(leaf, lnp.Tensor)}
        moments = {
            path: [np.zeros_like(leaf.data) for _ in range(2)] for path, leaf in leaves.items()
        }
        x, y = (np.stack([part[i] for part in self.tasks], axis=1) for i in (1, 2))
        adam: Any = self.rule  # which takes a learning rate for each run as well
        for step in range(setup.steps):
            outputs = self.forward(x[step][:, None], dropping=self.dropout is not None)
            np.sum(setup.losses(outputs, y[step][:, None])).backward()
            lr = np.asarray([self.schedule(rate)(step) for rate in self.rates], np.float32)
            if self.spectral:
                spectral_step(leaves, moments, column(lr, 4))
            for path, leaf in {} if self.spectral else leaves.items():
                faster = self.ratio if path.endswith("B") else 1.0
                if self.decay is not None:  # AdamW's
                    leaf.data *= 1 - column(lr * np.asarray(self.decay), leaf.ndim)
                scratch = np.empty_like(leaf.data)
                adam.update(
                    leaf.data,
                    leaf.grad,
                    moments[path],
                    scratch,
                    step,
                    column(faster * lr, leaf.ndim),
                )
            for leaf in leaves.values():
                leaf.grad = None
            yield step

    def forward(self, x: Any, *, dropping: bool = False) -> Any:
        """Outputs (seeds, rates, n, d) of inputs (seeds, 1, n, k)."""
        for i, layer in enumerate(self.model.layers):
            own = {path.removeprefix(f"layers.{i}."): leaf for path, leaf in self.arrays.items()
                   if path.startswith(f"layers.{i}.")}  # fmt: skip
            if dropping and isinstance(layer, LoRALinear):
                own["kept"] = self.kept(x.shape[-2:])
            x = RESPONSES[type(layer)](layer, own, x, self.scales)
        return x

    def kept(self, shape: tuple[int, ...]) -> Array:
        """What dropout multiplies inputs by: runs of a seed that differ in their rate of dropout draw the
        same numbers.
        """
        drawn = np.stack([rng.random(shape, dtype=np.float32) for rng in self.masks])[:, None]
        share = np.asarray(self.dropout)
        return np.asarray((drawn >= share) / (1 - share), np.float32)

    def losses(self, setup: Any, half: int) -> Array:
        """The loss (seeds, rates) on one half; of a run that diverged, infinite."""
        x, y = (np.stack([task.halves[half][i] for task in self.tasks])[:, None] for i in (0, 1))
        frozen = self.arrays
        self.arrays = {path: lnp.value(leaf) for path, leaf in frozen.items()}
        found = np.asarray(setup.losses(self.forward(x), y), float)
        self.arrays = frozen
        return np.where(np.isfinite(found), found, np.inf)

    def models(self) -> list[Any]:
        """The model of each seed at the first rate, frozen."""
        arrays = {path: lnp.value(leaf)[:, 0] for path, leaf in self.arrays.items()}
        change = lambda i: lambda path, W: arrays[path.split(" = ")[0]][i]
        frozen = lnp.freeze(self.model)
        return [lnp.replace(frozen, np.ndarray, change(i)) for i in range(len(self.tasks))]


def column(values: Any, dimensions: int) -> Array:
    """One value for each rate, along the second axis."""
    return np.asarray(values, np.float32).reshape(1, -1, *[1] * (dimensions - 2))


def transposed(M: Any) -> Any:
    return np.swapaxes(M, -1, -2)


def affine(x: Any, W: Any, b: Any) -> Any:
    h = x @ transposed(W)
    return h if b is None else h + b[..., None, :]


def linear(layer: Any, own: Any, x: Any, scales: Any) -> Any:
    return affine(x, own["W"], own.get("b"))


def lora(layer: Any, own: Any, x: Any, scales: Any) -> Any:
    scale = np.float32(layer.scale) if scales is None else scales
    dropped = x * own["kept"] if "kept" in own else x
    low = (dropped @ transposed(own["A"])) @ transposed(own["B"]) * scale
    return affine(x, own["base.W"], own.get("base.b")) + low


def dora(layer: Any, own: Any, x: Any, scales: Any) -> Any:
    inner = {path.removeprefix("lora."): leaf for path, leaf in own.items()}
    BA = lnp.value(inner["B"]) @ lnp.value(inner["A"]) * np.float32(layer.lora.scale)
    norms = np.linalg.norm(inner["base.W"] + BA, axis=-1)
    h = lora(layer.lora, inner, x, scales) * (own["m"] / norms)[..., None, :]
    return h + own["b"][..., None, :] if "b" in own else h


def xs(layer: Any, own: Any, x: Any, scales: Any) -> Any:
    low = x @ transposed(own["A"]) @ transposed(own["R"]) @ transposed(own["B"])
    return affine(x, own["base.W"], own.get("base.b")) + low


def hira(layer: Any, own: Any, x: Any, scales: Any) -> Any:
    W = own["base.W"] * (1 + np.float32(layer.scale) * (own["B"] @ own["A"]))
    return affine(x, W, own.get("base.b"))


def vera(layer: Any, own: Any, x: Any, scales: Any) -> Any:
    inner = (x @ transposed(own["A"])) * own["inner"][..., None, :]
    low = inner @ transposed(own["B"]) * own["outer"][..., None, :]
    return affine(x, own["base.W"], own.get("base.b")) + low


RESPONSES = {
    lnp.Linear: linear,
    lnp.Activation: lambda layer, own, x, scales: layer(x),
    LoRALinear: lora,
    DoRALinear: dora,
    XSLinear: xs,
    HiRALinear: hira,
    methods.VeRA: vera,
}


def spectral_step(leaves: Mapping[str, Any], moments: Mapping[str, Any], lr: Array) -> None:
    """One step of LoRA-Muon (arXiv 2606.12921), with exact polar factors and momentum 0.9:
    ``B -= lr / 2 polar(m_B R_A) R_A``, ``A -= lr / 2 R_B polar(R_B m_A)``, where R_A is
    ``(A A^T)^-1/2`` and R_B is ``(B^T B)^-1/2``.
    """
    for path in leaves:
        if path.endswith(".B"):
            A, B = leaves[path[:-1] + "A"], leaves[path]
            for name, leaf in ((path[:-1] + "A", A), (path, B)):
                moments[name][0][...] = 0.9 * moments[name][0] + 0.1 * leaf.grad
            to_a, to_b = (moments[name][0].astype(float) for name in (path[:-1] + "A", path))
            root_a, root_b = inverse_root(gram(A.data)), inverse_root(gram(transposed(B.data)))
            along_a, along_b = root_b @ to_a, to_b @ root_a
            A.data -= (lr / 2) * (root_b @ inverse_root(gram(along_a)) @ along_a)
            B.data -= (lr / 2) * (along_b @ inverse_root(gram(transposed(along_b))) @ root_a)


def gram(M: Array) -> Array:
    """``M M^T``, in 64 bits."""
    wide = M.astype(float)
    return np.asarray(wide @ transposed(wide))


def inverse_root(G: Array) -> Array:
    """``G^-1/2`` of Gram matrices, a little above zero; of a zero matrix, zero."""
    values, vectors = np.linalg.eigh(G)
    largest = values[..., -1:]
    shrunk = np.where(largest > 0, np.maximum(values, 0) + 1e-6 * largest, np.inf) ** -0.5
    return np.asarray((vectors * shrunk[..., None, :]) @ transposed(vectors))


def starts(setup: Any, tasks: Sequence[Task], seeds: Sequence[int], method: Any) -> list[Any]:
    """The model that each seed trains."""
    found = []
    for task, seed in zip(tasks, seeds, strict=True):
        if method["kind"] == "untrained":
            found.append(task.base)
            continue
        first = lambda model, task=task: setup.loss(model(task.start[0]), task.start[1])
        rng = np.random.default_rng([setup.factor_seed(seed), 23])
        found.append(
            methods.initialised(task.base, rng, first, **{"targets": setup.targets, **method})
        )
    return found


def run(
    setup: Any,
    seeds: Sequence[int],
    rates: Sequence[float],
    *,
    scales: Sequence[float] | None = None,
    decay: Sequence[float] | None = None,
    dropout: Sequence[float] | None = None,
    **method: Any,
) -> dict[str, Array]:
    """Losses (seeds, rates) on both halves, at the end and after a quarter of the steps.

    ``scales`` take the place of alpha / r, one for each rate, and so do weight decay and dropout. Of the kind *untrained* they are the
    losses of the base.
    """
    blocks = []
    for first in range(0, len(seeds), BLOCK):
        some = seeds[first : first + BLOCK]
        tasks = setup.tasks(some)
        models = starts(setup, tasks, some, method)
        schedule = lambda lr: lnp.nn.linear_schedule(lr, steps=setup.steps)
        ratio = method.get("ratio", 16.0 if method.get("kind") == "lora+" else 1.0)
        muon = method.get("spectral", False)
        masks = [np.random.default_rng([seed, 25]) for seed in some]
        runs = Runs(
            tasks,
            models,
            rates,
            schedule,
            ratio=ratio,
            scales=scales,
            spectral=muon,
            decay=decay,
            dropout=dropout,
            masks=masks,
        )
        found: dict[str, Array] = {}
        with np.errstate(all="ignore"):
            for step in runs.train(setup) if method["kind"] != "untrained" else ():
                if step == setup.steps // setups.EARLY:
                    found |= {f"early {h}": runs.losses(setup, i) for i, h in enumerate(HALVES)}
            found |= {half: runs.losses(setup, i) for i, half in enumerate(HALVES)}
        blocks.append(found)
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
