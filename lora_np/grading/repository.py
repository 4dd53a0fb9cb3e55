"""Usual mistakes and other right answers: only in a checkout of the repository, not when installed.

A file in ``exercises/`` holds functions named after an exercise, each marked by `mistake` or `alternative`.
They are read as text, by tests: none of them is run here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "exercises"


def mistake(name: str, *, breaks: str) -> Any:
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


def alternative(name: str) -> Any:
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
