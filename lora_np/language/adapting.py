"""LoRA on a text: from a language model and a string to an adapted model and its losses."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from lora_np.checks import Array, generator, number, whole_number
from lora_np.language.decoder import LanguageModel
from lora_np.language.text import in_parts, mean_loss, token_loss, vocabulary_of, windows, within
from lora_np.lora import inject
from lora_np.models import Targets
from lora_np.nn import AdamW, cosine_schedule, freeze, trainable
from lora_np.table import Table
from lora_np.training import History, fit

WATCHED = 64  # windows of the held-out end, so that validation does not take longer than training


@dataclass(frozen=True, eq=False)
class Adapted:
    """The result of `finetune`.

    Parameters
    ----------
    model : LanguageModel
        With its adapters.
    history : History
        The loss of each step, and at each validation that of at most 64 windows of the held-out end.
    numbers : int
        The number of trained numbers.
    before, after : float
        Loss on the held-out end of the text, in nats a token.
    interrupted : bool
        Whether Ctrl-C ended it early; the model is then that of the last step.
    """

    model: LanguageModel
    history: History
    numbers: int
    before: float
    after: float
    interrupted: bool

    @property
    def steps(self) -> int:
        """Steps that were taken."""
        return len(self.history.loss)

    @property
    def diverged(self) -> bool:
        """Whether the loss is worse than before, also on the training text."""
        loss = self.history.loss
        worse = not self.after <= self.before
        return worse and not (math.isfinite(self.after) and np.mean(loss[-10:]) < loss[0])

    @property
    def table(self) -> Table:
        """All results, for people."""
        names = ["numbers trained", "steps", "held-out loss before", "after (nats a token)", "seconds"]
        losses = [f"{loss:.4f}" for loss in (self.before, self.after)]
        return Table(names, [[self.numbers, self.steps, *losses, f"{self.history.seconds:.1f}"]])


class Shuffled:
    """Batches of windows by the number of the step: all of them in one order, then in another.

    ``order`` is a random seed; ``settings`` tell a checkpoint which run it belongs to.
    """

    def __init__(self, rows: Array, batch_size: int, order: int, settings: Mapping[str, object]) -> None:
        self.rows, self.batch_size, self.order, self.settings = rows, batch_size, order, settings

    @property
    def identity(self) -> str:
        # the rows are those of the text and the context, which the settings name
        return f"{self.batch_size} at a time, in order {self.order}"

    def __call__(self, step: int) -> Array:
        """Windows of a step."""
        epoch, i = divmod(step, len(self.rows) // self.batch_size)
        order = np.random.default_rng([self.order, epoch]).permutation(len(self.rows))
        return self.rows[order[i * self.batch_size :][: self.batch_size]]


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
    validate_every: int | None = None,
    watch: Callable[[int, LanguageModel], object] | None = None,
    sample: Callable[[int, LanguageModel], str | None] | None = None,
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
        The text to learn from, as a whole: if the vocabulary puts BOS before a text, only the first window
        begins with it.
    rank : int
        Of each adapter: r, at most the model's hidden size.
    alpha : float, optional
        The update is scaled by ``alpha / r``; by default alpha = 2 r.
    targets : str, list of str or callable
        Which layers: as for `lora_np.inject`.
    steps : int
        Steps of ``batch_size`` windows each.
    batch_size : int
        Windows in a step.
    context : int, optional
        Tokens of a window, at most ``model.context``; by default that, but no more than 256.
    lr : float
        The largest learning rate.
    dropout : float
        Rate of dropout before A.
    rng : Generator or int
        Randomness of A, the batches and dropout.
    validate_every : int, optional
        Steps between validations, by default a twentieth of ``steps``.
    watch : callable, optional
        ``watch(step, model)`` is called in each step, before anything moves.
    sample : callable, optional
        ``sample(step, model)`` is called at each validation; text that it returns is printed above the bar.
    checkpoint : path, optional
        As for `lora_np.fit`.
    resume : bool
        Continue from ``checkpoint`` if it exists.
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
        If the loss is no longer finite. A run that only makes it worse returns with ``diverged`` set.
    CheckpointError
        If the checkpoint is damaged or belongs to another run.
    FileExistsError
        If a checkpoint already exists and ``resume`` is False.

    See Also
    --------
    generate : Generate text with the adapted model.
    likelihood : Its loss on another text.
    """
    number("lr", lr, minimum=0, open_minimum=True)
    width = model.model.last.W.shape[0]  # no matrix of a decoder has a higher rank
    whole_number("rank", rank, maximum=width, top="the model's hidden size")
    alpha = 2.0 * rank if alpha is None else alpha
    context = within(model, min(model.context, 256) if context is None else context)
    tokens = vocabulary_of(model).encode(text)
    cut = min(len(tokens) * 9 // 10, len(tokens) - context - 1)
    if cut <= context:
        raise ValueError(
            f"the text has {len(tokens)} tokens, which is too short: training and the held-out end need "
            f"more than a window of {context} each; use a longer text or a smaller context"
        )
    training, held_out = windows(tokens[:cut], context), windows(tokens[cut:], context)
    random = generator(rng)
    adapted = inject(model, rank=rank, alpha=alpha, dropout=dropout, rng=random, targets=targets)
    numbers = sum(leaf.size for _, leaf in trainable(adapted))
    size = min(whole_number("batch_size", batch_size), len(training))
    order = int(random.integers(2**32))
    settings = {
        "rank": rank,
        "alpha": float(alpha),
        "targets": targets,
        "number of steps": steps,
        "batch size": batch_size,
        "context": context,
        "learning rate": lr,
        "dropout": dropout,
        "random seed": order if isinstance(rng, np.random.Generator) else rng,
        "the text": tokens,
        "the model's weights": model.model,
    }

    result = fit(
        adapted,
        Shuffled(training, size, order, settings),
        loss=token_loss,
        optimizer=AdamW(lr=cosine_schedule(lr, steps=steps, warmup=min(10, steps)), weight_decay=0.0),
        steps=steps,
        clip=1.0,
        validation=in_parts(held_out[:: -(-len(held_out) // WATCHED)]),
        validate_every=validate_every,
        watch=watch,
        sample=sample,
        checkpoint=checkpoint,
        resume=resume,
        rng=random,
        progress="finetune" if progress else False,
    )
    with np.errstate(over="ignore", invalid="ignore"):  # a diverged loss may still be finite
        after = mean_loss(freeze(result.model), held_out)
    before = mean_loss(freeze(model), held_out)
    return Adapted(result.model, result.history, numbers, before, after, result.interrupted)
