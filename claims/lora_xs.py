"""LoRA-XS: r^2 parameters between frozen singular vectors."""

from __future__ import annotations

from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule


def measure(lab: Lab) -> Values:
    plain, small, same, more = lab.redrawn(
        "digits", "LoRA, r = 1", "LoRA-XS, r = 11", "LoRA, r = 8", "LoRA-XS, r = 32"
    )
    return {"equal": plain.over(small), "more": same.over(more), "numbers": [2 * 11**2]}


CLAIM = Claim(
    title="A trained r x r matrix between frozen singular vectors beats LoRA with as many parameters.",
    paper="Balazy et al., LoRA-XS, arXiv 2405.17604",
    finding="With about 250 parameters each, LoRA-XS's loss was {equal:lower} below LoRA's. With 2,048 parameters each, it was {more:lower} below LoRA's.",
    topic="few parameters",
    refuted_by="LoRA with a lower loss from as many parameters.",
    setup="digits",
    varied="how many parameters are trained",
    setting="As in the paper, U S and V come from the SVD of W0 and are frozen, and R starts at zero. The base, the data split, the initialisation of A and B, and the order of the batches are drawn anew for each seed. The base is never trained on a test image.",
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
    limits="The task turns every image, so it does not need what the leading directions of W0 compute. With 2,048 parameters, LoRA-XS is ahead of LoRA if digits are turned or get other names. It is behind LoRA if digits are shifted by two pixels.",
    advice="Try LoRA-XS if you train few parameters. With 242 parameters it was ahead of LoRA on each of three tasks. With 2,048 parameters it was ahead on two of them.",
)
