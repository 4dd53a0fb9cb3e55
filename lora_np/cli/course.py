"""Define the commands to learn and teach LoRA, such as ``tour``, ``puzzles`` and ``exercises``."""

from __future__ import annotations

import contextlib
import functools
import io
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from lora_np import course, exercises as practice, grading
from lora_np.checks import choice
from lora_np.cli import options
from lora_np.files import decode_text, write_new
from lora_np.table import Table

lessons = click.option(
    "--lesson",
    "lessons",
    multiple=True,
    callback=options.whole_numbers,
    help="Lessons, such as 1 or 1,2.",
)
folder = click.argument("folder", type=options.FOLDER)
_LIMITS: options.Kinds = {
    "seconds": (float, "Seconds per call of a student's function (10)."),
    "total_seconds": (float, "Seconds for all cells and calls of one file (300)."),
    "student_seconds": (float, "Seconds for all files of one student (1200)."),
    "memory": (click.IntRange(1, 2**20), "MiB per submission (1024)."),
}


@click.command()
@click.option(
    "--out",
    "-o",
    type=options.FOLDER,
    default="lora-np-tour",
    help="The directory to write; an earlier tour there is replaced.",
)
@click.option("--quick", is_flag=True, help="Use a quarter of the data and the steps.")
@options.seed
@options.as_json
def tour(out: Path, quick: bool, rng: int, as_json: bool) -> None:
    """Adapt a real model with LoRA and report what it saves.

    Example: lora-np tour --out my-tour
    """
    report = course.tour(out, quick=quick, rng=rng, progress=not as_json)
    options.show_as(asdict(report), as_json, report)


@click.command()
@click.argument("file", type=options.SCRIPT, default="lora-puzzles.py")
@click.option("--hints", type=click.IntRange(0, 3), default=0, help="Show so many hints: 1 to 3.")
@click.option("--prompt", default="And the king ", help="What the trained model continues.")
def puzzles(file: Path, hints: int, prompt: str) -> None:
    """Write a LoRA, line by line: fifteen puzzles.

    The first run writes FILE: LoRA in one file, with fifteen lines missing. Edit a line and run the
    command again: it checks FILE, shows what your line does, and shows the next puzzle. At the end,
    all lines together train a language model.

    Example: lora-np puzzles --hints 1
    """
    if written := write_new({file: practice.puzzle_script()})[0]:
        options.show_written(written)
    results, every = grading.check_puzzles(file), practice.puzzles()
    passed = [one.name in results and results[one.name][1].passed for one in every]
    squares = "".join("□■"[done] for done in passed)
    parts = [f"LoRA puzzles: {sum(passed)} of {len(every)} solved\n{squares}"]
    waiting = [one for one, done in zip(every, passed, strict=True) if not done]
    tried = [one for one in waiting if one.name in results]
    if any(passed) and not (hints or tried):
        last = [one for one in every if one not in waiting][-1]
        parts.append(f"{last.heading}: solved\n{last.after(results[last.name][0])}")
    if not waiting:
        with contextlib.redirect_stdout(io.StringIO()):
            problem = practice.run_cell(
                decode_text(file.read_bytes()), "cell 0", {"__name__": "__main__"}
            )
        whole = f"{file} is a whole LoRA now. Run it: python {file}"
        folder = file.with_suffix("")
        if problem:
            whole = f"All lines are right, but {file} ends with an error: {problem}"
        elif not folder.exists():  # the user has not seen the ending yet
            lines = {name: line for name, (line, _) in results.items()}
            show = functools.partial(print, end="\r", flush=True) if sys.stdout.isatty() else str
            parts.append(str(practice.ending(lines, folder, prompt=prompt, show=show)))
            whole += (
                f"\nIt writes on: lora-np generate austen --adapter {folder}"
                f"\nTo show to others: {folder / 'card.svg'}. To train again, delete {folder}."
            )
        parts.append(whole)
    else:
        due = (tried or waiting)[0]
        told = f"Edit the line below '# Puzzle {due.number}' in {file}, then run this again."
        parts += [*due.hints[:hints], f"{told} --hints 1 shows a hint.", due.text]
    if tried:
        parts[-1] = f"{due.heading}: not right yet\n{due.told(*results[due.name])}"
    print("\n\n".join(parts))
    if tried:
        click.get_current_context().exit(1)


@click.command()
@click.argument("folder", type=options.FOLDER, default="lora-np-lessons")
@click.option(
    "--browser/--no-browser", default=True, help="Open a browser, or only print the address."
)
@click.option("--port", type=click.IntRange(1, 65535), help="Port; by default the first free one.")
def lab(folder: Path, browser: bool, port: int | None) -> None:
    """Copy the lessons and open them in JupyterLab.

    Your own work is never overwritten. JupyterLab comes with the extra "notebooks".

    Example: lora-np lab --no-browser
    """
    new, kept = course.copy_lessons(folder)
    print(f"{folder}: {len(new)} lessons copied, {len(kept)} left as they were", flush=True)
    course.open_lab(folder, browser=browser, port=port)


@click.command()
@click.argument("name", required=False)
@options.as_json
def claims(name: str | None, as_json: bool) -> None:
    """Show verdicts on published claims about LoRA.

    Without a NAME all claims are listed; with one, everything about it is shown.

    Example: lora-np claims rslora
    """
    known = course.claims()
    if name is None:
        lines = [(key, claim["verdicts"], claim["title"]) for key, claim in known.items()]
        options.show_as(Table(["claim", "verdict", "what is said"], lines), as_json)
        return
    claim = known[choice("claim", name, known)]
    setups = [claim, *filter(None, [claim.get("at scale")])]
    intervals = [
        (setup["meaning"][key], figure["mean"], figure["low"], figure["high"])
        for setup in setups
        for key, figure in setup["figures"].items()
    ]
    parts = (
        "verdicts",
        "finding",
        "sentence",
        "setup",
        "paper",
        "published",
        "rule",
        "setting",
        "limits",
        "advice",
    )
    notes = [f"{part}: {claim[part]}" for part in parts if claim[part]]
    notes += [f"135M: {setup['sentence']}" for setup in setups[1:]]
    columns = ["figure", "mean", "from", "to"]
    options.show_as(Table(columns, intervals, title=claim["title"], notes=notes), as_json)


@click.group(invoke_without_command=True)
@click.pass_context
def exercises(context: click.Context) -> None:
    """Hand out, check and grade the exercises."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@exercises.command("list")
@lessons
@options.as_json
def list_command(lessons: tuple[int, ...], as_json: bool) -> None:
    """List all exercises and their points.

    Example: lora-np exercises list --lesson 1
    """
    chosen = practice.lessons(lessons)
    lines = [
        (f"{lesson.number} {lesson.title}", one.name, one.title, one.effort, one.points)
        for lesson in chosen
        for one in lesson.exercises
    ]
    notes = [
        f"{len(lines)} exercises, {sum(lesson.points for lesson in chosen)} points."
        " The path takes three hours without those marked *more*."
    ]
    table = Table(["lesson", "exercise", "title", "effort", "points"], lines, notes=notes)
    options.show_as(table.records, as_json, table)


@exercises.command("start")
@folder
@lessons
def start_command(folder: Path, lessons: tuple[int, ...]) -> None:
    """Write the exercises as notebooks and scripts.

    Each lesson becomes a notebook and a script; edit the one you prefer.

    Example: lora-np exercises start my-exercises --lesson 1
    """
    options.show_written(*practice.start(folder, lessons))
    print("Then: lora-np exercises check FILE")


@exercises.command("check")
@click.argument("file", type=options.READ)
@click.option("--exercise", "names", multiple=True, help="Name of a function. Repeatable.")
@options.as_json
def check_command(file: Path, names: tuple[str, ...], as_json: bool) -> None:
    """Check your answers and show your points.

    A wrong answer is shown with the property it breaks. The exit status is 1 unless all are right.

    Example: lora-np exercises check my-exercises/01-see-rank.py
    """
    report = grading.check_file(file, [practice.exercise(name) for name in names])
    options.show_as(report.to_dict(), as_json, report, status=0 if report.passed else 1)


@exercises.command("solution")
@click.argument("name")
def solution_command(name: str) -> None:
    """Show and explain the solution of an exercise.

    Example: lora-np exercises solution lora_count
    """
    print(practice.solution(name))


@exercises.command("grade")
@click.argument("submissions", type=options.READ)
@click.option(
    "-o",
    "--out",
    type=options.SHEET,
    callback=options.kept,
    default="grades.csv",
    help="Feedback goes next to it.",
)
@options.force
@lessons
@click.option("--exercise", "only", multiple=True, help="Name of an exercise. Repeatable.")
@click.option("--roster", type=options.READ, help="The class as CSV: names in the first column.")
@click.option(
    "--column", default="lora-np", help="Heading of the points in the gradebook (lora-np)."
)
@options.seed_of(help="Random seed of the questions; by default new.")
@options.each(_LIMITS)
@click.option("--jobs", type=options.JOBS, help="Number of parallel workers.")
@options.as_json
def grade_command(
    submissions: Path,
    out: Path,
    force: bool,
    lessons: tuple[int, ...],
    column: str,
    as_json: bool,
    **asked: Any,
) -> None:
    """Grade a folder of submissions, with feedback.

    Each submission runs in a process of its own.

    Example: lora-np exercises grade submissions/ -o grades.csv --lesson 1
    """
    grading.check_out(out, submissions, asked["roster"], force=force)
    asked = options.given(asked)
    if "memory" in asked:
        asked["memory"] *= 2**20
    limits = grading.Limits(**{name: asked.pop(name) for name in _LIMITS if name in asked})
    grades = grading.grade(submissions, numbers=lessons, limits=limits, progress=True, **asked)
    about = {"rng": grades.rng, "limits not enforced": grades.missing, "failures": grades.failures}
    options.show_as({**about, "grades": grades.table.records}, as_json, grades.table, written=False)
    # write files last, so that the points are shown even if a file cannot be written
    written = grades.write(out, column)
    if not as_json:
        options.show_written(written)


@exercises.command("nbgrader")
@folder
@lessons
def nbgrader_command(folder: Path, lessons: tuple[int, ...]) -> None:
    """Write a course for nbgrader, with hidden tests.

    Example: lora-np exercises nbgrader my-course
    """
    options.show_written(*grading.nbgrader(folder, lessons))
