"""The course: its lessons in order, and their exercises, found by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from lora_np.checks import choice, whole_number
from lora_np.exercises.asking import QUESTIONS, Exercise, Lesson, Outcome, here, judge
from lora_np.table import Table

ORDER = (
    "see-rank",
    "factor-a-matrix",
    "cut-the-svd",
    "count-parameters",
    "differentiate",
    "train",
    "adapt-a-real-model",
    "choose-rank-alpha-and-initialisation",
    "open-a-real-adapter",
    "look-inside-an-update",
)
"""The one place that knows the order: numbers, file names and notebooks follow from it."""


@cache
def course() -> tuple[Lesson, ...]:
    found = []
    for number, slug in enumerate(ORDER, start=1):
        module = importlib.import_module(f"lora_np.exercises.statements.{slug.replace('-', '_')}")
        found.append(Lesson(number, slug, module.TITLE, module.EXERCISES))
    return tuple(found)


def lessons(numbers: Sequence[int] = ()) -> list[Lesson]:
    """The lessons with these numbers, in order; all of them by default.

    Parameters
    ----------
    numbers : sequence of int
        From 1.

    Returns
    -------
    list of Lesson
        In the order of the course.

    Raises
    ------
    ValueError
        If no lesson has such a number.

    Examples
    --------
    >>> [lesson.slug for lesson in lessons([1, 3])]
    ['see-rank', 'cut-the-svd']
    """
    wanted = {whole_number("lesson", number, maximum=len(ORDER)) for number in numbers}
    return [lesson for lesson in course() if not wanted or lesson.number in wanted]


def exercise(name: str) -> Exercise:
    """The exercise whose function is called ``name``.

    Parameters
    ----------
    name : str
        Of a function.

    Returns
    -------
    Exercise
        Statement, stub, hints and check.

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


def check(function: Callable[..., Any], *, rng: np.random.Generator | int | None = None) -> Outcome:
    """Put questions of random shapes to a student's function: the exercise is the one of its name.

    Parameters
    ----------
    function : callable
        Called as an exercise is.
    rng : Generator or int, optional
        Draws other questions than those that students see.

    Returns
    -------
    Outcome
        Shows points, and the law that is broken if one is.

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
    The function runs in this process, with nothing between it and you: right for your own work, and for a
    browser. `lora_np.grading.grade` runs what others have written.

    Examples
    --------
    >>> def lora_count(d, k, r):
    ...     return d * k * r
    >>> check(lora_count)
    lora_count: 0 of 1 point
      B is d x r and A is r x k: the count must be 133,866, got 243,767,160
      in lora_count(d = 4252, k = 3185, r = 18)
    """
    if not callable(function) or not hasattr(function, "__name__"):
        raise TypeError(f"check takes a function, got {type(function).__name__}")
    questions = QUESTIONS if rng is None else other_questions(rng)
    return judge(exercise(function.__name__), here(function), questions)


def other_questions(rng: np.random.Generator | int) -> list[list[int]]:
    """As many questions as students see, and none of theirs.

    Parameters
    ----------
    rng : Generator or int
        Draws them; an int is also the first number of each.

    Returns
    -------
    list of list of int
        For `judge`.
    """
    drawn = rng.integers(2**31) if isinstance(rng, np.random.Generator) else rng
    return [[whole_number("rng", drawn, minimum=0), 1 + i] for i in range(len(QUESTIONS))]


@dataclass(frozen=True)
class Overview:
    """Some lessons, and what their exercises are worth.

    Parameters
    ----------
    lessons : tuple of Lesson
        In order.
    """

    lessons: tuple[Lesson, ...]

    @property
    def table(self) -> Table:
        """A row for each exercise."""
        rows = [
            (f"{lesson.number} {lesson.title}", one.name, one.title, one.points)
            for lesson in self.lessons
            for one in lesson.exercises
        ]
        total = sum(lesson.points for lesson in self.lessons)
        notes = [f"{len(rows)} exercises, {total} points."]
        return Table(["lesson", "exercise", "title", "points"], rows, notes=notes)


def overview(numbers: Sequence[int] = ()) -> Overview:
    """What there is to solve.

    Parameters
    ----------
    numbers : sequence of int
        Of lessons; all by default.

    Returns
    -------
    Overview
        With a table.

    Raises
    ------
    ValueError
        If no lesson has such a number.

    Examples
    --------
    >>> overview([4]).table.columns
    ('lesson', 'exercise', 'title', 'points')
    """
    return Overview(tuple(lessons(numbers)))
