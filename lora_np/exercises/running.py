"""Run a submission's cells, and call its functions: the same in a notebook and in a separate process."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Sequence
from types import FunctionType
from typing import Any

import numpy as np

from lora_np.exercises.forbidden import Forbidden, forbidden


class Namespace:
    """The names that a submission defines, as its cells are run one after the other."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "submission"}

    def run(self, source: str, title: str) -> str:
        """Run one cell; what went wrong, or nothing. A cell that fails does not stop the next."""
        try:
            exec(compile(source, f"<{title}>", "exec", dont_inherit=True), self.names)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit among them: a submission must not end the grading
            return last_line(error)
        return ""


def call(function: Any, arguments: Sequence[Any], forbids: Sequence[str]) -> dict[str, Any]:
    """Call with copies: ``{"value": ..., "changed": ...}``, or ``{"error": ..., "kind": ...}``.

    ``"changed"`` lists the places of arguments that the function has written to.

    Parameters
    ----------
    function : callable
        A student's.
    arguments : sequence
        Copied, so that it can be seen whether the function changes them.
    forbids : sequence of str
        Library functions that must not run, as `Exercise.forbids` lists them.

    Returns
    -------
    dict
        Never an exception, except for Ctrl-C.
    """
    if not callable(function):
        return {"error": f"a function is needed, got {type(function).__name__}", "kind": "missing"}
    if unwritten(function):
        return {"error": "not written yet", "kind": "NotImplementedError"}
    handed = [a if callable(a) else copy.deepcopy(a) for a in arguments]
    try:
        with forbidden(forbids, function):
            value = function(*handed)
    except Forbidden as error:
        return {"error": str(error), "kind": "Forbidden"}
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return {"error": last_line(error), "kind": type(error).__name__}
    pairs = enumerate(zip(arguments, handed, strict=True))
    return {"value": value, "changed": [i for i, (before, after) in pairs if not alike(before, after)]}


def unwritten(function: Any) -> bool:
    """Whether a docstring is all that a function has, as in a stub.

    Examples
    --------
    >>> unwritten(stub)
    True
    >>> unwritten(unwritten)
    False
    """
    if not isinstance(function, FunctionType):  # what a submission calls __code__ may raise anything
        return False
    code = function.__code__
    return code.co_code == stub.__code__.co_code and code.co_consts[-1] is None


def stub() -> None:
    """What an exercise hands out."""
    ...


def alike(before: Any, after: Any) -> bool:
    """Whether nothing has changed, in lists and dicts neither."""
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(alike(before[key], after[key]) for key in before)
    if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
        return len(before) == len(after) and all(map(alike, before, after))
    return np.array_equal(before, after)


def last_line(error: BaseException) -> str:
    """``ValueError: shapes do not fit (line 3)``: what went wrong, and where the student wrote it."""
    text = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1][:500]
    if isinstance(error, SyntaxError) and str(error.filename).startswith("<cell "):
        return f"{text} (line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename.startswith("<cell ") or "ipykernel" in f.filename]
    place = f" (line {own[-1].lineno})" if own else ""
    return text + place
