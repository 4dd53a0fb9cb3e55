"""LoftQ and PiSSA repair what four bits lose."""

from __future__ import annotations

import numpy as np

import lora_np as lnp
from claims.protocol import FAILS, HERE_ONLY, HOLDS, Claim
from claims.setups import maps, mean_loss, shipped, texts


def measure(lab):
    rows = 48 if lab.quick else 160
    errors, losses = {}, {"base": mean_loss(shipped(), texts()["austen"][:rows])}
    for kind in ("lora", "pissa", "loftq"):
        start = lnp.inject(shipped(), rank=16, alpha=16, quantise="nf4", variant=kind, rng=0)
        pairs = maps(shipped(), start)
        errors[kind] = np.sqrt(sum(np.sum((W - W0) ** 2) for W0, W in pairs))
        losses[kind] = mean_loss(lnp.freeze(start), texts()["austen"][:rows])
    lost = {kind: losses[kind] - losses["base"] for kind in errors}
    return {
        "loftq": [errors["loftq"] / errors["lora"]],
        "pissa": [errors["pissa"] / errors["lora"]],
        "plain_loss": [lost["lora"]],
        "loftq_loss": [lost["loftq"]],
        "pissa_loss": [lost["pissa"]],
    }


def rule(f):
    """Holds if both leave less than three quarters of the error, and both lose less on text than
    plain rounding does. Holds here if both have a smaller error. Otherwise it fails here.
    """
    if (
        max(f.loftq.mean, f.pissa.mean) < 0.75
        and max(f.loftq_loss.mean, f.pissa_loss.mean) < f.plain_loss.mean
    ):
        return HOLDS
    return HERE_ONLY if max(f.loftq.mean, f.pissa.mean) < 1 else FAILS


CLAIM = Claim(
    title="LoftQ and PiSSA start closer to the model than its weights in four bits do.",
    paper="Li et al., LoftQ, arXiv 2310.08659; Meng et al., PiSSA, arXiv 2404.02948",
    topic="four bits",
    refuted_by="Weights for which the repaired start is no closer, or predicts text no better.",
    setup="files",
    varied="none",
    setting="nf4 in blocks of 64, rank 16, five steps of LoftQ, on all maps of a real model.",
    figures={
        "loftq": "error of all maps with LoftQ's start over that of nf4 alone",
        "pissa": "the same for PiSSA's start",
        "plain_loss": "what nf4 alone loses on unseen text, nats a character",
        "loftq_loss": "what LoftQ's start loses",
        "pissa_loss": "what PiSSA's start loses",
    },
    measure=measure,
    rule=rule,
    limits="One small model, whose maps have ranks of 64 and 128: rank 16 repairs more of them than of large ones.",
    advice="Use LoftQ if you start from four bits and the first steps count; check the loss, not the norm.",
)
