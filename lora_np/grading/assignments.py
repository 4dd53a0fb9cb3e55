"""Write a course for nbgrader: notebooks with solutions and hidden tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lora_np.exercises import Lesson, lessons, notebook, notebook_text, solution
from lora_np.files import write_new

# the seed of the hidden tests' inputs; `exercises grade --seed 20000` draws the same inputs
HIDDEN = 20_000
DOTS = "    ...\n"  # the body of a stub that has only one function
CONFIG = f'''\
"""Settings of nbgrader for this course."""

c = get_config()  # noqa: F821

c.CourseDirectory.course_id = "lora_np"
c.ClearSolutions.code_stub = {{"python": "..."}}
c.ExecutePreprocessor.timeout = 120

# `lora-np exercises grade --seed {HIDDEN}` asks the questions of the hidden tests.
'''


def nbgrader(folder: Path, numbers: Sequence[int] = ()) -> tuple[list[Path], list[Path]]:
    """Write a course for nbgrader: its settings, and an assignment for each lesson.

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
        If a lesson does not exist or has no exercises.
    OSError
        If a file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> written, _ = nbgrader(folder, [1])
    >>> [path.relative_to(folder).as_posix() for path in written]
    ['nbgrader_config.py', 'source/01-see-rank/01-see-rank.ipynb']
    """
    files = {folder / "nbgrader_config.py": CONFIG}
    for lesson in lessons(numbers):
        if lesson.exercises:
            path = folder / "source" / lesson.stem / f"{lesson.stem}.ipynb"
            files[path] = teacher_notebook(lesson)
    return write_new(files)


def teacher_notebook(lesson: Lesson) -> str:
    """Return a lesson's notebook with solutions, hidden tests and nbgrader's metadata."""
    content = notebook(lesson)
    cells = {cell["id"]: cell for cell in content["cells"]}
    for exercise in lesson.exercises:
        name, code = exercise.name, solution(exercise.name).code
        if exercise.stub.endswith(DOTS):
            body = code.partition("\n")[2]
            answered = f"    ### BEGIN SOLUTION\n{body}    ### END SOLUTION"
        else:  # a stub with several definitions stays whole, and the solution follows it
            answered = f"\n\n### BEGIN SOLUTION\n{code}### END SOLUTION"
        # nbgrader shows the printed text as feedback, and takes the cell's last value as points
        hidden = f"""
### BEGIN HIDDEN TESTS
outcome = exercises.check({name}, rng={HIDDEN})
print(outcome)
outcome.points
### END HIDDEN TESTS"""
        answer, check = cells[name], cells[f"{name}-check"]
        answer["source"] = (exercise.stub.removesuffix(DOTS) + answered).splitlines(keepends=True)
        answer["metadata"]["nbgrader"] = marks_of(name, solution=True)
        check["source"] += hidden.splitlines(keepends=True)
        check["metadata"]["nbgrader"] = marks_of(f"{name}-check", points=exercise.points)
    return notebook_text(content)


def marks_of(
    name: str, *, solution: bool = False, points: int | None = None
) -> dict[str, str | int]:
    """Build nbgrader's metadata for a cell that students fill in, or that is worth points."""
    graded = points is not None
    marks = {"grade": graded, "locked": graded, "solution": solution, "task": False}
    earned = {} if points is None else {"points": points}
    return {"grade_id": name, "schema_version": 3, **marks, **earned}
