"""Who learns more forgets more: what a lesson of this course said."""

from __future__ import annotations

from claims.protocol import FAILS, HERE_ONLY, HOLDS, Claim
from claims.setups import LANGUAGE, adapted

NARROW = ["q_proj", "v_proj"]


def measure(lab):
    wide = lab.sweep("all maps, r = 16", LANGUAGE, start=-1, **adapted(16))
    narrow = lab.sweep("q and v, r = 16", LANGUAGE, start=0, **adapted(16, targets=NARROW))
    slow, fast = wide.place - 1, narrow.place + 1
    return {
        "learns": narrow.values() - wide.values(),
        "forgets": wide.values("austen") - narrow.values("austen"),
        "learns_aside": narrow.values("test", fast) - wide.values("test", slow),
        "forgets_aside": wide.values("austen", slow) - narrow.values("austen", fast),
    }


def rule(f):
    """Holds if rank 16 on all maps has learned more than on queries and values, and forgotten more,
    at the best rates and also one step of the grid aside of them, towards each other. Holds here if
    at the best rates only. Otherwise it fails here.
    """
    if f.learns.low <= 0 or f.forgets.low <= 0:
        return FAILS
    return HOLDS if f.learns_aside.low > 0 and f.forgets_aside.low > 0 else HERE_ONLY


CLAIM = Claim(
    title="Who learns more forgets more.",
    paper="a common reading of Biderman et al., arXiv 2405.09673, and of an earlier version of this course",
    topic="forgetting",
    refuted_by="Two ways of which one has learned more and forgotten less.",
    setup="language",
    varied="which maps are adapted, and the rate",
    setting="Both at rank 16 and at their own best rate.",
    figures={
        "learns": "loss on the new text with queries and values adapted minus with all maps, nats a character",
        "forgets": "loss on the old text with all maps adapted minus with queries and values",
        "learns_aside": "as the first, all maps at the rate below their best, queries and values at the one above",
        "forgets_aside": "as the second, at these rates (negative: who has learned more has forgotten less)",
    },
    measure=measure,
    rule=rule,
    limits=(
        "Two ways on one text: enough to contradict a rule, not to make one. The rates aside were added after a first "
        "run at the best rates alone, which said that it holds; these rates lose 0.01 of validation loss."
    ),
    advice="Look at both losses at several rates: one step of the rate moves what is forgotten more than the ways differ.",
)
