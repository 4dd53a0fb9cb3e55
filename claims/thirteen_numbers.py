"""A handful of numbers can be enough."""

from __future__ import annotations

from claims.protocol import FAILS, HOLDS, SCALE, Claim
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


def rule(f):
    """Holds if 28 numbers bring nine tenths of the gain of rank 64. Needs scale if they bring less,
    and 7,168 numbers bring more. Otherwise it fails here.
    """
    if f.n28.low > 0.9:
        return HOLDS
    return SCALE if f.n28.high < f.n7168.low else FAILS


CLAIM = Claim(
    title="Thirteen trained numbers are enough to teach a model to reason.",
    paper="Morris et al., TinyLoRA, arXiv 2602.04118",
    topic="few numbers",
    refuted_by="A large model whose accuracy after reinforcement learning needs many more.",
    setup="language",
    varied="how many numbers are trained",
    setting="LoRA-XS, of which the paper's TinyLoRA is a compression, trained on text: 28 and 7,168 numbers.",
    figures={
        "n28": "share of the gain of LoRA at rank 64 that 28 numbers bring, one for each map",
        "n7168": "the same with 7,168 numbers",
    },
    measure=measure,
    rule=rule,
    limits=(
        "The paper's bed cannot be had here: it needs a model of billions of weights that almost can do the task, "
        "and reinforcement learning; for supervised learning the paper itself asks for far more numbers."
    ),
    advice="Do not expect it of supervised training, or of a small model.",
)
