"""LoRA-GA and LoRA-One: start along the first gradient."""

from __future__ import annotations

from claims.lab.protocol import AtScale, Claim, Lab, Values
from claims.lab.rules import Part, Rule


def measure(lab: Lab) -> Values:
    found = {}
    for setup in ("digits", "linear"):
        plain, *others = lab.redrawn(setup, "LoRA, r = 8", "LoRA-GA, r = 8", "LoRA-One, r = 8")
        for short, method in zip(("ga", "one"), others, strict=True):
            found[f"{setup}_{short}"] = plain.over(method)
            found[f"{setup}_{short}_early"] = plain.over(method, "early")
    return found


CLAIM = Claim(
    title="Starting along the first gradient of the full update speeds LoRA up.",
    paper="Wang et al., LoRA-GA, arXiv 2407.05000; Zhang, Liu, Chen, LoRA-One, arXiv 2502.01235",
    finding="LoRA-GA's loss was {digits_ga:lower} below LoRA's on digits, and {linear_ga:lower} below LoRA's on the linear task.",
    topic="start",
    refuted_by="Plain LoRA that is as far after the same steps, at its own best learning rate.",
    setup="digits, linear",
    varied="the setup and the learning rate",
    setting="Both initialisations are computed from one batch, with the equations of the papers. We run LoRA-One without its preconditioner. The base, the data split, the initialisation of A and B, and the order of the batches are drawn anew for each seed. The base is never trained on a test image.",
    figures={
        "digits_ga": "LoRA's test loss over LoRA-GA's at the end, digits",
        "digits_ga_early": "LoRA's test loss over LoRA-GA's after a quarter of the steps, digits",
        "digits_one": "LoRA's test loss over LoRA-One's at the end, digits",
        "digits_one_early": "LoRA's test loss over LoRA-One's after a quarter of the steps, digits",
        "linear_ga": "LoRA's test loss over LoRA-GA's at the end, linear task",
        "linear_ga_early": "LoRA's test loss over LoRA-GA's after a quarter of the steps, linear task",
        "linear_one": "LoRA's test loss over LoRA-One's at the end, linear task",
        "linear_one_early": "LoRA's test loss over LoRA-One's after a quarter of the steps, linear task",
    },
    measure=measure,
    ratios=(
        "digits_ga",
        "digits_ga_early",
        "digits_one",
        "digits_one_early",
        "linear_ga",
        "linear_ga_early",
        "linear_one",
        "linear_one_early",
    ),
    rule=Rule(
        tuple(
            Part(name, above=1, worth=1.1)
            for name in (
                "digits_ga",
                "digits_one",
                "digits_ga_early",
                "digits_one_early",
                "linear_ga_early",
                "linear_one_early",
            )
        )
    ),
    published="LoRA-GA is two to four times as fast. Here we judge the speed by the loss after a quarter of the steps.",
    headline="digits_ga",
    words="LoRA's loss ÷ LoRA-GA's at the end, rank 8",
    beats={
        "digits_ga": ("digits", "LoRA, r = 8"),
        "digits_one": ("digits", "LoRA, r = 8"),
        "digits_ga_early": ("digits", "LoRA, r = 8", "early"),
        "digits_one_early": ("digits", "LoRA, r = 8", "early"),
        "linear_ga_early": ("linear", "LoRA, r = 8", "early"),
        "linear_one_early": ("linear", "LoRA, r = 8", "early"),
    },
    limits="At the end of the linear task, LoRA's loss is less than 1 % above the best possible loss at its rank. So no initialisation can gain much there, and no rule uses that figure. LoRA-GA subtracts its initialisation from W0, so its update can have twice the rank of LoRA's update.",
    advice="Try LoRA-GA if you can compute one gradient of the full model. On digits, its loss ended below LoRA's.",
    at_scale=AtScale(
        title="Starting along the first gradient of the full update ends better.",
        finding="LoRA's loss was {end:than} LoRA-GA's, each at its best learning rate.",
        setting="LoRA-GA has alpha 16, and computes its first gradient from 16 windows of the text. LoRA has alpha 32. The loss during training is not recorded.",
        figures={"end": "LoRA's loss over LoRA-GA's at rank 8, each at its best learning rate"},
        measure=lambda runs: {"end": runs.over("LoRA, r = 8", "LoRA-GA, r = 8")},
        ratios=("end",),
        rule=Rule((Part("end", above=1, worth=1.01),)),
        headline="end",
        words="LoRA's loss ÷ LoRA-GA's at the end, rank 8",
        beats={"end": ("LoRA, r = 8",)},
        limits="We used one base and one text, and trained for 60 steps.",
    ),
)
