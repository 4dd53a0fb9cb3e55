"""Batch size at equal examples and at equal steps, over ranks."""

from __future__ import annotations

import numpy as np

from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule
from lora_np.checks import Array

RANKS = (1, 8, 64)
EXAMPLES = ("LoRA, r = {}, batch {}, 19,200 examples", (16, 256))
STEPS = ("LoRA, r = {}, batch {}, 300 steps", (16, 256))


def measure(lab: Lab) -> Values:
    costs: dict[int, Array] = {}
    steps: dict[int, Array] = {}
    for rank in RANKS:
        for found, (name, sizes) in ((costs, EXAMPLES), (steps, STEPS)):
            small, large = lab.redrawn("batch", *(name.format(rank, size) for size in sizes))
            found[rank] = large.over(small)
    named = {f"examples{rank}": x for rank, x in costs.items()}
    named |= {f"steps{rank}": x for rank, x in steps.items()}
    apart = np.log(costs[64] / costs[1])
    return named | {"apart": np.exp(np.sign(apart.mean()) * apart)}


CLAIM = Claim(
    title="What a large batch costs LoRA at equal examples does not depend on the rank, and at equal steps it costs nothing.",
    paper="LoRA Without Regret, on batch size; Beware of the Batch Size, arXiv 2602.09492, finds that the best batch size depends on the rank",
    finding="For equal examples, batch 256 had {examples1} times batch 16's loss at rank 1 and {examples64} times at rank 64. For equal steps, it had {steps64} times the loss at rank 64.",
    topic="rate",
    refuted_by="Costs of a large batch that differ by more than a quarter at ranks 1 and 64, or a large batch that ends worse after as many steps.",
    setup="digits",
    varied="batch size, rank and number of steps",
    setting=(
        "The batch sizes are 16 and 256, each with its own best learning rate. Alpha is 32. At an equal number of examples (19,200), training takes 1,200 steps with "
        "batch 16 and 75 steps with batch 256. At an equal number of steps, it takes 300 steps with either. The base, the data split, the initialisation of A and B, and "
        "the order of the batches are drawn anew for each of 16 seeds."
    ),
    figures={
        **{f"examples{rank}": f"test loss with batch 256 over test loss with batch 16, rank {rank}, equal number of examples" for rank in RANKS},
        **{f"steps{rank}": f"test loss with batch 256 over test loss with batch 16, rank {rank}, equal number of steps" for rank in RANKS},
        "apart": "larger over smaller growth of the loss with the batch size, ranks 1 and 64, equal number of examples",
    },
    measure=measure,
    ratios=[*(f"{kind}{rank}" for kind in ("examples", "steps") for rank in RANKS), "apart"],
    rule=Rule((Part("apart", below=1.25), *(Part(f"steps{rank}", below=1) for rank in RANKS))),
    headline="apart",
    words="what a large batch costs at rank 64 ÷ at rank 1",
    limits=(
        "At first, the rule required the cost at rank 64 to be 0.8 to 1.25 times the cost at rank 1. After the run, we replaced this range by one bound: the larger cost is "
        "at most 1.25 times the smaller. We tried two batch sizes on one task with 1,000 training images. In 300 steps of batch 256, each image is used 77 times. "
        "We did not vary weight decay or warm-up."
    ),
    advice="If compute matters, compare batch sizes at an equal number of examples. Tune the learning rate for each batch size.",
)  # fmt: skip
