"""Texts and examples as tokens of which some are learnt, packed into rows; and what a model makes
of them.

Each document keeps to itself: none sees another, and positions begin anew in each.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lora_np.autograd import Tensor
from lora_np.checks import Array, Rng, number, whole_number
from lora_np.files import errors_at
from lora_np.language import fused
from lora_np.language.composed import IGNORED
from lora_np.language.data import AnyData, Completion, Conversation, Data, as_data
from lora_np.language.decoder import LanguageModel, vocabulary_of
from lora_np.language.generation import ends_of
from lora_np.language.templates import Template, shared
from lora_np.language.vocabulary import Vocabulary
from lora_np.lora import merge
from lora_np.nn import Linear, cross_entropy, freeze, replace

UNMARKED = "learnt: what the chat template adds for the assistant (it has no {% generation %})"
AT_ONCE = 4096  # tokens, where nothing is trained
ROWS = 8  # at a time, likewise
HELD_OUT = 10  # of so many examples one, and of a text the last of so many parts


class Document(NamedTuple):
    """Tokens, and whether each is the model's to say."""

    tokens: Array  # (n,) int
    answer: Array  # (n,) bool

    @property
    def learnt(self) -> int:
        """How many tokens are learnt: nothing foretells the first."""
        return int(self.answer[1:].sum())


class Batch(NamedTuple):
    """What `token_loss` takes, and the share of these labels in those of a step, times its
    batches.
    """

    tokens: Array  # (rows, n)
    labels: Array  # (rows, n)
    texts: Array | None  # (rows, n)
    share: float


Row = Sequence[Document]


def divided(
    data: Data, validation: Data | None, model: LanguageModel, context: int
) -> tuple[list[Document], list[Document], list[str]]:
    """Documents to train on, those that are held out, and what people should know."""
    if validation is not None:
        (learnt, notes), (held, more) = (
            documents(each, model, context) for each in (data, validation)
        )
        return learnt, held, list(dict.fromkeys([*notes, *more]))
    if data.whole is not None:
        tokens = vocabulary_of(model).encode(data.whole)
        cut = min(len(tokens) * 9 // 10, len(tokens) - context - 1)
        if cut <= context:
            raise ValueError(
                f"the text has {len(tokens)} tokens, which is too short: training and the held-out"
                f" end need more than a window of {context} each; use a longer text or a smaller"
                " context"
            )
        return pages(tokens[:cut], context), pages(tokens[cut:], context), []
    found, notes = documents(data, model, context)
    if len(found) < 2:
        raise ValueError(
            f"{data.source}: one example is too few, since one is held out to measure the loss"
        )
    every = min(HELD_OUT, len(found))
    return (
        [each for i, each in enumerate(found, start=1) if i % every],
        found[every - 1 :: every],
        notes,
    )


def documents(data: Data, model: LanguageModel, context: int) -> tuple[list[Document], list[str]]:
    """The examples as documents of at most ``context`` tokens, and what people should know of
    them.
    """
    vocabulary, end = vocabulary_of(model), end_of(model)
    if data.whole is not None:
        return pages(vocabulary.encode(data.whole), context), []
    template = functools.cache(lambda: Template(vocabulary))
    found: list[Document] = []
    notes: Counter[str] = Counter()
    for example, place in zip(data.examples, data.places, strict=True):
        with errors_at(f"{data.source}: {place}"):
            if isinstance(example, Conversation):
                tokens, answer, left = template().labelled(*example)
                notes[UNMARKED] += not template().marked
                notes[
                    "# answers are not learnt, since the template writes earlier turns differently"
                ] += left
            else:
                tokens, answer = completed(example, vocabulary, end)
        found.append(Document(tokens[:context], answer[:context]))
        cut = f"# of {len(data.examples)} examples are longer than {context} tokens and were cut"
        notes[cut] += len(tokens) > context
    kept = [document for document in found if document.learnt]
    if not kept:
        raise ValueError(
            f"{data.source}: nothing to learn in the first {context} tokens of an example"
        )
    notes["# examples had nothing to learn in these tokens and were left out"] = len(found) - len(
        kept
    )
    plain = any(isinstance(example, Completion) for example in data.examples)
    notes["examples have no end, since the vocabulary has no end token"] = plain and not end
    return kept, [note.replace("#", str(n)) for note, n in notes.items() if n]


def completed(example: Completion, vocabulary: Vocabulary, end: str) -> tuple[Array, Array]:
    """Tokens of a prompt and what follows it, with the end of a text; they are learnt where the two
    part.
    """
    whole = example.prompt + example.text
    tokens = vocabulary.encode(whole if whole.endswith(end) else whole + end)
    return tokens, np.arange(len(tokens)) >= shared(vocabulary.encode(example.prompt), tokens)


def end_of(model: LanguageModel) -> str:
    """The token that ends a text, or nothing."""
    vocabulary = vocabulary_of(model)
    ends = (vocabulary.decode([token]) for token in ends_of(model) if token < len(vocabulary))
    end = vocabulary.special.get("eos_token") or next(ends, "")
    return end if vocabulary.number(end) is not None else ""


def packed(documents: Sequence[Document], context: int) -> list[Row]:
    """Documents side by side in rows of at most ``context`` tokens: each where it fits best,
    longest first.

    As trl packs them ("bfd").
    """
    rows: list[Row] = []
    open_rows: list[tuple[int, int, list[Document]]] = []  # by what they have left, then by age
    for age, document in enumerate(sorted(documents, key=lambda document: -len(document.tokens))):
        n = len(document.tokens)
        i = bisect_left(open_rows, (n,))
        if i < len(open_rows):
            space, _, row = open_rows.pop(i)
        else:
            space, row = context, []
            rows.append(row)
        row.append(document)
        if space > n:
            insort(open_rows, (space - n, age, row))
    return rows


def length(row: Row) -> int:
    """Tokens of a row that are passed: from the last of a document nothing is foretold."""
    return sum(len(document.tokens) - 1 for document in row)


def pages(text: Array, context: int) -> list[Document]:
    """A continuous text in pieces of ``context`` tokens and the next one, which are all learnt."""
    return [Document(row, np.ones(len(row), bool)) for row in windows(text, context)]


def marked(document: Document, vocabulary: Vocabulary) -> str:
    """The text of a document, with what is learnt in double brackets."""
    cuts = np.flatnonzero(np.diff(document.answer)) + 1
    runs = zip(np.split(document.tokens, cuts), np.split(document.answer, cuts), strict=True)
    texts = ((vocabulary.decode(tokens), answer[0]) for tokens, answer in runs)
    return "".join(f"[[{text}]]" if learnt else text for text, learnt in texts)


def batch(rows: Sequence[Row], share: float = 1.0) -> Batch:
    """Rows as arrays. What is left of a row has no labels, and comes last, where no document sees
    it.
    """
    width = max(map(length, rows))
    tokens, texts = np.zeros((2, len(rows), width), np.int64)
    labels = np.full_like(tokens, IGNORED)
    for i, row in enumerate(rows):
        start = 0
        for text, document in enumerate(row, start=1):
            place = i, slice(start, start := start + len(document.tokens) - 1)
            tokens[place] = document.tokens[:-1]
            labels[place] = np.where(document.answer[1:], document.tokens[1:], IGNORED)
            texts[place] = text
    return Batch(tokens, labels, None if texts.max() == 1 else texts, share)


def batch_loss(model: LanguageModel, batch: Batch, *, rng: Rng = None) -> Any:
    """The loss that, averaged over the batches of a step, is the mean over all their labels."""
    loss = token_loss(model, batch.tokens, batch.labels, texts=batch.texts, rng=rng)
    return loss if batch.share == 1 else loss * batch.share


def together(parts: Sequence[Sequence[Row]]) -> list[Batch]:
    """Batches whose losses average to the mean over all labels."""
    learnt = [sum(document.learnt for row in rows for document in row) for rows in parts]
    return [
        batch(rows, n * len(parts) / sum(learnt)) for rows, n in zip(parts, learnt, strict=True)
    ]


def in_batches(rows: Sequence[Row], size: int) -> list[Batch]:
    """All rows, so many at a time."""
    return together([rows[i : i + size] for i in range(0, len(rows), size)])


def mean_loss(model: LanguageModel, batches: Sequence[Batch]) -> float:
    """The loss where nothing is trained."""
    frozen = freeze(model)
    return float(np.mean([batch_loss(frozen, part) for part in batches]))


@dataclass(frozen=True, eq=False)
class Shuffled:
    """Batches of rows by the number of the batch: all rows in one order, then in another.

    ``order`` is a random seed; ``settings`` tell a checkpoint which run it belongs to.
    """

    rows: Sequence[Row]
    size: int
    accumulate: int
    order: int
    settings: Mapping[str, object]

    @property
    def tokens(self) -> int:
        """In a step, on average."""
        return round(sum(map(length, self.rows)) / len(self.rows) * self.size * self.accumulate)

    @property
    def identity(self) -> str:
        # the rows are those of the data and the context, which the settings name
        return f"{self.size} at a time, in order {self.order}"

    def __call__(self, number: int) -> Batch:
        """A batch, which is one of several in its step."""
        step, i = divmod(number, self.accumulate)
        return together([self.drawn(step * self.accumulate + j) for j in range(self.accumulate)])[i]

    def drawn(self, number: int) -> list[Row]:
        epoch, i = divmod(number, len(self.rows) // self.size)
        order = np.random.default_rng([self.order, epoch]).permutation(len(self.rows))
        return [self.rows[row] for row in order[i * self.size :][: self.size]]


def token_loss(
    model: LanguageModel,
    tokens: Array,
    labels: Array | None = None,
    *,
    texts: Array | None = None,
    rng: Rng = None,
) -> Any:
    """Mean cross-entropy in nats of the token that follows each one.

    Parameters
    ----------
    model : LanguageModel
        What is trained or measured.
    tokens : ndarray of int, shape (batch, tokens)
        Each row is a text.
    labels : ndarray of int, shape (batch, tokens), optional
        The token that follows each of ``tokens``, or -100 where it does not count. By default all
        of ``tokens`` but the first follow all but the last.
    texts : ndarray of int, shape (batch, tokens), optional
        Which text each token belongs to, where a row holds more than one: a token sees only its
        own.
    rng : Generator, optional
        Switches dropout on.

    Returns
    -------
    Tensor or ndarray
        One number.

    Raises
    ------
    ValueError
        If no label counts, there is not one for each token, or one is not a token.
    TypeError
        If labels are not integers.

    Examples
    --------
    >>> from lora_np import language
    >>> austen = language.load("austen")
    >>> tokens = austen.vocabulary.encode("It is a truth universally acknowledged")
    >>> round(float(token_loss(austen, tokens[None])), 2)
    1.04
    """
    if labels is None:
        tokens, labels = tokens[:, :-1], tokens[:, 1:]
    labels = np.asarray(labels)
    counts = checked(labels, tokens, int(model.config["vocab_size"]))
    head = model.lm_head
    if (
        not isinstance(head, Linear)
        or head.b is not None
        or isinstance(head.W, Tensor)
        or model.cap
    ):
        return cross_entropy(model(tokens, texts=texts, rng=rng)[counts], labels[counts])
    hidden = model.model(tokens, texts=texts, rng=rng)
    return fused.head_loss(hidden, head.W, labels=labels)


def checked(labels: Array, tokens: Array, vocab: int) -> Array:
    """Which labels count, after checking them: a fused loss would index with an invalid one."""
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, got dtype {labels.dtype}")
    if labels.shape != np.shape(tokens):
        raise ValueError(
            f"labels must have the shape of tokens, {np.shape(tokens)}, got {labels.shape}"
        )
    counts: Array = labels != IGNORED
    chosen = labels[counts]
    if not chosen.size:
        raise ValueError(
            f"no token has a label to learn from: all {labels.size} labels are {IGNORED}"
        )
    if chosen.min() < 0 or chosen.max() >= vocab:
        wrong = chosen[(chosen < 0) | (chosen >= vocab)][0]
        raise ValueError(
            f"labels must be between 0 and {vocab - 1}, or {IGNORED} to be ignored, got {wrong}"
        )
    return counts


def windows(tokens: Array, context: int) -> Array:
    """A text in rows of ``context`` tokens and the next one: each token but the first is predicted
    once.

    Parameters
    ----------
    tokens : ndarray of int, shape (n,)
        A text.
    context : int
        Tokens in a row from which the next is predicted.

    Returns
    -------
    ndarray of int, shape (rows, context + 1)
        The last token of a row is the first of the next. A remainder too short for a row is left
        out.

    Raises
    ------
    ValueError
        If the text is too short for one row.

    Examples
    --------
    >>> windows(np.arange(8), context=3)
    array([[0, 1, 2, 3],
           [3, 4, 5, 6]])
    """
    rows = (len(tokens) - 1) // whole_number("context", context)
    if rows < 1:
        raise ValueError(
            f"the text has {len(tokens)} tokens, which is too short for a window of {context} and"
            " the token that follows: use a longer text, or a context of at most"
            f" {max(len(tokens) - 1, 1)}"
        )
    starts = np.arange(rows)[:, np.newaxis] * context
    result: Array = tokens[starts + np.arange(context + 1)]
    return result


def within(model: LanguageModel, context: int | None) -> int:
    """A number of tokens for which the model has positions; by default all of them, but no more
    than 256.
    """
    context = min(model.context, 256) if context is None else context
    return whole_number("context", context, maximum=model.context, top="the model's context")


@dataclass(frozen=True)
class Likelihood:
    """How well a model predicts a text: see `likelihood`.

    Parameters
    ----------
    loss : float
        Nats a token, the mean.
    tokens : int
        How many tokens were predicted.
    bits_per_byte : float
        Bits for each byte of the text in UTF-8, which compares models with different vocabularies.
    """

    loss: float
    tokens: int
    bits_per_byte: float

    @property
    def perplexity(self) -> float:
        """``exp(loss)``: the number of equally likely tokens among which choosing is as hard."""
        return math.exp(self.loss)


def likelihood(model: LanguageModel, text: str, *, context: int | None = None) -> Likelihood:
    """The mean loss of a model on ``text``, window by window, its perplexity, and bits per byte.

    Parameters
    ----------
    model : LanguageModel
        With a vocabulary.
    text : str
        What is predicted.
    context : int, optional
        Tokens in a window: by default, and at most, ``model.context``. Each window starts without
        the text before it. Only the first one starts with BOS, if the vocabulary puts one before a
        text.

    Returns
    -------
    Likelihood
        ``loss``, nats a token, the mean over all ``tokens``; ``perplexity``, its exponential; and
        ``bits_per_byte`` of the text in UTF-8, which compare models with different vocabularies.

    Raises
    ------
    ValueError
        If the text is shorter than one window or has characters outside the vocabulary, or
        ``context`` is more than the model's.

    Examples
    --------
    >>> from lora_np import language
    >>> austen = language.load("austen")
    >>> for name in ("austen-held-out", "genesis"):
    ...     print(name, round(likelihood(austen, language.read_text(name)[:3000]).perplexity, 1))
    austen-held-out 3.5
    genesis 5.6
    """
    context = within(model, model.context if context is None else context)
    vocabulary = vocabulary_of(model)
    tokens = vocabulary.encode(text)
    rows = [[page] for page in pages(tokens, context)]
    loss = mean_loss(model, in_batches(rows, max(1, AT_ONCE // context)))
    predicted = tokens[1 : 1 + context * len(rows)]
    n_bytes = len(vocabulary.decode(predicted).encode())
    return Likelihood(loss, predicted.size, loss * predicted.size / math.log(2) / max(n_bytes, 1))


def grams(model: LanguageModel, data: AnyData, *, context: int | None = None) -> dict[str, Array]:
    """``X.T @ X / n`` of the inputs X (n, k) of each linear layer, over the n tokens of ``data``.

    Parameters
    ----------
    model : LanguageModel
        With a vocabulary, and perhaps with adapters, which count.
    data : Data, str or sequence
        What `read_data` reads, a text, or examples, as for `finetune`.
    context : int, optional
        Tokens of a row; by default at most 256, as for `finetune`.

    Returns
    -------
    dict of str to ndarray of shape (k, k)
        By the path of each layer. Layers that are given the same inputs share an array.

    Raises
    ------
    ValueError
        If the data are too short or damaged, or have characters outside the vocabulary.

    See Also
    --------
    lora_np.adapters.combine : Takes one of these for each adapter ("regmean").
    lora_np.adapters.resize : Takes one, and minimises the error of outputs.

    Notes
    -----
    The mean, so that a long text counts no more than a short one. Memory does not grow with the
    data.

    Examples
    --------
    >>> from lora_np import language
    >>> found = grams(language.load("austen"), language.read_text("genesis")[:2000])
    >>> found["model.layers.0.self_attn.q_proj"].shape
    (128, 128)
    """
    rows = rows_of(model, data, context)
    found: dict[str, Array] = {}
    owners: dict[str, str] = {}  # of what several layers are given
    latest: tuple[str, Any] = "", None
    counts: Any = None

    def watched(path: str, layer: Linear) -> Any:
        def call(x: Array, **options: Any) -> Any:
            nonlocal latest
            if latest[1] is not x:
                latest, inputs = (path, x), x[counts]
                found[path] = found.get(path, 0.0) + (inputs.T @ inputs).astype(np.float64)
            owners[path] = latest[0]
            return layer(x, **options)

        return call

    seen, tokens = replace(merge(model), Linear, watched), 0
    for start in range(0, len(rows), ROWS):
        some = rows[start : start + ROWS]
        part = batch(some)
        counts = np.arange(part.tokens.shape[1]) < np.array([[length(row)] for row in some])
        seen(part.tokens, texts=part.texts)
        tokens += int(counts.sum())
    means = {path: gram / tokens for path, gram in found.items()}
    return {path: means[owner] for path, owner in owners.items()}


def bits_to_learn(model: LanguageModel, data: AnyData, *, floor: float = 0.0) -> float:
    """What data asks of an adapter: its learnt tokens, times the base's loss above a floor, in
    bits.

    Parameters
    ----------
    model : LanguageModel
        The base.
    data : Data, str or sequence
        As for `finetune`.
    floor : float
        The loss that is aimed at, in nats a token: 0 where all is to be known by heart.

    Returns
    -------
    float
        A number of bits. A loss below the floor asks nothing.

    Raises
    ------
    ValueError
        As for `finetune`.

    See Also
    --------
    lora_np.accounting.capacity : What an adapter can hold.

    Examples
    --------
    >>> from lora_np import language
    >>> model, text = language.load("austen"), language.read_text("genesis")[:1025]
    >>> 2000 < bits_to_learn(model, text) < 4000
    True
    """
    number("floor", floor, minimum=0)
    rows = rows_of(model, data, None)
    loss = mean_loss(model, in_batches(rows, ROWS))
    learnt = sum(document.learnt for row in rows for document in row)
    return learnt * max(loss - floor, 0.0) / math.log(2)


def rows_of(model: LanguageModel, data: AnyData, context: int | None) -> list[Row]:
    context = within(model, context)
    return packed(documents(as_data(data), model, context)[0], context)
