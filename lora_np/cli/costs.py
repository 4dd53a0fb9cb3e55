"""Define ``count``, ``plan``, ``errors`` and ``capacity``: commands on a LoRA's cost and rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lora_np import accounting, language, models
from lora_np.checks import number, refuse
from lora_np.cli import options
from lora_np.table import Table, binary_bytes

if TYPE_CHECKING:
    from lora_np.accounting import LoraCount

# an option for each field of TrainingOptions, for the commands that estimate memory
_TRAINING = options.of_settings(accounting.TrainingOptions)
_METHOD = click.Choice(("full", "LoRA", "QLoRA"), case_sensitive=False)


@click.command()
@click.argument("source", default="")
@options.ranks
@options.targets
@options.saved
@click.option("--config", help="An adapter, or its config, instead of --rank, --targets, ...")
@click.option("--dora", is_flag=True, default=None, help="Count the magnitudes of DoRA as well.")
@click.option(
    "--experts",
    type=options.one_of("experts", ("peft", "per-expert")),
    help="Convention for experts: peft (default) or per-expert.",
)
@click.option(
    "--group-by", type=click.Choice(("module", "kind"), case_sensitive=False), help="Add a table."
)
@click.option("--memory", is_flag=True, default=None, help="Estimate the memory of training.")
@options.as_json
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV instead of tables.")
@click.option("--list", "catalogue", is_flag=True, help="List presets and families.")
@options.each(_TRAINING)
def count(source: str, as_json: bool, as_csv: bool, catalogue: bool, **asked: Any) -> None:
    """Count a LoRA's parameters and memory, for a matrix or model.

    SOURCE is 100x120, a preset, a shipped model, a config.json, a *.safetensors or *.gguf file, or
    a directory. The options from --dtype on are for the memory.

    Example: lora-np count llama-3-8b --rank 8,16 --targets all-linear --group-by kind --memory
    """
    asked = options.given(asked)
    if catalogue == bool(source) or (catalogue and asked) or (as_json and as_csv):
        refuse("give either a SOURCE and options, or --list; and one format at most")
    tables = list(models.catalogue()) if catalogue else _counted(source, **asked)
    if as_csv:
        print("\n".join(table.to_csv() for table in tables))
    else:
        content = [table.content for table in tables]
        options.show_as(content[0] if len(content) == 1 else content, as_json, *tables)


def _counted(
    source: str,
    rank: Sequence[int] = (),
    config: str = "",
    group_by: str = "",
    memory: bool = False,
    **asked: Any,
) -> list[Table]:
    """Return a table of totals, and the other tables that the options request."""
    if not (rank or config) and (group_by or memory or asked):
        refuse("options can only be given with a rank, as in --rank 8, or with --config")
    training = {name: asked.pop(name) for name in _TRAINING if name in asked}
    accounting.TrainingOptions(**training)  # check the options before reading the model
    spec, size = accounting.model_spec(source), models.matrix_size(source)
    counts = [accounting.count(spec, rank=r, **asked) for r in rank]
    if config:
        # pass on any rank, because `count` raises an error if both a config and a rank are given
        asked |= {"rank": rank} if rank else {}
        counts = [accounting.count(spec, config=config, **asked)]
    if size and not config and asked.keys() <= {"dora"}:
        tables = [accounting.count_matrix(*size, rank=rank, **asked).table]
    else:
        tables = [_totals(counts) if counts else spec.table]
    tables += [one.by_module if group_by == "module" else one.table for one in counts if group_by]
    estimated = counts if memory or training else []
    return tables + [accounting.compare_memory(one, **training).table for one in estimated]


def _totals(counts: Sequence[LoraCount]) -> Table:
    """Tabulate several LoRAs on one model; the notes have the lines that PEFT prints."""
    columns = ("rank", "trainable", "base", "total", "percent", "adapter")
    lines = [(x.rank, x.trainable, x.base, x.total, x.percent, 4 * x.trainable) for x in counts]
    notes = dict.fromkeys([x.verdict for x in counts] + [note for x in counts for note in x.notes])
    title = f"{counts[0].spec.name}: {counts[0].base:,} parameters"
    formats = {"percent": "{:.4f}".format, "adapter": binary_bytes}
    return Table(columns, lines, title=title, notes=[*notes], formats=formats)


@click.command()
@click.argument("source")
@click.option("--gpu", required=True, help='A GPU, such as "RTX 4090", or a memory, such as 24GB.')
@options.ranks
@options.targets
@click.option("--method", "methods", type=_METHOD, multiple=True, help="Method. Repeatable.")
@options.saved
@click.option("--dora", is_flag=True, default=None, help="Include the magnitudes of DoRA.")
@options.as_json
@options.each(_TRAINING)
def plan(source: str, as_json: bool, **asked: Any) -> None:
    """Show whether full fine-tuning, LoRA or QLoRA fits on a GPU.

    The exit status is 3 if none fits. SOURCE is as for count, or a preset's name on the hub.

    Example: lora-np plan llama-3-8b --gpu "RTX 4090"

    Example: lora-np plan llama-3-70b --gpu 48GB --method QLoRA --optimizer paged_adamw

    Example: lora-np plan gemma-2-2b --gpu T4 --max-length 1024 --cross-entropy fused
    """
    result = accounting.plan(source, **options.given(asked))
    content, status = {**asdict(result), "fits": result.fits}, 0 if result.fits else 3
    changes = [] if result.fits or not result.remedies else [result.changes]
    options.show_as(content, as_json, result.table, *changes, result.breakdown, status=status)


@click.command()
@click.argument("matrix")
@click.option(
    "--norm",
    type=options.one_of("norm", ("fro", "spectral", "nuclear")),
    help="fro, spectral or nuclear.",
)
@click.option("--energy", type=float, help="Share of the squared norm to keep (0.99).")
@click.option("--tolerance", type=float, help="Instead, the accepted relative error.")
@options.plot
@options.force_files
@options.as_json
def errors(matrix: str, plot: Path | None, as_json: bool, **asked: Any) -> None:
    """Print the error of the best rank-r approximation for every r.

    MATRIX is FILE.npy, or FILE.safetensors:TENSOR, which reads only that tensor. The smallest rank
    that is enough is named below the table.

    Example: lora-np errors adapter.safetensors:layers.0.q_proj.lora_B.weight --tolerance 0.05
    """
    result = accounting.rank_errors_of(matrix, **options.given(asked))
    options.write_asked(result, plot)
    options.show_as(vars(result), as_json, result.table)


# If the model's files are missing, assume one bit per token and 4 bytes per token.
BYTES = 4


@click.command()
@click.argument("model")
@click.option("--rank", type=int, required=True, help="Rank of the adapter.")
@options.every_linear
@click.option("--data", help="Data to memorise: a file as for finetune.")
@click.option("--bits", type=float, help="Bits to memorise, instead of --data.")
@click.option("--target-loss", type=float, help="Loss on DATA to reach, in nats per token (0).")
@options.as_json
def capacity(
    model: str,
    rank: int,
    targets: str | list[str],
    data: str | None,
    bits: float | None,
    target_loss: float | None,
    as_json: bool,
) -> None:
    """Estimate how many bits an adapter can memorise.

    The result is a range, with the smallest rank that is enough for DATA.

    Example: lora-np capacity austen --rank 8 --data genesis
    """
    if data is not None and bits is not None:
        refuse("give --data or --bits, not both")
    if data is None and target_loss is not None:
        refuse("--target-loss is for --data, which is not given")
    target_loss = number("target_loss", target_loss or 0.0)
    result = accounting.capacity(model, rank=rank, bits=bits, targets=targets)
    if data is not None:
        try:
            bits = language.bits_to_learn(
                language.load(model), language.read_data(data), target_loss=target_loss
            )
        except FileNotFoundError as error:
            bits = len(language.read_text(data).encode()) / BYTES
            click.echo(f"assumed: {bits:,.0f} tokens of 1 bit each, since {error}", err=True)
        result = accounting.capacity(model, rank=rank, bits=bits, targets=targets)
    content = {**vars(result), "count": result.count.trainable, "free": result.free}
    options.show_as(content, as_json, result.table)
