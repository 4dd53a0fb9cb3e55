"""What a LoRA can hold, foretold."""

from __future__ import annotations

import numpy as np

from claims.memorising import OTHERWISE, SEEN, SEEN_ONE, STORED, TEXTS, UNSEEN, Facts, foretold
from claims.protocol import FAILS, HERE_ONLY, HOLDS, Claim, rate


def measure(lab):
    method = lambda rank, adam=True: {"kind": "lora", "rank": rank, "alpha": rank, "adam": adam}
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


def rule(f):
    """Holds if of the six settings that were not fitted five or more are inside the range that the
    others foretell, all by their means. Holds here if four are. Otherwise it fails here.
    """
    count = inside({name: getattr(f, name).mean for name in (*SEEN, *SEEN_ONE, *UNSEEN)})
    return HOLDS if count >= 5 else HERE_ONLY if count == 4 else FAILS


def inside(found):
    """How many of the six are inside."""
    ranges = {name: foretold(found, rank) for name, (_, rank) in UNSEEN.items()}
    return (
        sum((low <= found[name]) & (found[name] <= high) for name, (low, high) in ranges.items())
        * 1.0
    )


CLAIM = Claim(
    title="What a LoRA can hold is foretold within a factor of 1.5 by the numbers that are trained.",
    paper="Allen-Zhu, Li, arXiv 2404.05405; Morris et al., arXiv 2505.24832, who count bits for each number of whole models",
    topic="capacity",
    refuted_by="Settings that nobody has fitted, whose bits for each number are outside the range that the others foretell.",
    setup="memory, and language: random labels of a network 32 to 128 wide; random keys and values in the shipped model",
    varied="rank, width, map, classes, steps, the rule of descent, and the bits in which the adapter is stored",
    setting="Morris et al.'s count on uniform labels, three bits asked for each number; six settings are foretold and not fitted.",
    figures={
        "r2": "bits for each trained number at rank 2, network 32-64-16, first map, 1,000 steps of Adam",
        "r4": "the same at rank 4",
        "r8": "the same at rank 8",
        "wide": "rank 2, network 64-128-16",
        "last": "rank 2, last map",
        "few": "rank 4, four classes",
        "r1": "rank 1",
        "wide_r1": "rank 1, network 64-128-16",
        "short": "rank 4 in 250 steps",
        "long": "rank 4 in 2,500 steps",
        "sgd": "rank 4 by plain gradient descent",
        "text_mlp": "keys and values in the shipped model, 150 steps: rank 2 on an up_proj",
        "text_attention": "the same, rank 2 on a v_proj",
        "spread_bits": "spread of the first six: standard deviation over mean, bits for each number",
        "spread_free": "the same, bits for each degree of freedom, r (d + k - r)",
        "stored_8": "share of the bits at rank 4 that survives in 8 bits a number",
        "stored_4": "the same in 4 bits",
        "stored_3": "the same in 3 bits",
        "stored_2": "the same in 2 bits",
        "text_stored_8": "share of the bits of the up_proj that survives in 8 bits a number",
        "text_stored_4": "of the up_proj in 4 bits",
        "text_stored_3": "of the up_proj in 3 bits",
        "text_stored_2": "of the up_proj in 2 bits",
        "u_r3": "not fitted: rank 3, network 48-96-8",
        "u_r6": "not fitted: rank 6, network 48-64-16",
        "u_both": "not fitted: rank 2, both maps of 48-48-16",
        "u_many": "not fitted: rank 5, network 64-64-32",
        "u_r12": "not fitted: rank 12, network 64-64-16",
        "u_r1": "not fitted: rank 1, network 48-80-16",
        "inside": "of these six, inside the range that the same seed's others foretell",
    },
    measure=measure,
    rule=rule,
    published="2 bits (whole models trained for long), 3.6 bits (GPT-like models).",
    limits="Small maps and full batches. Texts are another matter: a language model held far less in the steps it was given. What fills an adapter to the brim is lost in four bits; what leaves room is not.",
    advice="Ask lora-np capacity, which gives a range; for texts plan with its lower end.",
)
