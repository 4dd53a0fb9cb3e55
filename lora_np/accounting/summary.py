"""Everything that ``lora-np count`` prints."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from lora_np.accounting.lora import count_model
from lora_np.accounting.matrix import matrix_table
from lora_np.accounting.memory import checkpoint_bytes, memory_table
from lora_np.accounting.sources import matrix_size, model_spec
from lora_np.checks import choice, whole_number
from lora_np.hub.model import ModelSpec
from lora_np.hub.picking import names_of
from lora_np.table import Cell, Table, decimal_bytes


def count_tables(
    source: str,
    *,
    ranks: Iterable[int] = (),
    targets: str | Iterable[str] | None = None,
    modules_to_save: str | Iterable[str] = (),
    dora: bool = False,
    experts: str = "peft",
    by: str | None = None,
    memory: bool = False,
    batch: int = 1,
    sequence: int = 512,
) -> list[Table]:
    """Tables of what a LoRA on ``source`` costs: totals for each rank first, then what was asked for.

    Parameters
    ----------
    source : str
        Whatever :func:`model_spec` takes, as text.
    ranks : iterable of int
        Without any, a matrix is counted by itself and a model is listed; no other option makes sense then.
    targets, modules_to_save, dora, experts
        As :func:`count_model` takes them.
    by : {"kind", "module"}, optional
        A table of the adapted modules for each rank.
    memory : bool
        A table of what training needs in memory for each rank.
    batch, sequence : int
        For the estimate of activations.

    Returns
    -------
    list of Table

    Raises
    ------
    FileNotFoundError, ValueError, TypeError
        If the source or an option is not understood.

    Examples
    --------
    >>> count_tables("llama-2-7b", ranks=[8, 16])[0]
    llama-2-7b: 6,738,415,616 parameters
    rank  trainable           base          total  percent   adapter
    ----  ---------  -------------  -------------  -------  --------
       8  4,194,304  6,738,415,616  6,742,609,920   0.0622  16.78 MB
      16  8,388,608  6,738,415,616  6,746,804,224   0.1243  33.55 MB
    trainable params: 4,194,304 || all params: 6,742,609,920 || trainable%: 0.0622
    trainable params: 8,388,608 || all params: 6,746,804,224 || trainable%: 0.1243
    """
    ranks = list(ranks)
    if by is not None:
        choice("by", by, ("kind", "module"))
    choice("experts", experts, ("peft", "per-expert"))
    whole_number("batch", batch)
    whole_number("sequence", sequence)
    saved = names_of(modules_to_save)
    chosen = {
        "targets": targets is not None,
        "modules_to_save": bool(saved),
        "dora": dora,
        "experts": experts != "peft",
        "by": by is not None,
        "memory": memory,
    }
    given = [name for name, wanted in chosen.items() if wanted]
    size = matrix_size(source)
    if size and set(given) - {"dora"}:
        raise ValueError(f"a single matrix, {source}, takes ranks and DoRA; other options need a model")
    if given and not ranks:
        raise ValueError(f"{', '.join(given)} can only be given with a rank, as in --rank 8")
    if size:
        return [matrix_table(*size, ranks=ranks, dora=dora)]
    spec = model_spec(source)
    if not ranks:
        return [spec.table()]
    options: dict[str, Any] = {
        "targets": targets,
        "modules_to_save": saved,
        "dora": dora,
        "experts": experts,
    }
    tables = [rank_table(spec, ranks, **options)]
    if by:
        counts = [count_model(spec, rank=rank, **options) for rank in ranks]
        tables += [count.by_module() if by == "module" else count.by_kind() for count in counts]
    if memory:
        tables += [
            memory_table(spec, rank=rank, lora=options, batch=batch, sequence=sequence) for rank in ranks
        ]
    return tables


def rank_table(spec: ModelSpec, ranks: Iterable[int], **options: Any) -> Table:
    """Totals for each rank, and what PEFT would print.

    Parameters
    ----------
    spec : ModelSpec
    ranks : iterable of int
    **options
        As :func:`count_model` takes them.

    Returns
    -------
    Table
        Columns ``rank``, ``trainable``, ``base``, ``total``, ``percent`` and ``adapter`` (bytes of its fp32
        file).
    """
    counts = [count_model(spec, rank=rank, **options) for rank in ranks]
    rows: list[tuple[Cell, ...]] = [
        (each.rank, each.trainable, each.base, each.total, each.percent, checkpoint_bytes(each))
        for each in counts
    ]
    notes = [each.peft_line for each in counts] + [note for each in counts for note in each.notes]
    return Table(
        ("rank", "trainable", "base", "total", "percent", "adapter"),
        rows,
        title=f"{spec.name}: {spec.total:,} parameters",
        notes=dict.fromkeys(notes),
        formats={"percent": "{:.4f}".format, "adapter": decimal_bytes},
    )


def parse_targets(text: str) -> str | list[str]:
    r"""Targets in a command line: ``all-linear``, names with commas, or a regular expression.

    Text that holds any sign beside letters, digits, ``_``, ``-``, ``.`` and commas is a regular expression.

    Examples
    --------
    >>> parse_targets("q_proj,v_proj"), parse_targets("all-linear"), parse_targets(r".*\.[qv]_proj")
    (['q_proj', 'v_proj'], 'all-linear', '.*\\.[qv]_proj')
    """
    if text == "all-linear" or re.search(r"[^\w\-.,\s]", text):
        return text
    return parse_names(text)


def parse_names(text: str) -> list[str]:
    """Names with commas between.

    Examples
    --------
    >>> parse_names("lm_head, embed_tokens")
    ['lm_head', 'embed_tokens']
    """
    return [name.strip() for name in text.split(",") if name.strip()]


def render(tables: Iterable[Table], form: str) -> str:
    """Tables as one text: ``"json"`` (an object, or a list of them), ``"markdown"`` or ``"csv"``.

    Examples
    --------
    >>> print(render(count_tables("100x120", ranks=[8]), "csv"), end="")
    update,rank,trainable,of full,times fewer,base,total
    full,,12000,1.0,1.0,12000,12000
    LoRA,8,1760,0.14666666666666667,6.818181818181818,12000,13760
    """
    choice("form", form, ("json", "markdown", "csv"))
    tables = list(tables)
    if form == "markdown":
        return "\n".join(table.to_markdown() for table in tables)
    if form == "csv":
        return "\n".join(table.to_csv() for table in tables)
    if len(tables) == 1:
        return tables[0].to_json()
    return "[" + ",\n".join(table.to_json() for table in tables) + "]"
