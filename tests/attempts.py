"""The usual mistakes and other right answers in ``exercises/answers/``, read as text."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "exercises" / "answers"


def mistake(name, *, breaks):
    """Mark a function in ``exercises/answers/`` as a usual mistake, by the key of a law that it breaks."""
    return lambda function: function


def alternative(name):
    """Mark a function in ``exercises/answers/`` as another right answer."""
    return lambda function: function


@dataclass(frozen=True)
class Attempt:
    """An answer to an exercise; ``breaks`` is the key of the law that it breaks, empty if it is
    right.
    """

    exercise: str
    name: str
    source: str
    breaks: str


@cache
def attempts():
    """In the order of the files."""
    return tuple(attempt for path in sorted(FOLDER.glob("*.py")) for attempt in attempts_in(path))


def attempts_in(path):
    """The functions of a file that have a mark, in their order."""
    text = path.read_text(encoding="utf-8")
    for function in ast.parse(text).body:
        if not isinstance(function, ast.FunctionDef) or not function.decorator_list:
            continue
        (mark,) = function.decorator_list
        values = [
            ast.literal_eval(value) for value in (*mark.args, *(k.value for k in mark.keywords))
        ]
        source = "\n".join(text.splitlines()[function.lineno - 1 : function.end_lineno]) + "\n"
        yield Attempt(function.name, values[0], source, values[1] if len(values) == 2 else "")
