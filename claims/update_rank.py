"""A full update has a far higher rank than LoRA's."""

from __future__ import annotations

from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule


def measure(lab: Lab) -> Values:
    methods = lab.redrawn("language", "LoRA, r = 16", "LoRA, r = 64", "full")
    r16, r64, full = (one.losses("rank 90") for one in methods)
    return {"full": full, "r16": r16, "r64": r64, "ratio": full / r16}


CLAIM = Claim(
    title="Full fine-tuning finds updates of a rank 10 to 100 times higher than LoRA allows.",
    paper="Biderman et al., arXiv 2405.09673",
    finding="A full update spreads 90 % of its energy over {ratio} times as many directions as an update by LoRA of rank 16.",
    topic="what an update is like",
    refuted_by="A full update whose energy lies in as few directions as LoRA's.",
    setup="language",
    varied="the rank",
    setting="As in the paper, we count the singular values that hold 90 % of the variance. The figures are means over all linear layers.",
    figures={
        "full": "directions that hold 90 % of a full update's energy, mean over the linear layers",
        "r16": "directions that hold 90 % of the energy of LoRA's update, rank 16, mean over the linear layers",
        "r64": "directions that hold 90 % of the energy of LoRA's update, rank 64, mean over the linear layers",
        "ratio": "directions of the full update over directions of LoRA's update, rank 16",
    },
    measure=measure,
    ratios=("ratio",),
    rule=Rule((Part("ratio", above=10),)),
    published="The rank is 10 to 100 times that of typical LoRA configurations.",
    headline="ratio",
    words="directions of the full update ÷ LoRA's, rank 16",
    beats={"ratio": ("language", "LoRA, r = 16", "rank 90")},
    limits="A matrix here has 64 or 128 singular values, so a factor of 100 is impossible. The rule once had a second bound, 2, on the same figure. We removed it, because the title does not claim it.",
    advice="A full update of high rank does not mean that you need full rank. Measure on your task how much loss a low rank costs.",
)
