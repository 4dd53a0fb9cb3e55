"""Two bits a number."""

from __future__ import annotations

import numpy as np

from claims.protocol import FAILS, HERE_ONLY, HOLDS, Claim
from claims.setups import Memory

ASKED = (1.0, 2.0, 3.0)


def measure(lab):
    found = {}
    for rank in (1, 4, 8):
        sweeps = [lab.sweep(f"r = {rank}, {asked:g} asked", Memory(asked=asked), start=2, kind="lora", rank=rank, alpha=rank)
                  for asked in ASKED]  # fmt: skip
        held = np.array([sweep.values("bits") for sweep in sweeps])
        found[f"r{rank}"] = held.max(axis=0)
        found.setdefault("little", held[0])
    return found


def rule(f):
    """Holds if each rank holds between 1.5 and 2.5 bits for each trained number at most. Holds here
    if between 1 and 3.6. Otherwise it fails here.
    """
    ranks = (f.r1, f.r4, f.r8)
    if all(r.low > 1.5 and r.high < 2.5 for r in ranks):
        return HOLDS
    return HERE_ONLY if all(r.low > 1 and r.high < 3.6 for r in ranks) else FAILS


CLAIM = Claim(
    title="A model holds about two bits of facts for each of its numbers.",
    paper="Allen-Zhu, Li, arXiv 2404.05405; Morris et al., arXiv 2505.24832, who find 3.6",
    topic="capacity",
    refuted_by="A LoRA that holds far more or far less for each trained number.",
    setup="memory",
    varied="the rank, and the bits asked",
    setting="Morris et al.'s count on uniform random labels, of which nothing generalises; here for a LoRA.",
    figures={
        "r1": "the most bits held for each trained number at rank 1",
        "r4": "the same at rank 4",
        "r8": "the same at rank 8",
        "little": "bits held for each number at rank 1 where 1 is asked",
    },
    measure=measure,
    rule=rule,
    published="2 bits, even in int8 (whole models trained for long); 3.6 bits for GPT-like models.",
    limits="400 steps of Adam: a lower bound of what could be held.",
    advice="Plan one trained number for each bit to learn by heart, two at rank 1; with luck it holds two bits.",
)
