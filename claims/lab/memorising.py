"""Setups for capacity: random labels and random texts, of which nothing generalises, so that bits can
be counted.

Held are ``n log2(C)`` bits less what the model still needs to tell the n labels: Morris et al.'s
count (arXiv 2505.24832), exact, since the labels are uniform. The loss on them is what counts, for
validation as for test.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import lora_np as lnp
from claims.lab import methods, setups
from lora_np import language
from lora_np.checks import Array

STORED = (8, 4, 3, 2)  # bits in which each trained parameter is stored
LETTERS = 26


@dataclass(frozen=True)
class Labels:
    """Random labels of random inputs, by a LoRA on a random network: d inputs, h hidden, C classes.

    ``asked`` is how many bits there are for each trained parameter.
    """

    d: int = 32
    h: int = 64
    classes: int = 16
    asked: float = 3.0
    steps: int = 1000
    targets: tuple[str, ...] = ("layers.0",)

    def shortened(self) -> Labels:
        return replace(self, steps=self.steps // 2)

    def run(self, lr: float, seed: int, **method: Any) -> dict[str, float]:
        rng = np.random.default_rng([seed, 8])
        W1 = rng.normal(size=(self.h, self.d)) / self.d**0.5
        W2 = 2 * rng.normal(size=(self.classes, self.h)) / self.h**0.5
        layers = [lnp.Linear(W.astype(np.float32)) for W in (W1, W2)]
        network = lnp.Sequential([layers[0], lnp.Activation(lnp.nn.relu), layers[1]])
        model = methods.initialised(network, rng, None, **{"targets": [*self.targets], **method})
        n = round(self.asked * numbers_of(model) / np.log2(self.classes))
        x = rng.normal(size=(n, self.d)).astype(np.float32)
        y = rng.integers(self.classes, size=n)
        tuned = lnp.fit(
            model, x, y, loss=lnp.cross_entropy, steps=self.steps, progress=False,
            optimizer=methods.optimizer(lnp.cosine_schedule(lr, steps=self.steps), **method),
        ).model  # fmt: skip
        nats = lambda model: setups.loss(lnp.freeze(model), (x, y))
        return capacity(tuned, nats, n, self.classes)


@dataclass(frozen=True)
class Facts:
    """Random keys and values, ``qzkw=adfe``, by a LoRA on the shipped model; only the values are
    learnt.
    """

    asked: float = 2.0
    steps: int = 300

    def shortened(self) -> Facts:
        return replace(self, steps=self.steps // 6)

    def run(self, lr: float, seed: int, **method: Any) -> dict[str, float]:
        rng = np.random.default_rng([seed, 9])
        model = methods.initialised(setups.shipped(), rng, None, **method)
        n = max(1, round(self.asked * numbers_of(model) / np.log2(LETTERS) / 4))
        tokens = lines(rng, n)
        labels = np.full_like(tokens[:, :-1], -100)
        labels[:, 4:] = tokens[:, 5:]
        loss = lambda model, batch, rng=None: language.token_loss(model, tokens[:, :-1], labels)
        tuned = lnp.fit(
            model, lambda step: step, loss=loss, steps=self.steps, progress=False,
            optimizer=methods.optimizer(lnp.cosine_schedule(lr, steps=self.steps), **method),
        ).model  # fmt: skip
        return capacity(
            tuned, lambda model: float(lnp.value(loss(lnp.freeze(model), 0))), 4 * n, LETTERS
        )


def lines(rng: np.random.Generator, n: int) -> Array:
    """Tokens of n lines, no two keys alike."""
    keys = rng.permutation(LETTERS**4)[:n]
    letters = [keys // LETTERS**i % LETTERS for i in range(4)] + [
        *rng.integers(LETTERS, size=(4, n))
    ]
    text = ["".join(chr(97 + letter[i]) for letter in letters) for i in range(n)]
    return np.stack([setups.shipped().vocabulary.encode(f"{line[:4]}={line[4:]}") for line in text])


def numbers_of(model: Any) -> int:
    return sum(leaf.size for _, leaf in lnp.trainable(model))


def capacity(tuned: Any, nats: Any, n: int, classes: int) -> dict[str, float]:
    """Bits for each trained parameter and for each degree of freedom, r (d + k - r), and what survives
    in few bits.
    """
    layers = [node for _, node in lnp.nn.walk(tuned) if isinstance(node, lnp.LoRALinear)]
    numbers = numbers_of(tuned)
    free = numbers - sum(layer.rank**2 for layer in layers)
    bits = lambda model: n * (np.log2(classes) - nats(model) / np.log(2))
    whole = bits(tuned)
    found = {
        "validation": nats(tuned),
        "test": nats(tuned),
        "numbers": numbers,
        "bits": whole / numbers,
        "free": whole / free,
    }
    for width in STORED:
        rounded = functools.partial(stored, width=width)
        found[f"stored {width}"] = (
            max(bits(lnp.replace(tuned, lnp.LoRALinear, rounded)), 0) / numbers
        )
    return found


def stored(path: str, layer: Any, *, width: int) -> Any:
    """The layer with each column of B and each row of A in ``2^width`` evenly spaced levels."""
    A, B = in_levels(lnp.value(layer.A), width), in_levels(lnp.value(layer.B).T, width).T
    return replace(layer, A=lnp.Tensor(A), B=lnp.Tensor(B.copy()))


def in_levels(M: Array, width: int) -> Array:
    """Each row on levels ``(i + 1/2) s``; of 20 steps s the one with the smallest square error."""
    half = 2 ** (width - 1)
    largest = np.abs(M).max(axis=1, keepdims=True)
    tried = []
    for share in np.linspace(0.05, 1, 20) if width < 8 else [1.0]:
        s = np.maximum(largest * share / half, 1e-12)
        tried.append((np.clip(np.floor(M / s), -half, half - 1) + 0.5) * s)
    errors = np.array([np.sum((M - each) ** 2, axis=1) for each in tried])
    best: Array = np.stack(tried)[errors.argmin(axis=0), np.arange(len(M))]
    return best.astype(M.dtype)


# The settings of the claim capacity-range

WIDTH = 1.5  # of the range that is foretold
SEEN = {  # each with its own sweep: the setup, the rank, and the rule of descent
    "r2": (Labels(), 2, True),
    "r4": (Labels(), 4, True),
    "r8": (Labels(), 8, True),
    "wide": (Labels(d=64, h=128), 2, True),
    "last": (Labels(targets=("layers.2",)), 2, True),
    "few": (Labels(classes=4), 4, True),
}
SEEN_ONE = {"r1": (Labels(), 1, True), "wide_r1": (Labels(d=64, h=128), 1, True)}
OTHERWISE = {
    "short": (Labels(steps=250), 4, True),
    "long": (Labels(steps=2500), 4, True),
    "sgd": (Labels(), 4, False),
}
TEXTS = {
    "text_mlp": ("model.layers.2.mlp.up_proj", 2),
    "text_attention": ("model.layers.1.self_attn.v_proj", 2),
}
UNSEEN = {
    "u_r3": (Labels(d=48, h=96, classes=8), 3),
    "u_r6": (Labels(d=48, h=64), 6),
    "u_both": (Labels(d=48, h=48, targets=("layers.0", "layers.2")), 2),
    "u_many": (Labels(d=64, h=64, classes=32), 5),
    "u_r12": (Labels(d=64, h=64), 12),
    "u_r1": (Labels(d=48, h=80), 1),
}


def foretold(seen: Any, rank: int) -> tuple[Any, Any]:
    """The range of bits for each number: a factor of 1.5 around the geometric mean of what was
    seen.
    """
    names: Any = SEEN_ONE if rank == 1 else SEEN
    middle = np.exp(np.mean([np.log(np.maximum(seen[name], 1e-9)) for name in names], axis=0))
    return middle / WIDTH**0.5, middle * WIDTH**0.5
