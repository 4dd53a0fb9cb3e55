"""The best rate hardly depends on the rank, with alpha fixed; and what alpha = 2 r does to it."""

from __future__ import annotations

import numpy as np

from claims.protocol import FAILS, HERE_ONLY, HOLDS, Claim
from claims.setups import LANGUAGE, Digits, adapted

RANKS = (1, 4, 16, 64)


def measure(lab):
    text = [lab.sweep(f"r = {r}", LANGUAGE, start=-1, **adapted(r)) for r in RANKS]
    fixed, scaled = (
        [
            lab.sweep(
                f"digits, r = {r}, alpha = {alpha(r)}",
                Digits(),
                kind="lora",
                rank=r,
                alpha=alpha(r),
            )
            for r in RANKS
        ]
        for alpha in (lambda r: 32, lambda r: 2 * r)
    )
    common = text[1].place  # the best of rank 4 for all
    lost = [sweep.values(place=common) - sweep.values() for sweep in text]
    return {
        "spread": spread(text),
        "lost": np.max(lost, axis=0),
        "digits": spread(fixed),
        "doubled": spread(scaled),
    }


def spread(sweeps):
    """The largest best rate over the smallest, for each seed."""
    peaks = [sweep.peaks() for sweep in sweeps]
    return np.max(peaks, axis=0) / np.min(peaks, axis=0)


def rule(f):
    """Holds if on text the best rates of ranks 1 to 64 lie within a factor of 4, and rank 4's rate
    costs no rank more than 0.05 nats. Holds here if only the second is so. Otherwise it fails here.
    """
    if f.lost.high > 0.05:
        return FAILS
    return HOLDS if f.spread.high < 4 else HERE_ONLY


CLAIM = Claim(
    title="With alpha fixed, the best learning rate is nearly independent of the rank.",
    paper="J. Schulman and Thinking Machines Lab, LoRA Without Regret, 2025",
    topic="rate",
    refuted_by="Ranks whose best rates differ, so that the rate of one costs another much loss.",
    setup="language, digits",
    varied="the rank and the rate",
    setting="alpha 32 at each rank, as in the source, beside alpha = 2 r, which is what this course had.",
    figures={
        "spread": "largest best rate over the smallest, ranks 1 to 64, alpha 32, text",
        "lost": "the most that any rank loses at rank 4's best rate, nats a character",
        "digits": "largest best rate over the smallest, alpha 32, digits",
        "doubled": "the same with alpha = 2 r",
    },
    measure=measure,
    rule=rule,
    limits=(
        "Short runs; ranks up to half the width. The best rates do lie close together; what the rule finds too dear "
        "is one common rate of a grid in steps of 2.5."
    ),
    advice="Fix alpha: then the best rate moves little with the rank, and one step of a sweep finds it again.",
)
