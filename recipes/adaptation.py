"""Run the sweep that two lessons plot: the shipped model learns Genesis, by LoRA and in full.

    OPENBLAS_NUM_THREADS=1 python -m recipes.adaptation -o lora_np/course/adaptation.json

It takes about eight minutes on one core and writes after each run; what the file has is not run
again. For each contestant (which layers, which rank, which alpha) the learning rate is moved along
`RATES` until both neighbours of the best are worse on validation text; then four other seeds run at
the best. What is compared is the loss on test text, which chose nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import lora_np as lnp
from lora_np import language
from lora_np.checks import Array
from lora_np.files import write_whole
from lora_np.language import LanguageModel, token_loss, windows
from lora_np.language.decoder import vocabulary_of

CONTEXT, BATCH, STEPS, WARMUP = 64, 4, 150, 10
SEEDS = range(5)
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
ALL, QUERY_VALUE, EVERYTHING = "all-linear", "q_proj, v_proj", "every weight"
CONTESTANTS: list[dict[str, Any]] = [
    *({"targets": ALL, "rank": r, "alpha": 2 * r} for r in (4, 1, 16, 64)),
    {"targets": EVERYTHING, "rank": None, "alpha": None},
    *({"targets": QUERY_VALUE, "rank": r, "alpha": 2 * r} for r in (4, 16, 64)),
]  # fmt: skip
ALPHAS: list[dict[str, Any]] = [{"targets": ALL, "rank": 4, "alpha": alpha} for alpha in (1, 64)]


def texts(model: LanguageModel) -> dict[str, Array]:
    """Windows of Genesis, nine tenths of which are trained on or choose the rate, and of held-out
    Austen.
    """
    genesis = vocabulary_of(model).encode(language.read_text("genesis"))
    cuts = np.array([8, 9]) * len(genesis) // 10
    parts = dict(zip(("training", "validation", "test"), np.split(genesis, cuts), strict=True))
    parts["austen"] = vocabulary_of(model).encode(language.read_text("austen-held-out"))
    return {name: windows(tokens, CONTEXT) for name, tokens in parts.items()}


def contestant(model: LanguageModel, targets: str, rank: int | None, alpha: int, rng: Any) -> Any:
    """The model with adapters, or with every weight to be trained."""
    if rank is None:
        return lnp.replace(model, np.ndarray, lambda path, W: lnp.Tensor(W.copy()))
    names = targets.split(", ") if ", " in targets else targets
    return lnp.inject(model, rank=rank, alpha=alpha, targets=names, rng=rng)


def train(model: Any, batches: Array, *, lr: float) -> Any:
    """AdamW with a cosine schedule, one step for each batch."""
    rate = lnp.cosine_schedule(lr, steps=len(batches), warmup=WARMUP)
    return lnp.fit(
        model, batches.__getitem__, loss=token_loss, optimizer=lnp.AdamW(lr=rate, weight_decay=0.0),
        steps=len(batches), clip=1.0, progress=False,
    ).model  # fmt: skip


def adapted(model: LanguageModel, rows: dict[str, Array], run: dict[str, Any]) -> dict[str, Any]:
    """One run of the sweep: what was trained, and what it came to."""
    rng = np.random.default_rng(run["seed"])
    start = contestant(model, run["targets"], run["rank"], run["alpha"], rng)
    order = rng.permutation(len(rows["training"]))[: STEPS * BATCH]
    begin = time.process_time()
    tuned = train(start, rows["training"][order].reshape(STEPS, BATCH, -1), lr=run["lr"])
    seconds = time.process_time() - begin
    frozen = lnp.freeze(tuned)
    losses = {
        name: round(mean_loss(frozen, rows[name]), 5) for name in ("validation", "test", "austen")
    }
    parameters = sum(leaf.size for _, leaf in lnp.trainable(tuned))
    return {
        **run,
        "parameters": parameters,
        **losses,
        **directions(model, lnp.merge(frozen)),
        "seconds": round(seconds, 1),
    }


def mean_loss(model: Any, rows: Array) -> float:
    parts = [rows[i : i + 32] for i in range(0, len(rows), 32)]
    losses = [float(lnp.value(token_loss(model, part))) * len(part) for part in parts]
    return sum(losses) / len(rows)


def directions(before: LanguageModel, after: LanguageModel) -> dict[str, float]:
    """Of the matrices that changed: intruders in the first ten, and the rank with 90 % of the
    energy.
    """
    intruders, ranks = [], []
    old = {path: lnp.value(W) for path, W in lnp.leaves(before)}
    for path, W in lnp.leaves(after):
        new = lnp.value(W)
        if "_proj" in path and not np.array_equal(new, old[path]):
            squares = np.linalg.svdvals(new - old[path]) ** 2
            intruders.append(
                len(lnp.linalg.intruder_dimensions(old[path], new, top=10, threshold=0.6))
            )
            ranks.append(1 + int(np.searchsorted(np.cumsum(squares), 0.9 * squares.sum())))
    return {
        "intruders": round(float(np.mean(intruders)), 3),
        "rank_90": round(float(np.mean(ranks)), 2),
    }


class Record:
    """The file of results: a run that it has is not run again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings = {"context": CONTEXT, "batch": BATCH, "steps": STEPS, "warmup": WARMUP}
        self.runs: list[dict[str, Any]] = []
        if path.exists():
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["settings"] != self.settings:
                raise SystemExit(f"{path} was made with other settings: remove it first")
            self.runs = content["runs"]
        self.model = language.load("austen")
        self.rows = texts(self.model)

    def run(self, **run: Any) -> float:
        """Validation loss of a run."""
        for done in self.runs:
            if run.items() <= done.items():
                return float(done["validation"])
        self.runs.append(adapted(self.model, self.rows, run))
        print(self.runs[-1], flush=True)
        runs = ",\n  ".join(map(json.dumps, self.runs))
        text = f'{{"settings": {json.dumps(self.settings)},\n "runs": [\n  {runs}]}}\n'
        write_whole(self.path, lambda file: file.write(text.encode()))
        return float(self.runs[-1]["validation"])

    def tuned(self, who: dict[str, Any]) -> float:
        """The rate whose validation loss is lower than at both its neighbours."""
        losses: dict[float, float] = {}
        ahead = [3e-3 if who["rank"] is None else 1e-2]
        while ahead:
            losses |= {lr: self.run(**who, lr=lr, seed=0) for lr in ahead}
            best = min(losses, key=losses.__getitem__)
            i = RATES.index(best)
            ahead = [lr for lr in RATES[max(i - 1, 0) : i + 2] if lr not in losses]
        return best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="file of results (JSON)")
    record = Record(parser.parse_args().out)
    best = [(who, record.tuned(who)) for who in CONTESTANTS]
    for seed in SEEDS:
        for who, lr in best:
            record.run(**who, lr=lr, seed=seed)
    for who in ALPHAS:
        record.tuned(who)


if __name__ == "__main__":
    main()
