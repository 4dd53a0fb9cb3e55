"""Methods to merge against the plain sum."""

from __future__ import annotations

from collections.abc import Iterator

from claims.lab.protocol import Claim, Lab, Values
from claims.lab.rules import Part, Rule
from claims.lab.suites import Merging
from lora_np.checks import Array

BETTER = {"ties": "ties_svd", "dare": "dare_linear_svd", "knots": "knots", "tsv": "tsv"}


def measure(lab: Lab) -> Values:
    found: dict[str, Array] = {}
    for kind in ("mild", "hard"):
        sweep = lab.sweep(kind, Merging(kind), start=-1, rank=4)
        left = sweep.values
        found |= {
            f"none_{kind}": left("none"),
            f"untuned_{kind}": left("untuned"),
            f"sum_{kind}": left("sum"),
        }
        found |= {f"{name}_{kind}": left(method) - left("sum") for name, method in BETTER.items()}
        found |= {
            f"linear_{kind}": left("linear") - left("none"),
            f"inputs_{kind}": left("regmean") - left("sum"),
        }
    return found


def meanings() -> Iterator[tuple[str, str]]:
    """What each figure is."""
    for kind in ("mild", "hard"):
        alone = "as a share of the single adapters' accuracy"
        yield f"none_{kind}", f"accuracy without an adapter, {alone}, {kind} changes"
        yield f"untuned_{kind}", f"accuracy of the sum of the updates, {alone}, {kind} changes"
        yield f"sum_{kind}", f"accuracy of the sum, its scale tuned, {alone}, {kind} changes"
        for name, method in BETTER.items():
            yield (
                f"{name}_{kind}",
                f"accuracy of {method} minus that of the sum, both scales tuned, {kind} changes",
            )
        yield (
            f"linear_{kind}",
            f"accuracy of PEFT's linear method, its scale tuned, minus accuracy without an adapter, {kind} changes",
        )
        yield (
            f"inputs_{kind}",
            f"accuracy of RegMean with 200 inputs per task minus that of the tuned sum, {kind} changes",
        )


CLAIM = Claim(
    title="Merging methods such as TIES, DARE, KnOTS and TSV lose less than the sum of the updates.",
    paper="Yadav et al., TIES, arXiv 2306.01708; Yu et al., DARE, arXiv 2311.03099; Stoica et al., KnOTS, arXiv 2410.19735; "
    "Gargiulo et al., TSV, arXiv 2412.00081",
    finding="RegMean, which needs inputs, kept {inputs_mild:percent} more of the single adapters' accuracy than the sum with a tuned scale. No method without inputs was shown to beat the sum.",
    topic="merging",
    refuted_by="A sum that leaves as much of every task once its scale is tuned on validation data, as that of the others is.",
    setup="digits: six adapters of rank 4 on one network 64-96-96-10, for mild changes of the images and for hard ones",
    varied="mild and hard changes",
    setting="In their tables, the papers merge six or eight models of vision and language. We merge six adapters, and tune the scale of every method.",
    figures=dict(meanings()),
    measure=measure,
    rule=Rule(
        tuple(
            Part(f"{name}_{kind}", above=0, worth=0.02)
            for name in BETTER
            for kind in ("mild", "hard")
        )
    ),
    published="According to its abstract, KnOTS is up to 4.3 % better than merging without it.",
    headline="ties_mild",
    words="accuracy of TIES − accuracy of the tuned sum",
    limits="The networks are small, and the tasks share all ten classes. The densities of TIES and DARE are the defaults of the package.",
    advice="Add the updates, and tune one scale on validation data. If tasks conflict, RegMean with a few inputs of each task may help more than any of these methods.",
)
