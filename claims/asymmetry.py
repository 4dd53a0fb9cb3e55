"""B matters more than A."""

from __future__ import annotations

from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule


def measure(lab: Lab) -> Values:
    both, only_b, only_a = lab.redrawn("digits", "LoRA, r = 8", "B only, r = 16", "A only, r = 16")
    return {"alone": only_a.over(only_b), "both": both.over(only_b)}


CLAIM = Claim(
    title="Training B with a random, frozen A is as good as training both; training A alone is worse.",
    paper="Zhu et al., arXiv 2402.16842",
    finding="With only A trained, the loss was {alone:less} lower than with only B trained. With both factors trained, it was {both:less} lower than with only B trained.",
    topic="start",
    refuted_by="A alone that does as well as B alone, or both factors far ahead of B alone, with as many parameters.",
    setup="digits",
    varied="which factor is trained",
    setting="The parameter counts are equal: both factors are trained at rank 8, or one factor at rank 16. The base, the data split, the initialisation of A and B, and the order of the batches are drawn anew for each seed. The base is never trained on a test image.",
    figures={
        "alone": "test loss with only A trained over test loss with only B trained, both at rank 16, digits",
        "both": "test loss with both factors trained at rank 8 over test loss with only B trained at rank 16, digits",
    },
    measure=measure,
    ratios=("alone", "both"),
    rule=Rule((Part("alone", above=1, worth=1.1), Part("both", above=1 / 1.1))),
    headline="both",
    words="loss with both factors, rank 8 ÷ B alone, rank 16",
    beats={"alone": ("digits", "A only, r = 16")},
    limits=(
        "A linear task in which all outputs are alike cannot test this claim. There, arithmetic gives the best loss with a random, frozen A: a relative error of "
        "0.83. No training is needed to find it. If the classes get other names, training B alone reaches a lower loss than training both factors. On each of three "
        "tasks, training A alone reaches a lower loss than training B alone."
    ),
    advice="Train both factors. A frozen A saves memory for activations, but measure how much loss it costs.",
)
