"""A class as a gradebook knows it: who is absent, points to hand back, and what to teach again."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from lora_np.checks import choice
from lora_np.exercises import Lesson
from lora_np.table import Cell, Table

Row = dict[str, str]
T = TypeVar("T")


def read_roster(path: Path) -> list[Row]:
    """The students of a class, from the CSV that a gradebook exports.

    Parameters
    ----------
    path : Path
        With a line of headings. The first column has the names of students' files or folders; the others,
        such as Moodle's ``Email address`` or Canvas's ``ID``, are handed back as they are.

    Returns
    -------
    list of dict
        A row for each student, in the order of the file.

    Raises
    ------
    ValueError
        If it is not such a table, or names a student twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.DictReader(file, strict=True) if any(row.values())]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a roster in CSV: {error}") from None
    if not rows or any(None in row or None in row.values() for row in rows):
        raise ValueError(f"{path} must have a line of headings, and as many fields in each line")
    twice = [name for name, count in Counter(next(iter(row.values())) for row in rows).items() if count > 1]
    if twice:
        raise ValueError(f"{path} names {twice[0]!r} twice")
    return rows


def by_roster(rows: Sequence[Row], found: Mapping[str, list[T]]) -> dict[str, list[T]]:
    """What each student of a roster has handed in, perhaps nothing; then those whom it does not name.

    A folder is a student's if it has the name, or begins with it and an underscore, as downloads from Moodle
    and Canvas do.

    Examples
    --------
    >>> by_roster([{"name": "Ada"}, {"name": "Bob"}], {"Ada_17_file": ["a.py"], "Cy": ["c.py"]})
    {'Ada': ['a.py'], 'Bob': [], 'Cy': ['c.py']}
    """
    left = dict(found)
    result: dict[str, list[T]] = {}
    for row in rows:
        name = next(iter(row.values()))
        own = [folder for folder in left if folder == name or folder.startswith(f"{name}_")]
        result[name] = [one for folder in own for one in left.pop(folder)]
    return result | left


def gradebook(rows: Sequence[Row], points: Mapping[str, int], column: str) -> Table:
    """The roster as it came, with a column of points: what Moodle and Canvas import.

    Examples
    --------
    >>> print(gradebook([{"Student": "Ada", "ID": "17"}], {"Ada": 4}, "LoRA (99)").to_csv())
    Student,ID,LoRA (99)
    Ada,17,4
    <BLANKLINE>
    """
    body: list[list[Cell]] = [[*row.values(), points[next(iter(row.values()))]] for row in rows]
    return Table([*rows[0], column], body)


def part_of(lessons: Sequence[Lesson], names: Sequence[str]) -> list[Lesson]:
    """The lessons with the exercises of these names only; all of them where none is named."""
    known = [one.name for lesson in lessons for one in lesson.exercises]
    wanted = {choice("exercise", name, known) for name in names} or set(known)
    pairs = [(lesson, tuple(one for one in lesson.exercises if one.name in wanted)) for lesson in lessons]
    return [replace(lesson, exercises=part) for lesson, part in pairs if part]


def broken_laws(outcomes: Sequence[Any]) -> Table:
    """How many students broke each law, and by which known mistake: what to teach again comes first.

    Parameters
    ----------
    outcomes : sequence of Outcome
        Of all students and exercises; those that were not handed in count as nothing.

    Returns
    -------
    Table
        A row for each law and mistake; no mistake where none that is known gives the same.
    """
    broken = [
        (outcome.exercise.name, law.name, verdict.mistake)
        for outcome in outcomes
        for law, verdict in zip(outcome.exercise.laws, outcome.verdicts, strict=True)
        if not verdict.passed and not verdict.message.startswith("Not ")
    ]
    rows = [(*what, count) for what, count in Counter(broken).most_common()]
    return Table(["exercise", "law", "what comes out", "students"], rows)
