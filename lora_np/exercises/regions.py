"""Define regions of inputs; a law must be tested in each region before an answer passes."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

# returns whether arguments are in a region, or None if the region does not apply to their type
Condition = Callable[..., bool | None]


@cache
def table(name: str) -> dict[str, Any]:
    """Read a TOML file in the folder ``data`` of the exercises, by its name."""
    path = Path(__file__).parent / "data" / f"{name}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


@cache
def regions(exercise: str, law: str, parameters: tuple[str, ...]) -> dict[str, Condition]:
    """Map the name of each region of inputs in which a law must be tested to its condition.

    Parameters
    ----------
    exercise : str
        The name of the exercise or puzzle.
    law : str
        The key of the law.
    parameters : tuple of str
        The parameters of the exercise's function.

    Returns
    -------
    dict of str to callable
        For each region, by its name, a function that returns whether arguments are in it.

    Examples
    --------
    >>> known = regions("cut", "closest", ("M", "r"))
    >>> [name for name, inside in known.items() if inside(np.eye(3), 2)]
    ['M: square, from 3 x 3', 'a rank in between']
    """
    known = table("regions")
    if law not in known["searching"].get(exercise, {law: law}):
        return {}
    conditions = {
        f"{name}: {told}": f"(lambda x: {text} if {kind} else None)({name})"
        for name in parameters
        for kind, several in known["kinds"].items()
        for told, text in several.items()
    }
    for of, several in known["of"].items():
        if of == exercise or {*of.split(", ")} <= {*parameters}:
            conditions |= several
    return {
        told: eval(f"lambda {', '.join(parameters)}: {text}", {"np": np})
        for told, text in conditions.items()
        if told not in known["left_out"].get(exercise, {})
    }
