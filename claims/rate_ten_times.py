"""LoRA's best rate is ten times that of full tuning."""

from __future__ import annotations

from claims.protocol import FAILS, HERE_ONLY, HOLDS, Claim
from claims.setups import FULL, LANGUAGE, Digits, Linear, adapted


def measure(lab):
    pairs = {
        "language": (LANGUAGE, adapted(16), FULL),
        "digits": (Digits(), {"kind": "lora", "rank": 16, "alpha": 32}, {"kind": "full"}),
        "linear": (Linear(), {"kind": "lora", "rank": 16, "alpha": 32}, {"kind": "full"}),
    }
    found = {}
    for name, (setup, lora, full) in pairs.items():
        small = lab.sweep(f"{name}, LoRA", setup, start=-1, **lora)
        found[name] = small.peaks() / lab.sweep(f"{name}, full", setup, start=-1, **full).peaks()
    return found


def rule(f):
    """Holds if the ratio is between 5 and 20 on all three beds. Holds here if that is so on the
    language model. Otherwise it fails here.
    """
    inside = [figure.low > 5 and figure.high < 20 for figure in (f.language, f.digits, f.linear)]
    return HOLDS if all(inside) else HERE_ONLY if inside[0] else FAILS


CLAIM = Claim(
    title="LoRA's best learning rate is about ten times that of full tuning.",
    paper="J. Schulman and Thinking Machines Lab, LoRA Without Regret, 2025",
    topic="rate",
    refuted_by="A bed on which both have their best rate at the same place.",
    setup="language, digits, linear",
    varied="the rate",
    setting="The source's convention: alpha 32, A by Kaiming, one rate for A and B, Adam.",
    figures={
        "language": "LoRA's best rate over that of the full update, shipped language model",
        "digits": "the same on digits",
        "linear": "the same on a linear task",
    },
    measure=measure,
    rule=rule,
    published="About 10, in short runs about 15.",
    limits="Widths of 48 to 128; the source's models are 10 to 60 times as wide, and train for longer.",
    advice="Sweep the rate anew for each base and each alpha; ten times is a place to start, not a law.",
)
