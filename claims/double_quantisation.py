"""Double quantisation saves 0.37 bits a number."""

from __future__ import annotations

from functools import partial

import numpy as np

import lora_np as lnp
from claims.protocol import FAILS, HOLDS, Claim
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


def rule(f):
    """Holds if it saves between 0.36 and 0.38 bits a number and costs less than 0.005 nats a
    character. Otherwise it fails here.
    """
    return HOLDS if 0.36 < f.saved.mean < 0.38 and f.loss.mean < 0.005 else FAILS


CLAIM = Claim(
    title="Quantising the scales as well saves 0.37 bits a number at no loss.",
    paper="Dettmers et al., QLoRA, arXiv 2305.14314, section 3",
    topic="four bits",
    refuted_by="A model that predicts text worse with the scales in eight bits.",
    setup="files",
    varied="none",
    setting="The paper's blocks: 64 numbers to a scale, 256 scales to a second one.",
    figures={
        "saved": "bits saved for each number, 1,024 x 1,024",
        "error": "error of the weights with both over that with one quantisation, minus one",
        "loss": "what it costs on unseen text, nats a character",
    },
    measure=measure,
    rule=rule,
    published="0.373 bits a number: 0.5 bits of scales become 0.127.",
    limits="None that we know: the saving is arithmetic.",
    advice="Switch it on.",
)
