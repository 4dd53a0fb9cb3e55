"""What every operation on adapters returns: rows of plain values, and their table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from lora_np.table import Shown, Table

Row = TypeVar("Row", bound=tuple[Any, ...])


@dataclass(frozen=True, repr=False)
class Findings(Shown, Generic[Row]):
    """What an operation did or found: a row for each module or tensor, and notes.

    Parameters
    ----------
    title : str
        Of the table.
    rows : tuple of named tuples
        Plain values.
    notes : tuple of str
        What else is to be said.
    """

    title: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    headings: ClassVar[tuple[str, ...]] = ()

    @property
    def table(self) -> Table:
        """The rows under their headings."""
        return Table(self.headings, self.rows, title=self.title, notes=self.notes)
