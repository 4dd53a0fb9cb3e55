"""A handful of parameters can be enough."""

from __future__ import annotations

from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule


def measure(lab: Lab) -> Values:
    names = ("LoRA, r = 64", "LoRA-XS, r = 1", "LoRA-XS, r = 16")
    best, *few = lab.redrawn("language", *names)
    before = lab.untrained()
    shares = [(before - one.losses()) / (before - best.losses()) for one in few]
    return dict(zip(("n28", "n7168"), shares, strict=True))


CLAIM = Claim(
    title="Thirteen trainable parameters are enough to teach a model to reason.",
    paper="J. X. Morris et al., Learning to Reason in 13 Parameters (TinyLoRA), arXiv 2602.04118",
    finding="28 parameters achieved {n28:percent} of the gain of rank 64, and 7,168 parameters achieved {n7168:percent}.",
    topic="few parameters",
    refuted_by="A large model whose accuracy after reinforcement learning needs many more.",
    setup="language",
    varied="how many parameters are trained",
    setting="We train LoRA-XS with 28 and 7,168 parameters on text. The paper's TinyLoRA is a compressed form of LoRA-XS.",
    figures={
        "n28": "share of the gain of LoRA at rank 64 that 28 parameters achieve, one per linear layer",
        "n7168": "share of the gain of LoRA at rank 64 that 7,168 parameters achieve",
    },
    measure=measure,
    rule=Rule(
        (Part("n28", above=0.9),),
        scale="It needs a model of billions of weights and reinforcement learning.",
    ),
    headline="n28",
    words="share of rank 64's gain that 28 parameters achieve",
    limits="The paper's setup cannot be reproduced here. It needs reinforcement learning, and a model with billions of weights that can almost do the task already. For supervised learning, the paper itself requires far more parameters.",
    advice="Do not expect so few parameters to be enough in supervised training, or for a small model.",
)
