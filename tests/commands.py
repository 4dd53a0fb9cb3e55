"""Every command of the command line, with the words that call it, and what it prints."""

import contextlib
import io
import subprocess

import click

from lora_np.cli import app, run


def every_command(command=app, words="lora-np"):
    if not isinstance(command, click.Group):
        return [(words, command)]
    context = click.Context(command)
    return [
        found
        for word in command.list_commands(context)
        for found in every_command(command.get_command(context, word), f"{words} {word}")
    ]


def said(*arguments):
    """Run a command without a process, which takes longer to start than most commands take to run."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run(list(arguments))
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def assert_one_line(result, status):
    assert result.returncode == status, result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("lora-np: ")
    assert "Traceback" not in result.stderr
