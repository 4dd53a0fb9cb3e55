"""LoRA-FA: A frozen, no loss, less memory."""

from __future__ import annotations

from claims.protocol import FAILS, HERE_ONLY, HOLDS, Claim, gain
from claims.setups import Digits, Linear


def measure(lab):
    found = {}
    for name, setup in (("digits", Digits()), ("linear", Linear(decay=0.7))):
        plain = lab.sweep(f"{name}, LoRA", setup, kind="lora", rank=8, alpha=16)
        found[name] = gain(
            lab.sweep(f"{name}, LoRA-FA", setup, kind="lora-fa", rank=8, alpha=16), plain
        )
    # numbers kept for the walk back, of each row of inputs: x A^T in the place of x
    found["kept"] = [8 / 64]
    return found


def rule(f):
    """Holds if LoRA-FA's loss is within 5 % of LoRA's on both beds at the same rank. Holds here if
    on one. Otherwise it fails here.
    """
    near = [f.digits.low > -0.05, f.linear.low > -0.05]
    return HOLDS if all(near) else HERE_ONLY if any(near) else FAILS


CLAIM = Claim(
    title="A can be frozen at random with no loss of quality, and fewer activations are kept.",
    paper="Zhang et al., LoRA-FA, arXiv 2308.03303",
    topic="memory",
    refuted_by="A loss that is clearly higher than LoRA's at the same rank and at a rate of its own.",
    setup="digits, linear",
    varied="the bed",
    setting="The paper's method at rank 8, half as many trained numbers.",
    figures={
        "digits": "share of LoRA's loss that LoRA-FA takes off, digits (negative: it adds)",
        "linear": "the same on a linear task",
        "kept": "numbers kept for the walk back in a map of 64 columns, LoRA-FA over LoRA",
    },
    measure=measure,
    rule=rule,
    published="A total memory up to 1.4 times smaller than LoRA's, at a close accuracy.",
    limits="Both tasks change what the layer looks at; where the base already looks at the right thing, A matters less.",
    advice="Use it when activations are what does not fit (`lora-np plan` says so), and measure what it costs.",
)
