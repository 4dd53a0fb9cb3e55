"""Forgetting as a frontier: the old loss at equal new loss, for any learning rate and stop."""

from __future__ import annotations

import numpy as np

from claims.lab import batched, redrawn
from claims.lab.protocol import AtScale, Claim, Lab, Values
from claims.lab.rules import Part, Rule
from claims.lab.studies import Both, frontier, untrained

LEVELS = {"some": 1.0, "half": 0.5, "most": 0.25}  # loss on the new task, of some 7.2 untrained
RATES = {"LoRA, r = 8": range(-5, 2), "LoRA, r = 64": range(-5, 2), "full": range(-8, -1)}
FAR = {
    f"far{rank}{name}": (rank, lower, f"at {rates}")
    for name, (lower, rates) in {
        "": (0, "their best learning rates"),
        "_half": (1, "half of their best learning rates"),
        "_quarter": (2, "a quarter of their best learning rates"),
    }.items()
    for rank in (8, 64)
}  # levels of learning at 135 million parameters
METHODS = {
    "LoRA, r = 8": redrawn.lora(8, 16),
    "LoRA, r = 64": redrawn.lora(64, 16),
    "full": redrawn.FULL,
}


def measure(lab: Lab) -> Values:
    seeds, book = lab.drawn(batched.SEEDS), lab.book("frontier")
    line = lambda name, level, first: {"method": name, "level": level, "seeds": first}
    for first in seeds[:: batched.BLOCK]:
        block = range(first, first + batched.BLOCK)
        if book.missing(line("untrained", "", first)):
            book.note(line("untrained", "", first), untrained(block))
        for name, method in METHODS.items():
            wanted = [level for level in LEVELS if book.missing(line(name, level, first))]
            rates = [*map(redrawn.rate, RATES[name])][:: 2 if lab.quick else 1]
            losses = Both().runs(block, rates, **method) if wanted else {}
            for level in wanted:
                old = np.exp(frontier(losses, LEVELS[level]))
                book.note(line(name, level, first), {"old": old})
    cost = redrawn.SECONDS["digits"] * 2 * len(RATES["full"]) * batched.BLOCK * len(book.lines)
    lab.costs["frontier"] = 0.0 if lab.quick else cost / len(LEVELS)
    firsts = seeds[:: batched.BLOCK]
    olds = lambda name, level: np.concatenate(
        [book.logs(line(name, level, first), "old") for first in firsts]
    )
    before, figures = olds("untrained", ""), {}
    for level in LEVELS:
        found = {name: olds(name, level) for name in METHODS}
        reached = np.all([np.isfinite(old) for old in found.values()], axis=0)
        lowest = np.min([*found.values()], axis=0)
        figures[f"lost_{level}"] = np.exp(lowest[reached] - before[reached])
        for rank in (8, 64):
            ours = found[f"LoRA, r = {rank}"]
            figures[f"{level}{rank}"] = np.exp(found["full"][reached] - ours[reached])
    return figures


CLAIM = Claim(
    title="At equal loss on the new task, LoRA keeps more of the old one than full fine-tuning.",
    paper="Biderman et al., LoRA Learns Less and Forgets Less, arXiv 2405.09673, on the trade-off of learning and forgetting",
    finding="At a loss of 0.5 on the new task, LoRA of rank 8 had {half8:inverse} times the full update's loss on the old task. LoRA of rank 64 had {half64:inverse} times this loss.",
    topic="forgetting",
    refuted_by="A full update that forgets no more than LoRA where both have learned as much.",
    setup="digits",
    varied="learning rate and the step at which training stops",
    setting=(
        "The old task is upright digits, and the new task is digits on their side. Each method runs at seven learning rates, and each run is measured 15 times. A level is "
        "a loss on the new task of at most 1, 0.5 or 0.25; the loss of the untrained network is some 7.2. Of all learning rates and stopping points that reach a level, we "
        "choose the one with the smallest loss on the old task. One half of the test images makes this choice, and the loss is measured on the other half. If one of the "
        "three methods does not reach a level with a seed, that seed is not counted at that level. A level counts only if all three methods have a higher loss on the old "
        "task there than the untrained network."
    ),
    figures={
        f"lost_{level}": f"old loss, the lowest of the three methods' over the untrained network's, at a new loss up to {loss}"
        for level, loss in LEVELS.items()
    }
    | {
        f"{level}{rank}": f"loss on the old task, the full update's over LoRA's, rank {rank}, at a new loss up to {loss}"
        for level, loss in LEVELS.items() for rank in (8, 64)
    },
    measure=measure,
    ratios=[
        *(f"lost_{level}" for level in LEVELS),
        *(f"{level}{rank}" for level in LEVELS for rank in (8, 64)),
    ],
    rule=Rule(tuple(Part(f"{level}{rank}", above=1, worth=1.1, needs=f"lost_{level}") for level in LEVELS for rank in (8, 64))),
    headline="half8",
    words="full update's old loss ÷ LoRA's at equal new loss",
    limits="After the run, we decided to leave out seeds that do not reach a level (5 of 64 at the level 0.25). There is one small network, and both tasks need the same layers. No old data are replayed. For text, see forgets-less.",
    advice="Compare forgetting at an equal loss on the new task, with the best learning rate and stopping point of each method.",
    at_scale=AtScale(
        title="At equal loss on the new text, LoRA keeps more of the old one than full fine-tuning.",
        finding="At rank 8 and equal new loss, the lower old loss was {lost8:than} the untrained model's ({lostfar8:than} on the far text). The full update's was {old8:than} LoRA's.",
        setting=(
            "The old text is Austen; the far one is a list of facts about chemical elements in modern English, and three of the six seeds ran with it. Of LoRA and the full update, the one that ends higher on the new text runs at its best learning rate. The other one is interpolated "
            "between its learning rates, up to its best, to the same new loss. For the far text there are two more levels of learning: the higher of the new losses at half and at a quarter of the best learning rates. There the lines begin at the untrained model. A seed that is not brought to a level is not counted there."
        ),
        figures={
            f"old{rank}": f"loss on the old text, the full update's over LoRA's at rank {rank}, both at the higher of their best losses on the new text"
            for rank in (8, 64)
        } | {
            f"lost{rank}": f"loss on the old text, the lower of the full update's and LoRA's at rank {rank} over the untrained model's, both at the higher of their best losses on the new text"
            for rank in (8, 64)
        } | {
            f"gained{rank}": f"loss of the untrained model on the new text over LoRA's at rank {rank} and its best learning rate"
            for rank in (8, 64)
        } | {
            name: f"loss on the far text, the full update's over LoRA's at rank {rank}, both at the higher of their new losses {at}"
            for name, (rank, _, at) in FAR.items()
        } | {
            f"lost{name}": f"loss on the far text, the lower of the full update's and LoRA's at rank {rank} over the untrained model's, both at the higher of their new losses {at}"
            for name, (rank, _, at) in FAR.items()
        } | {
            f"new{rank}": f"loss on the new text, the full update's over LoRA's at rank {rank}, each at its best learning rate"
            for rank in (8, 64)
        },
        measure=lambda runs: {f"old{rank}": runs.frontier("full", f"LoRA, r = {rank}") for rank in (8, 64)}
        | {f"lost{rank}": runs.lost("full", f"LoRA, r = {rank}") for rank in (8, 64)}
        | {f"gained{rank}": runs.gained(f"LoRA, r = {rank}") for rank in (8, 64)}
        | {f"new{rank}": runs.over("full", f"LoRA, r = {rank}") for rank in (8, 64)}
        | {name: runs.far.frontier("full", f"LoRA, r = {rank}", lower) for name, (rank, lower, _) in FAR.items()}
        | {f"lost{name}": runs.far.lost("full", f"LoRA, r = {rank}", lower) for name, (rank, lower, _) in FAR.items()},
        ratios=("old8", "old64", "lost8", "lost64", "gained8", "gained64", "new8", "new64", *FAR, *(f"lost{name}" for name in FAR)),
        rule=Rule(tuple(Part(name, above=1, worth=1.01, needs=f"lost{name.removeprefix('old')}") for name in ("old8", "old64", *FAR))),
        headline="old8",
        words="full update's old loss ÷ LoRA's at equal new loss",
        limits="The untrained model's loss was measured after the verdict *supported* had been published: on this old text both methods end below it, so nothing was forgotten that could be kept. The far text was added after that, and its three levels of learning when its first seed was known. On the first text there is one level. One base, one new text, 60 steps, and a line between rates a factor of 2 apart. The comparison was to be at LoRA's new loss. Since the full update did not reach it, either of the two may be the one that ends higher. That was decided when the full update's runs of four seeds were known, and LoRA's at half of its best learning rate for two seeds of six.",
    ),
)  # fmt: skip
