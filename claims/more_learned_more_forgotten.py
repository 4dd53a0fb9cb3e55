"""Who learns more forgets more: what a lesson of this course said."""

from __future__ import annotations

import numpy as np

from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule


def measure(lab: Lab) -> Values:
    wide, narrow = lab.redrawn("language", "LoRA, r = 16", "q and v, r = 16")
    kept = lab.untrained(name="old")
    least = lambda i: np.minimum(wide.losses("old", beside=-i), narrow.losses("old", beside=i))
    return {
        "lost": least(0) - kept,
        "lost_aside": least(1) - kept,
        "learns": narrow.losses() - wide.losses(),
        "forgets": wide.losses("old") - narrow.losses("old"),
        "learns_aside": narrow.losses(beside=1) - wide.losses(beside=-1),
        "forgets_aside": wide.losses("old", beside=-1) - narrow.losses("old", beside=1),
        "cost_wide": wide.losses(beside=-1) - wide.losses(),
        "cost_narrow": narrow.losses(beside=1) - narrow.losses(),
    }


CLAIM = Claim(
    title="Methods that learn more forget more.",
    paper="a common reading of Biderman et al., arXiv 2405.09673, and of an earlier version of this course",
    finding="At their best learning rates, adapting all linear layers forgot {forgets} nats more than adapting queries and values. At other learning rates, it forgot {forgets_aside:minus} nats less.",
    topic="forgetting",
    refuted_by="Two methods, of which one learned more and forgot less.",
    setup="language",
    varied="which modules are adapted, and the learning rate",
    setting="Both methods have rank 16, and each is run at its own best learning rate. Forgetting is judged only where both methods have a higher loss on the old text than the untrained model.",
    figures={
        "lost": "the lower of both methods' losses on the old text minus the untrained model's, best learning rates",
        "lost_aside": "lower of both methods' losses on the old text minus the untrained model's, at the other learning rates",
        "learns": "loss on the new text with queries and values adapted minus loss with all linear layers, nats per character",
        "forgets": "loss on the old text with all linear layers adapted minus loss with queries and values, best learning rates",
        "learns_aside": "new loss, queries and values (above their best learning rate) minus all linear layers (below their best)",
        "forgets_aside": "old loss, all linear layers (below their best learning rate) minus queries and values (above their best)",
        "cost_wide": "loss on the new text at half the best learning rate minus loss at the best, all linear layers",
        "cost_narrow": "loss on the new text at twice the best learning rate minus loss at the best, queries and values",
    },
    measure=measure,
    rule=Rule(
        (
            Part("forgets", above=0, worth=0.014, needs="lost"),
            Part("forgets_aside", above=0, worth=0.014, needs="lost_aside"),
        )
    ),
    headline="forgets",
    words="old loss, all layers − queries and values, nats",
    limits="Two methods on one text are enough to contradict a general rule, but not to establish one. A first run used only the best learning rates, and the claim held there. We added the other learning rates after that run.",
    advice="Look at the losses on the old and the new text at several learning rates. Moving the learning rate by one place of the grid, a factor of two, changed forgetting by 0.06 to 0.34 nats; the choice of method changed it by 0.10.",
)
