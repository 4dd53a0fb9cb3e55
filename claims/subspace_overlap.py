"""The top direction of a small rank is that of a large one; the rest is not."""

from __future__ import annotations

from typing import Any

import numpy as np

import lora_np as lnp
from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule
from lora_np.checks import Array


def measure(lab: Lab) -> Values:
    methods = lab.redrawn("language", "LoRA, r = 4", "LoRA, r = 64")
    first, rest = [], []
    for seed in methods[0].seeds:
        other = seed + len(methods[0].sweep.setup.bases)  # the next one with the same base
        small, large = (one.tuned(drawn) for drawn, one in zip((seed, other), methods, strict=True))
        phi = [
            lnp.linalg.similarity_grid(A, A64)
            for A, A64 in zip(factors(small), factors(large), strict=True)
        ]
        first.append(np.mean([grid[0, 0] for grid in phi]))
        # phi(4, 4) times 4 counts what four directions share; without the first pair, three are
        # left
        rest.append(np.mean([(4 * grid[3, 3] - grid[0, 0]) / 3 for grid in phi]))
    return {"first": first, "rest": rest}


def factors(model: Any) -> list[Array]:
    """A of each query and value projection: what the paper looks at."""
    layers = ((path, node) for path, node in lnp.nn.walk(model) if isinstance(node, lnp.LoRALinear))
    return [lnp.value(layer.A) for path, layer in layers if path.endswith(("q_proj", "v_proj"))]


CLAIM = Claim(
    title="The top direction that a small rank learns is also that of a large rank; the others are not.",
    paper="Hu et al., arXiv 2106.09685, section 7.2, figure 3",
    finding="The top directions of A at ranks 4 and 64 overlap by {first}. In so short a run, A hardly leaves its random initialisation.",
    topic="what an update is like",
    refuted_by="Top directions of two ranks that share no more than random ones.",
    setup="language",
    varied="the rank",
    setting="We compute the paper's measure phi(A, A', 1, 1) for queries and values, and compare two seeds on the same base, for eight seeds on four bases. Rank 4 takes the place of the paper's rank 8.",
    figures={
        "first": "phi(1, 1) of A at ranks 4 and 64, mean over queries and values of all layers",
        "rest": "overlap of A's next three directions at ranks 4 and 64, mean over all queries and values",
    },
    measure=measure,
    rule=Rule(
        (Part("first", above=0.5),),
        scale="It needs runs that are long enough for A to leave its random start.",
    ),
    published="phi(1, 1) is above 0.5 for queries and values of GPT-3's layer 48.",
    headline="first",
    words="overlap of the top directions of ranks 4 and 64",
    limits="In 100 steps, A does not move far from its random initialisation. So this setup cannot tell whether the claim holds.",
    advice="After a short run, compare what two adapters do (`lora-np diff`), not the directions of their factors.",
)
