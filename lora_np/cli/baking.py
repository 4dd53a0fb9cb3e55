"""Define the command ``bake``, which turns a prompt into an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lora_np import adapters, language
from lora_np.cli import options
from lora_np.cli.language import tell
from lora_np.work import usual_threads


@click.command()
@click.argument("model")
@click.option(
    "--prompt", "prompt_file", required=True, help="A file with the prompt; - for standard input."
)
@click.option("--questions", help="A file of questions, one a line; else the base writes them.")
@options.adapter_out
@options.every_linear
@options.each(options.of_settings(language.BakeSettings))
@click.option("--plain", is_flag=True, help="No chat template: questions continue the prompt.")
@options.quantised
@options.seed
@options.html
@options.plot
@options.force
@options.as_json
@usual_threads()
def bake(
    model: str, prompt_file: str, questions: str | None, out: Path, quantised: bool,
    html: Path | None, plot: Path | None, force: bool, as_json: bool, **asked: Any,
) -> None:  # fmt: skip
    """Train an adapter that makes a prompt unnecessary.

    MODEL is an instruction-tuned model: a directory as transformers writes it, or a .gguf file.
    With the prompt, the model is the teacher and samples answers. Without the prompt, it is the
    student and learns the teacher's distributions of each next token. --steps 0 skips this
    training: it keeps the initial adapter, which a regression finds in two minutes. Ctrl-C ends
    the training early and keeps the result so far.

    Example: lora-np bake smollm2.gguf --prompt persona.txt --questions asked.txt -o persona
    """
    options.check_place(out)
    settings = options.given(asked)
    language.BakeSettings(**settings)  # check the settings before reading files
    # without a template, the spaces at the end of the prompt stay between it and what follows
    strip = (lambda text: text.removesuffix("\n")) if settings.get("plain") else str.strip
    prompt = strip(language.read_text(prompt_file))
    if questions is not None:
        lines = language.read_text(questions).splitlines()
        settings["questions"] = [strip(line) for line in lines if line.strip()]
    base = language.load(model, quantised=quantised)
    result = language.bake(base, prompt, tell=tell, **settings)
    adapters.save(result.model, out, base=model, force=force)
    options.write_asked(result, plot, html, prompt=prompt)
    answers = options.side_by_side(result.answers)
    options.show_as(result.table, as_json, *answers, result.left, result.table)
    if result.interrupted:
        raise KeyboardInterrupt
