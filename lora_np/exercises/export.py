"""From one source: students' notebooks and scripts, a course for nbgrader, and the page of solutions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_np.exercises.course import lessons
from lora_np.exercises.exercise import Exercise, Lesson, plural
from lora_np.exercises.solutions import HEADER, Solution, solutions
from lora_np.files import whole

SEED = 20_000  # of the hidden tests; `exercises grade --seed 20000` asks the same questions
DOTS = "    ...\n"  # the last line of a stub
CONFIG = f'''\
"""Settings of nbgrader for this course."""

c = get_config()  # noqa: F821

c.CourseDirectory.course_id = "lora_np"
c.ClearSolutions.code_stub = {{"python": "..."}}
c.ExecutePreprocessor.timeout = 120

# Hidden tests ask the questions of seed {SEED}: `lora-np exercises grade --seed {SEED}` gives the same.
'''


def start(folder: Path, numbers: Sequence[int] = ()) -> tuple[list[Path], list[Path]]:
    """Write each lesson's exercises as a notebook and as a script; files that are there stay as they are.

    Returns
    -------
    written, kept : lists of Path
    """
    files = {}
    for lesson in lessons(numbers):
        files[folder / f"{lesson.stem}.ipynb"] = student_notebook(lesson)
        files[folder / f"{lesson.stem}.py"] = student_script(lesson)
    return write(files)


def nbgrader(folder: Path, numbers: Sequence[int] = ()) -> tuple[list[Path], list[Path]]:
    """Write a course for nbgrader: its settings, an assignment for each lesson, and a page of solutions.

    Returns
    -------
    written, kept : lists of Path

    Raises
    ------
    ValueError
        Outside a checkout of the repository, which alone has the solutions.
    """
    files = {folder / "nbgrader_config.py": CONFIG}
    for lesson in lessons(numbers):
        files[folder / "source" / lesson.stem / f"{lesson.stem}.ipynb"] = teacher_notebook(lesson)
        files[folder / "solutions" / f"{lesson.stem}.md"] = solution_page(lesson)
    return write(files)


def write(files: dict[Path, str]) -> tuple[list[Path], list[Path]]:
    """Write what is not there yet: nobody's work is ever overwritten."""
    kept = [path for path in files if path.exists()]
    written = [path for path in files if path not in kept]
    for path in written:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as stage:
            stage.write_text(files[path], encoding="utf-8", newline="\n")
    return written, kept


def student_notebook(lesson: Lesson) -> str:
    """A stub and a check cell for each exercise; hints unfold."""
    cells = [markdown("title", opening(lesson)), code("imports", IMPORTS)]
    for number, exercise in enumerate(lesson.exercises, start=1):
        cells += [
            markdown(f"{exercise.name}-statement", statement(exercise, number)),
            code(exercise.name, exercise.stub),
            code(f"{exercise.name}-check", f"exercises.check({exercise.name})"),
        ]
    return notebook(cells)


def teacher_notebook(lesson: Lesson) -> str:
    """The same with solutions and hidden tests, marked as nbgrader wants them."""
    cells = [markdown("title", opening(lesson)), code("imports", IMPORTS)]
    for number, exercise in enumerate(lesson.exercises, start=1):
        name = exercise.name
        test = (
            f"exercises.check({name})\n### BEGIN HIDDEN TESTS\n"
            f"exercises.check({name}, seed={SEED}).require()\n### END HIDDEN TESTS"
        )
        cells += [
            markdown(f"{name}-statement", statement(exercise, number)),
            code(
                name,
                marked_solution(exercise, solutions(lesson)[name]),
                nbgrader=cell_of(name, solution=True),
            ),
            code(f"{name}-check", test, nbgrader=cell_of(f"{name}-check", points=exercise.points)),
        ]
    return notebook(cells)


def student_script(lesson: Lesson) -> str:
    """The same as a script in percent format, with the hints at its end."""
    advice = f"In a terminal: `lora-np exercises check {lesson.stem}.py`. Hints are at the end."
    blocks = [f"# %% [markdown]\n{commented(opening(lesson))}\n#\n# {advice}", f"# %%\n{HEADER}"]
    for number, exercise in enumerate(lesson.exercises, start=1):
        text = f"{heading(exercise, number)}\n\n{exercise.statement}"
        blocks += [f"# %% [markdown]\n{commented(text)}", f"# %%\n{exercise.stub}"]
    hints = [
        f"{number}. {exercise.title}\n\n" + "\n".join(f"- {hint}" for hint in exercise.hints)
        for number, exercise in enumerate(lesson.exercises, start=1)
    ]
    blocks.append("# %% [markdown]\n" + commented("## Hints\n\n" + "\n\n".join(hints)))
    return "\n\n".join(block.rstrip("\n") for block in blocks) + "\n"


def solution_page(lesson: Lesson) -> str:
    """Each exercise with its solution, and what is usually done wrong, as Markdown."""
    parts = [f"# Solutions: {lesson.title}"]
    for number, exercise in enumerate(lesson.exercises, start=1):
        solution = solutions(lesson)[exercise.name]
        code = marked_solution(exercise, solution, marks=False)
        parts += [heading(exercise, number), exercise.statement, f"```python\n{code.rstrip()}\n```"]
        parts.append("Usual mistakes, and what the check says:")
        parts.append("\n".join(f"- {mistake.name}: *{mistake.breaks}*" for mistake in solution.mistakes))
    return "\n\n".join(parts) + "\n"


IMPORTS = HEADER + "from lora_np import exercises"


def opening(lesson: Lesson) -> str:
    total = sum(exercise.points for exercise in lesson.exercises)
    return (
        f"# Exercises: {lesson.title}\n\n"
        f"{len(lesson.exercises)} functions to write, {plural(total, 'point')} in all. Replace the `...` "
        "of each, and check it: the check puts questions of random sizes to your function, and names the law "
        "that an answer breaks. Any right answer passes, with loops or without."
    )


def heading(exercise: Exercise, number: int) -> str:
    return f"## {number}. {exercise.title} ({plural(exercise.points, 'point')})"


def statement(exercise: Exercise, number: int) -> str:
    hints = [
        f"<details><summary>{title}</summary>\n\n{hint}\n\n</details>"
        for title, hint in zip(("Hint", "One more hint"), exercise.hints, strict=True)
    ]
    return "\n\n".join([heading(exercise, number), exercise.statement, *hints])


def marked_solution(exercise: Exercise, solution: Solution, *, marks: bool = True) -> str:
    """The stub with the solution where its dots are, between nbgrader's marks."""
    body = f"    ### BEGIN SOLUTION\n{solution.body}\n    ### END SOLUTION" if marks else solution.body
    return f"{exercise.stub.removesuffix(DOTS)}{body}\n"


def commented(text: str) -> str:
    return "\n".join(f"# {line}".rstrip() for line in text.splitlines())


# Notebooks, as plain JSON


def notebook(cells: list[dict[str, Any]]) -> str:
    content = {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def markdown(name: str, text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": text.splitlines(keepends=True)}


def code(name: str, text: str, **metadata: Any) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": name,
        "metadata": metadata,
        "outputs": [],
        "source": text.rstrip("\n").splitlines(keepends=True),
    }


def cell_of(name: str, *, solution: bool = False, points: int | None = None) -> dict[str, Any]:
    """What nbgrader knows of a cell: one that a student fills in, or one that is worth points."""
    graded = points is not None
    marks = {"grade": graded, "grade_id": name, "locked": graded, "solution": solution, "task": False}
    return {**marks, "schema_version": 3, **({"points": points} if graded else {})}
