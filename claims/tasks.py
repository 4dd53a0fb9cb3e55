"""Two more tasks of digits, for every claim that compares methods on digits: which of its parts turn?

    python -m claims sweep digits-names digits-near     about 3 CPU minutes a task
    python -m claims.tasks                              what each claim comes to on each task

All three tasks start from a network that reads upright digits. On *side*, the task of the claims, it
learns to read them on their side. On *names* the images stay as they are, and each class gets the
name of another one. On *near* the images are shifted by two pixels. Methods, rates, steps, halves and
the search are the same; a seed draws base, split, start and order (and the names). There are 16 seeds
on each of the two, and the recorded 64 on *side*.

The rule was fixed before the first run on the two tasks. A part of a claim is judged on each task by
the claim's own rule, with the same bound and the same smallest effect worth having. A part *turns* if
it is supported on one of the three tasks and contradicted on another. A claim of which a part turns
*depends on the task*. Figures that are counted, and figures of other setups, cannot turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from claims import protocol, redrawn
from claims.rules import CONTRADICTED, SUPPORTED, Figure

TASKS = ("names", "near")
FIRST = "side"


class Lab(protocol.Lab):
    """A lab in which digits are another task."""

    def __init__(self, task: str, **settings: Any):
        super().__init__(**settings)
        self.task, self.swept = task, False

    def redrawn(self, setup: str, *names: str, drawn: bool = True) -> list[redrawn.Redrawn]:
        here = setup == "digits"
        self.swept |= here
        return super().redrawn(f"digits-{self.task}" if here else setup, *names, drawn=drawn)


def figures(claim: protocol.Claim, task: str, first: Mapping[str, Figure]) -> dict[str, Figure]:
    """The figures of a claim on another task, without those that are the same on the first one: they
    are of another setup, or counted.
    """
    lab = Lab(task)
    found = protocol.read(claim, protocol.figures_of(claim, claim.measure(lab)))
    return {name: one for name, one in found.items() if lab.swept and one != first[name]}


def on_each(claim: protocol.Claim, first: Mapping[str, Figure]) -> dict[str, dict[str, str]]:
    """The verdict of each part on each task, by the name of its figure."""
    found = {FIRST: dict(first)} | {task: figures(claim, task, first) for task in TASKS}
    return {
        part.figure: {task: part.verdict(some[part.figure]) for task, some in found.items()}
        for part in claim.rule.parts
        if all(part.figure in some for some in found.values())
    }


def turned(verdicts: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The figures whose part is supported on one task and contradicted on another."""
    return [
        name for name, some in verdicts.items() if {SUPPORTED, CONTRADICTED} <= {*some.values()}
    ]
