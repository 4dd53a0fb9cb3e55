"""DoRA beats LoRA, above all at low ranks."""

from __future__ import annotations

from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule
from lora_np.checks import Array


def measure(lab: Lab) -> Values:
    found: dict[str, Array] = {}
    for rank in (1, 8):
        plain, dora = lab.redrawn("digits", f"LoRA, r = {rank}", f"DoRA, r = {rank}")
        found |= {f"digits{rank}": plain.over(dora), f"fixed{rank}": plain.over_at(dora, plain)}
    return found


CLAIM = Claim(
    title="DoRA, which trains magnitude and direction apart, beats LoRA, above all at low ranks.",
    paper="Liu et al., arXiv 2402.09353",
    finding="DoRA's loss was {digits8:above} above LoRA's at rank 8 and {digits1:above} above LoRA's at rank 1, each at its best learning rate.",
    topic="variants",
    refuted_by="LoRA with a loss as low at the same rank and at its own best learning rate.",
    setup="digits",
    varied="the rank and the learning rate",
    setting="We use the paper's layer. As in its section 4.3, the norm is held constant in the backward pass. The base, the data split, the initialisation of A and B, and the order of the batches are drawn anew for each seed. The base is never trained on a test image.",
    figures={
        "digits1": "LoRA's test loss over DoRA's on digits, each at its best learning rate, rank 1",
        "fixed1": "LoRA's test loss over DoRA's on digits, both at LoRA's best learning rate, rank 1",
        "digits8": "LoRA's test loss over DoRA's on digits, each at its best learning rate, rank 8",
        "fixed8": "LoRA's test loss over DoRA's on digits, both at LoRA's best learning rate, rank 8",
    },
    measure=measure,
    ratios=("digits1", "fixed1", "digits8", "fixed8"),
    rule=Rule(
        (Part("digits1", above=1, worth=1.1), Part("digits8", above=1, worth=1.1)),
    ),
    headline="digits8",
    words="LoRA's loss ÷ DoRA's, rank 8",
    beats={"digits1": ("digits", "LoRA, r = 1"), "digits8": ("digits", "LoRA, r = 8")},
    limits="We tried one task, with alpha = 2 r. DoRA trains one more parameter than LoRA for each row. For a square matrix at rank 1, this makes 50 % more parameters.",
    advice="Tune LoRA's learning rate first. Here DoRA was no better than LoRA, not even at rank 1.",
)
