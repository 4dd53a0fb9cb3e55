"""A handful of parameters can be enough."""

from __future__ import annotations

from claims.protocol import Claim
from claims.rules import Part, Rule
from claims.setups import LANGUAGE, adapted, untrained


def measure(lab):
    best = lab.sweep("LoRA, r = 64", LANGUAGE, start=-1, **adapted(64))
    before = untrained("test", best.setup.rows)
    found = {}
    for rank in (1, 16):
        small = lab.sweep(
            f"LoRA-XS, r = {rank}", LANGUAGE, start=0, **adapted(rank, kind="lora-xs", alpha=rank)
        )
        found[f"n{28 * rank**2}"] = (before - small.values()) / (before - best.values())
    return found


CLAIM = Claim(
    title="Thirteen trainable parameters are enough to teach a model to reason.",
    paper="J. X. Morris et al., Learning to Reason in 13 Parameters (TinyLoRA), arXiv 2602.04118",
    finding="28 parameters achieved {n28:percent} of the gain of rank 64, and 7,168 parameters {n7168:percent}.",
    topic="few parameters",
    refuted_by="A large model whose accuracy after reinforcement learning needs many more.",
    setup="language",
    varied="how many parameters are trained",
    setting="LoRA-XS, of which the paper's TinyLoRA is a compression, trained on text: 28 and 7,168 parameters.",
    figures={
        "n28": "share of the gain of LoRA at rank 64 that 28 parameters achieve, one per linear layer",
        "n7168": "share of the gain of LoRA at rank 64 that 7,168 parameters achieve",
    },
    measure=measure,
    rule=Rule(
        (Part("n28", above=0.9),),
        scale="It needs a model of billions of weights and reinforcement learning.",
    ),
    limits=(
        "The paper's setup cannot be reproduced here: it needs a model of billions of weights that can almost do the task, "
        "and reinforcement learning; for supervised learning the paper itself asks for far more parameters."
    ),
    advice="Do not expect it of supervised training, or of a small model.",
)
