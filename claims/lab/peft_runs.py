"""Runs of `claims.lab.longer` again, by torch and PEFT: the same weights, windows, order and start.

    python -m claims.lab.peft_runs --model SmolLM2-135M.gguf --seeds 2

Each method runs at the rates that ours has chosen (`claims.lab.at_scale`), once they are recorded; lines
go to ``runs/smollm2-peft.0.jsonl``, and what is there is not run again. The weights, as NumPy holds
them, and the start of A and B are handed over as files that transformers and PEFT read. Adam, the
norm at which gradients are clipped and the schedule are written here in torch.
"""

from __future__ import annotations

import argparse
import functools
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from claims.lab import batched, methods
from claims.lab.at_scale import METHODS, SMOLLM2, Runs
from claims.lab.redrawn import FOLDER, Book, Sweep
from claims.lab.text import Text, loaded
from lora_np import adapters, language
from lora_np.checks import Array

# Three claims: attention-or-mlp, rslora and one-knob
NAMES = (
    "LoRA, r = 8",
    "LoRA, r = 8, kappa x 16",
    "LoRA, r = 8, kappa / 16",
    "MLP, r = 5",
    "attention, r = 8",
    "LoRA, r = 64",
    "LoRA, r = 64, alpha 256",
)


@dataclass(frozen=True)
class PeftText(Text):
    """`claims.lab.text.Text`, with the training and the losses of torch and PEFT."""

    def once(self, seed: int, lr: float, **method: Any) -> dict[str, float]:
        import torch
        from peft import PeftModel

        name = self.bases[seed % len(self.bases)]
        base = self.base(seed)
        parts = self.parts(seed, base)
        start = methods.initialised(
            base, np.random.default_rng([seed, 23]), None, **{"targets": "all-linear", **method}
        )
        with tempfile.TemporaryDirectory() as folder:
            adapter = Path(folder) / "adapter"
            adapters.save(start, adapter)
            model = PeftModel.from_pretrained(transformer(name), adapter, is_trainable=True)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=lr)
        order = batched.batches(seed, len(parts["training"]), self.steps, self.batch)
        for step, batch in enumerate(order):
            optimizer.param_groups[0]["lr"] = lr * share(step, self.steps)
            loss = token_loss(model, parts["training"][batch])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
        with torch.no_grad():
            found = {half: mean_loss(model, parts[half]) for half in (*batched.HALVES, "old")}
        return {half: x if np.isfinite(x) else np.inf for half, x in found.items()}


def transformer(base: str) -> Any:
    """A model of transformers with the weights of ours."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(Path(saved(base).name) / "base", dtype="float32")
    return model.eval()


@functools.cache
def saved(base: str) -> tempfile.TemporaryDirectory[str]:
    """Our weights in a folder that transformers reads; it goes when the process ends."""
    folder = tempfile.TemporaryDirectory()
    language.save(loaded(base), Path(folder.name) / "base")
    return folder


def token_loss(model: Any, tokens: Array) -> Any:
    """The mean cross-entropy of the token that follows each one."""
    import torch

    rows = torch.tensor(tokens)
    logits = model(rows[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


def mean_loss(model: Any, rows: Array) -> float:
    """Of windows of one length, two at a time."""
    parts = np.array_split(rows, max(1, len(rows) // 2))
    losses = [token_loss(model, part).item() for part in parts]
    return float(np.average(losses, weights=[*map(len, parts)]))


def share(step: int, steps: int) -> float:
    """Of the peak rate: a linear rise over ten steps or a quarter, then half a cosine to zero."""
    warmup = min(10, steps // 4)
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m claims.lab.peft_runs", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", required=True, help="as `lora_np.language.load` takes it")
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    setup = PeftText(**SMOLLM2, bases=(args.model,))
    chosen, book = Runs(), Book(FOLDER / "smollm2-peft.0.jsonl")
    for name in NAMES:
        places = {*chosen.places(name).values()}
        if not places:
            print(f"{name}: our own search has not ended", flush=True)
            continue
        method, start = METHODS[name]
        sweep, begin = Sweep(book, name, setup, method, start, width=1), time.time()
        sweep.tried(sorted(places), range(args.seeds))
        print(f"{name}: {time.time() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
