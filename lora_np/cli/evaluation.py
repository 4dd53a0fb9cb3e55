"""Define the command ``evaluate``, which compares models and adapters on your own data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from lora_np import accounting, adapters, language
from lora_np.cli import options


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--adapter", multiple=True, help="An adapter for the first MODEL. Repeatable.")
@options.any_base
@click.option("--data", required=True, help="Held-out examples: a file, as for finetune.")
@options.data_format
@click.option("--max-length", type=click.IntRange(1), help="Most tokens of an example.")
@click.option("--answers", type=click.IntRange(0), default=5, help="Answers to show (5).")
@options.quantised
@options.html
@options.force_files
@options.as_json
def evaluate(
    models: tuple[str, ...], adapter: tuple[str, ...], any_base: bool, data: str,
    format: str | None, max_length: int | None, answers: int, quantised: bool, html: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Compare models and adapters on the same held-out examples.

    Each MODEL is a directory as transformers writes it, a .gguf file, or a shipped model. All are
    compared with the first, example by example: loss and perplexity of the answers, exact match
    where answers are short, accuracy in multiple choice, tokens per second. Use data on which no
    model was trained: king-james was trained on genesis.

    Example: lora-np evaluate austen --adapter king-james --data austen-held-out
    """

    def opened() -> Iterator[tuple[str, language.LanguageModel]]:
        for i, name in enumerate(models):
            model = language.load(name, quantised=quantised)
            # first check that every adapter fits the model, because measuring is slow
            adapted = {
                path: adapters.attach(
                    model, adapters.load(path, base=model.config), any_base=any_base
                )
                for path in (adapter if i == 0 else ())
            }
            yield name, model
            yield from adapted.items()

    examples = language.read_data(data, format=format)
    if len({*models}) < len(models) or len({*adapter}) < len(adapter):
        raise click.UsageError("name each model and each adapter once")
    for name in models[1:]:
        accounting.model_spec(name)  # check that the model exists before measuring
    result = language.evaluate(opened(), examples, max_length=max_length, answers=answers)
    options.write_asked(result, None, html)
    tables = [result.table, *([result.differences] if len(result.names) > 1 else [])]
    options.show_as(result, as_json, *tables, *options.side_by_side(result.answers))
