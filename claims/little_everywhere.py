"""A little in every layer is worth more than much in one."""

from __future__ import annotations

from claims.protocol import FAILS, HERE_ONLY, HOLDS, Claim, gain
from claims.setups import Digits


def measure(lab):
    setup = Digits()
    layers = [f"layers.{i}" for i in (0, 2, 4)]
    everywhere = lab.sweep("all three, r = 2", setup, kind="lora", rank=2, alpha=4, targets=layers)
    first = lab.sweep("first only, r = 5", setup, kind="lora", rank=5, alpha=10, targets=layers[:1])
    second = lab.sweep(
        "second only, r = 5", setup, kind="lora", rank=5, alpha=10, targets=layers[1:2]
    )
    last = lab.sweep("last only, in full", setup, kind="full", targets=layers[2:])
    return {
        name: gain(everywhere, one)
        for name, one in (("first", first), ("second", second), ("last", last))
    }


def rule(f):
    """Holds if rank 2 in all three layers has a lower loss than each single layer of about as many
    numbers. Holds here if than the second and the last. Otherwise it fails here.
    """
    ahead = [f.first.low > 0, f.second.low > 0, f.last.low > 0]
    return HOLDS if all(ahead) else HERE_ONLY if all(ahead[1:]) else FAILS


CLAIM = Claim(
    title="A little in every layer is worth more than much in one.",
    paper="Hu et al., arXiv 2106.09685, section 7.1, table 5; and a lesson of this course",
    topic="modules",
    refuted_by="A single layer that does better with as many numbers.",
    setup="digits",
    varied="which layers are adapted",
    setting="About 650 numbers each: 660 in all three, 640 in the first or second, 640 in the last (its whole W).",
    figures={
        "first": "share of the loss of the first layer alone that all three take off (negative: they add)",
        "second": "the same against the second layer alone",
        "last": "the same against the last layer alone",
    },
    measure=measure,
    rule=rule,
    published="WikiSQL: 73.7 with q and v at rank 4, 70.4 with q alone at rank 8, 73.0 with v alone at rank 8.",
    limits="The new task is the old one with its pixels in another order, which the first layer alone could undo.",
    advice="Adapt every layer unless you know where the change is. If you know, put the numbers there.",
)
