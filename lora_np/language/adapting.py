"""LoRA on a text, from a language model and a string to an adapted model and what it has learnt."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_np.checks import Array, number, whole_number
from lora_np.hub import Targets, close_names, matcher
from lora_np.language.decoder import LanguageModel
from lora_np.language.text import mean_loss, token_loss, vocabulary_of, windows
from lora_np.lora import inject
from lora_np.nn import AdamW, Linear, cosine_schedule, freeze, replace, trainable
from lora_np.table import Table
from lora_np.training import fit


@dataclass(frozen=True, eq=False)
class Adapted:
    """The result of `finetune`.

    Parameters
    ----------
    model : LanguageModel
        With its adapters.
    steps : int
        Steps that were taken.
    numbers : int
        How many numbers were trained.
    before, after : float
        Loss on the held-out end of the text, in nats a token.
    seconds : float
        How long it took.
    interrupted : bool
        Whether Ctrl-C ended it early; the model is what had been reached.
    """

    model: LanguageModel
    steps: int
    numbers: int
    before: float
    after: float
    seconds: float
    interrupted: bool

    @property
    def table(self) -> Table:
        """All of it for people."""
        return Table(
            ["numbers trained", "steps", "held-out loss before", "after (nats a token)", "seconds"],
            [[self.numbers, self.steps, f"{self.before:.4f}", f"{self.after:.4f}", f"{self.seconds:.1f}"]],
        )


@dataclass(frozen=True, eq=False)
class Scored:
    """A language model whose call gives its loss on windows of a text."""

    language: LanguageModel

    def __call__(self, rows: Array, *, rng: np.random.Generator | None = None) -> Any:
        if trainable(self.language):
            return token_loss(self.language, rows, rng=rng)
        return np.float64(mean_loss(self.language, rows))


def finetune(
    model: LanguageModel,
    text: str,
    *,
    rank: int = 8,
    alpha: float | None = None,
    targets: Targets = "all-linear",
    steps: int = 300,
    batch_size: int = 8,
    context: int | None = None,
    lr: float = 5e-3,
    dropout: float = 0.0,
    rng: np.random.Generator | int = 0,
    watch: Callable[[int, LanguageModel], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Adapted:
    """Train a LoRA on ``text``, whose last tenth is held out, with AdamW and a cosine schedule.

    Parameters
    ----------
    model : LanguageModel
        It is not changed.
    text : str
        What to learn from.
    rank : int
        Of each adapter: r.
    alpha : float, optional
        The update is scaled by ``alpha / r``; by default alpha = 2 r.
    targets : str, list of str or callable
        Which layers: as for `lora_np.inject`.
    steps : int
        Steps of ``batch_size`` windows each.
    batch_size : int
        Windows in a step.
    context : int, optional
        Tokens of a window; by default ``model.context``, but at most 256.
    lr : float
        The largest learning rate.
    dropout : float
        Rate of dropout before A.
    rng : Generator or int
        Randomness of A, the batches and dropout.
    watch : callable, optional
        ``watch(step, model)`` is called before each step.
    checkpoint : path, optional
        As for `lora_np.fit`.
    resume : bool
        Continue from ``checkpoint`` if it is there.
    progress : bool
        Show a progress bar, in a terminal.

    Returns
    -------
    Adapted
        The model with its adapters, and its loss before and after.

    Raises
    ------
    ValueError
        If the text is too short or has characters outside the vocabulary, ``targets`` match nothing, or a
        setting is out of range.
    FloatingPointError
        If training diverges.

    See Also
    --------
    generate : Generate text with the adapted model.
    likelihood : Its loss on another text.
    """
    number("lr", lr, minimum=0, open_minimum=True)
    context = min(model.context, 256) if context is None else whole_number("context", context)
    tokens = vocabulary_of(model).encode(text)
    cut = min(len(tokens) * 9 // 10, len(tokens) - context - 1)
    if cut <= context:
        raise ValueError(
            f"the text has {len(tokens)} tokens, which is too short: training and the held-out end need "
            f"more than a window of {context} each; use a longer text or a smaller context"
        )
    training, held_out = windows(tokens[:cut], context), windows(tokens[cut:], context)
    random = np.random.default_rng(rng)
    adapted = inject(
        model,
        rank=rank,
        alpha=2.0 * rank if alpha is None else alpha,
        dropout=dropout,
        rng=random,
        targets=chosen(model, targets),
    )
    result = fit(
        Scored(adapted),
        training,
        training,
        loss=given,
        optimizer=AdamW(lr=cosine_schedule(lr, steps=steps, warmup=min(10, steps)), weight_decay=0.0),
        steps=steps,
        batch_size=min(batch_size, len(training)),
        clip=1.0,
        validation=(held_out, held_out),
        watch=None if watch is None else lambda step, scored: watch(step, scored.language),
        checkpoint=checkpoint,
        resume=resume,
        rng=random,
        progress="finetune" if progress else False,
    )
    seen = result.history
    return Adapted(
        model=result.model.language,
        steps=len(seen.loss),
        numbers=sum(leaf.size for _, leaf in trainable(result.model)),
        before=float(seen.validation_loss[0]),
        after=mean_loss(freeze(result.model.language), held_out),
        seconds=seen.seconds,
        interrupted=result.interrupted,
    )


def given(loss: Any, rows: Array) -> Any:
    """The loss that `Scored` has computed already."""
    return loss


def chosen(model: LanguageModel, targets: Targets) -> Callable[[str, Any], bool]:
    """``targets`` as a function of (path, layer), which matches something."""
    wanted = matcher(targets)

    def matches(path: str, layer: Any) -> bool:
        if wanted.all_linear and path == "lm_head":  # left out, as in PEFT
            return False
        return isinstance(layer, Linear) and wanted(path, layer)

    layers: dict[str, Any] = {}
    replace(model, Linear, layers.setdefault)
    if not any(matches(path, layer) for path, layer in layers.items()):
        names = [targets] if isinstance(targets, str) else [] if callable(targets) else list(targets)
        close = close_names(names[0] if names else "", (path.rpartition(".")[2] for path in layers))
        raise ValueError(f"targets={targets!r} match no layer{close}")
    return matches
