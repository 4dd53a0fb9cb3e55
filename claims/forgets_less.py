"""LoRA learns less and forgets less."""

from __future__ import annotations

from claims.protocol import Claim
from claims.rules import Part, Rule
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


CLAIM = Claim(
    title="LoRA learns less and forgets less than full fine-tuning.",
    paper="Biderman et al., arXiv 2405.09673",
    finding="LoRA forgot {forgets:minus} nats more than the full update at best learning rates, and {matched:minus} where both had learned as much.",
    topic="forgetting",
    refuted_by="A full update that has learned as much and forgotten no more.",
    setup="language",
    varied="the rate",
    setting="Rank 16 on all linear layers against a full update of every weight; the paper has ranks 16 to 256 on 7B models.",
    figures={
        "learns": "LoRA's loss on the new text minus the full update's, nats per character",
        "forgets": "the full update's loss on the old text minus LoRA's, each at its best learning rate for the new text",
        "matched": "the full update's loss on the old text minus LoRA's, the full update stopped where it has learned as much as LoRA",
    },
    measure=measure,
    rule=Rule(
        (
            Part("learns", above=0, worth=0.014),
            Part("forgets", above=0, worth=0.014),
            Part("matched", above=0, worth=0.014),
        )
    ),
    limits=(
        "One style of text, 100 steps, a small base that is easily moved. What is forgotten goes by the rate: at 2.5 "
        "times its best rate on validation text the full update learns no less, and forgets more than LoRA."
    ),
    advice="If the old task matters, measure it, and lower the learning rate first. LoRA can be taken off, which is exact.",
)
