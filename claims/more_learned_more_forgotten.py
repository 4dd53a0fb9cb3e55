"""Who learns more forgets more: what a lesson of this course said."""

from __future__ import annotations

from claims.beds import LANGUAGE, adapted
from claims.protocol import FAILS, HOLDS, Claim

NARROW = ["q_proj", "v_proj"]


def measure(lab):
    wide = lab.sweep("all maps, r = 16", LANGUAGE, start=-1, **adapted(16))
    narrow = lab.sweep("q and v, r = 16", LANGUAGE, start=0, **adapted(16, targets=NARROW))
    return {
        "learns": narrow.values() - wide.values(),
        "forgets": wide.values("austen") - narrow.values("austen"),
    }


def rule(f):
    """Holds if rank 16 on all maps has learned more than on queries and values, and forgotten more.
    Otherwise it fails here.
    """
    return HOLDS if f.learns.low > 0 and f.forgets.low > 0 else FAILS


CLAIM = Claim(
    title="Who learns more forgets more.",
    paper="a common reading of Biderman et al., arXiv 2405.09673, and of an earlier version of this course",
    topic="forgetting",
    against="Two ways of which one has learned more and forgotten less.",
    bed="language",
    dial="which maps are adapted",
    setting="Both at rank 16 and at their own best rate.",
    figures={
        "learns": "loss on the new text with queries and values adapted minus with all maps, nats a character",
        "forgets": "loss on the old text with all maps adapted minus with queries and values",
    },
    measure=measure,
    rule=rule,
    limits="Two ways on one text: enough to contradict a rule, not to make one.",
    advice="Adapt all maps: a LoRA that must do all by attention needs larger rates, and forgets more for less.",
)
