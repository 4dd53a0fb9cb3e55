"""Every command of the command line, with the words that call it."""

import click

from lora_np.cli import app


def every_command(command=app, words="lora-np"):
    if not isinstance(command, click.Group):
        return [(words, command)]
    context = click.Context(command)
    return [
        found
        for word in command.list_commands(context)
        for found in every_command(command.get_command(context, word), f"{words} {word}")
    ]
