"""GaLore: gradients are low-rank."""

from __future__ import annotations

import functools

import numpy as np

import lora_np as lnp
from claims.lab import methods
from claims.lab.protocol import Claim, Lab, Values, gain
from claims.lab.rules import Part, Rule
from claims.lab.setups import Digits, reader


def measure(lab: Lab) -> Values:
    setup = Digits()
    full = lab.sweep("full", setup, start=-1, kind="full")
    galore = lab.sweep("GaLore, r = 8", setup, kind="galore", rank=8, every=25)
    lora = lab.sweep("LoRA, r = 8", setup, kind="lora", rank=8, alpha=16)
    return {
        "gain": gain(galore, full),
        "lora": gain(galore, lora),
        "start": [energy(0, "start")],  # the base is the same for every seed
        "end": [energy(seed, "end") for seed in lab.seeds],
        "memory": [1 - (8 * 64) / (64 * 64)],
    }


@functools.cache
def energy(seed: int, stage: str) -> float:
    """The share of a gradient's energy in its top 8 directions of 64, mean over the two layers."""
    base, parts = reader()
    x, y = (part[:256] for part in parts["training"])
    loss = lambda model: lnp.cross_entropy(model(x), y)
    if stage == "end":
        start = methods.initialised(
            base, np.random.default_rng(seed), loss, kind="full", targets=["layers.0", "layers.2"]
        )
        rate = lnp.nn.linear_schedule(4e-3, steps=150)
        base = lnp.freeze(lnp.fit(
            start, *parts["training"], loss=lnp.cross_entropy, steps=150, batch_size=64, rng=seed, progress=False,
            optimizer=lnp.Adam(lr=rate),
        ).model)  # fmt: skip
    grads = methods.first_gradients(base, loss)
    squares = [np.linalg.svdvals(grads[path]) ** 2 for path in ("layers.0", "layers.2")]
    return float(np.mean([s[:8].sum() / s.sum() for s in squares]))


CLAIM = Claim(
    title="Gradients have a low rank, so projecting them saves Adam's memory at no loss.",
    paper="Zhao et al., GaLore, arXiv 2403.03507",
    finding="GaLore saved {memory:percent} of the memory for Adam's moments, and its loss was {gain:minus_percent} above the loss of full fine-tuning.",
    topic="memory",
    refuted_by="A gradient that is spread over many directions, or a loss above that of full tuning.",
    setup="digits",
    varied="the number of steps taken so far",
    setting="As in the paper, the gradient is projected onto its left singular vectors. The projection is renewed every 25 steps, and a run has 300 steps.",
    figures={
        "gain": "relative reduction in full fine-tuning's test loss by GaLore, each at its best learning rate",
        "lora": "relative reduction in the test loss of LoRA at rank 8 by GaLore",
        "start": "share of the first gradient's energy in its top 8 of 64 directions",
        "end": "share of the gradient's energy in its top 8 of 64 directions after 150 steps",
        "memory": "share of Adam's moments that is saved at rank 8 of 64",
    },
    measure=measure,
    counted=("memory",),
    rule=Rule((Part("start", above=0.9), Part("end", above=0.9), Part("gain", above=-0.05))),
    published="GaLore saves up to 65.5 % of the optimizer's memory, at the same loss as full-rank training.",
    headline="gain",
    words="share of full fine-tuning's loss that GaLore saves",
    limits="The network is 64 columns wide and has ten classes, so the gradient of its last layer has a rank of at most ten. Only the initialisation and the order of the batches are drawn anew for each seed. The base was trained on the test images too, in their upright form.",
    advice="GaLore works like a LoRA whose B is chosen from the gradient again and again. Use it if W0 itself must change.",
)
