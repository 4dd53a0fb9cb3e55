"""``tour``, ``lab`` and ``claims``: the main job in one run, the lessons, what papers say."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from lora_np import course
from lora_np.checks import choice
from lora_np.cli.options import WRITTEN, as_json, show_as
from lora_np.table import Table


@click.command()
@click.option("--out", "-o", type=WRITTEN, default="lora-np-tour", help="The folder for all that it writes.")
@click.option("--quick", is_flag=True, help="Use a quarter of the data and of the steps.")
@click.option("--rng", type=int, default=0, help="Random seed.")
@as_json
def tour(out: Path, quick: bool, rng: int, as_json: bool) -> None:
    """Adapt a real model with LoRA and show what it saved: the whole story in one run.

    Example: lora-np tour --out my-tour
    """
    found = course.tour(out, quick=quick, rng=rng, progress=not as_json)
    parts = found.table, found.advantages, found.voice, f"\nReport with the figure: {found.report}"
    show_as(asdict(found), as_json, *parts)


@click.command()
@click.argument("folder", type=WRITTEN, default="lora-np-lessons")
@click.option("--browser/--no-browser", default=True, help="Open a window, or only print the address.")
@click.option("--port", type=click.IntRange(1, 65535), help="By default, the first free port.")
def lab(folder: Path, browser: bool, port: int | None) -> None:
    """Copy the lessons to a folder, never over your own work, and open JupyterLab (extra: notebooks).

    Example: lora-np lab --no-browser
    """
    new, kept = course.copy_lessons(folder)
    print(f"{folder}: {len(new)} lessons copied, {len(kept)} left as they were", flush=True)
    course.open_lab(folder, browser=browser, port=port)


@click.command()
@click.argument("name", required=False)
@as_json
def claims(name: str | None, as_json: bool) -> None:
    """Show what papers say about LoRA and what our runs say: all claims in a table, or all about one.

    Example: lora-np claims rslora
    """
    known = course.claims()
    if name is None:
        rows = [(key, claim["verdict"], claim["title"]) for key, claim in known.items()]
        show_as(Table(["claim", "verdict", "what is said"], rows), as_json)
        return
    claim = known[choice("claim", name, known)]
    named = [(claim["meaning"][key], figure) for key, figure in claim["figures"].items()]
    intervals = [(meaning, figure["mean"], figure["low"], figure["high"]) for meaning, figure in named]
    said = ("verdict", "paper", "published", "rule", "setting", "limits", "advice")
    notes = [f"{part}: {claim[part]}" for part in said if claim[part]]
    show_as(Table(["figure", "mean", "from", "to"], intervals, title=claim["title"], notes=notes), as_json)
