"""Large batches hurt LoRA more."""

from __future__ import annotations

import numpy as np

from claims.protocol import FAILS, HERE_ONLY, HOLDS, Claim
from claims.setups import Digits, Linear


def measure(lab):
    found = {}
    setups = {
        "digits": [Digits(steps=1200, batch=16), Digits(steps=75, batch=256)],
        "linear": [
            Linear(decay=0.5, steps=600, batch=16, noise=0.3),
            Linear(decay=0.5, steps=38, batch=256, noise=0.3),
        ],
    }
    for name, (small, large) in setups.items():
        worse = {}
        for kind in ("lora", "full"):
            losses = [
                lab.sweep(
                    f"{name}, {kind}, batch {setup.batch}",
                    setup,
                    start=i,
                    kind=kind,
                    rank=8,
                    alpha=32,
                ).values()
                for i, setup in enumerate((small, large), start=-1)
            ]
            worse[kind] = np.log2(losses[1] / losses[0])
        found |= {name: worse["lora"] - worse["full"], f"{name}_lora": worse["lora"]}
    return found


def rule(f):
    """Holds if from batch 16 to 256, at equal examples and own rates, LoRA's loss grows by a larger
    factor than the full update's on both beds. Holds here if on one. Otherwise it fails here.
    """
    more = [f.digits.low > 0, f.linear.low > 0]
    return HOLDS if all(more) else HERE_ONLY if any(more) else FAILS


CLAIM = Claim(
    title="Large batches hurt LoRA more than full tuning, at any rate.",
    paper="J. Schulman and Thinking Machines Lab, LoRA Without Regret, 2025",
    topic="rate",
    refuted_by="A full update that loses as much from a large batch.",
    setup="digits, linear",
    varied="the batch at equal examples",
    setting="Batches of 16 and 256, as many examples in all, the rate tuned for each.",
    figures={
        "digits": "doublings of LoRA's loss from batch 16 to 256 minus those of the full update's, digits",
        "digits_lora": "doublings of LoRA's loss, digits",
        "linear": "as the first, linear task with noise",
        "linear_lora": "as the second, linear task",
    },
    measure=measure,
    rule=rule,
    limits="Small beds, on which a large batch means few steps.",
    advice="Keep LoRA's batch small (32 or less) unless the hardware asks for more; tune the rate for each.",
)
