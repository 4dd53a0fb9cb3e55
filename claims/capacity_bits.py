"""Two bits a number."""

from __future__ import annotations

import numpy as np

from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule
from claims.lab.setups import Memory

ASKED = (1.0, 2.0, 3.0)


def measure(lab: Lab) -> Values:
    found = {}
    for rank in (1, 4, 8):
        sweeps = [lab.sweep(f"r = {rank}, {asked:g} asked", Memory(asked=asked), start=2, kind="lora", rank=rank, alpha=rank)
                  for asked in ASKED]  # fmt: skip
        bits = np.array([sweep.values("bits") for sweep in sweeps])
        found[f"r{rank}"] = bits.max(axis=0)
        found.setdefault("little", bits[0])
    return found


CLAIM = Claim(
    title="A model holds about two bits of facts per parameter.",
    paper="Allen-Zhu, Li, arXiv 2404.05405; Morris et al., arXiv 2505.24832, who find 3.6",
    finding="LoRA held at most {r4} bits per parameter at rank 4, {r8} at rank 8 and {r1} at rank 1.",
    topic="capacity",
    refuted_by="A LoRA that holds far more or far less for each trained parameter.",
    setup="memory",
    varied="the rank, and the number of bits to memorise",
    setting="We count bits as Morris et al. do, but for a LoRA. The labels are uniform and random, so there is nothing to generalise from.",
    figures={
        "little": "bits held per trainable parameter at rank 1 where 1 is asked",
        "r1": "the most bits held per trainable parameter, rank 1",
        "r4": "the most bits held per trainable parameter, rank 4",
        "r8": "the most bits held per trainable parameter, rank 8",
    },
    measure=measure,
    rule=Rule(tuple(Part(rank, above=1.5, lower_bound=True) for rank in ("r1", "r4", "r8"))),
    published="A parameter holds 2 bits, even in int8 (whole models trained for long), or 3.6 bits (GPT-like models).",
    headline="r4",
    words="most bits held per trained parameter, rank 4",
    limits="Training stops after 400 steps of Adam, so each figure is a lower bound on what a LoRA can hold. A low figure therefore shows nothing. With four times the steps, rank 8 holds 1.95 bits per parameter instead of 1.6.",
    advice="On a last layer with independent inputs, plan one trainable parameter for each bit to memorise, and two at rank 1. Inside a language model, plan 2 to 14 (lora-np capacity).",
)
