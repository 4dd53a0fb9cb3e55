"""LoRA has intruder dimensions, full tuning has not; and what they cost."""

from __future__ import annotations

from typing import Any

import numpy as np

import lora_np as lnp
from claims.lab import redrawn
from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule
from claims.lab.setups import maps, mean_loss
from claims.lab.text import LOSSES
from lora_np.checks import Array


def measure(lab: Lab) -> Values:
    names = ("LoRA, r = 1", "LoRA, r = 16", "LoRA, r = 64", "full")
    *loras, full = lab.redrawn("language", *names)
    # shrinking is in no rule, so that the choice of its rate need not be drawn again
    changes = [] if redrawn.RESAMPLE else [shrinking(loras[1], seed) for seed in loras[1].seeds]
    return {
        **{f"r{r}": one.losses("intruders") for r, one in zip((1, 16, 64), loras, strict=True)},
        "full": full.losses("intruders"),
        "fast": full.losses("intruders", beside=1),
        "learned": [learned for learned, _ in changes],
        "kept": [kept for _, kept in changes],
    }


def shrinking(one: redrawn.Redrawn, seed: int) -> tuple[float, float]:
    """What the new text loses, and the old one wins, when the intruders of a tuned model shrink."""
    setup, tuned = one.sweep.setup, one.tuned(seed)
    base = setup.base(seed)
    parts = setup.parts(seed, base)
    before, after = (
        [mean_loss(model, parts[part]) for part in LOSSES]
        for model in (lnp.merge(tuned), shrunk(base, tuned))
    )
    changed = np.subtract(after, before)
    return float(changed[:2].mean()), float(-changed[2])


def shrunk(base: Any, tuned: Any, factor: float = 0.7) -> Any:
    """The merged model, with the singular value of each intruder in the first ten times
    ``factor``.
    """
    merged = lnp.merge(tuned)
    changed = {id(W): smaller(W0, W, factor) for W0, W in maps(base, merged)}
    return lnp.replace(merged, np.ndarray, lambda path, W: changed.get(id(W), W))


def smaller(W0: Array, W: Array, factor: float) -> Array:
    U, s, Vh = np.linalg.svd(W, full_matrices=False)
    s[list(lnp.linalg.intruder_dimensions(W0, W, top=10, threshold=0.6))] *= factor
    return np.asarray((U * s) @ Vh)


CLAIM = Claim(
    title="LoRA gives a weight new leading directions, intruders, that full fine-tuning does not.",
    paper="Shuttleworth et al., arXiv 2410.21228",
    finding="Among the first ten directions of a matrix, LoRA of rank 16 put {r16} intruders on average, and the full update put {full}.",
    topic="what an update is like",
    refuted_by="A full update at its best learning rate that has as many intruders as LoRA.",
    setup="language",
    varied="the rank and the learning rate",
    setting="As in the paper, an intruder is a new left singular vector whose cosine with every old one is below 0.6. We count intruders among the top 10.",
    figures={
        "r1": "intruders in the first ten directions of a matrix, LoRA of rank 1",
        "r16": "intruders in the first ten directions of a matrix, LoRA of rank 16",
        "r64": "intruders in the first ten directions of a matrix, LoRA of rank 64",
        "full": "intruders in the first ten directions of a matrix, a full update at its best learning rate",
        "fast": "intruders in the first ten directions of a matrix, a full update at twice its best learning rate",
        "learned": "increase in the loss on the new text when the intruders of rank 16 shrink to 0.7 times their size, nats per character",
        "kept": "reduction in the loss on the old text when the intruders of rank 16 shrink to 0.7 times their size, nats per character",
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
    headline="r16",
    words="new directions in the first ten, LoRA of rank 16",
    limits="The matrices have 64 to 352 rows and 128 columns. We trained for 100 steps. The threshold is a choice: a lower threshold finds fewer intruders.",
    advice="If the old task matters, use a lower learning rate. As a cheap repair, you can try to shrink the intruders.",
)
