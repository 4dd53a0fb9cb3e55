"""What a LoRA can hold, foretold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from claims.lab.memorising import OTHERWISE, SEEN, SEEN_ONE, STORED, TEXTS, UNSEEN, Facts, foretold
from claims.lab.protocol import Claim, Lab, Values, rate
from claims.lab.rules import Part, Rule
from lora_np.checks import Array


def measure(lab: Lab) -> Values:
    sweeps = {name: lab.sweep(name, setup, start=4, **method(rank, adam))
              for name, (setup, rank, adam) in {**SEEN, **SEEN_ONE, **OTHERWISE}.items()}  # fmt: skip
    sweeps |= {name: lab.sweep(name, Facts(asked=1.0, steps=150), start=2, **method(rank), targets=[target])
               for name, (target, rank) in TEXTS.items()}  # fmt: skip
    found = {name: sweep.values("bits") for name, sweep in sweeps.items()}
    for name in ("bits", "free"):
        means = [sweeps[each].values(name) for each in SEEN]
        found[f"spread_{name}"] = np.std(means, axis=0) / np.mean(means, axis=0)
    for width in STORED:
        found[f"stored_{width}"] = sweeps["r4"].values(f"stored {width}") / found["r4"]
        found[f"text_stored_{width}"] = (
            sweeps["text_mlp"].values(f"stored {width}") / found["text_mlp"]
        )
    for name, (setup, rank) in UNSEEN.items():  # at a rate that suits those that were seen
        setup = setup.shortened() if lab.quick else setup
        found[name] = np.array(
            [lab.once(setup, rate(4), seed, method(rank))["bits"] for seed in lab.seeds]
        )
    return found | {"inside": inside(found)}


def method(rank: int, adam: bool = True) -> dict[str, Any]:
    return {"kind": "lora", "rank": rank, "alpha": rank, "adam": adam}


def inside(found: Mapping[str, Array]) -> Array:
    """How many of the six are inside."""
    ranges = {name: foretold(found, rank) for name, (_, rank) in UNSEEN.items()}
    return np.asarray(
        sum((low <= found[name]) & (found[name] <= high) for name, (low, high) in ranges.items())
        * 1.0
    )


CLAIM = Claim(
    title="How many random labels of independent inputs a LoRA can hold is predicted within a factor of 1.5 by its trainable parameters.",
    paper="Allen-Zhu, Li, arXiv 2404.05405; Morris et al., arXiv 2505.24832, who count bits per parameter of whole models",
    finding="Averaged over seeds, the number of trainable parameters predicted the bits held in {inside} of six settings that were not used to fit the range.",
    topic="capacity",
    refuted_by="Settings that were not fitted, with bits per parameter outside the range that the others predict.",
    setup="memory, and language: random labels for a network 32 to 128 wide; random pairs of a key and a value for the shipped model",
    varied="rank, width, layer, number of classes, steps, optimizer, and the bits per stored parameter",
    setting="We count bits as Morris et al. do, on uniform random labels. The labels contain three bits per trainable parameter. Six settings were not used to fit the range; the range has to predict them.",
    figures={
        "r2": "bits per trainable parameter, rank 2, network 32-64-16, first layer, 1,000 steps of Adam",
        "r4": "bits per trainable parameter, rank 4, network 32-64-16",
        "r8": "bits per trainable parameter, rank 8, network 32-64-16",
        "wide": "bits per trainable parameter, rank 2, network 64-128-16",
        "last": "bits per trainable parameter, rank 2 on the last layer, network 32-64-16",
        "few": "bits per trainable parameter, rank 4, four classes",
        "r1": "bits per trainable parameter, rank 1, network 32-64-16",
        "wide_r1": "bits per trainable parameter, rank 1, network 64-128-16",
        "short": "bits per trainable parameter, rank 4 in 250 steps",
        "long": "bits per trainable parameter, rank 4 in 2,500 steps",
        "sgd": "bits per trainable parameter, rank 4 by plain gradient descent",
        "text_mlp": "bits per trainable parameter, random pairs learned by the shipped model, 150 steps, rank 2 on an up_proj",
        "text_attention": "bits per trainable parameter, random pairs learned by the shipped model, 150 steps, rank 2 on a v_proj",
        "spread_bits": "standard deviation over mean of the first six, bits per trainable parameter",
        "spread_free": "standard deviation over mean of the first six, bits per degree of freedom, r (d + k - r)",
        "stored_8": "share of the bits at rank 4 that survives if each parameter is stored in 8 bits",
        "stored_4": "share of the bits at rank 4 that survives if each parameter is stored in 4 bits",
        "stored_3": "share of the bits at rank 4 that survives if each parameter is stored in 3 bits",
        "stored_2": "share of the bits at rank 4 that survives if each parameter is stored in 2 bits",
        "text_stored_8": "share of the up_proj's bits that survives if each parameter is stored in 8 bits",
        "text_stored_4": "share of the up_proj's bits that survives if each parameter is stored in 4 bits",
        "text_stored_3": "share of the up_proj's bits that survives if each parameter is stored in 3 bits",
        "text_stored_2": "share of the up_proj's bits that survives if each parameter is stored in 2 bits",
        "u_r3": "bits per trainable parameter, not fitted: rank 3, network 48-96-8",
        "u_r6": "bits per trainable parameter, not fitted: rank 6, network 48-64-16",
        "u_both": "bits per trainable parameter, not fitted: rank 2, both layers of 48-48-16",
        "u_many": "bits per trainable parameter, not fitted: rank 5, network 64-64-32",
        "u_r12": "bits per trainable parameter, not fitted: rank 12, network 64-64-16",
        "u_r1": "bits per trainable parameter, not fitted: rank 1, network 48-80-16",
        "inside": "number of unfitted settings, of six, inside the range that the other settings predict",
    },
    measure=measure,
    rule=Rule((Part("inside", above=4),)),
    published="A parameter holds 2 bits (whole models trained for long) or 3.6 bits (GPT-like models).",
    headline="inside",
    words="how many of six settings the range predicted",
    limits=(
        "The range holds for small layers, full batches, and independent inputs with random labels. It predicts nothing else. In a language model, a LoRA learned random "
        "pairs of a key and a value. In the steps that it was given, it stored 0.22 to 0.56 bits per parameter. For images with random labels, it stored 1.5 bits. "
        "Data that fill an adapter completely are lost if the adapter is stored in four bits. Data that leave room in the adapter survive."
    ),
    advice="`lora-np capacity` gives a range. For texts, plan with the lower end of the range.",
)
