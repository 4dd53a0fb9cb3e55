"""VeRA: two vectors on frozen random factors."""

from __future__ import annotations

from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule


def measure(lab: Lab) -> Values:
    large, equal, vera = lab.redrawn("digits", "LoRA, r = 8", "LoRA, r = 1", "VeRA, r = 64")
    return {"large": large.over(vera), "equal": equal.over(vera), "times": [8 * 128 / (64 + 64)]}


CLAIM = Claim(
    title="Two trained vectors on frozen random factors do as well as LoRA with ten times fewer parameters.",
    paper="Kopiczko, Blankevoort, Asano, VeRA, arXiv 2310.11454",
    finding="VeRA's loss was {equal:lower} below the loss of LoRA with equally many parameters, and {large:inverse} times the loss of LoRA at rank 8.",
    topic="few parameters",
    refuted_by="A task on which VeRA is behind LoRA with as many parameters.",
    setup="digits",
    varied="how many parameters are trained",
    setting="We use the paper's equation. As in the paper, the inner vector starts at 0.1 and the outer vector at 0. A and B have Kaiming initialisation, and the rank is 64. The base, the data split, the initialisation of A and B, and the order of the batches are drawn anew for each seed. The base is never trained on a test image.",
    figures={
        "large": "test loss of LoRA at rank 8 over that of VeRA with an eighth of the parameters, digits",
        "equal": "test loss of LoRA at rank 1 over that of VeRA with as many parameters, digits",
        "times": "trainable parameters of LoRA at rank 8 over VeRA's",
    },
    measure=measure,
    ratios=("large", "equal"),
    counted=("times",),
    rule=Rule((Part("large", above=1 / 1.1), Part("equal", above=1, worth=1.1))),
    headline="large",
    words="LoRA's loss ÷ VeRA's with an eighth of its parameters",
    beats={"equal": ("digits", "LoRA, r = 1")},
    limits="The task is far from what this small network knew. The paper's tasks are close to what its models knew.",
    advice="Use VeRA for many small adapters of an easy task. It was far ahead of LoRA with equally many parameters, and far behind LoRA with eight times as many.",
)
