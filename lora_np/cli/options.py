"""Shared by the commands: options, output, checks of the files they write."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from lora_np.checks import whole_number
from lora_np.table import Table, json_text

PAGES = (".html", ".htm")
PICTURES = (".png", ".svg", ".pdf", ".eps", ".jpg", ".jpeg", ".webp")
Command = TypeVar("Command", bound=Callable[..., Any])


def output_path(context: click.Context, parameter: click.Parameter, text: str | None) -> Path | None:
    """A path to write to; an empty one would be the current directory."""
    if text == "":
        raise click.BadParameter("name what to write, got ''")
    return None if text is None else Path(text)


READ = click.Path(path_type=Path)
WRITTEN: dict[str, Any] = {"metavar": "PATH", "callback": output_path}


def possible_jobs(context: click.Context, parameter: click.Parameter, jobs: int | None) -> int | None:
    return None if jobs is None else whole_number("jobs", jobs, maximum=1000)


def whole_numbers(
    context: click.Context, parameter: click.Parameter, texts: Iterable[str]
) -> tuple[int, ...]:
    """The numbers of an option that is repeated, or given once with commas: ``--rank 8,16``."""
    found = []
    for text in parse_names(",".join(texts)):
        try:
            found.append(int(text))
        except ValueError:
            raise click.BadParameter(f"must be whole numbers such as 8 or 8,16, got {text!r}") from None
    return tuple(found)


def byte_count(context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    """Bytes from ``10MB``, ``1.5GiB`` or a plain number."""
    from lora_np.table import parse_bytes

    if text is None:
        return None
    return int(text) if text.isdecimal() else parse_bytes(parameter.human_readable_name, text)


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
out = click.option("-o", "--out", **WRITTEN, required=True, help="The directory to write.")
adapter_out = click.option(
    "-o",
    "--out",
    **WRITTEN,
    required=True,
    help="The adapter to write: a directory, or a .gguf for llama.cpp.",
)
portable = click.option(
    "--portable",
    is_flag=True,
    help="Pad every module to one rank, scale 1: all programs read its strength alike.",
)
force = click.option("--force", is_flag=True, help="Replace what is there, once the new one is complete.")
any_base = click.option(
    "--any-base", is_flag=True, help="Continue even if the bases differ or cannot be compared."
)
ranks = click.option("--rank", multiple=True, callback=whole_numbers, help="Ranks, such as 8 or 8,16.")
_targets: dict[str, Any] = {
    "callback": lambda context, parameter, text: None if text is None else parse_targets(text),
    "help": "Suffixes of names (q_proj,v_proj), all-linear, or a regular expression.",
}
targets = click.option("--targets", **_targets)
every_linear = click.option("--targets", default="all-linear", **_targets)
saved = click.option(
    "--modules-to-save",
    callback=lambda context, parameter, text: None if text is None else named_modules(text),
    help="Suffixes of modules to train in full, separated by commas.",
)
jobs = click.option(
    "--jobs",
    type=int,
    default=1,
    callback=possible_jobs,
    help="Pieces of work at a time; does not change the result.",
)


def each(kinds: Mapping[str, tuple[Any, str]]) -> Callable[[Command], Command]:
    """Decorate a command with an option for each name; it gets them as keywords, None if not given."""

    def decorate(command: Command) -> Command:
        for name, (kind, text) in reversed([*kinds.items()]):
            flag = f"--{name.replace('_', '-')}"
            if kind is bool:
                command = click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=text)(command)
            elif kind is byte_count:
                command = click.option(flag, name, callback=byte_count, help=text)(command)
            else:
                command = click.option(flag, name, type=kind, help=text)(command)
        return command

    return decorate


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in values.items() if value is not None and value != ()}


def show(*tables: Table) -> None:
    """Tables for people."""
    for table in tables:
        print(table, end="\n\n")


def show_written(written: list[Path], kept: list[Path]) -> None:
    for path in written:
        print(f"Written: {path}")
    for path in kept:
        print(f"Kept: {path}")


def show_as(found: Any, as_json: bool, *tables: Table) -> None:
    """``found`` for programs, or its ``tables`` for people: by default, ``found`` itself."""
    if as_json:
        print(found.to_json())
    else:
        show(*(tables or (found,)))


def print_json(content: Any) -> None:
    print(json_text(content))


def check_target(
    option: str, path: Path | None, endings: Collection[str], inside: Path | None = None
) -> None:
    """Refuse, before any work is done, a target that could not be written or would overwrite another file."""
    if path is None:
        return
    if path.name == "" or path.is_dir():
        raise click.BadParameter(f"{option} must name a file, got the directory {str(path)!r}")
    if not path.parent.is_dir():
        raise click.BadParameter(f"{option}: the directory {str(path.parent)!r} does not exist")
    if inside is not None and inside.is_file():
        inside = inside.parent
    # matplotlib chooses the format by the ending; a page may have any name that is free
    if path.suffix.lower() not in endings and (endings == PICTURES or path.exists()):
        raise click.BadParameter(f"{option} must end in {', '.join(endings)}, got {str(path)!r}")
    if path.exists() and (
        not path.is_file() or (inside is not None and path.resolve().is_relative_to(inside.resolve()))
    ):
        raise click.BadParameter(f"{option} must not replace {str(path)!r}; name another file")


def parse_targets(text: str) -> str | list[str]:
    r"""Targets in a command line: ``all-linear``, names with commas, or a regular expression.

    Text that contains anything but letters, digits, ``_``, ``-``, ``.`` and commas is a regular expression.

    Parameters
    ----------
    text : str
        As typed.

    Returns
    -------
    str or list of str
        What ``targets`` takes.

    Examples
    --------
    >>> parse_targets("q_proj,v_proj"), parse_targets("all-linear"), parse_targets(r".*\.[qv]_proj")
    (['q_proj', 'v_proj'], 'all-linear', '.*\\.[qv]_proj')
    """
    if text.lower() == "all-linear" or re.search(r"[^\w\-.,\s]", text):
        return text
    return parse_names(text)


def parse_names(text: str) -> list[str]:
    """Names from text in which commas separate them.

    Parameters
    ----------
    text : str
        As typed; spaces are ignored.

    Returns
    -------
    list of str
        The names.

    Examples
    --------
    >>> parse_names("lm_head, embed_tokens")
    ['lm_head', 'embed_tokens']
    """
    return [name.strip() for name in text.split(",") if name.strip()]


def named_modules(text: str) -> list[str]:
    if not (names := parse_names(text)):
        raise click.BadParameter(f"must name a module, got {text!r}")
    return names


def render(tables: Iterable[Table], form: str) -> str:
    """Tables as one text: ``"json"`` (an object, or a list of them), ``"markdown"`` or ``"csv"``.

    Parameters
    ----------
    tables : iterable of Table
        One or more.
    form : {"json", "markdown", "csv"}
        The format.

    Returns
    -------
    str
        The text of all tables.

    Examples
    --------
    >>> from lora_np.accounting import count_matrix
    >>> print(render([count_matrix(100, 120, rank=8).table], "csv"), end="")
    update,rank,trainable,of full,times fewer,base,total
    full,,12000,1.0,1.0,12000,12000
    LoRA,8,1760,0.14666666666666667,6.818181818181818,12000,13760
    """
    if form == "json":
        objects = [table.to_json() for table in tables]
        return objects[0] if len(objects) == 1 else "[" + ",\n".join(objects) + "]"
    return "\n".join(table.to_csv() if form == "csv" else table.to_markdown() for table in tables)
