"""LoRA learns less and forgets less."""

from __future__ import annotations

import numpy as np

from claims.at_scale import between
from claims.protocol import Claim
from claims.rules import Part, Rule


def measure(lab):
    lora, full = lab.redrawn("language", "LoRA, r = 16", "full")
    # The full update where it has learned as much as LoRA: on a line between two learning rates
    curve = [(full.losses(beside=i), full.losses("old", beside=i)) for i in range(-SLOWER, 1)]
    matched = [
        between([(new[i], old[i]) for new, old in curve], level) - kept
        for i, (level, kept) in enumerate(zip(lora.losses(), lora.losses("old"), strict=True))
    ]
    return {
        "learns": lora.losses() - full.losses(),
        "forgets": full.losses("old") - lora.losses("old"),
        "matched": [x for x in matched if np.isfinite(x)],
        "fast": full.losses("old", beside=1) - lora.losses("old"),
    }


SLOWER = 3  # learning rates below the best, each half of the next


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
        "matched": "the full update's loss on the old text minus LoRA's, the full update at a lower learning rate, where it has learned as much as LoRA",
        "fast": "the full update's loss on the old text at twice its best learning rate minus LoRA's at its best",
    },
    measure=measure,
    rule=Rule(
        (
            Part("learns", above=0, worth=0.014),
            Part("forgets", above=0, worth=0.014),
            Part("matched", above=0, worth=0.014),
        )
    ),
    headline="forgets",
    words="full update's old loss − LoRA's, nats, best rates",
    beats={"learns": ("language", "LoRA, r = 16")},
    limits=(
        "One style of text, 100 steps, small bases that are easily moved. What is forgotten depends on the learning rate. "
        "A seed that no learning rate of the full update brings to the loss of LoRA is not counted. "
        "Three lower learning rates are tried; with one base and five seeds it was one."
    ),
    advice="If the old task matters, measure it, and lower the learning rate first. LoRA can be taken off, which is exact.",
)
