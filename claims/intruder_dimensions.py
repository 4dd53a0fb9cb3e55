"""LoRA has intruder dimensions, full tuning has not; and what they cost."""

from __future__ import annotations

import numpy as np

import lora_np as lnp
from claims.protocol import Claim
from claims.rules import Part, Rule
from claims.setups import FULL, LANGUAGE, adapted, maps, mean_loss, shipped, texts


def measure(lab):
    sweeps = {r: lab.sweep(f"r = {r}", LANGUAGE, start=-1, **adapted(r)) for r in (1, 16, 64)}
    full = lab.sweep("full", LANGUAGE, start=-1, **FULL)
    learned, kept = [], []
    for seed in lab.seeds:  # the causal test: shrink what intrudes
        tuned, _ = sweeps[16].setup.train(sweeps[16].best, seed, **sweeps[16].method)
        smaller = shrunk(tuned)
        losses = [
            [mean_loss(model, texts()[part][: full.setup.rows]) for part in ("test", "austen")]
            for model in (lnp.merge(tuned), smaller)
        ]
        learned.append(losses[1][0] - losses[0][0])
        kept.append(losses[0][1] - losses[1][1])
    return {
        **{f"r{r}": sweep.values("intruders") for r, sweep in sweeps.items()},
        "full": full.values("intruders"),
        "fast": full.values("intruders", full.place + 1),
        "learned": learned,
        "kept": kept,
    }


def shrunk(tuned, factor=0.7):
    """The merged model, with the singular value of each intruder in the first ten times
    ``factor``.
    """
    merged = lnp.merge(tuned)
    changed = {id(W): smaller(W0, W, factor) for W0, W in maps(shipped(), merged)}
    return lnp.replace(merged, np.ndarray, lambda path, W: changed.get(id(W), W))


def smaller(W0, W, factor):
    U, s, Vh = np.linalg.svd(W, full_matrices=False)
    s[list(lnp.linalg.intruder_dimensions(W0, W, top=10, threshold=0.6))] *= factor
    return (U * s) @ Vh


CLAIM = Claim(
    title="LoRA gives a weight new leading directions, intruders, that full fine-tuning does not.",
    paper="Shuttleworth et al., arXiv 2410.21228",
    finding="LoRA of rank 16 put {r16} intruders among the first ten directions of a matrix, the full update {full}.",
    topic="what an update is like",
    refuted_by="A full update at its best learning rate that has as many intruders as LoRA.",
    setup="language",
    varied="the rank and the learning rate",
    setting="The paper's count: new left singular vectors whose cosine with every old one is below 0.6; top 10.",
    figures={
        "r1": "intruders in the first ten directions of a matrix, LoRA of rank 1",
        "r16": "intruders in the first ten directions of a matrix, LoRA of rank 16",
        "r64": "intruders in the first ten directions of a matrix, LoRA of rank 64",
        "full": "intruders in the first ten directions of a matrix, a full update at its best learning rate",
        "fast": "intruders in the first ten directions of a matrix, a full update at 2.5 times its best learning rate",
        "learned": "what is lost on the new text when the intruders of rank 16 shrink to 0.7, nats per character",
        "kept": "what is won on the old text when the intruders of rank 16 shrink to 0.7, nats per character",
    },
    measure=measure,
    rule=Rule(
        (
            Part("full", below=0.5),
            Part("r1", above=0.5),
            Part("r16", above=0.5),
            Part("r64", above=0.5),
        )
    ),
    limits="Matrices of 64 to 352 by 128; after 100 steps. The threshold is a choice: a lower one finds fewer.",
    advice="Where the old task matters: a lower rate or a higher rank; shrinking intruders is a cheap repair to try.",
)
