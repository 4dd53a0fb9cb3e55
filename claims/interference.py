"""Methods to merge against the plain sum."""

from __future__ import annotations

from claims.protocol import FAILS, HERE_ONLY, HOLDS, Claim
from claims.suites import Merging

BETTER = {"ties": "ties_svd", "dare": "dare_linear_svd", "knots": "knots", "tsv": "tsv"}


def measure(lab):
    found = {}
    for kind in ("mild", "hard"):
        sweep = lab.sweep(kind, Merging(kind), start=-1, rank=4)
        left = lambda method, sweep=sweep: sweep.values(method)
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


def rule(f):
    """Holds if one and the same of TIES, DARE, KnOTS and TSV leaves more than the sum on both
    suites, the interval of the difference above zero. Holds here if one does on one suite.
    Otherwise it fails here.
    """
    wins = {
        name: [getattr(f, f"{name}_{kind}").low > 0 for kind in ("mild", "hard")] for name in BETTER
    }
    if any(all(each) for each in wins.values()):
        return HOLDS
    return HERE_ONLY if any(any(each) for each in wins.values()) else FAILS


def meanings():
    """What each figure is."""
    for kind in ("mild", "hard"):
        yield (
            f"none_{kind}",
            f"{kind}: read right without an adapter, as a share of what the single adapters read",
        )
        yield f"untuned_{kind}", f"{kind}: the same by the sum of the updates"
        yield f"sum_{kind}", f"{kind}: by the sum, its scale tuned"
        for name, method in BETTER.items():
            yield f"{name}_{kind}", f"{kind}: {method}, its scale tuned, more than that"
        yield (
            f"linear_{kind}",
            f"{kind}: PEFT's linear, its scale tuned, more than without an adapter",
        )
        yield f"inputs_{kind}", f"{kind}: RegMean, with 200 inputs a task, more than the tuned sum"


CLAIM = Claim(
    title="Ways made for merging, such as TIES, DARE, KnOTS and TSV, lose less than the sum of the updates.",
    paper="Yadav et al., TIES, arXiv 2306.01708; Yu et al., DARE, arXiv 2311.03099; Stoica et al., KnOTS, arXiv 2410.19735; "
    "Gargiulo et al., TSV, arXiv 2412.00081",
    topic="merging",
    refuted_by="A sum that leaves as much of every task once its scale is tuned on validation data, as that of the others is.",
    setup="digits: six adapters of rank 4 on one network 64-96-96-10, for mild changes of the images and for hard ones",
    varied="mild and hard changes",
    setting="Their tables merge six or eight models of vision and language; here six adapters, with every scale tuned.",
    figures=dict(meanings()),
    measure=measure,
    rule=rule,
    published="KnOTS: up to 4.3 % better than merging without it, in its abstract.",
    limits="Small networks, and tasks that share all ten classes. Densities are the defaults of the package.",
    advice="Add the updates up and tune one scale on validation data; where tasks conflict, a few inputs of each (RegMean) may be worth more than any of these ways.",
)
