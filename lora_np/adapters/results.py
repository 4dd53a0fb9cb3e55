"""What operations on adapters give back: plain fields for programs, a table for people."""

from __future__ import annotations

from abc import ABC, abstractmethod

from lora_np.table import Table


class Result(ABC):
    """Prints and renders as its table."""

    @property
    @abstractmethod
    def table(self) -> Table:
        """The fields as a table."""

    def __str__(self) -> str:
        return str(self.table)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()
