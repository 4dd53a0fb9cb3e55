"""Alpha, LoRA+'s ratio and the start of A are one knob."""

from __future__ import annotations

import numpy as np

from claims.lab import redrawn
from claims.lab.protocol import AtScale, Claim, Lab, Values
from claims.lab.rules import Part, Rule


def measure(lab: Lab) -> Values:
    known = lab.kappas()
    lab.costs["kappa"] = 0.0 if lab.quick else known.seconds
    gains = {
        f"gain{rank}": np.exp(known.values(rank, 1.0) - known.values(rank, 16.0))
        for rank in redrawn.RANKS
    }
    peaks = {rank: known.peaks(rank) for rank in redrawn.RANKS}
    best = {f"best{rank}": np.exp(peak) for rank, peak in peaks.items()}
    apart = {rank: peaks[rank] - peaks[4] for rank in (1, 16, 64)}
    ratios = {f"ratio{rank}": np.exp(np.sign(x.mean()) * x) for rank, x in apart.items()}
    lost = known.values(64, 4.0**6) - known.values(64, 16.0)
    names = ("LoRA, r = 16", "LoRA, r = 16, kappa / 16", "LoRA, r = 16, kappa x 16")
    text, below, above = lab.redrawn("language", *names, drawn=False)
    on_text = {"text_smaller": below.over(text), "text_larger": text.over(above)}
    return gains | best | ratios | {"beyond": np.exp(lost)} | on_text


RANKS = (1, 4, 16, 64)
CLAIM = Claim(
    title="Alpha, LoRA+'s ratio and the start of A are one knob, kappa, and one kappa suits ranks 1 to 64 within a factor of 4.",
    paper="Hu et al., arXiv 2106.09685, section 4.1; Hayou et al., LoRA+, arXiv 2402.12354; Kalajdzievski, rsLoRA, arXiv 2312.03732",
    finding="At rank 16, the loss at kappa 16 was {gain16:lower} below the loss at kappa 1. The best kappas of ranks 4 and 64 differ by a factor of {ratio64}.",
    topic="scale",
    refuted_by="Best kappas of two ranks that lie further apart than a factor of 4, or no gain from the best one.",
    setup="digits, language",
    varied="kappa, speed and rank",
    setting=(
        "The layer is W = W0 + s B A. A starts at size sigma, and the optimizer is Adam. Replace A, B and s by a A, b B and s / (a b): W stays the same. Each step stays "
        "the same too if the learning rates become a eta_A and b eta_B, and eps becomes eps / a and eps / b. So the four knobs s, sigma, eta_A and eta_B have two "
        "invariants: `speed = sqrt(s eta_A eta_B)` and `kappa = s sigma^2 eta_B / eta_A`. It follows that LoRA+ with ratio x is LoRA with x times alpha, and rsLoRA is "
        "LoRA with sqrt(r) times alpha. Multiplying alpha by 16 at a quarter of the learning rate is the same as multiplying A's initial size by 4. A test checks this to "
        "the last bit, for factors that are powers of two, with eps scaled and no gradient clipped. The study tries eight kappas at ranks 1 to 64, each at its best speed. "
        "The base, the data split, the initialisation of A and B, and the order of the batches are drawn anew for each seed. The base is never trained on a test image."
    ),
    figures={
        f"gain{rank}": f"test loss at kappa 1 (alpha = r) over that at kappa 16, rank {rank}, each at its best speed"
        for rank in RANKS
    }
    | {f"best{rank}": f"best kappa at rank {rank}, in units of alpha = r" for rank in RANKS}
    | {
        f"ratio{rank}": f"larger over smaller of the best kappas at ranks {rank} and 4"
        for rank in (1, 16, 64)
    }
    | {
        "beyond": "test loss at kappa 4,096 over test loss at kappa 16, rank 64, each at its best speed",
        "text_smaller": "loss at alpha 2 over loss at alpha 32, rank 16, text, each at its best learning rate",
        "text_larger": "loss at alpha 32 over loss at alpha 512, rank 16, text, each at its best learning rate",
    },
    measure=measure,
    ratios=(
        *(f"{name}{rank}" for name in ("gain", "best") for rank in RANKS),
        "ratio1",
        "ratio16",
        "ratio64",
        "beyond",
        "text_smaller",
        "text_larger",
    ),
    rule=Rule(
        (
            *(Part(f"gain{rank}", above=1, worth=1.1) for rank in RANKS),
            *(Part(f"ratio{rank}", below=4) for rank in (1, 16, 64)),
        )
    ),
    headline="gain16",
    words="loss at kappa 1 ÷ loss at kappa 16, rank 16",
    limits=(
        "The study covers one task, at width 64 and with 300 steps. On text (width 128, 100 steps, rank 16), the mean losses of alpha 2, 32 and 512 lie within 1 % of each other. No "
        "rule uses these figures. In the second setup, the mean losses also lie within 1 % of each other. With Kaiming initialisation, kappa is alpha / (3 r width), so "
        "alpha = r gives another kappa at another width."
    ),
    advice="Tune two settings: the learning rate and alpha. Up to an alpha of about 100, the best learning rate falls roughly as 1 / sqrt(alpha), and beyond that about as 1 / alpha. With alpha constant, it does not fall with the rank. At ranks 4 to 64, alpha = 16 r was near the best; at rank 1 a larger alpha was. We do not know which alpha is best for your task.",
    at_scale=AtScale(
        title="A larger kappa ends at a lower loss: 16 times from alpha 2 to 32, and again from 32 to 512.",
        finding="At rank 8, the loss at alpha 2 was {smaller:than} the loss at alpha 32. The loss at alpha 32 was {larger:than} the loss at alpha 512. Each alpha was run at its best learning rate.",
        setting="We run rank 8 with alpha 2, 32 and 512. In units of alpha = r, these alphas are kappa 1/4, 4 and 64. LoRA+ with ratio 16 at alpha 32 is LoRA at alpha 512.",
        figures={
            "smaller": "loss at alpha 2 over loss at alpha 32, rank 8, each at its best learning rate",
            "larger": "loss at alpha 32 over loss at alpha 512, rank 8, each at its best learning rate",
        },
        measure=lambda runs: {
            "smaller": runs.over("LoRA, r = 8, kappa / 16", "LoRA, r = 8"),
            "larger": runs.over("LoRA, r = 8", "LoRA, r = 8, kappa x 16"),
        },
        ratios=("smaller", "larger"),
        rule=Rule((Part("smaller", above=1, worth=1.01), Part("larger", above=1, worth=1.01))),
        headline="smaller",
        words="loss at alpha 2 ÷ loss at alpha 32, rank 8",
        beats={"smaller": ("LoRA, r = 8, kappa / 16",), "larger": ("LoRA, r = 8",)},
        limits="We used one base, one text and one rank, and trained for 60 steps.",
    ),
)
