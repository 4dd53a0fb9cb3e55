"""``lora-np ...``: each command parses its arguments, calls one function and prints what it returns."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_np.checks import whole_number
from lora_np.files import whole

app = typer.Typer(
    name="lora-np",
    help="LoRA in plain NumPy: understand it, train it, count it, exchange it.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

PAGES = (".html", ".htm")
PICTURES = (".png", ".svg", ".pdf", ".eps", ".jpg", ".jpeg", ".webp")


def possible_jobs(jobs: int | None) -> int | None:
    return None if jobs is None else whole_number("jobs", jobs, maximum=1000)


AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Out = Annotated[Path, typer.Option("-o", "--out", help="The directory to make.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what stands there, once the new one is whole.")]
Jobs = Annotated[
    int,
    typer.Option(callback=possible_jobs, help="How many pieces of work at a time; the result is the same."),
]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from lora_np import __version__

        print(f"lora-np {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def tour(
    out: Annotated[Path, typer.Option(help="Folder for figures, files and report.html.")] = Path(
        "lora-np-tour"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="A quarter of the data and of the steps.")] = False,
    seed: Annotated[int, typer.Option(help="Of all randomness.")] = 0,
    as_json: AsJSON = False,
) -> None:
    """Adapt a real model with LoRA and show what it saved: the whole story in one run.

    Example: lora-np tour --out my-tour
    """
    from lora_np.course.story import tour as run_tour

    found = run_tour(out, quick=quick, seed=seed)
    if as_json:
        print_json(found.to_dict())
        return
    show(found.updates_table())
    show(found.advantages_table())
    print(f"Report with figures: {found.report}")


@app.command()
def count(
    source: Annotated[
        str, typer.Argument(help="100x120, a preset, config.json, *.safetensors, or a directory with one.")
    ] = "",
    rank: Annotated[
        list[int] | None, typer.Option(help="Rank of the adapter; may be given several times.")
    ] = None,
    targets: Annotated[
        str | None, typer.Option(help="Ends of names (q_proj,v_proj), all-linear, or a regular expression.")
    ] = None,
    modules_to_save: Annotated[
        str | None, typer.Option(help="Ends of names of modules trained in full, with commas between.")
    ] = None,
    dora: Annotated[bool, typer.Option("--dora", help="Count DoRA's magnitudes too.")] = False,
    experts: Annotated[str, typer.Option(help="Convention for experts: peft or per-expert.")] = "peft",
    by: Annotated[str | None, typer.Option(help="List what is adapted, by module or by kind.")] = None,
    memory: Annotated[bool, typer.Option("--memory", help="Estimate the memory of training.")] = False,
    batch: Annotated[int, typer.Option(help="Sequences in a step, for --memory.")] = 1,
    sequence: Annotated[int, typer.Option(help="Tokens in a sequence, for --memory.")] = 512,
    as_json: AsJSON = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    catalogue: Annotated[bool, typer.Option("--list", help="List presets and families.")] = False,
) -> None:
    """What a LoRA costs: parameters, and memory if asked, of a matrix or of a whole model.

    Example: lora-np count llama-3-8b --rank 8 --rank 16 --targets all-linear --by kind --memory
    """
    from lora_np import accounting

    if catalogue and source:
        raise typer.BadParameter(f"--list takes no SOURCE, got {source!r}")
    saved = accounting.parse_names(modules_to_save or "")
    if modules_to_save is not None and not saved:
        raise typer.BadParameter(f"--modules-to-save must name a module, got {modules_to_save!r}")
    if catalogue:
        tables = [accounting.preset_table(), accounting.family_table()]
    elif source:
        tables = accounting.count_tables(
            source,
            ranks=rank or [],
            targets=accounting.parse_targets(targets) if targets is not None else None,
            modules_to_save=saved,
            dora=dora,
            experts=experts,
            by=by,
            memory=memory,
            batch=batch,
            sequence=sequence,
        )
    else:
        raise typer.BadParameter("name a SOURCE, or ask for --list")
    asked = {"json": as_json, "markdown": as_markdown, "csv": as_csv}
    forms = [form for form, wanted in asked.items() if wanted]
    if len(forms) > 1:
        raise typer.BadParameter(f"choose one of --{' and --'.join(forms)}")
    if forms:
        print(accounting.render(tables, forms[0]))
    else:
        for table in tables:
            show(table)


@app.command()
def errors(
    matrix: Annotated[str, typer.Argument(help="FILE.npy, or FILE.safetensors:TENSOR; only that is read.")],
    norm: Annotated[str, typer.Option(help="fro, spectral or nuclear.")] = "fro",
    tolerance: Annotated[float, typer.Option(help="The relative error that is good enough.")] = 0.01,
    plot: Annotated[Path | None, typer.Option(help="Draw the curve into this file.")] = None,
    as_json: AsJSON = False,
) -> None:
    """The error of the best approximation of each rank, and the smallest rank that is good enough.

    Example: lora-np errors adapter.safetensors:layers.0.q_proj.lora_B.weight --tolerance 0.05
    """
    from lora_np.accounting.errors import rank_errors_of

    check_target("--plot", plot, PICTURES)
    found = rank_errors_of(matrix, norm=norm, tolerance=tolerance)  # type: ignore[arg-type]
    if plot is not None:
        from matplotlib.figure import Figure

        from lora_np.plots import rank_error_curves

        figure = Figure(figsize=(6, 3.8), layout="constrained")
        rank_error_curves({Path(matrix).name: found.errors}, tolerance=tolerance, ax=figure.add_subplot())
        with whole(plot) as stage:
            figure.savefig(stage, dpi=150)
    if as_json:
        print_json(found.to_dict())
    else:
        show(found.table())


@app.command()
def lab(
    folder: Annotated[Path, typer.Argument(help="Where the lessons are copied to.")] = Path(
        "lora-np-lessons"
    ),
    browser: Annotated[bool, typer.Option(help="Open a browser window, or print the address only.")] = True,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="By default the first free one.")] = None,
) -> None:
    """Copy the lessons beside you, never over your own work, and open JupyterLab (extra: notebooks).

    Example: lora-np lab --no-browser
    """
    from lora_np.course.notebooks import copy_lessons, open_lab

    new, kept = copy_lessons(folder)
    print(f"{folder}: {len(new)} lessons copied, {len(kept)} left as they were", flush=True)
    open_lab(folder, browser=browser, port=port)


@app.command()
def inspect(
    adapter: Annotated[Path, typer.Argument(help="A directory as PEFT writes it.")],
    base: Annotated[Path | None, typer.Option(help="The base model's directory, to compare with.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw strength and spectrum into this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with figure and table.")] = None,
    jobs: Jobs = 1,
    as_json: AsJSON = False,
) -> None:
    """What an adapter holds, module by module: strength, spectrum, waste, damage.

    Example: lora-np inspect my-adapter --base llama --html report.html
    """
    from lora_np import adapters

    check_target("--plot", plot, PICTURES, inside=adapter)
    check_target("--html", html, PAGES, inside=adapter)
    found = adapters.inspect(adapter, base=base, jobs=jobs, progress=True)
    if plot is not None:
        with whole(plot) as stage:
            found.figure().savefig(stage, dpi=150)
    if html is not None:
        with whole(html) as stage:
            stage.write_text(found.to_html(), encoding="utf-8")
    show_as(found.table, as_json)


@app.command()
def resize(
    adapter: Annotated[Path, typer.Argument(help="A directory as PEFT writes it.")],
    out: Out,
    rank: Annotated[int | None, typer.Option(help="The same rank everywhere.")] = None,
    energy: Annotated[float | None, typer.Option(help="Share of its squared norm that each keeps.")] = None,
    error: Annotated[float | None, typer.Option(help="Relative error that each may have.")] = None,
    size: Annotated[int | None, typer.Option("--bytes", help="Size of the file, shared out.")] = None,
    total_rank: Annotated[int | None, typer.Option(help="Sum of all ranks, shared out.")] = None,
    jobs: Jobs = 1,
    force: Force = False,
    as_json: AsJSON = False,
) -> None:
    """An adapter at other ranks, each module the best approximation of its rank.

    Example: lora-np resize my-adapter --energy 0.99 -o small-adapter
    """
    from lora_np import adapters

    goal = one_goal(rank=rank, energy=energy, error=error, bytes=size, total_rank=total_rank)
    show_as(adapters.resize(adapter, out, **goal, jobs=jobs, force=force, progress=True), as_json)


@app.command()
def extract(
    base: Annotated[Path, typer.Argument(help="The base model's directory.")],
    tuned: Annotated[Path, typer.Argument(help="The tuned model's directory.")],
    out: Out,
    rank: Annotated[int | None, typer.Option(help="The same rank everywhere.")] = None,
    energy: Annotated[float | None, typer.Option(help="Share of its squared norm that each keeps.")] = None,
    size: Annotated[int | None, typer.Option("--bytes", help="Size of the file, shared out.")] = None,
    save_others: Annotated[
        bool, typer.Option("--save-others", help="Keep what can not carry a LoRA as modules_to_save.")
    ] = False,
    jobs: Jobs = 1,
    force: Force = False,
    as_json: AsJSON = False,
) -> None:
    """The difference of two checkpoints as a LoRA.

    Example: lora-np extract llama my-llama --rank 16 -o my-adapter
    """
    from lora_np import adapters

    goal = one_goal(rank=rank, energy=energy, bytes=size)
    options: dict[str, Any] = {"save_others": save_others, "jobs": jobs, "force": force}
    show_as(adapters.extract(base, tuned, out, **goal, **options, progress=True), as_json)


@app.command()
def combine(
    sources: Annotated[
        list[str], typer.Argument(metavar="ADAPTER[=WEIGHT]...", help="Weights are 1 if left out.")
    ],
    out: Out,
    method: Annotated[str, typer.Option(help="cat, linear (adds up factors, not updates) or svd.")] = "svd",
    rank: Annotated[int | None, typer.Option(help="For svd; by default the largest of all.")] = None,
    jobs: Jobs = 1,
    force: Force = False,
    as_json: AsJSON = False,
) -> None:
    """One adapter for the weighted sum of several.

    Example: lora-np combine style=0.7 task -o both --method cat
    """
    from lora_np import adapters

    paths, weights = zip(*map(weighted, sources), strict=True)
    options: dict[str, Any] = {"method": method, "rank": rank, "jobs": jobs, "force": force}
    show_as(adapters.combine(paths, out, weights=weights, **options, progress=True), as_json)


@app.command()
def merge(
    base: Annotated[Path, typer.Argument(help="The base model's directory.")],
    adapter: Annotated[Path, typer.Argument(help="A directory as PEFT writes it.")],
    out: Out,
    jobs: Jobs = 1,
    force: Force = False,
    as_json: AsJSON = False,
) -> None:
    """A base and an adapter in one checkpoint, which transformers loads as it is.

    Example: lora-np merge llama my-adapter -o my-llama
    """
    from lora_np import adapters

    show_as(adapters.merge(base, adapter, out, jobs=jobs, force=force, progress=True), as_json)


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(help="A directory as PEFT writes it.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    tolerance: Annotated[float, typer.Option(help="Relative difference that counts as none.")] = 1e-5,
    jobs: Jobs = 1,
    as_json: AsJSON = False,
) -> None:
    """Whether two adapters do the same thing: as maps, not as factors. Exit status 3 if not.

    Example: lora-np diff my-adapter small-adapter --tolerance 0.05
    """
    from lora_np import adapters

    found = adapters.diff(first, second, tolerance=tolerance, jobs=jobs, progress=True)
    show_as(found.table, as_json)
    if not found.same:
        raise typer.Exit(3)


exercises_app = typer.Typer(help="Exercises that grade themselves, for students and teachers.")
app.add_typer(exercises_app, name="exercises")


@exercises_app.callback(invoke_without_command=True)
def _exercises(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


Lessons = Annotated[list[int] | None, typer.Option("--lesson", help="Number of a lesson; may be repeated.")]


@exercises_app.command("list")
def exercises_list(lesson: Lessons = None, as_json: AsJSON = False) -> None:
    """All exercises, with their points.

    Example: lora-np exercises list --lesson 1
    """
    from lora_np.exercises.course import overview

    table = overview(lesson or ())
    if as_json:
        print_json(table.records)
    else:
        show(table)


@exercises_app.command("start")
def exercises_start(
    folder: Annotated[Path, typer.Argument(help="Where to write; files that are there stay as they are.")],
    lesson: Lessons = None,
) -> None:
    """Write the exercises of each lesson, as a notebook and as a script: edit the one you like.

    Example: lora-np exercises start my-exercises --lesson 1
    """
    from lora_np.exercises.export import start

    show_written(*start(folder, lesson or ()))
    print("Then: lora-np exercises check FILE")


@exercises_app.command("check")
def exercises_check(
    file: Annotated[Path, typer.Argument(help="A notebook or script.")],
    names: Annotated[
        list[str] | None, typer.Option("--exercise", help="Name of a function; may be repeated.")
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Points, and the law that each wrong answer breaks. Exit status 1 unless everything is right.

    Example: lora-np exercises check my-exercises/01-see-rank.py
    """
    from lora_np.exercises.course import exercise
    from lora_np.grading.submissions import check_file

    report = check_file(file, [exercise(name) for name in names or ()])
    if as_json:
        print_json(report.to_dict())
    else:
        print(report)
    if not report.passed:
        raise typer.Exit(1)


@exercises_app.command("grade")
def exercises_grade(
    submissions: Annotated[
        Path, typer.Argument(help="A folder with a file, or a folder of files, for each student.")
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Grades; feedback and a figure go beside it.")
    ] = Path("grades.csv"),
    lesson: Lessons = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the questions; by default a new one each time.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="For one call of a student's function.")] = 10.0,
    memory: Annotated[int, typer.Option(help="Megabytes for each submission.")] = 1024,
    jobs: Annotated[
        int | None,
        typer.Option(callback=possible_jobs, help="Submissions at the same time; by default all processors."),
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Grade a folder of submissions, each in a process of its own: points, feedback, a figure of the class.

    Example: lora-np exercises grade submissions/ -o grades.csv --lesson 1
    """
    from lora_np.grading.classroom import check_out, grade
    from lora_np.grading.confine import Limits

    def say(student: str) -> None:
        if sys.stderr.isatty():
            print(f"graded: {student}", file=sys.stderr)

    check_out(out, submissions)
    limits = Limits(seconds=seconds, memory=whole_number("memory", memory, maximum=2**20) * 2**20)
    grades = grade(submissions, numbers=lesson or (), seed=seed, limits=limits, jobs=jobs, progress=say)
    if as_json:
        print_json(
            {"seed": grades.seed, "limits not enforced": grades.missing, "grades": grades.table().records}
        )
    else:
        show(grades.table())
    written = grades.write(out)  # last: whatever becomes of the files, the points are on the screen
    if not as_json:
        show_written(written, [])


@exercises_app.command("nbgrader")
def exercises_nbgrader(
    folder: Annotated[Path, typer.Argument(help="Where to write; files that are there stay as they are.")],
    lesson: Lessons = None,
) -> None:
    """Write a course for nbgrader, with solutions and hidden tests (from a checkout, which has them).

    Example: lora-np exercises nbgrader my-course
    """
    from lora_np.exercises.export import nbgrader

    show_written(*nbgrader(folder, lesson or ()))


# What all commands share


def show(table: Any) -> None:
    """A table for people: by rich in a terminal, as aligned text where the output goes elsewhere."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(table, crop=False)
    else:
        print(table, end="\n\n")


def show_written(written: list[Path], kept: list[Path]) -> None:
    for path in written:
        print(f"Written: {path}")
    for path in kept:
        print(f"Kept as it is: {path}")


def show_as(table: Any, as_json: bool) -> None:
    if as_json:
        print(table.to_json())
    else:
        show(table)


def check_target(
    option: str, path: Path | None, endings: Collection[str], inside: Path | None = None
) -> None:
    """Refuse, before any work is done, a page or a picture that could not be written or would cost a file."""
    if path is None:
        return
    if path.name == "" or path.is_dir():
        raise typer.BadParameter(f"{option} must name a file, got the directory {str(path)!r}")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"{option}: there is no directory {str(path.parent)!r} to write into")
    # matplotlib chooses the format by the ending; a page may have any name that is free
    if path.suffix.lower() not in endings and (endings == PICTURES or path.exists()):
        raise typer.BadParameter(f"{option} must end in {', '.join(endings)}, got {str(path)!r}")
    if path.exists() and (
        not path.is_file() or (inside is not None and path.resolve().is_relative_to(inside.resolve()))
    ):
        raise typer.BadParameter(f"{option} must not replace {str(path)!r}; name another file")


def one_goal(**goals: Any) -> dict[str, Any]:
    """The one goal that was given."""
    chosen = {name: goal for name, goal in goals.items() if goal is not None}
    if len(chosen) != 1:
        options = [f"--{name.replace('_', '-')}" for name in goals]
        raise typer.BadParameter(f"give one of {', '.join(options[:-1])} and {options[-1]}")
    return chosen


def weighted(source: str) -> tuple[str, float]:
    """A path and its weight, from ``path=0.5`` or ``path``."""
    path, separator, weight = source.rpartition("=")
    if not separator or Path(source).exists():
        return source, 1.0
    try:
        return path, float(weight)
    except ValueError:
        raise typer.BadParameter(f"the weight of {path} must be a number, got {weight!r}") from None


def print_json(content: Any) -> None:
    print(json.dumps(content, indent=2, ensure_ascii=False))


def run(arguments: list[str]) -> int:
    """Run one command; its exit status: 0, 1 for bad input, 2 for bad usage, 3 for "no", 130 after Ctrl-C."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us, who wants to read nothing
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    try:
        status = app(arguments, prog_name="lora-np", standalone_mode=False) or 0
        # typer turns Ctrl-C into this status, and says nothing
        return fail("interrupted", 130) if status == 130 else status
    except (ValueError, TypeError, OSError, ArithmeticError, ImportError) as error:
        return fail(message(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        return fail("interrupted", 130)
    except Exception as error:
        # What the command line parser raises; its class lives in click or inside typer, by version.
        if not hasattr(error, "format_message"):
            raise
        return fail(error.format_message() + given(error), 2)


def message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def given(error: Any) -> str:
    """The value that the parser complains of, where its message leaves it out."""
    reasons: list[dict[str, Any]] = getattr(error.__cause__, "errors", list)()
    value = repr(reasons[0]["input"]) if reasons else ""
    return f", got {value}" if value and value not in error.format_message() else ""


def fail(text: str, status: int) -> int:
    print(f"lora-np: {' '.join(text.split())}", file=sys.stderr)
    return status


def main() -> None:
    """Run the command that the process was started with, and exit with its status."""
    sys.exit(run(sys.argv[1:]))
