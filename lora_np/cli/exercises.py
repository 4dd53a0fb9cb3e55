"""``exercises ...``: write them, check them, grade a class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lora_np.checks import whole_number
from lora_np.cli import options

lessons = click.option(
    "--lesson",
    "lessons",
    multiple=True,
    callback=options.whole_numbers,
    help="Numbers of lessons, such as 1 or 1,2.",
)
folder = click.argument("folder", **options.WRITTEN)


@click.group(invoke_without_command=True)
@click.pass_context
def exercises(context: click.Context) -> None:
    """Exercises that check themselves, for students and teachers."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@exercises.command("list")
@lessons
@options.as_json
def list_command(lessons: tuple[int, ...], as_json: bool) -> None:
    """List all exercises, with their points.

    Example: lora-np exercises list --lesson 1
    """
    from lora_np.exercises import lessons as course
    from lora_np.table import Table

    found = course(lessons)
    rows = [
        (f"{lesson.number} {lesson.title}", one.name, one.title, one.effort, one.points)
        for lesson in found
        for one in lesson.exercises
    ]
    notes = [f"{len(rows)} exercises, {sum(lesson.points for lesson in found)} points."]
    table = Table(["lesson", "exercise", "title", "effort", "points"], rows, notes=notes)
    if as_json:
        options.print_json(table.records)
    else:
        options.show(table)


@exercises.command("start")
@folder
@lessons
def start_command(folder: Path, lessons: tuple[int, ...]) -> None:
    """Write the exercises of each lesson, as a notebook and as a script: edit the one you like.

    Example: lora-np exercises start my-exercises --lesson 1
    """
    from lora_np.exercises import start

    options.show_written(*start(folder, lessons))
    print("Then: lora-np exercises check FILE")


@exercises.command("check")
@click.argument("file", type=options.READ)
@click.option("--exercise", "names", multiple=True, help="The name of a function; may be repeated.")
@options.as_json
def check_command(file: Path, names: tuple[str, ...], as_json: bool) -> None:
    """Show points, and the law that each wrong answer breaks. The exit status is 1 unless all are right.

    Example: lora-np exercises check my-exercises/01-see-rank.py
    """
    from lora_np.exercises import exercise
    from lora_np.grading import check_file

    report = check_file(file, [exercise(name) for name in names])
    if as_json:
        options.print_json(report.to_dict())
    else:
        print(report)
    if not report.passed:
        click.get_current_context().exit(1)


@exercises.command("solution")
@click.argument("name")
def solution_command(name: str) -> None:
    """Explain how an exercise can be solved, to be read after an attempt.

    Example: lora-np exercises solution lora_count
    """
    from lora_np.exercises import solution

    print(solution(name))


@exercises.command("grade")
@click.argument("submissions", type=options.READ)
@click.option(
    "-o",
    "--out",
    **options.WRITTEN,
    default="grades.csv",
    help="Grades; feedback and a figure go next to it.",
)
@lessons
@click.option("--exercise", "only", multiple=True, help="The name of an exercise; may be repeated.")
@click.option("--roster", type=options.READ, help="The class as CSV; names in its first column.")
@click.option("--column", default="lora-np", help="The heading of the points in the gradebook (lora-np).")
@click.option("--rng", type=int, help="Random seed of the questions; by default, a new one each time.")
@click.option("--seconds", type=float, default=10.0, help="Time for one call of a student's function (10).")
@click.option(
    "--total-seconds", type=float, default=300.0, help="Time for all cells and calls of one file (300)."
)
@click.option(
    "--student-seconds", type=float, default=1200.0, help="Time for all files of one student (1200)."
)
@click.option("--memory", type=int, default=1024, help="Megabytes for each submission (1024).")
@click.option(
    "--jobs",
    type=int,
    callback=options.possible_jobs,
    help="Submissions graded at a time; by default, one per processor.",
)
@options.as_json
def grade_command(
    submissions: Path,
    out: Path,
    lessons: tuple[int, ...],
    column: str,
    memory: int,
    as_json: bool,
    **asked: Any,
) -> None:
    """Grade a folder of submissions, each in a separate process: points, feedback, a figure of the class.

    Example: lora-np exercises grade submissions/ -o grades.csv --lesson 1
    """
    from lora_np.grading import Limits, check_out, grade

    check_out(out, submissions)
    times = {name: asked.pop(name) for name in ("seconds", "total_seconds", "student_seconds")}
    limits = Limits(memory=whole_number("memory", memory, maximum=2**20) * 2**20, **times)
    # The next run finds here what a killed one had finished.
    journal = out.with_name(f".{out.stem}-journal.jsonl")
    grades = grade(submissions, numbers=lessons, limits=limits, progress=True, journal=journal, **asked)
    if as_json:
        about = {"rng": grades.rng, "limits not enforced": grades.missing, "failures": grades.failures}
        options.print_json({**about, "grades": grades.table.records})
    else:
        options.show(grades.table)
    written = grades.write(
        out, column
    )  # last: if a file cannot be written, the points are still on the screen
    journal.unlink(missing_ok=True)
    if not as_json:
        options.show_written(written, [])


@exercises.command("nbgrader")
@folder
@lessons
def nbgrader_command(folder: Path, lessons: tuple[int, ...]) -> None:
    """Write a course for nbgrader, with solutions and hidden tests; a checkout adds the usual mistakes.

    Example: lora-np exercises nbgrader my-course
    """
    from lora_np.grading import nbgrader

    options.show_written(*nbgrader(folder, lessons))
