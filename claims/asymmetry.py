"""B matters more than A."""

from __future__ import annotations

from claims.protocol import FAILS, HERE_ONLY, HOLDS, Claim, gain
from claims.setups import Digits, Linear


def measure(lab):
    found = {}
    for name, setup in (("digits", Digits()), ("linear", Linear(decay=0.7))):
        both = lab.sweep(f"{name}, both, r = 8", setup, kind="lora", rank=8, alpha=16)
        only_b = lab.sweep(f"{name}, B only, r = 16", setup, kind="lora-fa", rank=16, alpha=32)
        only_a = lab.sweep(f"{name}, A only, r = 16", setup, kind="a-only", rank=16, alpha=32)
        found |= {f"{name}_b": gain(only_b, only_a), f"{name}_both": gain(only_b, both)}
    return found


def rule(f):
    """Holds if B alone has a lower loss than A alone on both beds, and one within 10 % of both
    factors at half the rank. Holds here if B alone is ahead of A alone on digits. Otherwise it
    fails here.
    """
    if (
        f.digits_b.low > 0
        and f.linear_b.low > 0
        and min(f.digits_both.low, f.linear_both.low) > -0.1
    ):
        return HOLDS
    return HERE_ONLY if f.digits_b.low > 0 else FAILS


CLAIM = Claim(
    title="Training B with a random, frozen A is as good as training both; training A alone is worse.",
    paper="Zhu et al., arXiv 2402.16842",
    topic="start",
    refuted_by="A alone that does as well as B alone, or both factors far ahead of B alone, at equal numbers.",
    setup="digits, linear",
    varied="the bed: ten classes out of 64 outputs, or all 48 outputs alike",
    setting="Equal numbers: both factors at rank 8, one factor at rank 16.",
    figures={
        "digits_b": "share of the loss of A alone that B alone takes off, digits",
        "digits_both": "share of the loss of both factors that B alone takes off, digits (negative: it adds)",
        "linear_b": "as the first, linear task",
        "linear_both": "as the second, linear task",
    },
    measure=measure,
    rule=rule,
    limits="In the linear task rows and columns of the update are alike, so nothing favours B but its start.",
    advice="Train both. A frozen A saves activations, at a price that you should measure.",
)
