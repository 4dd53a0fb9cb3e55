"""``lora-np ...``: each command parses its arguments, calls one function and prints what it returns."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="lora-np",
    help="LoRA in plain NumPy: understand it, train it, count it, exchange it.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


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
    from lora_np.tour import tour as run_tour

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

    if catalogue:
        tables = [accounting.preset_table(), accounting.family_table()]
    elif source:
        tables = accounting.count_tables(
            source,
            ranks=rank or [],
            targets=accounting.parse_targets(targets) if targets else None,
            modules_to_save=accounting.parse_names(modules_to_save or ""),
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

    found = rank_errors_of(matrix, norm=norm, tolerance=tolerance)  # type: ignore[arg-type]
    if plot is not None:
        from matplotlib.figure import Figure

        from lora_np.plots import rank_error_curves

        figure = Figure(figsize=(6, 3.8), layout="constrained")
        rank_error_curves({Path(matrix).name: found.errors}, tolerance=tolerance, ax=figure.add_subplot())
        figure.savefig(plot, dpi=150)
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
    from lora_np.lessons import copy_lessons, open_lab

    new, kept = copy_lessons(folder)
    print(f"{folder}: {len(new)} lessons copied, {len(kept)} left as they were", flush=True)
    open_lab(folder, browser=browser, port=port)


# What all commands share


def show(table: Any) -> None:
    """A table for people: by rich in a terminal, as aligned text where the output goes elsewhere."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(table)
    else:
        print(table, end="\n\n")


def print_json(content: Any) -> None:
    print(json.dumps(content, indent=2, ensure_ascii=False))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit status: 0, 1 for bad input, 2 for bad usage, 130 after Ctrl-C."""
    try:
        return app(arguments, prog_name="lora-np", standalone_mode=False) or 0
    except (ValueError, TypeError, OSError, ArithmeticError, ImportError) as error:
        return fail(message(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        return fail("interrupted", 130)
    except Exception as error:
        # What the command line parser raises; its class lives in click or inside typer, by version.
        if not hasattr(error, "format_message"):
            raise
        return fail(error.format_message() + given(error, arguments), 2)


def message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def given(error: Any, arguments: list[str]) -> str:
    """The value of the option that the parser complains of, where its message leaves it out."""
    for option in getattr(getattr(error, "param", None), "opts", []):
        if option in arguments[:-1]:
            value = repr(arguments[arguments.index(option) + 1])
            return "" if value in error.format_message() else f", got {value}"
    return ""


def fail(text: str, status: int) -> int:
    print(f"lora-np: {' '.join(text.split())}", file=sys.stderr)
    return status


def main() -> None:
    """The entry point of the command line."""
    sys.exit(run(sys.argv[1:]))
