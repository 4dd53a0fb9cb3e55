"""``inspect``, ``resize``, ``extract``, ``combine``, ``merge``, ``diff``: work on adapter files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lora_np.cli.shared import PAGES, PICTURES, AsJSON, Force, Jobs, Out, check_target, one_goal, show_as
from lora_np.files import whole


def inspect(
    adapter: Annotated[Path, typer.Argument(help="A directory as PEFT writes it.")],
    base: Annotated[Path | None, typer.Option(help="The base model's directory, to compare with.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw strength and spectrum into this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with figure and table.")] = None,
    jobs: Jobs = 1,
    as_json: AsJSON = False,
) -> None:
    """What an adapter holds, module by module: strength, spectrum, waste, damage.

    Example: lora-np inspect my-adapter --base llama --html report.html
    """
    from lora_np import adapters

    check_target("--plot", plot, PICTURES, inside=adapter)
    check_target("--html", html, PAGES, inside=adapter)
    found = adapters.inspect(adapter, base=base, jobs=jobs, progress=True)
    if plot is not None:
        with whole(plot) as stage:
            found.figure().savefig(stage, dpi=150)
    if html is not None:
        with whole(html) as stage:
            stage.write_text(found.to_html(), encoding="utf-8")
    show_as(found.table, as_json)


def resize(
    adapter: Annotated[Path, typer.Argument(help="A directory as PEFT writes it.")],
    out: Out,
    rank: Annotated[int | None, typer.Option(help="The same rank everywhere.")] = None,
    energy: Annotated[float | None, typer.Option(help="Share of its squared norm that each keeps.")] = None,
    error: Annotated[float | None, typer.Option(help="Relative error that each may have.")] = None,
    size: Annotated[int | None, typer.Option("--bytes", help="Size of the file, shared out.")] = None,
    total_rank: Annotated[int | None, typer.Option(help="Sum of all ranks, shared out.")] = None,
    jobs: Jobs = 1,
    force: Force = False,
    as_json: AsJSON = False,
) -> None:
    """An adapter at other ranks, each module the best approximation of its rank.

    Example: lora-np resize my-adapter --energy 0.99 -o small-adapter
    """
    from lora_np import adapters

    goal = one_goal(rank=rank, energy=energy, error=error, bytes=size, total_rank=total_rank)
    show_as(adapters.resize(adapter, out, **goal, jobs=jobs, force=force, progress=True), as_json)


def extract(
    base: Annotated[Path, typer.Argument(help="The base model's directory.")],
    tuned: Annotated[Path, typer.Argument(help="The tuned model's directory.")],
    out: Out,
    rank: Annotated[int | None, typer.Option(help="The same rank everywhere.")] = None,
    energy: Annotated[float | None, typer.Option(help="Share of its squared norm that each keeps.")] = None,
    size: Annotated[int | None, typer.Option("--bytes", help="Size of the file, shared out.")] = None,
    save_others: Annotated[
        bool, typer.Option("--save-others", help="Keep what can not carry a LoRA as modules_to_save.")
    ] = False,
    jobs: Jobs = 1,
    force: Force = False,
    as_json: AsJSON = False,
) -> None:
    """The difference of two checkpoints as a LoRA.

    Example: lora-np extract llama my-llama --rank 16 -o my-adapter
    """
    from lora_np import adapters

    goal = one_goal(rank=rank, energy=energy, bytes=size)
    options: dict[str, Any] = {"save_others": save_others, "jobs": jobs, "force": force}
    show_as(adapters.extract(base, tuned, out, **goal, **options, progress=True), as_json)


def combine(
    sources: Annotated[
        list[str], typer.Argument(metavar="ADAPTER[=WEIGHT]...", help="Weights are 1 if left out.")
    ],
    out: Out,
    method: Annotated[str, typer.Option(help="cat, linear (adds up factors, not updates) or svd.")] = "svd",
    rank: Annotated[int | None, typer.Option(help="For svd; by default the largest of all.")] = None,
    jobs: Jobs = 1,
    force: Force = False,
    as_json: AsJSON = False,
) -> None:
    """One adapter for the weighted sum of several.

    Example: lora-np combine style=0.7 task -o both --method cat
    """
    from lora_np import adapters

    paths, weights = zip(*map(weighted, sources), strict=True)
    options: dict[str, Any] = {"method": method, "rank": rank, "jobs": jobs, "force": force}
    show_as(adapters.combine(paths, out, weights=weights, **options, progress=True), as_json)


def merge(
    base: Annotated[Path, typer.Argument(help="The base model's directory.")],
    adapter: Annotated[Path, typer.Argument(help="A directory as PEFT writes it.")],
    out: Out,
    jobs: Jobs = 1,
    force: Force = False,
    as_json: AsJSON = False,
) -> None:
    """A base and an adapter in one checkpoint, which transformers loads as it is.

    Example: lora-np merge llama my-adapter -o my-llama
    """
    from lora_np import adapters

    show_as(adapters.merge(base, adapter, out, jobs=jobs, force=force, progress=True), as_json)


def diff(
    first: Annotated[Path, typer.Argument(help="A directory as PEFT writes it.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    tolerance: Annotated[float, typer.Option(help="Relative difference that counts as none.")] = 1e-5,
    jobs: Jobs = 1,
    as_json: AsJSON = False,
) -> None:
    """Whether two adapters do the same thing: as maps, not as factors. Exit status 3 if not.

    Example: lora-np diff my-adapter small-adapter --tolerance 0.05
    """
    from lora_np import adapters

    found = adapters.diff(first, second, tolerance=tolerance, jobs=jobs, progress=True)
    show_as(found.table, as_json)
    if not found.same:
        raise typer.Exit(3)


def weighted(source: str) -> tuple[str, float]:
    """A path and its weight, from ``path=0.5`` or ``path``."""
    path, separator, weight = source.rpartition("=")
    if not separator or Path(source).exists():
        return source, 1.0
    try:
        return path, float(weight)
    except ValueError:
        raise typer.BadParameter(f"the weight of {path} must be a number, got {weight!r}") from None
