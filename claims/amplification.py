"""The update amplifies directions that W has but does not emphasise."""

from __future__ import annotations

from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule


def measure(lab: Lab) -> Values:
    small, large = lab.redrawn("language", "LoRA, r = 4", "LoRA, r = 64")
    own = small.losses("amplified")
    return {
        "r4": own,
        "r64": large.losses("amplified"),
        "random": small.losses("random") / own,
        "top": own / small.losses("top"),
        "slow": small.losses("amplified", beside=-1),
    }


CLAIM = Claim(
    title="An update amplifies directions that W has but does not emphasise, by a large factor.",
    paper="Hu et al., arXiv 2106.09685, section 7.3, table 7",
    finding="At rank 4, the norm of the update is {r4} times the norm of W in the same directions. In its own top directions, the norm of W is {top} times as large.",
    topic="what an update is like",
    refuted_by="An update whose directions W has no more of than of random ones.",
    setup="language",
    varied="the rank",
    setting="As in the paper, we project W onto the update's directions, at ranks 4 and 64. The figures are means over all linear layers.",
    figures={
        "r4": "norm of the update over the norm of W in the update's directions, rank 4",
        "r64": "norm of the update over the norm of W in the update's directions, rank 64",
        "random": "norm of W in the update's directions over its norm in random directions, rank 4",
        "top": "norm of W in its own top directions over its norm in the update's directions, rank 4",
        "slow": "norm of the update over the norm of W in the update's directions, rank 4, half its best learning rate",
    },
    measure=measure,
    ratios=("r4", "r64", "random", "top", "slow"),
    rule=Rule((Part("random", above=1), Part("top", above=1), Part("r4", above=10))),
    published="The factor is 21.5 at rank 4 (6.91 / 0.32) and 1.9 at rank 64 (3.57 / 1.90), for the queries of GPT-3's layer 48.",
    headline="r4",
    words="norm of the update ÷ norm of W there, rank 4",
    limits="A matrix of 128 columns has 128 directions, so 64 directions are half of them. The factor grows with the learning rate. At half of rank 4's best learning rate, the factor is below 10, and the loss is 1 % higher. An earlier, coarser grid had led us to such a low learning rate.",
    advice="`lora-np inspect --base` prints the factor for an adapter. If the factor is very large, check the adapter more closely.",
)
