"""Define the options, output and file checks that commands share."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field
from functools import partial
from mimetypes import types_map
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import click

from lora_np import checks
from lora_np.checks import choice, respelled
from lora_np.files import write_figure, write_text
from lora_np.models import matcher
from lora_np.settings import settings_of
from lora_np.table import Table, json_text, one_line, parse_bytes

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

PICTURES = (".png", ".svg", ".pdf", ".eps", ".jpg", ".jpeg", ".webp")
# the name of a new directory must not end in one of these file extensions
FILES = {*types_map, ".gguf", ".safetensors", ".jsonl", ".npy", ".npz", ".ipynb"}
# maps names that other programs use, in lower case, to lora_np's names
ALIASES = {
    "adamw_torch": "adamw", "paged_adamw_32bit": "paged_adamw", "4bit": "nf4", "8bit": "int8",
    "all_linear": "all-linear",
}  # fmt: skip
Command = TypeVar("Command", bound=Callable[..., None])
T = TypeVar("T")
Value = TypeVar("Value")


class Parsed(click.ParamType, Generic[T]):  # type: ignore[type-arg]  # generic in newer click
    """A click option type that parses values with a given function."""

    def __init__(self, parse: Callable[[str], T], name: str = "text") -> None:
        self.parse, self.name = parse, name

    def convert(
        self, value: str | T, param: click.Parameter | None, ctx: click.Context | None
    ) -> T:
        """Parse a string; return any other value, such as a default, unchanged."""
        return self.parse(value) if isinstance(value, str) else value


# `Kind` is the type of an option. `Kinds` maps an option's name to its type and help text.
Kind: TypeAlias = "type[int | float | str] | Parsed[Any] | click.IntRange"
Kinds = Mapping[str, tuple[Kind, str]]


def one_of(name: str, choices: tuple[str, ...]) -> Parsed[str]:
    """Return an option type for one of several words; ignore case, and accept other spellings."""
    return Parsed(lambda text: choice(name, canonical(text), choices))


def canonical(text: str) -> str:
    """Return lora_np's spelling of a word, in lower case; print the spelling if it differs."""
    name = respelled(ALIASES.get(text.lower(), text))
    if name != text.lower():
        click.echo(f"{text}: read as {name}", err=True)
    return name


def output_path(text: str) -> Path:
    """Convert a string to a path; raise an error if nothing can be written there."""
    if not text.strip("/"):
        raise click.BadParameter(f"name what to write, got {text!r}")
    path = Path(text)
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise click.BadParameter(f"{str(above)!r} is not a directory to write {path.name} into")
    return path


def whole_numbers(
    context: click.Context, option: click.Parameter, texts: Iterable[str]
) -> tuple[int, ...]:
    """Parse whole numbers from a repeated option or from one with commas, as in ``--rank 8,16``."""
    text = ",".join(texts)
    try:
        numbers = tuple(int(number) for number in text.split(",") if number.strip())
    except ValueError:
        raise click.BadParameter(f"must be whole numbers such as 8 or 8,16, got {text!r}") from None
    # check only ranks: a lesson can have the number 0, and is checked when it is looked up
    return checks.whole_numbers("rank", numbers) if option.name == "rank" else numbers


def new_file(endings: tuple[str, ...], text: str) -> Path:
    """Convert a text to the path of a new file; raise an error for a wrong extension."""
    path = output_path(text)
    if path.name == "" or path.is_dir():
        raise click.BadParameter(f"must name a file, got the directory {str(path)!r}")
    if endings and path.suffix.lower() not in endings:
        raise click.BadParameter(f"must end in {', '.join(endings)}, got {str(path)!r}")
    return path


def new_folder(files: tuple[str, ...], text: str) -> Path:
    """Convert a text to the path of a new directory, or of a file with one of the extensions."""
    path = output_path(text)
    if path.suffix.lower() in FILES - {*files}:
        wanted = " or a .gguf file" if files else ""
        raise click.BadParameter(f"must name a directory{wanted}, got {str(path)!r}")
    return path


def kept(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """Return the path to write to; raise an error if it exists and ``--force`` was not given."""
    if path is None:
        return None
    if os.path.lexists(path) and not context.meta.get("force"):
        raise click.BadParameter(f"{str(path)!r} already exists; pass --force to replace it")
    context.meta.setdefault("written", []).append(path)
    return path


def check_place(out: Path) -> None:
    """Raise an error, before training, if the trained adapter cannot be written to ``out``."""
    if out.suffix == ".safetensors":
        raise ValueError(f"{out}: a file for image models; name a directory or a .gguf file")
    if out.is_dir() and any(out.iterdir()) and not (out / "adapter_config.json").is_file():
        raise ValueError(f"{out} holds no adapter, and so is not replaced")


def noted(context: click.Context, option: click.Parameter, force: bool) -> bool:
    """Record ``--force`` for the callbacks of options that name files."""
    context.meta["force"] = force
    return force


def byte_count(text: str) -> int:
    """Parse a number of bytes from ``10MB``, ``1.5GiB`` or a plain number."""
    return int(text) if text.isdecimal() else parse_bytes("budget", text)


def parse_targets(text: str) -> str | list[str]:
    """Parse ``all-linear``, comma-separated names, or a regular expression."""
    if canonical(text) == "all-linear":
        return "all-linear"
    if re.search(r"[^\w\-.,\s]", text):
        matcher(text)  # raise an error if the expression is invalid
        return text
    return parse_names(text)


def parse_names(text: str) -> list[str]:
    """Parse comma-separated names of modules."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise click.BadParameter(f"must name a module, got {text!r}")
    return names


READ = click.Path(path_type=Path)
BYTES, WORD = Parsed(byte_count), Parsed(str.lower)
PICTURE, PAGE, SHEET, SCRIPT, FILE = (
    Parsed(partial(new_file, endings), "path")
    for endings in (PICTURES, (".html",), (".csv",), (".py",), ())
)
FOLDER = Parsed(partial(new_folder, ()), "path")
ADAPTER = Parsed(partial(new_folder, (".gguf", ".safetensors")), "path")

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
_out = partial(click.option, "-o", "--out", type=ADAPTER, callback=kept)
adapter_out = _out(required=True, help="The directory or .gguf file to write.")
trained_out = _out(help="A directory for PEFT, or a .gguf for llama.cpp.")
portable = click.option(
    "--portable", is_flag=True, help="One rank, scale 1: all programs interpret it identically."
)
_force = partial(
    click.option, "--force", is_flag=True, is_eager=True, callback=noted,
    help="Replace what is there, once the new one is complete.",
)  # fmt: skip
force = _force()
force_files = _force(expose_value=False)  # for commands whose functions take no ``force``
any_base = click.option(
    "--any-base", is_flag=True, help="Accept an unknown or different base model."
)
ranks = click.option(
    "--rank", multiple=True, callback=whole_numbers, help="Rank, or ranks, such as 8 or 8,16."
)
_targets = partial(
    click.option, "--targets", type=Parsed(parse_targets),
    help="Modules to adapt: q_proj,v_proj, all-linear, or a regular expression.",
)  # fmt: skip
targets, every_linear = _targets(), _targets(default="all-linear")
saved = click.option(
    "--modules-to-save", type=Parsed(parse_names), help="Modules to train in full, such as lm_head."
)
quantised = click.option(
    "--quantised", is_flag=True, help="Keep quantised weights quantised in memory."
)
data_format = click.option(
    "--format", help="jsonl, csv or text; by default detected from the first line."
)
seed_of = partial(click.option, "--seed", "rng", type=click.IntRange(0))
seed = seed_of(default=0, help="Random seed (0).")
JOBS = click.IntRange(1, 1000)
jobs = click.option("--jobs", type=JOBS, default=1, help="Number of parallel workers.")
plot = click.option(
    "--plot",
    type=PICTURE,
    callback=kept,
    help="Draw a figure to this file: .png, .svg, .pdf, ...",
)
html = click.option(
    "--html", type=PAGE, callback=kept, help="Write a page with the figure and the tables."
)


def each(kinds: Kinds) -> Callable[[Command], Command]:
    """Return a decorator that adds an option for each name; an option that is not given is None."""

    def decorate(command: Command) -> Command:
        for name, (kind, text) in reversed([*kinds.items()]):
            flag = f"--{name.replace('_', '-')}"
            own = None if kind is bool else kind
            flag += "" if own else f"/--no-{flag[2:]}"
            command = click.option(flag, name, type=own, default=None, help=text)(command)
        return command

    return decorate


_KINDS: dict[str, Kind] = {"int": int, "float": float, "bool": bool, "str": str}


def of_settings(owner: type[DataclassInstance]) -> dict[str, tuple[Kind, str]]:
    """Return the type and the help of each setting of a dataclass, for `each`."""
    kinds: dict[str, tuple[Kind, str]] = {}
    for field in settings_of(owner):
        kind = _KINDS[str(field.type).removesuffix(" | None")]
        if choices := field.metadata["choices"]:
            kind = one_of(field.name, choices)
        kinds[field.name] = kind, _setting_help(field)
    return kinds


def _setting_help(field: Field[Any]) -> str:
    """Return the help text of a setting, with its choices and its default."""
    text, choices = field.metadata["help"], field.metadata["choices"]
    if choices:
        text += f": {', '.join(choices[:-1])} or {choices[-1]}"
    if field.default is None:
        return f"{text}."
    usual = field.default
    if field.type == "bool":
        usual = "on" if usual else "off"
    return f"{text} ({usual})."


def given(values: Mapping[str, Value]) -> dict[str, Value]:
    """Return the options that the user gave, whose values are neither None nor ()."""
    return {name: value for name, value in values.items() if value is not None and value != ()}


def show_as(
    content: object, as_json: bool, *parts: object, status: int = 0, written: bool = True
) -> None:
    """Print ``content`` as JSON, or ``parts`` (by default ``content``) as text.

    Text ends with the paths of the requested files, if the files were ``written``.
    """
    if as_json:
        print(content.to_json() if hasattr(content, "to_json") else json_text(content))
    else:
        for part in parts or (content,):
            print(part, end="\n\n" if isinstance(part, Table) else "\n")
    context = click.get_current_context()
    if written and not as_json:
        show_written(context.meta.get("written", []))
    if status:
        context.exit(status)


def side_by_side(table: Table) -> list[str]:
    """Format each row of a table as a block of lines, one per column, for tables of long texts."""
    return [
        "\n".join(f"--- {name}: {one_line(text)}" for name, text in record.items())
        for record in table.records
    ]


def write_asked(result: Any, plot: Path | None, html: Path | None = None, **told: str) -> None:
    """Write a result's figure and page if the options ``--plot`` and ``--html`` were given."""
    if plot is not None:
        write_figure(result.figure(), plot, dpi=150)
    if html is not None:
        write_text(html, result.to_html(**told))


def show_written(written: list[Path], kept: Sequence[Path] = ()) -> None:
    for path in (*written, *kept):
        print(f"{'Written' if path in written else 'Kept'}: {path}")
