"""Answers that readers of the statements alone have written, as text."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Read:
    """One answer, and what its author says of it."""

    exercise: str
    told: str
    source: str


@cache
def answers(stem):
    """Of ``wrong_answers.py`` or ``right_answers.py``, in the order of the file."""
    text = (Path(__file__).parent / f"{stem}.py").read_text(encoding="utf-8")
    lines, found = text.splitlines(), []
    for function in ast.parse(text).body:
        if isinstance(function, ast.FunctionDef):
            (mark,) = function.decorator_list
            source = "\n".join(lines[function.lineno - 1 : function.end_lineno]) + "\n"
            found.append(
                Read(function.name, ast.literal_eval(mark.args[0]) if mark.args else "", source)
            )
    return tuple(found)
