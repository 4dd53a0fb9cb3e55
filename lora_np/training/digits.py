"""A real classification in one table: a network that reads upright digits learns to read rotated ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lora_np.autograd import Tensor, value
from lora_np.checks import Array, whole_number
from lora_np.datasets import digits
from lora_np.lora import inject
from lora_np.nn import (
    Activation,
    Adam,
    Linear,
    Sequential,
    accuracy,
    cosine,
    cross_entropy,
    freeze,
    leaves,
    relu,
    replace,
    trainable,
)
from lora_np.table import Cell, Table
from lora_np.training.fit import Fit, fit, uninterrupted

WIDTH, TRAINING = 64, 1200  # hidden units of both layers, and images to train on; 597 are held out
HEAD = "layers.4"


def digits_story(*, ranks: Sequence[int] = (1, 2, 4, 8), steps: int = 600, seed: int = 0) -> Table:
    """Pretrain on upright digits, adapt to digits on their side: full, LoRA at several ranks, and head only.

    Parameters
    ----------
    ranks : sequence of int
        Of the adapters, on all three layers, with alpha = 2 r.
    steps : int
        Of pretraining and of each adaptation, 64 images each.
    seed : int

    Returns
    -------
    Table
        For each way of adapting: numbers trained, held-out accuracy on rotated digits (the new task) and on
        upright ones (the old task, which nobody practises any longer), and seconds of training. A LoRA can be
        taken off again, which brings the old accuracy back in full; the other ways cannot.

    Examples
    --------
    >>> table = digits_story(ranks=[2], steps=300)
    >>> [(row["method"], row["trained"]) for row in table.records]
    [('not adapted', 0), ('head only', 650), ('LoRA, r = 2', 660), ('full', 8970)]
    """
    steps = whole_number("steps", steps)
    images, labels = digits()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    train, held_out = order[:TRAINING], order[TRAINING:]
    upright, rotated = flat(images), flat(np.rot90(images, axes=(1, 2)))

    def learn(model: Sequential, x: Array, rate: float) -> Fit[Sequential]:
        result = fit(
            model, x[train], labels[train], loss=cross_entropy, steps=steps, batch_size=64, rng=seed,
            optimizer=Adam(lr=cosine(rate, steps=steps)), progress=False,
        )  # fmt: skip
        return uninterrupted(result)

    def score(model: Any, x: Array) -> float:
        return accuracy(model(x[held_out]), labels[held_out])

    base = freeze(learn(network(rng), upright, 3e-3).model)
    ways = {
        "head only": thawed(base, under=HEAD),
        **{f"LoRA, r = {r}": inject(base, rank=r, alpha=2.0 * r, rng=rng) for r in ranks},
        "full": thawed(base, under=""),
    }
    rows: list[list[Cell]] = [["not adapted", 0, score(base, rotated), score(base, upright), None]]
    for name, model in ways.items():
        result = learn(model, rotated, 1e-2)
        adapted = freeze(result.model)
        count = sum(leaf.size for _, leaf in trainable(model))
        rows.append([name, count, score(adapted, rotated), score(adapted, upright), result.history.seconds])
    return Table(
        ["method", "trained", "new task", "old task", "seconds"],
        rows,
        title="Handwritten digits: from upright to rotated by 90 degrees, held-out accuracy",
        notes=[
            f"The network has {sum(leaf.size for _, leaf in leaves(base)):,} numbers. "
            f"With a LoRA taken off, the old task is back at {score(base, upright):.1%}."
        ],
        formats={"new task": "{:.1%}".format, "old task": "{:.1%}".format, "seconds": "{:.2f}".format},
    )


def network(rng: np.random.Generator) -> Sequential:
    sizes = [(WIDTH, 64), (WIDTH, WIDTH), (10, WIDTH)]
    first, second, head = (Linear.init(d_out=d, d_in=k, bias=True, rng=rng) for d, k in sizes)
    return Sequential((first, Activation(relu), second, Activation(relu), head))


def flat(images: Array) -> Array:
    """One row of 64 pixels for each image, around zero."""
    rows: Array = images.reshape(len(images), -1) - 0.3
    return rows


def thawed(model: Sequential, *, under: str) -> Sequential:
    """The model with its arrays below a path made trainable."""
    return replace(model, np.ndarray, lambda path, a: Tensor(value(a)) if path.startswith(under) else a)
