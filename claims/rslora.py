"""alpha / sqrt(r) instead of alpha / r."""

from __future__ import annotations

import numpy as np

import lora_np as lnp
from claims.protocol import Claim, better, gain, share
from claims.setups import Digits


def measure(lab):
    setup = Digits()
    small = lab.sweep("LoRA, r = 4", setup, kind="lora", rank=4, alpha=16)
    plain = lab.sweep("LoRA, r = 64", setup, kind="lora", rank=64, alpha=16)
    stable = lab.sweep("rsLoRA, r = 64", setup, kind="rslora", rank=64, alpha=16)
    return {
        "fixed": share(plain.values(place=small.place), stable.values(place=small.place)),
        "tuned": gain(stable, plain),
        "gradient": [steepness("lora", seed) for seed in lab.seeds],
        "stable": [steepness("rslora", seed) for seed in lab.seeds],
    }


def steepness(kind, seed):
    """The first gradient's norm at rank 512 over that at rank 4, for the product B A."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(64, 512)), rng.normal(size=(64, 512))
    norms = []
    for rank in (4, 512):
        model = lnp.inject(
            lnp.Linear(np.zeros((512, 512))), rank=rank, alpha=16, variant=kind, rng=seed
        )
        lnp.mean_squared_error(model(x), y).backward()
        norms.append(np.linalg.norm(model.B.grad @ lnp.value(model.A)) * model.scale)
    return norms[1] / norms[0]


def rule(f):
    """Holds if rsLoRA's loss at rank 64 is 2 % or more below LoRA's at their own best rates. An
    artefact of the rate if only at the rate that is best for LoRA at rank 4. Holds here if below,
    by less. Otherwise it fails here.
    """
    return better(f.fixed, f.tuned)


CLAIM = Claim(
    title="alpha / r makes high ranks learn too slowly; alpha / sqrt(r) does not.",
    paper="Kalajdzievski, arXiv 2312.03732",
    topic="scale",
    refuted_by="A high rank with alpha / r that does as well as with alpha / sqrt(r), at a rate of its own.",
    setup="digits",
    varied="the rank and the rate",
    setting="alpha 16 for both, ranks 4 and 64 on the same task, and the size of the first step up to rank 512.",
    figures={
        "fixed": "share of LoRA's loss at rank 64 that rsLoRA takes off, at the best rate of rank 4",
        "tuned": "the same, each at its own best rate",
        "gradient": "what a first step of gradient descent does to B A: rank 512 over rank 4, alpha / r",
        "stable": "the same, alpha / sqrt(r)",
    },
    measure=measure,
    rule=rule,
    limits="Rank 64 is the full rank of this bed. Adam makes the size of a gradient matter little.",
    advice="At high ranks use rsLoRA, or raise alpha with the rank, and tune the rate for either.",
)
