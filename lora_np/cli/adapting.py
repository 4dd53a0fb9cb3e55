"""``inspect``, ``resize``, ``extract``, ``combine``, ``merge``, ``diff``: work on adapter files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lora_np.cli.shared import (
    PAGES,
    PICTURES,
    AnyBase,
    AsJSON,
    Force,
    Jobs,
    Out,
    check_target,
    show_as,
    with_options,
)
from lora_np.files import write_figure, write_text

AnAdapter = Annotated[
    Path, typer.Argument(help="A directory written by PEFT or by this package, or a shipped adapter.")
]
ABase = Annotated[Path, typer.Argument(help="The directory of the base model, or a shipped model.")]

# the goals of `resize` and `extract`, of which one is given
_GOALS: dict[str, tuple[type, str]] = {
    "rank": (int, "The same rank for every module."),
    "energy": (float, "Share of its squared norm that each module keeps."),
    "error": (float, "Relative error that is accepted in each module."),
    "bytes": (str, "Size of the file, such as 10MB, shared among the modules."),
    "total_rank": (int, "Sum of all ranks, shared among the modules."),
}
with_goal = with_options("goal", "One of these", _GOALS)


def inspect(
    adapter: AnAdapter,
    base: Annotated[
        Path | None, typer.Option(help="The base model, to compare with: a directory or a .gguf file.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write a figure of norms and spectra to this file.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with the figure and the tables.")] = None,
    any_base: AnyBase = False,
    jobs: Jobs = 1,
    as_json: AsJSON = False,
) -> None:
    """Show what an adapter is, and each of its modules: norm, spectrum, unused rank, damage.

    Example: lora-np inspect my-adapter --base llama --html report.html
    """
    from lora_np import adapters

    check_target("--plot", plot, PICTURES, inside=adapter)
    check_target("--html", html, PAGES, inside=adapter)
    found = adapters.inspect(adapter, base=base, any_base=any_base, jobs=jobs, progress=True)
    if plot is not None:
        write_figure(found.figure(), plot, dpi=150)
    if html is not None:
        write_text(html, found.to_html())
    show_as(found, as_json, found.contents_table, found.kinds_table, found.table)


@with_goal
def resize(
    adapter: AnAdapter,
    out: Out,
    jobs: Jobs = 1,
    force: Force = False,
    as_json: AsJSON = False,
    *,
    goal: dict[str, Any],
) -> None:
    """Write the adapter at other ranks: for each module, the best approximation of its rank.

    Example: lora-np resize my-adapter --energy 0.99 -o small-adapter
    """
    from lora_np import adapters

    check_goal(goal)
    show_as(adapters.resize(adapter, out, **goal, jobs=jobs, force=force, progress=True).table, as_json)


@with_goal
def extract(
    base: ABase,
    tuned: Annotated[Path, typer.Argument(help="The directory of the tuned model.")],
    out: Out,
    save_others: Annotated[
        bool, typer.Option("--save-others", help="Save the changed modules that cannot have a LoRA in full.")
    ] = False,
    any_base: AnyBase = False,
    jobs: Jobs = 1,
    force: Force = False,
    as_json: AsJSON = False,
    *,
    goal: dict[str, Any],
) -> None:
    """Write the difference of two checkpoints as a LoRA.

    Example: lora-np extract llama my-llama --rank 16 -o my-adapter
    """
    from lora_np import adapters

    check_goal(goal)
    options: dict[str, Any] = {"save_others": save_others, "any_base": any_base, "jobs": jobs, "force": force}
    show_as(adapters.extract(base, tuned, out, **goal, **options, progress=True).table, as_json)


def combine(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="ADAPTER[=WEIGHT]...", help="Adapters with their weights, which default to 1."
        ),
    ],
    out: Out,
    method: Annotated[
        str, typer.Option(help="cat, linear (which adds factors, not updates) or svd.")
    ] = "svd",
    rank: Annotated[
        int | None, typer.Option(help="For svd; by default, the largest rank among the adapters.")
    ] = None,
    any_base: AnyBase = False,
    jobs: Jobs = 1,
    force: Force = False,
    as_json: AsJSON = False,
) -> None:
    """Write one adapter for the weighted sum of several.

    Example: lora-np combine style=0.7 task -o both --method cat
    """
    from lora_np import adapters

    paths, weights = zip(*map(weighted, sources), strict=True)
    options: dict[str, Any] = {"method": method.lower(), "rank": rank, "any_base": any_base}
    options |= {"jobs": jobs, "force": force}
    show_as(adapters.combine(paths, out, weights=weights, **options, progress=True).table, as_json)


def merge(
    base: ABase,
    adapter: AnAdapter,
    out: Out,
    any_base: AnyBase = False,
    full_precision: Annotated[
        bool,
        typer.Option("--full-precision", help="Write a base that bitsandbytes quantised in float32."),
    ] = False,
    jobs: Jobs = 1,
    force: Force = False,
    as_json: AsJSON = False,
) -> None:
    """Write a base and an adapter as one checkpoint, which transformers loads without PEFT.

    Example: lora-np merge llama my-adapter -o my-llama
    """
    from lora_np import adapters

    options: dict[str, Any] = {"any_base": any_base, "full_precision": full_precision}
    options |= {"jobs": jobs, "force": force}
    show_as(adapters.merge(base, adapter, out, **options, progress=True).table, as_json)


def diff(
    first: AnAdapter,
    second: Annotated[Path, typer.Argument(help="Another adapter.")],
    tolerance: Annotated[float, typer.Option(help="The relative difference that is ignored.")] = 1e-5,
    jobs: Jobs = 1,
    as_json: AsJSON = False,
) -> None:
    """Compare what two adapters do, as maps and not as factors. The exit status is 3 if they differ.

    Example: lora-np diff my-adapter small-adapter --tolerance 0.05
    """
    from lora_np import adapters

    found = adapters.diff(first, second, tolerance=tolerance, jobs=jobs, progress=True)
    show_as(found.table, as_json)
    if not found.same:
        raise typer.Exit(3)


def check_goal(goal: dict[str, Any]) -> None:
    if len(goal) != 1:
        options = [f"--{name.replace('_', '-')}" for name in _GOALS]
        raise typer.BadParameter(f"give one of {', '.join(options[:-1])} and {options[-1]}")
    if goal.get("bytes", "").isdecimal():
        goal["bytes"] = int(goal["bytes"])


def weighted(source: str) -> tuple[str, float]:
    """A path and its weight, from ``path=0.5`` or ``path``."""
    path, separator, weight = source.rpartition("=")
    if not separator or Path(source).exists():
        return source, 1.0
    try:
        return path, float(weight)
    except ValueError:
        raise typer.BadParameter(f"the weight of {path} must be a number, got {weight!r}") from None
