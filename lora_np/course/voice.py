"""The end of the tour: the shipped language model, its adapter switched on, and a training run to watch."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from lora_np import adapters, language
from lora_np.language import LanguageModel
from lora_np.table import Table
from lora_np.work import one_thread

BASE, ADAPTER, TEXT = "austen", "king-james", "genesis"
PROMPT = "And the "
TRAINED_ON = 60_000  # characters, of which the last tenth is held out


@dataclass(frozen=True)
class Voice:
    """What a language model writes without an adapter and with one, and after a short training run.

    Parameters
    ----------
    numbers : int
        Of the shipped adapter.
    base, adapted : str
        Text of the model alone, and with the shipped adapter, after the same prompt.
    base_loss, adapted_loss, trained_loss : float
        Nats a character on the end of the text: alone, with the shipped adapter, and after the run.
    trained_numbers : int
        In the run of the tour.
    steps : int
        Of that run.
    samples : tuple of (int, str)
        What the model said after so many steps.
    """

    numbers: int
    base: str
    adapted: str
    base_loss: float
    adapted_loss: float
    trained_loss: float
    trained_numbers: int
    steps: int
    samples: tuple[tuple[int, str], ...]

    @property
    def table(self) -> Table:
        """Losses without an adapter, with the shipped one, and after the run."""
        rows = [
            ("none", 0, self.base_loss),
            (f"shipped ({ADAPTER})", self.numbers, self.adapted_loss),
            (f"{self.steps} steps just now", self.trained_numbers, self.trained_loss),
        ]
        return Table(
            ["adapter", "numbers", "loss"],
            rows,
            title="A model of Jane Austen's novels learns Genesis: nats a character, held out",
            formats={"loss": "{:.2f}".format},
        )

    def lines(self) -> Iterator[str]:
        """The texts, for a terminal."""
        for who, said in [(f"{BASE} alone", self.base), (f"with {ADAPTER}", self.adapted)]:
            yield f"{who}:\n{textwrap.indent(textwrap.fill(said, 76), '  ')}"

    def html(self) -> dict[str, str]:
        """The texts, and how they changed in the run, for the report."""
        return {
            "said_before": escape(self.base),
            "said_after": escape(self.adapted),
            "samples": Table(["step", "it says"], self.samples)._repr_html_(),
            "voice": self.table._repr_html_(),
        }


def speak(*, steps: int, rng: int, progress: bool) -> Voice:
    """Switch the shipped adapter on, then train one on the same text, with samples above the progress bar."""
    model, text = language.load(BASE), language.read_text(TEXT)
    adapter = adapters.load(language.located_adapter(ADAPTER))
    adapted = adapters.attach(model, adapter)
    samples: list[tuple[int, str]] = []

    def sample(step: int, learning: LanguageModel) -> str | None:
        samples.append((step, said(learning, tokens=70)))
        return f"step {step}: {samples[-1][1]}" if progress else None

    with one_thread():  # for products as small as these, threads only wait for each other
        run = language.finetune(
            model, text[:TRAINED_ON], rank=4, batch_size=4, context=64, lr=1e-2, steps=steps, rng=rng,
            progress=progress, validate_every=steps // 4, sample=sample,
        )  # fmt: skip
        if run.interrupted:
            raise KeyboardInterrupt
        losses = [language.likelihood(each, text[-10_000:]).loss for each in (model, adapted, run.model)]
        numbers = sum(module.A.size + module.B.size for module in adapter.modules.values())
        return Voice(numbers, said(model), said(adapted), *losses, run.numbers, run.steps, tuple(samples))


def said(model: LanguageModel, *, tokens: int = 180) -> str:
    """On one line."""
    return " ".join(language.generate(model, PROMPT, tokens=tokens, temperature=0.6, rng=2).split())
