"""Write handouts for students: the exercises of a lesson as a notebook and as a script."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_np.exercises.catalogue import code_in, lessons
from lora_np.exercises.running import HEADER
from lora_np.exercises.testing import Exercise, Lesson, plural
from lora_np.files import write_new


def start(folder: Path, numbers: Sequence[int] = ()) -> tuple[list[Path], list[Path]]:
    """Write each lesson's exercises as a notebook and as a script; existing files are kept.

    Parameters
    ----------
    folder : Path
        The folder to write to, which is created if it does not exist.
    numbers : sequence of int
        The numbers of the lessons; all by default.

    Returns
    -------
    written : list of Path
        The new files.
    kept : list of Path
        The existing files, which were not changed.

    Raises
    ------
    ValueError
        If no lesson has such a number, or it has no exercises.
    OSError
        If a file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> written, kept = start(folder, [1])
    >>> [path.name for path in written], kept
    (['01-see-rank.ipynb', '01-see-rank.py'], [])
    >>> len(start(folder, [1])[1])  # nothing is overwritten
    2
    """
    files = {}
    for lesson in lessons(numbers):
        if lesson.exercises:
            files[folder / f"{lesson.stem}.ipynb"] = notebook_text(notebook(lesson))
            files[folder / f"{lesson.stem}.py"] = script(lesson)
    return write_new(files)


def notebook(lesson: Lesson) -> dict[str, Any]:
    """Build a notebook with the statement, folded hints, a stub and a check of each exercise.

    Parameters
    ----------
    lesson : Lesson
        The lesson whose exercises to show.

    Returns
    -------
    dict
        The notebook in the notebook format, version 4.5; `notebook_text` converts it to text.

    Examples
    --------
    >>> from lora_np.exercises import lessons
    >>> (lesson,) = lessons([1])
    >>> [cell["id"] for cell in notebook(lesson)["cells"]][:5]
    ['title', 'imports', 'column_of_product-statement', 'column_of_product',
    'column_of_product-check']
    """
    cells = [
        markdown("title", opening(lesson)),
        code("imports", f"{HEADER}from lora_np import exercises"),
    ]
    for number, exercise in enumerate(lesson.exercises, start=1):
        name = exercise.name
        cells += [
            markdown(f"{name}-statement", with_hints(exercise, number)),
            code(name, exercise.stub),
        ]
        cells.append(code(f"{name}-check", f"exercises.check({name})"))
    if closing := lesson.closing:
        text = closing.partition("\n```python")[0]
        cells += [markdown("closing", text), code("closing-code", code_in(closing))]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def notebook_text(content: Mapping[str, Any]) -> str:
    """Convert a notebook to the text of its file.

    Parameters
    ----------
    content : mapping
        The notebook, from `notebook`.

    Returns
    -------
    str
        JSON, which is the same for equal notebooks.

    Examples
    --------
    >>> print(notebook_text({"nbformat": 4, "cells": []}), end="")
    {
     "cells": [],
     "nbformat": 4
    }
    """
    return json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def markdown(name: str, text: str) -> dict[str, Any]:
    source = text.rstrip("\n").splitlines(keepends=True)
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}


def code(name: str, text: str) -> dict[str, Any]:
    return markdown(name, text) | {"cell_type": "code", "execution_count": None, "outputs": []}


def script(lesson: Lesson) -> str:
    """Return a lesson's exercises as a script in percent format, with the hints at the end."""
    blocks = []
    for cell in notebook(lesson)["cells"]:
        text = "".join(cell["source"]).partition("\n\n<details>")[0].rstrip()
        if cell["cell_type"] == "markdown":
            blocks.append(f"# %% [markdown]\n{commented(text)}\n")
        elif not cell["id"].endswith("-check"):
            blocks.append(f"# %%\n{text}\n")
    hints = "## Hints"
    for number, exercise in enumerate(lesson.exercises, start=1):
        hints += f"\n\n{number}. {exercise.title}\n\n" + "\n".join(
            f"- {hint}" for hint in exercise.hints
        )
    return "\n".join([*blocks, f"# %% [markdown]\n{commented(hints)}\n"])


def opening(lesson: Lesson) -> str:
    """Return the introduction to a lesson's exercises, with the command for solutions if any."""
    explained = ' After an attempt, `exercises.solution("NAME")` explains how it can be done.'
    return (
        f"# Exercises: {lesson.title}\n\n{len(lesson.exercises)} functions to write,"
        f" {plural(lesson.points, 'point')} in all. Replace the `...` of each, and check it: the"
        " check tries your function on inputs from small to large, and shows the smallest that it"
        " finds wrong. Each law that holds earns its points. Any right answer passes, with loops"
        " or without, in float64 or float32. In a terminal, `lora-np exercises check"
        f" {lesson.stem}.py` checks the script, whose end has the hints."
        + explained
        * bool(lesson.exercises[0].solution)
    )


def heading(exercise: Exercise, number: int) -> str:
    """Write the heading of an exercise in Markdown: number, title, points and effort.

    Parameters
    ----------
    exercise : Exercise
        The exercise.
    number : int
        Its number in the lesson, from 1.

    Returns
    -------
    str
        A heading of the second level.

    Examples
    --------
    >>> from lora_np.exercises import exercise
    >>> heading(exercise("lora_count"), number=2)
    '## 2. Count a LoRA (1 point, easy, 5 minutes)'
    """
    return f"## {number}. {exercise.title} ({plural(exercise.points, 'point')}, {exercise.effort})"


def with_hints(exercise: Exercise, number: int) -> str:
    hints = [
        f"<details><summary>{title}</summary>\n\n{hint}\n\n</details>"
        for title, hint in zip(
            ("Hint", "One more hint", "Nearly all of it"), exercise.hints, strict=False
        )
    ]
    return "\n\n".join([heading(exercise, number), exercise.statement, *hints])


def commented(text: str) -> str:
    return "\n".join(f"# {line}".rstrip() for line in text.splitlines())
