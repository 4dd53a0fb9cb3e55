"""Double quantisation costs nothing."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import lora_np as lnp
from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule
from claims.lab.setups import mean_loss, texts
from claims.lab.text import BASES, loaded
from lora_np.checks import Array
from lora_np.quantise import quantise


def measure(lab: Lab) -> Values:
    rows = 48 if lab.quick else 160
    drawn = [np.random.default_rng(seed).normal(size=(1024, 1024)).astype(np.float32) for seed in lab.seeds]  # fmt: skip
    pairs = [[quantise(W, "nf4", double=double) for double in (False, True)] for W in drawn]
    plain, double = pairs[0]
    return {
        "saved": [8 * (plain.nbytes - double.nbytes) / drawn[0].size],
        "error": [
            double.error(W) / plain.error(W) - 1
            for W, (plain, double) in zip(drawn, pairs, strict=True)
        ],
        "loss": [cost(loaded(base), texts()["austen"][:rows]) for base in BASES],
    }


def cost(base: Any, rows: Array) -> float:
    """What a base loses on unseen text if the scales of nf4 are quantised as well."""
    losses = []
    for double in (False, True):
        few = partial(quantise, kind="nf4", double=double)
        losses.append(mean_loss(lnp.freeze(lnp.inject(base, rank=1, quantise=few, rng=0)), rows))
    return losses[1] - losses[0]


CLAIM = Claim(
    title="Quantising the scales as well saves 0.37 bits per parameter at no loss.",
    paper="Dettmers et al., QLoRA, arXiv 2305.14314, section 3",
    finding="Quantising the scales as well saves {saved} bits per parameter and costs less than 0.005 nats per character on four bases.",
    topic="four bits",
    refuted_by="A model that predicts text worse with the scales in eight bits.",
    setup="files",
    varied="the base",
    setting="The blocks are as in the paper: 64 weights share a scale, and 256 scales share a second scale. There are four bases, trained in the same way from different seeds.",
    figures={
        "saved": "bits saved per parameter of a 1,024 x 1,024 matrix",
        "error": "share by which the error of the weights grows",
        "loss": "increase in the loss on unseen text, nats per character",
    },
    measure=measure,
    counted=("saved",),
    rule=Rule((Part("saved", above=0.36), Part("loss", below=0.005))),
    published="The saving is 0.373 bits per parameter: 0.5 bits of scales become 0.127.",
    headline="saved",
    words="bits saved per parameter by quantising the scales",
    limits="The four bases are small and were trained with the same recipe. The saving in bits follows from arithmetic. A first version of this claim used only the shipped base. The figures of this base were known when we added the others.",
    advice="Enable double quantisation.",
)
