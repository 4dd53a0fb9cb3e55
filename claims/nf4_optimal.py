"""Is nf4 optimal for normal weights?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule
from lora_np.checks import Array
from lora_np.quantise import nf4_levels


def measure(lab: Lab) -> Values:
    found: dict[str, list[float]] = {"squares": [], "absolute": [], "use": []}
    n = 20_000 if lab.quick else 100_000
    for seed in lab.seeds:
        blocks = np.random.default_rng(seed).normal(size=(n // 64, 64))
        blocks /= np.abs(blocks).max(axis=1, keepdims=True)  # as nf4 scales them
        learning, testing = np.split(blocks.ravel(), [blocks.size // 2])
        ours = nf4_levels()
        means, medians = fitted(learning, ours, np.mean), fitted(learning, ours, np.median)
        found["squares"].append(error(testing, ours, 2) / error(testing, means, 2) - 1)
        found["absolute"].append(error(testing, ours, 1) / error(testing, medians, 1) - 1)
        use = (
            np.bincount(np.abs(testing[:, None] - ours).argmin(axis=1), minlength=16) / testing.size
        )
        found["use"].append(use.max() / use.min())
    return found


def error(x: Array, levels: Array, power: int) -> float:
    nearest = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, x)]
    return float(np.mean(np.abs(x - nearest) ** power))


def fitted(x: Array, levels: Array, middle: Callable[[Array], float]) -> Array:
    """Sixteen levels by Lloyd's rule: each is the mean (or median) of what is rounded to it. The
    ends stay.
    """
    levels = np.array(levels, np.float64)
    for _ in range(60):
        nearby = np.searchsorted((levels[1:] + levels[:-1]) / 2, x)
        levels[1:-1] = [middle(x[nearby == i]) for i in range(1, 15)]
    return levels


CLAIM = Claim(
    title="nf4 is information-theoretically optimal for normally distributed weights.",
    paper="Dettmers et al., QLoRA, arXiv 2305.14314, section 3",
    finding="The squared error of nf4 is {squares:percent} above the error of levels fitted to other blocks. Its absolute error is {absolute:percent} above theirs.",
    topic="four bits",
    refuted_by="Sixteen other levels with a smaller error on normal weights.",
    setup="files",
    varied="none",
    setting="This is the paper's own case: normal weights in blocks of 64. Each block is divided by its largest absolute value.",
    figures={
        "squares": "relative excess of nf4's mean square error over that of levels fitted to other blocks",
        "absolute": "relative excess of nf4's mean absolute error over that of levels fitted to other blocks",
        "use": "uses of the most frequent level over uses of the least frequent level",
    },
    measure=measure,
    ratios=("use",),
    rule=Rule((Part("squares", below=0.01), Part("absolute", below=0.01))),
    headline="squares",
    words="nf4's square error above that of fitted levels",
    limits="We tried only normal weights. A quantile code would use all levels equally often. After the division by the largest value, nf4 does not do so.",
    advice="You can use nf4 freely, because it is close to the best code. But do not expect nf4 to be exactly optimal, whichever error you measure.",
)
