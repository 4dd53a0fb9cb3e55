"""The end of the tour: the shipped language model, with its adapter switched off and on."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from lora_np import adapters, language
from lora_np.work import one_thread

BASE, ADAPTER, TEXT = "austen", "king-james", "genesis"
PROMPT = "And the "


@dataclass(frozen=True)
class Voice:
    """What a language model writes without an adapter and with one.

    Parameters
    ----------
    numbers : int
        Of the adapter.
    base, adapted : str
        Text of the model alone, and with the adapter, after the same prompt.
    base_loss, adapted_loss : float
        Nats a character on the end of a text in the adapter's style.
    """

    numbers: int
    base: str
    adapted: str
    base_loss: float
    adapted_loss: float

    def __str__(self) -> str:
        texts = {
            f"{BASE} alone ({self.base_loss:.2f} nats a character of Genesis)": self.base,
            f"with {ADAPTER}, {self.numbers:,} numbers ({self.adapted_loss:.2f})": self.adapted,
        }
        return "\n".join(f"{who}:\n{textwrap.indent(textwrap.fill(t, 76), '  ')}" for who, t in texts.items())


def speak() -> Voice:
    """Switch the shipped adapter on, and compare."""
    model, held_out = language.load(BASE), language.read_text(TEXT)[-10_000:]
    adapter = adapters.load(language.located_adapter(ADAPTER))
    models = model, adapters.attach(model, adapter)
    numbers = sum(module.A.size + module.B.size for module in adapter.modules.values())
    with one_thread():  # for products as small as these, threads only wait for each other
        base, adapted = (
            " ".join(language.generate(each, PROMPT, tokens=180, temperature=0.6, rng=2).split())
            for each in models
        )
        losses = [language.likelihood(each, held_out).loss for each in models]
    return Voice(numbers, base, adapted, *losses)
