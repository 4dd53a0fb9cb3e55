"""Results of operations on adapters: rows, their table, and the path of the result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from lora_np.table import Shown, Table

Row = TypeVar("Row", bound=tuple[Any, ...])


@dataclass(frozen=True, repr=False)
class Findings(Shown, Generic[Row]):
    """The result of an operation: a row for each module or tensor, and notes.

    Parameters
    ----------
    title : str
        Of the table.
    rows : tuple of named tuples
        Plain values.
    notes : tuple of str
        Further remarks.
    headings : tuple of str
        Of the columns.
    """

    title: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    headings: tuple[str, ...]

    @property
    def table(self) -> Table:
        """The rows under their headings."""
        return Table(self.headings, self.rows, title=self.title, notes=self.notes)


@dataclass(frozen=True, repr=False)
class Written(Findings[Row]):
    """What `combine`, `extract`, `merge` or `resize` did, and the path of the result.

    Parameters
    ----------
    title : str
        Of the table.
    rows : tuple of named tuples
        One for each module or tensor, whose fields are the columns of the table.
    notes : tuple of str
        What was left out, added or not copied.
    headings : tuple of str
        Of the columns.
    path : Path
        The new directory.
    """

    path: Path
