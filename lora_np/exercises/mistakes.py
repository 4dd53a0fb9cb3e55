"""Known mistakes: what each gives on an input that breaks a law, so that a check can name the one at hand."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lora_np.exercises.running import Namespace, call

Asked = tuple[Sequence[Any], dict[str, Any]]  # the arguments of a call, and the reply to it


@dataclass(frozen=True)
class Mistake:
    """One that has been met before, as the change that makes it out of the solution.

    Parameters
    ----------
    name : str
        What it does, as in ``"without alpha / r"``.
    hint : str
        For those who have made it.
    code : str
        All that defines the function.
    """

    name: str
    hint: str
    code: str = field(repr=False)

    @property
    def told(self) -> str:
        """What a check says of it."""
        return f"\nThis is what comes out {self.name}. Hint: {self.hint}"


def known(
    function: str, mistakes: Sequence[Mistake], solution: str, asked: Sequence[Asked]
) -> Mistake | None:
    """The first mistake that gives what was answered, on all inputs; none if the solution does so, too.

    Parameters
    ----------
    function : str
        The exercise's name.
    mistakes : sequence of Mistake
        Of this exercise.
    solution : str
        All that defines the right function.
    asked : sequence of (arguments, reply)
        As `call` replies.

    Returns
    -------
    Mistake or None
        None for an answer that no known mistake gives.
    """
    alike = (one for one in mistakes if all(replies_alike(function, one.code, *two) for two in asked))
    found = next(alike, None)
    right = found and any(replies_alike(function, solution, *two) for two in asked)
    return None if right else found


def replies_alike(function: str, code: str, arguments: Sequence[Any], reply: dict[str, Any]) -> bool:
    """Whether ``code`` gives the same value or the same error."""
    space = Namespace()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        space.run(code, "a mistake")
        other = call(space.names.get(function), arguments, {})
        if "error" in reply or "error" in other:
            texts = [str(one.get("error", "")).partition(" (line")[0] for one in (reply, other)]
            return texts[0] == texts[1] != ""
        return "value" in reply and values_alike(reply["value"], other["value"])


def values_alike(a: Any, b: Any, tolerance: float = 1e-3) -> bool:
    """Whether two answers are the same but for rounding, which may be that of float32.

    Examples
    --------
    >>> values_alike((1, [2.0]), (np.float32(1), np.array([2.0])))
    True
    """
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(values_alike(a[key], b[key], tolerance) for key in a)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(values_alike(*two, tolerance) for two in zip(a, b, strict=True))
    try:
        a, b = np.asarray(a), np.asarray(b)
        if a.shape != b.shape or a.dtype.kind not in "biuf" or b.dtype.kind not in "biuf":
            return a.shape == b.shape and bool((a == b).all())
        size = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
        return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance * size, equal_nan=True))
    except (ValueError, TypeError):  # rows of different lengths
        return False
