"""Rankings of variants on another base and split, and what a comparison varies with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from claims.lab import batched, redrawn
from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule
from claims.lab.studies import AGAIN, PER, SOURCES, OneApart
from claims.lab.suites import rank_correlation

GROUPS, QUICK = 8, 2
NAMES = ("LoRA", "rsLoRA", "LoRA+ 16", "DoRA", "PiSSA", "OLoRA", "LoRA-GA", "LoRA-One")
SWEEPS = {name: f"{name}, r = 8" + (", alpha = 8" if name == "LoRA" else "") for name in NAMES}


def logs(book: redrawn.Book, group: int, names: Sequence[str]) -> Any:
    """Log losses (variants, 13) of the draws of a group, each variant at its recorded rate."""
    places, found = range(1 + AGAIN * len(SOURCES)), []
    for name in names:
        full = redrawn.sweeps("digits")[SWEEPS[name]]
        run = {"method": name, "group": group}
        if book.missing(run):
            lr = redrawn.rate(full.best(batched.HALVES[0], range(batched.SEEDS)))
            seeds = [PER * group + place for place in places]
            losses = OneApart().runs(seeds, [lr], **full.method)
            book.note(run, {half: losses[half][:, 0] for half in batched.HALVES})
        found.append(np.mean([book.logs(run, half) for half in batched.HALVES], axis=0))
    return np.array(found)


def redrawn_alone(source: str) -> list[int]:
    """The draws of a group that differ in one source, its first among them."""
    first = 1 + AGAIN * SOURCES.index(source)
    return [0, *range(first, first + AGAIN)]


def measure(lab: Lab) -> Values:
    names, book = NAMES[::2] if lab.quick else NAMES, lab.book("rankings")
    groups = [logs(book, group, names) for group in lab.drawn(GROUPS, QUICK)]
    cost = redrawn.SECONDS["digits"] * 13 * len(book.lines)
    lab.costs["rankings"] = 0.0 if lab.quick else cost
    spread = {}
    for source in SOURCES:
        gains = [
            group[1:, redrawn_alone(source)] - group[0, redrawn_alone(source)] for group in groups
        ]
        spread[source] = np.array([np.mean(np.var(one, axis=1, ddof=1)) for one in gains])
    same = sorted({*redrawn_alone("start"), *redrawn_alone("order")})  # one base and split
    means = [group[:, same].mean(axis=1) for group in groups]
    pairs = zip(means[::2], means[1::2], strict=True)
    data, training = spread["base"] + spread["split"], spread["start"] + spread["order"]
    deviations = {source: np.sqrt(variance) for source, variance in spread.items()}
    return {
        "rank": [rank_correlation(*pair) for pair in pairs],
        "ratio": data / training,
    } | deviations


CLAIM = Claim(
    title="A ranking of LoRA variants on one base and split holds on another, and base and split matter less than start and order.",
    paper="What comparisons on one base and split assume; Bouthillier et al., arXiv 2103.03098, found the sampling of data among the largest sources of variance",
    finding="On two bases and splits, rankings of eight methods correlate by {rank}. The variance of a gain over bases and splits is {ratio} times its variance over starts and orders.",
    topic="variants",
    refuted_by="Rankings that change with base and split, or gains that vary more with base and split than with start and order.",
    setup="digits",
    varied="base, split, start and order, each alone",
    setting=(
        "We compare LoRA and seven variants at rank 8, each at its recorded best learning rate. Each group of draws has a first one and twelve others, which differ from the first in "
        "one thing only. Three draws have another base, three another split, three another initialisation of A and B, and three another order of the batches. If the split is "
        "drawn again, the base is trained again as well."
    ),
    figures={
        "rank": "rank correlation of eight methods' losses on two bases and splits, each a mean of seven starts and orders",
        "ratio": "variance of a log gain over LoRA across bases and splits, over its variance across starts and orders",
        **{source: f"standard deviation of a log gain over LoRA when only the {source} is drawn again" for source in SOURCES},
    },
    measure=measure,
    ratios=("ratio", *SOURCES),
    rule=Rule((Part("rank", above=0.8), Part("ratio", below=1))),
    headline="rank",
    words="rank correlation of eight methods on two bases",
    limits="We tried one task of 1,797 images, at one width and with 300 steps. The learning rates are not chosen again for each draw.",
    advice="Draw the base and the split again as well as the seed. Otherwise, say that your interval holds for one base and one split.",
)  # fmt: skip
