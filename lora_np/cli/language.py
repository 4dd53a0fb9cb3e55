"""Define ``finetune`` and ``generate``, which adapt a language model and generate text."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click

from lora_np import adapters, language
from lora_np.checks import refuse
from lora_np.cli import options
from lora_np.work import usual_threads

QUESTIONS = 5  # the number of questions in the HTML report


@click.command()
@click.argument("model")
@click.argument("data")
@options.trained_out
@options.data_format
@click.option("--validation", help="Other data to hold out; by default a tenth of DATA.")
@options.every_linear
@options.each(options.of_settings(language.FinetuneSettings))
@click.option(
    "--sample-every",
    type=click.IntRange(0),
    help="Steps between answers to a held-out question; 0 for none at all.",
)
@click.option("--prompt", help="Text to continue, instead of held-out questions.")
@click.option(
    "--dry-run", is_flag=True, help="Show examples, tokens, time and memory; train nothing."
)
@options.html
@options.plot
@click.option("--checkpoint", type=options.FILE, help="A file to continue from after a crash.")
@click.option("--resume", is_flag=True, help="Continue from --checkpoint.")
@options.quantised
@options.seed
@options.force
@options.as_json
@usual_threads()
def finetune(
    model: str, data: str, out: Path | None, format: str | None, validation: str | None,
    sample_every: int | None, prompt: str | None, dry_run: bool, html: Path | None,
    plot: Path | None,
    quantised: bool, force: bool, as_json: bool, **asked: Any,
) -> None:  # fmt: skip
    """Train a LoRA on text, conversations or instructions.

    MODEL is a directory as transformers writes it, a .gguf file, or a shipped model. DATA is a file
    of JSON lines with messages, prompt and completion, instruction and output, or text; CSV with
    such columns; any text in UTF-8; - for standard input, or a shipped text. A tenth is held out.
    Ctrl-C ends the run early and keeps the result so far.

    Example: lora-np finetune austen genesis -o my-adapter --rank 8 --steps 100
    """
    if not dry_run:
        if out is None:
            refuse("name the adapter to write with -o, or ask for a --dry-run")
        options.check_place(out)
    elif html or plot:
        refuse("a --dry-run trains nothing to show: leave out --html and --plot")
    training = options.given({**asked, "sample_every": sample_every or None})
    language.FinetuneSettings(**training)  # check the settings before reading files
    told, base = language.read_data(data, format=format), language.load(model, quantised=quantised)
    if validation is not None:
        training["validation"] = language.read_data(validation, format=format)
    if out is None or dry_run:
        estimate = language.forecast(base, told, **training, tell=tell)
        heading = "--- an example: what is learnt is in [[ ]]"
        shown = (f"{heading}\n{example}\n" for example in estimate.examples)
        options.show_as(estimate.table, as_json, *shown, estimate.table, written=False)
        return
    asked_for = 0 if sample_every == 0 else QUESTIONS
    training |= {"questions": [prompt] if prompt and asked_for else asked_for, "tell": tell}
    result = language.finetune(base, told, **training)
    refuse_failure(result)
    adapters.save(result.model, out, base=model, force=force)
    words = [word for word in click.get_current_context().obj if word != "--resume"]
    options.write_asked(result, plot, html, command=shlex.join(["lora-np", *words]))
    options.show_as(result.table, as_json, result.loss_table, result.table)
    if result.interrupted:
        tell(f"Stopped after {result.steps} steps")
        raise KeyboardInterrupt


def tell(note: object) -> None:
    print(note, file=sys.stderr, flush=True)


def refuse_failure(result: language.Adapted) -> None:
    """Raise an error if training diverged or changed nothing; warn if it overfitted."""
    # not result.after, which is the lowest loss if --patience is given
    last = result.history.validation_loss[-1]
    advice = (
        f"training took the held-out loss from {result.before:.4g} to {last:.4g} nats a token;"
        " nothing was written: try a learning rate"
    )
    rate, same = result.settings["lr"], result.after == result.before
    if not result.interrupted:
        if result.diverged or (same and last != result.before):
            raise FloatingPointError(f"{advice} below {rate:g}, or fewer steps")
        if same:
            raise ValueError(f"{advice} above {rate:g}, or more steps")
    if result.after > result.before:
        tell("Only the training loss fell (overfitting): try fewer steps or a longer text")


@click.command()
@click.argument("model", default="austen")
@click.option("--adapter", help="An adapter in any format, or a shipped one.")
@options.any_base
@click.option("--prompt", help="Beginning of the text; in a chat, the question.")
@click.option(
    "--chat", is_flag=True, help="Converse with an instruction-tuned model until the input ends."
)
@click.option("--system", help="System message of a chat.")
@options.each(options.of_settings(language.Sampling))
@click.option("--stop", multiple=True, help="Stop before this text. Repeatable.")
@options.quantised
@options.seed
def generate(
    model: str, adapter: str | None, any_base: bool, prompt: str | None, chat: bool,
    system: str | None,
    quantised: bool, **asked: Any,
) -> None:  # fmt: skip
    """Generate text or chat, with or without an adapter.

    MODEL is a directory as transformers writes it, a .gguf file, or a shipped model. In a chat,
    Ctrl-C ends an answer and Ctrl-D the chat; /reset starts anew; /adapter NAME and /base continue
    with another model.

    Example: lora-np generate austen --adapter king-james --prompt "And the king "
    """
    if system is not None and not chat:
        refuse("--system needs --chat")
    sampling = {"stream": partial(print, end="", flush=True), **options.given(asked)}
    language.Sampling(**sampling)  # check the options before reading the model
    base = speaker = language.load(model, quantised=quantised)

    def adapted(name: str) -> language.LanguageModel:
        opened = adapters.load(name, base=base.config)
        return adapters.attach(base, opened, any_base=any_base)

    if adapter is not None:
        speaker = adapted(adapter)
    if not chat:
        language.generate(speaker, "It was " if prompt is None else prompt, **sampling)
        print()
        return
    begin = [] if system is None else [{"role": "system", "content": system}]
    conversation = language.Chat(speaker, begin)
    for line in (prompt,) if prompt is not None else lines():
        command, _, name = line.strip().partition(" ")
        try:
            if command == "/reset":
                conversation.messages = [*begin]
            elif command in ("/base", "/adapter"):
                conversation.switch(base if command == "/base" else adapted(name))
            else:
                conversation.ask(line, **sampling)
                print()
        except (OSError, ValueError) as error:
            if prompt is not None or not sys.stdin.isatty():
                raise
            tell(error)


def lines() -> Iterator[str]:
    """Yield the lines that the user types, except blank ones, until the input ends."""
    with suppress(EOFError):
        while True:
            if (line := input("> " if sys.stdin.isatty() else "")).strip():
                yield line
