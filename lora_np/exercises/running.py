"""Run a submission's cells and call its functions, in a notebook or in a separate process."""

from __future__ import annotations

import ast
import copy
import itertools
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import numpy as np

from lora_np.exercises.forbidden import Forbidden, Rules, watched
from lora_np.exercises.values import Source, Value

Reply = dict[str, Value]  # what `call` returns
Exchange = tuple[Sequence[Value], Reply]  # the arguments of a call, and the reply to it
ANYTHING = Rules()
HEADER = (
    "import numpy as np\n\nimport lora_np as lnp\n"  # begins every script, notebook and solution
)


def run_cell(
    source: str | bytes,
    title: str,
    names: dict[str, Any],
    reached: Callable[[int], None] = lambda line: None,
) -> str:
    """Run a cell, which defines ``names``, and return what went wrong, or nothing.

    Parameters
    ----------
    source : str or bytes
        A submission's.
    title : str
        In messages.
    names : dict
        Of the submission, from its earlier cells.
    reached : callable, optional
        Called with the line of each statement before it runs.

    Returns
    -------
    str
        The last line of the error, and where it is in the cell.

    Examples
    --------
    >>> names = {}
    >>> run_cell("half = lambda x: x / 2", "cell 1", names), run_cell("1 / 0", "cell 2", names)
    ('', 'ZeroDivisionError: division by zero (line 1)')
    >>> names["half"](3)
    1.5
    """
    flags = 0
    try:
        try:
            parsed = ast.parse(source, f"<{title}>")
        except IndentationError:  # perhaps tabs, below lines of the stub that spaces indent
            parsed = ast.parse(source.expandtabs(4), f"<{title}>")
        for statement in parsed.body:
            reached(statement.lineno)
            part = ast.Module([statement], [])
            code = compile(part, f"<{title}>", "exec", flags, dont_inherit=True)
            flags |= code.co_flags & annotations.compiler_flag  # flags of `from __future__` imports
            exec(code, names)
    except (Exception, SystemExit) as error:  # a submission must not end the grading
        return last_line(error)
    return ""


def call(
    function: Callable[..., Value] | Value, arguments: Sequence[Value], rules: Rules = ANYTHING
) -> Reply:
    """Call with copies: ``{"value": ..., "arguments": ...}``, or ``{"error": ..., "kind": ...}``.

    ``"arguments"`` are the copies after the call (None for a function, which is made from its
    ``Source``), so that it can be seen whether the function changes them.

    Parameters
    ----------
    function : callable
        A student's.
    arguments : sequence
        Copied.
    rules : Rules
        What must not run, and how many bytes and instructions it may take.

    Returns
    -------
    dict
        Never an exception, except for Ctrl-C.

    Examples
    --------
    >>> call(lambda rows: rows.pop(), [[1, 2]])
    {'value': 2, 'arguments': [[1]]}
    >>> call(lambda rows: rows[5], [[1, 2]])["kind"]
    'IndexError'
    >>> call(lambda rows: None, [[1, 2]])["error"]
    'it returned None; is there a return?'
    """
    if not callable(function):
        return {"error": f"a function is needed, got {type(function).__name__}", "kind": "missing"}
    if unwritten(function):
        return {"error": "not written yet", "kind": "NotImplementedError"}
    handed = [eval(a, {"np": np}) if isinstance(a, Source) else copy.deepcopy(a) for a in arguments]
    try:
        value = watched(function, handed, rules)
    except (Exception, SystemExit) as error:
        text = str(error) if isinstance(error, Forbidden) else last_line(error)
        return {"error": text, "kind": type(error).__name__}
    if value is None:
        prints = isinstance(function, FunctionType) and "print" in function.__code__.co_names
        why = "print shows a value, and only return gives it" if prints else "is there a return?"
        return {"error": f"it returned None; {why}", "kind": "None"}
    return {"value": value, "arguments": [None if callable(a) else a for a in handed]}


def unwritten(function: Callable[..., Value]) -> bool:
    """Return whether a docstring is all that a function has, as in a stub.

    Examples
    --------
    >>> unwritten(stub)
    True
    >>> unwritten(unwritten)
    False
    """
    # what a submission calls __code__ may raise anything
    if not isinstance(function, FunctionType):
        return False
    code = function.__code__
    return code.co_code == stub.__code__.co_code and code.co_consts[-1] is None


def stub() -> None:
    """Show what an exercise hands out."""
    ...


def last_line(error: BaseException) -> str:
    """Say what went wrong and where: ``ValueError: shapes do not fit (line 3)``."""
    text = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1][:500]
    if isinstance(error, SyntaxError) and str(error.filename).startswith("<cell "):
        return f"{text} (line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename.startswith("<cell ") or "ipykernel" in f.filename]
    place = f" (line {own[-1].lineno})" if own else ""
    return text + place


# Known mistakes: what each gives on an input that breaks a law, so that a check can name the one at
# hand


@dataclass(frozen=True)
class Mistake:
    """Describe a known mistake, with the code that makes it.

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


def values_alike(a: Value, b: Value, tolerance: float = 1e-3, floor: float = 0.0) -> bool:
    """Return whether two answers are equal up to rounding, relative to the size of all of ``b``.

    Examples
    --------
    >>> values_alike((1e-20, 2.0), (np.float32(0), np.array(2.0)))
    True
    """
    if isinstance(a, dict) and isinstance(b, dict):
        pairs = [(a.get(key), b[key]) for key in b]
        return a.keys() == b.keys() and all(values_alike(*two, tolerance, floor) for two in pairs)
    try:
        x, y = np.asarray(a), np.asarray(b)
        if x.shape != y.shape or x.dtype.kind not in "biuf" or y.dtype.kind not in "biuf":
            return x.shape == y.shape and bool((x == y).all())
        # as np.allclose does, in a third of its time
        x, y, finite = x.astype(float), y.astype(float), np.isfinite(y)
        sizes = np.abs(y)
        sizes += max(floor, sizes.max(where=finite, initial=0.0))
        with np.errstate(invalid="ignore"):
            near = finite & (np.abs(x - y) <= tolerance * sizes)
        return bool((near | (x == y) | (x != x) & (y != y)).all())
    except (ValueError, TypeError):  # parts of different shapes
        if not isinstance(a, (tuple, list)) or not isinstance(b, (tuple, list)):
            return False
        parts = itertools.zip_longest(a, b)
        return all(values_alike(*two, tolerance, floor) for two in parts)
