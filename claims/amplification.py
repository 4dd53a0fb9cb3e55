"""The update amplifies directions that W has but does not emphasise."""

from __future__ import annotations

from claims.protocol import FAILS, HERE_ONLY, HOLDS, Claim
from claims.setups import LANGUAGE, adapted


def measure(lab):
    found = {r: lab.sweep(f"r = {r}", LANGUAGE, start=-1, **adapted(r)) for r in (4, 64)}
    own = found[4].values("amplified")
    return {
        "r4": own,
        "r64": found[64].values("amplified"),
        "random": found[4].values("random") / own,
        "top": own / found[4].values("top"),
    }


def rule(f):
    """Holds if W has more in the update's directions than in random ones and less than in its own
    top ones, and the factor is above 10 at rank 4 and below 4 at rank 64. Holds here if the signs
    are so: more than random, less than its top, and a larger factor at rank 4 than at 64. Otherwise
    it fails here.
    """
    if f.random.low <= 1 or f.top.low <= 1 or f.r4.low <= f.r64.high:
        return FAILS
    return HOLDS if f.r4.low > 10 and f.r64.high < 4 else HERE_ONLY


CLAIM = Claim(
    title="An update amplifies directions that W has but does not emphasise, by a large factor.",
    paper="Hu et al., arXiv 2106.09685, section 7.3, table 7",
    topic="what an update is like",
    refuted_by="An update whose directions W has no more of than of random ones.",
    setup="language",
    varied="the rank",
    setting="The paper's projection of W on the update's directions, at its ranks 4 and 64, mean over all maps.",
    figures={
        "r4": "||dW|| over what W has in dW's directions, rank 4",
        "r64": "the same at rank 64",
        "random": "what W has in dW's directions over what it has in random ones, rank 4",
        "top": "what W has in its own top directions over what it has in dW's, rank 4",
    },
    measure=measure,
    rule=rule,
    published="21.5 at rank 4 (6.91 / 0.32), 1.9 at rank 64 (3.57 / 1.90), for the queries of GPT-3's layer 48.",
    limits="In a map of 128 columns, 64 directions are half of all there are.",
    advice="`lora-np inspect --base` prints the factor for an adapter; a very large one is worth a second look.",
)
