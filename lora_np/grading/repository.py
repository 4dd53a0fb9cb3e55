"""Solutions and usual mistakes: in a checkout of the repository, not in what is installed from a wheel.

A file of ``exercises/`` holds, for each exercise of a lesson, a function of its name, the solution; and after
it functions of the same name which `mistake` marks. They are read as text: nothing of them is run here.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from lora_np.exercises import Lesson

FOLDER = Path(__file__).parents[2] / "exercises"

F = TypeVar("F")


def mistake(name: str, *, breaks: str) -> Callable[[F], F]:
    """Mark a function as a usual mistake.

    Parameters
    ----------
    name : str
        What is wrong.
    breaks : str
        What the check must say of it.

    Returns
    -------
    callable
        A decorator that changes nothing: the file is read, not run.
    """
    return lambda function: function


@dataclass(frozen=True)
class Mistake:
    """Wrong code, and the law that it breaks.

    Parameters
    ----------
    name : str
        What is wrong.
    source : str
        The function.
    breaks : str
        Words of the check's message.
    """

    name: str
    source: str
    breaks: str


@dataclass(frozen=True)
class Solution:
    """What the repository knows of an exercise beyond what students may see.

    Parameters
    ----------
    source : str
        A function that passes the check.
    body : str
        The same without the line that begins with def.
    mistakes : tuple of Mistake
        At least three.
    """

    source: str
    body: str
    mistakes: tuple[Mistake, ...]


@cache
def solutions(lesson: Lesson) -> dict[str, Solution]:
    """Solutions of a lesson by the names of its exercises.

    Parameters
    ----------
    lesson : Lesson
        Of the course.

    Returns
    -------
    dict of str to Solution
        One for each exercise.

    Raises
    ------
    ValueError
        Outside a checkout.
    """
    path = FOLDER / f"{lesson.slug.replace('-', '_')}.py"
    if not path.is_file():
        raise ValueError(
            "solutions are in the repository, not in the installed package: run this in a checkout, "
            "after `pip install -e .`"
        )
    text = path.read_text(encoding="utf-8")
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    found: dict[str, Solution] = {}
    for exercise in lesson.exercises:
        own = [f for f in functions if f.name == exercise.name]
        right = [f for f in own if not f.decorator_list]
        wrong = [f for f in own if f.decorator_list]
        if len(right) != 1:
            raise ValueError(f"{path.name} must have one solution of {exercise.name}, got {len(right)}")
        body = "\n".join(text.splitlines()[right[0].body[0].lineno - 1 : right[0].end_lineno])
        marked = tuple(Mistake(marks(f)[0], source_of(text, f), marks(f)[1]) for f in wrong)
        found[exercise.name] = Solution(source_of(text, right[0]), body, marked)
    return found


def source_of(text: str, function: ast.FunctionDef) -> str:
    return "\n".join(text.splitlines()[function.lineno - 1 : function.end_lineno]) + "\n"


def marks(function: ast.FunctionDef) -> tuple[str, str]:
    """The name of a mistake and what it breaks, from its decorator."""
    (call,) = function.decorator_list
    assert isinstance(call, ast.Call)
    return str(ast.literal_eval(call.args[0])), str(ast.literal_eval(call.keywords[0].value))
