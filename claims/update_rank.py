"""A full update has a far higher rank than LoRA's."""

from __future__ import annotations

from claims.protocol import FAILS, HERE_ONLY, HOLDS, Claim
from claims.setups import FULL, LANGUAGE, adapted


def measure(lab):
    full = lab.sweep("full", LANGUAGE, start=-1, **FULL).values("rank 90")
    found = {
        r: lab.sweep(f"r = {r}", LANGUAGE, start=-1, **adapted(r)).values("rank 90")
        for r in (16, 64)
    }
    return {"full": full, "r16": found[16], "r64": found[64], "ratio": full / found[16]}


def rule(f):
    """Holds if the full update needs 10 times as many directions as LoRA of rank 16, or more, for
    90 % of its energy. Holds here if it needs more than twice as many. Otherwise it fails here.
    """
    return HOLDS if f.ratio.low > 10 else HERE_ONLY if f.ratio.low > 2 else FAILS


CLAIM = Claim(
    title="Full tuning finds updates of a rank 10 to 100 times higher than LoRA allows.",
    paper="Biderman et al., arXiv 2405.09673",
    topic="what an update is like",
    refuted_by="A full update whose energy lies in as few directions as LoRA's.",
    setup="language",
    varied="the rank",
    setting="The paper's count, singular values that hold 90 % of the variance, on the mean of all maps.",
    figures={
        "full": "directions that hold 90 % of a full update's energy, mean over the maps",
        "r16": "the same for LoRA of rank 16",
        "r64": "the same for LoRA of rank 64",
        "ratio": "full over rank 16",
    },
    measure=measure,
    rule=rule,
    published="10 to 100 times the rank of typical LoRA configurations.",
    limits="A map here has 64 or 128 singular values, so a factor of 100 is impossible.",
    advice="Do not read it as: full rank is needed. See what a low rank loses on your task, by its loss.",
)
