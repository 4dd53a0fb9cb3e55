"""``exercises ...``: write them, check them, grade a class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lora_np.checks import whole_number
from lora_np.cli.shared import AsJSON, output_path, possible_jobs, print_json, show, show_written

group = typer.Typer(help="Exercises that check themselves, for students and teachers.")


@group.callback(invoke_without_command=True)
def root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


Lessons = Annotated[
    list[int] | None, typer.Option("--lesson", help="The number of a lesson; may be repeated.")
]
Folder = Annotated[
    Path,
    typer.Argument(parser=output_path, help="The folder to write to; existing files are kept."),
]


@group.command("list")
def list_command(lesson: Lessons = None, as_json: AsJSON = False) -> None:
    """List all exercises, with their points.

    Example: lora-np exercises list --lesson 1
    """
    from lora_np.exercises import lessons
    from lora_np.table import Table

    found = lessons(lesson or ())
    rows = [
        (f"{one.number} {one.title}", exercise.name, exercise.title, exercise.effort, exercise.points)
        for one in found
        for exercise in one.exercises
    ]
    notes = [f"{len(rows)} exercises, {sum(one.points for one in found)} points."]
    table = Table(["lesson", "exercise", "title", "effort", "points"], rows, notes=notes)
    if as_json:
        print_json(table.records)
    else:
        show(table)


@group.command("start")
def start_command(
    folder: Folder,
    lesson: Lessons = None,
) -> None:
    """Write the exercises of each lesson, as a notebook and as a script: edit the one you like.

    Example: lora-np exercises start my-exercises --lesson 1
    """
    from lora_np.exercises import start

    show_written(*start(folder, lesson or ()))
    print("Then: lora-np exercises check FILE")


@group.command("check")
def check_command(
    file: Annotated[Path, typer.Argument(help="A notebook or script.")],
    names: Annotated[
        list[str] | None, typer.Option("--exercise", help="The name of a function; may be repeated.")
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Show points, and the law that each wrong answer breaks. The exit status is 1 unless all is right.

    Example: lora-np exercises check my-exercises/01-see-rank.py
    """
    from lora_np.exercises import exercise
    from lora_np.grading import check_file

    report = check_file(file, [exercise(name) for name in names or ()])
    if as_json:
        print_json(report.to_dict())
    else:
        print(report)
    if not report.passed:
        raise typer.Exit(1)


@group.command("solution")
def solution_command(name: Annotated[str, typer.Argument(help="The name of a function.")]) -> None:
    """Explain how an exercise can be solved: for after an attempt.

    Example: lora-np exercises solution lora_count
    """
    from lora_np.exercises import solution

    print(solution(name))


@group.command("grade")
def grade_command(
    submissions: Annotated[
        Path, typer.Argument(help="A folder with a file, or a folder of files, for each student.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            parser=output_path,
            metavar="PATH",
            help="Grades; feedback and a figure go next to it.",
        ),
    ] = Path("grades.csv"),
    lesson: Lessons = None,
    rng: Annotated[
        int | None, typer.Option(help="Random seed of the questions; by default, a new one each time.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time for one call of a student's function.")] = 10.0,
    total_seconds: Annotated[float, typer.Option(help="Time for all cells and calls of one file.")] = 300.0,
    student_seconds: Annotated[float, typer.Option(help="Time for all files of one student.")] = 1200.0,
    memory: Annotated[int, typer.Option(help="Megabytes for each submission.")] = 1024,
    jobs: Annotated[
        int | None,
        typer.Option(
            callback=possible_jobs, help="Submissions graded at a time; by default, one per processor."
        ),
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Grade a folder of submissions, each in a separate process: points, feedback, a figure of the class.

    Example: lora-np exercises grade submissions/ -o grades.csv --lesson 1
    """
    from lora_np.grading import Limits, check_out, grade

    check_out(out, submissions)
    memory = whole_number("memory", memory, maximum=2**20) * 2**20
    limits = Limits(seconds, memory, total_seconds, student_seconds)
    # What a run that was killed has found by then is there for the next one.
    journal = out.with_name(f".{out.stem}-journal.jsonl")
    grades = grade(
        submissions,
        numbers=lesson or (),
        rng=rng,
        limits=limits,
        jobs=jobs,
        progress=True,
        journal=journal,
    )
    if as_json:
        print_json({"rng": grades.rng, "limits not enforced": grades.missing, "grades": grades.table.records})
    else:
        show(grades.table)
    written = grades.write(out)  # last: if a file cannot be written, the points are still on the screen
    journal.unlink(missing_ok=True)
    if not as_json:
        show_written(written, [])


@group.command("nbgrader")
def nbgrader_command(
    folder: Folder,
    lesson: Lessons = None,
) -> None:
    """Write a course for nbgrader, with solutions and hidden tests; a checkout adds the usual mistakes.

    Example: lora-np exercises nbgrader my-course
    """
    from lora_np.grading import nbgrader

    show_written(*nbgrader(folder, lesson or ()))
