"""What the front page shows, computed by the package: python docs/explorer/front_data.py >
front-data.js

A layer of 100 x 120 that completes handwritten digits, but never saw a 3, is to learn threes: the
upper half goes in, the whole digit comes out. A model of Austen's English is to write like the King
James Bible, by its adapter cut to lower ranks. And a model is to fit on a GPU.
"""

import json
from base64 import b64encode
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import palette
from matplotlib.image import imsave

from lora_np import accounting, adapters, datasets, language, linalg
from lora_np.checks import Array

D, K, RANK, MOST = 100, 120, 8, 20  # RANK: where the page begins
NEW, NOISE, HELD_OUT = 3, 0.01, 40  # the digit that W0 never saw; variance of the inputs' noise
LEVELS = 31  # of W0, to either side of zero
SHOWN = (11, 1, 4, 36, 9, 12)  # of those held out: chosen because they can be read
FROZEN, PLUS, MINUS = (palette.rgb(name) for name in ("base", "plus", "minus"))
PROMPT, TOKENS, TEMPERATURE, SEED = "And the king ", 230, 0.5, 0
ADAPTER_RANKS = (1, 2, 4, 8)
MAX_LENGTH = 2_048
MODELS = ("llama-3.2-1b", "qwen3-4b", "llama-3.1-8b", "phi-4", "qwen3-32b", "llama-3.1-70b")
GPUS = ("RTX 3060 12GB", "T4", "RTX 4090", "L40S", "H100", "H200")
METHODS = {
    "full fine-tuning": ("", 0),
    "LoRA, rank 16": ("bfloat16", 16),
    "QLoRA, rank 16": ("nf4", 16),
}


class Task(NamedTuple):
    """The layer that was trained, and the threes that it is to learn: 100 outputs of 120 inputs."""

    W0: Array
    step: float  # W0 is a whole number of these
    digits: Array  # the threes in 16 shades, 8 x 8
    x: Array
    y: Array
    C: Array  # E[x x'] of those to train on
    G: Array  # E[(y - W0 x) x']
    C_held_out: Array
    G_held_out: Array


def resized(images: Array, rows: int, columns: int) -> Array:
    """Pictures in another size, linear between the centres of pixels."""

    def weights(old: int, new: int) -> Array:
        centres = np.minimum(np.maximum((np.arange(new) + 0.5) * old / new - 0.5, 0), old - 1)
        left = np.minimum(np.floor(centres).astype(int), old - 2)
        W = np.zeros((new, old))
        W[np.arange(new), left] = 1 - (centres - left)
        W[np.arange(new), left + 1] += centres - left
        return W

    down, across = weights(images.shape[1], rows), weights(images.shape[2], columns)
    return (down @ images @ across.T).reshape(len(images), -1)


@cache
def task() -> Task:
    images, labels = datasets.digits()
    images = np.rint(15 * images / images.max()) / 15
    x, y = resized(images[:, :4], 10, 12), resized(images, 10, 10)
    known, new = labels != NEW, labels == NEW

    def moments(x: Array, y: Array, W: Array) -> tuple[Array, Array]:
        C = x.T @ x / len(x) + NOISE * np.eye(K)
        return C, y.T @ x / len(x) - W @ C

    C, G = moments(x[known], y[known], np.zeros((D, K)))
    W0 = np.linalg.solve(C, G.T).T
    step = np.abs(W0).max() / LEVELS
    W0 = np.rint(W0 / step) * step
    x, y, first = x[new], y[new], int(new.sum()) - HELD_OUT
    return Task(
        W0, float(step), images[new], x, y,
        *moments(x[:first], y[:first], W0), *moments(x[first:], y[first:], W0),
    )  # fmt: skip


def best(rank: int) -> tuple[Array, Array]:
    """B and A with the least error on the threes to train on: ``G C^-1``, cut in the norm of C."""
    found = task()
    L = np.linalg.cholesky(found.C)
    B, A = linalg.low_rank_factors(np.linalg.solve(L, found.G.T).T, rank=rank)
    return B, np.linalg.solve(L.T, A.T).T


def gained(change: Array) -> float:
    """The squared error that a change of W0 takes off, on the threes held out."""
    found = task()
    return float(np.sum(change * (2 * found.G_held_out - change @ found.C_held_out)))


def learned(rank: int) -> float:
    """The best update of a rank: its share of what the full update gains."""
    B, A = best(rank)
    full, whole = best(D)
    return gained(B @ A) / gained(full @ whole)


def layer() -> dict[str, Any]:
    found = task()
    full, whole = best(D)
    shades = np.rint(15 * found.digits).astype(np.uint8).reshape(-1, 64)
    levels = np.rint(found.W0 / found.step).astype(np.int8)
    return {
        "W0": b64encode(levels.tobytes()).decode("ascii"),
        "digits": b64encode((shades[:, ::2] << 4 | shades[:, 1::2]).tobytes()).decode("ascii"),
        "step": found.step,
        "full": gained(full @ whole),
        "heldOut": HELD_OUT,
        "shown": SHOWN,
    }


def write_pictures(folder: Path) -> None:
    """What the page shows without scripts: the matrices and digits at rank 8, zero transparent."""
    found = task()
    B, A = best(RANK)
    U, s, Vt = linalg.svd(B @ A)
    B, A = U[:, :RANK] * np.sqrt(s[:RANK]), np.sqrt(s[:RANK])[:, None] * Vt[:RANK]

    def save(name: str, M: Array, reach: float, plus: Any, minus: Any, power: float = 0.7) -> None:
        colors = np.where((M < 0)[..., None], minus, plus)
        alpha = 255 * np.minimum(1, np.abs(M) / reach) ** power
        imsave(folder / f"front-{name}.png", np.dstack([colors, alpha]).astype(np.uint8))

    def row(outputs: Array, columns: int, height: int) -> Array:
        ink = resized(outputs.reshape(len(outputs), -1, columns), height - 6, 48)
        s = np.minimum(np.maximum((ink - 0.34) / 0.2, 0), 1).reshape(len(ink), -1, 48)
        rows: Array = np.hstack([*np.pad(s * s * (3 - 2 * s), ((0, 0), (6, 0), (12, 12)))])
        return rows

    save("w0", found.W0, 0.2, FROZEN, FROZEN, 0.6)
    save("ba", B @ A, 0.11, PLUS, MINUS)
    save("b", B, 0.4, PLUS, MINUS)
    save("a", A, 0.4, PLUS, MINUS)
    x = found.x[-HELD_OUT:][list(SHOWN)]
    save("in", row(x, 12, 30), 1, FROZEN, FROZEN, 1)
    save("frozen", row(x @ found.W0.T, 10, 54), 1, FROZEN, FROZEN, 1)
    save("trained", row(x @ (found.W0 + B @ A).T, 10, 54), 1, PLUS, PLUS, 1)


def voice() -> list[dict[str, Any]]:
    """What the model writes without the adapter and with the best cuts, and its loss on held-out
    text.
    """
    model, name = language.load("austen"), language.located_adapter("king-james")
    text = language.read_text("genesis")
    held_out = text[len(text) * 9 // 10 :]

    def heard(rank: int, speaker: language.LanguageModel) -> dict[str, Any]:
        said = language.generate(speaker, PROMPT, tokens=TOKENS, temperature=TEMPERATURE, rng=SEED)
        loss = language.likelihood(speaker, held_out).loss
        return {"rank": rank, "loss": round(loss, 3), "text": said.removeprefix(PROMPT)}

    with TemporaryDirectory() as folder:
        found = [heard(0, model)]
        for rank in ADAPTER_RANKS:
            adapters.resize(name, f"{folder}/{rank}", rank=rank)
            found.append(heard(rank, adapters.attach(model, adapters.load(f"{folder}/{rank}"))))
    return found


def fit() -> dict[str, Any]:
    """Bytes that training takes, of each model by each method, and what a GPU leaves for it."""
    found: dict[str, dict[str, int]] = {}
    for model in MODELS:
        found[model] = {}
        for method, (dtype, rank) in METHODS.items():
            lora: dict[str, Any] = (
                {"dtype": dtype, "rank": rank, "targets": "all-linear"} if rank else {}
            )
            found[model][method] = accounting.training_memory(
                model, max_length=MAX_LENGTH, **lora
            ).total
    known = accounting.gpus()
    return {
        "memory": found,
        "gpus": {name: [known[name].room, known[name].sold] for name in GPUS},
        "max_length": MAX_LENGTH,
    }


def llama() -> list[float]:
    """The share that each rank trains of a model of eight billion parameters, in percent."""
    counts = [
        accounting.count_model("llama-3-8b", rank=rank, targets="all-linear")
        for rank in range(1, MOST + 1)
    ]
    return [0, *(round(100 * count.trainable / count.base, 4) for count in counts)]


def data() -> dict[str, Any]:
    return {"layer": layer(), "prompt": PROMPT, "voice": voice(), "fit": fit(), "llama": llama()}


def script() -> str:
    return f"window.loraFront = {json.dumps(data(), separators=(',', ':'))};\n"


if __name__ == "__main__":
    print(script(), end="")
