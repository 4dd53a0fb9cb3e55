"""LoRA-GA and LoRA-One: start along the first gradient."""

from __future__ import annotations

from claims.protocol import FAILS, HERE_ONLY, HOLDS, Claim, gain
from claims.setups import Digits, Linear


def measure(lab):
    found = {}
    for name, setup in (("digits", Digits()), ("linear", Linear())):
        plain = lab.sweep(f"{name}, LoRA", setup, kind="lora", rank=8, alpha=16)
        for kind, short in (("lora-ga", "ga"), ("lora-one", "one")):
            method = lab.sweep(f"{name}, {kind}", setup, kind=kind, rank=8, alpha=16)
            found |= {
                f"{name}_{short}": gain(method, plain),
                f"{name}_{short}_early": gain(method, plain, "early"),
            }
        if name == "linear":
            found["excess"] = plain.values() / method.setup.floor(8) - 1
            found["excess_one"] = method.values() / method.setup.floor(8) - 1
    return found


def rule(f):
    """Holds if both starts are ahead of LoRA after a quarter of the steps and at the end, on both
    beds and at own rates. Holds here if at least one start is ahead after a quarter of the steps on
    both beds. Otherwise it fails here.
    """
    early = [[f.digits_ga_early, f.linear_ga_early], [f.digits_one_early, f.linear_one_early]]
    ends = [f.digits_ga, f.linear_ga, f.digits_one, f.linear_one]
    if all(g.low > 0 for g in [*early[0], *early[1], *ends]):
        return HOLDS
    return HERE_ONLY if any(all(g.low > 0 for g in pair) for pair in early) else FAILS


CLAIM = Claim(
    title="Starting along the first gradient of the full update speeds LoRA up, two to four times.",
    paper="Wang et al., LoRA-GA, arXiv 2407.05000; Zhang, Liu, Chen, LoRA-One, arXiv 2502.01235",
    topic="start",
    refuted_by="Plain LoRA that is as far after the same steps, at a rate of its own.",
    setup="digits, linear",
    varied="the bed and the rate",
    setting="Both starts from one batch, by the papers' equations; LoRA-One without its preconditioner.",
    figures={
        "digits_ga": "share of LoRA's loss that LoRA-GA takes off on digits, own rates",
        "digits_ga_early": "the same after a quarter of the steps",
        "digits_one": "share of LoRA's loss that LoRA-One takes off on digits, own rates",
        "digits_one_early": "the same after a quarter of the steps",
        "linear_ga": "LoRA-GA on the linear task, at the end",
        "linear_ga_early": "the same after a quarter of the steps",
        "linear_one": "LoRA-One on the linear task, at the end",
        "linear_one_early": "the same after a quarter of the steps",
        "excess": "LoRA's loss above the exact optimum of rank 8, as a share of it, linear task",
        "excess_one": "the same for LoRA-One",
    },
    measure=measure,
    rule=rule,
    limits=(
        "In a linear task with white inputs the first gradient is the task itself: the best case for both. LoRA-GA takes "
        "its start off W0, so that its change can have twice the rank of LoRA's."
    ),
    advice="Worth a try where one gradient of the full model can be had: on digits LoRA-GA was ahead.",
)
