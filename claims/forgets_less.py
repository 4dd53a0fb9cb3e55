"""LoRA learns less and forgets less."""

from __future__ import annotations

from claims.protocol import FAILS, HERE_ONLY, HOLDS, Claim
from claims.setups import FULL, LANGUAGE, adapted


def measure(lab):
    lora = lab.sweep("r = 16", LANGUAGE, start=-1, **adapted(16))
    full = lab.sweep("full", LANGUAGE, start=-1, **FULL)
    slow = {part: full.values(part, full.place - 1) for part in ("test", "austen")}
    fast = {part: full.values(part) for part in ("test", "austen")}
    # The full update stopped where it has learned as much as LoRA: between its best rate and the
    # one below.
    share = (lora.values() - slow["test"]) / (fast["test"] - slow["test"])
    matched = slow["austen"] + share * (fast["austen"] - slow["austen"])
    return {
        "learns": lora.values() - full.values(),
        "forgets": full.values("austen") - lora.values("austen"),
        "matched": matched - lora.values("austen"),
    }


def rule(f):
    """Holds if LoRA's loss is higher on the new text and lower on the old one, also against a full
    update that has learned as much. Holds here if both are so at each one's best rate only.
    Otherwise it fails here.
    """
    if f.learns.low <= 0 or f.forgets.low <= 0:
        return FAILS
    return HOLDS if f.matched.low > 0 else HERE_ONLY


CLAIM = Claim(
    title="LoRA learns less and forgets less than full tuning.",
    paper="Biderman et al., arXiv 2405.09673",
    topic="forgetting",
    refuted_by="A full update that has learned as much and forgotten no more.",
    setup="language",
    varied="the rate",
    setting="Rank 16 on all linear maps against every weight; the paper has ranks 16 to 256 on 7B models.",
    figures={
        "learns": "LoRA's loss on the new text minus that of the full update, nats a character",
        "forgets": "the full update's loss on the old text minus LoRA's",
        "matched": "the same where the full update's rate is lowered until it has learned as much as LoRA",
    },
    measure=measure,
    rule=rule,
    limits=(
        "One style of text, 100 steps, a small base that is easily moved. What is forgotten goes by the rate: at 2.5 "
        "times its best rate on validation text the full update learns no less, and forgets more than LoRA."
    ),
    advice="If the old task counts, measure it, and lower the rate before all else. LoRA can be taken off, which is exact.",
)
