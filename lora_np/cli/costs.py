"""``count``, ``plan`` and ``errors``: what a LoRA costs, what fits on a card, and which rank is enough."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lora_np.cli.options import (
    PICTURES,
    READ,
    as_json,
    check_target,
    given,
    options,
    print_json,
    ranks,
    render,
    saved,
    show,
    show_as,
    targets,
)

if TYPE_CHECKING:
    from lora_np.table import Table

# the fields of TrainingOptions, each an option of every command that estimates memory
_TRAINING: dict[str, tuple[Any, str]] = {
    "dtype": (str.lower, "How the base is held: float32, bfloat16, float16, int8 or nf4."),
    "unquantised_dtype": (
        str.lower,
        "How the rest of a quantised base is held (float32, as in PEFT).",
    ),
    "double_quantization": (bool, "Quantise the constants of nf4 as well."),
    "adapter_dtype": (str.lower, "How LoRA's factors are held; float32 in PEFT."),
    "optimizer": (str.lower, "adamw, adamw_8bit, paged_adamw, paged_adamw_8bit, adafactor, momentum or sgd."),
    "master_copy": (bool, "Keep a float32 copy of weights trained in 16 bits."),
    "batch_size": (int, "Sequences computed at a time."),
    "accumulate": (int, "Batches in a step."),
    "context": (int, "Tokens in a sequence (512)."),
    "attention": (str.lower, "fused (memory-efficient) or eager."),
    "cross_entropy": (str.lower, "plain, or fused: never holds all logits at once."),
    "checkpointing": (bool, "Keep only the input of each layer (on)."),
}


@click.command()
@click.argument("source", default="")
@ranks
@targets
@saved
@click.option("--config", help="An adapter_config.json, instead of --rank, --targets and the like.")
@click.option("--dora", is_flag=True, help="Count the magnitudes of DoRA as well.")
@click.option(
    "--experts", type=str.lower, default="peft", help="How experts are counted: peft or per-expert."
)
@click.option("--by", type=str.lower, help="List what is adapted, by module or by kind.")
@click.option("--memory", is_flag=True, help="Estimate the memory of training.")
@click.option("--json", "forms", flag_value="json", multiple=True, help="Print JSON instead of tables.")
@click.option("--markdown", "forms", flag_value="markdown", multiple=True, help="Print Markdown tables.")
@click.option("--csv", "forms", flag_value="csv", multiple=True, help="Print comma-separated values.")
@click.option("--list", "catalogue", is_flag=True, help="List presets and families.")
@options(_TRAINING)
def count(source: str, forms: tuple[str, ...], catalogue: bool, **asked: Any) -> None:
    """Count what a LoRA costs, in parameters and in memory, for a matrix or for a whole model.

    SOURCE is 100x120, a preset, a shipped model, a config.json, a *.safetensors, or its directory.
    The options from --dtype on are for --memory.

    Example: lora-np count llama-3-8b --rank 8 --rank 16 --targets all-linear --by kind --memory
    """
    from lora_np import accounting

    asked = given(asked)
    if catalogue and source:
        raise click.UsageError(f"--list takes no SOURCE, got {source!r}")
    if catalogue and any(asked[name] for name in asked.keys() - {"experts"}):
        raise click.UsageError("--list takes no option but a format: --json, --markdown or --csv")
    if not (catalogue or source):
        raise click.UsageError("name a SOURCE, or pass --list")
    if len(forms) > 1:
        raise click.UsageError(f"choose one of --{' and --'.join(forms)}")
    if catalogue:
        listed = accounting.catalogue()
        tables: tuple[Table, ...] = (listed.table, listed.family_table)
    else:
        tables = accounting.count_source(source, **asked).tables
    if forms:
        print(render(tables, forms[0]))
    else:
        show(*tables)


@click.command()
@click.argument("source")
@click.option("--card", required=True, help='A card, such as "RTX 4090", or a memory, such as 24GB.')
@ranks
@targets
@click.option(
    "--method", "methods", type=click.Choice(("full", "LoRA", "QLoRA"), case_sensitive=False), multiple=True,
    help="May be repeated.",
)  # fmt: skip
@saved
@click.option("--dora", is_flag=True, help="Include the magnitudes of DoRA.")
@click.option("--tokens", type=int, help="Tokens of training, for hours and energy (a million).")
@click.option("--plot", type=READ, help="Draw memory by cause to this file.")
@as_json
@options(_TRAINING)
def plan(source: str, plot: Path | None, as_json: bool, **asked: Any) -> None:
    """Show which LoRA fits on a card, how far it could go, and what it costs. Exit status 3: none fits.

    Example: lora-np plan llama-3-8b --card "RTX 4090"

    Example: lora-np plan llama-3-70b --card 48GB --method QLoRA --rank 16 --optimizer paged_adamw_8bit

    Example: lora-np plan gemma-2-2b --card T4 --context 1024 --cross-entropy fused --plot plan.png
    """
    from dataclasses import asdict

    from lora_np import accounting

    check_target("--plot", plot, PICTURES)
    found = accounting.plan(source, **given(asked))
    if plot is not None:
        from matplotlib.figure import Figure

        from lora_np.files import write_figure
        from lora_np.plots import memory_by_cause

        figure = Figure(figsize=(8, 1.4 + 0.36 * len(found.choices)), layout="constrained")
        parts = {each.name: each.memory.parts for each in found.choices}
        memory_by_cause(parts, room=found.card.memory, ax=figure.add_subplot())
        write_figure(figure, plot, dpi=150)
    if as_json:
        print_json({**asdict(found), "fits": found.fits})
    else:
        show(found.table, found.causes, found.costs)
    if not found.fits:
        click.get_current_context().exit(3)


@click.command()
@click.argument("matrix")
@click.option("--norm", type=str.lower, help="fro, spectral or nuclear.")
@click.option("--energy", type=float, help="Share of the squared norm to keep, by default 0.99.")
@click.option("--tolerance", type=float, help="Instead, the accepted relative error in the norm.")
@click.option("--plot", type=READ, help="Write the curve to this file.")
@as_json
def errors(matrix: str, plot: Path | None, as_json: bool, **asked: Any) -> None:
    """Print the error of the best approximation of each rank, and the smallest rank that is enough.

    MATRIX is FILE.npy, or FILE.safetensors:TENSOR, which reads only that tensor.

    Example: lora-np errors adapter.safetensors:layers.0.q_proj.lora_B.weight --tolerance 0.05
    """
    from lora_np.accounting import rank_errors_of

    check_target("--plot", plot, PICTURES)
    found = rank_errors_of(matrix, **given(asked))
    if plot is not None:
        from lora_np.files import write_figure

        write_figure(found.figure(), plot, dpi=150)
    show_as(found, as_json, found.table)
