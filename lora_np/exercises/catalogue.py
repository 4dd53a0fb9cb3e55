"""Read the lessons and exercises from their data files."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from lora_np.checks import Seed, choice, whole_number
from lora_np.exercises.regions import table
from lora_np.exercises.running import HEADER, Mistake
from lora_np.exercises.testing import (
    SEEDS,
    Check,
    Exercise,
    Law,
    Lesson,
    Outcome,
    judge,
    local_caller,
)
from lora_np.exercises.values import Value

DATA = Path(__file__).parent / "data"


def lessons(numbers: Sequence[int] = ()) -> list[Lesson]:
    """List the lessons with these numbers, in order; all of them by default.

    Parameters
    ----------
    numbers : sequence of int
        The numbers of lessons, from 0.

    Returns
    -------
    list of Lesson
        The lessons in the order of the course.

    Raises
    ------
    ValueError
        If no lesson has such a number, or it has no exercises.

    Examples
    --------
    >>> [lesson.slug for lesson in lessons([1, 3])]
    ['see-rank', 'count-parameters']
    """
    wanted = {
        whole_number("lesson", number, minimum=0, maximum=len(course()) - 1) for number in numbers
    }
    chosen = [lesson for lesson in course() if not wanted or lesson.number in wanted]
    for lesson in chosen:
        if wanted and not lesson.exercises:
            raise ValueError(f"lesson {lesson.number}, {lesson.title}, has no exercises")
    return chosen


def exercise(name: str) -> Exercise:
    """Look up the exercise whose function is called ``name``.

    Parameters
    ----------
    name : str
        The name of the function.

    Returns
    -------
    Exercise
        The exercise, with statement, stub, hints and laws.

    Raises
    ------
    ValueError
        If no exercise has that name; the message suggests the closest.

    Examples
    --------
    >>> exercise("rank_by_elimination").points
    3
    """
    known = {one.name: one for lesson in course() for one in lesson.exercises}
    return known[choice("exercise", name, known)]


class Solution(str):
    """A solution in Markdown, to read after an attempt: first the reason, then the code."""

    @property
    def code(self) -> str:
        """The function's code, without the explanation."""
        return code_in(self)

    def __repr__(self) -> str:
        return str(self)

    _repr_markdown_ = __repr__


def solution(name: str) -> Solution:
    """Explain how the exercise ``name`` can be solved, and why the solution is right.

    Parameters
    ----------
    name : str
        The name of the exercise's function.

    Returns
    -------
    Solution
        The explanation, which notebooks display as Markdown.

    Raises
    ------
    ValueError
        If no exercise has that name, or this copy of the course omits its solution.

    See Also
    --------
    check : Check an attempt, before reading the solution.

    Examples
    --------
    >>> print(solution("lora_count").code)
    def lora_count(d, k, r):
        return r * (d + k)
    <BLANKLINE>
    """
    text = exercise(name).solution
    if not text:
        raise ValueError(f"this course leaves the solution of {name} out")
    return Solution(text)


def check(function: Callable[..., Value], *, rng: Seed | None = None) -> Outcome:
    """Check a student's function against the laws of its exercise, on inputs from small to large.

    Parameters
    ----------
    function : callable
        The student's function, which has the name of an exercise.
    rng : Generator or int, optional
        Random seed of other inputs than those that students see.

    Returns
    -------
    Outcome
        The points, and each broken law with the smallest input found that breaks it.

    Raises
    ------
    TypeError
        If ``function`` is not a function.
    ValueError
        If no exercise has the function's name.

    See Also
    --------
    lora_np.grading.check_file : Check a notebook or script in a process without rights.

    Notes
    -----
    The function runs unprotected in this process, which is fine for your own work and in a browser;
    use `lora_np.grading.grade` for the work of others. Its printed output is dropped: to see it,
    paste the input that is shown, and the call.

    Examples
    --------
    >>> def column_of_product(B, A, j):
    ...     return B[:, 0] * A[0, j]
    >>> check(column_of_product)  # doctest: +ELLIPSIS
    column_of_product: 0 of 1 point
      Column j of B A mixes the columns of B, and needs no other: entry [0] of the column must be 1,
      got 0 A known mistake gives this answer: with the first column of B only. Hint: Take the
      first column of ... B = np.array([[0.0, 1.0]]) A = np.array([[0.0], [1.0]]) j = 0
      column_of_product(B, A, j)
    """
    if not callable(function) or not hasattr(function, "__name__"):
        raise TypeError(f"check takes a function, got {type(function).__name__}")
    seeds = SEEDS if rng is None else other_seeds(rng)
    return judge(exercise(function.__name__), local_caller(function), seeds)


def other_seeds(rng: Seed) -> list[int]:
    """Derive seeds for inputs other than those that students see.

    Parameters
    ----------
    rng : Generator or int
        A generator to draw from, or the first seed itself.

    Returns
    -------
    list of int
        Seeds for `judge`.

    Examples
    --------
    >>> other_seeds(71)
    [71, 1]
    """
    drawn = rng.integers(2**31) if isinstance(rng, np.random.Generator) else rng
    first = whole_number("rng", drawn, minimum=0)
    return [first, 1]


@cache
def course() -> tuple[Lesson, ...]:
    """Read all lessons in the order of ``lessons.toml``, then the project."""
    listed = table("lessons")
    project = listed["project"]
    closing = (DATA / f"{project['slug']}.md").read_text(encoding="utf-8")
    records = [*listed["lesson"], project | {"closing": closing}]
    return tuple(
        Lesson(number, **record | {"exercises": tuple(map(read, record["exercises"]))})
        for number, record in enumerate(records)
    )


def read(name: str) -> Exercise:
    """Read the exercise ``name`` from its Markdown file."""
    about, sections = parsed(name)
    statement = [sections["Statement"], f"For example:\n\n{sections['Example']}"]
    if forbids := tuple(about.get("forbids", ())):
        statement.append(f"Not allowed here: {', '.join(forbids)}.")
    laws = [
        Law(key, law["law"], law["points"], law_of(name, key)) for key, law in about["laws"].items()
    ]
    _, *texts = re.split(r"^\d\. ", sections["Hints"], flags=re.M)
    hints = [" ".join(text.split()) for text in texts]
    needs, solution = tuple(about.get("needs", ())), sections.get("Solution", "")
    made = [code_in(parsed(one)[1]["Solution"]) for one in needs] if solution else []
    code = code_in(solution) if solution else ""
    mistakes = []
    for wrong, (hint, *texts) in about.pop("mistakes", {}).items() if code else ():
        changed = code
        for old, new in zip(texts[::2], texts[1::2], strict=True):
            changed = changed.replace(old, new)
        mistakes.append(Mistake(wrong, hints[hint - 1], "\n".join([HEADER, *made, changed])))
    return Exercise(
        name,
        **about | {"forbids": forbids, "needs": needs, "laws": tuple(laws)},
        statement="\n\n".join(statement),
        stub=code_in(sections["Stub"]),
        hints=tuple(hints),
        solution=solution,
        example=code_in(sections["Example"]),
        mistakes=tuple(mistakes),
        answer="\n".join([HEADER, *made, code]),
    )


def parsed(name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Split an exercise's file into its settings, between lines of ``+++``, and its sections."""
    _, settings, text = (DATA / f"{name}.md").read_text(encoding="utf-8").split("+++\n", 2)
    _, *parts = re.split(r"^## (\w+)$", text, flags=re.M)
    bodies = (part.strip() for part in parts[1::2])
    return tomllib.loads(settings), dict(zip(parts[::2], bodies, strict=True))


def law_of(exercise: str, key: str) -> Check:
    """Return the check of a law: function ``exercise_key``, or ``exercise`` with ``key`` set."""
    known = functions()
    return known.get(f"{exercise}_{key}") or partial(known[exercise], key=key)


def code_in(markdown: str) -> str:
    """Extract the last block of Python code from Markdown, without its fences."""
    return str(re.findall(r"^```python\n(.*?)^```", markdown + "\n", re.M | re.S)[-1])


@cache
def functions() -> dict[str, Any]:
    """Return all names in the modules of ``checks``, among them the functions that check laws."""
    from lora_np.exercises.checks import build_a_lora, files, matrices, training

    return vars(build_a_lora) | vars(files) | vars(matrices) | vars(training)
