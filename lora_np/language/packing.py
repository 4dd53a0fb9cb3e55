"""Convert texts and examples to tokens, and pack them into rows with labels.

Documents in one row do not see one another, and the positions of each document begin at 0.
"""

from __future__ import annotations

import functools
from bisect import bisect_left, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from lora_np.autograd import Tensor
from lora_np.checks import Array, Rng, plain, whole_number
from lora_np.files import errors_at
from lora_np.language import composed, fused
from lora_np.language.composed import IGNORED, Operand
from lora_np.language.data import Choices, Completion, Conversation, Data
from lora_np.language.decoder import LanguageModel, vocabulary_of
from lora_np.language.generation import ends_of
from lora_np.language.templates import Template, shared
from lora_np.language.vocabulary import Vocabulary
from lora_np.nn import Linear, freeze

T = TypeVar("T")
B = TypeVar("B")
UNMARKED = "learnt: what the chat template adds for the assistant (it has no {% generation %})"
HELD_OUT = 10  # hold out one example in ten, or the last tenth of a continuous text


class Document(NamedTuple):
    """A document's tokens, and for each token whether the model should produce it."""

    tokens: Array  # (n,) int
    answer: Array  # (n,) bool

    @property
    def learnt(self) -> int:
        """The number of tokens in the loss; the first token is never predicted."""
        return int(self.answer[1:].sum())


class Batch(NamedTuple):
    """The arguments of `token_loss`, and the weight of this batch in the loss of its step."""

    tokens: Array  # (rows, n)
    labels: Array  # (rows, n)
    sequence_ids: Array | None  # (rows, n)
    share: float


Row = Sequence[Document]


def divided(
    data: Data, validation: Data | None, model: LanguageModel, max_length: int
) -> tuple[list[Document], list[Document], list[str]]:
    """Return training documents, held-out documents (from ``validation`` if given), and notes."""
    if validation is not None:
        learnt, notes = documents(data, model, max_length)
        held_out, more = documents(validation, model, max_length)
        return learnt, held_out, list(dict.fromkeys([*notes, *more]))
    if data.whole is not None:
        tokens = vocabulary_of(model).encode(data.whole)
        cut = min(len(tokens) * 9 // 10, len(tokens) - max_length - 1)
        if cut <= max_length:
            raise ValueError(
                f"the text has {len(tokens)} tokens, which is too short: training and the held-out"
                f" end need more than {max_length} each; use a longer text or a smaller max_length"
            )
        return pages(tokens[:cut], max_length), pages(tokens[cut:], max_length), []
    every, notes = documents(data, model, max_length)
    if len(every) < 2:
        raise ValueError(
            f"{data.source}: one example is too few, since one is held out to measure the loss"
        )
    step = min(HELD_OUT, len(every))
    return (
        [document for i, document in enumerate(every, 1) if i % step],
        every[step - 1 :: step],
        notes,
    )


def documents(
    data: Data, model: LanguageModel, max_length: int
) -> tuple[list[Document], list[str]]:
    """Encode data as documents, and return them with notes for the user.

    Examples are cut to ``max_length`` tokens, and left out if nothing in them is in the loss.
    """
    vocabulary, end = vocabulary_of(model), end_of(model)
    if data.whole is not None:
        return pages(vocabulary.encode(data.whole), max_length), []
    template = functools.cache(lambda: Template(vocabulary))
    whole: list[Document] = []
    unlabelled = 0
    for example, place in zip(data.examples, data.places, strict=True):
        with errors_at(f"{data.source}: {place}"):
            if isinstance(example, Choices):
                raise ValueError("multiple choice is for evaluate; nothing is learnt from it")
            if isinstance(example, Conversation):
                tokens, answer, left = template().labelled(*example)
                unlabelled += left
            else:
                tokens, answer = completed(example, vocabulary, end)
        whole.append(Document(tokens, answer))
    cut = [Document(tokens[:max_length], answer[:max_length]) for tokens, answer in whole]
    kept = [document for document in cut if document.learnt]
    if not kept:
        raise ValueError(
            f"{data.source}: nothing to learn in the first {max_length} tokens of an example"
        )
    longer = sum(len(document.tokens) > max_length for document in whole)
    empty = len(cut) - len(kept)
    kinds = {type(example) for example in data.examples}
    notes = {
        UNMARKED: Conversation in kinds and not template().marked,
        f"{unlabelled} answers are not learnt, since the template writes earlier turns"
        " differently": unlabelled,
        f"{longer} of {len(cut)} examples are longer than {max_length} tokens and were cut": longer,
        f"{empty} examples had nothing to learn in these tokens and were left out": empty,
        "examples have no end, since the vocabulary has no end token": (
            Completion in kinds and not end
        ),
    }
    return kept, [note for note, applies in notes.items() if applies]


def completed(example: Completion, vocabulary: Vocabulary, end: str) -> tuple[Array, Array]:
    """Encode a prompt with its completion and the end token; the prompt is not in the loss."""
    whole = example.prompt + example.text
    tokens = vocabulary.encode(whole if whole.endswith(end) else whole + end)
    return tokens, np.arange(len(tokens)) >= shared(vocabulary.encode(example.prompt), tokens)


def end_of(model: LanguageModel) -> str:
    """Return the text of the end token, or "" if the vocabulary has none."""
    vocabulary = vocabulary_of(model)
    ends = (vocabulary.decode([token]) for token in ends_of(model) if token < len(vocabulary))
    end = vocabulary.special.get("eos_token") or next(ends, "")
    return end if vocabulary.number(end) is not None else ""


def packed(documents: Sequence[Document], max_length: int) -> list[Row]:
    """Pack documents into rows of at most ``max_length`` tokens, longest first, by best fit.

    A window of a continuous text, which has one token more, fills a row. This is trl's strategy
    "bfd".
    """
    rows: list[Row] = []
    open_rows: list[tuple[int, int, list[Document]]] = []  # sorted by remaining space, then by age
    for age, document in enumerate(sorted(documents, key=lambda document: -len(document.tokens))):
        n = len(document.tokens)
        i = bisect_left(open_rows, (n,))
        if i < len(open_rows):
            space, _, row = open_rows.pop(i)
        else:
            space, row = max_length, []
            rows.append(row)
        row.append(document)
        if space > n:
            insort(open_rows, (space - n, age, row))
    return rows


def length(row: Row) -> int:
    """Count a row's tokens that predict a next token: all but the last of each document."""
    return sum(len(document.tokens) - 1 for document in row)


def pages(text: Array, max_length: int) -> list[Document]:
    """Cut a continuous text into documents, as `windows` does, with all tokens in the loss."""
    return [Document(row, np.ones(len(row), bool)) for row in windows(text, max_length)]


def marked(document: Document, vocabulary: Vocabulary) -> str:
    """Decode a document, with double brackets around the tokens that the model should produce."""
    cuts = np.flatnonzero(np.diff(document.answer)) + 1
    runs = zip(np.split(document.tokens, cuts), np.split(document.answer, cuts), strict=True)
    texts = ((vocabulary.decode(tokens), answer[0]) for tokens, answer in runs)
    return "".join(f"[[{text}]]" if learnt else text for text, learnt in texts)


def batch(rows: Sequence[Row], share: float = 1.0) -> Batch:
    """Arrange rows as arrays, padded on the right by tokens that have no labels."""
    width = max(map(length, rows))
    tokens, sequence_ids = np.zeros((2, len(rows), width), np.int64)
    labels = np.full_like(tokens, IGNORED)
    for i, row in enumerate(rows):
        begin = 0
        for text, document in enumerate(row, start=1):
            place = i, slice(begin, begin := begin + len(document.tokens) - 1)
            tokens[place] = document.tokens[:-1]
            labels[place] = np.where(document.answer[1:], document.tokens[1:], IGNORED)
            sequence_ids[place] = text
    return Batch(tokens, labels, None if sequence_ids.max() == 1 else sequence_ids, share)


def batch_loss(model: LanguageModel, batch: Batch, *, rng: Rng = None) -> Operand:
    """Compute a batch's mean loss times ``share``, its weight among the batches of a step."""
    loss = token_loss(model, batch.tokens, batch.labels, sequence_ids=batch.sequence_ids, rng=rng)
    return loss if batch.share == 1 else loss * batch.share


def together(parts: Sequence[Sequence[Row]]) -> list[Batch]:
    """Make a batch of each group of rows; the losses average to the mean over all labels."""
    learnt = [sum(document.learnt for row in rows for document in row) for rows in parts]
    return [
        batch(rows, n * len(parts) / sum(learnt)) for rows, n in zip(parts, learnt, strict=True)
    ]


def in_batches(rows: Sequence[Row], size: int) -> list[Batch]:
    """Split rows into batches of ``size`` rows; the last batch may have fewer."""
    return together([rows[i : i + size] for i in range(0, len(rows), size)])


def mean_loss(model: LanguageModel, batches: Sequence[Batch]) -> float:
    """Compute a model's mean loss over batches, without gradients."""
    frozen = freeze(model)
    return float(np.mean([batch_loss(frozen, part) for part in batches]))


@dataclass(frozen=True, eq=False)
class Shuffled(Generic[T, B]):
    """Batches of items, numbered consecutively and reshuffled every epoch.

    ``batches_of`` makes the batches of a step, ``order`` is a random seed, and ``settings``
    identify the run in a checkpoint.
    """

    items: Sequence[T]
    batches_of: Callable[[list[list[T]]], Sequence[B]]
    size: int
    accumulate: int
    order: int
    settings: Mapping[str, object]
    tokens: int | None = None  # tokens per step, on average

    @property
    def identity(self) -> str:
        # leave out the items, because `settings` already identifies the data
        return f"{self.size} at a time, in order {self.order}"

    def __call__(self, number: int) -> B:
        """Return the batch with this number; each step takes ``accumulate`` batches."""
        step, i = divmod(number, self.accumulate)
        first = step * self.accumulate
        return self.batches_of([self.drawn(first + j) for j in range(self.accumulate)])[i]

    def drawn(self, number: int) -> list[T]:
        """Return the items of the batch with this number."""
        epoch, i = divmod(number, len(self.items) // self.size)
        order = np.random.default_rng([self.order, epoch]).permutation(len(self.items))
        return [self.items[item] for item in order[i * self.size :][: self.size]]


def token_loss(
    model: LanguageModel,
    tokens: Array,
    labels: Array | None = None,
    *,
    sequence_ids: Array | None = None,
    rng: Rng = None,
) -> Operand:
    """Compute the mean cross-entropy of the next tokens, in nats.

    Parameters
    ----------
    model : LanguageModel
        The model to train or measure.
    tokens : ndarray of int, shape (batch, tokens)
        The tokens of a text in each row.
    labels : ndarray of int, shape (batch, tokens), optional
        The token that follows each of ``tokens``, or -100 to leave it out of the loss. By default,
        each token of a row but the first is the label of the token before it, if both are of the
        same sequence.
    sequence_ids : ndarray of int, shape (batch, tokens), optional
        The sequence of each token if rows hold several sequences: a token sees only its own.
    rng : Generator, optional
        A generator, which switches dropout on.

    Returns
    -------
    Tensor or ndarray
        The mean over all labels that are not -100.

    Raises
    ------
    ValueError
        If all labels are -100, the shapes of labels and tokens differ, or a label is not a token.
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
    tokens, labels, ids = labelled(tokens, labels, sequence_ids)
    log_p = log_probabilities(model, tokens, labels, sequence_ids=ids, rng=rng)
    result: Operand = -np.sum(log_p) / np.count_nonzero(labels != IGNORED)
    return result


def log_probabilities(
    model: LanguageModel,
    tokens: Array,
    labels: Array | None = None,
    *,
    sequence_ids: Array | None = None,
    rng: Rng = None,
) -> Operand:
    """Compute the log probability of the token that follows each token, in nats.

    Parameters
    ----------
    model : LanguageModel
        The model to train or measure.
    tokens : ndarray of int, shape (batch, tokens)
        The tokens of a text in each row.
    labels : ndarray of int, shape (batch, tokens), optional
        The token that follows each of ``tokens``, as for `token_loss`.
    sequence_ids : ndarray of int, shape (batch, tokens), optional
        The sequence of each token, as for `token_loss`.
    rng : Generator, optional
        A generator, which switches dropout on.

    Returns
    -------
    Tensor or ndarray of shape (batch, tokens)
        One number per label, 0 for labels of -100; without ``labels``, tokens - 1 numbers per row.
        `token_loss` is minus the mean of the others.

    Raises
    ------
    ValueError
        If all labels are -100, the shapes of labels and tokens differ, or a label is not a token.
    TypeError
        If labels are not integers.

    Examples
    --------
    >>> from lora_np import language
    >>> austen = language.load("austen")
    >>> tokens = austen.vocabulary.encode("Emma")
    >>> np.exp(log_probabilities(austen, tokens[None])).round(2)  # m, m, a
    array([[0.09, 0.82, 0.93]], dtype=float32)
    """
    tokens, labels, sequence_ids = labelled(tokens, labels, sequence_ids)
    check_labels(labels, tokens, int(model.config["vocab_size"]))
    head = model.lm_head
    if (
        not isinstance(head, Linear)
        or head.b is not None
        or isinstance(head.W, Tensor)
        or model.cap
    ):
        logits = model(tokens, sequence_ids=sequence_ids, rng=rng)
        return composed.log_probabilities(logits, labels)
    hidden = model.model(tokens, sequence_ids=sequence_ids, rng=rng)
    return fused.head_log_probabilities(hidden, head.W, labels=labels)


def labelled(
    tokens: Array, labels: Array | None, ids: Array | None
) -> tuple[Array, Array, Array | None]:
    """Return arguments of `token_loss`; by default, labels are the next tokens of a sequence."""
    tokens = plain("tokens", tokens)
    if tokens.ndim != 2:
        raise ValueError(f"tokens must have 2 axes, got shape {tokens.shape}")
    if labels is None:
        tokens, labels = tokens[:, :-1], tokens[:, 1:]
        if ids is not None:
            labels = np.where(np.diff(ids), IGNORED, labels)
            ids = plain("sequence_ids", ids)[:, :-1]
    return tokens, plain("labels", labels), ids


def check_labels(labels: Array, tokens: Array, vocab: int) -> None:
    """Validate labels, because the fused loss uses them as indices unchecked."""
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, got dtype {labels.dtype}")
    if labels.shape != np.shape(tokens):
        raise ValueError(
            f"labels must have the shape of tokens, {np.shape(tokens)}, got {labels.shape}"
        )
    chosen = labels[labels != IGNORED]
    if not chosen.size:
        raise ValueError(
            f"no token has a label to learn from: all {labels.size} labels are {IGNORED}"
        )
    if chosen.min() < 0 or chosen.max() >= vocab:
        wrong = chosen[(chosen < 0) | (chosen >= vocab)][0]
        raise ValueError(
            f"labels must be between 0 and {vocab - 1}, or {IGNORED} to be ignored, got {wrong}"
        )


def windows(tokens: Array, max_length: int) -> Array:
    """Cut a text into rows of ``max_length`` tokens plus the token that follows them.

    Parameters
    ----------
    tokens : ndarray of int, shape (n,)
        The tokens of a text.
    max_length : int
        The number of tokens in a row that predict the next one.

    Returns
    -------
    ndarray of int, shape (rows, max_length + 1)
        The last token of a row is the first of the next. A remainder too short for a row is left
        out.

    Raises
    ------
    ValueError
        If the text is too short for one row.

    Examples
    --------
    >>> windows(np.arange(8), max_length=3)
    array([[0, 1, 2, 3],
           [3, 4, 5, 6]])
    """
    tokens = plain("tokens", tokens)
    count = tokens.size
    rows = (count - 1) // whole_number("max_length", max_length)
    if rows < 1:
        raise ValueError(
            f"the text has {count} tokens, which is too short for {max_length} and the token"
            " that follows: use a longer text, or a max_length of at most"
            f" {max(count - 1, 1)}"
        )
    starts = np.arange(rows)[:, None] * max_length
    result: Array = tokens[starts + np.arange(max_length + 1)]
    return result


def within(model: LanguageModel, max_length: int | None) -> int:
    """Return ``max_length`` after validation; by default, the model's context, but at most 256."""
    max_length = min(model.context, 256) if max_length is None else max_length
    return whole_number("max_length", max_length, maximum=model.context, top="the model's context")
