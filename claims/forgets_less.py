"""LoRA learns less and forgets less."""

from __future__ import annotations

import numpy as np

from claims.lab.at_scale import between
from claims.lab.protocol import Claim, Lab, Values
from claims.lab.redrawn import Redrawn
from claims.lab.rules import Part, Rule
from lora_np.checks import Array

SHARES = (60, 80, 95)  # per cent of LoRA's gain on the new text, where both are compared
SLOWER = 4  # learning rates below the best, each half of the next


def measure(lab: Lab) -> Values:
    lora, full = lab.redrawn("language", "LoRA, r = 16", "full")
    before, kept = (lab.untrained(name=name) for name in ("", "old"))
    found = {
        "learns": lora.losses() - full.losses(),
        "forgets": full.losses("old") - lora.losses("old"),
        "before": before - kept,
    }
    for share in SHARES:
        levels = before - share / 100 * (before - lora.losses())
        olds = [old_at(one, levels) for one in (lora, full)]
        reached = np.all(np.isfinite(olds), axis=0)
        found[f"lost{share}"] = (np.min(olds, axis=0) - kept)[reached]
        found[f"kept{share}"] = (olds[1] - olds[0])[reached]
    return found


def old_at(method: Redrawn, levels: Array) -> Array:
    """The old loss of each seed where its new loss is at a level: on a line between learning rates up to
    the best.
    """
    curve = [(method.losses(beside=i), method.losses("old", beside=i)) for i in range(-SLOWER, 1)]
    points = [[(new[seed], old[seed]) for new, old in curve] for seed in range(len(levels))]
    return np.array([between(*pair) for pair in zip(points, levels, strict=True)])


CLAIM = Claim(
    title="LoRA learns less and forgets less than full fine-tuning.",
    paper="Biderman et al., arXiv 2405.09673",
    finding="When both methods had reached 95 % of LoRA's gain, LoRA had forgotten {kept95:minus} nats more than the full update. At 60 % of the gain, it had forgotten {kept60:minus} nats more.",
    topic="forgetting",
    refuted_by="A full update that has learned as much and forgotten no more.",
    setup="language",
    varied="the learning rate",
    setting=(
        "We compare LoRA of rank 16 on all linear layers with a full update of every weight. The paper uses ranks 16 to 256 on 7B models. We compare the two methods where "
        "both have learned the same amount: at 60, 80 and 95 % of LoRA's gain at its best learning rate. Learning rates lie a factor of 2 apart, and losses between "
        "two learning rates are interpolated linearly. A level counts only if both methods' losses on the old text are higher there than the untrained model's."
    ),
    figures={
        "learns": "LoRA's loss on the new text minus the full update's, nats per character",
        "forgets": "the full update's loss on the old text minus LoRA's, each at its best learning rate",
        "before": "the untrained model's loss on the new text minus its loss on the old one, nats per character",
    }
    | {
        f"lost{share}": f"lower of both methods' old losses minus the untrained model's, at {share} % of LoRA's gain on the new text"
        for share in SHARES
    }
    | {
        f"kept{share}": f"the full update's old loss minus LoRA's, both at {share} % of LoRA's gain on the new text"
        for share in SHARES
    },
    measure=measure,
    rule=Rule(
        (
            Part("learns", above=0, worth=0.014),
            *(Part(f"kept{share}", above=0, worth=0.014, needs=f"lost{share}") for share in SHARES),
        )
    ),
    headline="kept95",
    words="full update's old loss − LoRA's, nats, at equal new loss",
    beats={"learns": ("language", "LoRA, r = 16")},
    limits="We tried one style of text, and trained for 100 steps. The bases are small, so training changes them easily. How much is forgotten depends on the learning rate. If a method does not reach a level with a seed, that seed is not counted at that level. When we chose the levels, we already knew the losses near both best learning rates.",
    advice="If the old task matters, measure its loss, and lower the learning rate first. You can remove a LoRA again, which restores the base exactly.",
)
