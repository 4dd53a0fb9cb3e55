"""Setups: what a method is trained on. Each gives a validation loss, which chooses rates, and a test
loss.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import lora_np as lnp
from claims.lab import methods
from lora_np import language
from lora_np.checks import Array

EARLY = 4  # "early" is after this part of the steps
HIDDEN = ["layers.0", "layers.2"]  # the layers of the digits' network that are adapted


def shuffled(seed: int) -> np.random.Generator:
    """What orders the batches: the same for every method, however many numbers its start has drawn."""
    return np.random.default_rng([seed, 1])


@dataclass(frozen=True)
class Linear:
    """A linear student shall become a linear teacher, ``W0 + D``; D has singular values
    ``decay^i``.

    Inputs are standard normal, so the test loss is exact: ``||W - W0 - D||^2 / ||D||^2``, and the
    best that rank r can do is `floor`. Each step sees a new batch.
    """

    width: int = 48
    decay: float = 0.9
    steps: int = 150
    batch: int = 64
    noise: float = 0.0  # standard deviation added to each target, in units of the signal's

    def shortened(self) -> Linear:
        return replace(self, steps=self.steps // 2)

    def floor(self, rank: int) -> float:
        """The smallest test loss of a rank (Eckart-Young)."""
        squares = self.decay ** (2.0 * np.arange(self.width))
        return float(squares[rank:].sum() / squares.sum())

    def task(self, seed: int) -> tuple[Array, Array]:
        """W0 and D, which turns a typical input into an output of the same length."""
        rng = np.random.default_rng([seed, 7])
        d = self.width
        W0 = rng.normal(size=(d, d)) / d**0.5
        U, V = (np.linalg.qr(rng.normal(size=(d, d)))[0] for _ in range(2))
        s = self.decay ** np.arange(d)
        D = (U * (s * np.sqrt(d / np.sum(s**2)))) @ V.T
        return W0.astype(np.float32), D.astype(np.float32)

    def run(self, lr: float, seed: int, **method: Any) -> dict[str, float]:
        W0, D = self.task(seed)
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(self.steps * self.batch + 256, self.width)).astype(np.float32)
        y = x @ (W0 + D).T
        y += self.noise * rng.normal(size=y.shape).astype(np.float32)
        held, x, y = (x[:256], y[:256]), x[256:], y[256:]
        first = lambda model: lnp.mean_squared_error(model(held[0]), held[1])
        model = methods.initialised(lnp.Linear(W0), rng, first, **method)
        error = lambda model: float(np.sum((matrix(model) - W0 - D) ** 2) / np.sum(D**2))
        early: list[float] = []
        x, y = (part.reshape(self.steps, self.batch, -1) for part in (x, y))
        batches = list(zip(x, y, strict=True))

        def watch(step: int, model: Any) -> None:
            if method.get("kind") == "galore":
                methods.projected(
                    step, model, method["every"], lambda m: batch_loss(m, batches[step])
                )
            if step == self.steps // EARLY:
                early.append(error(model))
            if hook := method.get("hook"):
                HOOKS[hook](model)

        rate = lnp.nn.linear_schedule(lr, steps=self.steps)
        tuned = lnp.fit(
            model, batches, loss=batch_loss, steps=self.steps, progress=False, watch=watch,
            optimizer=methods.optimizer(rate, **method),
        ).model  # fmt: skip
        apart = matrix(tuned) @ held[0].T - held[1].T
        validation = float(np.mean(apart**2))
        return {"validation": validation, "test": error(tuned), "early": early[0]}


def matrix(model: Any) -> Array:
    """The matrix that a layer multiplies by."""
    eye = np.eye(lnp.leaves(model)[0][1].shape[1], dtype=np.float32)
    return np.asarray(lnp.freeze(model)(eye)).T


def batch_loss(model: Any, batch: tuple[Array, Array], rng: Any = None) -> Any:
    return lnp.mean_squared_error(model(batch[0]), batch[1])


def scaled_descent(layer: Any) -> None:
    """``dA <- (s^2 B^T B + damping I)^-1 dA``, ``dB <- dB (s^2 A A^T + damping I)^-1`` (arXiv
    2402.02347).
    """
    A, B, eye = layer.A, layer.B, 1e-4 * np.eye(layer.rank, dtype=np.float32)
    gram_b, gram_a = (
        layer.scale**2 * (B.data.T @ B.data) + eye,
        layer.scale**2 * (A.data @ A.data.T) + eye,
    )
    A.grad, B.grad = np.linalg.solve(gram_b, A.grad), np.linalg.solve(gram_a, B.grad.T).T


HOOKS = {"scaled descent": scaled_descent}


@dataclass(frozen=True)
class Digits:
    """A network 64-64-64-10 that reads upright digits shall read them on their side;
    cross-entropy.
    """

    steps: int = 300
    batch: int = 64

    def shortened(self) -> Digits:
        return replace(self, steps=self.steps // 2)

    def run(self, lr: float, seed: int, **method: Any) -> dict[str, float]:
        base, parts = reader()
        rng = np.random.default_rng(seed)
        method = {"targets": HIDDEN, **method}
        some = parts["training"]
        first = lambda model: lnp.cross_entropy(model(some[0][:512]), some[1][:512])
        model = methods.initialised(base, rng, first, **method)
        numbers = sum(leaf.size for _, leaf in lnp.trainable(model))
        early: list[float] = []

        def watch(step: int, model: Any) -> None:
            if method.get("kind") == "galore":
                methods.projected(step, model, method["every"], first)
            if step == self.steps // EARLY:
                early.append(loss(lnp.freeze(model), parts["test"]))

        rate = lnp.nn.linear_schedule(lr, steps=self.steps)
        tuned = lnp.freeze(lnp.fit(
            model, *some, loss=lnp.cross_entropy, steps=self.steps, batch_size=self.batch, progress=False,
            watch=watch, rng=shuffled(seed), optimizer=methods.optimizer(rate, **method),
        ).model)  # fmt: skip
        right = float(lnp.nn.accuracy(tuned(parts["test"][0]), parts["test"][1]))
        losses = {name: loss(tuned, parts[name]) for name in ("validation", "test")}
        return losses | {"right": right, "early": early[0], "numbers": numbers}


def loss(model: Any, part: tuple[Array, Array]) -> float:
    return float(lnp.value(lnp.cross_entropy(model(part[0]), part[1])))


@functools.cache
def reader() -> tuple[Any, dict[str, tuple[Array, Array]]]:
    """The network that has learnt upright digits, and the digits on their side in three parts."""
    images, answers = lnp.datasets.digits()
    rng = np.random.default_rng(0)
    order = rng.permutation(len(images))
    x = (images.reshape(-1, 64) - 0.3).astype(np.float32)
    layer = lambda d: lnp.Linear.init(d_out=d, d_in=64, bias=True, rng=rng, dtype=np.float32)
    relu = lnp.Activation(lnp.nn.relu)
    network = lnp.Sequential([layer(64), relu, layer(64), relu, layer(10)])
    settings: dict[str, Any] = {
        "optimizer": lnp.Adam(lr=lnp.cosine_schedule(3e-3, steps=500)),
        "steps": 500,
        "batch_size": 64,
    }
    base = lnp.fit(
        network, x[order], answers[order], loss=lnp.cross_entropy, progress=False, **settings
    ).model
    rotated = (np.rot90(images, axes=(1, 2)).reshape(-1, 64) - 0.3).astype(np.float32)
    parts = zip(("training", "validation", "test"), np.split(order, [1000, 1300]), strict=True)
    return lnp.freeze(base), {name: (rotated[part], answers[part]) for name, part in parts}


@functools.cache
def shipped() -> Any:
    return language.load("austen")


@functools.cache
def texts() -> dict[str, Array]:
    """Windows of Genesis, in three parts, and of Austen that the model has not read."""
    vocabulary = shipped().vocabulary
    genesis = vocabulary.encode(language.read_text("genesis"))
    cut = np.split(genesis, np.array([8, 9]) * len(genesis) // 10)
    parts = dict(zip(("training", "validation", "test"), cut, strict=True))
    parts["austen"] = vocabulary.encode(language.read_text("austen-held-out"))
    return {name: language.windows(tokens, 64) for name, tokens in parts.items()}


def mean_loss(model: Any, rows: Array) -> float:
    parts = np.array_split(rows, max(1, len(rows) // 32))
    return float(
        np.average([language.token_loss(model, part) for part in parts], weights=[*map(len, parts)])
    )


def maps(before: Any, after: Any) -> list[tuple[Array, Array]]:
    """The weights of linear layers that changed, before and after."""
    old: dict[str, Any] = dict(lnp.leaves(before))
    merged = (
        lnp.merge(after) if any(isinstance(node, LORA) for _, node in lnp.nn.walk(after)) else after
    )
    new: dict[str, Any] = {path: W for path, W in lnp.leaves(merged) if "_proj" in path}
    return [(old[path], W) for path, W in new.items() if not np.array_equal(old[path], W)]


LORA = lnp.lora.ADAPTED


@dataclass(frozen=True)
class Memory:
    """Random labels for places of a text, by a LoRA on the shipped model's head: bits held for each
    number.

    ``asked`` is how many bits there are for each trained parameter. Nothing generalises, so the loss
    on the labels themselves is what counts, for the validation as for the test.
    """

    asked: float = 2.0
    steps: int = 400

    def shortened(self) -> Memory:
        return replace(self, steps=self.steps // 2)

    def run(self, lr: float, seed: int, **method: Any) -> dict[str, float]:
        rng = np.random.default_rng(seed)
        head = lnp.Linear(lnp.value(shipped().lm_head.W))
        model = methods.initialised(head, rng, None, **{"targets": "all-linear", **method})
        numbers = sum(leaf.size for _, leaf in lnp.trainable(model))
        n = round(self.asked * numbers / np.log2(96))
        x, labels = rng.permutation(places())[:n], rng.integers(96, size=n)
        tuned = lnp.freeze(lnp.fit(
            model, x, labels, loss=lnp.cross_entropy, steps=self.steps, progress=False,
            optimizer=methods.optimizer(lnp.cosine_schedule(lr, steps=self.steps), **method),
        ).model)  # fmt: skip
        logits = tuned(x)
        nats = float(lnp.value(lnp.cross_entropy(logits, labels)))
        bits = n * (np.log2(96) - nats / np.log(2)) / numbers
        return {"validation": nats, "test": nats, "bits": bits, "numbers": numbers}


@functools.cache
def places() -> Array:
    """What the head is given after 32 characters or more of Genesis: no two alike."""
    genesis = shipped().vocabulary.encode(language.read_text("genesis"))
    found = lnp.freeze(shipped()).model(language.windows(genesis, 256)[:60, :-1])
    return np.asarray(found)[:, 32:].reshape(-1, 128)
