"""Examples as tokens of which some are learnt, packed into rows, and batches of rows.

Each document keeps to itself: none sees another, and positions begin anew in each.
"""

from __future__ import annotations

import functools
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lora_np.checks import Array, Rng
from lora_np.language.composed import IGNORED
from lora_np.language.data import Completion, Conversation, Data, at
from lora_np.language.decoder import LanguageModel
from lora_np.language.generation import ends_of
from lora_np.language.templates import Template, shared
from lora_np.language.text import token_loss, vocabulary_of, windows
from lora_np.language.vocabulary import Vocabulary

UNMARKED = "learnt: what the chat template adds for the assistant (it has no {% generation %})"
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
    """What `token_loss` takes, and the share of these labels in those of a step, times its batches."""

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
        (learnt, notes), (held, more) = (documents(each, model, context) for each in (data, validation))
        return learnt, held, list(dict.fromkeys([*notes, *more]))
    if data.whole is not None:
        tokens = vocabulary_of(model).encode(data.whole)
        cut = min(len(tokens) * 9 // 10, len(tokens) - context - 1)
        if cut <= context:
            raise ValueError(
                f"the text has {len(tokens)} tokens, which is too short: training and the held-out end need "
                f"more than a window of {context} each; use a longer text or a smaller context"
            )
        return pages(tokens[:cut], context), pages(tokens[cut:], context), []
    found, notes = documents(data, model, context)
    if len(found) < 2:
        raise ValueError(f"{data.source}: one example is too few, since one is held out to measure the loss")
    every = min(HELD_OUT, len(found))
    return [each for i, each in enumerate(found, start=1) if i % every], found[every - 1 :: every], notes


def documents(data: Data, model: LanguageModel, context: int) -> tuple[list[Document], list[str]]:
    """The examples as documents of at most ``context`` tokens, and what people should know of them."""
    vocabulary, end = vocabulary_of(model), end_of(model)
    if data.whole is not None:
        return pages(vocabulary.encode(data.whole), context), []
    template = functools.cache(lambda tools: Template(vocabulary, tools=tools))
    found: list[Document] = []
    notes: Counter[str] = Counter()
    for example, place in zip(data.examples, data.places, strict=True):
        with at(f"{data.source}: {place}"):
            if isinstance(example, Conversation):
                written = template(bool(example.tools))
                tokens, answer, left = written.labelled(*example)
                notes[UNMARKED] += not written.marked
                notes["# answers are not learnt, since the template writes earlier turns differently"] += left
            else:
                tokens, answer = completed(example, vocabulary, end)
        found.append(Document(tokens[:context], answer[:context]))
        cut = f"# of {len(data.examples)} examples are longer than {context} tokens and were cut"
        notes[cut] += len(tokens) > context
    kept = [document for document in found if document.learnt]
    if not kept:
        raise ValueError(f"{data.source}: nothing to learn in the first {context} tokens of an example")
    notes["# examples had nothing to learn in these tokens and were left out"] = len(found) - len(kept)
    plain = any(isinstance(example, Completion) for example in data.examples)
    notes["examples have no end, since the vocabulary has no end token"] = plain and not end
    return kept, [note.replace("#", str(n)) for note, n in notes.items() if n]


def completed(example: Completion, vocabulary: Vocabulary, end: str) -> tuple[Array, Array]:
    """Tokens of a prompt and what follows it, with the end of a text; they are learnt where the two part."""
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
    """Documents side by side in rows of at most ``context`` tokens: each where it fits best, longest first.

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
    """Rows as arrays. What is left of a row has no labels, and comes last, where no document sees it."""
    width = max(map(length, rows))
    tokens, texts = np.zeros((2, len(rows), width), np.int64)
    labels = np.full_like(tokens, IGNORED)
    for i, row in enumerate(rows):
        start = 0
        for number, document in enumerate(row, start=1):
            place = i, slice(start, start := start + len(document.tokens) - 1)
            tokens[place] = document.tokens[:-1]
            labels[place] = np.where(document.answer[1:], document.tokens[1:], IGNORED)
            texts[place] = number
    return Batch(tokens, labels, None if texts.max() == 1 else texts, share)


def batch_loss(model: LanguageModel, batch: Batch, *, rng: Rng = None) -> Any:
    """The loss that, averaged over the batches of a step, is the mean over all their labels."""
    loss = token_loss(model, batch.tokens, batch.labels, texts=batch.texts, rng=rng)
    return loss if batch.share == 1 else loss * batch.share


def together(parts: Sequence[Sequence[Row]]) -> list[Batch]:
    """Batches whose losses average to the mean over all labels."""
    learnt = [sum(document.learnt for row in rows for document in row) for rows in parts]
    return [batch(rows, n * len(parts) / sum(learnt)) for rows, n in zip(parts, learnt, strict=True)]


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
