"""Alpha is nearly a learning rate."""

from __future__ import annotations

import numpy as np

from claims.protocol import FAILS, HERE_ONLY, HOLDS, Claim
from claims.setups import Digits


def measure(lab):
    sweeps = [
        lab.sweep(f"alpha = {alpha}", Digits(), kind="lora", rank=8, alpha=alpha)
        for alpha in (2, 16, 128)
    ]
    losses = np.array([sweep.values() for sweep in sweeps])
    fixed = np.array([sweep.values(place=sweeps[1].place) for sweep in sweeps])
    peaks = [sweep.peaks() for sweep in sweeps]
    return {
        "tuned": losses.max(axis=0) / losses.min(axis=0),
        "fixed": fixed.max(axis=0) / fixed.min(axis=0),
        "rates": peaks[0] / peaks[2],
    }


def rule(f):
    """Holds if over a factor of 64 in alpha the best losses are within a factor of 1.25, and at one
    rate they are not. Holds here if within a factor of 2. Otherwise it fails here.
    """
    if f.tuned.high < 1.25 < f.fixed.low:
        return HOLDS
    return HERE_ONLY if f.tuned.high < 2 else FAILS


CLAIM = Claim(
    title="With Adam, tuning alpha is roughly the same as tuning the learning rate.",
    paper="Hu et al., arXiv 2106.09685, section 4.1",
    topic="scale",
    refuted_by="Alphas whose best losses differ, each at its own rate.",
    setup="digits",
    varied="alpha and the rate",
    setting="Adam, as the paper says; alpha 2, 16 and 128 at rank 8.",
    figures={
        "tuned": "largest loss over smallest, each alpha at its own best rate",
        "fixed": "the same at the best rate of alpha 16",
        "rates": "best rate at alpha 2 over best rate at alpha 128",
    },
    measure=measure,
    rule=rule,
    limits="One task. The start of A has the same size at each alpha, which is why it is not exactly the same.",
    advice="Set alpha once (16, 32 or 2 r) and tune the rate.",
)
