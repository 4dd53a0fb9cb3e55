"""Alpha is nearly a learning rate."""

from __future__ import annotations

from claims.protocol import Claim, Lab, Values
from claims.rules import Part, Rule


def measure(lab: Lab) -> Values:
    low, usual, high = lab.redrawn(
        "digits", "alpha = 2, r = 8", "LoRA, r = 8", "alpha = 128, r = 8"
    )
    return {
        "less": low.over(usual),
        "more": usual.over(high),
        "fixed": low.over(high, at=usual.sweep),
        "rates": low.peaks_over(high),
    }


CLAIM = Claim(
    title="With Adam, tuning alpha is roughly the same as tuning the learning rate.",
    paper="Hu et al., arXiv 2106.09685, section 4.1",
    finding="The loss at alpha 16 was {less:lower} below that at alpha 2, and at alpha 128 {more:lower} below that at alpha 16. Each alpha had its best learning rate.",
    topic="scale",
    refuted_by="Alphas whose best losses differ, each at its own rate.",
    setup="digits",
    varied="alpha and the learning rate",
    setting="Adam, as the paper says; alpha 2, 16 and 128 at rank 8. Each seed draws the base, the split, the start of A and B, and the order of the batches. The base never sees a test image.",
    figures={
        "less": "test loss at alpha 2 over that at alpha 16, rank 8, digits, each at its best learning rate",
        "more": "test loss at alpha 16 over that at alpha 128, rank 8, digits, each at its best learning rate",
        "fixed": "test loss at alpha 2, at its best learning rate, over that at alpha 128 at alpha 16's",
        "rates": "best learning rate at alpha 2 over best learning rate at alpha 128",
    },
    measure=measure,
    ratios=("less", "more", "fixed", "rates"),
    rule=Rule((Part("less", below=1.1), Part("more", below=1.1))),
    headline="more",
    words="loss at alpha 16 ÷ loss at alpha 128, best rates",
    limits="One task. The two are exactly equivalent only if the initialisation of A changes as well. Multiply alpha by c squared and divide the learning rate and A by c: every step stays the same (one-knob). If A stays as it is, alpha also moves kappa.",
    advice="Tune the learning rate first. If you have time to tune a second number, raise alpha. It moves kappa, which the learning rate cannot.",
)
