"""Double quantisation saves 0.37 bits a number."""

from __future__ import annotations

from functools import partial

import numpy as np

import lora_np as lnp
from claims.protocol import Claim
from claims.rules import Part, Rule
from claims.setups import mean_loss, shipped, texts
from lora_np.quantise import quantise


def measure(lab):
    rows = 48 if lab.quick else 160
    loss = {}
    for double in (False, True):
        few = partial(quantise, kind="nf4", double=double)
        start = lnp.inject(shipped(), rank=1, quantise=few, rng=0)
        loss[double] = mean_loss(lnp.freeze(start), texts()["austen"][:rows])
    W = np.random.default_rng(0).normal(size=(1024, 1024)).astype(np.float32)
    bits = {double: quantise(W, "nf4", double=double) for double in (False, True)}
    return {
        "saved": [8 * (bits[False].nbytes - bits[True].nbytes) / W.size],
        "error": [bits[True].error(W) / bits[False].error(W) - 1],
        "loss": [loss[True] - loss[False]],
    }


CLAIM = Claim(
    title="Quantising the scales as well saves 0.37 bits per parameter at no loss.",
    paper="Dettmers et al., QLoRA, arXiv 2305.14314, section 3",
    finding="Quantising the scales as well saves {saved} bits per parameter and costs {loss} nats per character.",
    topic="four bits",
    refuted_by="A model that predicts text worse with the scales in eight bits.",
    setup="files",
    varied="none",
    setting="The paper's blocks: 64 weights to a scale, 256 scales to a second one.",
    figures={
        "saved": "bits saved per parameter, 1,024 x 1,024",
        "error": "share by which the error of the weights grows",
        "loss": "what it costs on unseen text, nats per character",
    },
    measure=measure,
    counted=("saved",),
    rule=Rule((Part("saved", above=0.36), Part("loss", below=0.005))),
    published="0.373 bits per parameter: 0.5 bits of scales become 0.127.",
    limits="None that we know: the saving is arithmetic.",
    advice="Enable double quantisation.",
)
