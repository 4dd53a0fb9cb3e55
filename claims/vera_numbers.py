"""VeRA: two vectors on frozen random factors."""

from __future__ import annotations

from claims.protocol import FAILS, HERE_ONLY, HOLDS, Claim, gain
from claims.setups import Digits


def measure(lab):
    setup = Digits()
    large = lab.sweep("LoRA, r = 8", setup, kind="lora", rank=8, alpha=16)
    equal = lab.sweep("LoRA, r = 1", setup, kind="lora", rank=1, alpha=2)
    vera = lab.sweep("VeRA, r = 64", setup, start=2, kind="vera", rank=64)
    return {
        "large": gain(vera, large),
        "equal": gain(vera, equal),
        "times": large.values("numbers") / vera.values("numbers"),
    }


def rule(f):
    """Holds if VeRA's loss is within 10 % of that of LoRA at rank 8, with an eighth of the numbers.
    Holds here if it is at least lower than LoRA's at equal numbers. Otherwise it fails here.
    """
    if f.large.low > -0.1 and f.times.mean > 7:
        return HOLDS
    return HERE_ONLY if f.equal.low > 0 else FAILS


CLAIM = Claim(
    title="Two trained vectors on frozen random factors do as well as LoRA with ten times fewer numbers.",
    paper="Kopiczko, Blankevoort, Asano, VeRA, arXiv 2310.11454",
    topic="few numbers",
    refuted_by="A task on which VeRA is behind LoRA of as many numbers.",
    setup="digits",
    varied="how many numbers are trained",
    setting="The paper's equation and start (0.1 inside, 0 outside), A and B by Kaiming, rank 64.",
    figures={
        "large": "share of the loss of LoRA at rank 8 that VeRA takes off (negative: it adds)",
        "equal": "the same against LoRA at rank 1, which has as many numbers as VeRA",
        "times": "trained numbers of LoRA at rank 8 over VeRA's",
    },
    measure=measure,
    rule=rule,
    limits="A small network, whose task is far from what it knew; the paper's tasks are near.",
    advice="For many small adapters of an easy task. Compare at equal numbers before you believe it.",
)
