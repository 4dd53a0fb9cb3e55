"""LoRA-XS: r^2 parameters between frozen singular vectors."""

from __future__ import annotations

from claims.protocol import Claim, Lab, Values
from claims.rules import Part, Rule


def measure(lab: Lab) -> Values:
    plain, small, same, more = lab.redrawn(
        "digits", "LoRA, r = 1", "LoRA-XS, r = 11", "LoRA, r = 8", "LoRA-XS, r = 32"
    )
    return {"equal": plain.over(small), "more": same.over(more), "numbers": [2 * 11**2]}


CLAIM = Claim(
    title="A trained r x r matrix between frozen singular vectors beats LoRA with as many parameters.",
    paper="Balazy et al., LoRA-XS, arXiv 2405.17604",
    finding="LoRA-XS ended {equal:lower} below LoRA at about 250 parameters, and {more:lower} below it at 2,048.",
    topic="few parameters",
    refuted_by="LoRA with a lower loss from as many parameters.",
    setup="digits",
    varied="how many parameters are trained",
    setting="The paper's frozen U S and V from the SVD of W0; R from zero. Each seed draws the base, the split, the start of A and B, and the order of the batches. The base never sees a test image.",
    figures={
        "equal": "test loss of LoRA at rank 1 (256 parameters) over that of LoRA-XS at rank 11 (242), digits",
        "more": "test loss of LoRA at rank 8 over that of LoRA-XS at rank 32 (2,048 parameters each), digits",
        "numbers": "trainable parameters of LoRA-XS at rank 11",
    },
    measure=measure,
    ratios=("equal", "more"),
    counted=("numbers",),
    rule=Rule((Part("equal", above=1, worth=1.1), Part("more", above=1, worth=1.1))),
    headline="more",
    words="LoRA's loss ÷ LoRA-XS's, 2,048 parameters each",
    beats={"equal": ("digits", "LoRA, r = 1"), "more": ("digits", "LoRA, r = 8")},
    limits="The task turns every image, so it does not need what W0's leading directions are for. At 2,048 parameters LoRA-XS is ahead if digits are turned or get other names. It is behind if they are shifted by two pixels.",
    advice="Try it if you train few parameters. At 242 it was ahead of LoRA on each of three tasks, at 2,048 on two of them.",
)
