"""High-rank updates for learning by heart."""

from __future__ import annotations

from claims.protocol import FAILS, HOLDS, Claim
from claims.setups import Memory


def measure(lab):
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


def rule(f):
    """Holds if HiRA and a sparse update both hold more bits for each trained number than LoRA.
    Otherwise it fails here.
    """
    return HOLDS if f.hira_more.low > 0 and f.sparse_more.low > 0 else FAILS


CLAIM = Claim(
    title="For learning by heart the rank of the update counts: high-rank updates hold more than LoRA.",
    paper="Jiang et al., MoRA, arXiv 2405.12130; Huang et al., HiRA, ICLR 2025",
    topic="capacity",
    refuted_by="LoRA that holds as many bits for each number as updates of high rank.",
    setup="memory",
    varied="the rank of the update at equal numbers",
    setting="MoRA's own test is pairs of random identifiers; here random labels, and two other updates of high rank.",
    figures={
        "lora": "bits held for each trained number, LoRA at rank 4",
        "hira": "the same, HiRA at rank 4",
        "sparse": "the same, 896 entries of W at random places, whose update has nearly full rank",
        "hira_more": "HiRA minus LoRA",
        "sparse_more": "the sparse update minus LoRA",
    },
    measure=measure,
    rule=rule,
    limits="One linear map. Two bits are asked for each number, about what can be held. The rule was kept and a way was changed after a "
    "first run: MoRA's own tiled output cannot tell the labels apart (0.03 bits), so the sparse update took its place.",
    advice="Count numbers, not rank: for facts to learn by heart, raise LoRA's rank.",
)
