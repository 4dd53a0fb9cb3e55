"""``tour`` and ``lab``: the main job in one run, and the lessons."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lora_np.cli.shared import AsJSON, output_path, print_json, show


def tour(
    out: Annotated[
        Path,
        typer.Option(
            parser=output_path, metavar="PATH", help="The folder for figures, files and report.html."
        ),
    ] = Path("lora-np-tour"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Use a quarter of the data and of the steps.")
    ] = False,
    rng: Annotated[int, typer.Option(help="Random seed.")] = 0,
    as_json: AsJSON = False,
) -> None:
    """Adapt a real model with LoRA and show what it saved: the whole story in one run.

    Example: lora-np tour --out my-tour
    """
    from lora_np.course import tour as run_tour

    found = run_tour(out, quick=quick, rng=rng, progress=not as_json)
    if as_json:
        print_json(asdict(found))
        return
    show(found.table, found.advantages)
    print(*found.voice.lines(), "", sep="\n")
    show(found.voice.table)
    print(f"Report with figures: {found.report}")


def lab(
    folder: Annotated[
        Path, typer.Argument(parser=output_path, help="The folder to copy the lessons to.")
    ] = Path("lora-np-lessons"),
    browser: Annotated[bool, typer.Option(help="Open a browser window, or only print the address.")] = True,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="By default, the first free port.")
    ] = None,
) -> None:
    """Copy the lessons to a folder, never over your own work, and open JupyterLab (extra: notebooks).

    Example: lora-np lab --no-browser
    """
    from lora_np.course import copy_lessons, open_lab

    new, kept = copy_lessons(folder)
    print(f"{folder}: {len(new)} lessons copied, {len(kept)} left as they were", flush=True)
    open_lab(folder, browser=browser, port=port)
