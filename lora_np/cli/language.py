"""``finetune`` and ``generate``: adapt a language model to a text, and generate text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from lora_np.cli.options import WRITTEN, any_base, as_json, every_linear, force, show_as

seed = click.option("--rng", type=click.IntRange(min=0), default=0, help="Random seed.")


@click.command()
@click.argument("model")
@click.argument("text")
@click.option(
    "-o", "--out", **WRITTEN, required=True,
    help="The adapter to write: a directory for PEFT, or a .gguf for llama.cpp.",
)  # fmt: skip
@click.option("--rank", type=int, default=8, help="r of each adapter (8).")
@click.option("--alpha", type=float, help="Scales by alpha/r; by default 2 r.")
@every_linear
@click.option("--steps", type=int, default=300, help="Steps of training (300).")
@click.option("--batch-size", type=int, default=8, help="Windows of text in a step (8).")
@click.option("--context", type=int, help="Tokens in a window.")
@click.option("--lr", type=float, default=5e-3, help="The largest learning rate (0.005).")
@click.option("--dropout", type=float, default=0.0, help="Rate of dropout before A (0).")
@click.option(
    "--sample-every", type=click.IntRange(min=0), default=100,
    help="Steps between samples of text on stderr (100); 0 for none.",
)  # fmt: skip
@click.option("--prompt", default="And ", help="How the samples begin.")
@click.option("--checkpoint", **WRITTEN, help="A file to continue from after a crash.")
@click.option("--resume", is_flag=True, help="Continue from --checkpoint.")
@click.option("--quantised", is_flag=True, help="Keep a quantised model in its bits: less memory, more time.")
@seed
@force
@as_json
def finetune(
    model: str, text: str, out: Path, sample_every: int, prompt: str, quantised: bool, force: bool,
    as_json: bool, **training: Any,
) -> None:  # fmt: skip
    """Train a LoRA on a text; its last tenth is held out to measure the loss.

    MODEL is a directory as transformers writes it, a .gguf file, or a shipped model; TEXT is a UTF-8 file, -
    for standard input, or a shipped text. Ctrl-C ends it early and keeps the result so far.

    Example: lora-np finetune austen genesis -o my-adapter --rank 8 --steps 100
    """
    from lora_np import adapters, language

    # before the training, not after it
    checkpoint, resume, lr = (training[name] for name in ("checkpoint", "resume", "lr"))
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir():
        raise ValueError(f"{above}: not a directory to write {out.name} into")
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
        said = language.generate(adapted, prompt, tokens=160, temperature=0.7, rng=training["rng"])
        print(f"After {step} steps: {said}", file=sys.stderr, flush=True)

    result = language.finetune(
        base, content, **training, progress=True,
        sample=sample if sample_every else None, validate_every=sample_every or None,
    )  # fmt: skip
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
    adapters.save(result.model, out, base=model, force=force)
    show_as(result.table, as_json)
    if result.interrupted:
        print(f"Stopped after {result.steps} steps; written: {out}", file=sys.stderr)
        raise KeyboardInterrupt


@click.command()
@click.argument("model", default="austen")
@click.option("--adapter", help="An adapter, in any format that convert reads, or a shipped one.")
@any_base
@click.option("--prompt", default="It was ", help="How the text begins.")
@click.option("--tokens", type=int, default=300, help="How many tokens to add (300).")
@click.option(
    "--temperature", type=float, default=0.7, help="0 takes the most likely token every time (0.7)."
)
@click.option(
    "--top-p", type=float, default=1.0, help="Draw among the likeliest tokens of this total probability (1)."
)
@seed
def generate(model: str, adapter: str | None, any_base: bool, prompt: str, **sampling: Any) -> None:
    """Continue a prompt with a language model, adapted or not.

    MODEL is a directory as transformers writes it, a .gguf file, or a shipped model.

    Example: lora-np generate austen --adapter king-james --prompt "And the king "
    """
    from lora_np import adapters, language

    speaker = language.load(model)
    if adapter is not None:
        opened = adapters.load(language.located_adapter(adapter), base=speaker.config)
        speaker = adapters.attach(speaker, opened, any_base=any_base)
    language.generate(speaker, prompt, **sampling, stream=lambda piece: print(piece, end="", flush=True))
    print()
