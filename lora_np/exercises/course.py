"""The course: ten lessons and their exercises, found by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from lora_np.checks import choice, whole_number
from lora_np.exercises.exercise import SEEDS, Exercise, Lesson, Outcome, here, judge
from lora_np.table import Table

COUNT = 10


@cache
def course() -> tuple[Lesson, ...]:
    """All lessons with their exercises, in order.

    Examples
    --------
    >>> [lesson.title for lesson in course()][:4]
    ['See rank', 'Factor a matrix', 'Cut the SVD', 'Count parameters']
    """
    modules = [f"lora_np.exercises.lessons.lesson{number:02d}" for number in range(1, COUNT + 1)]
    return tuple(importlib.import_module(module).LESSON for module in modules)


def lessons(numbers: Sequence[int] = ()) -> list[Lesson]:
    """The lessons of these numbers, all by default.

    Raises
    ------
    ValueError
        If there is no such lesson.

    Examples
    --------
    >>> [lesson.slug for lesson in lessons([1, 3])]
    ['see-rank', 'cut-the-svd']
    """
    wanted = {whole_number("lesson", number, maximum=COUNT) for number in numbers}
    return [lesson for lesson in course() if not wanted or lesson.number in wanted]


def exercise(name: str) -> Exercise:
    """The exercise whose function is called ``name``.

    Raises
    ------
    ValueError
        If there is none; the message lists close names.

    Examples
    --------
    >>> exercise("rank_by_elimination").points
    3
    """
    known = {one.name: one for lesson in course() for one in lesson.exercises}
    return known[choice("exercise", name, known)]


def check(function: Callable[..., Any], *, seed: int | None = None) -> Outcome:
    """Put questions of random shapes to a student's function: the exercise is the one of its name.

    Parameters
    ----------
    function : callable
    seed : int, optional
        Other questions than those that students see.

    Returns
    -------
    Outcome
        Shows points, and the law that is broken if one is.

    Raises
    ------
    TypeError
        If it is no function.
    ValueError
        If no exercise has the function's name.

    Notes
    -----
    The function runs in this process, with nothing between it and you: right for one's own work, and for a
    browser. `grade` runs what others have written.

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
    seeds = SEEDS if seed is None else other_seeds(seed)
    return judge(exercise(function.__name__), here(function), seeds)


def other_seeds(seed: int) -> list[list[int]]:
    """As many seeds as students see, and none of theirs."""
    return [[whole_number("seed", seed, minimum=0), 1 + i] for i in range(len(SEEDS))]


def overview(numbers: Sequence[int] = ()) -> Table:
    """A row for each exercise.

    Examples
    --------
    >>> overview([4]).columns
    ('lesson', 'exercise', 'title', 'points')
    """
    rows = [
        (f"{lesson.number} {lesson.title}", one.name, one.title, one.points)
        for lesson in lessons(numbers)
        for one in lesson.exercises
    ]
    total = sum(row[3] for row in rows)
    return Table(
        ["lesson", "exercise", "title", "points"], rows, notes=[f"{len(rows)} exercises, {total} points."]
    )
