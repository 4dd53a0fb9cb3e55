"""Tuned, the variants are alike."""

from __future__ import annotations

from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule

START = ("PiSSA", "OLoRA")  # with alpha = r, as in their code
NAMES = ("LoRA, r = 8", "LoRA, r = 8, alpha = 8", "rsLoRA, r = 8", "LoRA+ 16, r = 8", "DoRA, r = 8", "PiSSA, r = 8",
         "OLoRA, r = 8", "LoRA-GA, r = 8", "LoRA-One, r = 8")  # fmt: skip


def measure(lab: Lab) -> Values:
    plain, eight, *others = lab.redrawn("digits", *NAMES)
    return {
        short(name): (eight if name.startswith(START) else plain).over(one)
        for name, one in zip(NAMES[2:], others, strict=True)
    }


def short(name: str) -> str:
    """The name of a figure."""
    return name.split(",")[0].lower().replace("+ 16", "_plus").replace("-", "_")


CLAIM = Claim(
    title="With a learning rate tuned for each, no variant of LoRA is more than 10 % ahead of it.",
    paper="Lee, Ko, Chen, Yeh, Learning Rate Matters: Vanilla LoRA May Suffice for LLM Fine-tuning, arXiv 2602.04998",
    finding="At rank 8, LoRA-GA's loss was {lora_ga:lower} below LoRA's, PiSSA's was {pissa:lower} below and OLoRA's {olora:lower} below. DoRA's loss was {dora:above} above LoRA's.",
    topic="variants",
    refuted_by="A variant that is clearly ahead at its own best rate.",
    setup="digits",
    varied="the learning rate",
    setting="We compare seven variants on one task. As in the paper, each method has a full sweep of learning rates. The base, the data split, the initialisation of A and B, and the order of the batches are drawn anew for each seed. The base is never trained on a test image.",
    figures={
        short(
            name
        ): f"LoRA's test loss over {name.split(',')[0]}'s at rank 8 on digits, each at its best learning rate"
        for name in NAMES[2:]
    },
    measure=measure,
    ratios=tuple(map(short, NAMES[2:])),
    rule=Rule(tuple(Part(short(name), below=1.1) for name in NAMES[2:])),
    published="All methods end within 1 to 2 % of each other.",
    headline="lora_ga",
    words="LoRA's loss ÷ that of the best variant, LoRA-GA",
    limits="We tried one task, and compare losses. The 1 to 2 % of the paper are differences in accuracy. rsLoRA and LoRA+ are LoRA with a larger alpha (one-knob). LoRA-GA's update can have twice the rank of LoRA's update.",
    advice="Tune the learning rate first. Distrust comparisons at one learning rate, ours too.",
)
