"""Everything that ``lora-np count`` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lora_np.accounting.activations import TrainingOptions
from lora_np.accounting.live import model_spec
from lora_np.accounting.lora import LoraCount, count_model
from lora_np.accounting.matrix import count_matrix
from lora_np.accounting.memory import compare_memory
from lora_np.accounting.settings import count_config
from lora_np.checks import choice
from lora_np.models import ModelSpec, matrix_size
from lora_np.table import Cell, Table, decimal_bytes


@dataclass(frozen=True)
class CountReport:
    """What `count_source` gives.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    counts : tuple of LoraCount
        One for each rank.
    tables : tuple of Table
        Totals first, then the other tables.
    """

    spec: ModelSpec
    counts: tuple[LoraCount, ...]
    tables: tuple[Table, ...]

    @property
    def table(self) -> Table:
        """The totals."""
        return self.tables[0]


def count_source(
    source: str,
    *,
    ranks: Iterable[int] = (),
    config: str | None = None,
    by: str | None = None,
    memory: bool = False,
    training: Mapping[str, Any] | None = None,
    **options: Any,
) -> CountReport:
    """What a LoRA on ``source`` costs: everything that ``lora-np count`` prints.

    Parameters
    ----------
    source : str
        Whatever `model_spec` takes, as text.
    ranks : iterable of int
        Without any, a matrix is counted by itself and a model is listed; no other option makes sense then.
    config : str, optional
        An ``adapter_config.json``, or a directory with one, for ranks and all options of the LoRA.
    by : {"kind", "module"}, optional
        A table of the adapted modules for each rank.
    memory : bool
        A table of what training needs in memory for each rank.
    training : mapping, optional
        Fields of `TrainingOptions`, for the memory.
    **options
        Other options of `count_model`.

    Returns
    -------
    CountReport
        The tables, and the counts behind them.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    TypeError
        If a number is not one.
    ValueError
        If the source or an option is not understood.

    See Also
    --------
    count_model : The count itself.

    Examples
    --------
    >>> count_source("llama-2-7b", ranks=[8, 16]).table
    llama-2-7b: 6,738,415,616 parameters
    rank  trainable           base          total  percent   adapter
    ----  ---------  -------------  -------------  -------  --------
       8  4,194,304  6,738,415,616  6,742,609,920   0.0622  16.78 MB
      16  8,388,608  6,738,415,616  6,746,804,224   0.1243  33.55 MB
    trainable params: 4,194,304 || all params: 6,742,609,920 || trainable%: 0.0622
    trainable params: 8,388,608 || all params: 6,746,804,224 || trainable%: 0.1243
    """
    ranks = list(ranks)
    wanted = {name: value for name, value in options.items() if value not in (None, [], (), False, "peft")}
    experts = choice("experts", options.get("experts", "peft"), ("peft", "per-expert"))
    if config is not None and (ranks or wanted.keys() - {"experts"}):
        given = ", ".join([*["rank"] * bool(ranks), *(wanted.keys() - {"experts"})])
        raise ValueError(f"config ({config}) says all about the LoRA: leave out {given}")
    if by is not None:
        wanted["by"] = choice("by", by, ("kind", "module"))
    TrainingOptions(**(training or {}))
    if memory:
        wanted["memory"] = True
    elif training:
        raise ValueError(
            f"{' and '.join(training)} can only be given for the memory: pass memory=True (--memory) as well"
        )
    size = matrix_size(source)
    if size and (config is not None or wanted.keys() - {"dora", "memory"}):
        raise ValueError(f"a single matrix, {source}, takes ranks and DoRA; other options need a model")
    if wanted and not ranks and config is None:
        raise ValueError(f"{', '.join(wanted)} can only be given with a rank, as in --rank 8")
    spec = model_spec(source)
    if size:
        options["targets"] = "all-linear"
    if config is not None:
        counts: tuple[LoraCount, ...] = (count_config(spec, config, experts=experts),)
    else:
        counts = tuple(count_model(spec, rank=rank, **options) for rank in ranks)
    if size:
        tables = [count_matrix(*size, ranks=ranks, dora="dora" in wanted).table]
    else:
        tables = [_totals(spec, counts) if counts else spec.table]
    if by:
        tables += [count.by_module if by == "module" else count.table for count in counts]
    if memory:
        tables += [compare_memory(count, **(training or {})).table for count in counts]
    return CountReport(spec, counts, tuple(tables))


def _totals(spec: ModelSpec, counts: tuple[LoraCount, ...]) -> Table:
    """Totals for each rank, and what PEFT would print."""
    rows: list[tuple[Cell, ...]] = [
        (each.rank, each.trainable, each.base, each.total, each.percent, 4 * each.trainable)
        for each in counts
    ]
    notes = [each.verdict for each in counts] + [note for each in counts for note in each.notes]
    return Table(
        ("rank", "trainable", "base", "total", "percent", "adapter"),
        rows,
        title=f"{spec.name}: {spec.total:,} parameters",
        notes=list(dict.fromkeys(notes)),
        formats={"percent": "{:.4f}".format, "adapter": decimal_bytes},
    )
