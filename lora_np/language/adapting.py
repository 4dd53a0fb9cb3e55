"""Fine-tune a language model with LoRA on examples or on one text."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lora_np.checks import configured, generator, overflow_allowed, refuse, whole_number
from lora_np.language import packing
from lora_np.language.data import AnyData, as_data
from lora_np.language.decoder import LanguageModel, vocabulary_of
from lora_np.language.generation import Sampling, check_texts, replies
from lora_np.language.measuring import likelihood
from lora_np.language.packing import Row, batch_loss, length, packed
from lora_np.language.storing import read_text
from lora_np.lora import ALPHA, VARIANTS, inject, learning_rate
from lora_np.models import Targets
from lora_np.nn import AdamW, Optimizer, cosine_schedule, linear_schedule, trainable
from lora_np.settings import check_settings, setting, settings_of
from lora_np.table import Table, binary_bytes, one_line, page
from lora_np.training import History, RunSettings, fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lora_np.table import Part

# name of the shipped text on which forgetting is measured, and number of characters to use
GENERAL, PAGE = "austen-held-out", 4000
TIMED = 3  # number of batches that `forecast` times
# defaults of `budget`: number of rows to aim for per validation, largest number of validations
FEWEST, MOST = 16, 20
SCHEDULES = ("cosine", "linear", "constant")
# the supported LoRA variants; all of them leave the base weights unchanged
VARIED = ("lora", "rslora", "lora+", "lora-fa", "dora")


@dataclass(frozen=True, kw_only=True, eq=False)
class FinetuneSettings(RunSettings):
    """The settings of `finetune`, which extend the settings shared by all training runs.

    Parameters
    ----------
    **settings
        The settings of `finetune`.

    Examples
    --------
    >>> FinetuneSettings(rank=4).alpha
    32.0
    """

    steps: int | None = setting(
        None, "Number of training steps; by default 3 epochs, but at most 300 steps"
    )
    epochs: float | None = setting(None, "Times through the data, instead of steps")
    rank: int = setting(8, "Rank of each adapter")
    alpha: float = setting(ALPHA, "The update is scaled by alpha / r")
    targets: Targets = "all-linear"
    variant: str = setting("lora", "Variant of LoRA", choices=VARIED)
    batch_size: int = setting(8, "Rows in a batch")
    max_length: int | None = setting(
        None, "Most tokens in a row; longer examples are cut; by default the context, at most 256"
    )
    lr: float | None = setting(
        None, "Peak learning rate; by default 5 / (width * max(sqrt(alpha), alpha / 12))"
    )
    schedule: str = setting("cosine", "Decay of the learning rate", choices=SCHEDULES)
    warmup: int | None = setting(
        None, "Steps of warm-up; by default a tenth, at most 10", minimum=0
    )
    weight_decay: float = setting(0.0, "AdamW's weight decay", open_minimum=False)
    clip: float = setting(1.0, "Largest norm of the gradient")
    dropout: float = setting(
        0.0, "Dropout rate before A", open_minimum=False, maximum=1, open_maximum=True
    )
    validation: AnyData | None = None
    validate_every: int | None = setting(
        None, "Steps between validations; by default they take a tenth of the work"
    )
    questions: int | Sequence[str] = 0
    sample_every: int | None = None
    tell: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self)
        if self.warmup is not None:
            whole_number("warmup", self.warmup, minimum=0, maximum=self.steps, top="steps")
        if None not in (self.steps, self.epochs):
            refuse(
                f"give steps or epochs, not both: got steps={self.steps} and epochs={self.epochs}"
            )
        if self.sample_every and self.validate_every not in (None, self.sample_every):
            refuse(
                "answers are given at validations: sample_every must equal validate_every, got"
                f" {self.sample_every} and {self.validate_every}"
            )
        if isinstance(self.questions, int):
            whole_number("questions", self.questions, minimum=0)
        else:
            check_texts("questions", self.questions)


# Names of the settings that are recorded in a result and a checkpoint. If a run is resumed with
# different settings, the error names the first of these that differs.
RECORDED = [
    "targets",
    *(
        field.name
        for field in settings_of(FinetuneSettings)
        if field.name not in ("epochs", "validate_every")
    ),
]


class Replies(NamedTuple):
    """The model's answers to a question before and after training."""

    question: str
    wanted: str
    before: str
    after: str


@dataclass(frozen=True, eq=False)
class Adapted:
    """The result of `finetune`.

    Parameters
    ----------
    model : LanguageModel
        The model with its adapters.
    history : History
        The training loss of each step, and the loss on held-out rows at each validation.
    before, after : float
        The loss on the held-out rows before and after training, in nats per token.
    interrupted : bool
        Whether Ctrl-C ended training early; ``model`` is then the model after the last step.
    settings : dict
        The settings of the run.
    notes : tuple of str
        Remarks about the data for the user.
    answers : tuple of Replies
        The answers to the questions before and after training, if ``questions`` was given.
    general : tuple of float, optional
        The loss on a general text before and after, if ``questions`` was given and the vocabulary
        has the text's characters.
    """

    model: LanguageModel
    history: History
    before: float
    after: float
    interrupted: bool
    settings: dict[str, Any]
    notes: tuple[str, ...]
    answers: tuple[Replies, ...] = ()
    general: tuple[float, ...] = ()

    @property
    def trainable(self) -> int:
        """The number of trainable parameters."""
        return sum(leaf.size for _, leaf in trainable(self.model))

    @property
    def steps(self) -> int:
        """The number of training steps that were taken."""
        return len(self.history.loss)

    @property
    def diverged(self) -> bool:
        """Whether the held-out loss is not finite, or rose while the training loss did not fall."""
        loss = self.history.loss
        learnt = math.isfinite(self.after) and np.mean(loss[-10:]) < loss[0]
        return not self.after <= self.before and not learnt

    @property
    def table(self) -> Table:
        """A table with one row of trainable parameters, steps, held-out losses, and seconds."""
        names = [
            "trainable parameters",
            "steps",
            "held-out loss before",
            "after (nats a token)",
            "seconds",
        ]
        losses = [f"{loss:.4f}" for loss in (self.before, self.after)]
        return Table(names, [[self.trainable, self.steps, *losses, f"{self.history.seconds:.1f}"]])

    @property
    def loss_table(self) -> Table:
        """A table of each validation's held-out loss and the mean training loss since the last."""
        ends = [int(step) for step in self.history.validation_steps]
        parts = [self.history.loss[before:end] for before, end in pairwise([0, *ends])]
        training = [float(part.mean()) if part.size else None for part in parts]
        lines = [*zip(ends, training, map(float, self.history.validation_loss), strict=True)]
        names = ["step", "training loss", "held-out loss"]
        return Table(names, lines, title="Losses, nats a token")

    def figure(self) -> Figure:
        """Plot the training and held-out losses against the training step."""
        from matplotlib.figure import Figure

        from lora_np.plots import lines

        figure, history = Figure(figsize=(7, 4), layout="constrained"), self.history
        held_out = (history.validation_steps, history.validation_loss)
        curves = {"training": (np.arange(self.steps), history.loss), "held out": held_out}
        lines(curves, xlabel="step", ylabel="loss, nats a token", ax=figure.add_subplot())
        return figure

    def to_html(self, *, command: str = "") -> str:
        """Render an HTML report of the data, losses, answers, settings, memory and command."""
        parts: list[Part] = [*self.notes, self.table, self.figure(), self.loss_table]
        if self.answers:
            formats = dict.fromkeys(Replies._fields, one_line)
            title = "Questions and answers"
            parts.append(Table(Replies._fields, self.answers, title=title, formats=formats))
        if self.general:
            title = "What was forgotten: loss on general English, nats a token"
            parts.append(Table(["before", "after"], [self.general], title=title))
        if self.history.samples:
            parts.append(Table(["after steps", "sample"], self.history.samples))
        parts.append(Table(["setting", "value"], [*self.settings.items()]))
        if memory := peak_memory():
            parts.append(f"Most memory of the process: {binary_bytes(memory)}")
        if command:
            parts.append(("The command that repeats it:", command))
        return page("A LoRA on a language model", parts)


@dataclass(frozen=True, eq=False)
class Forecast:
    """The predicted cost of a `finetune` run, returned by `forecast`.

    Parameters
    ----------
    examples : tuple of str
        Up to three examples as the model sees them, with double brackets around the answers.
    notes : tuple of str
        Remarks about the data for the user.
    tokens, learnt : int
        The number of training tokens, and the number of them in the loss.
    rows : int
        The number of rows of at most ``max_length`` tokens.
    steps : int
        The number of training steps.
    epochs : float
        The number of passes through the data.
    seconds : float
        The duration of the whole run, without generating samples of text.
    memory : int or None
        The peak memory of the process in bytes; None if the system does not report it.
    """

    examples: tuple[str, ...]
    notes: tuple[str, ...]
    tokens: int
    learnt: int
    rows: int
    steps: int
    epochs: float
    seconds: float
    memory: int | None

    @property
    def table(self) -> Table:
        """A table with one row of tokens, rows, steps, epochs, and the expected time and memory."""
        names = ["tokens", "in the loss", "rows", "steps", "epochs", "time", "memory"]
        minutes, seconds = divmod(round(self.seconds), 60)
        memory = "unknown" if self.memory is None else binary_bytes(self.memory)
        row: list[Any] = [self.tokens, self.learnt, self.rows, self.steps, f"{self.epochs:.1f}"]
        return Table(names, [[*row, f"{minutes} min {seconds} s", memory]])


@configured(FinetuneSettings)
def finetune(model: LanguageModel, data: AnyData, settings: FinetuneSettings) -> Adapted:
    """Train a LoRA with AdamW on ``data``, and validate on a held-out tenth or on ``validation``.

    Parameters
    ----------
    model : LanguageModel
        The base model, which is not changed.
    data : Data, str or sequence
        The result of `read_data`; one continuous text; or examples: texts, or mappings with
        ``messages``, ``prompt`` and ``completion``, ``instruction`` and ``output``, or ``text``.
        The loss is that of the assistant's messages in a conversation, and of the completion after
        a prompt. Examples end in the vocabulary's end token, and share rows without seeing one
        another.
    steps : int, optional
        Number of training steps; by default 3 epochs, but at most 300 steps.
    epochs : float, optional
        Times through the data, instead of steps.
    rank : int
        Rank of each adapter: r, at most the model's hidden size.
    alpha : float
        The update is scaled by alpha / r.
    targets : str, list of str or callable
        The layers to adapt, as for `lora_np.inject`.
    variant : {"lora", "rslora", "lora+", "lora-fa", "dora"}
        Variant of LoRA, as for `lora_np.inject`; "lora+" moves B at 16 times the learning rate.
    batch_size : int
        Rows in a batch.
    max_length : int, optional
        Most tokens in a row; longer examples are cut; by default the context, at most 256.
    lr : float, optional
        Peak learning rate; by default 5 / (width * max(sqrt(alpha), alpha / 12)), which is
        `lora_np.lora.learning_rate`.
    schedule : {"cosine", "linear", "constant"}
        Decay of the learning rate, to zero after the warm-up; "constant" does not decay.
    warmup : int, optional
        Steps of warm-up; by default a tenth, at most 10.
    weight_decay : float
        AdamW's weight decay.
    clip : float
        Largest norm of the gradient.
    dropout : float
        Dropout rate before A.
    validation : Data, str or sequence, optional
        Other data to hold out; by default each tenth example, or the last tenth of a text.
    validate_every : int, optional
        Steps between validations; by default they take a tenth of the work, where a trained token
        counts twice: both the interval and the number of rows are chosen for that. If the interval
        is given, only the number of rows is chosen.
    questions : int or sequence of str
        The number of held-out questions to answer before and after training; or texts to continue.
    sample_every : int, optional
        Steps between further answers to the first question, which replace ``sample``. They are
        given at validations, so ``validate_every`` must be the same number or left out.
    tell : callable, optional
        ``tell(note)`` is called with each remark about the data, such as how many were cut.
    accumulate : int
        Batches whose gradients are averaged in one step, in the memory of one batch; each label
        counts the same.
    patience : int, optional
        Stop after this many validations without a new lowest loss, and keep that model.
    watch : callable, optional
        ``watch(step, model)`` is called in each step, before anything moves.
    sample : callable, optional
        ``sample(step, model)`` is called at each validation; text that it returns is printed above
        the bar.
    checkpoint : path, optional
        The file to save the run's state in, as for `lora_np.fit`.
    resume : bool
        Continue from ``checkpoint`` if it exists.
    identity : str, optional
        A name of the run, as for `lora_np.fit`.
    rng : Generator or int
        Random seed of A, the batches and dropout.
    progress : bool or str
        Show a progress bar, in a terminal; a string is its label.

    Returns
    -------
    Adapted
        The model with its adapters, and its loss before and after.

    Raises
    ------
    ValueError
        If the data are too short, an example is damaged or has characters outside the vocabulary,
        the data are conversations but the model has no chat template, ``targets`` match nothing, a
        setting is out of range, or the checkpoint is damaged or belongs to another run.
    FloatingPointError
        If the loss is no longer finite. A run that only makes it worse returns with ``diverged``
        set.
    FileExistsError
        If a checkpoint already exists and ``resume`` is False.

    See Also
    --------
    forecast : Predict the time and memory of a run.
    generate : Generate text with the adapted model.
    likelihood : Measure the loss on another text.

    Examples
    --------
    >>> from lora_np import language
    >>> text = language.read_text("genesis")[:6000]
    >>> result = finetune(
    ...     language.load("austen"), text, rank=2, steps=4, batch_size=2, max_length=64, warmup=1,
    ...     progress=False
    ... )
    >>> result.trainable, result.after < result.before
    (18688, True)
    """
    plan = prepared(model, data, settings)
    run = settings.of_run(
        "finetune", loss=batch_loss, optimizer=plan.optimizer, rng=plan.random, steps=plan.steps,
        validation=plan.watched, validate_every=plan.every,
    )  # fmt: skip
    asked = plan.questions
    if asked and settings.sample_every:
        run["sample"] = lambda step, frozen: told(step, answered(frozen, asked[:1])[0])
    result = fit(plan.adapted, plan.batches, **run)
    losses = result.history.validation_loss
    # an interrupted run may end between two validations, so measure the loss of its final model
    if result.interrupted:
        with overflow_allowed():
            losses = np.append(losses, packing.mean_loss(result.model, plan.watched))
    # with patience, an uninterrupted run returns the model of its lowest validation loss
    after = losses[-1] if settings.patience is None or result.interrupted else np.nanmin(losses)
    both = (model, result.model) if asked else ()
    texts = [(text_of(model, prompt), text_of(model, wanted)) for prompt, wanted in asked]
    replied = [answered(one, asked) for one in both]
    answers = tuple(Replies(*text, *pair) for text, *pair in zip(texts, *replied, strict=True))
    if answers and settings.tell is not None and not settings.sample_every:
        settings.tell(told(0, answers[0].before))
        settings.tell(told(len(result.history.loss), answers[0].after))
    general = [general_loss(one, plan.settings["max_length"]) for one in both]
    return Adapted(
        result.model, result.history, float(losses[0]), float(after), result.interrupted,
        plan.settings, (*plan.notes,), answers, tuple(filter(None, general)),
    )  # fmt: skip


def told(step: int, text: str) -> str:
    """Format the model's answer after ``step`` training steps as one line."""
    return f"After {step} steps: {' '.join(text.split())}"


def general_loss(model: LanguageModel, max_length: int) -> float | None:
    """Measure the loss on general English; return None if the vocabulary cannot encode the text."""
    try:
        return likelihood(model, read_text(GENERAL)[:PAGE], max_length=max_length).loss
    except ValueError:
        return None


class Question(NamedTuple):
    """The tokens of a prompt, and of the expected answer, which is empty for a user's own text."""

    prompt: Sequence[int]
    wanted: Sequence[int]


def question(document: packing.Document) -> Question:
    """Split a document into a prompt and its last answer; split a text without a prompt in half."""
    tokens, answer = document
    end = int(np.flatnonzero(answer)[-1]) + 1
    given = np.flatnonzero(~answer[:end])
    first = int(given[-1]) + 1 if given.size else end // 2
    return Question(tokens[:first].tolist(), tokens[first:end].tolist())


def answered(model: LanguageModel, questions: Sequence[Question]) -> list[str]:
    """Generate a greedy answer to each question; "[...]" marks a truncated answer."""
    most = 2 * max(32, *(len(wanted) for _, wanted in questions))
    prompts = [[*prompt] for prompt, _ in questions]
    made = replies(model, prompts, Sampling(tokens=most, temperature=0))
    return [text.end().strip() + " [...]" * (not text.ended) for text in made]


def text_of(model: LanguageModel, tokens: Sequence[int]) -> str:
    """Decode tokens to text, without special tokens and surrounding white space."""
    vocabulary = vocabulary_of(model)
    return vocabulary.decode(i for i in tokens if i not in vocabulary.specials).strip()


@configured(FinetuneSettings)
def forecast(model: LanguageModel, data: AnyData, settings: FinetuneSettings) -> Forecast:
    """Predict the time and memory that `finetune` needs, by running a few of its batches.

    Parameters
    ----------
    model : LanguageModel
        The base model, which is not changed.
    data : Data, str or sequence
        The data, as for `finetune`.
    **settings
        The settings of `finetune`.

    Returns
    -------
    Forecast
        The ``table`` of all figures, which are also attributes; up to three ``examples``, with
        double brackets around the answers; and ``notes`` about the data.

    Raises
    ------
    ValueError
        If the data or a setting is invalid, as for `finetune`.

    See Also
    --------
    finetune : Do the run.

    Examples
    --------
    >>> from lora_np import language
    >>> text = language.read_text("genesis")[:9000]
    >>> found = forecast(language.load("austen"), text, steps=10, batch_size=2, max_length=64)
    >>> found.tokens, found.rows, found.steps
    (8064, 126, 10)
    """
    plan = prepared(model, data, settings)

    def seconds_of(rows: list[Row]) -> float:
        result = fit(
            plan.adapted, packing.together([rows]), loss=batch_loss, optimizer=plan.optimizer,
            clip=settings.clip, steps=1, rng=plan.random, progress=False,
        )  # fmt: skip
        return result.history.seconds

    # Begin with the longest rows, because they need the most memory. Do not count the time of this
    # first batch, because it also fills caches and gets memory from the system.
    seconds_of(sorted(plan.batches.items, key=length, reverse=True)[: plan.batches.size])
    drawn = [plan.batches.drawn(i) for i in range(TIMED)]
    rate = sum(map(seconds_of, drawn)) / sum(length(row) for rows in drawn for row in rows)
    begin = time.perf_counter()
    packing.mean_loss(plan.adapted, plan.watched[:1])
    watching = (time.perf_counter() - begin) / plan.watched[0].tokens.size
    watched = plan.times * sum(part.tokens.size for part in plan.watched)
    rows = plan.batches.items
    tokens, passed = sum(map(length, rows)), plan.steps * (plan.batches.tokens or 0)
    learnt = sum(document.learnt for document in plan.documents)
    shown = tuple(packing.marked(document, vocabulary_of(model)) for document in plan.documents[:3])
    counts = (tokens, learnt, len(rows), plan.steps, passed / tokens)
    seconds = rate * passed + watching * watched
    return Forecast(shown, (*plan.notes,), *counts, seconds, peak_memory())


@dataclass(frozen=True, eq=False)
class Prepared:
    """The data, model, optimizer and settings of a `finetune` run before its first step."""

    adapted: LanguageModel
    batches: packing.Shuffled[Row, packing.Batch]
    optimizer: Optimizer
    random: np.random.Generator
    settings: dict[str, Any]  # the settings to record in the result
    documents: list[packing.Document]  # documents to train on
    questions: list[Question]  # held-out questions
    every: int  # steps between validations
    times: int  # number of validations
    watched: list[packing.Batch]  # the batches on which every validation is computed
    notes: list[str]

    @property
    def steps(self) -> int:
        """The number of training steps."""
        return int(self.settings["steps"])


def prepared(model: LanguageModel, data: AnyData, s: FinetuneSettings) -> Prepared:
    """Split and pack the data, adapt the model, and fill in the default settings."""
    data = as_data(data)
    width = model.model.norm.W.shape[0]  # the hidden size, an upper bound on any weight's rank
    whole_number("rank", s.rank, maximum=width, top="the model's hidden size")
    max_length = packing.within(model, s.max_length)
    other = None if s.validation is None else as_data(s.validation)
    documents, held_out, notes = packing.divided(data, other, model, max_length)
    rows = packed(documents, max_length)
    size = min(s.batch_size, len(rows))
    epoch = len(rows) // size / s.accumulate  # steps per epoch
    steps, more = steps_of(s, epoch)
    random = generator(s.rng)
    adapted = inject(
        model, rank=s.rank, alpha=s.alpha, dropout=s.dropout, variant=s.variant,
        targets=s.targets, rng=random,
    )  # fmt: skip
    order = int(random.integers(2**32))
    warmup = min(10, -(-steps // 10)) if s.warmup is None else s.warmup
    peak = learning_rate(adapted, s.variant) if s.lr is None else s.lr
    recorded = {name: getattr(s, name) for name in RECORDED} | {
        "steps": steps, "epochs": steps / epoch, "lr": peak,
        "alpha": float(s.alpha), "max_length": max_length, "warmup": warmup,
        "rng": order if isinstance(s.rng, np.random.Generator) else s.rng,
    }  # fmt: skip
    described = [(document.tokens, document.answer) for document in documents]
    identity = {**recorded, "the data": described, "the model's weights": model.model}
    decay = cosine_schedule if s.schedule == "cosine" else linear_schedule
    final = peak if s.schedule == "constant" else 0.0
    lr = decay(peak, steps=steps, warmup=warmup, final=final)
    tokens = round(sum(map(length, rows)) / len(rows) * size * s.accumulate)
    others, chosen = packed(held_out, max_length), s.validate_every or s.sample_every
    every, times, watched = budget(others, tokens * steps, steps, chosen)
    notes = [str(data), *notes, *more]
    if s.tell is not None:
        for note in notes:
            s.tell(note)
    return Prepared(
        adapted,
        packing.Shuffled(rows, packing.together, size, s.accumulate, order, identity, tokens),
        VARIANTS[s.variant].optimizer(AdamW(lr=lr, weight_decay=s.weight_decay)),
        random,
        recorded,
        documents,
        questions_of(model, held_out, s.questions),
        every,
        times,
        packing.in_batches(watched, size),
        notes,
    )


def steps_of(settings: FinetuneSettings, epoch: float) -> tuple[int, list[str]]:
    """Return the number of training steps, and notes for the user; an epoch has ``epoch`` steps."""
    notes = []
    if settings.steps is not None:
        steps = settings.steps
    elif settings.epochs is not None:
        steps = math.ceil(settings.epochs * epoch)
    else:
        steps = min(math.ceil(3 * epoch), 300)
        notes.append(f"{steps} steps: by default 3 epochs, but at most 300 steps")
    if steps > 10 * epoch:
        notes.append(f"{steps / epoch:.0f} epochs: after ten, most models memorise")
    return steps, notes


def questions_of(
    model: LanguageModel, held_out: Sequence[packing.Document], asked: int | Sequence[str]
) -> list[Question]:
    """Make questions from the first ``asked`` held-out documents, or from the texts ``asked``."""
    if isinstance(asked, int):
        return [*map(question, held_out[:asked])]
    texts = map(vocabulary_of(model).encode, asked)
    return [Question(text.tolist(), ()) for text in texts]


def budget(
    rows: list[Row], tokens: int, steps: int, every: int | None
) -> tuple[int, int, list[Row]]:
    """Choose the interval, number and rows of validations, to cost at most a tenth of training.

    Training on a token counts as twice the work of validating on it, because of the backward pass.
    There are at least two validations, each on at least one row, even if they cost more.
    """
    mean = max(1, sum(map(length, rows)) // len(rows))
    affordable = tokens // 5 // mean  # total number of rows that all validations may process
    if every is None:
        times = min(max(affordable // min(len(rows), FEWEST), 2), MOST)
        every = -(-steps // (times - 1))
    times = 1 + -(-steps // every)
    stride = -(-len(rows) // min(max(affordable // times, 1), len(rows)))
    return every, times, rows[::stride]


def peak_memory() -> int | None:
    """Return the process's peak memory in bytes, or None if the system does not report it."""
    # The file exists only on Linux. On other systems, getrusage does not replace it, because it may
    # report the peak of the parent process.
    status = Path("/proc/self/status")
    words = status.read_text().partition("VmHWM:")[2].split() if status.exists() else []
    return 1024 * int(words[0]) if words else None
