"""Bake a prompt into an adapter, with which the model answers as if it had read the prompt.

This is context distillation (Snell, Klein and Zhong, arXiv 2209.15189). The teacher samples
answers, and the adapter learns the teacher's distribution of each of their tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace as changed
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lora_np.autograd import Tensor, value
from lora_np.checks import Array, Rng, configured, generator
from lora_np.language import fused
from lora_np.language.composed import Operand, divergence
from lora_np.language.decoder import LanguageModel, vocabulary_of
from lora_np.language.generation import Reader, Sampling, ends_of, replies
from lora_np.language.packing import Shuffled
from lora_np.language.templates import Template, shared
from lora_np.linalg import reduced_rank_regression
from lora_np.lora import LoRALinear, inject
from lora_np.models import Targets
from lora_np.nn import AdamW, Linear, cosine_schedule, freeze, replace
from lora_np.settings import check_settings, setting
from lora_np.table import Shown, Table, one_line, page
from lora_np.training import History, RunSettings, fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lora_np.table import Part

KINDS = ("sampled", "greedy")  # how the held-out answers are generated
HELD_OUT = 5  # one in this many questions is held out
RIDGE = 0.1  # ridge parameter of `closed_form`, relative to the Gram matrix's mean eigenvalue
FIRST = 8  # the divergence over this many first tokens of each answer is reported separately
ASK = (
    "{prompt}\n\n---\nAbove are instructions of an assistant. Write one short question that a user"
    ' may ask it, and to whose answer this part matters: "{sentence}" Write the question alone.'
)


@dataclass(frozen=True, kw_only=True, eq=False)
class BakeSettings(RunSettings):
    """The settings of `bake`, which extend the settings shared by all training runs.

    Parameters
    ----------
    **settings
        The settings of `bake`.

    Examples
    --------
    >>> BakeSettings(rank=4).steps
    96
    """

    rank: int = setting(8, "Rank of each adapter")
    alpha: float = setting(16.0, "The update is scaled by alpha / r")
    targets: Targets = "all-linear"
    lr: float = setting(2e-3, "Peak learning rate")
    steps: int = setting(96, "Number of training steps", minimum=0)
    batch_size: int = setting(4, "Answers in a batch")
    clip: float | None = setting(1.0, "Largest norm of the gradient")
    answer_length: int = setting(48, "Most tokens of an answer")
    per_sentence: int = setting(3, "Questions for each sentence of the prompt, if none are given")
    start: str = setting("closed-form", "Where the adapter starts", choices=("closed-form", "zero"))
    questions: Sequence[str] = ()
    plain: bool = False
    tell: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self)
        if isinstance(self.questions, str) or not all(
            isinstance(text, str) and text.strip() for text in self.questions
        ):
            raise ValueError("questions must be a list of texts that are not empty")


class TaughtAnswer(NamedTuple):
    """A teacher's answer, and the token sequences that the teacher and the student process."""

    question: str
    sentence: str  # the sentence of the prompt that the question is about, if known
    row: list[int]  # the student's token sequence: question and answer
    prompted: list[int]  # the teacher's token sequence: prompt, question and answer
    hidden: Array  # (answer tokens, d): the teacher's hidden states that predict the answer
    text: str  # the answer as text


class DistillationBatch(NamedTuple):
    """A batch of the student's token sequences, with the teacher's hidden states to imitate."""

    tokens: Array  # (rows, n)
    counts: Array  # (rows, n) bool: whether the prediction at each token is in the loss
    teacher: Array  # (predictions in the loss, d): the teacher's hidden states


@dataclass(frozen=True, eq=False, repr=False)
class Baked(Shown):
    """The result of `bake`.

    Parameters
    ----------
    model : LanguageModel
        The model with its adapters.
    history : History or None
        The loss of each step; None without steps.
    questions : tuple of str
        The questions that the adapter was trained on.
    answers : Table
        Greedy answers of base, prompted and baked model to the held-out questions.
    left : Table
        The divergence before and after training for each held-out question; questions with the
        largest remaining divergence come first.
    divergences : dict of str to tuple of ndarray
        The divergence from the teacher, in nats, at each token of each held-out answer. A key names
        the model, "base" or "baked", and the answers, "sampled" or "greedy", as in "base, greedy".
    agreement : dict of str to float
        The share of these tokens at which student and teacher have the same likeliest token.
    saved : int
        The number of prompt tokens that each call saves.
    notes : tuple of str
        Remarks for the user.
    interrupted : bool
        Whether Ctrl-C ended training early; ``model`` is then the model after the last step.
    """

    model: LanguageModel
    history: History | None
    questions: tuple[str, ...]
    answers: Table
    left: Table
    divergences: dict[str, tuple[Array, ...]]
    agreement: dict[str, float]
    saved: int
    notes: tuple[str, ...]
    interrupted: bool

    @property
    def table(self) -> Table:
        """A table that compares the base and the baked model with the prompted model."""
        names = ["held-out answers", "model", "KL, nats a token", f"first {FIRST}", "same token"]
        lines, means = [], {}
        for key, parts in self.divergences.items():
            model, kind = key.split(", ")
            first = np.concatenate([part[:FIRST] for part in parts]).mean()
            means[key] = float(np.concatenate(parts).mean())
            lines.append((kind, model, means[key], float(first), self.agreement[key]))
        left = [
            f"{means[f'baked, {kind}'] / means[f'base, {kind}']:.0%} on {kind}" for kind in KINDS
        ]
        notes = [f"Of the base's divergence {' and '.join(left)} answers is left."]
        if all(means[f"baked, {kind}"] >= means[f"base, {kind}"] for kind in KINDS):
            notes.append("The adapter is no nearer to the prompted model than the base is.")
        if self.saved > 0:  # a prompt can be shorter than the template's own system message
            notes.append(f"Each call saves {self.saved} tokens.")
        return Table(names, lines, notes=[*notes, *self.notes])

    def figure(self) -> Figure:
        """Plot the mean divergence against the token's position in the sampled answers."""
        from matplotlib.figure import Figure

        from lora_np.plots import lines

        figure, curves = Figure(figsize=(7, 4), layout="constrained"), {}
        for name in ("base", "baked"):
            parts = self.divergences[f"{name}, sampled"]
            longest = max(map(len, parts))
            means = [np.mean([part[i] for part in parts if len(part) > i]) for i in range(longest)]
            curves[name] = (np.arange(1, longest + 1), np.array(means))
        xlabel, ylabel = "token of the sampled answer", "KL from the prompted model, nats"
        lines(curves, xlabel=xlabel, ylabel=ylabel, ax=figure.add_subplot())
        return figure

    def to_html(self, *, prompt: str = "") -> str:
        """Render an HTML report with the figure, and tables of the divergences and the answers."""
        parts: list[Part] = [self.table, self.figure(), self.answers, self.left]
        parts += [("The prompt:", prompt)] if prompt else []
        return page("A prompt baked into a LoRA", parts)


class Dialogue:
    """An encoder of questions for a model, with or without the prompt."""

    def __init__(self, model: LanguageModel, prompt: str, settings: BakeSettings) -> None:
        self.vocabulary, self.prompt = vocabulary_of(model), prompt
        self.context, self.answer = model.context, settings.answer_length
        if not settings.plain and not isinstance(self.vocabulary.chat_template(), str):
            raise ValueError(
                "this model has no chat template: bake an instruction-tuned model, or pass"
                " plain=True (--plain) and questions that go on from the prompt"
            )
        self.template = None if settings.plain else Template(self.vocabulary)

    def row(self, question: str, *, prompted: bool) -> list[int]:
        """Encode a question with or without the prompt; raise an error if an answer may not fit."""
        messages = [{"role": "user", "content": question}]
        if prompted:
            messages.insert(0, {"role": "system", "content": self.prompt})
        if self.template is None:
            row = self.vocabulary.encode("".join(message["content"] for message in messages))
        else:
            row = self.template.tokens(messages, add_generation_prompt=True)
        if len(row) + self.answer > self.context:
            raise ValueError(
                f"the prompt, a question and an answer of {self.answer} tokens have"
                f" {len(row) + self.answer}, and the model's context is {self.context}: take a"
                " shorter prompt or answer_length"
            )
        return [int(token) for token in row]


@configured(BakeSettings)
def bake(model: LanguageModel, prompt: str, settings: BakeSettings) -> Baked:
    """Train a LoRA so that the model answers as if ``prompt`` preceded each question.

    Parameters
    ----------
    model : LanguageModel
        The base, with a chat template; it is not changed.
    prompt : str
        The system message to bake into the adapter.
    rank : int
        Rank of each adapter: r.
    alpha : float
        The update is scaled by alpha / r.
    targets : str, list of str or callable
        The layers to adapt, as for `lora_np.inject`; the head must not be among them.
    lr : float
        Peak learning rate of AdamW, which falls to zero along a cosine.
    steps : int
        Number of training steps; with 0 the adapter is the closed form.
    batch_size : int
        Answers in a batch.
    clip : float, optional
        Largest norm of the gradient.
    answer_length : int
        Most tokens of an answer.
    per_sentence : int
        Questions that the base writes for each sentence of the prompt, if none are given.
    start : {"closed-form", "zero"}
        The initial adapter: zero, or the change that attention's output projections need to make up
        for the missing prompt, by reduced-rank regression.
    questions : sequence of str
        At least five questions that people will ask. The model learns a fact of the prompt only if
        a question is about it. A fifth of the questions is held out.
    plain : bool
        For a model without a chat template: each question is a text that continues the prompt.
    tell : callable, optional
        ``tell(note)`` is called with the questions that the base has written.
    accumulate : int
        Batches whose gradients are averaged in one step.
    validate_every : int, optional
        Steps between measurements on the held-out questions; by default there are none.
    patience : int, optional
        Stop after this many validations without a new lowest loss, as for `lora_np.fit`.
    watch, sample : callable, optional
        Functions that are called during training, as for `lora_np.fit`.
    checkpoint : path, optional
        The file to save the run's state in, as for `lora_np.fit`.
    resume : bool
        Continue from ``checkpoint`` if it exists.
    identity : str, optional
        A name of the run, as for `lora_np.fit`.
    rng : Generator or int
        Random seed of questions, answers, A and the order of batches.
    progress : bool or str
        Show a progress bar, in a terminal.

    Returns
    -------
    Baked
        The adapted model, and its divergence from the prompted model on held-out questions.

    Raises
    ------
    ValueError
        If the prompt is empty or too long for the context, there are too few questions, the model
        has no chat template and ``plain`` is False, or the head would be adapted.

    See Also
    --------
    finetune : Learn from examples.
    evaluate : Compare models on examples.

    Notes
    -----
    The loss is the Kullback-Leibler divergence of the teacher's next-token distribution from the
    student's, at every token of answers that the teacher samples at temperature 1. The samples only
    determine where the distributions are compared, so the student memorises none of them. The style
    of the prompt transfers; a fact that no question is about does not.

    Examples
    --------
    >>> from lora_np import language
    >>> result = bake(
    ...     language.load("austen"), "And God said unto Noah, ", plain=True, rank=2, steps=2,
    ...     questions=["And the ", "The sons of ", "He said ", "In the ", "And they "],
    ...     answer_length=8, progress=False,
    ... )
    >>> result.saved, len(result.answers.rows)
    (24, 1)
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError("the prompt is empty: there is nothing to bake")
    dialogue, rng = Dialogue(model, prompt, settings), generator(settings.rng)
    prompted, plain = (dialogue.row("", prompted=each) for each in (True, False))
    saved = len(prompted) - len(plain)
    if prompted == plain:
        raise ValueError("the chat template leaves out system messages: there is nothing to bake")
    frozen = freeze(model)
    asked = asked_of(frozen, prompt, settings, rng)
    seeds = [int(seed) for seed in rng.integers(2**32, size=3)]
    held_out = asked[HELD_OUT - 1 :: HELD_OUT]
    train = [pair for i, pair in enumerate(asked, start=1) if i % HELD_OUT]
    sampling = Sampling(tokens=settings.answer_length, temperature=1.0, rng=seeds[0])
    examples = taught(frozen, dialogue, train, sampling)
    greedy = changed(sampling, temperature=0.0)
    tests = {
        "sampled": taught(frozen, dialogue, held_out, changed(sampling, rng=seeds[1])),
        "greedy": taught(frozen, dialogue, held_out, greedy),
    }
    adapted = inject(
        model, rank=settings.rank, alpha=settings.alpha, targets=settings.targets, rng=seeds[2]
    )
    if type(adapted.lm_head) is not Linear:
        raise ValueError(
            "the head must have no adapter, since teacher and student share it: leave it out of"
            " targets"
        )
    if settings.start == "closed-form":
        adapted = closed_form(adapted, lacking(frozen, examples))
    adapted, history, interrupted = distilled(
        adapted, examples, tests["sampled"], settings, seeds[2]
    )
    students = {"base": frozen, "baked": freeze(adapted)}
    divergences, agreement = compared_with_teacher(students, tests)
    alone = [dialogue.row(question, prompted=False) for question, _ in held_out]
    answers = {
        name: [made.end() for made in replies(student, alone, greedy)]
        for name, student in students.items()
    }
    answers["prompted"] = [example.text for example in tests["greedy"]]
    cut = sum(example.row[-1] not in ends_of(model) for example in examples)
    return Baked(
        model=adapted,
        history=history,
        questions=tuple(question for question, _ in train),
        answers=answers_table([question for question, _ in held_out], answers),
        left=left_table(held_out, divergences, with_sentences=not settings.questions),
        divergences=divergences,
        agreement=agreement,
        saved=saved,
        notes=(f"{cut} of {len(examples)} answers were cut at {settings.answer_length} tokens.",)
        if cut
        else (),
        interrupted=interrupted,
    )


def asked_of(
    model: LanguageModel, prompt: str, settings: BakeSettings, rng: np.random.Generator
) -> list[tuple[str, str]]:
    """Return the questions in ``settings``, or let the model generate some if there are none.

    Each is paired with the sentence of the prompt that it is about, or with "" if it was given.
    """
    asked = [(text, "") for text in settings.questions]
    if not asked:
        if settings.plain:
            raise ValueError("a model without a chat template writes no questions: pass questions")
        asked = written(model, prompt, settings.per_sentence, rng)
        if settings.tell is not None:
            settings.tell("\n".join(["Questions:", *(question for question, _ in asked)]))
    if len(asked) < HELD_OUT:
        raise ValueError(f"{len(asked)} questions are too few: give at least {HELD_OUT}")
    return asked


def distilled(
    adapted: LanguageModel,
    examples: Sequence[TaughtAnswer],
    held_out: Sequence[TaughtAnswer],
    settings: BakeSettings,
    seed: int,
) -> tuple[LanguageModel, History | None, bool]:
    """Train ``adapted``; return it with its history, and whether Ctrl-C ended the training."""
    if not settings.steps:
        return adapted, None, False
    run = settings.of_run(
        "bake", rng=seed, loss=taught_loss, steps=settings.steps,
        optimizer=AdamW(lr=cosine_schedule(settings.lr, steps=settings.steps)),
    )  # fmt: skip
    if settings.validate_every or settings.patience:
        run["validation"] = batches_of([[example] for example in held_out])
    size = min(settings.batch_size, len(examples))
    read = {"rows": [example.row for example in examples]}
    order = Shuffled(examples, batches_of, size, settings.accumulate, seed, read)
    result = fit(adapted, order, **run)
    return result.model, result.history, result.interrupted


def compared_with_teacher(
    students: Mapping[str, LanguageModel], tests: Mapping[str, Sequence[TaughtAnswer]]
) -> tuple[dict[str, tuple[Array, ...]], dict[str, float]]:
    """Compare students with the teacher; return ``divergences`` and ``agreement`` of `Baked`."""
    divergences, agreement = {}, {}
    for kind, examples in tests.items():
        for name, student in students.items():
            parts = (apart_from_teacher(student, example) for example in examples)
            divergence, same = zip(*parts, strict=True)
            divergences[f"{name}, {kind}"] = divergence
            agreement[f"{name}, {kind}"] = float(np.concatenate(same).mean())
    return divergences, agreement


def answers_table(questions: Sequence[str], answers: Mapping[str, Sequence[str]]) -> Table:
    """Tabulate the answers of the base, the prompted and the baked model to each question."""
    names = ["base", "prompted", "baked"]
    return Table(
        ["question", *names],
        [*zip(questions, *(answers[name] for name in names), strict=True)],
        title="Held-out questions",
        formats=dict.fromkeys(names, one_line),
    )


def left_table(
    asked: Sequence[tuple[str, str]],
    divergences: Mapping[str, Sequence[Array]],
    *,
    with_sentences: bool,
) -> Table:
    """Tabulate each question's divergence before and after training, largest remaining first."""
    means = (
        [float(kl.mean()) for kl in divergences[f"{name}, sampled"]] for name in ("base", "baked")
    )
    left = sorted(zip(asked, *means, strict=True), key=lambda row: -row[-1])
    about = ["sentence of the prompt"] if with_sentences else []
    return Table(
        ["question", *about, "KL of the base", "KL that is left"],
        [(*pair[: 1 + len(about)], *kl) for pair, *kl in left],
        title="What did not transfer",
    )


def written(
    model: LanguageModel, prompt: str, n: int, rng: np.random.Generator
) -> list[tuple[str, str]]:
    """Generate questions about each sentence of the prompt; return distinct ones with sentences."""
    template = Template(vocabulary_of(model))
    pairs: dict[str, str] = {}
    sampling = Sampling(tokens=40, temperature=1.0, rng=rng)
    for sentence in sentences_of(prompt):
        message = {"role": "user", "content": ASK.format(prompt=prompt, sentence=sentence)}
        row = template.tokens([message], add_generation_prompt=True).tolist()
        for made in replies(model, [row] * n, sampling):
            lines = [text for line in made.end().splitlines() if (text := line.strip(' "*-'))]
            if lines:
                pairs.setdefault(lines[0], sentence)
    return [*pairs.items()]


def sentences_of(prompt: str) -> list[str]:
    """Split a prompt into sentences and lines.

    Examples
    --------
    >>> sentences_of("You are a ship's cook. Be brief! - The ship is the Ada.")
    ["You are a ship's cook.", 'Be brief!', 'The ship is the Ada.']
    """
    parts = re.split(r"(?<=[.!?])\s+|\n+", prompt)
    return [text for part in parts if (text := part.strip(" -*#\t"))]


def taught(
    model: LanguageModel, dialogue: Dialogue, asked: Sequence[tuple[str, str]], sampling: Sampling
) -> list[TaughtAnswer]:
    """Generate the teacher's answer to each question, with the hidden states that predict it."""
    rows = [dialogue.row(question, prompted=True) for question, _ in asked]
    examples = []
    for pair, row, made in zip(asked, rows, replies(model, rows, sampling), strict=True):
        student = dialogue.row(pair[0], prompted=False)
        student, prompted = [*student, *made.tokens], [*row, *made.tokens]
        hidden = np.array(made.hidden)
        examples.append(TaughtAnswer(*pair, student, prompted, hidden, made.end()))
    return examples


def batches_of(parts: Sequence[Sequence[TaughtAnswer]]) -> list[DistillationBatch]:
    """Make one batch from each group of examples, padded on the right."""
    batches = []
    for examples in parts:
        width = max(len(example.row) for example in examples) - 1
        tokens = np.zeros((len(examples), width), np.int64)
        counts = np.zeros((len(examples), width), bool)
        for i, example in enumerate(examples):
            end = len(example.row) - 1
            tokens[i, :end] = example.row[:-1]
            counts[i, end - len(example.hidden) : end] = True
        hidden = np.concatenate([example.hidden for example in examples])
        batches.append(DistillationBatch(tokens, counts, hidden))
    return batches


def taught_loss(model: LanguageModel, batch: DistillationBatch, *, rng: Rng = None) -> Operand:
    """Compute the mean divergence from the teacher over the answer tokens of a batch, in nats."""
    hidden, head = model.model(batch.tokens, rng=rng), model.lm_head
    if not model.cap and head.b is None:
        return fused.distillation_loss(hidden, head.W, teacher=batch.teacher, counts=batch.counts)
    teacher = value(model.logits(batch.teacher))
    loss: Operand = divergence(model.logits(hidden[batch.counts]), teacher).mean(axis=0)
    return loss


def apart_from_teacher(model: LanguageModel, example: TaughtAnswer) -> tuple[Array, Array]:
    """Compute the divergence at each answer token, and whether both models' top tokens agree."""
    hidden = value(model.model(np.array([example.row[:-1]])))[0, -len(example.hidden) :]
    z, teacher = (value(model.logits(states)) for states in (hidden, example.hidden))
    return value(divergence(z, teacher)), z.argmax(-1) == teacher.argmax(-1)


def lacking(model: LanguageModel, examples: Sequence[TaughtAnswer]) -> list[tuple[Array, Array]]:
    """Return ``X.T @ X`` and ``X.T @ Y`` of each layer, to predict its missing output Y from X.

    X is the weighted sum of values in attention without the prompt, before the output projection
    W_o. Y is the part of the output that is missing: W_o times the difference between the weighted
    sum with the prompt and X. Both runs get the teacher's residual stream at the tokens that they
    share, so only attention to the prompt differs.
    """
    layers = model.model.layers
    sums: list[Any] = [(0.0, 0.0)] * len(layers)
    # process only once the tokens with which all of the teacher's sequences begin
    common = min(
        len(example.prompted)
        - shared(np.array(example.row[::-1]), np.array(example.prompted[::-1]))
        for example in examples
    )
    reader = Reader(model)
    reader.read([examples[0].prompted[:common]])
    for example in examples:
        new = example.prompted[common:-1]
        # at least 0, because the same text can have more tokens after the prompt than on its own
        own = max(0, len(example.row) - 1 - len(new))
        student = value(model.model.embedded(np.array([example.row[:own]], int), np.arange(own)))
        positions = np.arange(common, common + len(new))
        teacher = value(model.model.embedded(np.array([new]), positions))
        for i, (layer, cache) in enumerate(zip(layers, reader.take([0]).caches, strict=True)):
            without = value(layer.mixed(np.concatenate([student, teacher], axis=1)))[0, own:]
            prompted = value(layer.mixed(teacher, cache))[0]
            cache.tokens = common
            lacks = value(layer.attention.output(prompted) - layer.attention.output(without))
            without = without.astype(np.float64)
            gram, product = sums[i]
            sums[i] = gram + without.T @ without, product + without.T @ lacks
            teacher = value(layer(teacher, cache=cache))
            if own:
                student = value(layer(student))
    return sums


def closed_form(adapted: LanguageModel, lacks: Sequence[tuple[Array, Array]]) -> LanguageModel:
    """Initialise the adapters of attention's output projections to replace the missing prompt.

    ``lacks`` comes from `lacking`; the solution is a reduced-rank ridge regression.
    """
    outputs = [id(layer.attention.output) for layer in adapted.model.layers]
    by_layer = dict(zip(outputs, lacks, strict=True))

    def put(path: str, node: LoRALinear) -> LoRALinear:
        if id(node) not in by_layer:
            return node
        gram, product = by_layer[id(node)]
        L = np.linalg.cholesky(gram + RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram)))
        # X and Y stand for the data of all tokens: X.T @ X is gram + ridge, and X.T @ Y is product
        X, Y, dtype = L.T, np.linalg.solve(L, product), value(node.A).dtype
        B, A = reduced_rank_regression(X, Y, rank=len(value(node.A)))
        # the columns of B are orthonormal, so A and scale * B get equal spectral norms
        balance = np.linalg.norm(A, 2) ** 0.5 or 1.0
        B, A = B * balance / node.scale, A / balance
        return changed(node, A=Tensor(A.astype(dtype)), B=Tensor(B.astype(dtype)))

    return replace(adapted, LoRALinear, put)
