"""Format tables for a terminal, a notebook, or another program."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any

from lora_np.checks import printable, refuse, whole_number

if TYPE_CHECKING:
    from typing import TypeAlias

    from matplotlib.figure import Figure

    Part: TypeAlias = "str | tuple[str, str] | Table | Figure"  # a part of a page

__all__ = ["Table", "binary_bytes", "parse_bytes", "shape_text"]

Cell = str | int | float | bool | None
Format = Callable[..., str]


@dataclass(frozen=True, repr=False)
class Table:
    """A table of plain values with named columns, for people and for programs.

    For people, numbers are formatted: aligned text from ``print`` and at the prompt, and HTML in a
    notebook. Programs get the values unchanged from :meth:`to_json`, :meth:`to_csv` and
    :attr:`records`.

    Parameters
    ----------
    columns : sequence of str
        The names of the columns: headings for people, keys for programs.
    rows : sequence of sequences
        The rows, with a value for each column: a string, a number, a boolean, or None for an empty
        cell.
    title : str
        A line above the table.
    notes : sequence of str
        Sentences below the table.
    formats : mapping of str to callable
        Functions that format the values of a column for people, as in ``{"share":
        "{:.1%}".format}``. By default, whole numbers get thousands separators and other numbers
        four significant digits.

    Raises
    ------
    ValueError
        If a row does not have one cell for each column.

    Examples
    --------
    >>> table = Table(["matrix", "parameters"], [("W0", 12_000), ("B A", 1_760)])
    >>> table
    matrix  parameters
    ------  ----------
    W0          12,000
    B A          1,760
    >>> print(table.to_csv(), end="")
    matrix,parameters
    W0,12000
    B A,1760
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    _: KW_ONLY
    title: str = ""
    notes: Sequence[str] = ()
    formats: Mapping[str, Format] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("columns", "notes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "rows", tuple(map(tuple, self.rows)))
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"a row must have {len(self.columns)} cells, got {len(row)}: {row!r}"
                )

    @property
    def records(self) -> list[dict[str, Cell]]:
        """The rows as dictionaries from column names to unchanged values."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    @property
    def content(self) -> dict[str, str | Sequence[str] | list[dict[str, Cell]]]:
        """A dictionary of ``title``, ``rows`` (as dictionaries) and ``notes``."""
        return {"title": self.title, "rows": self.records, "notes": self.notes}

    def to_json(self) -> str:
        """Convert `content` to JSON, with unchanged numbers."""
        return json_text(self.content)

    def to_csv(self) -> str:
        """Convert the table to comma-separated values with a heading and unchanged numbers."""
        import csv
        from io import StringIO

        def line(row: Sequence[Cell]) -> str:
            text = StringIO()
            # keep the default line ending "\r\n", because it makes the writer quote "\r" in a cell
            csv.writer(text).writerow(row)
            return text.getvalue()[:-2] + "\n"

        return "".join(map(line, (self.columns, *self.rows)))

    def __str__(self) -> str:
        """Format the table as text in aligned columns, with numbers aligned on the right."""
        title, columns, notes = self._said
        grid = [columns, *self._texts]
        widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
        grid.insert(1, ["-" * width for width in widths])
        sides = [">" if right else "<" for right in self._numeric]
        forms = list(map("{}{}".format, sides, widths))
        lines = ["  ".join(map(format, row, forms)).rstrip() for row in grid]
        above = [title] if title else []
        return "\n".join([*above, *lines, *notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Format the table as HTML, which notebooks show."""
        from html import escape

        styles = [f"text-align:{'right' if right else 'left'}" for right in self._numeric]

        def row(tag: str, texts: Iterable[str]) -> str:
            cells = zip(texts, styles, strict=True)
            inside = "".join(
                f'<{tag} style="{style}">{escape(text)}</{tag}>' for text, style in cells
            )
            return f"<tr>{inside}</tr>"

        title, columns, notes = self._said
        heading = row("th", columns)
        body = "\n".join(row("td", texts) for texts in self._texts)
        caption = f"<caption>{escape(title)}</caption>\n" if title else ""
        below = "".join(f"\n<p>{escape(note)}</p>" for note in notes)
        head = f"{caption}<thead>{heading}</thead>"
        return f"<table>\n{head}\n<tbody>\n{body}\n</tbody>\n</table>{below}"

    @property
    def _said(self) -> tuple[str, list[str], list[str]]:
        """The title, headings and notes, with control characters escaped for safe printing."""
        return printable(self.title), [*map(printable, self.columns)], [*map(printable, self.notes)]

    @property
    def _texts(self) -> list[list[str]]:
        formats = [self.formats.get(name, _readable) for name in self.columns]
        return [
            [
                "" if cell is None else printable(show(cell))
                for show, cell in zip(formats, row, strict=True)
            ]
            for row in self.rows
        ]

    @property
    def _numeric(self) -> list[bool]:
        """Whether each column has only numbers, and so is aligned on the right."""
        columns = (
            [row[i] for row in self.rows if row[i] is not None] for i in range(len(self.columns))
        )
        return [
            bool(cells) and not any(isinstance(cell, (str, bool)) for cell in cells)
            for cells in columns
        ]


class Shown:
    """A result that prints as its table, in a terminal and in a notebook."""

    table: Any

    def __str__(self) -> str:
        return str(self.table)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return str(self.table._repr_html_())


def one_line(cell: Cell) -> str:
    """Convert a cell to text on one line, with each run of whitespace replaced by one space."""
    return " ".join(str(cell).split())


def json_text(content: object) -> str:
    """Convert ``content`` to indented JSON, with control characters escaped."""
    import json

    text = json.dumps(content, indent=2, ensure_ascii=False, default=_plain)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def page(title: str, parts: Iterable[Part]) -> str:
    """Render an HTML page that needs no other file.

    Its parts are sentences, tables, figures, and pairs of a caption and a text that keeps its
    lines.
    """
    from html import escape

    from lora_np.files import picture

    def piece(part: Part) -> str:
        if isinstance(part, str):
            return f"<p>{escape(printable(part))}</p>"
        if isinstance(part, tuple):
            caption, text = part
            return f"{piece(caption)}<pre>{escape(printable(text))}</pre>"
        if isinstance(part, Table):
            return part._repr_html_()
        drawing = picture(part, "svg").decode()
        return drawing[drawing.index("<svg") :]

    return _PAGE.format(
        escape(printable(title)), "\n".join(f"<div>{piece(part)}</div>" for part in parts)
    )


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{0}</title>
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 70em; margin: 1em auto; padding: 0 1em }}
div {{ overflow-x: auto; margin: 1.5em 0 }} caption {{ text-align: left; font-weight: bold }}
th, td {{ padding: .2em .7em; vertical-align: top }}
pre {{ white-space: pre-wrap }}
</style>
<h1>{0}</h1>
{1}
</html>
"""


def shape_text(shape: tuple[int, ...]) -> str:
    """Format a shape as sizes with ``x`` between them.

    Parameters
    ----------
    shape : tuple of int
        The shape of an array.

    Returns
    -------
    str
        A text such as ``"128 x 64"``.

    Examples
    --------
    >>> shape_text((4096, 1024))
    '4,096 x 1,024'
    """
    return " x ".join(f"{size:,}" for size in shape)


def _readable(cell: Cell) -> str:
    if isinstance(cell, (str, bool)):
        return str(cell)
    return f"{cell:,.4g}" if isinstance(_plain(cell), float) else f"{cell:,}"


def _plain(value: Any) -> Any:
    """Convert a NumPy scalar or array to Python numbers; return other values unchanged."""
    return value.tolist() if hasattr(value, "tolist") else value


# Sizes in bytes: 1 GB is 1000**3 bytes, and 1 GiB is 1024**3.

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SIZES: dict[str, int] = {
    unit.lower().replace("i", ""): 1000**power for power, unit in enumerate(_BINARY)
}
_SIZES |= {unit.lower(): 1024**power for power, unit in enumerate(_BINARY)}


def binary_bytes(size: int) -> str:
    """Format a number of bytes with a binary unit, such as MiB.

    Parameters
    ----------
    size : int
        The number of bytes.

    Returns
    -------
    str
        The size with two decimals and its unit.

    Examples
    --------
    >>> binary_bytes(37_748_736)
    '36.00 MiB'
    """
    power = 0
    while size >= 1024 ** (power + 1) and power + 1 < len(_BINARY):
        power += 1
    return f"{size} B" if power == 0 else f"{size / 1024**power:,.2f} {_BINARY[power]}"


def parse_bytes(name: str, size: int | str) -> int:
    """Parse a number of bytes from a number, or from text with a unit.

    Parameters
    ----------
    name : str
        The name of the size in error messages.
    size : int or str
        The number of bytes, or text such as ``"24 GB"`` (decimal) or ``"24GiB"`` (binary).

    Returns
    -------
    int
        The number of bytes.

    Raises
    ------
    ValueError
        If the size is negative or its unit is unknown.
    TypeError
        If the size is neither a whole number nor text.

    Examples
    --------
    >>> parse_bytes("budget", "24 GB"), parse_bytes("budget", "24GiB")
    (24000000000, 25769803776)
    """
    if not isinstance(size, str):
        return whole_number(name, size, minimum=0)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", size)
    if not match or match[2].lower() not in _SIZES:
        refuse(f"{name} must be bytes or text such as '24 GB' or '24 GiB', got {size!r}")
    return round(float(match[1]) * _SIZES[match[2].lower()])
