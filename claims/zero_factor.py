"""Which factor starts at zero."""

from __future__ import annotations

from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule
from lora_np.checks import Array


def measure(lab: Lab) -> Values:
    found: dict[str, Array] = {}
    for setup, name, width in (("digits", "digits", ""), ("linear", "wide", "width 256, ")):
        rank = "" if width else ", r = 8"
        usual, other = lab.redrawn(setup, f"{width}LoRA{rank}", f"{width}A zero{rank}")
        found |= {name: other.over(usual), f"{name}_rate": usual.peaks_over(other)}
    return found


CLAIM = Claim(
    title="B at zero and A at random beats A at zero and B at random: it allows larger rates.",
    paper="Hayou, Ghosh, Yu, arXiv 2406.08447",
    finding="On digits, the loss with A at zero was {digits:less} below the loss with B at zero. On the linear task, it was {wide:higher} above the loss with B at zero.",
    topic="start",
    refuted_by="A at zero with the same loss at a rate of its own.",
    setup="digits, linear",
    varied="the width",
    setting="In both cases, the other factor is drawn by the same rule: uniformly, with a bound of one over the root of the fan-in. The widths are 64 and 256. The base, the data split, the initialisation of A and B, and the order of the batches are drawn anew for each seed. The base is never trained on a test image.",
    figures={
        "digits": "test loss with A at zero over that with B at zero, digits, each at its best learning rate",
        "digits_rate": "best learning rate with B at zero over best learning rate with A at zero, digits",
        "wide": "test loss with A at zero over that with B at zero, linear, width 256, best learning rates",
        "wide_rate": "best learning rate with B at zero over that with A at zero, linear task of width 256",
    },
    measure=measure,
    ratios=("digits", "digits_rate", "wide", "wide_rate"),
    rule=Rule(
        (
            Part("digits", above=1, worth=1.1),
            Part("wide", above=1, worth=1.1),
            Part("digits_rate", above=1, worth=1.25),
            Part("wide_rate", above=1, worth=1.25),
        )
    ),
    headline="digits",
    words="loss with A at zero ÷ with B at zero, digits",
    beats={"digits": ("digits", "A zero, r = 8"), "wide": ("linear", "width 256, A zero")},
    limits="The paper's argument is about the limit of infinite width.",
    advice="B usually starts at zero, but this is not better everywhere. On digits, starting A at zero did better. Tune the learning rate for either start before you blame the initialisation.",
)
