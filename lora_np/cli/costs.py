"""``count``, ``plan``, ``errors``, ``capacity``: what a LoRA costs and holds, what fits, which
rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lora_np import accounting, language, models
from lora_np.cli import options
from lora_np.table import Table, decimal_bytes

if TYPE_CHECKING:
    from lora_np.accounting import LoraCount

# each an option of the commands that estimate memory
_TRAINING = options.of_settings(accounting.TrainingOptions)
_METHOD = click.Choice(("full", "LoRA", "QLoRA"), case_sensitive=False)


@click.command()
@click.argument("source", default="")
@options.ranks
@options.targets
@options.saved
@click.option("--config", help="An adapter_config.json, instead of --rank, --targets and the like.")
@click.option("--dora", is_flag=True, default=None, help="Count the magnitudes of DoRA as well.")
@click.option(
    "--experts", type=str.lower, help="How experts are counted: peft (the default) or per-expert."
)
@click.option(
    "--group-by", type=click.Choice(("module", "kind"), case_sensitive=False), help="What to list."
)
@click.option("--memory", is_flag=True, default=None, help="Estimate the memory of training.")
@options.as_json
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@click.option("--list", "catalogue", is_flag=True, help="List presets and families.")
@options.each(_TRAINING)
def count(source: str, as_json: bool, as_csv: bool, catalogue: bool, **asked: Any) -> None:
    """Count what a LoRA costs, in parameters and in memory, for a matrix or for a whole model.

    SOURCE is 100x120, a preset, a shipped model, a config.json, a *.safetensors, or its directory.
    The options from --dtype on are for the memory.

    Example: lora-np count llama-3-8b --rank 8,16 --targets all-linear --group-by kind --memory
    """
    asked = options.given(asked)
    if catalogue == bool(source) or (catalogue and asked) or (as_json and as_csv):
        raise click.UsageError(
            "give either a SOURCE and options, or --list; and one format at most"
        )
    tables = list(models.catalogue()) if catalogue else _counted(source, **asked)
    if as_csv:
        print("\n".join(table.to_csv() for table in tables))
    else:
        found = [table.content for table in tables]
        options.show_as(found[0] if len(found) == 1 else found, as_json, *tables)


def _counted(
    source: str,
    rank: Sequence[int] = (),
    config: str = "",
    group_by: str = "",
    memory: bool = False,
    **asked: Any,
) -> list[Table]:
    """Totals first, then what else was asked for."""
    if not (rank or config) and (group_by or memory or asked):
        raise click.UsageError(
            "options can only be given with a rank, as in --rank 8, or with --config"
        )
    training = {name: asked.pop(name) for name in _TRAINING if name in asked}
    spec, size = accounting.model_spec(source), models.matrix_size(source)
    counts = [accounting.count(spec, rank=each, **asked) for each in rank]
    if config:
        asked |= {"rank": rank} if rank else {}  # which count refuses
        counts = [accounting.count(spec, config=config, **asked)]
    if size and not config and asked.keys() <= {"dora"}:
        tables = [accounting.count_matrix(*size, rank=rank, **asked).table]
    else:
        tables = [_totals(counts) if counts else spec.table]
    tables += [
        each.by_module if group_by == "module" else each.table for each in counts if group_by
    ]
    estimated = counts if memory or training else []
    return tables + [accounting.compare_memory(each, **training).table for each in estimated]


def _totals(counts: Sequence[LoraCount]) -> Table:
    """What LoRAs on one model cost, and what PEFT would print."""
    names = ("rank", "trainable", "base", "total", "percent")
    notes = [each.verdict for each in counts] + [note for each in counts for note in each.notes]
    rows = [(*(getattr(each, name) for name in names), 4 * each.trainable) for each in counts]
    title = f"{counts[0].spec.name}: {counts[0].base:,} parameters"
    formats = {"percent": "{:.4f}".format, "adapter": decimal_bytes}
    return Table(
        (*names, "adapter"), rows, title=title, notes=[*dict.fromkeys(notes)], formats=formats
    )


@click.command()
@click.argument("source")
@click.option("--gpu", required=True, help='A GPU, such as "RTX 4090", or a memory, such as 24GB.')
@options.ranks
@options.targets
@click.option("--method", "methods", type=_METHOD, multiple=True, help="May be repeated.")
@options.saved
@click.option("--dora", is_flag=True, default=None, help="Include the magnitudes of DoRA.")
@options.as_json
@options.each(_TRAINING)
def plan(source: str, as_json: bool, **asked: Any) -> None:
    """Show which LoRA fits on a GPU, how far it could go, and what it costs. Exit status 3: none
    fits.

    SOURCE is as for count, and may be a preset's name on the hub.

    Example: lora-np plan llama-3-8b --gpu "RTX 4090"

    Example: lora-np plan llama-3-70b --gpu 48GB --method QLoRA --optimizer paged_adamw

    Example: lora-np plan gemma-2-2b --gpu T4 --max-length 1024 --cross-entropy fused
    """
    found = accounting.plan(source, **options.given(asked))
    content = {**asdict(found), "fits": found.fits}
    options.show_as(content, as_json, found.table, found.breakdown, status=0 if found.fits else 3)


@click.command()
@click.argument("matrix")
@click.option("--norm", type=str.lower, help="fro, spectral or nuclear.")
@click.option("--energy", type=float, help="Share of the squared norm to keep, by default 0.99.")
@click.option("--tolerance", type=float, help="Instead, the accepted relative error in the norm.")
@options.plot
@options.as_json
def errors(matrix: str, plot: Path | None, as_json: bool, **asked: Any) -> None:
    """Print the error of the best approximation of each rank, and the smallest rank that is enough.

    MATRIX is FILE.npy, or FILE.safetensors:TENSOR, which reads only that tensor.

    Example: lora-np errors adapter.safetensors:layers.0.q_proj.lora_B.weight --tolerance 0.05
    """
    found = accounting.rank_errors_of(matrix, **options.given(asked))
    options.draw(found, plot)
    options.show_as(vars(found), as_json, found.table)


BYTES, ASSUMED = 4, 1.0  # bytes of a token, and bits that it asks, where the model cannot be run


@click.command()
@click.argument("model")
@click.option("--rank", type=int, required=True, help="r of the adapter.")
@options.every_linear
@click.option("--data", help="What is learnt by heart: a file as for finetune.")
@click.option("--bits", type=float, help="Instead, how many bits it has.")
@click.option(
    "--target-loss", type=float, default=0.0, help="Loss to reach, in nats per token (0)."
)
@options.as_json
def capacity(
    model: str,
    rank: int,
    targets: Any,
    data: str | None,
    bits: float | None,
    target_loss: float,
    as_json: bool,
) -> None:
    """Show how many bits an adapter can hold, as a range, and the smallest rank that holds what
    DATA asks.

    Example: lora-np capacity austen --rank 8 --data genesis
    """
    if data is not None and bits is not None:
        raise click.UsageError("give --data or --bits, not both")
    if data is not None:
        try:
            bits = language.bits_to_learn(
                language.load(model), language.read_data(data), floor=target_loss
            )
        except FileNotFoundError as error:
            tokens = len(language.read_text(data).encode()) / BYTES
            bits = ASSUMED * tokens
            click.echo(
                f"assumed: {tokens:,.0f} tokens of {ASSUMED:g} bit each, since {error}", err=True
            )
    found = accounting.capacity(model, rank=rank, bits=bits, targets=targets)
    said = {**vars(found), "count": found.count.trainable, "free": found.free}
    options.show_as(said, as_json, found.table)
