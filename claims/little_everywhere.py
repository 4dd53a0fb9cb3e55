"""A little in every layer is worth more than much in one."""

from __future__ import annotations

from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule


def measure(lab: Lab) -> Values:
    everywhere, first, second, last = lab.redrawn(
        "digits",
        "all three layers, r = 2",
        "first layer, r = 5",
        "second layer, r = 5",
        "last layer in full",
    )
    return {
        name: one.over(everywhere)
        for name, one in (("first", first), ("second", second), ("last", last))
    }


CLAIM = Claim(
    title="A little in every layer is worth more than much in one.",
    paper="Hu et al., arXiv 2106.09685, section 7.1, table 5; and a lesson of this course",
    finding="With equally many parameters, adapting the first layer alone gave a loss {first:less} below that of all three layers; the last layer alone, {last:higher} above it.",
    topic="modules",
    refuted_by="A single layer that does better with as many parameters.",
    setup="digits",
    varied="which layers are adapted",
    setting="Each method trains about 650 parameters: 660 in all three layers, or 640 in a single layer. In the last layer, 640 parameters are the whole W. The base, the data split, the initialisation of A and B, and the order of the batches are drawn anew for each seed. The base is never trained on a test image.",
    figures={
        "first": "test loss with the first layer alone, rank 5, over that with all three, rank 2, digits",
        "second": "test loss with the second layer alone, rank 5, over that with all three, rank 2, digits",
        "last": "test loss with the last layer alone, in full, over that with all three, rank 2, digits",
    },
    measure=measure,
    ratios=("first", "second", "last"),
    rule=Rule(tuple(Part(name, above=1, worth=1.1) for name in ("first", "second", "last"))),
    published="Accuracy on WikiSQL is 73.7 with q and v at rank 4, 70.4 with q alone at rank 8, and 73.0 with v alone at rank 8.",
    headline="first",
    words="loss, first layer alone ÷ all three, equal parameter counts",
    beats={
        "first": ("digits", "first layer, r = 5"),
        "second": ("digits", "second layer, r = 5"),
        "last": ("digits", "last layer in full"),
    },
    limits="The new task is the old task with its pixels in another order. The first layer alone could undo this change. If the classes get other names instead, adapting the last layer alone is best. If the digits are shifted, adapting the first layer alone is best. So the best layer depends on the task.",
    advice="Adapt every layer unless you know which layer has to change. If you know it, put the parameters there. On each of three tasks, some single layer did better alone than all three layers together.",
)
