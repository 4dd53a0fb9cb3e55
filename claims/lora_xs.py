"""LoRA-XS: r^2 numbers between frozen singular vectors."""

from __future__ import annotations

from claims.protocol import FAILS, HERE_ONLY, HOLDS, Claim, gain
from claims.setups import Digits


def measure(lab):
    setup = Digits()
    plain = lab.sweep("LoRA, r = 1", setup, kind="lora", rank=1, alpha=2)
    small = lab.sweep("LoRA-XS, r = 11", setup, kind="lora-xs", rank=11, alpha=11)
    more = lab.sweep("LoRA-XS, r = 32", setup, kind="lora-xs", rank=32, alpha=32)
    same = lab.sweep("LoRA, r = 8", setup, kind="lora", rank=8, alpha=16)
    return {
        "equal": gain(small, plain),
        "more": gain(more, same),
        "numbers": small.values("numbers"),
    }


def rule(f):
    """Holds if LoRA-XS has a lower loss than LoRA at equal numbers, with 242 against 256 and with
    2,048 each. Holds here if in one of the two. Otherwise it fails here.
    """
    ahead = [f.equal.low > 0, f.more.low > 0]
    return HOLDS if all(ahead) else HERE_ONLY if any(ahead) else FAILS


CLAIM = Claim(
    title="A trained r x r matrix between frozen singular vectors beats LoRA at equal numbers.",
    paper="Balazy et al., LoRA-XS, arXiv 2405.17604",
    topic="few numbers",
    refuted_by="LoRA with a lower loss from as many numbers.",
    setup="digits",
    varied="how many numbers are trained",
    setting="The paper's frozen U S and V from the SVD of W0; R from zero.",
    figures={
        "equal": "share of the loss of LoRA at rank 1 that LoRA-XS at rank 11 takes off (negative: it adds)",
        "more": "the same, rank 32 against LoRA at rank 8",
        "numbers": "trained numbers of LoRA-XS at rank 11",
    },
    measure=measure,
    rule=rule,
    limits="The task turns every image: what it needs is not what W0's leading directions are for.",
    advice="It goes below what LoRA's rank 1 costs; above that, LoRA is the safer choice far from the base.",
)
