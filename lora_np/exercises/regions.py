"""Name regions of inputs, and draw until a law has seen enough inputs of each."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lora_np.exercises.values import Value

OFTEN = 5  # inputs of each region that a law sees
PATIENCE = 150  # draws in a row that bring none: what is still missing is left to other laws
Condition = Callable[..., bool | None]  # None if a region is not for arguments of this kind


@cache
def table() -> dict[str, Any]:
    """Read ``regions.toml``."""
    path = Path(__file__).parent / "data" / "regions.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


@cache
def regions(exercise: str, law: str, parameters: tuple[str, ...]) -> dict[str, Condition]:
    """Collect the regions of which a law must see inputs.

    Parameters
    ----------
    exercise : str
        Its name, or the name of a puzzle.
    law : str
        Its key.
    parameters : tuple of str
        Of the function.

    Returns
    -------
    dict of str to callable
        Whether the arguments of a call are in the region of this name.

    Examples
    --------
    >>> known = regions("cut", "closest", ("M", "r"))
    >>> [name for name, inside in known.items() if inside(np.eye(3), 2)]
    ['M: square, from 3 x 3', 'a rank in between']
    """
    known = table()
    if law not in known["searching"].get(exercise, [law]):
        return {}
    rows = {
        f"{name}: {told}": f"(lambda x: {text} if {kind} else None)({name})"
        for name in parameters
        for kind, several in known["kinds"].items()
        for told, text in several.items()
    }
    for of, several in known["of"].items():
        if of == exercise or {*of.split(", ")} <= {*parameters}:
            rows |= several
    return {
        told: eval(f"lambda {', '.join(parameters)}: {text}", {"np": np})
        for told, text in rows.items()
        if told not in known["left_out"].get(exercise, {})
    }


@dataclass
class Search:
    """Draw small inputs first, then those of regions of which a law has not seen enough.

    Iterating yields the effort of each draw. `wants` then says whether an answer should be asked:
    about every input of the first ``cases`` draws, and later only for regions that are missing.

    Parameters
    ----------
    regions : mapping of str to callable
        See `regions`.
    cases : int
        How many inputs are drawn in any case.
    missing : dict of str to int
        How many inputs of each region are still needed, as far as it is known.

    Examples
    --------
    >>> search = Search({"large": lambda n: n > 3}, cases=2)
    >>> [effort for effort in search if search.wants([4])], search.missing
    ([0.0, 1.0, 1.0, 1.0, 1.0], {'large': 0})
    """

    regions: Mapping[str, Condition]
    cases: int
    missing: dict[str, int] = field(default_factory=dict)
    drawn: int = 0
    useful: int = 0  # the last draw about which an answer was asked

    def __iter__(self) -> Iterator[float]:
        while self.drawn < self.cases or (
            any(self.missing.values()) and self.drawn - self.useful <= PATIENCE
        ):
            yield min(1.0, self.drawn / max(1, self.cases - 1))
            self.drawn += 1

    def wants(self, arguments: Sequence[Value]) -> bool:
        """Return whether an answer should be asked about this input, which is counted then."""
        if self.drawn < self.cases:
            self.useful = self.drawn
        for name, condition in self.regions.items():
            left = self.missing.get(name, OFTEN)
            if left and (inside := condition(*arguments)) is not None:
                self.missing[name] = left - bool(inside)
                self.useful = self.drawn if inside else self.useful
        return self.useful == self.drawn
