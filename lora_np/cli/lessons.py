"""``tour`` and ``lab``: the main job in one run, and the lessons."""

from __future__ import annotations

from pathlib import Path

import click

from lora_np.cli.options import WRITTEN, as_json, print_json, show


@click.command()
@click.option(
    "--out", "-o", **WRITTEN, default="lora-np-tour", help="The folder for figures, files and report.html."
)
@click.option("--quick", is_flag=True, help="Use a quarter of the data and of the steps.")
@click.option("--rng", type=int, default=0, help="Random seed.")
@as_json
def tour(out: Path, quick: bool, rng: int, as_json: bool) -> None:
    """Adapt a real model with LoRA and show what it saved: the whole story in one run.

    Example: lora-np tour --out my-tour
    """
    from dataclasses import asdict

    from lora_np.course import tour as run_tour

    found = run_tour(out, quick=quick, rng=rng, progress=not as_json)
    if as_json:
        print_json(asdict(found))
        return
    show(found.table, found.advantages)
    print(found.voice, "", f"Report with figures: {found.report}", sep="\n")


@click.command()
@click.argument("folder", **WRITTEN, default="lora-np-lessons")
@click.option(
    "--browser/--no-browser", default=True, help="Open a browser window, or only print the address."
)
@click.option("--port", type=click.IntRange(1, 65535), help="By default, the first free port.")
def lab(folder: Path, browser: bool, port: int | None) -> None:
    """Copy the lessons to a folder, never over your own work, and open JupyterLab (extra: notebooks).

    Example: lora-np lab --no-browser
    """
    from lora_np.course import copy_lessons, open_lab

    new, kept = copy_lessons(folder)
    print(f"{folder}: {len(new)} lessons copied, {len(kept)} left as they were", flush=True)
    open_lab(folder, browser=browser, port=port)
