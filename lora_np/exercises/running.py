"""Run a submission's cells, and call its functions: the same in a notebook and in a separate process."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import Any

from lora_np.exercises.forbidden import Forbidden, watched

HEADER = "import numpy as np\n\nimport lora_np as lnp\n"  # of every script, notebook and solution


def run_cell(source: str, title: str, names: dict[str, Any]) -> str:
    """Run a cell, which defines ``names``; what went wrong, or nothing.

    Parameters
    ----------
    source : str
        A submission's.
    title : str
        In messages.
    names : dict
        Of the submission, from its earlier cells.

    Returns
    -------
    str
        The last line of the error, and where it is in the cell.
    """
    try:
        exec(compile(source, f"<{title}>", "exec", dont_inherit=True), names)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit among them: a submission must not end the grading
        return last_line(error)
    return ""


def call(function: Any, arguments: Sequence[Any], rules: Mapping[str, Any]) -> dict[str, Any]:
    """Call with copies: ``{"value": ..., "arguments": ...}``, or ``{"error": ..., "kind": ...}``.

    ``"arguments"`` are the copies after the call (None for a function), so that it can be seen whether the
    function changes them.

    Parameters
    ----------
    function : callable
        A student's.
    arguments : sequence
        Copied.
    rules : mapping
        What must not run (``"forbids"``, as `Exercise.forbids` lists it), and how many bytes (``"within"``)
        and instructions (``"steps"``) it may take.

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
        value = watched(function, handed, rules)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        text = str(error) if isinstance(error, Forbidden) else last_line(error)
        return {"error": text, "kind": type(error).__name__}
    return {"value": value, "arguments": [None if callable(a) else a for a in handed]}


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


def last_line(error: BaseException) -> str:
    """``ValueError: shapes do not fit (line 3)``: what went wrong, and where the student wrote it."""
    text = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1][:500]
    if isinstance(error, SyntaxError) and str(error.filename).startswith("<cell "):
        return f"{text} (line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename.startswith("<cell ") or "ipykernel" in f.filename]
    place = f" (line {own[-1].lineno})" if own else ""
    return text + place
