"""What recipes and benchmarks write into pages."""

from __future__ import annotations

from lora_np.table import Table


def markdown(table: Table) -> str:
    """Write a table in Markdown."""
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    shown = [["" if cell is None else str(cell) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in shown)
