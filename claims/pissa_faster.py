"""PiSSA converges faster and better."""

from __future__ import annotations

from claims.protocol import ARTEFACT, FAILS, HERE_ONLY, HOLDS, Claim, gain, share
from claims.setups import Digits, Linear


def measure(lab):
    found = {}
    for name, setup in (("digits", Digits()), ("linear", Linear())):
        plain = lab.sweep(f"{name}, LoRA", setup, kind="lora", rank=8, alpha=8)
        pissa = lab.sweep(f"{name}, PiSSA", setup, kind="pissa", rank=8, alpha=8)
        found[name] = gain(pissa, plain)
        if name == "digits":
            # a rate below LoRA's best, as in a setting copied from full tuning
            low = plain.place - 2
            for name, measure in (("early", "early"), ("fixed", "test")):
                found[name] = share(plain.values(measure, low), pissa.values(measure, low))
    return found


def rule(f):
    """Holds if PiSSA's loss is lower at its own best rate on both beds. Holds here if on one of
    them only, and not clearly higher on the other. An artefact of the rate if it is ahead at a rate
    below LoRA's best, but not on both beds at own rates. Otherwise it fails here.
    """
    ahead = [f.digits.low > 0, f.linear.low > 0]
    if all(ahead):
        return HOLDS
    if any(ahead) and min(f.digits.high, f.linear.high) > 0:
        return HERE_ONLY
    return ARTEFACT if f.early.low > 0 and f.fixed.low > 0 else FAILS


CLAIM = Claim(
    title="Starting A and B at W0's leading singular vectors converges faster and ends better.",
    paper="Meng et al., arXiv 2404.02948",
    topic="start",
    refuted_by="Plain LoRA with a loss as low at a rate of its own.",
    setup="digits, linear",
    varied="the rate",
    setting="The paper's start, with alpha = r as in its code, against plain LoRA with alpha = r.",
    figures={
        "digits": "share of LoRA's loss that PiSSA takes off on digits, own rates",
        "early": "the same after a quarter of the steps, at a rate 6 times below LoRA's best",
        "fixed": "the same at the end, at that rate",
        "linear": "the same on a linear task whose update has nothing to do with W0, own rates",
    },
    measure=measure,
    rule=rule,
    limits="The linear task is PiSSA's worst case: the directions that it moves are of no use there.",
    advice="Tune LoRA's rate first. PiSSA helps where the task lies in W0's leading directions.",
)
