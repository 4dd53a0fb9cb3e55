"""``finetune`` and ``generate``: adapt a language model to a text, and generate text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_np.cli.shared import AnyBase, AsJSON, Force, output_path, parse_targets, show_as

Model = Annotated[
    str, typer.Argument(help="A directory as transformers writes it, a .gguf file, or a shipped model.")
]
Rng = Annotated[int, typer.Option(min=0, help="Random seed.")]


def finetune(
    model: Model,
    text: Annotated[str, typer.Argument(help="A UTF-8 file, - for standard input, or a shipped text.")],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            parser=output_path,
            metavar="PATH",
            help="The adapter to write: a directory for PEFT, or a .gguf for llama.cpp.",
        ),
    ],
    rank: Annotated[int, typer.Option(help="r of each adapter.")] = 8,
    alpha: Annotated[float | None, typer.Option(help="Scales by alpha/r; by default 2 r.")] = None,
    targets: Annotated[
        str, typer.Option(help="all-linear, names with commas, or a regular expression.")
    ] = "all-linear",
    steps: Annotated[int, typer.Option(help="Steps of training.")] = 300,
    batch_size: Annotated[int, typer.Option(help="Windows of text in a step.")] = 8,
    context: Annotated[int | None, typer.Option(help="Tokens in a window.")] = None,
    lr: Annotated[float, typer.Option(help="The largest learning rate.")] = 5e-3,
    dropout: Annotated[float, typer.Option(help="Rate of dropout before A.")] = 0.0,
    sample_every: Annotated[
        int, typer.Option(min=0, help="Steps between samples of text on stderr; 0 for none.")
    ] = 100,
    prompt: Annotated[str, typer.Option(help="How the samples begin.")] = "And ",
    checkpoint: Annotated[
        Path | None,
        typer.Option(parser=output_path, metavar="PATH", help="A file to continue from after a crash."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from --checkpoint.")] = False,
    quantised: Annotated[
        bool, typer.Option("--quantised", help="Keep a quantised model in its bits: less memory, more time.")
    ] = False,
    rng: Rng = 0,
    force: Force = False,
    as_json: AsJSON = False,
) -> None:
    """Train a LoRA on a text; the last tenth of it is held out to measure by.

    Ctrl-C ends it early and keeps what was reached.

    Example: lora-np finetune austen genesis -o my-adapter --rank 8 --steps 100
    """
    from lora_np import adapters, language

    # before the training, not after it
    if not out.absolute().parent.is_dir():
        raise ValueError(f"{out.absolute().parent}: no such directory to write {out.name} into")
    if out.exists() and not force:
        raise ValueError(f"{out} already exists; pass --force to replace an adapter")
    if out.is_dir() and any(out.iterdir()) and not (out / "adapter_config.json").is_file():
        raise ValueError(f"{out} holds no adapter, and so is not replaced")
    if checkpoint is None and resume:
        raise ValueError("--resume needs --checkpoint FILE, the file to continue from")
    if checkpoint is not None and not checkpoint.absolute().parent.is_dir():
        raise ValueError(f"{checkpoint.absolute().parent}: no such directory to write {checkpoint.name} into")
    if checkpoint is not None and checkpoint.exists() and not resume:
        raise ValueError(f"{checkpoint} is there already: continue it with --resume, or delete it")
    base = language.load(model, quantised=quantised)
    content = language.read_text(text)

    def sample(step: int, adapted: Any) -> None:
        said = language.generate(adapted, prompt, tokens=160, temperature=0.7, rng=rng)
        print(f"After {step} steps: {said}", file=sys.stderr, flush=True)

    result = language.finetune(
        base,
        content,
        rank=rank,
        alpha=alpha,
        targets=parse_targets(targets),
        steps=steps,
        batch_size=batch_size,
        context=context,
        lr=lr,
        dropout=dropout,
        rng=rng,
        sample=sample if sample_every else None,
        validate_every=sample_every or None,
        checkpoint=checkpoint,
        resume=resume,
        progress=True,
    )
    if result.diverged and not result.interrupted:
        raise FloatingPointError(
            f"training made the held-out loss worse, from {result.before:.4g} to {result.after:.4g} nats a "
            f"token, and nothing was written: try a learning rate below {lr:g}, or fewer steps"
        )
    if result.after == result.before and not result.interrupted:
        raise ValueError(
            f"training did not change the held-out loss of {result.before:.4g} nats a token, and nothing was "
            f"written: try a learning rate above {lr:g}, or more steps"
        )
    if result.after > result.before:
        print("The loss fell on what was trained on only: try fewer steps or a longer text", file=sys.stderr)
    if out.suffix == ".gguf":
        language.save_gguf_adapter(result.model, out)
    else:
        adapters.save(result.model, out, base=model, force=force)
    show_as(result.table, as_json)
    if result.interrupted:
        print(f"Stopped after {result.steps} steps; written: {out}", file=sys.stderr)
        raise KeyboardInterrupt


def generate(
    model: Model = "austen",
    adapter: Annotated[
        str | None, typer.Option(help="A directory as PEFT writes it, or a shipped adapter.")
    ] = None,
    any_base: AnyBase = False,
    prompt: Annotated[str, typer.Option(help="How the text begins.")] = "It was ",
    tokens: Annotated[int, typer.Option(help="How many tokens to add.")] = 300,
    temperature: Annotated[float, typer.Option(help="0 takes the most likely token every time.")] = 0.7,
    top_p: Annotated[float, typer.Option(help="Draw among the most likely tokens of this share.")] = 1.0,
    rng: Rng = 0,
) -> None:
    """Continue a prompt with a language model, adapted or not.

    Example: lora-np generate austen --adapter king-james --prompt "And the king "
    """
    from lora_np import adapters, language

    speaker = language.load(model)
    if adapter is not None:
        opened = adapters.load(language.located_adapter(adapter))
        speaker = adapters.attach(speaker, opened, any_base=any_base)
    language.generate(
        speaker,
        prompt,
        tokens=tokens,
        temperature=temperature,
        top_p=top_p,
        rng=rng,
        stream=lambda piece: print(piece, end="", flush=True),
    )
    print()
