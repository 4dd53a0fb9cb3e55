"""LoRA-Muon: spectral steps for A and B."""

from __future__ import annotations

import numpy as np

from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule

RANKS = (1, 4, 16, 64)


def measure(lab: Lab) -> Values:
    known = lab.kappas()  # Adam, at the best speed of each kappa
    muon = {rank: lab.redrawn("muon", f"LoRA-Muon, r = {rank}")[0] for rank in RANKS}
    found = {}
    for rank, one in muon.items():
        ours = one.sweep.values(one.seeds)
        theirs = {kappa: known.values(rank, kappa)[: len(ours)] for kappa in (16 / rank, 16.0)}
        found[f"alpha{rank}"] = np.exp(theirs[16 / rank] - ours)
        found[f"kappa{rank}"] = np.exp(theirs[16.0] - ours)
    peaks = np.array([one.sweep.peaks(one.seeds) for one in muon.values()])
    order = np.argsort(peaks.mean(axis=1))
    return found | {"rates": np.exp(peaks[order[-1]] - peaks[order[0]])}


ADAM = {"alpha": "Adam with alpha 16 at every rank", "kappa": "Adam with alpha 16 r"}
CLAIM = Claim(
    title="LoRA-Muon ends better than Adam, and its best learning rate is the same at every rank.",
    paper="Cesista et al., LoRA-Muon, arXiv 2606.12921",
    finding="At rank 16, LoRA-Muon's loss was {kappa16:lower} below the loss of Adam with a good alpha. Its best learning rates at ranks 1 to 64 differ by a factor of {rates}.",
    topic="rate",
    refuted_by="Adam that does as well at a good alpha, or best learning rates that differ over the ranks.",
    setup="digits",
    varied="rank, and alpha under Adam",
    setting=(
        "The steps are `B -= lr / 2 polar(m_B R_A) R_A` and `A -= lr / 2 R_B polar(R_B m_A)`, with `R_A = (A A^T)^-1/2` and `R_B = (B^T B)^-1/2`. Momentum is 0.9, polar "
        "factors are exact, the scale is 1, and there is no weight decay. We run Adam with alpha fixed at 16, and with alpha 16 r (kappa 16). Both of these runs come from "
        "the study of kappa. The base, the data split, the initialisation of A and B, and the order of the batches are drawn anew for each of 16 seeds."
    ),
    figures={
        **{f"{name}{rank}": f"test loss of {adam} over LoRA-Muon's, rank {rank}, each at its best learning rate" for name, adam in ADAM.items() for rank in RANKS},
        "rates": "largest best learning rate of LoRA-Muon over the smallest, ranks 1 to 64",
    },
    measure=measure,
    ratios=[*(f"{name}{rank}" for name in ADAM for rank in RANKS), "rates"],
    rule=Rule((*(Part(f"{name}{rank}", above=1, worth=1.1) for name in ADAM for rank in (4, 16, 64)), Part("rates", below=2))),
    headline="kappa16",
    words="Adam's loss with a good alpha ÷ LoRA-Muon's, rank 16",
    limits="We tried one task at width 64, and trained for 300 steps. B starts at zero, and there is no weight decay. Adam's test losses come from the study of kappa, whose speeds lie a factor of 2 apart. LoRA-Muon's learning rates lie a factor of 2 apart too.",
    advice="If your framework has spectral steps, compare them with Adam at a good alpha, from rank 4 on. Tune the learning rate at each rank, because it does not carry over from rank 1.",
)  # fmt: skip
