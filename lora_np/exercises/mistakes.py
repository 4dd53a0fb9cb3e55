"""Known mistakes: what each gives on an input that breaks a law, so that a check can name the one at hand."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lora_np.exercises.running import call, run_cell

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


def result(code: str, function: str, arguments: Sequence[Any]) -> dict[str, Any]:
    """What ``code`` replies, as `call` does."""
    names = {"__name__": "submission"}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        run_cell(code, "a mistake", names)
        return call(names.get(function), arguments, {})


def replies_alike(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two calls came to the same value, or failed in the same way."""
    if "value" in a and "value" in b:
        return values_alike(a["value"], b["value"])
    return "error" in a and "error" in b and len({r["error"].partition(" (line")[0] for r in (a, b)}) == 1


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
