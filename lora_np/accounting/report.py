"""Everything that ``lora-np count`` prints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lora_np.accounting.activations import TrainingOptions
from lora_np.accounting.lora import LoraCount, count, count_model, model_spec
from lora_np.accounting.matrix import count_matrix
from lora_np.accounting.memory import compare_memory, split
from lora_np.checks import choice, whole_numbers
from lora_np.models import ModelSpec, matrix_size
from lora_np.table import Cell, Table, decimal_bytes


@dataclass(frozen=True)
class CountReport:
    """The result of `count_source`.

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
    rank: int | Iterable[int] = (),
    config: str | None = None,
    by: str | None = None,
    memory: bool = False,
    **options: Any,
) -> CountReport:
    """What a LoRA on ``source`` costs: everything that ``lora-np count`` prints.

    Parameters
    ----------
    source : str
        Whatever `model_spec` takes, as text.
    rank : int or iterable of int
        Without a rank, a matrix is counted by itself and a model is listed; no other option applies then.
    config : str, optional
        An ``adapter_config.json``, or a directory with one, for ranks and all options of the LoRA.
    by : {"kind", "module"}, optional
        A table of the adapted modules for each rank.
    memory : bool
        A table of what training needs in memory for each rank.
    **options
        Other options of `count_model`; for the memory, the fields of `TrainingOptions`.

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
    >>> count_source("llama-2-7b", rank=[8, 16]).table
    llama-2-7b: 6,738,415,616 parameters
    rank  trainable           base          total  percent   adapter
    ----  ---------  -------------  -------------  -------  --------
       8  4,194,304  6,738,415,616  6,742,609,920   0.0622  16.78 MB
      16  8,388,608  6,738,415,616  6,746,804,224   0.1243  33.55 MB
    trainable params: 4,194,304 || all params: 6,742,609,920 || trainable%: 0.0622
    trainable params: 8,388,608 || all params: 6,746,804,224 || trainable%: 0.1243
    """
    ranks = whole_numbers("rank", rank)
    training, lora = split(options)
    choice("experts", lora.get("experts", "peft"), ("peft", "per-expert"))
    wanted = [name for name, value in lora.items() if value not in (None, [], (), False, "peft")]
    if config is None:
        for name, asked in (("by", by), ("memory", memory)):
            wanted += [name] if asked else []
        if wanted and not ranks:
            raise ValueError(f"{', '.join(wanted)} can only be given with a rank, as in --rank 8")
    elif ranks or set(wanted) - {"experts"}:
        given = ", ".join([*["rank"] * bool(ranks), *(name for name in wanted if name != "experts")])
        raise ValueError(f"config ({config}) says all about the LoRA: leave out {given}")
    if by is not None:
        choice("by", by, ("kind", "module"))
    TrainingOptions(**training)
    if training and not memory:
        raise ValueError(
            f"{' and '.join(training)} can only be given for the memory: pass memory=True (--memory) as well"
        )
    size = matrix_size(source)
    if size and (config is not None or set(wanted) - {"dora", "memory"}):
        raise ValueError(f"a single matrix, {source}, takes ranks and DoRA; other options need a model")
    spec = model_spec(source)
    if config is not None:
        experts = {name: value for name, value in lora.items() if name == "experts"}
        counts: tuple[LoraCount, ...] = (count(spec, config=config, **experts),)
    else:
        counts = tuple(count_model(spec, rank=each, **lora) for each in ranks)
    if size:
        tables = [count_matrix(*size, rank=ranks, dora="dora" in wanted).table]
    else:
        tables = [_totals(spec, counts) if counts else spec.table]
    if by:
        tables += [each.by_module if by == "module" else each.table for each in counts]
    if memory:
        tables += [compare_memory(each, **training).table for each in counts]
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
