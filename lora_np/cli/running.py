"""Run a command: its exit status, and one line on stderr if it fails."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from lora_np.cli import adapting, counting, exercising, learning, speaking

app = typer.Typer(
    name="lora-np",
    help="LoRA in plain NumPy: understand it, train it, count it, work on adapter files.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    learning.tour,
    counting.count,
    counting.plan,
    counting.errors,
    speaking.finetune,
    speaking.generate,
    learning.lab,
    adapting.inspect,
    adapting.resize,
    adapting.extract,
    adapting.combine,
    adapting.merge,
    adapting.diff,
):
    app.command()(command)
app.add_typer(exercising.group, name="exercises")


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from lora_np.version import __version__

        print(f"lora-np {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


def run(arguments: list[str]) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : list of str
        What follows ``lora-np``.

    Returns
    -------
    int
        The exit status.

    Notes
    -----
    Status 0 means success, 1 bad input, 2 bad usage, 3 "no" (adapters that differ, a model that does not
    fit), and 130 that Ctrl-C ended the command.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller, who does not want to read it
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
    """The value that the parser complains about, where its message does not show it."""
    reasons: list[dict[str, Any]] = getattr(error.__cause__, "errors", list)()
    value = repr(reasons[0]["input"]) if reasons else ""
    return f", got {value}" if value and value not in error.format_message() else ""


def fail(text: str, status: int) -> int:
    print(f"lora-np: {' '.join(text.split())}", file=sys.stderr)
    return status


def main() -> None:
    """Run the command that the process was started with, and exit with its status."""
    sys.exit(run(sys.argv[1:]))
