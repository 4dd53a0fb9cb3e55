"""What the front page shows, computed by the package: python docs/explorer/front_data.py >
front-data.js

A map of mountains is to become a portrait, by a change of 100 x 120 numbers that no low rank holds
whole. A model of Austen's English is to write like the King James Bible, by its adapter cut to
lower ranks. And a model is to fit on a GPU.
"""

import json
from base64 import b64encode
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lora_np import accounting, adapters, datasets, language, linalg
from lora_np.checks import Array

D, K, RANKS = 100, 120, 60
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


def start() -> Array:
    """W0: elevation, from 0 to 1, each number the mean of three by three."""
    area = datasets.terrain()[20:320, 20:380].reshape(D, 3, K, 3).mean(axis=(1, 3))
    return (area - area.min()) / (area.max() - area.min())


def goal() -> Array:
    """W: grey values of a face, each number the mean of three by three."""
    return datasets.photograph()[20:320, 86:446].reshape(D, 3, K, 3).mean(axis=(1, 3))


def shades(M: Array) -> Array:
    return np.rint(255 * M).astype(np.uint8)


def picture() -> dict[str, Any]:
    """Both pictures in 8 bits, and the smallest error of each rank, over the norm of the whole
    change.
    """
    change = (shades(goal()).astype(float) - shades(start())) / 255
    errors = linalg.rank_errors(change, relative=True)[: RANKS + 1]
    return {
        "start": b64encode(shades(start()).tobytes()).decode("ascii"),
        "goal": b64encode(shades(goal()).tobytes()).decode("ascii"),
        "errors": [float(f"{error:.6g}") for error in errors],
    }


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
            lora = {"dtype": dtype, "rank": rank, "targets": "all-linear"} if rank else {}
            found[model][method] = accounting.training_memory(
                model, max_length=MAX_LENGTH, **lora
            ).total
    known = accounting.gpus()
    return {
        "memory": found,
        "gpus": {name: known[name].room for name in GPUS},
        "max_length": MAX_LENGTH,
    }


def data() -> dict[str, Any]:
    return {"picture": picture(), "prompt": PROMPT, "voice": voice(), "fit": fit()}


def script() -> str:
    return f"window.loraFront = {json.dumps(data(), separators=(',', ':'))};\n"


if __name__ == "__main__":
    print(script(), end="")
