"""What would contradict each claim, as conditions on its figures: ``data/refuted_by.json``.

The texts were frozen before the verdicts were made to read them, and somebody who did not see the
figures wrote each as conditions. A change of a text or of its conditions stands beside it under
``changed``, with its reason. A condition holds if the whole 95 % interval of its figure fulfils it.
"""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claims.lab.rules import COUNTED, Figure, measured, shown

FILE = Path(__file__).parents[1] / "data" / "refuted_by.json"
COMPARED = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
SIDES = {"<": "below", "<=": "at most", ">": "above", ">=": "at least"}


@dataclass(frozen=True)
class Condition:
    """A figure on one side of a value, or of another figure."""

    figure: str
    op: str
    value: float = 0.0
    than: str = ""

    def holds(self, figures: Mapping[str, Figure]) -> bool | None:
        """Whether all of the interval fulfils it; None if only some of it does, if a figure was
        measured once, or if it is not there.
        """
        known = [figures.get(name) for name in (self.figure, self.than) if name]
        if any(one is None or one.silent not in ("", COUNTED) for one in known):
            return None
        ends = [(one.low, one.high) for one in known if one is not None]
        low, high = ends[0]
        least, most = ends[1] if self.than else (self.value, self.value)
        true = COMPARED[self.op]
        surely, perhaps = (true(low, most), true(high, least))
        if self.op.startswith("<"):
            surely, perhaps = true(high, least), true(low, most)
        return True if surely else None if perhaps else False

    def found(self, labels: Mapping[str, str], figures: Mapping[str, Figure]) -> list[str]:
        """The figure, and the side on which it was to lie."""
        label = labels[self.figure]
        to = labels[self.than] if self.than else shown(label, self.value)
        return [f"{label}: {measured(label, figures[self.figure])}, {SIDES[self.op]} {to}"]


@dataclass(frozen=True)
class Joined:
    """Conditions of which any is enough, or all are needed."""

    enough: bool  # whether any is enough
    conditions: Sequence[Condition | Joined]

    def holds(self, figures: Mapping[str, Figure]) -> bool | None:
        """True, False, or None if the figures leave it open."""
        found = [one.holds(figures) for one in self.conditions]
        if self.enough in found:
            return self.enough
        return None if None in found or not found else not self.enough

    def found(self, labels: Mapping[str, str], figures: Mapping[str, Figure]) -> list[str]:
        """The conditions that hold."""
        true = [one for one in self.conditions if one.holds(figures)]
        return [text for one in true for text in one.found(labels, figures)]


def parsed(data: Mapping[str, Any] | None) -> Condition | Joined | None:
    """Conditions from JSON; None where a text cannot be said of any figure."""
    if not data:
        return None
    if "figure" in data:
        return Condition(**data)
    (kind,) = data
    inner = [one for one in map(parsed, data[kind]) if one is not None]
    return Joined(kind == "any", inner)


@functools.cache
def recorded() -> dict[str, dict[str, Any]]:
    """The file: by claim, then *small* and *at scale*."""
    known: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return known


def frozen(name: str, scale: str) -> Condition | Joined | None:
    """The coding of the frozen text."""
    return parsed(recorded()[name].get(scale, {}).get("conditions"))


def current(name: str, scale: str) -> Condition | Joined | None:
    """The conditions that the verdict reads: those of the frozen text, if they were not changed."""
    entry = recorded().get(name, {}).get(scale, {})
    return parsed(entry.get("changed", entry).get("conditions"))
