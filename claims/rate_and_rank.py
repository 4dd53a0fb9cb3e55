"""The best rate hardly depends on the rank, with alpha fixed; and what alpha = 2 r does to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from claims.lab.protocol import AtScale, Claim, Lab, Sweep, Values
from claims.lab.redrawn import Redrawn
from claims.lab.rules import Part, Rule
from claims.lab.setups import Digits
from lora_np.checks import Array

RANKS = (1, 4, 16, 64)


def measure(lab: Lab) -> Values:
    text = lab.redrawn("language", *(f"LoRA, r = {r}" for r in RANKS))
    fixed, scaled = (
        [
            lab.sweep(
                f"digits, r = {r}, alpha = {alpha(r)}",
                Digits(),
                kind="lora",
                rank=r,
                alpha=alpha(r),
            )
            for r in RANKS
        ]
        for alpha in (lambda r: 32, lambda r: 2 * r)
    )
    common = text[1].sweep  # the best of rank 4 for all
    lost = [one.losses(at=common) - one.losses() for one in text]
    return {
        "spread": spread(text),
        "lost": np.max(lost, axis=0),
        "digits": spread(fixed),
        "doubled": spread(scaled),
    }


def spread(sweeps: Sequence[Sweep | Redrawn]) -> Array:
    """The largest best rate over the smallest, for each seed."""
    peaks = [one.peaks() for one in sweeps]
    return np.asarray(np.max(peaks, axis=0) / np.min(peaks, axis=0))


CLAIM = Claim(
    title="With alpha fixed, the best learning rate is nearly independent of the rank.",
    paper="J. Schulman and Thinking Machines Lab, LoRA Without Regret, 2025",
    finding="With alpha fixed, the best learning rates of ranks 1 to 64 differ by a factor of {spread} on text and {digits} on digits. With alpha = 2 r, they differ by a factor of {doubled}.",
    topic="rate",
    refuted_by="Ranks whose best rates differ, so that the rate of one costs another much loss.",
    setup="language, digits",
    varied="the rank and the learning rate",
    setting="Alpha is 32 at each rank, as in the source. For comparison, we also run alpha = 2 r.",
    figures={
        "spread": "largest best learning rate over the smallest, ranks 1 to 64, alpha 32, text",
        "lost": "the most that any rank loses at rank 4's best learning rate, nats per character, text",
        "digits": "largest best learning rate over the smallest, ranks 1 to 64, alpha 32, digits",
        "doubled": "largest best learning rate over the smallest, ranks 1 to 64, alpha = 2 r, digits",
    },
    measure=measure,
    ratios=("spread", "digits", "doubled"),
    rule=Rule((Part("spread", below=4), Part("digits", below=4))),
    headline="spread",
    words="largest best rate ÷ smallest, ranks 1 to 64, text",
    limits="The runs are short, and ranks go up to half the width. The ratio of the largest to the smallest of four learning rates exceeds 1 by chance, even if all are alike. The cost of using rank 4's learning rate at other ranks depends on the grid, so no rule uses that figure.",
    advice="Keep alpha fixed. Then the best learning rate changes little with the rank. After a change of rank, it is enough to try the neighbouring learning rates.",
    at_scale=AtScale(
        title="With alpha fixed, the best learning rate of rank 8 serves ranks 1 and 64 as well.",
        finding="At rank 8's best learning rate, the loss of rank 1 was {lost1:than} its own best loss. The loss of rank 64 was {lost64:than} its own best loss.",
        setting="Alpha is 32 at ranks 1, 8 and 64.",
        figures={
            "lost1": "loss of rank 1 at rank 8's best learning rate over its loss at its own best one",
            "lost64": "loss of rank 64 at rank 8's best learning rate over its loss at its own best one",
            "spread": "largest best learning rate over the smallest, ranks 1, 8 and 64, alpha 32",
        },
        measure=lambda runs: {
            "lost1": runs.over("LoRA, r = 1", "LoRA, r = 1", at=("LoRA, r = 8", "")),
            "lost64": runs.over("LoRA, r = 64", "LoRA, r = 64", at=("LoRA, r = 8", "")),
            "spread": runs.spread("LoRA, r = 1", "LoRA, r = 8", "LoRA, r = 64"),
        },
        ratios=("lost1", "lost64", "spread"),
        rule=Rule((Part("lost1", below=1.01), Part("lost64", below=1.01))),
        headline="lost1",
        words="rank 1's loss at rank 8's rate ÷ at its own",
        limits="We used one base and one text, and trained for 60 steps. If two ranks have the same best learning rate on the grid, the ratio of losses is 1 for each seed. The spread of the best learning rates comes from the two seeds that search for them. No rule uses this spread.",
    ),
)
