"""Attention alone is worse than the MLP alone, with as many parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lora_np as lnp
from claims.lab.protocol import AtScale, Claim, Lab, Values
from claims.lab.rules import Part, Rule
from claims.lab.setups import shipped


def measure(lab: Lab) -> Values:
    attention, mlp = lab.redrawn("language", "attention, r = 8", "MLP, r = 5")
    numbers = parameters(attention.sweep.method) / parameters(mlp.sweep.method)
    return {"gap": attention.losses() - mlp.losses(), "numbers": [numbers]}


def parameters(method: Mapping[str, Any]) -> int:
    """How many a method trains."""
    model = lnp.inject(shipped(), rank=method["rank"], targets=method["targets"])
    return sum(leaf.size for _, leaf in lnp.trainable(model))


CLAIM = Claim(
    title="A LoRA on attention alone learns less than one on the MLP alone, also with as many parameters.",
    paper="J. Schulman and Thinking Machines Lab, LoRA Without Regret, 2025",
    finding="With equally many parameters, the loss with a LoRA on the MLP alone was {gap} nats per character lower than on attention alone.",
    topic="modules",
    refuted_by="Attention alone with the same loss, or a lower one, with as many trainable parameters.",
    setup="language",
    varied="which modules are adapted",
    setting="As in the source, unequal ranks give nearly equal parameter counts: 28,672 on attention and 28,800 on the MLP.",
    figures={
        "gap": "loss with attention adapted minus loss with the MLP adapted, nats per character",
        "numbers": "trainable parameters on attention over those on the MLP",
    },
    measure=measure,
    counted=("numbers",),
    rule=Rule((Part("gap", above=0, worth=0.014),)),
    published="Attention alone ended behind the MLP alone, also with matched parameter counts. Adding attention to the MLP did not help.",
    headline="gap",
    words="attention's loss − the MLP's, nats, equal parameter counts",
    beats={"gap": ("language", "attention, r = 8")},
    limits="The model has four layers, and 61 % of its weights are in the MLP.",
    advice="Adapt all linear layers. If you can afford only few parameters, adapt the MLP before attention.",
    at_scale=AtScale(
        title="A LoRA on attention alone learns less than one on the MLP alone, with about as many parameters.",
        finding="With attention adapted, the loss was {gap:than} the loss with the MLP adapted. Both adapters have about the same number of parameters.",
        setting="The adapter of rank 8 on attention has 921,600 parameters. The adapter of rank 5 on the MLP has 950,400. Alpha is 32.",
        figures={
            "gap": "loss with attention adapted over loss with the MLP adapted, each at its best learning rate"
        },
        measure=lambda runs: {"gap": runs.over("attention, r = 8", "MLP, r = 5")},
        ratios=("gap",),
        rule=Rule((Part("gap", above=1, worth=1.01),)),
        headline="gap",
        words="attention's loss ÷ the MLP's, about equal parameter counts",
        beats={"gap": ("attention, r = 8",)},
        limits="We used one base and one text, and trained for 60 steps. The adapter on the MLP has 3 % more parameters.",
    ),
)
