"""Studies whose rule was committed before their runs, as the gallery and ``lora-np claims`` show them.

A study stands beside the claims and is not counted with them: its verdict follows from its own rule
instead of `claims.lab.rules`, its runs have points and effects instead of one sweep for each method, and
it is published as far as it has run. Its file ends with one ``STUDY``, whose results lie beside those of
the claims, with the page that they belong to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from claims.lab import recording


class Found(NamedTuple):
    """What the recorded runs of a study give."""

    verdict: str  # by the rule of the study
    verdicts: str  # the same in a few words, with how much has run
    finding: str  # what was found, in one line
    facts: list[str]  # the sentences that the verdict rests on
    figures: Mapping[str, tuple[float, float, float]]  # mean, and both ends of the interval
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a study says of itself beside its figures."""

    title: str
    paper: str
    topic: str
    setup: str
    setting: str
    rule: str
    limits: str
    advice: str
    study: str  # its page
    meaning: Mapping[str, str]  # what each figure is
    headline: str  # the figure that stands for the study
    words: str  # what that figure is
    quick: str  # what the quick subset can tell, and what it cannot
    measure: Callable[[], Found]
    run_quickly: Callable[[], None]
    published: str = ""

    def record(self, name: str) -> dict[str, Any]:
        """Words, figures and verdict as JSON, of as much as has run."""
        known = {key: x for key, x in asdict(self).items() if not callable(x)}
        found = self.measure()
        ends = ("mean", "low", "high")
        figures = {
            figure: dict(zip(ends, (float(f"{x:.5g}") for x in three), strict=True))
            for figure, three in found.figures.items()
        }
        known["meaning"] = {figure: self.meaning[figure] for figure in figures}
        words = {key: getattr(found, key) for key in ("verdict", "verdicts", "finding")}
        sentence = {"sentence": " ".join(found.facts), "seconds": round(found.seconds)}
        counted = [figure for figure, (_, low, high) in found.figures.items() if low == high]
        return {"name": name} | known | words | sentence | {"counted": counted, "figures": figures}


def write(name: str, study: Card) -> None:
    """Write what is recorded beside the results of the claims."""
    recording.write(name, study.record(name))
