"""Name the regions of inputs of which a law must have seen enough before an answer passes."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

Condition = Callable[..., bool | None]  # None if a region is not for arguments of this kind


@cache
def table(name: str) -> dict[str, dict[str, dict[str, str]]]:
    """Read the file of data that has this name."""
    path = Path(__file__).parent / "data" / f"{name}.toml"
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
    known = table("regions")
    if law not in known["searching"].get(exercise, {law: law}):
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
