"""Training on text: batches of tokens, the loss of the next token, and the likelihood of a text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_np.checks import Array, Rng, whole_number
from lora_np.language import composed, fused
from lora_np.language.composed import IGNORED
from lora_np.language.decoder import LanguageModel
from lora_np.language.vocabulary import Vocabulary
from lora_np.nn import Linear, cross_entropy, freeze

AT_ONCE = 4096  # tokens, where nothing is trained


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
        The token that follows each of ``tokens``, or -100 where it does not count. By default all of
        ``tokens`` but the first follow all but the last.
    texts : ndarray of int, shape (batch, tokens), optional
        Which text each token belongs to, where a row holds more than one: a token sees only its own.
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
    if not isinstance(head, Linear) or head.b is not None or model.cap:
        return cross_entropy(model(tokens, texts=texts, rng=rng)[counts], labels[counts])
    loss = fused.head_loss if model.model.last.fused else composed.head_loss
    hidden = model.model(tokens, texts=texts, rng=rng)
    return loss(hidden, head.W, labels=labels)


def checked(labels: Array, tokens: Array, vocab: int) -> Array:
    """Which labels count, after checking them: a fused loss would index with an invalid one."""
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, got dtype {labels.dtype}")
    if labels.shape != np.shape(tokens):
        raise ValueError(f"labels must have the shape of tokens, {np.shape(tokens)}, got {labels.shape}")
    counts: Array = labels != IGNORED
    chosen = labels[counts]
    if not chosen.size:
        raise ValueError(f"no token has a label to learn from: all {labels.size} labels are {IGNORED}")
    if chosen.min() < 0 or chosen.max() >= vocab:
        wrong = chosen[(chosen < 0) | (chosen >= vocab)][0]
        raise ValueError(f"labels must be between 0 and {vocab - 1}, or {IGNORED} to be ignored, got {wrong}")
    return counts


def windows(tokens: Array, context: int) -> Array:
    """A text in rows of ``context`` tokens and the next one: each token but the first is predicted once.

    Parameters
    ----------
    tokens : ndarray of int, shape (n,)
        A text.
    context : int
        Tokens in a row from which the next is predicted.

    Returns
    -------
    ndarray of int, shape (rows, context + 1)
        The last token of a row is the first of the next. A remainder too short for a row is left out.

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
            f"the text has {len(tokens)} tokens, which is too short for a window of {context} and the token "
            f"that follows: use a longer text, or a context of at most {max(len(tokens) - 1, 1)}"
        )
    starts = np.arange(rows)[:, np.newaxis] * context
    result: Array = tokens[starts + np.arange(context + 1)]
    return result


def within(model: LanguageModel, context: int) -> int:
    """A number of tokens for which the model has positions."""
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
        Tokens in a window: by default, and at most, ``model.context``. Each window starts without the text
        before it. Only the first one starts with BOS, if the vocabulary puts one before a text.

    Returns
    -------
    Likelihood
        ``loss``, nats a token, the mean over all ``tokens``; ``perplexity``, its exponential; and
        ``bits_per_byte`` of the text in UTF-8, which compare models with different vocabularies.

    Raises
    ------
    ValueError
        If the text is shorter than one window or has characters outside the vocabulary, or ``context`` is
        more than the model's.

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
    rows = windows(vocabulary_of(model).encode(text), context)
    loss = mean_loss(freeze(model), rows)
    predicted = rows[:, 1:]
    n_bytes = len(vocabulary_of(model).decode(predicted.ravel()).encode())
    return Likelihood(loss, predicted.size, loss * predicted.size / math.log(2) / max(n_bytes, 1))


def mean_loss(model: LanguageModel, rows: Array) -> float:
    """Loss of a frozen model over windows, some at a time."""
    step = max(1, AT_ONCE // rows.shape[1])
    parts = (rows[i : i + step] for i in range(0, len(rows), step))
    return sum(float(token_loss(model, part)) * len(part) for part in parts) / len(rows)


def vocabulary_of(model: LanguageModel) -> Vocabulary:
    if model.vocabulary is None:
        raise ValueError("this model has no vocabulary: there was no tokenizer.json in its directory")
    vocabulary: Vocabulary = model.vocabulary
    return vocabulary
