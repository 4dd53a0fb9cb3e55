"""The course: its lessons in order, and their exercises, found by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_np.checks import choice, whole_number
from lora_np.exercises.asking import QUESTIONS, Exercise, Lesson, Outcome, here, judge
from lora_np.exercises.reading import code_in, course
from lora_np.table import Table


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
    wanted = {whole_number("lesson", number, maximum=len(course())) for number in numbers}
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


@dataclass(frozen=True)
class Solution:
    """An explained solution, to be read after an attempt.

    Parameters
    ----------
    exercise : str
        The function's name.
    text : str
        Markdown: why, then the code.
    """

    exercise: str
    text: str

    @property
    def code(self) -> str:
        """The function alone."""
        return code_in(self.text)

    @property
    def body(self) -> str:
        """What a student is to write: the function without the line that begins with def."""
        return self.code.partition("\n")[2]

    def __repr__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return self.text


def solution(name: str) -> Solution:
    """How the exercise ``name`` can be solved, and why that is right.

    Parameters
    ----------
    name : str
        Of a function.

    Returns
    -------
    Solution
        Shows itself as Markdown.

    Raises
    ------
    ValueError
        If no exercise has that name, or this course leaves its solution out.

    See Also
    --------
    check : Check an attempt first.

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
    return Solution(name, text)


def check(function: Callable[..., Any], *, rng: np.random.Generator | int | None = None) -> Outcome:
    """Try the laws of the exercise that is called like a student's function, on inputs from small to large.

    Parameters
    ----------
    function : callable
        Called as an exercise is.
    rng : Generator or int, optional
        Draws other inputs than those that students see.

    Returns
    -------
    Outcome
        Shows points, and each law that is broken with the smallest input found that breaks it.

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
    >>> def column_of_product(B, A, j):
    ...     return B[:, 0] * A[0, j]
    >>> check(column_of_product)
    column_of_product: 0 of 1 point
      Column j of B A mixes the columns of B, and needs no other: entry [0] of the column must be 1, got 0
      B = np.array([[0., 1.]])
      A = np.array([[0.], [1.]])
      j = 0
      column_of_product(B, A, j)
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
            (f"{lesson.number} {lesson.title}", one.name, one.title, one.effort, one.points)
            for lesson in self.lessons
            for one in lesson.exercises
        ]
        total = sum(lesson.points for lesson in self.lessons)
        notes = [f"{len(rows)} exercises, {total} points."]
        return Table(["lesson", "exercise", "title", "effort", "points"], rows, notes=notes)


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
    ('lesson', 'exercise', 'title', 'effort', 'points')
    """
    return Overview(tuple(lessons(numbers)))
