"""Run a command, and return its exit status; print one line on stderr if it fails."""

from __future__ import annotations

import ast
import os
import sys
import traceback
import warnings
from importlib import import_module
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from lora_np import checks
from lora_np.checks import brief, close_names
from lora_np.cli.output import printable_output
from lora_np.version import __version__

# Maps each file of `lora_np.cli` to its commands. Running a command loads only its own file.
FILES = {
    "course": ("tour", "puzzles", "lab", "claims", "exercises"),
    "costs": ("count", "plan", "errors", "capacity"),
    "language": ("finetune", "generate"),
    "evaluation": ("evaluate",),
    "baking": ("bake",),
    "adapters": (
        "inspect", "resize", "extract", "overlap", "combine", "merge", "diff", "convert", "check",
        "repair",
    ),
}  # fmt: skip
COMMANDS = {name: file for file, names in FILES.items() for name in names}

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


REPORT = "this is a fault of lora-np: please report it with the command"


class Commands(click.Group):
    """The group of commands, each of which is loaded only when it is called."""

    def list_commands(self, context: click.Context) -> list[str]:
        """List the commands in the order of `COMMANDS`."""
        return [*COMMANDS]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Load a command, or raise an error with close names; return None for an option."""
        if name.startswith("-"):
            return None
        if name not in COMMANDS:
            raise click.UsageError(f"no such command {name!r}{close_names(name, COMMANDS)}")
        command: click.Command = getattr(import_module(f"lora_np.cli.{COMMANDS[name]}"), name)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([*summaries().items()])

    def shell_complete(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete an option or the name of a command, without loading any command."""
        return [
            *(
                CompletionItem(n, help=text)
                for n, text in summaries().items()
                if n.startswith(incomplete)
            ),
            *click.Command.shell_complete(self, context, incomplete),
        ]


def summaries() -> dict[str, str]:
    """Map each command to the first line of its docstring, without importing the command."""
    texts = {}
    for file in FILES:
        source = Path(__file__).with_name(f"{file}.py").read_text(encoding="utf-8")
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef):
                texts[node.name] = (ast.get_docstring(node) or "").partition("\n")[0]
    return {name: texts[name] for name in COMMANDS}


@click.command(cls=Commands, invoke_without_command=True, context_settings=SETTINGS)
@click.version_option(__version__, message="%(prog)s %(version)s", help="Print the version.")
@click.pass_context
def app(context: click.Context) -> None:
    """LoRA in plain NumPy: learn it, train it, count its cost, and work on adapter files."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def run(arguments: list[str]) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : list of str
        The words after ``lora-np``.

    Returns
    -------
    int
        The exit status.

    Notes
    -----
    Status 0 means success; 1, an error in a file or during a run; 2, an error in the command, such
    as a value out of range; 3, the answer "no" (adapters that differ, a model that does not fit);
    and 130, that Ctrl-C ended the command.

    Examples
    --------
    >>> run(["count", "100x120", "--rank", "8"])
    100 x 120
    update  rank  trainable  % of full  reduction    base   total
    ------  ----  ---------  ---------  ---------  ------  ------
    full             12,000     100.00       1.00  12,000  12,000
    LoRA       8      1,760      14.67       6.82  12,000  13,760
    Break-even: LoRA has fewer parameters than a full update up to rank 54.
    <BLANKLINE>
    0
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the stream was closed when Python started
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    with printable_output(), warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = note
        try:
            return (
                app.main(arguments, prog_name="lora-np", standalone_mode=False, obj=arguments) or 0
            )
        except click.Abort:
            return fail("interrupted", 130)
        except click.ClickException as error:
            return fail(error.format_message(), 2)
        except (ValueError, TypeError, OSError, ArithmeticError, ImportError) as error:
            # an error raised in `checks` is about a value that the user typed: exit with status 2
            place = traceback.extract_tb(error.__traceback__)[-1].filename
            of_value = place == checks.__file__ and not isinstance(error, ImportError)
            return fail(message(error), 2 if of_value else 1)
        except MemoryError:
            return fail("not enough memory", 1)
        except Exception as error:  # a bug in lora-np: ask for a report, without a traceback
            return fail(unforeseen(error), 1)


def message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def unforeseen(error: Exception) -> str:
    """Describe an error that no command should raise, with file and line for a report."""
    *_, frame = traceback.extract_tb(error.__traceback__)
    kind = type(error).__name__
    place = f"{Path(frame.filename).name}, line {frame.lineno}"
    return f"unexpected {kind} in {place}: {brief(str(error), 300)}; {REPORT}"


def fail(text: str, status: int) -> int:
    print(f"lora-np: {' '.join(text.split())}", file=sys.stderr)
    return status


def note(message: Warning | str, *_: object, **__: object) -> None:
    fail(f"warning: {message}", 0)


def main() -> None:
    """Run the command that the process was started with, and exit with its status."""
    sys.exit(run(sys.argv[1:]))
