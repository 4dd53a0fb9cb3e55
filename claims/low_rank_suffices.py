"""A very low rank suffices: on text, and on linear tasks whose spectrum is a dial."""

from __future__ import annotations

from claims.lab.protocol import AtScale, Claim, Lab, Values
from claims.lab.rules import Part, Rule
from claims.lab.setups import Linear


def measure(lab: Lab) -> Values:
    ranks = lab.redrawn("language", *(f"LoRA, r = {r}" for r in (1, 4, 64)))
    before = lab.untrained()
    gain = {one.sweep.method["rank"]: before - one.losses() for one in ranks}
    linear = {
        decay: lab.sweep(
            f"linear, decay {decay:g}, r = 4", Linear(decay=decay), kind="lora", rank=4, alpha=32
        )
        for decay in (0.5, 1.0)
    }
    return {
        "share1": gain[1] / gain[64],
        "share4": gain[4] / gain[64],
        "steep": 1 - linear[0.5].values(),
        "flat": 1 - linear[1.0].values(),
    }


CLAIM = Claim(
    title="A very low rank suffices: rank 1 to 4 does as well as rank 64.",
    paper="Hu et al., arXiv 2106.09685, section 7.2, table 6",
    finding="On text, rank 1 achieved {share1:percent} of rank 64's gain, and rank 4 achieved {share4:percent}.",
    topic="rank",
    refuted_by="A task on which rank 4, at its own rate, is clearly behind rank 64.",
    setup="language, linear",
    varied="the rank, and the decay of the update's singular values",
    setting="We use the paper's ranks 1, 4 and 64, on one text and four models that were trained in the same way. We adapt all linear layers instead of q and v.",
    figures={
        "share1": "share of rank 64's gain that rank 1 achieves, on text",
        "share4": "share of rank 64's gain that rank 4 achieves, on text",
        "steep": "share of the update that rank 4 finds where singular values halve, linear task (1 - 4^-4 by arithmetic)",
        "flat": "share of the update that rank 4 of 48 finds where all singular values are equal, linear task",
    },
    measure=measure,
    counted=("steep",),
    rule=Rule((Part("share1", above=0.98), Part("share4", above=0.98), Part("steep", above=0.98))),
    published="With q and v adapted, accuracy on WikiSQL is 73.4 at rank 1, 73.7 at rank 4 and 73.5 at rank 64.",
    headline="share4",
    words="share of rank 64's gain that rank 4 achieves, text",
    limits="We tried one text, and trained for 100 steps. The paper itself names an exception in footnote 6: a task far from the base. If all 48 singular values are equal, rank 4 can find only a twelfth of the update, by arithmetic. No rule uses that figure.",
    at_scale=AtScale(
        title="A very low rank suffices: ranks 1 and 8 do as well as rank 64.",
        finding="Rank 1 achieved {share1:percent} of rank 64's gain, and rank 8 achieved {share8:percent}.",
        setting="All linear layers are adapted at ranks 1, 8 and 64, with alpha 32. The gain is the improvement over the untrained model on the same windows.",
        figures={
            "share1": "share of rank 64's gain over the untrained model that rank 1 achieves",
            "share8": "share of rank 64's gain over the untrained model that rank 8 achieves",
        },
        measure=lambda runs: {
            f"share{r}": runs.share(f"LoRA, r = {r}", "LoRA, r = 64") for r in (1, 8)
        },
        rule=Rule((Part("share1", above=0.98), Part("share8", above=0.98))),
        headline="share8",
        words="share of rank 64's gain that rank 8 achieves",
        limits="We used one base and one text, and trained for 60 steps. Rank 4 was not run. The bound is that of the small setups. We knew the losses when we applied the bound here.",
    ),
    advice="Start at rank 4 to 16. Raise the rank only if the loss stays high, as it does for random labels and flat spectra.",
)
