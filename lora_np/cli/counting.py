"""``count`` and ``errors``: what a LoRA costs, and which rank is enough."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lora_np.cli.shared import PICTURES, AsJSON, check_target, parse_names, parse_targets, render, show
from lora_np.files import write_figure


def count(
    source: Annotated[
        str,
        typer.Argument(help="100x120, a preset, a config.json, a *.safetensors, or a directory with one."),
    ] = "",
    rank: Annotated[list[int] | None, typer.Option(help="Rank of the adapter; may be repeated.")] = None,
    targets: Annotated[
        str | None,
        typer.Option(help="Suffixes of names (q_proj,v_proj), all-linear, or a regular expression."),
    ] = None,
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
    batch: Annotated[int, typer.Option(help="Sequences in a step (with --memory).")] = 1,
    sequence: Annotated[int, typer.Option(help="Tokens in a sequence (with --memory).")] = 512,
    as_json: AsJSON = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    catalogue: Annotated[bool, typer.Option("--list", help="List presets and families.")] = False,
) -> None:
    """Count what a LoRA costs, in parameters and in memory, for a matrix or for a whole model.

    Example: lora-np count llama-3-8b --rank 8 --rank 16 --targets all-linear --by kind --memory
    """
    from lora_np import accounting
    from lora_np.table import Table

    if catalogue and source:
        raise typer.BadParameter(f"--list takes no SOURCE, got {source!r}")
    saved = parse_names(modules_to_save or "")
    if modules_to_save is not None and not saved:
        raise typer.BadParameter(f"--modules-to-save must name a module, got {modules_to_save!r}")
    if catalogue:
        listed = accounting.catalogue()
        tables: tuple[Table, ...] = (listed.table, listed.family_table)
    elif source:
        tables = accounting.count_source(
            source,
            ranks=rank or [],
            config=config,
            targets=parse_targets(targets) if targets is not None else None,
            modules_to_save=saved,
            dora=dora,
            experts=experts,
            by=by,
            memory=memory,
            batch=batch,
            sequence=sequence,
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
        for table in tables:
            show(table)


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
        from matplotlib.figure import Figure

        from lora_np.plots import rank_error_curves

        figure = Figure(figsize=(6, 3.8), layout="constrained")
        rank_error_curves(
            {Path(matrix).name: found.errors}, tolerance=found.tolerance, ax=figure.add_subplot()
        )
        write_figure(figure, plot, dpi=150)
    if as_json:
        print(found.to_json())
    else:
        show(found.table)
