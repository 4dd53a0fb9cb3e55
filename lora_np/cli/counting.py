"""``count``, ``plan`` and ``errors``: what a LoRA costs, what fits on a card, and which rank is enough."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_np.cli.shared import (
    PICTURES,
    AsJSON,
    Targets,
    check_target,
    parse_names,
    parse_targets,
    print_json,
    render,
    show,
    show_as,
    with_options,
)
from lora_np.files import write_figure

# the fields of TrainingOptions, each an option of every command that estimates memory
_TRAINING: dict[str, tuple[type, str]] = {
    "dtype": (str, "How the base is held: float32, bfloat16, float16, int8 or nf4."),
    "unquantised_dtype": (str, "How the rest of a quantised base is held (float32, as PEFT prepares it)."),
    "double_quantization": (bool, "Quantise the constants of nf4 as well."),
    "adapter_dtype": (str, "How LoRA's factors are held; PEFT has float32."),
    "optimizer": (str, "adamw, adamw_8bit, paged_adamw, paged_adamw_8bit, adafactor, momentum or sgd."),
    "master_copy": (bool, "Keep a float32 copy of weights that are trained in 16 bits."),
    "batch_size": (int, "Sequences that are computed at a time."),
    "accumulate": (int, "Batches in a step."),
    "context": (int, "Tokens in a sequence (512)."),
    "attention": (str, "fused (memory-efficient) or eager."),
    "cross_entropy": (str, "plain, or fused: the logits are never there at once."),
    "checkpointing": (bool, "Keep only the input of each layer (on)."),
}


with_training = with_options("training", "Training", _TRAINING)


@with_training
def count(
    source: Annotated[
        str,
        typer.Argument(
            help="100x120, a preset, a shipped model, a config.json, a *.safetensors, or its directory."
        ),
    ] = "",
    rank: Annotated[list[int] | None, typer.Option(help="Rank of the adapter; may be repeated.")] = None,
    targets: Targets = None,
    modules_to_save: Annotated[
        str | None,
        typer.Option(help="Suffixes of the modules that are trained in full, separated by commas."),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(help="An adapter_config.json, in the place of --rank, --targets and the like."),
    ] = None,
    dora: Annotated[bool, typer.Option("--dora", help="Count the magnitudes of DoRA as well.")] = False,
    experts: Annotated[str, typer.Option(help="How experts are counted: peft or per-expert.")] = "peft",
    by: Annotated[str | None, typer.Option(help="List what is adapted: module or kind.")] = None,
    memory: Annotated[bool, typer.Option("--memory", help="Estimate the memory of training.")] = False,
    as_json: AsJSON = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    catalogue: Annotated[bool, typer.Option("--list", help="List presets and families.")] = False,
    *,
    training: dict[str, Any],
) -> None:
    """Count what a LoRA costs, in parameters and in memory, for a matrix or for a whole model.

    The options under Training are for --memory.

    Example: lora-np count llama-3-8b --rank 8 --rank 16 --targets all-linear --by kind --memory
    """
    from lora_np import accounting
    from lora_np.table import Table

    if catalogue and source:
        raise typer.BadParameter(f"--list takes no SOURCE, got {source!r}")
    if catalogue and (rank or targets or modules_to_save or config or dora or by or memory or training):
        raise typer.BadParameter("--list takes no option but a format: --json, --markdown or --csv")
    saved = parse_names(modules_to_save or "")
    if modules_to_save is not None and not saved:
        raise typer.BadParameter(f"--modules-to-save must name a module, got {modules_to_save!r}")
    if catalogue:
        listed = accounting.catalogue()
        tables: tuple[Table, ...] = (listed.table, listed.family_table)
    elif source:
        tables = accounting.count_source(
            source,
            rank=rank or (),
            config=config,
            targets=parse_targets(targets) if targets is not None else None,
            modules_to_save=saved,
            dora=dora,
            experts=experts,
            by=by,
            memory=memory,
            **training,
        ).tables
    else:
        raise typer.BadParameter("name a SOURCE, or pass --list")
    asked = {"json": as_json, "markdown": as_markdown, "csv": as_csv}
    forms = [form for form, wanted in asked.items() if wanted]
    if len(forms) > 1:
        raise typer.BadParameter(f"choose one of --{' and --'.join(forms)}")
    if forms:
        print(render(tables, forms[0]))
    else:
        show(*tables)


@with_training
def plan(
    source: Annotated[str, typer.Argument(help="A preset, a config.json, or a directory with one.")],
    card: Annotated[str, typer.Option(help='A card, such as "RTX 4090", or a memory, such as 24GB.')],
    rank: Annotated[list[int] | None, typer.Option(help="Rank (8 and 64); may be repeated.")] = None,
    targets: Targets = None,
    method: Annotated[list[str] | None, typer.Option(help="full, LoRA or QLoRA; may be repeated.")] = None,
    modules_to_save: Annotated[
        str, typer.Option(help="Suffixes of the modules that are trained in full, separated by commas.")
    ] = "",
    dora: Annotated[bool, typer.Option("--dora", help="With the magnitudes of DoRA.")] = False,
    tokens: Annotated[int, typer.Option(help="Tokens of training, for hours and energy.")] = 1_000_000,
    plot: Annotated[Path | None, typer.Option(help="Draw memory by cause to this file.")] = None,
    as_json: AsJSON = False,
    *,
    training: dict[str, Any],
) -> None:
    """Say which LoRA fits on a card, how far it could go, and what it costs. Exit status 3: none fits.

    Example: lora-np plan llama-3-8b --card "RTX 4090"

    Example: lora-np plan llama-3-70b --card 48GB --method QLoRA --rank 16 --optimizer paged_adamw_8bit

    Example: lora-np plan gemma-2-2b --card T4 --context 1024 --cross-entropy fused --plot plan.png
    """
    from lora_np import accounting

    check_target("--plot", plot, PICTURES)
    found = accounting.plan(
        source,
        card=card,
        rank=rank or None,
        methods=method or accounting.METHODS,
        targets=parse_targets(targets) if targets is not None else None,
        tokens=tokens,
        modules_to_save=parse_names(modules_to_save),
        dora=dora,
        **training,
    )
    if plot is not None:
        from matplotlib.figure import Figure

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
        raise typer.Exit(3)


def errors(
    matrix: Annotated[
        str, typer.Argument(help="FILE.npy, or FILE.safetensors:TENSOR, of which only that tensor is read.")
    ],
    norm: Annotated[str, typer.Option(help="fro, spectral or nuclear.")] = "fro",
    energy: Annotated[
        float | None, typer.Option(help="The share of the squared norm that is enough, by default 0.99.")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Instead, the relative error in the norm that is accepted.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the curve to this file.")] = None,
    as_json: AsJSON = False,
) -> None:
    """Print the error of the best approximation of each rank, and the smallest rank that is enough.

    Example: lora-np errors adapter.safetensors:layers.0.q_proj.lora_B.weight --tolerance 0.05
    """
    from lora_np.accounting import rank_errors_of

    check_target("--plot", plot, PICTURES)
    found = rank_errors_of(matrix, norm=norm, energy=energy, tolerance=tolerance)  # type: ignore[arg-type]
    if plot is not None:
        write_figure(found.figure(), plot, dpi=150)
    show_as(found, as_json, found.table)
