"""Usual mistakes and other right answers: only in a checkout of the repository, not when installed.

A file in ``exercises/`` holds functions named after an exercise, each marked by `mistake` or `alternative`.
They are read as text: none of them is run here.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

FOLDER = Path(__file__).parents[2] / "exercises"

F = TypeVar("F")


def mistake(name: str, *, breaks: str) -> Callable[[F], F]:
    """Mark a function as a usual mistake.

    Parameters
    ----------
    name : str
        What is wrong.
    breaks : str
        The key of a law that it breaks.

    Returns
    -------
    callable
        A decorator that changes nothing: the file is read, not run.
    """
    return lambda function: function


def alternative(name: str) -> Callable[[F], F]:
    """Mark a function as another right answer.

    Parameters
    ----------
    name : str
        What is different.

    Returns
    -------
    callable
        A decorator that changes nothing: the file is read, not run.
    """
    return lambda function: function


@dataclass(frozen=True)
class Attempt:
    """An answer to an exercise, wrong or right.

    Parameters
    ----------
    exercise : str
        The name of its function.
    name : str
        What is wrong, or different.
    source : str
        The function.
    breaks : str
        The key of the law that it breaks; empty if it is right.
    """

    exercise: str
    name: str
    source: str
    breaks: str


@cache
def attempts() -> tuple[Attempt, ...]:
    """The usual mistakes and other right answers in this checkout.

    Returns
    -------
    tuple of Attempt
        In the order of the files; empty outside a checkout.
    """
    found = []
    for path in sorted(FOLDER.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        for function in ast.parse(text).body:
            if not isinstance(function, ast.FunctionDef):
                continue
            (mark,) = function.decorator_list
            assert isinstance(mark, ast.Call)
            values = [ast.literal_eval(value) for value in (*mark.args, *(k.value for k in mark.keywords))]
            source = "\n".join(text.splitlines()[function.lineno - 1 : function.end_lineno]) + "\n"
            found.append(Attempt(function.name, values[0], source, values[1] if len(values) == 2 else ""))
    return tuple(found)
