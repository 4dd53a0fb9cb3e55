"""Define the commands on adapter files, such as ``inspect``, ``resize`` and ``merge``."""

from __future__ import annotations

from collections import UserDict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import click

from lora_np import adapters, language
from lora_np.checks import Array, refuse, respelled
from lora_np.cli import options
from lora_np.hub import ALL_FLOATS, float_dtype, read_arrays
from lora_np.table import Shown

# the options that set a goal for `resize` and `extract`; exactly one must be given
_GOALS: dict[str, tuple[Any, str]] = {
    "rank": (int, "The same rank for every module."),
    "energy": (float, "Share of its squared norm that each module keeps."),
    "tolerance": (float, "Relative error that each module may have."),
    "budget": (options.BYTES, "Size of the file, such as 10MB, shared among the modules."),
    "total_rank": (int, "Sum of all ranks, shared among the modules."),
}


def _written(command: options.Command) -> options.Command:
    """Add the options shared by the commands that write an adapter module by module."""
    for option in (
        options.as_json,
        options.force,
        options.jobs,
        options.portable,
        options.adapter_out,
    ):
        command = option(command)
    return command


_path = partial(click.argument, type=options.READ)
_adapter = _path("adapter")
_base = partial(click.option, "--base", type=options.READ)
_data = click.option(
    "--data", help="Text, chats or .npz: minimise output error on it, not weight error."
)


@click.command()
@_adapter
@_base(help="The base model to compare with.")
@options.plot
@options.html
@options.any_base
@options.jobs
@options.force_files
@options.as_json
def inspect(
    adapter: Path, plot: Path | None, html: Path | None, as_json: bool, **asked: Any
) -> None:
    """Show what is in an adapter: norms, spectra, unused rank.

    Example: lora-np inspect my-adapter --base llama --html report.html
    """
    # the user may name a file of an adapter, such as adapter_config.json, instead of its directory
    own = adapter.parent if adapter.is_file() and adapter.name.startswith("adapter") else adapter
    for path in (plot, html):
        if path is not None and path.exists() and path.resolve().is_relative_to(own.resolve()):
            raise click.BadParameter(f"must not replace {str(path)!r}; choose another file")
    result = adapters.inspect(adapter, **asked, progress=True)
    options.write_asked(result, plot, html)
    options.show_as(result, as_json, result.contents_table, result.kinds_table, result.table)


@click.command()
@_adapter
@_written
@_base(help="The base model, for --data.")
@_data
@options.each(_GOALS)
def resize(adapter: Path, out: Path, data: str | None, as_json: bool, **asked: Any) -> None:
    """Reduce an adapter's rank with the smallest possible error.

    Example: lora-np resize my-adapter --energy 0.99 -o small-adapter
    """
    if (base := asked.pop("base")) and not data:
        refuse(f"--base {base} is for --data, which is not given")
    asked = options.given(asked) | {"grams": data and _Inputs(base, data, adapter)}
    options.show_as(adapters.resize(adapter, out, **asked, progress=True).table, as_json)


@click.command()
@_path("base")
@_path("tuned")
@_written
@click.option(
    "--save-others", is_flag=True, help="Save in full the changed modules that cannot have a LoRA."
)
@_data
@options.any_base
@options.each(_GOALS)
def extract(
    base: Path, tuned: Path, out: Path, data: str | None, as_json: bool, **asked: Any
) -> None:
    """Turn the difference of two checkpoints into a LoRA.

    Example: lora-np extract llama my-llama --rank 16 -o my-adapter
    """
    asked = options.given(asked) | {"grams": data and _Inputs(tuned, data)}
    made = adapters.extract(base, tuned, out, **asked, progress=True)
    options.show_as(made.table, as_json, made.table, made.parts)


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="ADAPTER[=WEIGHT]...")
@_written
@click.option(
    "--method", type=options.WORD, default="sum", help="sum (exact), svd, ties, knots, regmean, ..."
)
@click.option(
    "--weights",
    hidden=True,
    expose_value=False,
    type=options.Parsed(lambda _: refuse("give weights as ADAPTER=WEIGHT, as in style=0.7")),
)
@click.option("--rank", type=int, help="Truncate the result to this rank.")
@click.option("--density", type=float, help="Share of entries to keep, for methods that drop some.")
@options.seed
@_base(help="The base model, for DoRA and --data.")
@click.option("--data", multiple=True, help="For regmean: text, chats or .npz of each adapter.")
@click.option(
    "--on-conflict",
    default="refuse",
    help="If two adapters save the same parameter: first, mean or refuse.",
)
@options.any_base
def combine(
    sources: tuple[str, ...],
    out: Path,
    base: Path | None,
    data: tuple[str, ...],
    as_json: bool,
    **asked: Any,
) -> None:
    """Combine several adapters into one.

    By default, it is the weighted sum of their updates.

    Example: lora-np combine style=0.7 task -o both --method svd
    """
    paths, weights = zip(*map(weighted, sources), strict=True)
    if data and len(data) != len(paths):
        refuse(f"--data must be given once for each adapter, got {len(data)} for {len(paths)}")
    asked["grams"] = (
        [_Inputs(base, *pair) for pair in zip(data, paths, strict=True)] if data else None
    )
    result = adapters.combine(paths, out, weights=weights, base=base, **asked, progress=True)
    options.show_as(result.table, as_json)


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="ADAPTER...")
@options.plot
@options.any_base
@options.jobs
@options.force_files
@options.as_json
def overlap(sources: tuple[str, ...], plot: Path | None, as_json: bool, **asked: Any) -> None:
    """Measure how far the updates of several adapters overlap.

    Example: lora-np overlap style task
    """
    result = adapters.overlap(sources, **asked, progress=True)
    options.write_asked(result, plot)
    options.show_as(result.table, as_json)


@click.command()
@_path("base")
@_adapter
@options.adapter_out
@click.option(
    "--dtype", help="bfloat16, float32, ...; GGUF: the kind of what is written, such as Q8_0 (own)."
)
@click.option("--rounding", help="nearest (as by default) or random.")
@options.seed_of(help="Random seed of the rounding (0).")
@click.option(
    "--by-module", is_flag=True, default=None, help="GGUF: a row for each module, not each kind."
)
@click.option(
    "--modelfile", is_flag=True, default=None, help="GGUF: write a Modelfile, for Ollama."
)
@options.any_base
@options.jobs
@options.force
@options.as_json
def merge(
    base: Path,
    adapter: Path,
    out: Path,
    as_json: bool,
    jobs: int,
    **asked: Any,
) -> None:
    """Merge an adapter into its base model, as one checkpoint.

    A directory becomes a directory, which transformers loads without PEFT and Ollama opens. A .gguf
    file becomes another one, for Ollama, LM Studio and llama.cpp. The output shows which share of
    the update remains after rounding, and which share of the entries does not change.

    Example: lora-np merge llama my-adapter -o my-llama
    """
    asked = options.given(asked)
    if "rng" in asked and asked.get("rounding") != "random":
        refuse("--seed is for --rounding random, which is not given")
    if base.suffix == ".gguf" != out.suffix:
        refuse(f"a base that is a .gguf file gives one: -o must end in .gguf, got {str(out)!r}")
    if out.suffix == ".gguf":
        if jobs > 1:
            refuse("--jobs is for shards, and a GGUF file has none")
        if "dtype" in asked:
            asked["dtype"] = asked["dtype"].upper()
        written: Shown = adapters.merge_gguf(base, adapter, out, **asked)
    elif for_gguf := [name for name in ("modelfile", "by_module") if name in asked]:
        flag = for_gguf[0].replace("_", "-")
        refuse(f"--{flag} is for a new model that is a .gguf file")
    else:
        if respelled(asked.get("dtype", "")) in ALL_FLOATS:
            asked["dtype"] = options.canonical(asked["dtype"])
        written = adapters.merge(base, adapter, out, jobs=jobs, progress=True, **asked)
    options.show_as(written.table, as_json)


@click.command()
@_path("first")
@_path("second")
@click.option("--tolerance", type=float, default=1e-5, help="The relative difference to ignore.")
@_base(help="The base model, for tuners whose update depends on it.")
@options.jobs
@options.as_json
def diff(first: Path, second: Path, as_json: bool, **asked: Any) -> None:
    """Compare what two adapters do, module by module.

    Their updates B A are compared, not their factors. The exit status is 3 if they differ.

    Example: lora-np diff my-adapter small-adapter --tolerance 0.05
    """
    result = adapters.diff(first, second, **asked, progress=True)
    options.show_as(result.table, as_json, status=0 if result.same else 3)


@click.command()
@_adapter
@options.adapter_out
@click.option(
    "--to",
    type=options.WORD,
    required=True,
    help="peft, portable, vllm, gguf, mlx, kohya or lora.",
)
@_base(help="The base model, or its config.json, where names need it.")
@click.option(
    "--tolerance", type=float, help="For lora: relative error to accept where none is exact."
)
@_data
@click.option(
    "--dtype",
    type=options.Parsed(lambda text: float_dtype(options.canonical(text))),
    help="float32, float16 or bfloat16; by default, that of the adapter.",
)
@options.force
@options.as_json
def convert(adapter: Path, out: Path, data: str | None, as_json: bool, **asked: Any) -> None:
    """Convert an adapter to another program's format.

    Formats are those of PEFT, llama.cpp (gguf), mlx-lm and kohya (for images); ADAPTER may be in
    any of them. "portable" is a directory for PEFT that vLLM, SGLang, TensorRT-LLM and llama.cpp's
    converter interpret identically: one rank, one scale, no patterns. "vllm" is this with experts
    one by one, if the base's checkpoint has them so. "lora" makes a LoRA of an adapter that another
    tuner of PEFT or of LyCORIS wrote, such as LoHa or VeRA. With --base, separate updates of q, k
    and v become one update if the base fuses these projections, and the reverse.

    Example: lora-np convert my-adapter --to gguf --base llama -o my-adapter.gguf
    """
    asked["grams"] = data and _Inputs(asked["base"], data)
    options.show_as(adapters.convert(adapter, out, **asked).table, as_json)


@click.command()
@_adapter
@click.option(
    "--for",
    "runtime",
    type=options.WORD,
    default="all",
    help="peft, vllm, sglang, llama.cpp, tensorrt-llm, mlx; for adapters of image models diffusers,"
    " comfyui; or all of those.",
)
@_base(help="The base model, or its config.json, to compare names with.")
@options.as_json
def check(adapter: Path, as_json: bool, **asked: Any) -> None:
    """Predict how other programs will run an adapter.

    The rules are those of one version of each program, which the table names; no program is run.
    The exit status is 3 if anything is not fine.

    Example: lora-np check my-adapter --for vllm
    """
    result = adapters.check(adapter, **asked)
    options.show_as(result, as_json, result.table, status=0 if result.fine else 3)


@click.command()
@_adapter
@options.adapter_out
@_base(required=True, help="The base model, or its config.json.")
@options.force
@options.as_json
def repair(adapter: Path, out: Path, as_json: bool, **asked: Any) -> None:
    """Rewrite an adapter with the module names of its base.

    Prefixes that training has added to names (_orig_mod., module.) are replaced by the base's
    prefix. Targets and patterns that match other modules, or none, become exact. An uncertain case
    is an error.

    Example: lora-np repair my-adapter --base llama -o repaired
    """
    options.show_as(adapters.repair(adapter, out, **asked).table, as_json)


class _Inputs(UserDict[str, Array]):
    """The Gram matrices of layers' inputs, computed on data or read from an .npz file.

    They are computed on first use, after the command has validated everything else.
    """

    def __init__(self, base: Path | None, source: str, adapter: Path | str | None = None) -> None:
        if base is None and not source.endswith(".npz"):
            refuse("--data is read by the base model: give it with --base")
        self.base, self.source, self.adapter = base, source, adapter

    @cached_property
    def data(self) -> dict[str, Array]:  # type: ignore[override]
        if self.base is None or self.source.endswith(".npz"):
            return read_arrays(self.source)
        data, model = language.read_data(self.source), language.load(self.base)
        model = model if self.adapter is None else adapters.attach(model, self.adapter)
        return language.grams(model, data)


def weighted(source: str) -> tuple[str, float]:
    """Split ``path=0.5`` into path and weight; the weight of ``path`` alone is 1."""
    path, separator, weight = source.rpartition("=")
    if not separator or Path(source).exists():
        return source, 1.0
    try:
        return path, float(weight)
    except ValueError:
        refuse(f"the weight of {path} must be a number, got {weight!r}")
