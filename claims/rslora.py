"""alpha / sqrt(r) instead of alpha / r."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

import lora_np as lnp
from claims.lab.protocol import AtScale, Claim, Lab, Values
from claims.lab.rules import Part, Rule


def measure(lab: Lab) -> Values:
    small, plain, stable = lab.redrawn(
        "digits", "LoRA, r = 4, alpha = 16", "LoRA, r = 64, alpha = 16", "rsLoRA, r = 64"
    )
    seeds = range(3 if lab.quick else 5)
    return {
        "tuned": plain.over(stable),
        "early": plain.over(stable, "early"),
        "fixed": plain.over_at(stable, small),
        "gradient": [steepness("lora", seed) for seed in seeds],
        "stable": [steepness("rslora", seed) for seed in seeds],
    }


@functools.cache
def steepness(kind: str, seed: int) -> float:
    """The first gradient's norm at rank 512 over that at rank 4, for the product B A."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(64, 512)), rng.normal(size=(64, 512))
    norms = []
    for rank in (4, 512):
        model: Any = lnp.inject(
            lnp.Linear(np.zeros((512, 512))), rank=rank, alpha=16, variant=kind, rng=seed
        )
        error: Any = lnp.mean_squared_error(model(x), y)
        error.backward()
        norms.append(np.linalg.norm(model.B.grad @ lnp.value(model.A)) * model.scale)
    return float(norms[1] / norms[0])


CLAIM = Claim(
    title="alpha / r makes high ranks learn too slowly; alpha / sqrt(r) does not.",
    paper="Kalajdzievski, arXiv 2312.03732",
    finding="At rank 64, LoRA's loss was {tuned} times rsLoRA's, each at its best learning rate. At rank 4's best learning rate, it was {fixed:than} rsLoRA's.",
    topic="scale",
    refuted_by="A high rank with alpha / r that does as well as with alpha / sqrt(r), at a rate of its own.",
    setup="digits",
    varied="the rank and the learning rate",
    setting="Both methods have alpha 16, and we run them at ranks 4 and 64 on the same task. We also measure the size of the first step up to rank 512. The base, the data split, the initialisation of A and B, and the order of the batches are drawn anew for each seed. The base is never trained on a test image.",
    figures={
        "tuned": "LoRA's test loss over rsLoRA's at rank 64 on digits, each at its best learning rate",
        "early": "LoRA's test loss over rsLoRA's at rank 64 on digits after a quarter of the steps, at best learning rates",
        "fixed": "LoRA's test loss over rsLoRA's at rank 64 on digits, both at rank 4's best learning rate",
        "gradient": "size of the first step that gradient descent takes in B A with alpha / r, rank 512 over rank 4",
        "stable": "size of the first step that gradient descent takes in B A with alpha / sqrt(r), rank 512 over rank 4",
    },
    measure=measure,
    ratios=("tuned", "early", "fixed", "gradient", "stable"),
    rule=Rule(tuple(Part(name, above=1, worth=1.1) for name in ("tuned", "early", "fixed"))),
    headline="tuned",
    words="LoRA's loss ÷ rsLoRA's, rank 64, best rates",
    beats={"tuned": ("digits", "LoRA, r = 64, alpha = 16")},
    limits="rsLoRA is LoRA with sqrt(r) times alpha (one-knob); at rank 64, this is 8 times alpha. So rsLoRA gains as much as a larger alpha does at this alpha, rank and width. Rank 64 is the full rank of this setup. At first, the rule had only the first of its three parts. That part says nothing about speed.",
    advice="If you tune alpha, try a larger one. Using rsLoRA is the same as setting a larger alpha by hand. Tune the learning rate in either case.",
    at_scale=AtScale(
        title="At rank 64, alpha / r makes LoRA learn too slowly; alpha / sqrt(r) does not.",
        finding="At rank 64, the loss at alpha 32 was {tuned:than} rsLoRA's loss (alpha 256), each at its best learning rate.",
        setting="At rank 64, rsLoRA with alpha 32 is LoRA with alpha 256.",
        figures={
            "tuned": "LoRA's loss over rsLoRA's at rank 64, alpha 32, each at its best learning rate",
            "fixed": "LoRA's loss over rsLoRA's at rank 64, alpha 32, both at rank 8's best learning rate",
        },
        measure=lambda runs: {
            "tuned": runs.over("LoRA, r = 64", "LoRA, r = 64, alpha 256"),
            "fixed": runs.over(
                "LoRA, r = 64", "LoRA, r = 64, alpha 256", at=("LoRA, r = 8", "LoRA, r = 8")
            ),
        },
        ratios=("tuned", "fixed"),
        rule=Rule((Part("tuned", above=1, worth=1.01),)),
        headline="tuned",
        words="LoRA's loss ÷ rsLoRA's, rank 64, best rates",
        beats={"tuned": ("LoRA, r = 64",)},
        limits="We used one base and one text, and trained for 60 steps.",
    ),
)
