"""A larger rate for B than for A."""

from __future__ import annotations

from claims.protocol import Claim, better, gain
from claims.setups import Digits, Linear


def measure(lab):
    found = {}
    for name, setup, alpha in (
        ("digits", Digits(), 16),
        ("wide", Linear(width=256, decay=0.5), 16),
    ):
        plain = lab.sweep(f"{name}, LoRA", setup, kind="lora", rank=8, alpha=alpha)
        plus = lab.sweep(f"{name}, LoRA+ 16", setup, start=-1, kind="lora+", rank=8, alpha=alpha)
        found |= {name: gain(plus, plain), f"{name}_early": gain(plus, plain, "early")}
        found[f"{name}_fixed"] = gain(plus, plain, at=plain)
    return found


def rule(f):
    """Holds if LoRA+ takes 2 % or more off LoRA's loss on both beds, each at its own best rate;
    holds here if something on both, or 2 % on one; an artefact of the rate if 2 % on digits at
    LoRA's rate only. Otherwise it fails here.
    """
    return better(f.digits_fixed, f.digits, f.wide)


CLAIM = Claim(
    title="A rate for B that is 16 times that for A learns better and up to twice as fast.",
    paper="Hayou et al., arXiv 2402.12354",
    topic="rate",
    refuted_by="One rate for both that does as well once it is tuned.",
    setup="digits, linear",
    varied="the width, and the rate of A with that of B 16 times it",
    setting="The ratio 16 of the paper's code; widths 64 and 256.",
    figures={
        "digits": "share of LoRA's test loss that LoRA+ takes off on digits, own rates",
        "digits_early": "the same after a quarter of the steps",
        "digits_fixed": "the same at the end, at LoRA's best rate",
        "wide": "the same at own rates, linear task of width 256",
        "wide_early": "the same after a quarter of the steps",
        "wide_fixed": "the same at the end, at LoRA's best rate",
    },
    measure=measure,
    rule=rule,
    published="1 to 2 % better, up to 2 times faster.",
    limits="The paper's argument is about width going to infinity; 256 is far from it.",
    advice="Tune one rate first. LoRA+ adds a second number to tune, and is worth a try in wide models.",
)
