"""Alpha is nearly a learning rate."""

from __future__ import annotations

from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule


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
    finding="The loss with alpha 16 was {less:lower} below the loss with alpha 2. With alpha 128 it was another {more:lower} lower. Each alpha was run at its best learning rate.",
    topic="scale",
    refuted_by="Alphas whose best losses differ, each at its own rate.",
    setup="digits",
    varied="alpha and the learning rate",
    setting="The optimizer is Adam, as in the paper. We compare alpha 2, 16 and 128 at rank 8. The base, the data split, the initialisation of A and B, and the order of the batches are drawn anew for each seed. The base is never trained on a test image.",
    figures={
        "less": "test loss at alpha 2 over that at alpha 16, rank 8, digits, each at its best learning rate",
        "more": "test loss at alpha 16 over that at alpha 128, rank 8, digits, each at its best learning rate",
        "fixed": "test loss at alpha 2 and its best learning rate over test loss at alpha 128 and alpha 16's best learning rate",
        "rates": "best learning rate at alpha 2 over best learning rate at alpha 128",
    },
    measure=measure,
    ratios=("less", "more", "fixed", "rates"),
    rule=Rule((Part("less", below=1.1), Part("more", below=1.1))),
    headline="more",
    words="loss at alpha 16 ÷ loss at alpha 128, best rates",
    limits="We tried one task. Alpha and the learning rate are exactly equivalent only if the initialisation of A changes as well. To see this, multiply alpha by c squared, and divide the learning rate and A by c: every step stays the same (one-knob). If the initialisation of A stays as it is, alpha also changes kappa.",
    advice="Tune the learning rate first. If you have time to tune a second setting, raise alpha. Alpha changes kappa, and the learning rate does not.",
)
