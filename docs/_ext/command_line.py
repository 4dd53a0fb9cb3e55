"""The directive ``command-line``: a section for each command, written by the commands
themselves.
"""

import re
from typing import Any

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from lora_np.cli import app as cli


class CommandLine(SphinxDirective):
    """Sections with usage, help and options of every command, sub-commands included."""

    def run(self) -> list[nodes.Node]:
        return [
            section for command in commands(cli, "lora-np") for section in self.section(*command)
        ]

    def section(self, name: str, command: Any) -> list[nodes.Node]:
        context = command.make_context(name, [], resilient_parsing=True)
        section = nodes.section(ids=[nodes.make_id(name)], names=[name])
        section += nodes.title("", "", nodes.literal("", name))
        usage = " ".join([name, *command.collect_usage_pieces(context)])
        section += nodes.literal_block("", usage, language="text")
        for paragraph in (command.help or "").split("\n\n"):
            section += described(" ".join(paragraph.split()))
        for heading, kind in (("Arguments", "argument"), ("Options", "option")):
            parameters = [p for p in command.params if p.param_type_name == kind]
            records = filter(None, (parameter.get_help_record(context) for parameter in parameters))
            if entries := [entry(*record) for record in records]:
                section += nodes.rubric("", heading)
                section += nodes.definition_list("", *entries)
        return [section]


def commands(command: Any, name: str) -> list[tuple[str, Any]]:
    """Every command with its full name, depth first, in the order in which --help lists them."""
    found = [(name, command)]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for word in command.list_commands(context):
            found += commands(command.get_command(context, word), f"{name} {word}")
    return found


def described(text: str) -> nodes.Node:
    """An example is code, everything else is prose."""
    if not text.startswith("Example"):
        return paragraph(text)
    _, _, example = text.partition(": ")
    return nodes.literal_block("", f"$ {example}", language="console")


def paragraph(text: str) -> nodes.paragraph:
    """Prose in which options are code: typographers would make a dash of two hyphens."""
    parts = re.split(r"(--[a-z][\w-]*)", text)
    return nodes.paragraph(
        "", "", *(nodes.literal("", p) if p.startswith("--") else nodes.Text(p) for p in parts)
    )


def entry(names: str, text: str) -> nodes.definition_list_item:
    term = nodes.term("", "", nodes.literal("", names))
    return nodes.definition_list_item("", term, nodes.definition("", paragraph(text)))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
