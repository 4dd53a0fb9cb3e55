"""Which factor starts at zero."""

from __future__ import annotations

from claims.protocol import FAILS, HERE_ONLY, HOLDS, Claim, gain
from claims.setups import Digits, Linear


def measure(lab):
    found = {}
    for name, setup in (("digits", Digits()), ("wide", Linear(width=256, decay=0.5))):
        usual = lab.sweep(f"{name}, B zero", setup, kind="lora", rank=8, alpha=16)
        other = lab.sweep(f"{name}, A zero", setup, kind="zero-a", rank=8, alpha=16)
        found |= {name: gain(usual, other), f"{name}_rate": usual.peaks() / other.peaks()}
    return found


def rule(f):
    """Holds if B at zero has a lower loss and a larger best rate on both beds. Holds here if a
    lower loss on both, or both on one. Otherwise it fails here.
    """
    lower = [f.digits.low > 0, f.wide.low > 0]
    larger = [f.digits_rate.low > 1, f.wide_rate.low > 1]
    if all(lower + larger):
        return HOLDS
    return (
        HERE_ONLY
        if all(lower) or any(a and b for a, b in zip(lower, larger, strict=True))
        else FAILS
    )


CLAIM = Claim(
    title="B at zero and A at random beats A at zero and B at random: it allows larger rates.",
    paper="Hayou, Ghosh, Yu, arXiv 2406.08447",
    topic="start",
    refuted_by="A at zero with the same loss at a rate of its own.",
    setup="digits, linear",
    varied="the width",
    setting="Both starts drawn by the same rule, the bound one over the root of the fan-in; widths 64 and 256.",
    figures={
        "digits": "share of the loss of A at zero that B at zero takes off on digits, own rates",
        "digits_rate": "best rate with B at zero over best rate with A at zero, digits",
        "wide": "share of the loss that B at zero takes off, linear task of width 256",
        "wide_rate": "best rates, B at zero over A at zero, width 256",
    },
    measure=measure,
    rule=rule,
    limits="The paper's argument is about width going to infinity.",
    advice="Keep the usual start. If yours has A at zero, tune its rate before you blame the start.",
)
