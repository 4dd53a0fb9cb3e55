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

Reply = dict[str, Value]  # the result of `call`
Exchange = tuple[Sequence[Value], Reply]  # the arguments of a call, and its reply
ANYTHING = Rules()
# the first lines of every script, notebook and solution
HEADER = "import numpy as np\n\nimport lora_np as lnp\n"


def run_cell(
    source: str | bytes,
    title: str,
    names: dict[str, Any],
    reached: Callable[[int], None] = lambda line: None,
) -> str:
    """Run a cell of a submission, and return its error as text.

    Parameters
    ----------
    source : str or bytes
        The code of the cell.
    title : str
        The name of the cell in messages.
    names : dict
        The variables of earlier cells, to which the cell adds its own.
    reached : callable, optional
        A function that is called with the line of each statement before it runs.

    Returns
    -------
    str
        The last line of the error, with the line in the cell; empty if there was none.

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
        except IndentationError:  # the student may use tabs where the stub uses spaces
            parsed = ast.parse(source.expandtabs(4), f"<{title}>")
        for statement in parsed.body:
            reached(statement.lineno)
            part = ast.Module([statement], [])
            code = compile(part, f"<{title}>", "exec", flags, dont_inherit=True)
            # later statements must keep the effect of `from __future__ import annotations`
            flags |= code.co_flags & annotations.compiler_flag
            exec(code, names)
    except (Exception, SystemExit) as error:  # exit() in a submission must not end the grading
        return last_line(error)
    return ""


def call(
    function: Callable[..., Value] | Value, arguments: Sequence[Value], rules: Rules = ANYTHING
) -> Reply:
    """Call a student's function with copies of the arguments; return its value or its error.

    Parameters
    ----------
    function : callable
        The student's function.
    arguments : sequence
        The arguments, which are copied.
    rules : Rules
        The forbidden functions and the limits.

    Returns
    -------
    dict
        ``{"value": ..., "arguments": ...}``, or ``{"error": ..., "kind": ...}``; only Ctrl-C raises
        an exception. ``"arguments"`` are the copies after the call, which show whether the function
        changed them; None stands for a function, which is made from its ``Source``.

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
    """Return whether a function is still a stub, with no code except a docstring.

    Examples
    --------
    >>> unwritten(stub)
    True
    >>> unwritten(unwritten)
    False
    """
    # check the type first, because other callable objects may raise an error for `__code__`
    if not isinstance(function, FunctionType):
        return False
    code = function.__code__
    return code.co_code == stub.__code__.co_code and code.co_consts[-1] is None


def stub() -> None:
    """Serve as an example of an exercise's stub."""
    ...


def last_line(error: BaseException) -> str:
    """Describe an error and its line in the cell: ``ValueError: shapes do not fit (line 3)``."""
    text = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1][:500]
    if isinstance(error, SyntaxError) and str(error.filename).startswith("<cell "):
        return f"{text} (line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename.startswith("<cell ") or "ipykernel" in f.filename]
    place = f" (line {own[-1].lineno})" if own else ""
    return text + place


# Known mistakes: a check compares a wrong answer with them


@dataclass(frozen=True)
class Mistake:
    """A known mistake, with code that makes it.

    Parameters
    ----------
    name : str
        A description of the mistake, such as ``"without alpha / r"``.
    hint : str
        The hint to show to students who make it.
    code : str
        Code that defines the wrong function.
    """

    name: str
    hint: str
    code: str = field(repr=False)


def values_alike(a: Value, b: Value, tolerance: float = 1e-3, floor: float = 0.0) -> bool:
    """Return whether answers agree within ``tolerance``, relative to the largest entry of ``b``.

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
        # np.allclose with equal_nan=True would take three times as long
        x, y, finite = x.astype(float), y.astype(float), np.isfinite(y)
        sizes = np.abs(y)
        sizes += max(floor, sizes.max(where=finite, initial=0.0))
        with np.errstate(invalid="ignore"):
            near = finite & (np.abs(x - y) <= tolerance * sizes)
        return bool((near | (x == y) | (x != x) & (y != y)).all())
    except (ValueError, TypeError):  # for example, the parts of a tuple differ in shape
        if not isinstance(a, (tuple, list)) or not isinstance(b, (tuple, list)):
            return False
        parts = itertools.zip_longest(a, b)
        return all(values_alike(*two, tolerance, floor) for two in parts)
