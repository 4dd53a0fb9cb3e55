"""What the model that speaks shows first: python docs/explorer/speaker_data.py > speaker-data.js

With the argument ``temperatures`` it prints how near the samples of each adapter come to the
held-out text.
"""

import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lora_np import adapters, language, linalg
from lora_np.checks import Array
from lora_np.hub import safetensors
from lora_np.language.decoder import vocabulary_of

TOKENS = 240
# the lowest whose overlap is within 0.002 of the largest, for each of the adapters
TEMPERATURE = 0.8
RANKS = (0, 1, 2, 3, 4, 6, 8, 12, 16)
RUN = 4  # characters whose frequencies are compared


@dataclass(frozen=True)
class Style:
    """An adapter that is shipped: what it is called, its text, and a prompt."""

    title: str
    text: str
    prompt: str
    folder: str  # below _static


STYLES = {
    "king-james": Style("the King James Bible", "genesis", "And the king ", "example-adapter"),
    "genesis-by-peft": Style(
        "Genesis, by PEFT", "genesis", "And the king ", "austen/genesis-by-peft"
    ),
    "devils-dictionary": Style(
        "The Devil's Dictionary", "devils-dictionary", "LOVE, n.", "austen/devils-dictionary"
    ),
}


def held_out(name: str) -> str:
    """The last tenth of an adapter's text, which it never saw."""
    text = language.read_text(STYLES[name].text)
    return text[len(text) * 9 // 10 :]


def frequencies(texts: list[str]) -> dict[str, float]:
    found = Counter(text[i : i + RUN] for text in texts for i in range(len(text) - RUN + 1))
    return {run: n / found.total() for run, n in found.items()}


def overlap(name: str, temperature: float, *, seeds: int = 4, samples: int = 20) -> float:
    """The share of runs of characters that samples and held-out text have in common, from 0 to 1.

    At a low temperature samples repeat themselves, at a high one they are misspelt; it is largest
    between.
    """
    model = adapters.attach(language.load("austen"), adapters.load(language.located_adapter(name)))
    prompts = [STYLES[name].prompt] * samples
    said: list[str] = []
    for seed in range(seeds):
        texts = language.generate(model, prompts, tokens=200, temperature=temperature, rng=seed)
        said += [text.removeprefix(STYLES[name].prompt) for text in texts]
    ours, theirs = frequencies(said), frequencies([held_out(name)])
    return sum(min(share, theirs.get(run, 0.0)) for run, share in ours.items())


def log_likelihood(model: language.LanguageModel, text: str) -> Array:
    """The logarithm of the probability of each character but the first, after those before it."""
    tokens = vocabulary_of(model).encode(text)
    logits = model(tokens[None, :-1])[0].astype(float)
    logits -= logits.max(axis=1, keepdims=True)
    chosen: Array = logits[np.arange(len(tokens) - 1), tokens[1:]]
    chosen -= np.log(np.exp(logits).sum(axis=1))
    return chosen


def losses(name: str) -> dict[int, float]:
    """Loss on the held-out text in nats a character, of the best cut of each rank."""
    base, whole = language.load("austen"), adapters.load(language.located_adapter(name))
    found = {0: language.likelihood(base, held_out(name)).loss}
    with TemporaryDirectory() as folder:
        for rank in RANKS[1:]:
            if rank > full_rank(whole):
                break
            adapters.resize(language.located_adapter(name), f"{folder}/{rank}", rank=rank)
            cut = adapters.attach(base, adapters.load(f"{folder}/{rank}"))
            found[rank] = language.likelihood(cut, held_out(name)).loss
    return {rank: round(loss, 3) for rank, loss in found.items()}


def full_rank(adapter: adapters.Adapter) -> int:
    return max(module.rank for module in adapter.values())


def view(name: str) -> dict[str, Any]:
    """What the page shows of one adapter before anything is chosen."""
    style, base = STYLES[name], language.load("austen")
    adapter = adapters.load(language.located_adapter(name))
    tuned = adapters.attach(base, adapter)
    settings: dict[str, Any] = {"tokens": TOKENS, "temperature": TEMPERATURE, "rng": 0}
    said = language.generate(tuned, style.prompt, **settings)
    gain = log_likelihood(tuned, said) - log_likelihood(base, said)
    return {
        "title": style.title,
        "folder": style.folder,
        "prompt": style.prompt,
        "losses": list(losses(name).items()),
        "base": language.generate(base, style.prompt, **settings).removeprefix(style.prompt),
        "text": said.removeprefix(style.prompt),
        "gains": gain[len(style.prompt) - 1 :].round(2).tolist(),
        "shapes": {path.rpartition(".")[2]: module.shape for path, module in adapter.items()},
    }


def write_ordered(name: str, path: Path) -> None:
    """Directions of an adapter's modules, the strongest first: rows of A (r, k) and B (r, d)."""
    found: dict[str, Array] = {}
    for module, update in adapters.load(language.located_adapter(name)).items():
        U, s, Vh = linalg.truncated_svd(update.delta(), rank=update.rank)
        found |= {f"{module}.A": Vh, f"{module}.B": (U * s).T}
    safetensors.save({key: rows.astype(np.float32) for key, rows in found.items()}, path)


def script() -> str:
    samples = {
        "most": TOKENS,
        "temperature": TEMPERATURE,
        "styles": {name: view(name) for name in STYLES},
    }
    return f"window.loraSamples = {json.dumps(samples, separators=(',', ':'))};\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["temperatures"]:
        for name in STYLES:
            shares = {t: f"{overlap(name, t):.3f}" for t in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)}
            print(name, shares, file=sys.stderr)
    else:
        print(script(), end="")
